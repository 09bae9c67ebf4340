"""Parts of the user's own, by import path: `my_ideas:Alibi2D` where an axis takes a word.

A file of the working folder, or an installed module. Its constructor's options are typed by their annotations, and the
hash of its source stands in the config of a run, so that an edited part is another run. Importing a file runs it: that
happens where a person names it, and never because a checkpoint does, unless `--allow-import` is given.
"""

import functools
import importlib
import inspect
import os
import random
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch

from vitexp import axes
from vitexp.record import checked
from vitexp.source import INSTALLED, ROOT, modules_hash, with_imported

ALLOW = "--allow-import"
PROPERTIES = ("permutation_invariant", "adds_parameters", "differs_in_training")
"""What a part may declare of itself, true or false, as attributes of its class."""
_MOST_LABEL, _MOST_SAID = 60, 200
Config = TypeVar("Config", bound=Any)
_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_LOADED: set[str] = set()
_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=False)


@dataclass(frozen=True)
class Slot:
    """Where a part of the user's own stands in place of a word; what it derives from, and what it must have."""

    axis: str
    base: type
    """`object` for a class of any kind"""
    one_of: tuple[str, ...]
    """Methods of which the class writes at least one"""
    arguments: int = 0
    """How many its constructor is given before its options"""
    given: tuple[str, ...] = ()
    """Arguments of its constructor that follow from other options of the run"""
    words: tuple[str, ...] = ()
    """Built-in words that are no rows of a table"""
    called: int = 0
    """With how many arguments a function is called, where one does as well as a class"""

    def __post_init__(self) -> None:
        SLOTS[self.axis] = self


SLOTS: dict[str, Slot] = {}
"""Those whose modules were imported, by axis."""


@dataclass(frozen=True)
class Own:
    """A class that was imported, and what a record says of it."""

    path: str
    kind: Any
    """The class, or the function"""
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
def load(slot: Slot, path: str) -> Own:
    """The class behind a path. Raises: ValueError where there is none, or it is no part of this axis."""
    axis = slot.axis
    module_name, _, name = path.partition(":")
    module = _import(axis, path, module_name)
    _LOADED.add(path)
    kind: Any = getattr(module, name, None)
    if not (slot.called and inspect.isfunction(kind)):
        _check_class(slot, path, kind, str(module.__file__))
    properties = {name: getattr(kind, name) for name in PROPERTIES if hasattr(kind, name)}
    if odd := [name for name, value in properties.items() if not isinstance(value, bool)]:
        raise ValueError(f"{axis} {path} declares {odd[0]} {properties[odd[0]]!r}; it must be True or False")
    file, source = Path(str(module.__file__)).name, modules_hash(with_imported([module]))
    return Own(path, kind, file, source, _label(slot, path, kind), properties)


def _check_class(slot: Slot, path: str, kind: Any, file: str) -> None:
    """Raises: ValueError for what is no class of this slot."""
    axis, base, one_of = slot.axis, slot.base, slot.one_of
    if not inspect.isclass(kind):
        module, _, name = path.partition(":")
        wanted, mine = "class or function" if slot.called else "class", Path(module.replace(".", "/") + ".py")
        other = "" if kind is None else f" of type {type(kind).__name__}, which is no {wanted}"
        why = f"has {name}{other}" if other else f"has no {wanted} {name}"
        hides = mine.is_file() and not mine.samefile(file)
        remedy = f"it hides {mine} of this folder, so rename yours" if hides else f"name a {wanted} of that file"
        raise ValueError(f"{axis} {path}: {file} {why}; {remedy}")
    lacks = [method for method in one_of if not any(method in vars(one) for one in kind.mro() if one is not object)]
    any_kind = base is object
    if not issubclass(kind, base) or (any_kind and lacks == list(one_of)):
        why = f"has no method {' or '.join(lacks)}" if lacks else f"is no {base.__name__}"
        derive = "" if any_kind else f"derive the class from {base.__module__}.{base.__name__} and "
        raise ValueError(f"{axis} {path} {why}: {derive}write {' or '.join(one_of)}")
    if not any_kind and all(getattr(kind, method, None) is getattr(base, method) for method in one_of):
        raise ValueError(f"{axis} {path} has no method of its own: write {' or '.join(one_of)}, or name another class")


