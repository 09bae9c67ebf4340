"""The commands that read records: table, curve, report, claims, diff. Only a call of one imports what it needs."""

import argparse
from typing import Any


def add_commands(verbs: Any) -> None:
    """Adds `table`, `curve`, `report`, `claims` and `diff`."""
    table = verbs.add_parser(
        "table",
        help="mean, interval and paired difference of a study's arms, beside the paper's numbers",
        description="Prints the table of a study and writes it as Markdown, CSV and LaTeX. Trains nothing.",
    )
    _add_places(table)
    table.add_argument("--figure", action="store_true", help="draw the table too: dots.png and dots.svg")
    table.set_defaults(run=show_table)
    curve = verbs.add_parser(
        "curve",
        help="accuracy against data size or training compute, as PNG, SVG and CSV",
        description="Draws a study's metrics against data size, or against what its runs cost (study.x), and writes "
        "the numbers beside them. Trains nothing.",
    )
    _add_places(curve)
    curve.set_defaults(run=show_curve)
    report = verbs.add_parser(
        "report",
        help="one offline HTML file: table, figures and every run behind them",
        description="Writes a study's table, figures and runs as one HTML file. Trains nothing.",
    )
    _add_places(report)
    report.set_defaults(run=show_report)
    claims = verbs.add_parser(
        "claims",
        help="what the runs say about each claim of the ViT paper: supported, contradicted, undecided",
        description="Holds every claim of the ViT paper that a study touches against its runs, and writes the ledger "
        "as Markdown, CSV and JSON. Without a PLACE it reads every study below --root. Trains nothing.",
    )
    claims.add_argument("places", nargs="*", metavar="PLACE", help="sweep files, or folders of runs")
    _add_from(claims)
    claims.add_argument("--root", default="runs", help="folder of the records (default: runs)")
    claims.add_argument("--results", default="results", help="folder for what is written (default: results)")
    claims.set_defaults(run=show_claims)
    diff = verbs.add_parser(
        "diff",
        help="what makes two runs different: config, code, data, versions, numbers",
        description="Sets two runs beside each other: what differs in their configs, code, data, versions and devices, "
        "their numbers, and on how many images they disagree. Trains and writes nothing.",
    )
    for side in ("one", "other"):
        diff.add_argument(side, metavar="RUN", help="the folder of a run, or its record.json")
    diff.set_defaults(run=show_diff)


def show_table(chosen: argparse.Namespace) -> int:
    """Prints and writes the table of a study."""
    from vitexp.report.tables import Written, print_written, write_table

    places = _places(chosen)
    written = write_table(**places)
    if chosen.figure:
        from vitexp.report.figures import write_dots

        written = Written(written.renderable, (*written.paths, *write_dots(**places)))
    print_written(written)
    return 0


def show_curve(chosen: argparse.Namespace) -> int:
    """Draws and writes the curve of a study."""
    from vitexp.report.figures import write_curve
    from vitexp.report.tables import print_written

    print_written(write_curve(**_places(chosen)))
    return 0


def show_report(chosen: argparse.Namespace) -> int:
    """Writes the HTML report of a study."""
    from vitexp.report.escape import visible
    from vitexp.report.html import write_html

    print(visible(f"Written: {write_html(**_places(chosen))}"))
    return 0


def show_claims(chosen: argparse.Namespace) -> int:
    """Prints and writes the ledger of claims."""
    from vitexp.report.claims import write_claims
    from vitexp.report.tables import print_written

    places, read = chosen.places, []
    if chosen.source:
        chosen.file, *places = chosen.places or [None]
        read.append(_study_and_runs(chosen))
    print_written(write_claims(places, chosen.root, chosen.results, read))
    return 0


def show_diff(chosen: argparse.Namespace) -> int:
    """Prints two runs beside each other."""
    from vitexp.report.diff import show_difference
    from vitexp.report.tables import show

    show(show_difference(chosen.one, chosen.other))
    return 0


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", help="the study's sweep file, such as sweeps/pos_embed.yaml")
    _add_from(parser)
    parser.add_argument("--root", default="runs", help="folder of the records (default: runs)")
    parser.add_argument("--results", default="results", help="folder for what is written (default: results)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this in their config"
    )


def _add_from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        nargs="+",
        default=[],
        metavar=("wandb", "ENTITY/PROJECT/SWEEP"),
        help="the runs of a W&B sweep instead of those below --root; without FILE the study is the sweep's own",
    )


def _places(chosen: argparse.Namespace) -> dict[str, Any]:
    from vitexp.study.select import parse_where

    study, runs = _study_and_runs(chosen)
    return {"sweep": study, "runs": runs, "results": chosen.results, "where": parse_where(chosen.where)}


def _study_and_runs(chosen: argparse.Namespace) -> tuple[Any, Any]:
    """The study and where its runs are: a file and a folder, or both from W&B.

    Raises: ValueError when neither is named, or --from is given something else than a W&B sweep.
    """
    kind, colon, place = (chosen.source or [""])[0].partition(":")
    words = [*([place] if colon else []), *chosen.source[1:], *([chosen.file] if chosen.file else [])]
    if not chosen.source and chosen.file:
        return chosen.file, chosen.root
    if not chosen.source:
        raise ValueError("no study is named; give its sweep file, or --from wandb ENTITY/PROJECT/SWEEP")
    if kind != "wandb" or not 1 <= len(words) <= 2:
        raise ValueError(f"--from got {' '.join(chosen.source)!r}; write --from wandb ENTITY/PROJECT/SWEEP")
    from vitexp.study.found import read_sweep

    return read_sweep(*words)
