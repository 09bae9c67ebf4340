"""`vitexp shards`: make, verify, info, index. Imported when one is called."""

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from vitexp.data.info import contact_sheet, copies, describe, document, notes, open_splits, summary, verify
from vitexp.data.shards.index import index_shards
from vitexp.data.shards.layout import find_shards
from vitexp.data.shards.write import Layout, make
from vitexp.data.sources.named import open_source, progress_bar
from vitexp.json_text import as_text


def run_make(chosen: argparse.Namespace) -> int:
    """Writes the shards of a data set."""
    options = {field.name: getattr(chosen, field.name) for field in fields(Layout) if field.name != "check"}
    layout = Layout(check=not chosen.no_check, **options)
    source = open_source(chosen.source, chosen.folder, chosen.download)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    with _progress(f"writing {source.name}", sum(map(len, source.splits.values()))) as report:
        make(source, chosen.out, layout=layout, workers=chosen.workers, report=report)
    _print_summary(chosen.out)
    for note in copies(open_splits(chosen.out)):
        print(f"note: {note}", file=sys.stderr)
    return 0


def run_verify(chosen: argparse.Namespace) -> int:
    """Checks shards; status 1 if there are problems."""
    indexes = open_splits(chosen.directory)
    with _progress(f"verifying {chosen.directory}", sum(map(len, indexes.values()))) as report:
        found = verify(indexes, decode=not chosen.no_decode, workers=chosen.workers, report=report)
    for line in (*found.problems, *(f"note: {note}" for note in found.notes)):
        print(line)
    print(f"{chosen.directory}: {found.images:,} images, {len(found.problems) or 'no'} problems")
    return 1 if found.problems else 0


def run_info(chosen: argparse.Namespace) -> int:
    """Describes a directory of shards."""
    text = as_text(document(chosen.directory)) if chosen.json else describe(chosen.directory)
    drawn = contact_sheet(chosen.directory, chosen.contact_sheet) if chosen.contact_sheet else None
    print(text)
    if drawn and not chosen.json:
        print(f"contact sheet: {drawn}")
    return 0


def run_index(chosen: argparse.Namespace) -> int:
    """Writes the index of shards that have none."""
    shards = sum(map(len, find_shards(chosen.directory).splits.values()))
    with _progress(f"indexing {chosen.directory}", shards) as report:
        index_shards(chosen.directory, workers=chosen.workers, report=report)
    _print_summary(chosen.directory)
    return 0


def _print_summary(directory: Path) -> None:
    indexes = open_splits(directory)
    print(summary(indexes, directory))
    for note in notes(indexes):
        print(f"note: {note}", file=sys.stderr)


def _progress(task: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return progress_bar(task, total, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
