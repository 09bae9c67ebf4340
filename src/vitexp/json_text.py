"""The text that every `--json` prints (docs/json.md)."""

import json
import math
from collections.abc import Mapping
from typing import Any


def as_text(document: Mapping[str, Any]) -> str:
    """JSON that any reader can read: what is no finite number is null."""
    return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
