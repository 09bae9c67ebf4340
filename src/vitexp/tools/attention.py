"""`vitexp attention`: what the attention, the positions and the filters of a network have learned to look at."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitexp.data.module import ShardData
from vitexp.eval.attention_maps import (
    attention_rollout,
    mean_attention_distance,
    patch_distances,
    position_similarity,
    principal_filters,
    watch_attention,
)
from vitexp.nn.vit import ViT
from vitexp.record import write_atomically
from vitexp.tools.network import Opened, open_chosen

Draw = Callable[[str, dict[str, Any], Path], tuple[Path, ...]]
_AT_ONCE = 8  # the attention of one image in B/16 takes 22 MB


class Grid(NamedTuple):
    """Where a network's tokens lie; `pixels` are the image's per step of the grid."""

    places: tuple[int, int]
    prefix: int
    layers: int
    pixels: float

    @property
    def tokens(self) -> int:
        """T."""
        return self.prefix + self.places[0] * self.places[1]


def attention(chosen: Any, draw: Draw) -> int:
    """Computes, writes the numbers as CSV, and has them drawn."""
    opened = open_chosen(chosen)
    if (chosen.data is None) == (chosen.what in _LOOKS_AT_IMAGES):
        need = "needs" if chosen.data is None else "is a matter of the network alone: leave out"
        raise ValueError(f"--what {chosen.what} {need} --data")
    if chosen.images is not None and (chosen.images < 1 or chosen.what not in _LOOKS_AT_IMAGES):
        raise ValueError(f"--images is {chosen.images}; give at least 1, and only for {' and '.join(_LOOKS_AT_IMAGES)}")
    look, columns = _LOOKS[chosen.what]
    shown, folder = look(opened, chosen), Path(chosen.out)
    rows = [columns, *((*place, float(value)) for place, value in np.ndenumerate(shown[chosen.what]))]
    table = folder / f"{chosen.what}.csv"
    write_atomically(table, "".join(f"{','.join(map(str, row))}\n" for row in rows))
    paths = draw(chosen.what, shown | {"network": opened.words, "image_size": opened.image_size}, folder)
    print(f"Written: {', '.join(map(str, (table, *paths)))}")
    return 0


def _distance(opened: Opened, chosen: Any) -> dict[str, Any]:
    grid, total, images = _grid(opened), torch.zeros(()), 0
    for batch in _images(opened, chosen, chosen.images or 128):
        layers = watch_attention(opened.network, batch, grid.tokens, grid.layers)
        means = mean_attention_distance(layers, grid.places, prefix=grid.prefix, patch_pixels=grid.pixels)
        total, images = total + means * len(batch), images + len(batch)
    distance = (total / images).numpy()
    even = float(patch_distances(grid.places).sum(dim=1).mean()) / grid.tokens * grid.pixels
    print(f"{opened.words}: mean attention distance over {images} images, pixels (attention to all alike: {even:.1f})")
    for layer, heads in enumerate(distance):
        print(f"layer {layer:>2}: {' '.join(f'{value:6.1f}' for value in sorted(heads))}")
    return {"distance": distance, "even": even, "images": images}


def _rollout(opened: Opened, chosen: Any) -> dict[str, Any]:
    grid, maps, seen = _grid(opened), [], []
    for batch in _images(opened, chosen, chosen.images or 8):
        layers = watch_attention(opened.network, batch, grid.tokens, grid.layers)
        maps.append(attention_rollout(layers, grid.places, prefix=grid.prefix))
        seen.append((batch + 1) / 2)
    rollout, pictures = torch.cat(maps).numpy(), torch.cat(seen).permute(0, 2, 3, 1).numpy()
    return {"rollout": rollout, "pictures": pictures, "pixels": grid.pixels}


def _similarity(opened: Opened, chosen: Any) -> dict[str, Any]:
    model, layout = opened.vit, opened.vit.layout
    with torch.no_grad():
        table = model.position.add(torch.zeros(1, layout.tokens, layout.width), 0)[0, layout.prefix :]
    if not table.any():
        raise ValueError(
            f"pos_embed {model.config.pos_embed} adds nothing to the patches, so there is nothing to compare"
        )
    return {"similarity": position_similarity(table, layout.grid).numpy()}


def _filters(opened: Opened, chosen: Any) -> dict[str, Any]:
    weight = opened.vit.stem.embedding.weight
    if weight.shape[1] != 3:
        raise ValueError(
            f"stem {opened.vit.config.stem} cuts patches of feature maps, not of pixels: no filters to show"
        )
    filters, shares = (part.numpy() for part in principal_filters(weight))
    return {"filters": filters, "shares": shares}


_LOOKS_AT_IMAGES = ("distance", "rollout")
_LOOKS: dict[str, tuple[Callable[[Opened, Any], dict[str, Any]], tuple[str, ...]]] = {
    "distance": (_distance, ("layer", "head", "distance_pixels")),
    "rollout": (_rollout, ("image", "row", "column", "share")),
    "similarity": (_similarity, ("row", "column", "other_row", "other_column", "cosine")),
    "filters": (_filters, ("component", "colour", "row", "column", "value")),
}
"""What is shown, and how the places of its numbers are called in the table."""


def _grid(opened: Opened) -> Grid:
    """Raises: ValueError for a network without a grid of tokens."""
    network: Any = opened.network
    places: tuple[int, int] | None
    if isinstance(network, ViT):
        places, prefix, layers = network.layout.grid, network.layout.prefix, network.layout.depth
    else:
        model = getattr(network, "model", network)
        places = getattr(getattr(model, "patch_embed", None), "grid_size", None)
        prefix, layers = getattr(model, "num_prefix_tokens", 0), len(getattr(model, "blocks", ()))
    if not places or not layers:
        raise ValueError(f"{opened.words} has no grid of tokens that attend to each other")
    return Grid(places, prefix, layers, opened.image_size / places[0])


def _images(opened: Opened, chosen: Any, count: int) -> Iterator[Tensor]:
    """The first images of the test split, or as many as there are."""
    if chosen.image_size is None:
        opened.check_size(chosen.data)
    data = ShardData(shards=chosen.data, batch_size=_AT_ONCE, image_size=opened.image_size, val_fraction=0.0)
    for batch in data.eval_loader("test"):
        images = data.on_after_batch_transfer(batch, 0).images[:count]
        count -= len(images)
        yield images
        if not count:
            return
