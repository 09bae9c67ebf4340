"""Arguments that a W&B agent has fetched: code that they alone name is not imported."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitexp.neutral import PARTS
from vitexp.own import ALLOW

WHERE = "this W&B sweep"
_CODE = re.compile(rf"(^|\.)({'|'.join(map(re.escape, PARTS))})(\.|\+|$)|class_path$")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_KNOWN = ("vitexp", "lightning", "torch")
"""Packages that are imported anyway."""


def check_downloaded(words: Sequence[str]) -> None:
    """Raises: ValueError for a callback, logger or the like by a class path that is none of ours or Lightning's."""
    if found := next(_named(_arguments(words)), None):
        raise ValueError(
            f"{WHERE} needs {found}, and importing its module runs it: give {ALLOW} if you trust it"
        )  # fmt: skip


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """What the words and the files that they name say, by option."""
    found: dict[str, Any] = {}
    for number, (word, after) in enumerate(zip(words, [*words[1:], ""], strict=True)):
        name, _, value = word.removeprefix("--").partition("=")
        value = value or after
        if word.startswith("--") and name == "config" and Path(value).is_file():
            value = Path(value).read_text(encoding="utf-8", errors="replace")
        if word.startswith("--"):
            found[f"{number}.{name}"] = _loaded(value)
    return found


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # which the parser refuses


def _named(value: Any, key: str = "") -> Iterator[str]:
    """The classes and functions below a key whose value may be code."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else ((key, one) for one in value)
        for name, one in items:
            yield from _named(one, f"{key}.{name}" if isinstance(value, Mapping) else key)
    elif isinstance(value, str) and _CODE.search(key):
        if _DOTTED.fullmatch(value) and value.partition(".")[0] not in _KNOWN:
            yield value
        elif not isinstance(inner := _loaded(value), str):
            yield from _named(inner, key)
