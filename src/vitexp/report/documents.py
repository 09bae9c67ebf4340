"""What `--json` prints: one JSON document, with the name and version of its schema first (docs/json.md)."""

import json
import math
from collections.abc import Mapping
from typing import Any

from vitexp.study.curve import Curve
from vitexp.study.frame import curve_rows, table_rows
from vitexp.study.table import Table, primary


def as_text(document: Mapping[str, Any]) -> str:
    """JSON that any reader can read: what is no finite number is null."""
    return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
