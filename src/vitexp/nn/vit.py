"""The Vision Transformer: stem, prefix, position, blocks, readout. Each comes from its axis; this file joins them.

Source: ViT paper (Dosovitskiy et al., arXiv 2010.11929), equations 1 to 4; numerics as in Google's code.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitexp.nn.arch import parse_arch
from vitexp.nn.attention import make_layer
from vitexp.nn.config import ViTConfig, pair, resolve
from vitexp.nn.fit import fit
from vitexp.nn.init import Linear, constant, initialise, lecun_normal, zeros
from vitexp.nn.mlp import dropout_or_nothing
from vitexp.nn.norm import NORMS
from vitexp.nn.patch_dropout import PatchDropout
from vitexp.nn.pool import POOLS, Pool
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.pos_join import JOINS
from vitexp.nn.position import Layout
from vitexp.nn.registers import Placed, Registers
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.stem import make_stem


class ViT(nn.Module):
    """A Vision Transformer for classification.

    >>> vit = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10))
    >>> vit.features(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 64])

    Initial values follow torch's seed (`torch.manual_seed`) and the name of each parameter; the head starts at zero.
    Attributes: `config`, the resolved one; `layout`, where the tokens lie (`position.layout` is the same without
    registers); `stem`, `pool`, `position`, `registers`, `norm`, `blocks`, `head`, the parts.
    Raises: ValueError for an unknown word, a size that cannot be, and a choice without effect.
    Source: ViT paper (Dosovitskiy et al., arXiv 2010.11929), equations 1 to 4; the details are Google's code.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config = resolve(config)
        arch = parse_arch(config.arch, config.stem)
        assert arch.family == "vit", f"{arch.name} is built by ResNet"
        self.stem = make_stem(arch, pair(config.image_size), config)
        sizes, patches = (arch.width, arch.heads, arch.mlp_width), math.prod(self.stem.grid)
        self.pool: Pool = POOLS.make(config, *sizes, config.gelu, tried=(patches,))
        placed = Layout(
            grid=self.stem.grid, prefix=self.pool.prefix, width=arch.width, heads=arch.heads, depth=arch.depth
        )
        self.layout = replace(placed, prefix=placed.prefix + config.registers)
        self.position = POSITIONS.make(config, placed, config.pos_at, config.pos_std)
        self.registers = Registers(config.registers, arch.width, placed.prefix) if config.registers else None
        self.pos_join = JOINS[config.pos_join](placed)
        self.dropout = dropout_or_nothing(config.dropout)
        self.patch_dropout = PatchDropout(config.patch_dropout, self.layout.prefix) if config.patch_dropout else None
        self.blocks = nn.ModuleList(
            make_layer(config, self.layout, self.position, arch.mlp_width, layer) for layer in range(arch.depth)
        )
        self.norm = NORMS.make(config, arch.width, at="norm")
        self.pre_logits = Linear(arch.width, arch.width, weight=lecun_normal) if config.head == "tanh" else None
        self.head = Linear(arch.width, config.classes, weight=zeros, bias=constant(config.head_bias))
        fit(config, self.layout, arch.mlp_width, blocks=self.blocks, pool=self.pool)
        initialise(self)

    def encode(self, images: Tensor) -> Tensor:
        """The tokens after the last layer, not yet normed. Shapes: (B, 3, rows, columns) -> (B, T, D)."""
        return self.encode_patches(self.stem(images))

    def encode_patches(self, patches: Tensor) -> Tensor:
        """The same from embedded patches. Shapes: (B, N, D) -> (B, T, D)."""
        tokens, position = self.pool.prepend(patches), self.position
        if self.registers is not None:
            tokens, position = self.registers.insert(tokens), Placed(self.position, self.registers)
        for layer, block in enumerate(self.blocks):
            tokens = self.pos_join(tokens, position, layer)
            if layer == 0:
                tokens = self.dropout(tokens)
                tokens = tokens if self.patch_dropout is None else self.patch_dropout(tokens)
            tokens = block(tokens, position, layer)
        return tokens

    def features(self, images: Tensor) -> Tensor:
        """What the head reads, for a linear probe. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, D).

        Raises: ValueError for images of another size than `config.image_size`.
        """
        tokens = self.encode(images)
        read = self.pool.read(tokens if self.registers is None else self.registers.apart(tokens)[1], self.norm)
        return read if self.pre_logits is None else torch.tanh(self.pre_logits(read))

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def build(config: ViTConfig) -> nn.Module:
    """The network a config asks for, a ViT or a ResNet, initialised from torch's seed.

    Both have `features(images)`, which the head reads, and `forward(images)`, the logits.
    Shapes: images (B, 3, rows, columns) in [-1, 1] -> (B, D) and (B, classes).

    >>> network = build(ViTConfig(arch="R50+micro/16", image_size=32, classes=10))
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Raises: ValueError for an unknown option, an impossible size, and a choice that would have no effect.
    """
    return ResNet(config) if parse_arch(config.arch, config.stem).family == "resnet" else ViT(config)
