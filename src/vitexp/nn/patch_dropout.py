"""Patch dropout: in training a network sees a share of the patches of each image only, others in each step."""

import torch
from torch import Tensor, nn


class PatchDropout(nn.Module):
    """Leaves patches out after positions were added; the prefix stays. The patches that stay come in random order.

    The draws follow torch's seed. Source: "PatchDropout" (2022), as in timm.
    """

    def __init__(self, share: float, prefix: int) -> None:
        super().__init__()
        self.share, self.prefix = share, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) -> in training (B, P + kept, D)."""
        if not self.training:
            return tokens
        patches = tokens[:, self.prefix :]
        order = torch.randn(patches.shape[:2], device=tokens.device).argsort(dim=-1)
        places = order[:, : kept(patches.shape[1], self.share), None].expand(-1, -1, patches.shape[-1])
        return torch.cat([tokens[:, : self.prefix], patches.gather(1, places)], dim=1)


def kept(patches: int, share: float) -> int:
    """How many patches of an image stay, at least one."""
    return max(1, int(patches * (1 - share)))
