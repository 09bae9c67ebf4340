"""The pictures of a study, with the numbers under them: `vitexp curve`, and the dots beside a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitexp.record import write_atomically
from vitexp.report import style, tidy
from vitexp.report.curve_text import curve_text
from vitexp.report.draw_curve import draw_curve
from vitexp.report.draw_dots import draw_dots
from vitexp.report.tables import Written
from vitexp.study.curve import make_curve
from vitexp.study.select import Root
from vitexp.study.spec import Study, as_study
from vitexp.study.table import make_table


def write_curve(
    sweep: str | Path | Study,
    runs: Root = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> Written:
    """Accuracy against data size of the study in `sweep`; writes results/NAME/curve.{png,svg,csv} and curve-fits.csv.

    Raises: ValueError when the study varies no data size, or the records in `runs` do not make a curve.
    """
    curve = make_curve(as_study(sweep), runs, where)
    folder = Path(results) / curve.study.name
    numbers = {"curve.csv": tidy.points(curve), "curve-fits.csv": tidy.fits(curve)}
    for name, content in numbers.items():
        write_atomically(folder / name, content)
    with style.settings():
        pictures = style.save(draw_curve(curve), folder, "curve")
    return Written(curve_text(curve), (*pictures, *(folder / name for name in numbers)))


def write_dots(
    sweep: str | Path | Study,
    runs: Root = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """The arms of a table as dots with intervals, and their differences to the baseline: results/NAME/dots.{png,svg}.

    Raises: ValueError when the records in `runs` do not make a table.
    """
    table = make_table(as_study(sweep), runs, where)
    with style.settings():
        return style.save(draw_dots(table), Path(results) / table.study.name, "dots")
