"""The attention axis: which tokens a token may look at, and so what a layer is.

To add one: write its class, its word in Attention, its row in LAYERS.
"""

from collections.abc import Callable
from typing import Literal

from vitexp.nn.attention import Full
from vitexp.nn.attention_axial import AxialLayer
from vitexp.nn.attention_local import Local
from vitexp.nn.block import Block
from vitexp.nn.position import Layout

Attention = Literal["full", "local", "axial"]

WINDOW = 3
"""The window where none is given."""

_AXIAL_REFUSES = {
    ("pool", "cls"): "a class token lies in no row and no column; use pool gap or map",
    ("pos_embed", "relative"): "its offsets are between all tokens, which an axis does not see; use another pos_embed",
}


def make_layer(attention: str, window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
    """One layer of the encoder."""
    return LAYERS[attention](window, layout, mlp_width, dropout, gelu)


def _full(window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
    return Block(Full(layout.width, layout.heads), layout.width, mlp_width, dropout, gelu)


def _local(window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
    return Block(Local(layout.width, layout.heads, layout, window), layout.width, mlp_width, dropout, gelu)


def _axial(window: int, layout: Layout, mlp_width: int, dropout: float, gelu: str) -> Block:
    return AxialLayer(layout, mlp_width, dropout, gelu)


LAYERS: dict[str, Callable[[int, Layout, int, float, str], Block]] = {"full": _full, "local": _local, "axial": _axial}


def check_attention(attention: str, window: int, pool: str, pos_embed: str) -> None:
    """Raises: ValueError for an unknown word, and for what has no effect or no meaning beside it."""
    if attention not in LAYERS:
        raise ValueError(f"attention {attention!r} is unknown; allowed are {', '.join(LAYERS)}")
    if attention == "local" and (window < 1 or window % 2 == 0):
        raise ValueError(f"window is {window}, and must be odd and at least 1, so that a patch can be its centre")
    if attention != "local" and window != WINDOW:
        raise ValueError(f"window {window} has no effect with attention {attention}; leave it out, or use local")
    for option, word in (("pool", pool), ("pos_embed", pos_embed)):
        if attention == "axial" and (option, word) in _AXIAL_REFUSES:
            raise ValueError(f"{option} {word} cannot be with attention axial: {_AXIAL_REFUSES[option, word]}")
