"""Reading YAML without its surprises: what would silently become another value on its way to a run is refused here.

A file is also refused before anything is built from it when it is too large, too deep, or grows by aliases.
"""

import math
import re
import stat
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPONENT = re.compile(r"([-+]?)(\d*)(\.\d*)?[eE]([-+]?\d+)")
_NO_VALUE = ("None", "null", "Null", "NULL", "~")
MOST_BYTES, MOST_DEPTH, MOST_VALUES = 1 << 20, 50, 100_000


def read(path: Path) -> str:
    """The text of a config or sweep file, or of a pipe.

    Raises: OSError, or ValueError for what is no text file of a config's size.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise ValueError(f"{path} is a {'directory' if stat.S_ISDIR(mode) else 'device'}; give a YAML or JSON file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES >> 20} MiB, too large for a config or a sweep")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def load(content: bytes | str) -> Any:
    """The document in `content`, plain values only. Raises: yaml.YAMLError or ValueError naming the line."""
    check(content)
    return yaml.load(content, _Loader)


class _Loader(yaml.SafeLoader):
    """Refuses keys that are not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"line {key_node.start_mark.line + 1}: the key {key!r} is not text; put it in quotes")
        return super().construct_mapping(node, deep)


class Refused(yaml.YAMLError, ValueError):
    """A document that is well-formed, but that no run should be read from."""


def problem(error: yaml.YAMLError) -> str:
    """What is wrong with a document, in one line."""
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or str(error)
    return " ".join(f"line {mark.line + 1}: {words}".split() if mark else words.split())


@dataclass
class _Node:
    """A list or a mapping that is being read."""

    anchor: str = ""
    is_mapping: bool = False
    size: int = 1
    children: int = 0
    keys: set[str] = field(default_factory=set)


def check(content: bytes | str) -> None:
    """Refuses a document that nests too deeply, expands to too much, or gives a key twice; nothing is built.

    Raises: yaml.YAMLError, or Refused naming the line.
    """
    open_nodes, anchors = [_Node()], dict[str | None, int]()
    events: Iterator[Any] = yaml.parse(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.NodeEvent):
            _check_node(event, open_nodes, line)
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Node(event.anchor or "", isinstance(event, yaml.MappingStartEvent)))
            continue
        size = 0
        if isinstance(event, yaml.CollectionEndEvent):
            node = open_nodes.pop()
            size = anchors[node.anchor] = node.size
        elif isinstance(event, yaml.ScalarEvent):
            size = anchors[event.anchor or ""] = 1
        elif isinstance(event, yaml.AliasEvent):
            size = anchors.get(event.anchor, 1)
        open_nodes[-1].size += size
        if open_nodes[-1].size > MOST_VALUES:
            raise Refused(f"line {line}: the document expands to more than {MOST_VALUES:,} values; write it shorter")


def _check_node(event: yaml.NodeEvent, open_nodes: Sequence[_Node], line: int) -> None:
    """Takes note of a child of the innermost node; in a mapping every other one is a key."""
    parent = open_nodes[-1]
    if isinstance(event, yaml.CollectionStartEvent) and len(open_nodes) >= MOST_DEPTH:
        raise Refused(f"line {line}: lists and mappings nest more than {MOST_DEPTH} deep; make it flatter")
    if isinstance(event, yaml.AliasEvent) and any(node.anchor == event.anchor for node in open_nodes):
        raise Refused(f"line {line}: *{event.anchor} stands inside what it names; write it out")
    if isinstance(event, yaml.ScalarEvent) and parent.is_mapping and parent.children % 2 == 0 and event.value != "<<":
        if event.value in parent.keys:
            raise Refused(f"line {line}: the key {event.value!r} is given twice; take one out")
        parent.keys.add(event.value)
    parent.children += 1


def check_values(value: Any, where: str, *, as_text: bool) -> None:
    """Refuses values that do not arrive as they are written; `as_text` says that they travel as `--key=value`.

    Raises: ValueError naming the place and what to write.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_values(item, f"{where}.{key}", as_text=as_text)
    elif isinstance(value, list):
        for item in value:
            check_values(item, where, as_text=as_text)
    elif isinstance(value, str):
        _check_text(value, where)
    elif value is None and as_text:
        raise ValueError(
            f"{where} holds null, which ${{args}} hands over as the text 'None'; hand the cell over with "
            '"--config", "${args_json_file}", or write the word none'
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} holds {value}, which JSON cannot carry; write a finite number")
    elif not isinstance(value, bool | int | float | None):
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
