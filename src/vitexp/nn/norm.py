"""The norm axis: how tokens are brought to one scale, before attention, before the MLP and after the last layer.

To add one: write its function or class with a `part` row above it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitexp.nn.table import Table, check_method, part, probe
from vitexp.own import WrongPart

NORM_EPS = 1e-6


@part("norm", "layer", label="LayerNorm", about="LayerNorm, as in the paper")
def layer_norm(width: int) -> nn.Module:
    """Zero mean and unit deviation, then a learned scale and shift."""
    return nn.LayerNorm(width, eps=NORM_EPS)


@part("norm", "rms", label="RMSNorm", about="RMSNorm: no mean is taken off, and there is no shift")
class RmsNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps), then a learned scale. Source: Zhang and Sennrich (2019)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """In the precision of its scale, as autocast does for LayerNorm alone. Shapes: (..., D) -> (..., D)."""
        return super().forward(tokens.to(self.weight.dtype))


class TokenNorm(nn.Module):
    """The base of a norm of the user's own, which sees each token alone: the class token may be normed by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (..., D) -> (..., D)."""
        raise NotImplementedError


def check_norm(norm: TokenNorm, what: str) -> None:
    """Raises: ValueError for a norm of the user's own that changes shapes, or mixes tokens or images."""
    tokens = probe(2, 3, norm.width)
    whole, alone = (check_method(f"{what}: forward()", norm, given) for given in (tokens, tokens[:1, 0]))
    if not torch.allclose(whole[0, 0], alone[0], rtol=1e-4, atol=1e-5):
        raise WrongPart(f"{what} makes of a token among others something else than of it alone; norm each by itself")


NORMS: Table[Callable[[int], nn.Module]] = Table(
    "norm", TokenNorm, one_of=("forward",), arguments=1, check=check_norm, plain="layer"
)
