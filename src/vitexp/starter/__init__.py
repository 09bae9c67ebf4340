"""Experiments, recipes and sweeps of the repository, for those who installed the package: `vitexp init` writes them.

The folders in this one are links to those at the top of the repository; a wheel holds the files.
"""

from argparse import Namespace
from pathlib import Path

from vitexp.record import write_atomically
from vitexp.words import listed

FOLDERS = ("experiments", "recipes", "sweeps")
_HERE = Path(__file__).parent
_MOST_NAMED = 3


def path(folder: str, name: str) -> Path:
    """The file of that name in one of the folders, wherever the package is installed."""
    return _HERE / folder / name


def run(chosen: Namespace) -> None:
    """`vitexp init`: writes what is missing.

    Raises: ValueError when a file is there with other content; then nothing is written.
    """
    found = [path for folder in FOLDERS for path in sorted((_HERE / folder).glob("[!.]*")) if path.is_file()]
    files = {chosen.directory / path.relative_to(_HERE): path.read_bytes() for path in found}
    if not files:
        raise ValueError(f"{_HERE} lacks its folders; install vitexp again, from a wheel or a git clone")
    theirs = [str(path.relative_to(chosen.directory)) for path in files if not _is_free(path, files[path])]
    if theirs:
        raise ValueError(
            f"{chosen.directory} has another {listed(theirs, _MOST_NAMED)}; nothing was written: "
            "rename yours, or give an empty folder"
        )
    missing = [path for path in files if not path.exists()]
    for path in missing:
        write_atomically(path, files[path])
    where = ", ".join(f"{folder}/" for folder in FOLDERS)
    print(f"{chosen.directory}: {f'{len(missing)} files written to {where}' if missing else 'complete'}")
    print("next, in that folder: vitexp fit --config experiments/pos_ablation.yaml")


def _is_free(path: Path, content: bytes) -> bool:
    """Whether `content` can stand at `path` without anything being lost."""
    if path.exists():
        return path.is_file() and path.read_bytes() == content
    return path.parent.is_dir() or not path.parent.exists()
