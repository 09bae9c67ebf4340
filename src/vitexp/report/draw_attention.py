"""Draws what a network looks at: attention distance, rollout, position similarity, filters. Arrays in, pictures out."""

from collections.abc import Mapping, Sequence
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
_HEAD, _FOOT = 0.75, 0.1
_WIDTH, _LARGEST = 7.2, 1.15
"""Inches of a figure, and of one of the pictures in its grid at most."""


def write_look(what: str, shown: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Draws one kind of picture as WHAT.png and WHAT.svg."""
    path = Path(str(shown["network"]))
    name = "/".join(path.parts[-4:-2]) if path.parent.name == "checkpoints" else path.name  # a run's cell and seed
    below = f"{name}, {shown['image_size']} pixels"
    with style.settings():
        figure = _distance(shown, below) if what == "distance" else _pictures(*_GRIDS[what](shown), below)
        return style.save(figure, folder, what)


def _distance(shown: Mapping[str, Any], below: str) -> Figure:
    distance, even = shown["distance"], shown["even"]
    foot = "Distance from query to key, weighted by attention; what a patch gives to the prefix counts 0."
    texts = "Mean attention distance", f"{below}; {shown['images']} images, one dot a head", foot
    figure, ((axes,),) = style.page((_WIDTH, 4.35), (0.72, 0.624, 0.216, 0.782), texts)
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
    return figure


Pictures = Sequence[Sequence[np.ndarray]]
"""Rows of pictures; the last rows may be shorter."""


def _similarity(shown: Mapping[str, Any]) -> tuple[str, str, Pictures]:
    similarity = shown["similarity"]
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, _MOST)).round()).astype(int) for n in similarity.shape[:2])
    foot = "Each map: the cosine of one patch's vector with those of all patches."
    return "Similarity of position embeddings", foot, similarity[np.ix_(rows, columns)]


def _filters(shown: Mapping[str, Any]) -> tuple[str, str, Pictures]:
    filters = [((one / (np.abs(one).max() or 1.0) + 1) / 2).transpose(1, 2, 0) for one in shown["filters"]]
    foot = f"The first {len(filters)} explain {100 * shown['shares'].sum():.0f} % of the filters' variance."
    return "Principal components of the patch embedding", foot, _rows(filters, 7)


def _rollout(shown: Mapping[str, Any]) -> tuple[str, str, Pictures]:
    pictures, maps = shown["pictures"], shown["rollout"]
    veils = [_veil(share, one.shape[:2], shown["pixels"]) for one, share in zip(pictures, maps, strict=True)]
    veiled = [picture * veil for picture, veil in zip(pictures, veils, strict=True)]
    foot = "Above each image, below what of it reaches the readout: the darker, the less."
    pairs = zip(_rows(pictures, 8), _rows(veiled, 8), strict=True)
    return "Attention rollout", foot, [row for pair in pairs for row in pair]


_GRIDS = {"similarity": _similarity, "filters": _filters, "rollout": _rollout}
"""What gives the title, the foot and the pictures of each kind that is a grid of pictures."""


def _rows(pictures: Sequence[np.ndarray], columns: int) -> Pictures:
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


def _pictures(title: str, foot: str, pictures: Pictures, below: str) -> Figure:
    """Pictures in a grid without axes. Maps of one number lie between -1 and 1, with their scale beside them."""
    rows, columns, are_maps = len(pictures), len(pictures[0]), pictures[0][0].ndim == 2
    side = min(_LARGEST, _WIDTH / columns)
    inches = max(5.2, side * columns), side * rows + _HEAD + _FOOT
    right = 0.9 if are_maps else 0.1
    figure, panels = style.page(inches, (0.1, _FOOT, right, _HEAD), (title, below, foot), (rows, columns), (0.08, 0.08))
    for axes in panels.flat:
        axes.set_axis_off()
    for row, shown in zip(panels, pictures, strict=True):
        for axes, picture in zip(row, shown, strict=False):
            axes.imshow(picture, cmap=_MAP, vmin=-1, vmax=1, interpolation="nearest")
    if are_maps:
        at = figure.subplotpars
        bar = figure.add_axes((at.right + 0.02, at.bottom, 0.02, at.top - at.bottom))
        figure.colorbar(ScalarMappable(Normalize(-1, 1), _MAP), cax=bar).outline.set_visible(False)
    return figure


def _veil(share: np.ndarray, size: tuple[int, int], pixels: float) -> np.ndarray:
    """How bright each pixel stays. Source: the authors' reply on rendering, issue 27 of their repository."""
    large = Image.fromarray((share / share.max()).astype(np.float32)).resize(size[::-1], Image.Resampling.LANCZOS)
    soft = ndimage.gaussian_filter(np.asarray(large), sigma=pixels)
    span = float(np.ptp(soft))
    veil: np.ndarray = ((soft - soft.min()) / span if span else np.ones_like(soft))[..., None]
    return veil
