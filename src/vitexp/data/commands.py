"""`vitexp shards`: make, verify, info, index. Only the standard library is imported before a command runs."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOUND_PROBLEMS = 1


def add_commands(subparsers: Any) -> None:
    """Adds the verb `shards`; each of its commands sets `run`."""
    verb = subparsers.add_parser("shards", help="make, verify, describe or index a directory of shards")
    commands = verb.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_make(commands)
    _add_verify(commands)
    _add_info(commands)
    _add_index(commands)


def _add_make(commands: Any) -> None:
    make = commands.add_parser(
        "make",
        help="write a data set as WebDataset shards with their index",
        description="Writes a data set as WebDataset shards: the same bytes every time, whole or not at all. A stopped "
        "run goes on where it was when the command is given again.",
    )
    make.add_argument(
        "source",
        metavar="SOURCE",
        help="digits, cifar10, cifar100, mnist, fashion-mnist, hf:NAME, a folder or .tar of class folders (with train/ "
        "and test/ above them, or not), or an .npz with x_train, y_train, x_test, y_test",
    )
    make.add_argument("out", metavar="OUT", type=Path, help="the directory to write, such as shards/cifar10")
    make.add_argument("--folder", type=Path, help="where the official files lie, or go (default: downloads/SOURCE)")
    make.add_argument("--download", action="store_true", help="fetch the official files where they are missing")
    make.add_argument("--seed", type=int, default=0, help="of the one shuffle, kept in recipe.json (default: 0)")
    make.add_argument(
        "--shard-images", type=int, default=10_000, help="at most so many images a shard (default: 10000)"
    )
    make.add_argument("--shard-bytes", type=int, default=10**9, help="at most so many bytes a shard (default: 10^9)")
    make.add_argument(
        "--test-fraction",
        type=float,
        help="held out of train as test, class by class (default: 0.2 where the source has neither test nor val)",
    )
    make.add_argument(
        "--val-fraction",
        type=float,
        help="held out of train as val, class by class (default: none; data.val_fraction holds out at training time)",
    )
    make.add_argument("--max-bad", type=int, default=0, help="unreadable images that may be left out (default: 0)")
    make.add_argument("--no-check", action="store_true", help="do not decode every image on the way")
    make.add_argument("--workers", type=int, default=0, help="encoding threads (default: one a processor)")
    make.set_defaults(run=_make)


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="check shards against their index: checksums, counts, every image decoded",
        description="Checks shards against their index and decodes every image. Prints all problems; status 1 if any.",
    )
    verify.add_argument("directory", metavar="DIR", type=Path)
    verify.add_argument("--no-decode", action="store_true", help="checksums, samples and headers only")
    verify.add_argument("--workers", type=int, default=0, help="threads (default: one a processor)")
    verify.set_defaults(run=_verify)


def _add_info(commands: Any) -> None:
    info = commands.add_parser("info", help="print counts, classes and sizes of a directory of shards")
    info.add_argument("directory", metavar="DIR", type=Path)
    info.add_argument("--contact-sheet", metavar="PNG", type=Path, help="draw a few training images of each class")
    info.set_defaults(run=_info)


def _add_index(commands: Any) -> None:
    index = commands.add_parser("index", help="make the index of shards that were written elsewhere")
    index.add_argument("directory", metavar="DIR", type=Path)
    index.add_argument("--workers", type=int, default=0, help="threads (default: one a processor)")
    index.set_defaults(run=_index)


def _make(chosen: argparse.Namespace) -> int:
    from vitexp.data.shards.write import Layout, make
    from vitexp.data.sources.named import open_source

    layout = Layout(
        seed=chosen.seed,
        shard_images=chosen.shard_images,
        shard_bytes=chosen.shard_bytes,
        test_fraction=chosen.test_fraction,
        val_fraction=chosen.val_fraction,
        max_bad=chosen.max_bad,
        check=not chosen.no_check,
    )
    source = open_source(chosen.source, chosen.folder, chosen.download)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    images = sum(len(split) for split in source.splits.values())
    with _progress(f"writing {source.name}", images) as report:
        make(source, chosen.out, layout=layout, workers=chosen.workers, report=report)
    _print_summary(chosen.out)
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    from vitexp.data.shards.index import open_shards
    from vitexp.data.shards.layout import find_shards
    from vitexp.data.shards.verify import verify

    images = sum(len(open_shards(chosen.directory, split)) for split in find_shards(chosen.directory).splits)
    with _progress(f"verifying {chosen.directory}", images) as report:
        found = verify(chosen.directory, decode=not chosen.no_decode, workers=chosen.workers, report=report)
    for problem in found.problems:
        print(problem)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{chosen.directory}: {found.images:,} images, {len(found.problems) or 'no'} problems")
    return FOUND_PROBLEMS if found.problems else 0


def _info(chosen: argparse.Namespace) -> int:
    from vitexp.data.info import contact_sheet, describe

    print(describe(chosen.directory))
    if chosen.contact_sheet:
        print(f"contact sheet: {contact_sheet(chosen.directory, chosen.contact_sheet)}")
    return 0


def _index(chosen: argparse.Namespace) -> int:
    from vitexp.data.shards.index import index_shards
    from vitexp.data.shards.layout import find_shards

    shards = sum(map(len, find_shards(chosen.directory).splits.values()))
    with _progress(f"indexing {chosen.directory}", shards) as report:
        index_shards(chosen.directory, workers=chosen.workers, report=report)
    _print_summary(chosen.directory)
    return 0


def _print_summary(directory: Path) -> None:
    from vitexp.data.info import notes, summary

    print(summary(directory))
    for note in notes(directory):
        print(f"note: {note}", file=sys.stderr)


@contextmanager
def _progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, nothing in a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task(task, total=total)
        yield lambda images: bar.advance(row, images)
