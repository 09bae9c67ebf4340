"""Which data sets of a study belong together."""

from collections.abc import Mapping, Sequence

SHARDS = "data.shards"


def check_groups(groups: Mapping[str, Sequence[str]], sets: Sequence[object]) -> None:
    """Accepts groups that hold every data set of the study once. Raises: ValueError otherwise."""
    named = [name for names in groups.values() for name in names]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"study.groups names {twice[0]} twice; a data set belongs to one group")
    if astray := [str(name) for name in sets if name not in named]:
        raise ValueError(f"study.groups has no place for {astray[0]}, a value of {SHARDS}; put it into a group")
    if absent := [name for name in named if name not in sets]:
        raise ValueError(f"study.groups names {absent[0]}, which is no value of {SHARDS}")
