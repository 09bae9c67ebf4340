"""The join axis: how a position table and the tokens become one. The ViT paper adds them, and does not say why."""

from typing import Any

import torch
from torch import Tensor, nn

from vitexp import axes
from vitexp.nn.init import Linear
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Layout, Position
from vitexp.nn.table import Table, part


@part("pos_join", "add", label="added", about="the table is added to the tokens")
class Join(nn.Module):
    """A position acts as it is made."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """The tokens that enter a layer. Shapes: (B, T, D) -> (B, T, D)."""
        return position.add(tokens, layer)

    @classmethod
    def macs(cls, layout: Layout) -> int:
        """Multiply-accumulates in one forward pass."""
        return 0


@part("pos_join", "concat", label="concatenated", about="it is put beside them, and a linear layer narrows both to one")
class Concat(Join):
    """Token and position, 2 D values, through a linear layer to D: the table and its start are those that are added.

    The layer has 2 D^2 + D parameters. It could learn the sum, as the sum could learn it: what differs is the training.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.project = Linear(2 * layout.width, layout.width)

    def forward(self, tokens: Tensor, position: Any, layer: int) -> Tensor:
        """At the stem. Shapes: (B, T, D) -> (B, T, D)."""
        if layer:
            return tokens
        out: Tensor = self.project(torch.cat([tokens, position.table(0).expand_as(tokens)], dim=-1))
        return out

    @classmethod
    def macs(cls, layout: Layout) -> int:
        """The linear layer, for each token."""
        return layout.tokens * 2 * layout.width**2


@part("pos_join", "multiply", label="multiplied", about="each token is multiplied by 1 + the table")
class Multiply(Join):
    """tokens * (1 + table), so that a table of zeros leaves the tokens as they are. Nothing else is learned.

    A class token starts at zero, so its position acts once it has moved.
    """

    def forward(self, tokens: Tensor, position: Any, layer: int) -> Tensor:
        """At the stem. Shapes: (B, T, D) -> (B, T, D)."""
        return tokens if layer else tokens * (1 + position.table(0).to(tokens.dtype))


JOINS: Table[type[Join]] = Table("pos_join")


def check_join(pos_embed: str, pos_at: str, pos_join: str, registers: int) -> None:
    """Raises: ValueError for an unknown word, and where no table of the stem is there to join."""
    axes.check("pos_join", pos_join)
    if pos_join != "add" and registers:
        raise ValueError(f"pos_join {pos_join} cannot be with {registers} registers: they have no place; leave one out")
    if pos_join == "add" or (POSITIONS[pos_embed].has_table() and pos_at == "stem"):
        return
    tables = " or ".join(word for word, kind in POSITIONS.items() if kind.has_table())
    raise ValueError(
        f"pos_join {pos_join} cannot be with pos_embed {pos_embed} at {pos_at}: it joins a table and the tokens once, "
        f"at the stem; use pos_embed {tables} with pos_at stem, or leave it out"
    )
