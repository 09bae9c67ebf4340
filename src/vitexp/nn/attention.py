"""The attention axis: which tokens a token may look at, and so what a layer is.

To add one: write its class with a `part` row above it, and the pairs of tokens that it compares.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from vitexp import axes
from vitexp.nn.block import Block
from vitexp.nn.init import Linear, Rule, each_of, xavier_uniform, zeros
from vitexp.nn.position import Layout, Position
from vitexp.nn.table import Table, check_shape, part
from vitexp.own import WrongPart

WINDOW = 3
"""The window of local attention where none is given."""


class Kind(Protocol):
    """What an attention says of its layers. `sees_all`: it takes logits between all tokens, which a position adds."""

    halves: ClassVar[int]
    sees_all: ClassVar[bool]

    @classmethod
    def layer(cls, window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
        """One layer of the encoder."""

    @classmethod
    def pairs(cls, layout: Layout, window: int, *, as_computed: bool = False) -> int:
        """Pairs of a query and a key in one layer; `as_computed` also those that a mask hides."""


@part("attention", "full", label="full attention", about="every token to every token")
class Full(nn.Module):
    """Every token attends to every token. A call is `attention(tokens, position, layer)`.

    Another pattern is another `mix`.

    The three projections are one matrix multiplication; rows of `qkv` are query, key, value, each head by head.
    Source: ViT paper, appendix A. No dropout on the probabilities (all of Google's configs have 0).
    """

    halves: ClassVar[int] = 1
    sees_all: ClassVar[bool] = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.qkv = Linear(width, 3 * width, weight=each_of(3, xavier_uniform), bias=zeros)
        self.out = Linear(width, width)
        self.q_norm: nn.Module | None = None
        self.k_norm: nn.Module | None = None

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        # Split before the transposition: so the backward pass gathers the three gradients in one copy.
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        bias = position.bias(query, layer)
        query, key = position.rotate(query, layer), position.rotate(key, layer)
        out: Tensor = self.out(self.mix(query, key, value, bias).transpose(1, 2).flatten(2))
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """What each query gathers. Shapes: (B, H, T, K) each, the bias (B, H, T, T) or none -> (B, H, T, K)."""
        attend = F.scaled_dot_product_attention if query.is_cuda else plain_attention
        return attend(query, key, value, attn_mask=bias, scale=self.scale)

    @classmethod
    def layer(cls, window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
        """One layer of the encoder."""
        return Block(Full(layout.width, layout.heads), layout.width, mlp_width, dropout, gelu)

    @classmethod
    def pairs(cls, layout: Layout, window: int, *, as_computed: bool = False) -> int:
        """Each token with each."""
        return layout.tokens**2


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, scale: float) -> Tensor:
    """Softmax attention written out: on a CPU as fast as the fused kernel in fp32 and several times faster in bf16.

    Shapes: (B, H, T, K) each, the mask (B, H, T, T) -> (B, H, T, K).
    """
    logits = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None:
        logits = logits + attn_mask
    # Of bf16 logits the softmax is taken in fp32: more exact, and on a CPU several times faster too.
    wide = torch.float32 if logits.dtype == torch.bfloat16 else logits.dtype
    return torch.softmax(logits, dim=-1, dtype=wide).to(value.dtype) @ value


class Masked(Full):
    """Each patch attends to some patches, and to the prefix; a kind says to which (`seen`), and to how many (`near`).

    The prefix attends to every token and every token to the prefix, so a class token joins what the mask keeps apart.
    Parameters are those of full attention. It is computed densely under a mask: what the closed form of the cost leaves
    out is not saved in time.
    """

    def __init__(self, width: int, heads: int, layout: Layout, window: int) -> None:
        super().__init__(width, heads)
        self.layout, self.window = layout, window
        self.register_buffer("mask", torch.empty(layout.tokens, layout.tokens), persistent=False)
        self.init_rules: dict[str, Rule] = {"mask": self._fill}

    @classmethod
    def seen(cls, layout: Layout, window: int) -> Tensor:
        """True where a patch (row) attends to a patch (column). Shapes: (N, N)."""
        raise NotImplementedError

    @classmethod
    def near(cls, layout: Layout, window: int) -> int:
        """The number of these pairs."""
        raise NotImplementedError

    def _fill(self, mask: Tensor, generator: Generator) -> None:
        prefix = self.layout.prefix
        mask.zero_()[prefix:, prefix:].masked_fill_(~self.seen(self.layout, self.window), float("-inf"))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes: (B, H, T, K) each, the bias (B, H, T, T) or none -> (B, H, T, K)."""
        mask = self.get_buffer("mask").to(query.dtype)
        return super().mix(query, key, value, mask if bias is None else bias + mask)

    @classmethod
    def layer(cls, window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
        """One layer of the encoder."""
        return Block(cls(layout.width, layout.heads, layout, window), layout.width, mlp_width, dropout, gelu)

    @classmethod
    def pairs(cls, layout: Layout, window: int, *, as_computed: bool = False) -> int:
        """Those of patches, and the prefix with everything."""
        if as_computed:
            return layout.tokens**2
        return cls.near(layout, window) + 2 * layout.patches * layout.prefix + layout.prefix**2


# Local attention: a patch attends to the patches around it.
# The ViT paper has no such pattern; here it is the plainest one there is, a square window that moves with the patch.


@part("attention", "local", label="local attention", about="each patch to a window around it")
class Local(Masked):
    """Each patch attends to the window x window patches that it is the centre of, and to the prefix.

    At the border of the grid the window is cut off; nothing is padded.
    """

    def __init__(self, width: int, heads: int, layout: Layout, window: int) -> None:
        super().__init__(width, heads, layout, window)
        if window >= 2 * max(layout.grid) - 1:
            raise ValueError(
                f"window {window} covers the whole grid {layout.grid} from everywhere: use attention full, or a "
                f"window below {2 * max(layout.grid) - 1}"
            )

    @classmethod
    def seen(cls, layout: Layout, window: int) -> Tensor:
        """By rows and columns apart."""
        apart = ((places[:, None] - places).abs() for places in map(torch.arange, layout.grid))
        rows, columns = (one <= window // 2 for one in apart)
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)

    @classmethod
    def near(cls, layout: Layout, window: int) -> int:
        """Neighbours."""
        return math.prod(band(length, window // 2) for length in layout.grid)


def band(length: int, reach: int) -> int:
    """Pairs of places along a line of this length that are at most `reach` apart."""
    return sum(min(place + reach, length - 1) - max(place - reach, 0) + 1 for place in range(length))


# Axial attention: along the row, then along the column. Source: ViT paper, appendix D.6 and Fig. 13.


class Row(Full):
    """A patch attends to the patches of its row, and to the prefix; the prefix attends to every token."""

    def __init__(self, width: int, heads: int, layout: Layout) -> None:
        super().__init__(width, heads)
        self.grid, self.prefix = layout.grid, layout.prefix

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes: (B, H, T, K) each -> (B, H, T, K)."""
        assert bias is None, "a bias is between all tokens, which an axis does not see"
        asking = self._lines(query[:, :, self.prefix :])
        mixed = super().mix(asking, self._seen(key), self._seen(value), None)
        patches = self._tokens(mixed.unflatten(1, (query.shape[1], -1)))
        if not self.prefix:
            return patches
        return torch.cat([super().mix(query[:, :, : self.prefix], key, value, None), patches], dim=2)

    def _seen(self, heads: Tensor) -> Tensor:
        """The prefix in front of each row. Shapes: (B, H, P + rows * columns, K) -> (B, H * rows, P + columns, K)."""
        lines = self._lines(heads[:, :, self.prefix :])
        if not self.prefix:
            return lines
        before = heads[:, :, : self.prefix].repeat_interleave(lines.shape[1] // heads.shape[1], dim=1)
        return torch.cat([before, lines], dim=2)

    def _lines(self, heads: Tensor) -> Tensor:
        """Rows beside heads. Shapes: (B, H, rows * columns, K) -> (B, H * rows, columns, K)."""
        return heads.unflatten(2, self.grid).flatten(1, 2)

    def _tokens(self, lines: Tensor) -> Tensor:
        """Back again. Shapes: (B, H, rows, columns, K) -> (B, H, N, K)."""
        return lines.flatten(2, 3)


class Column(Row):
    """A patch attends to the patches of its column."""

    def _lines(self, heads: Tensor) -> Tensor:
        """Columns beside heads. Shapes: (B, H, rows * columns, K) -> (B, H * columns, rows, K)."""
        return heads.unflatten(2, self.grid).transpose(2, 3).flatten(1, 2)

    def _tokens(self, lines: Tensor) -> Tensor:
        """Back again. Shapes: (B, H, columns, rows, K) -> (B, H, N, K)."""
        return lines.transpose(2, 3).flatten(2, 3)


@part("attention", "axial", label="axial attention", about="along the row and then the column, each with an MLP")
class AxialLayer(Block):
    """One layer in two halves: row attention and an MLP, then column attention and an MLP of its own.

    So a layer has two of everything that a full one has, and D.6 counts it as one layer, as is done here. The first
    half carries the names of a full layer, and with them its starting values. The co-author's code has no class token;
    here a prefix, which lies in no row and no column, sees every token in both halves and is seen by every patch.
    """

    halves: ClassVar[int] = 2
    sees_all: ClassVar[bool] = False

    def __init__(self, layout: Layout, mlp_width: int, dropout: float, gelu: str = "tanh") -> None:
        width, heads = layout.width, layout.heads
        super().__init__(Row(width, heads, layout), width, mlp_width, dropout, gelu)
        self.column = Block(Column(width, heads, layout), width, mlp_width, dropout, gelu)

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        out: Tensor = self.column(super().forward(tokens, position, layer), position, layer)
        return out

    @classmethod
    def layer(cls, window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
        """One layer of the encoder."""
        return cls(layout, mlp_width, dropout, gelu)

    @classmethod
    def pairs(cls, layout: Layout, window: int, *, as_computed: bool = False) -> int:
        """Each patch with its row, and with its column; in both halves the prefix with everything."""
        return layout.patches * sum(layout.grid) + 2 * layout.prefix * (2 * layout.patches + layout.prefix)


class _Probe(Position):
    """A position whose answers change nothing and can be followed."""

    def __init__(self, layout: Layout, ways: Sequence[str]) -> None:
        super().__init__(layout, "stem")
        every = {"rotate": torch.ones(()), "bias": torch.zeros(1, layout.heads, layout.tokens, layout.tokens)}
        self.said = {way: every[way].requires_grad_() for way in ways}

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        return heads * self.said["rotate"] if "rotate" in self.said else heads

    def bias(self, query: Tensor, layer: int) -> Tensor | None:
        return self.said.get("bias")


def check_attention(attention: Full, what: str, layout: Layout, position: Position) -> None:
    """Raises: ValueError for an attention of the user's own that changes shapes, or does not use this position."""
    ways = [way for way in ("rotate", "bias") if getattr(type(position), way) is not getattr(Position, way)]
    probe, tokens = _Probe(layout, ways), torch.zeros(1, layout.tokens, layout.width)
    with torch.enable_grad():
        out = attention(tokens, probe, 0)
        check_shape(f"{what}: forward()", out, tuple(tokens.shape))
        said = list(probe.said.values()) if out.requires_grad else []
        slopes = torch.autograd.grad(out.sum(), said, allow_unused=True) if said else ()
    used = [way for way, slope in zip(ways, slopes, strict=False) if slope is not None]
    if unused := [way for way in ways if way not in used]:
        raise WrongPart(
            f"{what} does not use what position.{unused[0]}() says, so that this pos_embed would have no effect: "
            "use it (mix is given the bias), or choose another pos_embed"
        )


def make_layer(config: Any, layout: Layout, position: Position, mlp_width: int, layer: int) -> Block:
    """One layer of the encoder, with the attention that a config asks for."""
    kind = LAYERS[config.attention]
    if not axes.is_path(config.attention):
        return kind.layer(config.window, layout, mlp_width, config.dropout, config.gelu)
    tried = None if layer else (layout, position)
    attention = LAYERS.make(config, layout, at=f"blocks.{layer}.attention", tried=tried)
    return Block(attention, layout.width, mlp_width, config.dropout, config.gelu)


LAYERS: Table[type[Kind]] = Table(
    "attention", Full, ("mix", "forward"), arguments=1, check=check_attention, plain="full", formula="pairs"
)
