"""What `--json` prints of a table and a curve: the name and version of the schema first (docs/json.md)."""

from typing import Any

from vitexp.study.curve import Curve
from vitexp.study.frame import curve_rows, table_rows
from vitexp.study.table import Table, primary


def table_document(table: Table) -> dict[str, Any]:
    """The rows of a study's CSV, and what a reader must know of them."""
    config = table.study.config
    return {
        "schema": "vitexp.table/1",
        "study": table.study.name,
        "images": config.images,
        "primary": primary(config),
        "margin": config.margin,
        "comparisons": table.comparisons,
        "looks": list(table.looks.after) if table.looks else None,
        "cautions": table.cautions,
        "notes": table.notes,
        "rows": table_rows(table),
    }


def curve_document(curve: Curve, readings: list[str]) -> dict[str, Any]:
    """The points of a curve, and what is read off them in words."""
    return {
        "schema": "vitexp.curve/1",
        "study": curve.study.name,
        "axis": curve.axis,
        "cautions": curve.cautions,
        "notes": curve.notes,
        "readings": readings,
        "rows": curve_rows(curve),
    }
