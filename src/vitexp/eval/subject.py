"""A network under test, beside its baseline: what both answer to random images.

Parameters that start at one value, such as the head's zeros and the gate of a branch, are moved by a random draw, which
is the same for equal names. Small parameters of the user's own parts are moved too. So a branch that is dead, or far
too weak, looks other than one that starts closed and can open. Each pass is made once, when a check first asks for it,
and shared by the checks, so that B/16 takes seconds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitexp import axes
from vitexp.nn.config import pair
from vitexp.nn.init import generator_for
from vitexp.nn.position import Position
from vitexp.nn.table import TABLES
from vitexp.nn.vit import ViT, ViTConfig, build

EQUAL = 3e-5
"""Logits whose largest difference is a smaller share of the largest are equal but for rounding in fp32."""
MOVED_STD = 0.05
"""About the size of a learned weight in a network of width 768."""
_NO_CHOICE = ("image_size", "classes", "sources")
"""Fields of a config that follow from the data and from the files of parts."""


class Starts(NamedTuple):
    """Both networks, moved, and what is known of them as they were built."""

    network: nn.Module
    base: nn.Module
    again: list[str]
    """What another build from this seed has otherwise"""
    shared: list[str]
    """The parameters, but for those of the user's own parts, that the baseline has in the same shape"""
    apart: list[str]
    """Those of them that were drawn otherwise there"""


@dataclass(frozen=True)
class Subject:
    """Both networks at their start, from one seed, which is also that of the passes. Configs are resolved ones.

    Raises: ValueError where a part of the user's own cannot be built.
    """

    config: ViTConfig
    baseline: ViTConfig
    seed: int
    optimize: Callable[[nn.Module], torch.optim.Optimizer]
    build: Callable[[ViTConfig], nn.Module] = build

    @cached_property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The options in which both configs differ: here, and in the baseline."""
        names = [field.name for field in fields(ViTConfig) if field.name not in _NO_CHOICE]
        both = {name: (getattr(self.config, name), getattr(self.baseline, name)) for name in names}
        found = {name: (here, there) for name, (here, there) in both.items() if here != there}
        if any(axes.is_path(here) for here, _ in found.values()):
            found.pop("options", None)  # they come with the part
        return found

    def declared(self, name: str) -> dict[str, bool]:
        """What each part says of itself, by axis, where it says something."""
        own = {axis: table for axis, table in TABLES.items() if axes.is_path(getattr(self.config, axis, None))}
        found = {axis: getattr(table[getattr(self.config, axis)], name, None) for axis, table in own.items()}
        return {axis: value for axis, value in found.items() if isinstance(value, bool)}

    def make(self, config: ViTConfig, seed: int) -> nn.Module:
        """A network as a run with this seed builds it."""
        with self.seeded(seed):
            return self.build(config)

    @cached_property
    def starts(self) -> Starts:
        """Built, compared, and moved."""
        network, base = self.make(self.config, self.seed), self.make(self.baseline, self.seed)
        again = unlike(_tensors(network), _tensors(self.make(self.config, self.seed)))
        mine, its = dict(network.named_parameters()), dict(base.named_parameters())
        inside = tuple(f"{path}." for path, module in network.named_modules() if hasattr(module, "own_axis"))
        shared = [name for name in mine if name in its and mine[name].shape == its[name].shape]
        shared = [name for name in shared if not name.startswith(inside)]
        apart = [name for name in shared if not _one_draw(mine[name], its[name])]
        for each in (network, base):
            _move(each)
        return Starts(network, base, again, shared, apart)

    @property
    def network(self) -> nn.Module:
        """The network, moved."""
        return self.starts.network

    @property
    def patches(self) -> int:
        """How many a ViT has; 0 for a ResNet."""
        return self.network.layout.patches if isinstance(self.network, ViT) else 0

    @cached_property
    def images(self) -> Tensor:
        """Three images of noise around a colour each. Shapes: (3, 3, rows, columns)."""
        draws = generator_for(self.seed, "images")
        return torch.randn(3, 3, 1, 1, generator=draws) + torch.randn(
            3, 3, *pair(self.config.image_size), generator=draws
        )

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Draws from a seed, and leaves the generator as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    @contextmanager
    def begun(self, network: nn.Module, train: bool) -> Iterator[nn.Module]:
        """A network in a mode: in training from the seed, and with the buffers that it has at first."""
        at_first = self.__dict__.setdefault(f"_buffers of {id(network)}", _copied(network))
        put_buffers(network, at_first)
        with self.seeded(self.seed) if train else nullcontext():
            yield network.train(train)

    @torch.no_grad()
    def logits(self, *images: int, train: bool = False, base: bool = False) -> Tensor:
        """Answers of the network, or of its baseline, to these images."""
        with self.begun(self.starts.base if base else self.network, train) as network:
            found: Tensor = network(self.images[list(images)])
        return found.float()

    def backward(self, train: bool = True) -> tuple[Tensor, Tensor | None]:
        """Logits of images 0 and 1, with all gradients of their squares; and those of the stem's tokens (B, N, D)."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, tokens: Tensor) -> None:
            tokens.retain_grad()
            kept.append(tokens)

        hook = self.network.stem.register_forward_hook(keep) if isinstance(self.network, ViT) else nullcontext()
        self.network.zero_grad()
        with self.begun(self.network, train) as network, hook:
            logits: Tensor = network(self.images[:2])
        logits.square().sum().backward()
        return logits.detach(), kept[0].grad if kept else None

    @cached_property
    def training(self) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The training pass: logits, gradients of the stem's tokens, and the buffers as it leaves them."""
        return *self.backward(), _copied(self.network)

    def placed(self, base: bool = False) -> float:
        """How far the position moves logits: training mode, images 0 and 1."""
        network: Any = self.starts.base if base else self.network
        with_it = self.logits(0, 1, train=True, base=True) if base else self.trained
        mine = network.position
        network.position = Position(mine.layout, mine.at)
        try:
            return apart(with_it, self.logits(0, 1, train=True, base=base))
        finally:
            network.position = mine

    def is_alike(self, **options: Any) -> bool:
        """Whether with other options the logits in training mode are these to the bit."""
        try:
            other = self.make(replace(self.config, **options), self.seed)
        except ValueError:
            return False
        _move(other)
        with torch.no_grad(), self.seeded(self.seed):
            return same(other.train()(self.images[:2]).float(), self.trained)

    def weights(self, base: bool = False) -> Mapping[str, float]:
        """By axis of the user's own parts, how far what stands in their place spreads each channel (of a pool: what the
        head is given), all layers together; of a position, how far it moves logits.
        """
        found, network = defaultdict[str, float](float), self.starts.base if base else self.network
        modules = dict(network.named_modules())

        def note(axis: str, _module: nn.Module, given: Any, result: Any) -> None:
            found[axis] += float((given[0] if axis == "pool" else result).float().flatten(0, -2).std(0).mean())

        own = {path: part.own_axis for path, part in self.network.named_modules() if hasattr(part, "own_axis")}
        with ExitStack() as hooks:
            for path, axis in own.items():
                if module := modules.get("head" if axis == "pool" else path):
                    hooks.enter_context(module.register_forward_hook(partial(note, axis)))
            if set(own.values()) != {"pos_embed"}:  # of which methods are called, and no module
                self.logits(0, 1, base=base)
        return found | ({"pos_embed": self.placed(base)} if hasattr(network, "position") else {})

    @property
    def trained(self) -> Tensor:
        """Training mode, images 0 and 1."""
        return self.training[0]

    @cached_property
    def beside(self) -> Tensor:
        """Eval mode, image 0 beside itself with its patches shuffled, or where there are none beside image 2."""
        if self.patches < 2:
            return self.logits(0, 2)
        order = torch.randperm(self.patches, generator=generator_for(self.seed, "order"))

        def shuffled(_module: nn.Module, _inputs: Any, tokens: Tensor) -> Tensor:
            return torch.cat([tokens[:-1], tokens[-1:, order]])

        with self.network.get_submodule("stem").register_forward_hook(shuffled):
            return self.logits(0, 0)

    @cached_property
    def plain(self) -> Tensor:
        """Eval mode, images 0 and 1. Where training gave image 0 these bits it drew nothing, and need not be redone."""
        return self.trained if same(self.trained[0], self.beside[0]) else self.logits(0, 1)

    @cached_property
    def trained_beside(self) -> Tensor:
        """Training mode, image 0 beside another; eval mode where both modes are one."""
        return self.beside if same(self.trained, self.plain) else self.logits(0, 2, train=True)

    @cached_property
    def random(self) -> dict[str, bool]:
        """By mode, whether two passes over the same images differ, in training mode from one seed."""
        pairs = {"eval": (self.plain, self.beside), "training": (self.trained, self.trained_beside)}
        return {
            mode: not same(one[0], other[0]) and not same(one, self.logits(0, 1, train=mode == "training"))
            for mode, (one, other) in pairs.items()
        }


