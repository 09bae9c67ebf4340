"""Local attention: a patch attends to the patches around it.

The ViT paper has no such pattern; here it is the plainest one there is, a square window that moves with the patch.
"""

import torch
from torch import Tensor

from vitexp.nn.attention import Full
from vitexp.nn.position import Layout


class Local(Full):
    """Each patch attends to the window x window patches that it is the centre of, and to the prefix.

    At the border of the grid the window is cut off; nothing is padded. The prefix attends to every token and every
    token to the prefix, so a class token joins what the windows keep apart. Parameters are those of full attention.
    It is computed densely under a mask: what the closed form of the cost leaves out is not saved in time.
    """

    def __init__(self, width: int, heads: int, layout: Layout, window: int) -> None:
        super().__init__(width, heads)
        if window >= 2 * max(layout.grid) - 1:
            raise ValueError(
                f"window {window} covers the whole grid {layout.grid} from everywhere: use attention full, or a "
                f"window below {2 * max(layout.grid) - 1}"
            )
        self.layout, self.window = layout, window

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes: (B, H, T, K) each, the bias (B, H, T, T) or none -> (B, H, T, K)."""
        mask = window_mask(self.layout, self.window, query)
        return super().mix(query, key, value, mask if bias is None else bias + mask)


def window_mask(layout: Layout, window: int, like: Tensor) -> Tensor:
    """0 where a token may look and -inf where not, of the kind and place of `like`. Shapes: (T, T)."""
    rows, columns = (torch.arange(length, device=like.device) for length in layout.grid)
    near_rows, near_columns = ((places[:, None] - places).abs() <= window // 2 for places in (rows, columns))
    near = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1)
    mask = torch.zeros(layout.tokens, layout.tokens, dtype=like.dtype, device=like.device)
    mask[layout.prefix :, layout.prefix :].masked_fill_(~near, float("-inf"))
    return mask
