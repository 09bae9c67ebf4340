"""Draws what networks look at: distances, similarities, filters, maps of attention. Arrays in, pictures out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from vitexp.report import style

_MAP, _DIFFERENCES = "cividis", "PuOr"
_MOST = 14
"""Rows and columns of a position picture; of a larger grid evenly spaced ones are shown."""
_MOST_PANELS = 6
_MOST_NUMBERS = 9
"""Rows of a map up to which its numbers are written into it."""
_HEAD, _FOOT, _WIDTH = 0.75, 0.1, 7.2
_LARGEST = 1.15
"""Inches of one of many pictures at most."""
_THUMB = 64
"""Pixels along a side of one of many pictures, about."""
Pictures = Sequence[Sequence[np.ndarray]]
"""Rows of pictures; the last rows may be shorter."""
Shown = Mapping[str, Any]
"""`mean` and `half`, of the interval over seeds or None; `below`, the line beneath the title; facts of the network."""


def write_picture(what: str, shown: Shown, folder: Path, name: str) -> tuple[Path, ...]:
    """Draws one kind of picture as NAME.png and NAME.svg."""
    with style.settings():
        return style.save(_DRAW[what](shown), folder, name, shown["runs"])


def _page(shown: Shown, title: str, foot: str, height: float = 4.35, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    over = " Bars and bands: 95 % intervals over seeds, each by itself." if shown["half"] is not None else ""
    texts = title + ": difference" * shown["difference"], shown["below"], _foot(shown, foot) + over
    figure, axes = style.page(
        (_WIDTH, height), (0.78, 0.6, 0.216, 0.782), texts, (panels, 1), (0, 0.15), sharex=True, sharey=True
    )
    return figure, list(axes[:, 0])


def _foot(shown: Shown, foot: str) -> str:
    data = str(shown["data"]).rstrip("/").rpartition("/")[2]
    return foot + (f" From {shown['images']} images of {data}." if "images" in shown else "")


def _distance(shown: Shown) -> Figure:
    mean, half, even = shown["mean"], shown["half"], 0 if shown["difference"] else shown["even"]
    foot = "One dot a head: distance from query to key, weighted by attention. What goes to the prefix counts as 0."
    if even:
        foot += " Dashed: attention to all alike."
    if half is not None:
        foot += " Heads of seeds are matched, within a layer, by their mean attention to the same images."
    if shown["axial"]:
        foot += " Layers are halves: even ones attend along rows, odd ones along columns."
    figure, (axes,) = _page(shown, "Mean attention distance", foot)
    layers, heads = mean.shape
    apart = np.linspace(-0.3, 0.3, heads) if heads > 1 and layers <= 16 else np.zeros(heads)
    for layer in range(layers):
        x = layer + apart
        if half is not None:
            axes.vlines(x, mean[layer] - half[layer], mean[layer] + half[layer], color=style.COLOURS[0], alpha=0.5)
        axes.plot(x, mean[layer], "o", color=style.COLOURS[0], alpha=0.8, markersize=5.5, markeredgewidth=0)
    axes.axhline(even, color=style.FAINT, linestyle="--", linewidth=1)
    axes.set_xticks(range(0, layers, max(1, layers // 16)))
    axes.set_xlim(-0.5, layers - 0.5)
    axes.set_xlabel("half of a layer" if shown["axial"] else "layer")
    axes.set_ylabel("distance (pixels)")
    return figure


def _lines(shown: Shown, x: np.ndarray, word: str, unit: str, title: str, foot: str) -> tuple[Figure, Sequence[Axes]]:
    """A panel for each table or layer, or for some where there are many."""
    mean, half = shown["mean"], shown["half"]
    chosen = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), _MOST_PANELS)).round()).astype(int)
    if len(chosen) < len(mean):
        foot += f" Of {len(mean)} {word}s {len(chosen)} are drawn."
    figure, panels = _page(shown, title, foot, max(4.35, 1.6 + 1.1 * len(chosen)), len(chosen))
    for axes, index in zip(panels, chosen, strict=True):
        axes.plot(x, mean[index], "o-", color=style.COLOURS[0], linewidth=1.6, markersize=3.5)
        if half is not None:
            low, high = mean[index] - half[index], mean[index] + half[index]
            axes.fill_between(x, low, high, color=style.COLOURS[0], alpha=0.2, linewidth=0)
        axes.axhline(0, color=style.FAINT, linewidth=0.8)
        if len(chosen) > 1:
            axes.text(1, 1, f"{word} {index}", transform=axes.transAxes, ha="right", va="bottom", fontsize=8.5)
    panels[len(panels) // 2].set_ylabel(unit, y=0.5 if len(panels) % 2 else 1.0)
    return figure, panels


def _decay(shown: Shown) -> Figure:
    foot = "Cosine of the position vectors of two patches, mean over all pairs that are as far apart."
    figure, panels = _lines(shown, shown["distances"], "table", "cosine", "Similarity of positions by distance", foot)
    panels[-1].set_xlabel("distance (patches)")
    return figure


def _offsets(shown: Shown) -> Figure:
    reach, columns = shown["mean"].shape[-1] // 2, shown["grid"][1]
    foot = "Added to the logits of the attention, mean over heads, queries and images, less each query's mean. "
    foot += f"The grid has {columns} columns: offset {columns} is the patch below."
    figure, panels = _lines(shown, np.arange(-reach, reach + 1), "layer", "logit", "What relative positions add", foot)
    step = columns * max(1, round(reach / columns / 6))
    panels[-1].set_xticks(np.arange(-(reach // step) * step, reach + 1, step))
    for axes in panels:
        axes.grid(True, axis="x")
    panels[-1].set_xlabel("offset in the sequence (key − query)")
    return figure


def _cka(shown: Shown) -> Figure:
    mean, half, layers = shown["mean"], shown["half"], len(shown["mean"])
    foot = "Linear CKA of all tokens, unbiased, before the first layer (in) and after each. 1: the same up to rotation "
    foot += "and scale." + ("" if half is None else " ±: half of the 95 % interval over seeds, each by itself.")
    figure, (axes,) = _page({**shown, "half": None}, "Likeness of the layers", foot, 6)
    reach = max(1e-3, float(np.abs(mean).max())) if shown["difference"] else 1
    limits: dict[str, Any] = {"vmin": -reach if shown["difference"] else 0, "vmax": reach, "interpolation": "none"}
    drawn = axes.imshow(mean, cmap=_DIFFERENCES if shown["difference"] else _MAP, **limits)
    for (row, column), value in np.ndenumerate(mean if layers <= _MOST_NUMBERS else np.empty((0, 0))):
        spread = "" if half is None or row == column else f"\n±{half[row, column]:.2f}"
        dark = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.3, 0.59, 0.11)) < 0.5
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else style.INK}
        axes.text(column, row, f"{value + 0.0:.2f}{spread}".replace("-0.00", "0.00"), **look)
    ticks = range(0, layers, max(1, layers // 8))
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(ticks, [str(tick - 1) if tick else "in" for tick in ticks])
    axes.grid(False)
    axes.set_xlabel("layer")
    axes.set_ylabel("layer")
    figure.colorbar(drawn, ax=axes, shrink=0.8).outline.set_visible(False)
    return figure


def _similarity(shown: Shown) -> Figure:
    first = shown["mean"][0]
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, _MOST)).round()).astype(int) for n in first.shape[:2])
    foot = "Each map: the cosine of one patch's vector with those of all patches."
    if len(shown["mean"]) > 1:
        foot += f" Of {len(shown['mean'])} tables the one before the first layer."
    paint, scale = matplotlib.colormaps[_MAP], Normalize(-1, 1)
    painted = [[paint(scale(one))[..., :3] for one in row] for row in first[np.ix_(rows, columns)]]
    figure = _pictures("Similarity of position embeddings", foot, painted, shown, beside=0.9)
    at = figure.subplotpars
    bar = figure.add_axes((at.right + 0.02, at.bottom, 0.02, at.top - at.bottom))  # as high as the maps
    figure.colorbar(ScalarMappable(scale, _MAP), cax=bar).outline.set_visible(False)
    return figure


def _filters(shown: Shown) -> Figure:
    filters = [((one / (np.abs(one).max() or 1.0) + 1) / 2).transpose(1, 2, 0) for one in shown["mean"]]
    foot = f"The first {len(filters)} explain {100 * shown['shares'].sum():.0f} % of the filters' variance."
    return _pictures(f"Principal components of the {shown['stem']}", foot, _rows(filters, 7), shown)


def _attention(shown: Shown) -> Figure:
    who = "the class token" if shown["reads_class"] else "the mean patch"
    return _veiled("Attention in the last layer", f"what {who} attends to, mean over heads{_weights(shown)}", shown)


def _rollout(shown: Shown) -> Figure:
    what = "what of it reaches the class token" if shown["reads_class"] else "what of it reaches the mean patch"
    return _veiled("Attention rollout", what + _weights(shown), shown)


def _weights(shown: Shown) -> str:
    return ", without the weights by which its readout takes patches" if shown["weighs"] else ""


def _veiled(title: str, about: str, shown: Shown) -> Figure:
    pictures, maps = shown["pictures"], shown["mean"]
    veils = [_veil(share, one.shape[:2], shown["pixels"]) for one, share in zip(pictures, maps, strict=True)]
    veiled = [picture * veil for picture, veil in zip(pictures, veils, strict=True)]
    foot = f"Above each image, below {about}: the darker, the less."
    pairs = zip(_rows(pictures, 8), _rows(veiled, 8), strict=True)
    return _pictures(title, foot, [row for pair in pairs for row in pair], shown)


def _rows(pictures: Sequence[np.ndarray], columns: int) -> Pictures:
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


def _pictures(title: str, foot: str, pictures: Pictures, shown: Shown, beside: float = 0.1) -> Figure:
    """Pictures in a grid, as one large one: as hundreds an SVG would be large."""
    whole = _mosaic(pictures)
    width = min(_LARGEST * len(pictures[0]), _WIDTH - beside)
    height = width * whole.shape[0] / whole.shape[1]
    right = max(beside, 5.2 - width)
    below = shown["below"] + ("; mean over seeds" if shown["half"] is not None else "")
    page = (0.1 + width + right, height + _HEAD + _FOOT), (0.1, _FOOT, right, _HEAD)
    figure, ((axes,),) = style.page(*page, (title, below, _foot(shown, foot)))
    axes.set_axis_off()
    axes.imshow(whole, interpolation="none", aspect="auto")
    return figure


def _mosaic(pictures: Pictures) -> np.ndarray:
    """One picture of all, each of about as many pixels, on white. Shapes: (rows, columns, 3) -> (rows, columns, 3)."""
    tiles = [[_tile(one) for one in row] for row in pictures]
    (rows, columns, _), gap = tiles[0][0].shape, _THUMB // 12
    whole = np.ones((len(tiles) * (rows + gap) - gap, len(tiles[0]) * (columns + gap) - gap, 3))
    for (i, row), j in ((place, j) for place in enumerate(tiles) for j in range(len(place[1]))):
        whole[i * (rows + gap) :, j * (columns + gap) :][:rows, :columns] = row[j]
    return whole.clip(0, 1)


def _tile(picture: np.ndarray) -> np.ndarray:
    """Small pictures in blocks of pixels, large ones reduced."""
    times = _THUMB // max(picture.shape[:2])
    if times:
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    size = [round(length * _THUMB / max(picture.shape[:2])) for length in picture.shape[:2]]
    reduced = Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)).resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(reduced) / 255


def _veil(share: np.ndarray, size: tuple[int, int], pixels: float) -> np.ndarray:
    """How bright each pixel stays. Source: the authors' reply on rendering, issue 27 of their repository."""
    large = Image.fromarray((share / share.max()).astype(np.float32)).resize(size[::-1], Image.Resampling.LANCZOS)
    soft = ndimage.gaussian_filter(np.asarray(large), sigma=pixels)
    span = float(np.ptp(soft))
    veil: np.ndarray = ((soft - soft.min()) / span if span else np.ones_like(soft))[..., None]
    return veil


_DRAW: dict[str, Callable[[Shown], Figure]] = {
    "distance": _distance,
    "similarity": _similarity,
    "decay": _decay,
    "offsets": _offsets,
    "filters": _filters,
    "rollout": _rollout,
    "attention": _attention,
    "cka": _cka,
}