@torch.no_grad()
def _move(network: nn.Module) -> None:
    own = tuple(f"{path}." for path, module in network.named_modules() if hasattr(module, "own_axis"))
    for name, parameter in network.named_parameters():
        if _is_constant(parameter) or (name.startswith(own) and parameter.abs().max() < 2 * MOVED_STD):
            parameter.add_(torch.randn(parameter.shape, generator=generator_for(0, name)), alpha=MOVED_STD)


@torch.no_grad()
def _one_draw(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for a factor, which an option may set, or both one value throughout."""
    if same(one, other) or (_is_constant(one) and _is_constant(other)):
        return True
    factor = (one * other).sum() / (other * other).sum()
    return bool((one - factor * other).abs().max() <= 1e-5 * one.abs().max())


def _is_constant(values: Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def put_buffers(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Sets all buffers."""
    for name, buffer in network.named_buffers():
        buffer.data.copy_(values[name])


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def unsaved(network: nn.Module, fresh: nn.Module) -> list[str]:
    """What a network that took over the state has otherwise: buffers, and attributes that are tensors or numbers."""
    found = unlike(dict(network.named_buffers()), dict(fresh.named_buffers()))
    for path, module in network.named_modules():
        found += [f"{path}.{name}" for name in unlike_attributes(module, fresh.get_submodule(path))]
    return found


def unlike_attributes(one: Any, other: Any) -> list[str]:
    """Attributes of two objects that are tensors or numbers in both, and others."""
    plain, there = Tensor | int | float, vars(other)
    both = {name: value for name, value in vars(one).items() if isinstance(value, plain) and name != "training"}
    pairs = {name: (value, there[name]) for name, value in both.items() if type(there.get(name)) is type(value)}
    return [name for name, pair in pairs.items() if not same(*map(torch.as_tensor, pair))]


def unlike(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> list[str]:
    """The names that both have with other values."""
    return [name for name in these if name in those and not same(these[name], those[name])]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN included."""
    if one.shape != other.shape or torch.equal(one, other):
        return one.shape == other.shape
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value of `other`; infinite where one is no finite number."""
    found = float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(other.dtype).tiny))
    return found if found < float("inf") else float("inf")
