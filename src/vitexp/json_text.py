"""JSON that any reader can read: the text that every `--json` prints (docs/json.md), and the values of records."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def as_text(document: Mapping[str, Any]) -> str:
    """What is no finite number is null."""
    return json.dumps(plain(document, lambda number: None), indent=1, ensure_ascii=False, allow_nan=False)


def plain(value: Any, not_finite: Callable[[float], Any]) -> Any:
    """`value` in mappings and lists alone, with `not_finite` of each number that is none of JSON's."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, not_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, not_finite) for item in value]
    return not_finite(value) if isinstance(value, float) and not math.isfinite(value) else value
