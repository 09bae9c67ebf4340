"""Names of classes: which of a network's are those of a data set."""

from collections import Counter
from collections.abc import Sequence

_SHOWN = 8


def class_places(known: Sequence[str], given: Sequence[str], data: str, network: str) -> list[int]:
    """The network's class for each label of a data set.

    Raises: ValueError for a class that the network does not know, and for names that stand for several classes.
    """
    if list(known) == list(given):
        return list(range(len(given)))
    place = {name: number for number, name in enumerate(known)}
    unknown = [name for name in given if name not in place]
    if unknown:
        raise ValueError(
            f"{data} has classes that the network of {network} does not know: {listed(unknown)}; it knows "
            f"{listed(known)}: give a set that names them so (classes.txt beside the shards), or fine-tune the network"
        )
    for names in (known, given):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(
                f"the classes of {data} cannot be matched by name with those of {network}: {listed(twice)} stands for "
                "several classes; give each its own name in classes.txt beside the shards"
            )
    return [place[name] for name in given]


def check_resumed(known: Sequence[str] | None, given: Sequence[str]) -> None:
    """Training goes on with the classes that it began with. Raises: ValueError."""
    if known is not None and list(known) != list(given):
        raise ValueError(
            f"the checkpoint's classes are {listed(known)}, and those of the data {listed(given)}: training goes on "
            "with the same classes in the same order; --run.init takes the weights and begins a new head"
        )


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
