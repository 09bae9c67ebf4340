"""The commands that read records: `vitexp table` and `vitexp curve`. Imports only the standard library until then."""

import argparse
from typing import Any


def add_commands(verbs: Any) -> None:
    """Adds `table` and `curve`."""
    table = verbs.add_parser(
        "table",
        help="mean, interval and paired difference of a study's arms, beside the paper's numbers",
        description="Prints the table of a study and writes it as Markdown, CSV and LaTeX. Trains nothing.",
    )
    _add_places(table)
    table.set_defaults(run=show_table)
    curve = verbs.add_parser(
        "curve",
        help="accuracy against data size, with bands, as PNG, SVG and CSV",
        description="Draws a study's metric against data size and writes the numbers beside it. Trains nothing.",
    )
    _add_places(curve)
    curve.set_defaults(run=show_curve)


def show_table(chosen: argparse.Namespace) -> int:
    """Prints and writes the table of a study."""
    from vitexp.report.tables import print_written, write_table

    print_written(write_table(chosen.file, chosen.root, chosen.results, _where(chosen.where)))
    return 0


def show_curve(chosen: argparse.Namespace) -> int:
    """Draws and writes the curve of a study."""
    from vitexp.report.figures import write_curve
    from vitexp.report.tables import print_written

    print_written(write_curve(chosen.file, chosen.root, chosen.results, _where(chosen.where)))
    return 0


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the study's sweep file, such as sweeps/pos_embed.yaml")
    parser.add_argument("--root", default="runs", help="folder of the records (default: runs)")
    parser.add_argument("--results", default="results", help="folder for what is written (default: results)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this in their config"
    )


def _where(pairs: list[str]) -> dict[str, Any]:
    import yaml

    split = [pair.partition("=") for pair in pairs]
    for key, sign, _ in split:
        if not (key and sign):
            raise ValueError(f"--where takes KEY=VALUE, such as trainer.max_epochs=15; given: {key!r}")
    return {key: yaml.safe_load(value) for key, _, value in split}
