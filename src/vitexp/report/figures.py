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
from vitexp.study.cost_curve import against_cost, make_cost_curve
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
    """Accuracy against data size, or against what the runs of the study in `sweep` cost, where its study.x says so.

    Writes results/NAME/curve.{png,svg,csv} and curve-fits.csv, which holds what was read off.

    Raises: ValueError when the study varies no data size, or the records in `runs` do not make a curve.
    """
    study = as_study(sweep)
    folder = Path(results) / study.name
    with style.settings():
        curve = make_cost_curve(study, runs, where) if against_cost(study) else make_curve(study, runs, where)
        paths = style.save(draw_curve(curve), folder, "curve")
    numbers = tidy.points(curve), tidy.fits(curve)
    for name, content in zip(("curve.csv", "curve-fits.csv"), numbers, strict=True):
        write_atomically(folder / name, content)
    return Written(curve_text(curve), (*paths, folder / "curve.csv", folder / "curve-fits.csv"))


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
