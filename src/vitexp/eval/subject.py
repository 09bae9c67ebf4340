"""A network under test, beside its baseline: what both answer to random images.

Parameters that start at one value, such as the head's zeros and the gate of a branch, are moved by a random draw, the
same for equal names: so a branch that begins closed is told from one that is dead. Passes are made when first asked
for, and shared by the checks, so that B/16 takes seconds.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp import axes
from vitexp.nn.config import pair
from vitexp.nn.init import generator_for
from vitexp.nn.table import TABLES
from vitexp.nn.vit import ViT, ViTConfig, build

MOVED_STD = 0.05
"""About the size of a learned weight in a network of width 768."""

Optimize = Callable[[nn.Module], torch.optim.Optimizer]
_NO_CHOICE = ("image_size", "classes", "sources")
"""Fields of a config that follow from the data and from the files of parts."""


class Training(NamedTuple):
    """A training pass: logits (B, classes), and the gradients of the stem's tokens (B, N, D) where there are any."""

    logits: Tensor
    patches: Tensor | None


@dataclass(frozen=True)
class Subject:
    """Both networks at their start, from one seed; `seed` is also that of the passes. Configs are resolved ones.

    Raises: ValueError where a part of the user's own cannot be built.
    """

    config: ViTConfig
    baseline: ViTConfig
    seed: int
    optimize: Optimize
    build: Callable[[ViTConfig], nn.Module] = build

    def make(self, config: ViTConfig, seed: int) -> nn.Module:
        """A network as a run with this seed builds it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(config)

    @cached_property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The options in which both configs differ: here, and in the baseline."""
        names = [field.name for field in fields(ViTConfig) if field.name not in _NO_CHOICE]
        both = {name: (getattr(self.config, name), getattr(self.baseline, name)) for name in names}
        found = {name: (here, there) for name, (here, there) in both.items() if here != there}
        if len(found) > 1 and found.keys() & self.own.keys():
            found.pop("options", None)  # they come with the part
        return found

    def declared(self, name: str) -> dict[str, bool]:
        """What each part says of itself, by `axis word`, where it says something."""
        words = {axis: getattr(self.config, axis) for axis in TABLES if hasattr(self.config, axis)}
        found = {f"{axis} {word}": getattr(TABLES[axis][word], name, None) for axis, word in words.items()}
        return {part: value for part, value in found.items() if isinstance(value, bool)}

    @cached_property
    def own(self) -> dict[str, str]:
        """The paths of parts of the user's own, by axis."""
        words = {axis: getattr(self.config, axis, None) for axis in TABLES}
        return {axis: str(word) for axis, word in words.items() if axes.is_path(word)}

    @cached_property
    def starts(self) -> tuple[nn.Module, nn.Module, list[str], list[str]]:
        """Network and baseline, now moved, and what was drawn otherwise: in a second build, and in the baseline."""
        network, base = self.make(self.config, self.seed), self.make(self.baseline, self.seed)
        again = unlike(values(network), values(self.make(self.config, self.seed)))
        inside = tuple(f"{path}." for path, module in network.named_modules() if hasattr(module, "own_axis"))
        shared = {name: p for name, p in network.named_parameters() if not name.startswith(inside)}
        others = dict(base.named_parameters())
        drawn = [name for name in unlike(shared, others) if not is_multiple(shared[name], others[name])]
        for each in (network, base):
            move(each)
        return network, base, again, drawn

    @cached_property
    def shared(self) -> int:
        """How many parameters the baseline has too, in the same shape."""
        others = {name: parameter.shape for name, parameter in self.base.named_parameters()}
        return sum(others.get(name) == parameter.shape for name, parameter in self.network.named_parameters())

    def parameters_of(self, part: str) -> Iterator[nn.Parameter]:
        """Those of a part of the user's own."""
        axis = part.partition(" ")[0]
        inside = (module for module in self.network.modules() if getattr(module, "own_axis", None) == axis)
        return (parameter for module in inside for parameter in module.parameters())

    @cached_property
    def silent(self) -> list[str]:
        """The parameters that no gradient reaches, neither in training mode nor in eval mode, which drops nothing."""
        self.training  # noqa: B018
        found = silent_in(self.network)
        if found:
            self.begin(train=False)
            self.backward(self.network, 0, 1)
            found = [name for name in silent_in(self.network) if name in found]
        return found

    @property
    def network(self) -> nn.Module:
        """The network, moved."""
        return self.starts[0]

    @property
    def base(self) -> nn.Module:
        """The baseline, moved alike."""
        return self.starts[1]

    @cached_property
    def images(self) -> Tensor:
        """Three random images. Shapes: (3, 3, rows, columns)."""
        return torch.randn(3, 3, *pair(self.config.image_size), generator=generator_for(self.seed, "images"))

    @cached_property
    def _buffers(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.network.named_buffers()}

    def begin(self, train: bool) -> None:
        """Sets the mode, and sets back what an earlier pass in training mode may have counted."""
        for name, buffer in self.network.named_buffers():
            buffer.data.copy_(self._buffers[name])
        self.network.train(train)

    @torch.no_grad()
    def logits(self, *images: int, train: bool = False, shuffle: bool = False, base: bool = False) -> Tensor:
        """Answers to these images, in training mode from the seed; `shuffle` is of the last one's patches."""
        self.begin(train)
        self.base.train(train)
        with self.seeded() if train else nullcontext(), self._last_shuffled() if shuffle else nullcontext():
            found: Tensor = (self.base if base else self.network)(self.images[list(images)])
        return found.float()

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Draws as those of a training step under the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            yield

    @contextmanager
    def _last_shuffled(self) -> Iterator[None]:
        order = torch.randperm(self.patches, generator=generator_for(self.seed, "order"))

        def shuffled(_module: nn.Module, _inputs: Any, tokens: Tensor) -> Tensor:
            return torch.cat([tokens[:-1], tokens[-1:, order]])

        with self.network.get_submodule("stem").register_forward_hook(shuffled):
            yield

    @property
    def patches(self) -> int:
        """How many a ViT has; 0 for a ResNet."""
        return self.network.layout.patches if isinstance(self.network, ViT) else 0

    @cached_property
    def beside(self) -> Tensor:
        """Eval mode, image 0 beside itself with its patches shuffled, or where there are none beside image 2."""
        return self.logits(0, 0, shuffle=True) if self.patches > 1 else self.logits(0, 2)

    @cached_property
    def plain(self) -> Tensor:
        """Eval mode, images 0 and 1; where training mode gave image 0 these very bits, it drew nothing, and is that."""
        trained = self.training.logits
        return trained if same(trained[0], self.beside[0]) else self.logits(0, 1)

    @cached_property
    def random_in_eval(self) -> bool:
        """Whether eval mode draws: two passes over the same images then differ."""
        return not same(self.plain[0], self.beside[0]) and not same(self.plain, self.logits(0, 1))

    @cached_property
    def trained_beside(self) -> Tensor:
        """Training mode from the seed, image 0 beside another; eval mode where both modes are one."""
        return self.beside if same(self.training.logits, self.plain) else self.logits(0, 2, train=True)

    @cached_property
    def unseeded(self) -> bool:
        """Whether two training passes from one seed over the same images differ."""
        answers = self.training.logits
        return not same(answers[0], self.trained_beside[0]) and not same(answers, self.logits(0, 1, train=True))

    @cached_property
    def training(self) -> Training:
        """Training mode, images 0 and 1, with all gradients of their loss."""
        self.begin(train=True)
        found = self.backward(self.network, 0, 1)
        self.__dict__["_counted"] = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return found

    def step(self) -> torch.optim.Optimizer:
        """Takes the step of the training pass, of which the buffers keep what it counted."""
        self.training  # noqa: B018
        for name, buffer in self.network.named_buffers():
            buffer.data.copy_(self.__dict__["_counted"][name])
        optimizer = self.optimize(self.network)
        optimizer.step()
        return optimizer

    def backward(self, network: nn.Module, *images: int) -> Training:
        """A training pass in the mode that the network is in, from the seed."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, tokens: Tensor) -> None:
            tokens.retain_grad()
            kept.append(tokens)

        hook = network.stem.register_forward_hook(keep) if isinstance(network, ViT) else nullcontext()
        network.zero_grad(set_to_none=True)
        with self.seeded(), hook:
            logits = network(self.images[list(images)])
        F.cross_entropy(logits, torch.arange(len(images)) % logits.shape[1]).backward()
        return Training(logits.detach(), kept[0].grad if kept else None)


def silent_in(network: nn.Module) -> list[str]:
    """The parameters without a gradient."""
    learned = ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
    return [name for name, parameter in learned if parameter.grad is None or not parameter.grad.any()]


@torch.no_grad()
def move(network: nn.Module) -> None:
    """Moves every parameter that is one value throughout, by a draw of its own name."""
    for name, parameter in network.named_parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn(parameter.shape, generator=generator_for(0, name)), alpha=MOVED_STD)


@torch.no_grad()
def is_multiple(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one draw but for a factor, or both one value throughout."""
    if all(bool((each == each.flatten()[0]).all()) for each in (one, other)):
        return True
    factor = (one * other).sum() / (other * other).sum()
    return bool((one - factor * other).abs().max() <= 1e-5 * one.abs().max())


def values(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, those included that are not saved."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def unsaved(network: nn.Module, fresh: nn.Module) -> list[str]:
    """What a network that took over the state has otherwise: buffers, and attributes that are tensors or numbers."""
    found = unlike(dict(network.named_buffers()), dict(fresh.named_buffers()))
    for path, module in network.named_modules():
        there = vars(fresh.get_submodule(path))
        for name, value in vars(module).items():
            other = there.get(name)
            if isinstance(value, Tensor) and isinstance(other, Tensor):
                found += [f"{path}.{name}"] * (value.shape != other.shape or not same(value, other))
            elif isinstance(value, int | float) and isinstance(other, int | float) and value != other:
                found += [f"{path}.{name}"] * (name != "training")
    return found


def unlike(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> list[str]:
    """The names that both have, in one shape, with other bits."""
    shared = [name for name in these if name in those and these[name].shape == those[name].shape]
    return [name for name in shared if not same(these[name], those[name])]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN included."""
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value of `other`; infinite where one is no finite number."""
    found = float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(other.dtype).tiny))
    return found if found < float("inf") else float("inf")
