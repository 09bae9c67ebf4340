"""The ResNet baselines: a trunk, the mean over its maps, and the head that a ViT has.

The paper replaces BatchNorm by GroupNorm and standardises convolutions, and calls the result ResNet (BiT). It does not
say whether norm and ReLU come before a convolution or after it. BiT itself has them before; the later reruns of these
baselines by the same authors have them after, as the hybrids do, with the hybrids' numerics.

Source: ViT paper, section 4.1; BiT paper.
"""

import torch
from torch import Tensor, nn

from vitexp.nn.arch import parse_arch
from vitexp.nn.config import ViTConfig, pair, resolve
from vitexp.nn.init import Linear, constant, initialise, lecun_normal, zeros
from vitexp.nn.resnet import Trunk
from vitexp.nn.stem import check_images


class ResNet(nn.Module):
    """A ResNet for classification, with the same two methods as a ViT. `config` is the resolved one."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config = resolve(config)
        arch = parse_arch(config.arch, config.stem)
        assert arch.resnet_blocks is not None, f"{arch.name} is no ResNet"
        self.trunk = Trunk(arch.resnet_blocks, arch.resnet_width, config.resnet, pair(config.image_size))
        width = self.trunk.channels
        self.pre_logits = Linear(width, width, weight=lecun_normal) if config.head == "tanh" else None
        self.head = Linear(width, config.classes, weight=zeros, bias=constant(config.head_bias))
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """What the head reads. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, D)."""
        check_images(images, pair(self.config.image_size))
        read: Tensor = self.trunk(images).mean(dim=(2, 3))
        return read if self.pre_logits is None else torch.tanh(self.pre_logits(read))

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits
