"""The experiments and sweeps of the repository, for those who installed the package: `vitexp init DIR` writes them.

`experiments` and `sweeps` in this folder are links to those at the top of the repository; a wheel holds the files.
"""

from argparse import Namespace
from pathlib import Path

from vitexp.record import write_atomically

FOLDERS = ("experiments", "sweeps")
_HERE = Path(__file__).parent
_MOST_NAMED = 3


def run(chosen: Namespace) -> None:
    """`vitexp init`."""
    directory: Path = chosen.directory
    written = init(directory)
    print(f"{directory}: {written} files written to experiments/ and sweeps/" if written else f"{directory}: complete")
    print("next, in that folder: vitexp fit --config experiments/pos_ablation.yaml")


def init(directory: Path) -> int:
    """Writes what is missing in `directory`; returns how many files that were.

    Raises: ValueError when a file is there with other content; then nothing is written.
    """
    files = starter_files()
    theirs = [name for name, content in files.items() if not _is_free(directory / name, content)]
    if theirs:
        more = f" and {len(theirs) - _MOST_NAMED} more" if len(theirs) > _MOST_NAMED else ""
        raise ValueError(
            f"{directory} has another {', '.join(theirs[:_MOST_NAMED])}{more}; nothing was written: "
            "rename yours, or give an empty folder"
        )
    missing = {name: content for name, content in files.items() if not (directory / name).exists()}
    for name, content in missing.items():
        write_atomically(directory / name, content)
    return len(missing)


def starter_files() -> dict[str, bytes]:
    """What `init` writes, by its path below the folder.

    Raises: ValueError when the installation lacks the files.
    """
    found = {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in FOLDERS
        if (_HERE / folder).is_dir()
        for path in sorted((_HERE / folder).iterdir())
        if path.is_file() and not path.name.startswith(".")
    }
    if not found:
        raise ValueError(f"{_HERE} lacks the experiments and sweeps; install vitexp again, from a wheel or a git clone")
    return found


def _is_free(path: Path, content: bytes) -> bool:
    """Whether `content` can stand at `path` without anything being lost."""
    if path.exists():
        return path.is_file() and path.read_bytes() == content
    return path.parent.is_dir() or not path.parent.exists()
