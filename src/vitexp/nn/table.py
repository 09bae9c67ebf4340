"""The parts of a network by axis and word. `part` registers one; a `Table` finds it.

The rows (word, label, sentence) are plain text that `vitexp.axes` reads without importing torch. A file with a row need
not be imported anywhere: looking a word up imports the module that its row was read from.
"""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch

from vitexp import axes, own
from vitexp.nn.init import generator_for, initialise
from vitexp.own import WrongPart, as_it_was, failing

Part = TypeVar("Part")
Config = TypeVar("Config", bound=Any)

_PARTS: dict[tuple[str, str], Any] = {}
REGISTERED: dict[tuple[str, str], axes.Row] = {}


def part(axis: str, word: str, *, label: str, about: str) -> Callable[[Part], Part]:
    """Registers a value of an axis; decorate with it the class, function or constant that does the work.

    Arguments must be literals. A value without a part of its own, such as `pos_at stem`, is the bare call.
    """

    def register(found: Part) -> Part:
        _PARTS[axis, word] = found
        REGISTERED[axis, word] = axes.Row(axis, word, label, about, getattr(found, "__module__", ""))
        return found

    REGISTERED[axis, word] = axes.Row(axis, word, label, about, "")
    return register


class Table(Mapping[str, Part]):
    """The parts of one axis, in the order of `--help`.

    With a `base` the axis also takes a class of the user's own by import path, which derives from it and writes at
    least one of the methods `one_of`. `arguments` is how many its constructor is given before its options; `check`
    tries a part that was built, with what `make` is given for it, and raises a ValueError; `plain` is the built-in word
    whose cost its own is counted against, unless it has a method `formula` of what it multiplies.
    """

    def __init__(
        self,
        axis: str,
        base: type | None = None,
        one_of: tuple[str, ...] = (),
        arguments: int = 0,
        check: Callable[..., None] | None = None,
        plain: str = "",
        formula: str = "macs",
    ) -> None:
        self.axis, self.base, self.one_of, self.arguments, self.check = axis, base, one_of, arguments, check
        self.plain, self.formula = plain, formula
        if base:
            own.Slot(axis, base, one_of, arguments)
        TABLES[axis] = self

    def __getitem__(self, word: str) -> Part:
        axes.check(self.axis, word)
        if axes.is_path(word):
            kind: Any = self.own(word).kind
            return cast(Part, kind)
        if (self.axis, word) not in _PARTS:
            importlib.import_module(next(row.module for row in axes.of(self.axis) if row.word == word))
        found: Part = _PARTS[self.axis, word]
        return found

    def __contains__(self, word: object) -> bool:
        return word in axes.values(self.axis)

    def __iter__(self) -> Iterator[str]:
        return iter(axes.values(self.axis))

    def __len__(self) -> int:
        return len(axes.values(self.axis))

    def own(self, path: str) -> own.Own:
        """A part of the user's own. Raises: ValueError, as `find`."""
        assert self.base is not None, f"{self.axis} is no slot"
        return find(own.SLOTS[self.axis], path)

    def has_formula(self, path: str) -> bool:
        """Whether a part of the user's own says itself what it multiplies, so that nobody has to count."""
        theirs = (kind for kind in self.own(path).kind.mro() if not kind.__module__.startswith("vitexp."))
        return any(self.formula in vars(kind) for kind in theirs)

    def make(self, config: Any, *arguments: Any, at: str = "", tried: tuple[Any, ...] | None = ()) -> Any:
        """The part that a config asks for. One of the user's own is built on the CPU, from a seed of its own.

        `at` is its name in the network, where there are several: each draws its own values.
        `tried` goes to `check`; None for no check.
        """
        word = getattr(config, self.axis)
        kind: Any = self[word]
        if not axes.is_path(word):
            return kind(*arguments)
        meta = torch.get_default_device().type == "meta"
        what = f"{self.axis} {word}"
        seed = generator_for(torch.initial_seed(), at or self.axis).initial_seed()
        with torch.device("cpu"), as_it_was(what, seed), failing(what), torch.no_grad():
            part = kind(*arguments[: self.arguments], **config.options[self.axis])
            part.own_axis = self.axis
            initialise(part)
            before = {name: buffer.clone() for name, buffer in part.named_buffers()}
            if self.check and tried is not None:
                self.check(part, what, *tried)
            for name in before:
                part.get_buffer(name).copy_(before[name])
        if vars(kind).get("adds_parameters") is False and any(True for _ in part.parameters()):
            raise ValueError(f"{self.axis} {word} declares adds_parameters False and has parameters; mend one of both")
        return part.to("meta") if meta else part


TABLES: dict[str, Table[Any]] = {}
"""Those that were imported, by axis."""


def check_shape(what: str, given: Any, wanted: tuple[int, ...], broadcasts: bool = False) -> None:
    """Raises: WrongPart for what is no tensor of this shape; one that `broadcasts` to it may be smaller."""
    shape = tuple(given.shape) if isinstance(given, torch.Tensor) else ()
    smaller = (
        broadcasts
        and len(shape) <= len(wanted)
        and all(a in (1, b) for a, b in zip(shape[::-1], wanted[::-1], strict=False))
    )
    if not isinstance(given, torch.Tensor) or not (shape == wanted or smaller):
        gives = f"shape {shape}" if isinstance(given, torch.Tensor) else f"a {type(given).__name__}"
        raise WrongPart(f"{what} gives {gives} and must give shape {wanted}; mend that method")


def probe(*shape: int) -> torch.Tensor:
    """Ordinary values, each of them another."""
    return torch.linspace(-1, 2, math.prod(shape)).sin().view(shape)


def check_method(
    what: str, method: Callable[..., Any], given: torch.Tensor, *more: Any, wanted: tuple[int, ...] = ()
) -> Any:
    """What a method makes of a tensor, of that tensor's shape, or of one that broadcasts to the shape `wanted`.

    Raises: WrongPart where it changes shape or type, or the tensor that it is given, or gives NaN.
    """
    kept = given.clone()
    found = method(given, *more)
    check_shape(what, found, wanted or tuple(given.shape), broadcasts=bool(wanted))
    if not torch.equal(given, kept):
        raise WrongPart(f"{what} changes the tensor that it is given; write into a new one")
    if found.dtype != given.dtype:
        raise WrongPart(f"{what} gives {found.dtype} for {given.dtype}; give the type that it is given")
    if found.isnan().any():
        raise WrongPart(f"{what} gives NaN for ordinary values; mend that method")
    return found


def settled(config: Config) -> Config:
    """The config with all options and the source hash of each part of the user's own. Raises: ValueError."""
    return own.settled(config, find)


def find(slot: own.Slot, path: str) -> own.Own:
    """A part of the user's own. Raises: ValueError where it is none of this slot, or changes built-in parts."""
    before, parts = dict(REGISTERED), dict(_PARTS)
    found = own.load(slot, path)
    known = {(row.axis, row.word) for row in axes.rows()}
    hidden = [k for k, row in REGISTERED.items() if k not in known or before.get(k, row) != row]
    if hidden:
        for table, kept in ((REGISTERED, before), (_PARTS, parts)):
            table.clear()
            table.update(kept)
        raise ValueError(
            f"{slot.axis} {path}: its file registers {' '.join(hidden[0])} with part(), which is for files of vitexp "
            "and would hide a built-in word; take that line out, the path is enough"
        )
    return found
