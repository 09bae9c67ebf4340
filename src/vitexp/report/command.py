"""The commands that read records: table, curve, report, claims, diff. Matplotlib is imported where they draw."""

import argparse
import sys
from pathlib import Path
from typing import Any

from vitexp.json_text import as_text
from vitexp.report import claims, tidy
from vitexp.report.compare_text import document, show_comparison
from vitexp.report.curve_text import readings
from vitexp.report.diff import show_difference
from vitexp.report.markup import visible
from vitexp.report.plan_text import as_document, terminal
from vitexp.report.tables import Written, print_written, show, write_table
from vitexp.study.claims.verdicts import judge_claims
from vitexp.study.compare import STATUSES, compare
from vitexp.study.csv_runs import is_csv, read_csv
from vitexp.study.curve import make_curve
from vitexp.study.plan import make_plan
from vitexp.study.select import found_study, parse_where, read_sweep, study_folders
from vitexp.study.spec import as_study
from vitexp.study.table import make_table


def show_table(chosen: argparse.Namespace) -> int:
    """Prints and writes the table of a study."""
    inputs = _inputs(chosen)
    if chosen.json:
        print(as_text(tidy.table_document(make_table(as_study(inputs["sweep"]), inputs["runs"], inputs["where"]))))
        return 0
    written = write_table(**inputs)
    if chosen.figure:
        from vitexp.report.draw_dots import write_dots

        written = Written(written.renderable, (*written.paths, *write_dots(**inputs)))
    print_written(written)
    return 0


def show_curve(chosen: argparse.Namespace) -> int:
    """Draws and writes the curve of a study."""
    from vitexp.report.draw_curve import write_curve

    inputs = _inputs(chosen)
    if chosen.json:
        curve = make_curve(as_study(inputs["sweep"]), inputs["runs"], inputs["where"])
        print(as_text(tidy.curve_document(curve, readings(curve))))
        return 0
    print_written(write_curve(**inputs))
    return 0


def show_report(chosen: argparse.Namespace) -> int:
    """Writes the HTML report of studies."""
    from vitexp.report.html import write_html

    left_out = list[str]()
    path = write_html(_studies(chosen, left_out), chosen.out, chosen.results, parse_where(chosen.where), left_out)
    for text in left_out:
        print(visible(f"left out: {text}"), file=sys.stderr)
    print(visible(f"Written: {path}"))
    return 0


def show_claims(chosen: argparse.Namespace) -> int:
    """Prints and writes the verdicts on the claims."""
    paths, read = chosen.paths, []
    if chosen.source:
        chosen.file, *paths = chosen.paths or [None]
        read.append(_study_and_runs(chosen))
    report = judge_claims(paths, chosen.root, read)
    if chosen.json:
        print(as_text(claims.document(report)))
        return 0
    print_written(claims.write_claims(report, chosen.results))
    return 0


def show_plan(chosen: argparse.Namespace) -> int:
    """Prints what a study takes."""
    given, margin = {**vars(chosen), "margin": None}, chosen.margin
    study, runs = _study_and_runs(argparse.Namespace(**given))
    plan = make_plan(as_study(study), runs, chosen.effect, margin)
    if chosen.json:
        print(as_text(as_document(plan)))
    else:
        show(terminal(plan))
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
        print(as_text(document(found)))
    else:
        show(show_comparison(found))
    return STATUSES[found.verdict]


def _inputs(chosen: argparse.Namespace) -> dict[str, Any]:
    study, runs = _study_and_runs(chosen)
    return {"sweep": study, "runs": runs, "results": chosen.results, "where": parse_where(chosen.where)}


def _studies(chosen: argparse.Namespace, left_out: list[str]) -> list[tuple[Any, Any]]:
    """The studies that are named, each with the place of its runs; without any all that lie below --root.

    One below a folder whose records cannot be read does not stop the others: `left_out` says why.
    """
    if chosen.source:
        return [_study_and_runs(argparse.Namespace(source=chosen.source, file=next(iter(chosen.studies), None)))]
    found = []
    for given in chosen.studies or [chosen.root]:
        if Path(given).is_dir():
            for folder in study_folders(given):
                try:
                    found.append((found_study(folder), folder.parent))
                except ValueError as error:
                    left_out.append(str(error))
        else:
            found.append(_study_and_runs(argparse.Namespace(source=[], file=given, root=chosen.root)))
    if not found:
        none = f"{', '.join(chosen.studies) or chosen.root} holds no run of a study; run `vitexp sweep` first"
        raise ValueError(left_out[0] if left_out else none)
    return found


def _study_and_runs(chosen: argparse.Namespace) -> tuple[Any, Any]:
    """The study and where its runs are: a file and a folder, or both from W&B.

    Raises: ValueError when neither is named, or --from is given something else than a W&B sweep.
    """
    options = {name: value for name in ("baseline", "margin") if (value := getattr(chosen, name, None)) is not None}
    if chosen.file and is_csv(chosen.file) and not chosen.source:
        return read_csv(chosen.file, **options)
    for name in options:
        raise ValueError(f"--{name} is for a CSV file; a study names its study.{name} in its sweep file")
    if not chosen.source:
        if chosen.file:
            return chosen.file, chosen.root
        raise ValueError("no study is named; give its sweep file, or --from wandb ENTITY/PROJECT/SWEEP")
    kind, _, place = chosen.source[0].partition(":")
    names = [name for name in (place, *chosen.source[1:], chosen.file) if name]
    if kind != "wandb" or not 1 <= len(names) <= 2:
        raise ValueError(f"--from got {' '.join(chosen.source)!r}; write --from wandb ENTITY/PROJECT/SWEEP")
    return read_sweep(*names)
