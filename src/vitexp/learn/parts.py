"""Code that a config names by its class: callbacks, plugins and their like, and what identifies them."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from vitexp.neutral import PARTS

_OURS = ("vitexp", "lightning", "torch")
"""Packages whose version, or source, a record holds anyway."""
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def with_sources(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's options, in which each part of your own carries a digest of its source."""
    parts = {name.partition(".")[2] for name in PARTS}
    return {name: _described(value) if name in parts else value for name, value in trainer.items()}


def _described(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return [_described(item) for item in part]
    if not isinstance(part, Mapping) or "class_path" not in part:
        return part
    modules = {module.__name__: module for name in _strings(part) if (module := _module_of(name))}
    named = {**part, "class_path": _shortest(str(part["class_path"]))}
    return named | ({"source": _digest(_reached(modules))} if modules else {})


def _strings(value: Any) -> Iterator[str]:
    """Every word in a part: its class, and classes and functions among its arguments."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _module_of(path: str) -> ModuleType | None:
    """The module that a dotted name lies in, where it is one that the parser has imported and not one of ours."""
    words = path.split(".")
    names = (".".join(words[:end]) for end in range(len(words) - 1, 0, -1))
    module = next((sys.modules[name] for name in names if name in sys.modules), None)
    return module if module and _has_source(module) and words[0] not in (*_OURS, *sys.stdlib_module_names) else None


def _reached(modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """The modules, and those that they import in turn and that no one has installed."""
    found, waiting = dict(modules), list(modules.values())
    while waiting:
        for value in list(vars(waiting.pop()).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module and module.__name__ not in found and _is_own(module):
                found[module.__name__] = module
                waiting.append(module)
    return found


def _has_source(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "").suffix == ".py"


def _is_own(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    return _has_source(module) and not file.startswith(_INSTALLED) and module.__name__.partition(".")[0] not in _OURS


def _digest(modules: Mapping[str, ModuleType]) -> str:
    digest = hashlib.sha256()
    for name, module in sorted(modules.items()):
        digest.update(f"{name}\0".encode() + Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _shortest(path: str) -> str:
    """A class path through the outermost package that exports the class: one class, one name."""
    *words, name = path.split(".")
    module = sys.modules.get(".".join(words))
    for end in range(1, len(words)):
        outer = sys.modules.get(".".join(words[:end]))
        if module and outer and getattr(outer, name, None) is getattr(module, name, outer):
            return ".".join([*words[:end], name])
    return path