def _import(axis: str, path: str, name: str) -> ModuleType:
    """The module; one in the working folder is found last, so that it hides no installed one."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    # Python compares a cached .pyc with its source by whole seconds: a faster edit would be hashed but not run.
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # A thread has its own modes of torch: a plan's, which makes tensors without values, must not reach the file.
        with as_it_was(f"{axis} {path}"), ThreadPoolExecutor(1) as aside:
            module = aside.submit(importlib.import_module, name).result()
    except WrongPart:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
            why = f"there is no {name.replace('.', '/')}.py in {folder}, and no installed module of that name"
            form = f"{axes.PATH}, without .py" if name.endswith(".py") else axes.PATH
            raise ValueError(
                f"{axis} {path} cannot be imported: {why}; install it, or give a path as {form}"
            ) from error
        raise ValueError(f"{axis} {path} cannot be imported: {said(error)}; mend that file") from error
    finally:
        sys.dont_write_bytecode = written
    if not getattr(module, "__file__", None):
        raise ValueError(f"{axis} {path}: {name} is no file of Python; give a path as {axes.PATH}")
    return module


@contextmanager
def as_it_was(what: str, seed: int | None = None) -> Iterator[None]:
    """Undoes what code does to the process: seeds, folder, filters of warnings; what it prints goes to stderr.

    With a `seed` all that it draws from the global generators of torch, NumPy and Python follows it.

    Raises: WrongPart where it changes of what type all tensors are.
    """
    folder, drawn, python, dtype = Path.cwd(), np.random.get_state(), random.getstate(), torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(sys.stderr):
            if seed is not None:
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)
                random.seed(seed)
            yield
        if (now := torch.get_default_dtype()) != dtype:
            raise WrongPart(f"{what} makes {now} the type of all tensors of this process; take that line out")
    finally:
        os.chdir(folder)
        np.random.set_state(drawn)
        random.setstate(python)
        torch.set_default_dtype(dtype)


def _label(slot: Slot, path: str, kind: Any) -> str:
    """Its `label`, or its name. Raises: ValueError for one that another value of the axis has."""
    axis = slot.axis
    label = str(vars(kind).get("label", path.partition(":")[2]))
    if not label.isprintable() or not 0 < len(label) <= _MOST_LABEL:
        raise ValueError(f"{axis} {path} has a label that is empty, too long or not printable; give another")
    taken = {word.casefold(): word for word in slot.words}
    taken |= {text.casefold(): row.word for row in axes.of(axis) for text in (row.word, row.label)}
    if label.casefold() in taken:
        hides = f"the built-in {taken[label.casefold()]}"
        raise ValueError(f"{axis} {path} is called {label!r} like {hides}; give its class another name or `label`")
    return label


def settled(config: Config, find: Callable[[Slot, str], Own] = load, group: str = "model") -> Config:
    """The config with all options and the source hash of each part of the user's own, by axis.

    Raises: ValueError for options of what is none, and for a source that has changed since the config was written.
    """
    slots = [axis for axis, where in axes.SLOTS.items() if where == group]
    chosen = {axis: str(word) for axis in slots if axes.is_path(word := getattr(config, axis, None))}
    named = {axis: find(SLOTS[axis], path) for axis, path in chosen.items()}
    return replace(config, **chosen, **completed(named, config, {axis: SLOTS[axis] for axis in named}, group))


def completed(
    found: Mapping[str, Own], config: Any, slots: Mapping[str, Slot], group: str
) -> dict[str, dict[str, Any]]:
    """All `options` and `sources` of these parts, by their names. Raises: ValueError, as `settled`."""
    options, sources = ({} if value is None else value for value in (config.options, config.sources))
    if not isinstance(options, Mapping) or not all(isinstance(one, Mapping) for one in options.values()):
        raise ValueError(f"{group}.options is {options!r}; give options by part, such as {{pos_embed: {{slope: 0.5}}}}")
    for key in [*options, *sources]:
        if key not in found:
            now = f" with {key} {getattr(config, key)}" if key in axes.SLOTS and hasattr(config, key) else ""
            raise ValueError(f"{group}.options.{key} has no effect{now}: it is for a part of your own; leave it out")
    for name, part in found.items():
        if sources.get(name, part.source) != part.source:
            raise ValueError(
                f"{name} {part.path} has changed: the hash of {part.file} is {part.source} now and was "
                f"{sources[name]}, with what it imports; put the old file back, or train anew"
            )
    complete = {
        name: options_of(slots[name], part, options.get(name, {}), f"{group}.options.{name}")
        for name, part in found.items()
    }
    return {"options": complete, "sources": {name: part.source for name, part in found.items()}}


def options_of(slot: Slot, own: Own, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All options of the constructor after what it is given, those that are not given here by their defaults.

    Raises: ValueError for one that it does not have, that is of another type, or that is needed and not given.
    """
    with failing(f"{slot.axis} {own.path}"):
        signature = inspect.signature(own.kind, eval_str=True)
    first = slot.called if inspect.isfunction(own.kind) else slot.arguments
    every = [one for one in list(signature.parameters.values())[first:] if one.name not in slot.given]
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
    kind, default = parameter.annotation, parameter.default
    if kind is parameter.empty:
        kind = Any if default in (parameter.empty, None) else type(default)
    return None if value is default is None else _of_kind(value, kind, where)


