"""Finished cells that other code has made: what differs from today's, and where their folders go to run again."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vitexp.record import RunRecord
from vitexp.source import package_versions, source_hash
from vitexp.study import lock

Stale = Literal["keep", "rerun"]


def differences(record: RunRecord) -> list[str]:
    """What made this record and is not what would make it today; nothing where source and versions are the same."""
    source = record.code.get("source")
    found = [] if source == source_hash() else ["other source code" if source else "source code not recorded"]
    now = package_versions()
    return found + [
        f"{name} {version}, now {now[name]}"
        for name, version in record.versions.items()
        if name in now and version != now[name]
    ]


def line(records: Sequence[RunRecord], stale: Stale) -> str | None:
    """One line about the finished cells that other code has made; None where there are none."""
    found = [kinds for record in records if (kinds := differences(record))]
    if not found:
        return None
    counts = Counter(kind for kinds in found for kind in kinds)
    words = "; ".join(f"{kind} ({count})" for kind, count in counts.items())
    what = "set aside and trained again" if stale == "rerun" else "kept (--stale rerun sets them aside and trains anew)"
    return f"{len(found)} of {len(records)} finished cells were not made by today's code: {words}; they are {what}"


def set_aside(directory: str | Path, root: str | Path) -> Path | None:
    """Moves a run directory to the folder ROOT-aside, where no table looks for records; nothing is deleted.

    Returns the new place, or None when another process holds the directory.
    """
    directory, root = Path(directory).absolute(), Path(root).absolute()
    inner = directory.relative_to(root) if directory.is_relative_to(root) else Path(directory.name)
    target = root.with_name(f"{root.name}-aside") / inner
    held = lock.acquire(directory)
    if held is None:
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        places = [target, *(target.with_name(f"{target.name}-{number}") for number in range(1, 1000))]
        free = next(place for place in places if not place.exists())
        directory.rename(free)
        (free / lock.HOLDER_NAME).unlink(missing_ok=True)
    finally:
        lock.release(held)
    return free
