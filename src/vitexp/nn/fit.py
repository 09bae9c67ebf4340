"""The later choices inside an encoder, put in the place of the paper's parts. At their defaults they do nothing.

A layer is built as the paper has it, whatever its attention, and is then changed here. Names stay, so that parameters
of the same name and shape start equal with and without any of these choices.
"""

from typing import Any

from torch import nn

from vitexp.nn.attention import Full
from vitexp.nn.block import Block
from vitexp.nn.branch import DropPath, LayerScale, path_rate
from vitexp.nn.mlp import MLPS
from vitexp.nn.norm import NORMS
from vitexp.nn.pool_class import ClassLayer
from vitexp.nn.position import Layout


def fit(config: Any, layout: Layout, mlp_width: int, **parts: nn.Module) -> None:
    """Changes the blocks, and the norms of all `parts`, by the options of a resolved ViTConfig."""
    if config.norm != "layer":
        for name, part in parts.items():
            _swap_norms(config, part, name)
    for one in parts["pool"].modules():
        if isinstance(one, ClassLayer) and config.layer_scale:
            one.scale1, one.scale2 = (LayerScale(layout.width, config.layer_scale) for _ in range(2))
    for layer, block in enumerate(parts["blocks"].children()):
        rate = path_rate(config.drop_path, layer, layout.depth)
        for path, half in [*block.named_modules(prefix=f"blocks.{layer}")]:
            if isinstance(half, Block):  # a layer, or one of the two halves of an axial one
                _fit_block(config, half, path, layout, mlp_width, rate)


def _swap_norms(config: Any, root: nn.Module, name: str) -> None:
    own: tuple[str, ...] = ()
    for path, module in [*root.named_modules(prefix=name)]:
        own = (*own, f"{path}.") if hasattr(module, "own_axis") else own
        for child, norm in [*module.named_children()]:
            if isinstance(norm, nn.LayerNorm) and not f"{path}.".startswith(own):  # the user's own keep theirs
                setattr(module, child, NORMS.make(config, norm.normalized_shape[0], at=f"{path}.{child}"))


def _fit_block(config: Any, block: Block, path: str, layout: Layout, mlp_width: int, rate: float) -> None:
    if config.mlp != "gelu":
        block.mlp = MLPS.make(config, layout.width, mlp_width, config.dropout, config.gelu, at=f"{path}.mlp")
    if config.block == "parallel":
        block.norm2 = None
    if config.layer_scale:
        block.scale1 = LayerScale(layout.width, config.layer_scale)
        block.scale2 = LayerScale(layout.width, config.layer_scale) if block.norm2 is not None else None
    if rate:
        block.drop_path = DropPath(rate)
    if config.qk_norm:
        attention = block.attention
        assert isinstance(attention, Full), "every attention compares queries and keys as the full one does"
        for one in ("q_norm", "k_norm"):
            setattr(attention, one, NORMS.make(config, layout.head_width, at=f"{path}.attention.{one}"))
