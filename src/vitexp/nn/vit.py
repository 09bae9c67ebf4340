"""The Vision Transformer: stem, prefix, position, blocks, readout. Each comes from its axis; this file joins them.

Source: ViT paper (Dosovitskiy et al., arXiv 2010.11929), equations 1 to 4; numerics as in Google's code.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vitexp.nn.arch import Stem, parse_arch
from vitexp.nn.attention import Full
from vitexp.nn.block import NORM_EPS, Block, dropout_or_nothing
from vitexp.nn.init import Linear, constant, initialise, lecun_normal, zeros
from vitexp.nn.pool import POOLS, Pool
from vitexp.nn.pos_embed import POSITIONS, Layout, PosAt, PosEmbed, check_position
from vitexp.nn.stem import make_stem

Head = Literal["linear", "tanh"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """One network: its size and its choice on every axis."""

    arch: str = "B/16"
    """size and patch as the papers write them: Ti/16, S/32, B/16, L/16, H/14, micro/2, R50+B/16, R26+S/32"""
    image_size: tuple[int, int] | int = 224
    """rows and columns in pixels, or one number for a square"""
    classes: int = 1000
    """number of classes"""
    pos_embed: PosEmbed = "1d"
    """position embedding: none, learned over the raster sequence, learned per row and column, or relative attention"""
    pos_at: PosAt = "stem"
    """where positions enter: after the stem, before every layer with its own table, or with one table shared by all"""
    pool: Pool = "cls"
    """readout: a class token, or the mean over patches (gap)"""
    stem: Stem = "auto"
    """how images become tokens: as the arch says, patches, or a ResNet in front (resnet50 at /16 and /32)"""
    head: Head = "linear"
    """head: one linear layer, or a hidden tanh layer before it as in the paper's pre-training"""
    head_bias: float = 0.0
    """starting value of the head's bias; -10 or -6.9 suit a sigmoid loss over many classes"""
    dropout: float = 0.0
    """dropout rate after the positions and after every dense layer but the q, k, v projections"""


def resolve(config: ViTConfig) -> ViTConfig:
    """The one spelling of a network: `stem` says what `auto` meant, `arch` is plain, a square image is one number.

    Raises: ValueError for an unknown word, a size that cannot be, and a choice that would have no effect.
    """
    check_position(config.pos_embed, config.pos_at)
    _check_word("pool", config.pool, tuple(POOLS))
    _check_word("head", config.head, get_args(Head))
    if config.classes < 1:
        raise ValueError(f"classes is {config.classes}, and must be at least 1: set it to the classes in the data")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}, and must be at least 0 and below 1")
    rows, columns = _pair(config.image_size)
    arch = parse_arch(config.arch, config.stem)
    image_size = rows if rows == columns else (rows, columns)
    return replace(config, arch=arch.name, stem=arch.stem, image_size=image_size)  # type: ignore[arg-type]


def _check_word(option: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"{option} {word!r} is unknown; allowed are {', '.join(allowed)}")


def _pair(image_size: tuple[int, int] | int) -> tuple[int, int]:
    rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(rows, columns) < 1:
        raise ValueError(f"image_size is {image_size}, and must be at least 1 pixel each way")
    return rows, columns


class ViT(nn.Module):
    """A Vision Transformer for classification. `config` is the resolved one, `layout` says where tokens lie."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config = resolve(config)
        arch = parse_arch(config.arch, config.stem)
        self.stem = make_stem(arch, _pair(config.image_size))
        self.pool = POOLS[config.pool](arch.width)
        self.layout = Layout(
            grid=self.stem.grid, prefix=self.pool.prefix, width=arch.width, heads=arch.heads, depth=arch.depth
        )
        self.position = POSITIONS[config.pos_embed](self.layout, config.pos_at)
        self.dropout = dropout_or_nothing(config.dropout)
        self.blocks = nn.ModuleList(
            Block(Full(arch.width, arch.heads), arch.width, arch.mlp_width, config.dropout) for _ in range(arch.depth)
        )
        self.norm = nn.LayerNorm(arch.width, eps=NORM_EPS)
        self.pre_logits = Linear(arch.width, arch.width, weight=lecun_normal) if config.head == "tanh" else None
        self.head = Linear(arch.width, config.classes, weight=zeros, bias=constant(config.head_bias))
        initialise(self)

    def encode(self, images: Tensor) -> Tensor:
        """The tokens after the last layer, not yet normed. Shapes: (B, 3, rows, columns) -> (B, T, D)."""
        tokens = self.pool.prepend(self.stem(images))
        for layer, block in enumerate(self.blocks):
            tokens = self.position.add(tokens, layer)
            if layer == 0:
                tokens = self.dropout(tokens)
            tokens = block(tokens, self.position, layer)
        return tokens

    def features(self, images: Tensor) -> Tensor:
        """What the head reads. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, D)."""
        read = self.pool.read(self.encode(images), self.norm)
        return read if self.pre_logits is None else torch.tanh(self.pre_logits(read))

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def build(config: ViTConfig) -> nn.Module:
    """The network a config asks for, initialised from torch's seed. It has `features(images)` and `forward(images)`."""
    return ViT(config)
