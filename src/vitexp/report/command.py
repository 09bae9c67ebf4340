"""The commands that read records: table, curve, report, claims, diff. Matplotlib is imported where they draw."""

import argparse
import json
from typing import Any

from vitexp.report.claims import write_claims
from vitexp.report.compare_text import document, show_comparison
from vitexp.report.diff import show_difference
from vitexp.report.markup import visible
from vitexp.report.tables import Written, print_written, show, write_table
from vitexp.study.claims.verdicts import judge_claims
from vitexp.study.compare import STATUSES, compare
from vitexp.study.select import parse_where, read_sweep


def show_table(chosen: argparse.Namespace) -> int:
    """Prints and writes the table of a study."""
    inputs = _inputs(chosen)
    written = write_table(**inputs)
    if chosen.figure:
        from vitexp.report.draw_dots import write_dots

        written = Written(written.renderable, (*written.paths, *write_dots(**inputs)))
    print_written(written)
    return 0


def show_curve(chosen: argparse.Namespace) -> int:
    """Draws and writes the curve of a study."""
    from vitexp.report.draw_curve import write_curve

    print_written(write_curve(**_inputs(chosen)))
    return 0


def show_report(chosen: argparse.Namespace) -> int:
    """Writes the HTML report of a study."""
    from vitexp.report.html import write_html

    print(visible(f"Written: {write_html(**_inputs(chosen))}"))
    return 0


def show_claims(chosen: argparse.Namespace) -> int:
    """Prints and writes the verdicts on the claims."""
    paths, read = chosen.paths, []
    if chosen.source:
        chosen.file, *paths = chosen.paths or [None]
        read.append(_study_and_runs(chosen))
    print_written(write_claims(judge_claims(paths, chosen.root, read), chosen.results))
    return 0


def show_diff(chosen: argparse.Namespace) -> int:
    """Prints two runs beside each other."""
    show(show_difference(chosen.one, chosen.other))
    return 0


def show_compared(chosen: argparse.Namespace) -> int:
    """Compares two arms; the exit status is the verdict."""
    found = compare(
        chosen.base,
        chosen.candidate,
        metric=chosen.metric,
        margin=chosen.margin,
        such=chosen.images == "such",
        ledger=chosen.ledger,
        candidates=chosen.candidates,
    )
    if chosen.json:
        print(json.dumps(document(found), indent=1, default=str))
    else:
        show(show_comparison(found))
    return STATUSES[found.verdict]


def _inputs(chosen: argparse.Namespace) -> dict[str, Any]:
    study, runs = _study_and_runs(chosen)
    return {"sweep": study, "runs": runs, "results": chosen.results, "where": parse_where(chosen.where)}


def _study_and_runs(chosen: argparse.Namespace) -> tuple[Any, Any]:
    """The study and where its runs are: a file and a folder, or both from W&B.

    Raises: ValueError when neither is named, or --from is given something else than a W&B sweep.
    """
    if not chosen.source:
        if chosen.file:
            return chosen.file, chosen.root
        raise ValueError("no study is named; give its sweep file, or --from wandb ENTITY/PROJECT/SWEEP")
    kind, _, place = chosen.source[0].partition(":")
    names = [name for name in (place, *chosen.source[1:], chosen.file) if name]
    if kind != "wandb" or not 1 <= len(names) <= 2:
        raise ValueError(f"--from got {' '.join(chosen.source)!r}; write --from wandb ENTITY/PROJECT/SWEEP")
    return read_sweep(*names)
