"""A network for the commands that measure or convert one: from a checkpoint, a weights file, or timm by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitexp.data.opened import open_all
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig, build
from vitexp.own import allowing
from vitexp.weights.config import config_of
from vitexp.weights.load import Stored, can_resize, has_head, load_stored, read_weights

TIMM = "timm:"
_STATED = ("arch", "pos_embed", "gelu")
_SPARE = 10_000_000  # values that a config may ask for beyond those in its file: no file makes the machine run out


@dataclass(frozen=True)
class Opened:
    """A network in eval mode, with `features(images)` and `forward(images)`, and the image size it is built for."""

    network: nn.Module
    image_size: int
    name: str

    @property
    def ours(self) -> nn.Module:
        """The network where this project has built it. Raises: ValueError where it has not."""
        if not isinstance(getattr(self.network, "config", None), ViTConfig):
            raise ValueError(f"{self.name}: this needs a network of vitexp")
        return self.network

    def check_size(self, shards: str) -> None:
        """Images of one other size are resized only where --image-size says so. Raises: ValueError."""
        size, index = self.image_size, open_all(shards)["train"]
        if index.image_size not in (None, (size, size)):
            rows, columns = index.image_size
            raise ValueError(
                f"{self.name} takes images of {size} x {size} and those of {index.name} are {rows} x {columns}: give "
                f"--image-size {size} to resize the images, or another size to resize the network's positions too"
            )


def open_chosen(chosen: Any, name: str | None = None) -> Opened:
    """The network that a command's flags name, or that of this `name` with these flags. Raises: as `open_network`."""
    return open_network(
        name or chosen.network,
        chosen.image_size,
        random=getattr(chosen, "random", False),
        download=getattr(chosen, "download", False),
        stated={name: getattr(chosen, name) for name in _STATED if getattr(chosen, name)},
        allow_import=chosen.allow_import,
    )


def open_network(
    name: str,
    image_size: int | None = None,
    *,
    random: bool = False,
    download: bool = False,
    stated: Mapping[str, str] | None = None,
    allow_import: bool = False,
) -> Opened:
    """The network in a file (.ckpt, .safetensors, .npz, .pt), in one of several (FILE#prefix), or `timm:NAME`.

    `image_size` resizes its positions; `stated` is what a person says of it where the file does not. A part of
    somebody's own that the file names is imported, which runs its code, only with `allow_import`.
    Raises: ValueError for a file or a name that says no network, and weights that are not there or do not fit.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"--image-size is {image_size}; at least 1 pixel is needed")
    if name.startswith(TIMM):
        from vitexp.weights.timm_hub import open_timm

        if stated:
            raise ValueError(f"stating {' and '.join(stated)} is for files; timm knows what {name} is")
        network, size = open_timm(name.removeprefix(TIMM), image_size, random=random, download=download)
        return Opened(network.eval(), size, f"{name}{' with random weights' if random else ''}")
    if random or download:
        raise ValueError(f"--{'random' if random else 'download'} is for timm:NAME; {name} is a file")
    with allowing(allow_import):
        return _open_file(name, image_size, stated or {})


def _open_file(name: str, image_size: int | None, stated: Mapping[str, str]) -> Opened:
    stored = read_weights(name)
    config = config_of(stored, stored.name, image_size, stated)
    _check_stated(config, stated, stored.name)
    if not isinstance(config.image_size, int):
        rows, columns = config.image_size
        raise ValueError(f"{stored.name} takes images of {rows} x {columns}, and not square ones: give --image-size")
    _check_amount(config, stored, resized=image_size is not None)
    network, headless = build(config), not has_head(stored.tensors)
    for note in load_stored(network, stored, new_head=headless):
        print(f"note: {stored.name}: {note}")
    if headless:
        print(f"note: {stored.name}: it holds no head, and gets one of zeros")
    return Opened(network.eval(), config.image_size, stored.name)


def _check_stated(config: ViTConfig, stated: Mapping[str, str], source: str) -> None:
    """Raises: ValueError where the file itself says otherwise."""
    for name, value in stated.items():
        held = parse_arch(config.arch, config.stem).full_name if name == "arch" else getattr(config, name)
        if held != (parse_arch(value).full_name if name == "arch" else value):
            flag = f"--{name.replace('_', '-')} {value}"
            raise ValueError(f"{flag} contradicts {source}, which holds a network of {name} {held}")


def _check_amount(config: ViTConfig, stored: Stored, resized: bool) -> None:
    """Raises: ValueError for a config that asks for more weights than its file holds, before memory is taken for it."""
    arch, held = parse_arch(config.arch, config.stem), sum(value.numel() for value in stored.tensors.values())
    wanted = float("inf")
    if arch.depth <= len(stored.tensors):
        try:
            with torch.device("meta"):
                network = build(config)
            parts = [*network.named_parameters(), *network.named_buffers()]
            wanted = sum(value.numel() for name, value in parts if not (resized and can_resize(name)))
        except ValueError as error:
            raise ValueError(f"{stored.name} cannot be opened: {error}") from error
        except (RuntimeError, OverflowError):
            pass  # not even their number can be written
    if wanted > held + _SPARE:
        raise ValueError(
            f"{stored.name} says that it holds {arch.full_name} with {config.classes} classes for images of "
            f"{config.image_size} pixels, and its {held:,} values are too few for one"
        )
