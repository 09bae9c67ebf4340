"""Parts of your own, for `vitexp fit` from this folder; no line of vitexp changes.

vitexp fit --config ../experiments/pos_ablation.yaml --model.pos_embed my_ideas:Alibi2D
"""

import torch

from vitexp.nn.position import Position


class Alibi2D(Position):
    """A penalty on each attention logit that grows with the distance of two patches, in each head by half as much.

    As the built-in `alibi`, with a slope to choose.
    """

    label = "2-D ALiBi"
    permutation_invariant = False
    adds_parameters = False

    def __init__(self, layout, at, slope: float = 0.5):
        super().__init__(layout, at)
        rows, columns = map(torch.arange, layout.grid)
        places = torch.cartesian_prod(rows, columns).float()
        penalty = torch.zeros(layout.heads, layout.tokens, layout.tokens)  # none for the class token, which comes first
        slopes = slope * 2.0 ** -torch.arange(layout.heads)
        penalty[:, layout.prefix :, layout.prefix :] = slopes[:, None, None] * torch.cdist(places, places)
        self.register_buffer("penalty", penalty, persistent=False)

    def bias(self, query, layer):
        """Logits to add. Shapes: (B, H, T, K) -> (H, T, T)."""
        return -self.penalty.to(query.dtype)
