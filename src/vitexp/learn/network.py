"""A network for the commands that measure or convert one: from a checkpoint, a weights file, or timm by name."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vitexp.nn.vit import ViT, ViTConfig, build
from vitexp.nn.weights import load_tensors, read_weights
from vitexp.nn.weights_config import config_of

TIMM = "timm:"


@dataclass(frozen=True)
class Opened:
    """A network in eval mode, with `features(images)` and `forward(images)`, and the image size it is built for."""

    network: nn.Module
    image_size: int
    words: str

    @property
    def ours(self) -> nn.Module:
        """The network where this project has built it. Raises: ValueError where it has not."""
        if not isinstance(getattr(self.network, "config", None), ViTConfig):
            raise ValueError(f"{self.words}: this needs a network of vitexp")
        return self.network

    @property
    def vit(self) -> ViT:
        """The network where it is one of ours. Raises: ValueError where it is not."""
        if not isinstance(self.network, ViT):
            raise ValueError(f"{self.words}: this needs a ViT of vitexp, not a {type(self.network).__name__}")
        return self.network


def open_network(name: str, image_size: int | None = None, *, random: bool = False, download: bool = False) -> Opened:
    """The network in a file (.ckpt, .safetensors, .npz, .pt) or `timm:NAME`; `image_size` resizes its positions.

    Raises: ValueError for a file or a name that says no network, and weights that are not there or do not fit.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"--image-size is {image_size}; at least 1 pixel is needed")
    if name.startswith(TIMM):
        from vitexp.nn.timm_network import open_timm

        network, size = open_timm(name.removeprefix(TIMM), image_size, random=random, download=download)
        return Opened(network.eval(), size, f"{name}{' with random weights' if random else ''}")
    if random or download:
        raise ValueError(f"--{'random' if random else 'download'} is for timm:NAME; {name} is a file")
    return _open_file(Path(name), image_size)


def _open_file(path: Path, image_size: int | None) -> Opened:
    stored = read_weights(path)
    config = config_of(stored, str(path), image_size)
    network = build(config)
    load_tensors(network, stored.tensors, source=str(path))
    if not isinstance(config.image_size, int):
        rows, columns = config.image_size
        raise ValueError(
            f"{path} takes images of {rows} x {columns}; these commands need square ones: give --image-size"
        )
    return Opened(network.eval(), config.image_size, str(path))
