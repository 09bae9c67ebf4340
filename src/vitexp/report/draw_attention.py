"""Draws what a network looks at: attention distance, rollout, position similarity, filters. Arrays in, pictures out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from vitexp.report import style

_MAP = "cividis"
_MOST = 14
"""Rows and columns of a position picture; of a larger grid evenly spaced ones are shown."""
_HEAD, _FOOT = 0.75, 0.35


def write_look(what: str, shown: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Draws one kind of picture as WHAT.png and WHAT.svg."""
    with style.settings():
        return style.save(_DRAWN[what](shown), folder, what)


def _distance(shown: Mapping[str, Any]) -> Figure:
    distance, even = shown["distance"], shown["even"]
    figure = Figure(figsize=(7.2, 4.6))
    axes = figure.add_axes((0.1, 0.19, 0.87, 0.64))
    for layer, heads in enumerate(distance):
        axes.plot([layer] * len(heads), heads, "o", color=style.COLOURS[0], alpha=0.65, markersize=6, markeredgewidth=0)
    axes.axhline(even, color=style.FAINT, linestyle="--", linewidth=1)
    axes.annotate("attention to all alike", (1, even), (0, 3), ("axes fraction", "data"), textcoords="offset points",
                  ha="right", fontsize=8.5, color=style.FAINT)  # fmt: skip
    axes.set_ylim(0, 1.12 * max(even, float(distance.max())))
    axes.set_xticks(range(len(distance)))
    axes.set_xlim(-0.5, len(distance) - 0.5)
    axes.set_xlabel("layer")
    axes.set_ylabel("mean attention distance (pixels)")
    style.plain(axes, grid="y")
    style.head(figure, "Mean attention distance", f"{_name(shown)}; {shown['images']} images, one dot a head")
    style.caption(
        figure, "Distance from query to key, weighted by attention; what a patch gives to the prefix counts 0."
    )
    return figure


def _similarity(shown: Mapping[str, Any]) -> Figure:
    similarity = shown["similarity"]
    rows, columns = (_spaced(count) for count in similarity.shape[:2])
    size = 5.6
    figure = Figure(figsize=(size + 1.0, size * len(rows) / len(columns) + _HEAD + _FOOT))
    height = figure.get_figheight()
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.subplots_adjust(
        left=0.04, right=0.86, bottom=_FOOT / height, top=1 - _HEAD / height, wspace=0.08, hspace=0.08
    )
    for panel_row, row in zip(panels, rows, strict=True):
        for axes, column in zip(panel_row, columns, strict=True):
            axes.imshow(similarity[row, column], cmap=_MAP, vmin=-1, vmax=1, interpolation="nearest")
            _bare(axes)
    bar = figure.add_axes((0.885, _FOOT / height, 0.02, 1 - (_HEAD + _FOOT) / height))
    figure.colorbar(ScalarMappable(Normalize(-1, 1), _MAP), cax=bar).outline.set_visible(False)
    bar.tick_params(length=0)
    style.head(figure, "Similarity of position embeddings", _name(shown))
    style.caption(figure, "Each map: the cosine of one patch's vector with those of all patches.")
    return figure


def _filters(shown: Mapping[str, Any]) -> Figure:
    filters, shares = shown["filters"], shown["shares"]
    columns = min(7, len(filters))
    rows = -(-len(filters) // columns)
    figure = Figure(figsize=(7.2, 1.02 * rows + _HEAD + _FOOT))
    height = figure.get_figheight()
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=_FOOT / height, top=1 - _HEAD / height, wspace=0.1, hspace=0.1)
    for axes in panels:
        _bare(axes)
    for axes, one in zip(panels, filters, strict=False):
        span = np.abs(one).max() or 1.0
        axes.imshow(((one / span + 1) / 2).transpose(1, 2, 0), interpolation="nearest")
    style.head(figure, "Principal components of the patch embedding", _name(shown))
    style.caption(figure, f"The first {len(filters)} explain {100 * shares.sum():.0f} % of the filters' variance.")
    return figure


def _rollout(shown: Mapping[str, Any]) -> Figure:
    pictures, maps = shown["pictures"], shown["rollout"]
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(max(5.2, 1.15 * columns), 2.3 * rows + _HEAD + _FOOT))
    height = figure.get_figheight()
    panels = figure.subplots(2 * rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.02, right=0.98, bottom=_FOOT / height, top=1 - _HEAD / height, wspace=0.06, hspace=0.06
    )
    for axes in panels.flat:
        _bare(axes)
    for number, (picture, share) in enumerate(zip(pictures, maps, strict=True)):
        row, column = divmod(number, columns)
        panels[2 * row][column].imshow(picture, interpolation="nearest")
        panels[2 * row + 1][column].imshow(
            picture * _veil(share, picture.shape[:2], shown["pixels"]), interpolation="nearest"
        )
    style.head(figure, "Attention rollout", _name(shown))
    style.caption(figure, "Above each image, below what of it reaches the readout: the darker, the less.")
    return figure


_DRAWN: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "distance": _distance,
    "similarity": _similarity,
    "filters": _filters,
    "rollout": _rollout,
}


def _veil(share: np.ndarray, size: tuple[int, int], pixels: float) -> np.ndarray:
    """How bright each pixel stays. Source: the authors' reply on rendering, issue 27 of their repository."""
    large = Image.fromarray((share / share.max()).astype(np.float32)).resize(size[::-1], Image.Resampling.LANCZOS)
    soft = ndimage.gaussian_filter(np.asarray(large), sigma=pixels)
    span = float(np.ptp(soft))
    veil: np.ndarray = ((soft - soft.min()) / span if span else np.ones_like(soft))[..., None]
    return veil


def _name(shown: Mapping[str, Any]) -> str:
    """Of a run's checkpoint, its cell and seed."""
    path = Path(str(shown["network"]))
    name = "/".join(path.parts[-4:-2]) if path.parent.name == "checkpoints" else path.name
    return f"{name}, {shown['image_size']} pixels"


def _spaced(count: int) -> list[int]:
    return list(dict.fromkeys(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int).tolist()))


def _bare(axes: Any) -> None:
    axes.set_axis_off()
