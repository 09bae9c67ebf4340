"""Reading YAML without its surprises: what would silently become another value on its way to a run is refused here."""

import math
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

_EXPONENT = re.compile(r"([-+]?)(\d*)(\.\d*)?[eE]([-+]?\d+)")
_NO_VALUE = ("None", "null", "Null", "NULL", "~")


def load(content: bytes) -> Any:
    """The document in `content`, plain values only.

    Raises: yaml.YAMLError or ValueError naming the line.
    """
    return yaml.load(content, _Loader)


def check_values(values: Any, where: str, *, as_text: bool) -> None:
    """Refuses values that do not arrive as they are written; `as_text` says that they travel as `--key=value`.

    Raises: ValueError naming the place and what to write.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            check_values(value, f"{where}.{key}", as_text=as_text)
    elif isinstance(values, list):
        for value in values:
            check_values(value, where, as_text=as_text)
    else:
        _check_value(values, where, as_text)


def _check_value(value: Any, where: str, as_text: bool) -> None:
    if isinstance(value, str):
        _check_text(value, where)
    elif value is None:
        if as_text:
            raise ValueError(
                f"{where} holds null, which ${{args}} hands over as the text 'None'; hand the cell over with "
                '"--config", "${args_json_file}", or write the word none'
            )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} holds {value}, which JSON cannot carry; write a finite number")
    elif not isinstance(value, bool | int | float):
        raise ValueError(f"{where} holds a {type(value).__name__}, {value}; put it in quotes")


def _check_text(text: str, where: str) -> None:
    if text in _NO_VALUE:
        raise ValueError(f"{where} holds the text {text!r}; write none for the word, or an unquoted null for no value")
    if (number := _EXPONENT.fullmatch(text)) and (number[2] or number[3]):
        sign, whole, decimals, exponent = (part or "" for part in number.groups())
        point = decimals if len(decimals) > 1 else ".0"
        signed = exponent if exponent[0] in "+-" else f"+{exponent}"
        raise ValueError(
            f"{where} holds {text}, which YAML reads as text, not as a number; write {sign}{whole or 0}{point}e{signed}"
        )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice (YAML would drop the first) and keys that are not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node whose keys are different texts."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"line {key_node.start_mark.line + 1}: the key {key!r} is not text; put it in quotes")
            if key in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice; take one out")
            seen.add(key)
        return super().construct_mapping(node, deep)
