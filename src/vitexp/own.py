"""Parts of the user's own, by import path: `my_ideas:Alibi2D` where an axis takes a word.

A file of the working folder, or an installed module. Its constructor's options are typed by their annotations, and the
hash of its source stands in the config of a run, so that an edited part is another run. Importing a file runs it: that
happens where a person names it, and never because a checkpoint does, unless `--allow-import` is given.
"""

import functools
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from vitexp import axes
from vitexp.record import checked
from vitexp.source import modules_hash, with_imported

ALLOW = "--allow-import"
PROPERTIES = ("permutation_invariant", "adds_parameters", "differs_in_training")
"""What a part may declare of itself, true or false, as attributes of its class."""
_MOST_LABEL = 60
_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_LOADED: set[str] = set()
_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=False)


@dataclass(frozen=True)
class Own:
    """A class that was imported, and what a record says of it."""

    path: str
    kind: type
    file: str
    source: str
    """16 hexadecimal digits over its file and what that imports, as far as it is the user's"""
    label: str
    properties: Mapping[str, bool]

    def facts(self) -> dict[str, Any]:
        """What a record holds, so that reports need neither torch nor the file."""
        about = (inspect.getdoc(self.kind) or "").partition("\n")[0]
        named = {"value": self.path, "label": self.label, "about": about, "file": self.file, "source": self.source}
        return named | {"properties": dict(self.properties)}


@functools.cache
def load(axis: str, path: str, base: type, one_of: tuple[str, ...]) -> Own:
    """The class behind a path. Raises: ValueError where there is none, or it is no part of this axis."""
    module_name, _, name = path.partition(":")
    module = _import(axis, path, module_name)
    _LOADED.add(path)
    kind, file = getattr(module, name, None), Path(str(module.__file__)).name
    if not inspect.isclass(kind):
        raise ValueError(f"{axis} {path}: {module.__file__} has no class {name}; name a class of that file")
    written = [method for method in one_of if getattr(kind, method, None) is not getattr(base, method)]
    if not issubclass(kind, base):
        lacks = [method for method in one_of if not callable(getattr(kind, method, None))]
        why = f"has no method {' or '.join(lacks)}" if lacks else f"is no {base.__name__}"
        raise ValueError(
            f"{axis} {path} {why}: derive the class from {base.__module__}.{base.__name__} and write "
            f"{' or '.join(one_of)}"
        )
    if not written:
        raise ValueError(f"{axis} {path} has no method of its own: write {' or '.join(one_of)}, or name another class")
    properties = {name: getattr(kind, name) for name in PROPERTIES if hasattr(kind, name)}
    if odd := [name for name, value in properties.items() if not isinstance(value, bool)]:
        raise ValueError(f"{axis} {path} declares {odd[0]} {properties[odd[0]]!r}; it must be True or False")
    return Own(path, kind, file, modules_hash(with_imported([module])), _label(axis, path, kind), properties)


def _import(axis: str, path: str, name: str) -> ModuleType:
    """The module; one in the working folder is found last, so that it hides no installed one."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    # Python compares a cached .pyc with its source by whole seconds: a faster edit would be hashed but not run.
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
            why = f"there is no {name.replace('.', '/')}.py in {folder}, and no installed module of that name"
            raise ValueError(f"{axis} {path} cannot be imported: {why}; give a path as {axes.PATH}") from error
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = getattr(error, "lineno", None) or where.lineno
        why = f"{type(error).__name__}: {error} ({Path(getattr(error, 'filename', None) or where.filename)}:{line})"
        raise ValueError(f"{axis} {path} cannot be imported: {why}; mend that file") from error
    finally:
        sys.dont_write_bytecode = written
    if not getattr(module, "__file__", None):
        raise ValueError(f"{axis} {path}: {name} is no file of Python; give a path as {axes.PATH}")
    return module


def _label(axis: str, path: str, kind: type) -> str:
    """Its `label`, or its name. Raises: ValueError for one that another value of the axis has."""
    label = str(vars(kind).get("label", kind.__name__))
    if not label.isprintable() or not 0 < len(label) <= _MOST_LABEL:
        raise ValueError(f"{axis} {path} has a label that is empty, too long or not printable; give another")
    taken = {text.casefold(): row.word for row in axes.of(axis) for text in (row.word, row.label)}
    if label.casefold() in taken:
        hides = f"the built-in {taken[label.casefold()]}"
        raise ValueError(f"{axis} {path} is called {label!r} like {hides}; give its class another name or `label`")
    return label


def options_of(axis: str, own: Own, given: Mapping[str, Any], arguments: int) -> dict[str, Any]:
    """All options of the constructor after its first `arguments`, those that are not given by their defaults.

    Raises: ValueError for one that it does not have, that is of another type, or that is needed and not given.
    """
    where = f"model.options.{axis}"
    signature = inspect.signature(own.kind, eval_str=True)
    every = list(signature.parameters.values())[arguments:]
    known = {one.name: one for one in every if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    if unknown := sorted(given.keys() - known.keys()):
        has = f"has only {', '.join(known)}" if known else "takes none"
        raise ValueError(f"{where}.{unknown[0]} is no option of {own.path}, which {has}; take it out")
    if needed := [one.name for one in known.values() if one.default is one.empty and one.name not in given]:
        raise ValueError(f"{own.path} needs {where}.{needed[0]}; give it")
    values = {name: given.get(name, one.default) for name, one in known.items()}
    return {name: _typed(value, known[name], f"{where}.{name}") for name, value in values.items()}


def _typed(value: Any, parameter: inspect.Parameter, where: str) -> Any:
    """As a plain value of the annotation, or where there is none of the default's type."""
    kind = parameter.annotation
    if kind is parameter.empty:
        kind = Any if parameter.default in (parameter.empty, None) else type(parameter.default)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} is {value!r}; allowed are {', '.join(map(str, get_args(kind)))}")
        return value
    return checked(list(value) if isinstance(value, tuple) else value, kind, where)


@contextmanager
def allowing(yes: bool) -> Iterator[None]:
    """Whether files may name the parts to import, on top of what was allowed before."""
    token = _ALLOWED.set(yes or _ALLOWED.get())
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def check_allowed(config: Mapping[str, Any], where: str) -> None:
    """Raises: ValueError for a part that only `where`, a file or a server, names: it is not imported."""
    hashes = config.get("sources")
    for axis, path in ((axis, str(config.get(axis))) for axis in axes.SLOTS):
        if axes.is_path(path) and path not in _LOADED and not _ALLOWED.get():  # no file runs a second time
            source = f" (source {hashes.get(axis)})" if isinstance(hashes, Mapping) else ""
            raise ValueError(
                f"{where} needs {axis} {path}, the file {path.partition(':')[0].replace('.', '/')}.py{source}, and "
                f"importing a file runs it: give {ALLOW} if you trust it"
            )


def check_downloaded(trainer: Any) -> None:
    """Raises: ValueError for a class or file of others in the flags of the trainer that a W&B agent has fetched.

    The parser imports a callback, logger or plugin when it reads its path, so this looks at the values before that.
    """
    if "WANDB_SWEEP_ID" not in os.environ or _ALLOWED.get():
        return
    for path in (path for text in _texts(trainer) for path in _CLASS.findall(text)):
        if not path.startswith("lightning.pytorch."):
            raise ValueError(
                f"this W&B sweep gives the trainer {path}, and importing a class runs its file: give {ALLOW} if you "
                "trust it"
            )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value