def _of_kind(value: Any, kind: Any, where: str) -> Any:
    base, inner = get_origin(kind) or kind, get_args(kind)
    if base is Literal:
        if value not in inner:
            raise ValueError(f"{where} is {value!r}; allowed are {', '.join(map(str, inner))}")
        return value
    if base in (Union, UnionType):
        for one in inner:
            with suppress(ValueError):
                return _of_kind(value, one, where)
        raise ValueError(f"{where} is {value!r}; allowed are values of {str(kind).replace('typing.', '')}")
    if base in (list, tuple, Sequence) and isinstance(value, list | tuple):
        each = inner if base is tuple and inner and ... not in inner else (*inner, Any)[:1] * len(value)
        if len(each) != len(value):
            raise ValueError(f"{where} has {len(value)} values; give {len(each)}")
        return [_of_kind(one, its, where) for one, its in zip(value, each, strict=True)]
    if kind is str and isinstance(value, int | float):
        raise ValueError(f"{where} is {value}, as YAML reads it, and must be text: put it in quotes, \"'3'\" for 3")
    return checked(value, kind, where)


class WrongPart(ValueError):
    """A part that changes shapes, or breaks another rule of its axis, in a sentence that says so."""


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Raises: ValueError for whatever goes wrong in a part of the user's own."""
    try:
        yield
    except WrongPart:
        raise
    except (Exception, SystemExit) as error:
        raise WrongPart(f"{what} fails: {said(error)}; mend that file") from error


def said(error: BaseException) -> str:
    """An error in one line, with the place in the last file of the user's own that it went through."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [one for one in frames if not one.filename.startswith((str(ROOT), *INSTALLED, "<"))]
    place = f" ({mine[-1].filename}:{mine[-1].lineno})" if mine else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_SAID]}{place}"


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
    given = ((axis, config.get(axis)) for axis in axes.SLOTS)
    paths = ((axis, str(one)) for axis, word in given for one in (word if isinstance(word, list) else [word]))
    for axis, path in paths:
        if axes.is_path(path) and path not in _LOADED and not _ALLOWED.get():  # no file runs a second time
            source = f" (source {hashes[axis]})" if isinstance(hashes, Mapping) and axis in hashes else ""
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
    for path in (path for text in texts(trainer) for path in _CLASS.findall(text)):
        if not path.startswith("lightning.pytorch."):
            raise ValueError(
                f"this W&B sweep gives the trainer {path}, and importing a class runs its file: give {ALLOW} if you "
                "trust it"
            )


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value
