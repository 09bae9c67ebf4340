"""The answers to single images of runs on W&B: an artifact of each run, of which the files that its record names are
downloaded once. They are bits, and count only with the digests in the record: nothing from a server is unpickled.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from vitexp.bits import ANSWERS, answers_file
from vitexp.record import RunRecord, cache_root

_MOST_IMAGES = 10**8
"""In one file, of 12.5 MB then."""
_AT_ONCE = 8
"""Files of a run that are downloaded at the same time."""


def with_answers(
    runs: Iterable[tuple[str, RunRecord]], entity: str, project: str, seconds: int
) -> tuple[tuple[RunRecord, ...], tuple[str, ...]]:
    """The records of runs, given with their ids on W&B, with the folder of their answers; a note if some lack it.

    `seconds` is how long one question to the server may take. Files are kept below `cache_root`.
    """
    import wandb

    found: list[RunRecord] = []
    missing: list[str] = []
    api, lost = None, None
    host = urlsplit(wandb.setup().settings.base_url).netloc.replace(":", "-")
    for run, record in runs:
        folder = cache_root() / "wandb" / host / entity / project / run
        named = record.answers if record.status == "finished" else {}
        try:
            if wanted := [name for name in named if not _is_whole(folder, record, name)]:
                if lost:  # the client waits for minutes, and is asked for each run
                    raise lost
                with redirect_stderr(StringIO()):  # what the client says to the terminal
                    api = api or wandb.Api(timeout=seconds)
                    artifact = api.artifact(f"{entity}/{project}/{ANSWERS}-{run}:latest", type=ANSWERS)
                    _download(artifact, record, wanted, folder)
        except (wandb.errors.Error, ValueError, OSError) as error:
            lost = error if isinstance(error, OSError) else lost
            missing.append(f"{run} ({' '.join(str(error).split()) or type(error).__name__})")
            found.append(record)
        else:
            found.append(replace(record, directory=str(folder)) if named else record)
    none = f"W&B gave no answers to single images of {len(missing)} of {len(found)} runs, so their arms have intervals"
    return tuple(found), (f"{none} over seeds alone; the first is {missing[0]}",) if missing else ()


def _is_whole(folder: Path, record: RunRecord, name: str) -> bool:
    """Whether the answers lie there already, as they were written with the record."""
    try:
        return bool(answers_file(folder, record, name))
    except ValueError:
        return False


def _download(artifact: Any, record: RunRecord, names: list[str], folder: Path) -> None:
    """Gets the files of these answers. Raises: ValueError for one that is absent, or not what the record says."""
    entries = [_entry(artifact, record.answers[name]) for name in names]
    for entry in entries:
        (folder / entry.path).unlink(missing_ok=True)  # the client trusts what it once took for whole
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda entry: entry.download(root=str(folder)), entries))
    for name in names:
        answers_file(folder, record, name)


def _entry(artifact: Any, answer: Mapping[str, Any]) -> Any:
    """The file of one answer in the artifact."""
    place, images = PurePosixPath(str(answer.get("file"))), answer.get("images")
    inside = place.parts[0] == ANSWERS and ".." not in place.parts and str(place) in artifact.manifest.entries
    entry = artifact.get_entry(str(place)) if inside else None
    if entry is None or entry.ref is not None:
        raise ValueError(f"the artifact {artifact.name} holds no file {place}")
    if type(images) is not int or not 0 < images <= _MOST_IMAGES or entry.size != (images + 7) // 8:
        raise ValueError(f"{place} in the artifact {artifact.name} has {entry.size} bytes for {images} images")
    return entry
