"""`vitexp shards`: make, verify, info, index. Only a call of one imports what it needs."""

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

FOUND_PROBLEMS = 1


def run_make(chosen: argparse.Namespace) -> int:
    """Writes the shards of a data set."""
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


def run_verify(chosen: argparse.Namespace) -> int:
    """Checks shards; status 1 if there are problems."""
    from vitexp.data.info import open_splits, verify

    indexes = open_splits(chosen.directory)
    with _progress(f"verifying {chosen.directory}", sum(map(len, indexes.values()))) as report:
        found = verify(indexes, decode=not chosen.no_decode, workers=chosen.workers, report=report)
    for problem in found.problems:
        print(problem)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{chosen.directory}: {found.images:,} images, {len(found.problems) or 'no'} problems")
    return FOUND_PROBLEMS if found.problems else 0


def run_info(chosen: argparse.Namespace) -> int:
    """Describes a directory of shards."""
    from vitexp.data.info import contact_sheet, describe

    print(describe(chosen.directory))
    if chosen.contact_sheet:
        print(f"contact sheet: {contact_sheet(chosen.directory, chosen.contact_sheet)}")
    return 0


def run_index(chosen: argparse.Namespace) -> int:
    """Writes the index of shards that have none."""
    from vitexp.data.shards.index import index_shards
    from vitexp.data.shards.layout import find_shards

    shards = sum(map(len, find_shards(chosen.directory).splits.values()))
    with _progress(f"indexing {chosen.directory}", shards) as report:
        index_shards(chosen.directory, workers=chosen.workers, report=report)
    _print_summary(chosen.directory)
    return 0


def _print_summary(directory: Path) -> None:
    from vitexp.data.info import notes, open_splits, summary

    indexes = open_splits(directory)
    print(summary(indexes, directory))
    for note in notes(indexes):
        print(f"note: {note}", file=sys.stderr)


def _progress(task: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    from vitexp.data.sources.named import progress_bar

    return progress_bar(task, total, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
