"""`vitexp attention`: what the attention, the positions and the filters of a network have learned to look at."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    paths = draw(chosen.what, shown | {"network": opened.name, "image_size": opened.image_size}, folder)
    print(f"Written: {', '.join(map(str, (table, *paths)))}")
    return 0


def _distance(opened: Opened, chosen: Any) -> dict[str, Any]:
    places, prefix, _ = _grid(opened)
    pixels, total, images = opened.image_size / places[0], torch.zeros(()), 0
    for batch, layers in _watched(opened, chosen, chosen.images or 128):
        means = mean_attention_distance(layers, places, prefix=prefix, patch_pixels=pixels)
        total, images = total + means * len(batch), images + len(batch)
    distance = (total / images).numpy()
    even = float(patch_distances(places).sum(dim=1).mean()) / (prefix + places[0] * places[1]) * pixels
    print(f"{opened.name}: mean attention distance over {images} images, pixels (attention to all alike: {even:.1f})")
    for layer, heads in enumerate(distance):
        print(f"layer {layer:>2}: {' '.join(f'{value:6.1f}' for value in sorted(heads))}")
    return {"distance": distance, "even": even, "images": images}


def _rollout(opened: Opened, chosen: Any) -> dict[str, Any]:
    (places, prefix, _), maps, seen = _grid(opened), [], []
    network: Any = getattr(opened.network, "model", opened.network)
    read = network.pool.prefix if isinstance(network, ViT) else getattr(network, "cls_token", None) is not None
    if prefix and not read:
        raise ValueError(f"{opened.name} reads none of the tokens before its patches, so no rollout begins there")
    for batch, layers in _watched(opened, chosen, chosen.images or 8):
        maps.append(attention_rollout(layers, places, prefix=prefix))
        seen.append((batch + 1) / 2)
    rollout, pictures = torch.cat(maps).numpy(), torch.cat(seen).permute(0, 2, 3, 1).numpy()
    return {"rollout": rollout, "pictures": pictures, "pixels": opened.image_size / places[0]}


def _similarity(opened: Opened, chosen: Any) -> dict[str, Any]:
    model, layout = opened.vit, opened.vit.position.layout  # without registers
    with torch.no_grad():
        table = model.position.add(torch.zeros(1, layout.tokens, layout.width), 0)[0, layout.prefix :]
    if not table.any():
        raise ValueError(f"pos_embed {model.config.pos_embed} adds nothing to the patches that could be compared")
    return {"similarity": position_similarity(table, layout.grid).numpy()}


def _filters(opened: Opened, chosen: Any) -> dict[str, Any]:
    weight = opened.vit.stem.embedding.weight
    if weight.shape[1] != 3:
        raise ValueError(f"stem {opened.vit.config.stem} cuts patches of feature maps: no filters of pixels to show")
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


def _grid(opened: Opened) -> tuple[tuple[int, int], int, int]:
    """Rows and columns of tokens, the tokens before them, and layers. Raises: ValueError where there is no grid."""
    if isinstance(opened.network, ViT):
        layout = opened.network.layout
        return layout.grid, layout.prefix, layout.depth
    model = getattr(opened.network, "model", opened.network)
    places = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    layers = len(getattr(model, "blocks", ()))
    if not places or not layers:
        raise ValueError(f"{opened.name} has no grid of tokens that attend to each other")
    return places, getattr(model, "num_prefix_tokens", 0), layers


def _watched(opened: Opened, chosen: Any, count: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The first images of the test split, or as many as there are, and the attention of each layer to them."""
    if chosen.image_size is None:
        opened.check_size(chosen.data)
    (rows, columns), prefix, depth = _grid(opened)
    data = ShardData(shards=chosen.data, batch_size=_AT_ONCE, image_size=opened.image_size, val_fraction=0.0)
    for batch in data.eval_loader("test"):
        images = data.on_after_batch_transfer(batch, 0).images[:count]
        count -= len(images)
        yield images, watch_attention(opened.network, images, prefix + rows * columns, depth)
        if not count:
            return
