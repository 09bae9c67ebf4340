"""The closed-form cost of a run: the network's sizes, handed from the nn floor to the eval floor."""

from dataclasses import asdict

from vitexp.eval import flops
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig


def train_flops(config: ViTConfig, images: int) -> float:
    """FLOPs of training a network of this config on so many images, repeats included."""
    sizes = flops.sizes_of(vars(config) | asdict(parse_arch(config.arch, config.stem)))
    return flops.train_flops(sizes, images)
