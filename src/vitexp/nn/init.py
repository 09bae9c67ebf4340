"""Initial values, the same for every arm of a study wherever the shapes allow.

Each parameter is drawn from a generator of its own, seeded by the seed and by the parameter's name. So a network with
relative positions and one with none, built from one seed, share every other weight to the bit, on any device; and
building draws nothing from torch's global generator.

A module that owns parameters says how to fill them in `init_rules` (local name -> rule). Source: the initialisers of
Google's ViT code, except where a docstring says otherwise.
"""

import hashlib
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

Rule = Callable[[Tensor, Generator], object]

# The standard deviation of a unit normal truncated at two sigma, by which a truncated draw must be widened.
TRUNCATED_STD = 0.87962566103423978


def constant(value: float) -> Rule:
    """Every entry the same."""
    return partial(_fill, value=value)


def _fill(tensor: Tensor, generator: Generator, value: float) -> None:
    tensor.fill_(value)


zeros, ones = constant(0.0), constant(1.0)


def normal(std: float) -> Rule:
    """Normal around zero."""
    return partial(_normal, std=std)


def _normal(tensor: Tensor, generator: Generator, std: float) -> None:
    tensor.normal_(0.0, std, generator=generator)


def xavier_uniform(tensor: Tensor, generator: Generator) -> None:
    """Uniform within sqrt(6 / (fan_in + fan_out)) of the matrix given."""
    nn.init.xavier_uniform_(tensor, generator=generator)


def each_of(parts: int, rule: Rule) -> Rule:
    """Applies a rule to each of several stacked matrices: a fused q, k, v must not be taken for one wide matrix."""
    return partial(_each, parts=parts, rule=rule)


def _each(tensor: Tensor, generator: Generator, parts: int, rule: Rule) -> None:
    for part in tensor.chunk(parts):
        rule(part, generator)


def lecun_normal(tensor: Tensor, generator: Generator) -> None:
    """Normal truncated at two sigma, with variance 1 / fan_in after the truncation (flax's default kernel)."""
    std = math.sqrt(1.0 / tensor[0].numel()) / TRUNCATED_STD
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std, generator=generator)


def he_normal(tensor: Tensor, generator: Generator) -> None:
    """Normal with variance 2 / fan_in, for what a ReLU follows. Source: He et al. (2015)."""
    tensor.normal_(0.0, math.sqrt(2.0 / tensor[0].numel()), generator=generator)


class Linear(nn.Linear):
    """A linear layer that names its rules and draws nothing when built."""

    def __init__(self, fan_in: int, fan_out: int, *, weight: Rule = xavier_uniform, bias: Rule = zeros) -> None:
        super().__init__(fan_in, fan_out)
        self.init_rules: dict[str, Rule] = {"weight": weight, "bias": bias}

    def reset_parameters(self) -> None:
        """Left to `initialise`."""


def initialise(root: nn.Module, seed: int | None = None) -> None:
    """Fills every parameter below root, and every buffer that has a rule; what is on the meta device stays as it is.

    The seed is the one last given to torch.manual_seed unless another is given.
    """
    seed = torch.initial_seed() if seed is None else seed
    own: tuple[str, ...] = ()
    for path, module in root.named_modules():
        own = (*own, path and f"{path}.") if hasattr(module, "own_axis") else own
        starts = f"{path}.".startswith(own)
        for name, parameter in module.named_parameters(recurse=False):
            rule = _rule_of(module, name, starts)
            if rule is not None and not parameter.is_meta:
                _draw(parameter, rule, generator_for(seed, f"{path}.{name}"))
        for name, buffer in module.named_buffers(recurse=False):
            rules = getattr(module, "init_rules", {})
            if name in rules and not buffer.is_meta:
                _draw(buffer, rules[name], generator_for(seed, f"{path}.{name}"))


def generator_for(seed: int, name: str) -> Generator:
    """The generator of one parameter."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _rule_of(module: nn.Module, name: str, starts_as_built: bool) -> Rule | None:
    rules: dict[str, Rule] = getattr(module, "init_rules", {})
    if name in rules:
        return rules[name]
    if starts_as_built:  # a part of the user's own, whose constructor has drawn from a seed of its own
        return None
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm), (
        f"{type(module).__name__}.{name} has no initial value"
    )
    return ones if name == "weight" else zeros


@torch.no_grad()
def _draw(parameter: Tensor, rule: Rule, generator: Generator) -> None:
    # Drawn on the CPU in single precision, so that neither the device nor the precision changes the start of a run.
    values = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
    rule(values, generator)
    parameter.copy_(values)
