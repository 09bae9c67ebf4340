"""Names beside the points of a picture, where there is room: never over a point, an interval or another name."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from vitexp.report import style

SIZE = 7
_POINT = 5.0  # half of what a marker takes, in points of type
_DISTANCES = (7.0, 11.0, 16.0)
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SAMPLES = 40  # places of a segment at which a name may lie on it


@dataclass(frozen=True, kw_only=True)
class Label:
    """A name for the point at (x, y), whose interval reaches from low to high."""

    x: float
    y: float
    low: float
    high: float
    text: str
    colour: str


def annotate(axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]) -> list[str]:
    """Writes the names, away from the lines where that goes, and returns those that found no room.

    The limits and the place of the axes must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas, scale = FigureCanvasAgg(figure), figure.dpi / 72
    taken = [box for label in labels for box in _occupied(axes, label, scale)]
    on_lines = _places(axes, lines)
    inside, left_out = axes.get_window_extent(), []
    for label in labels:
        width, height, _ = canvas.get_renderer().get_text_width_height_descent(
            label.text, FontProperties(size=SIZE), False
        )
        x, y = axes.transData.transform((label.x, label.y))
        free = [
            (int(_covered(box, on_lines)), index, offset, box)
            for index, (offset, box) in enumerate(_candidates(x, y, width, height, scale))
            if _within(box, inside) and not any(box.overlaps(other) for other in taken)
        ]
        if not free:
            left_out.append(label.text)
            continue
        *_, offset, box = min(free, key=lambda found: found[:2])
        taken.append(box)
        _write(axes, label, offset)
    return left_out


def _write(axes: Axes, label: Label, offset: tuple[float, float]) -> None:
    axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=SIZE,
        color=label.colour,
        path_effects=[withStroke(linewidth=2, foreground=style.GROUND)],
    )


def _candidates(
    x: float, y: float, width: float, height: float, scale: float
) -> list[tuple[tuple[float, float], Bbox]]:
    """Places for a name around a point, nearest first: the offset of its middle in points, and its box in pixels."""
    found = []
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            dx = right * (distance + width / scale / 2)
            dy = up * (distance * (0.7 if right else 1) + height / scale / 2)
            middle = x + dx * scale, y + dy * scale
            found.append(((dx, dy), _box(*middle, width / 2 + 1, height / 2 + 1)))
    return found


def _occupied(axes: Axes, label: Label, scale: float) -> list[Bbox]:
    """What a point and its interval take."""
    x, y = axes.transData.transform((label.x, label.y))
    ends = [axes.transData.transform((label.x, end))[1] for end in (label.low, label.high)]
    half = _POINT * scale
    return [_box(x, y, half, half), Bbox.from_extents(x - 2 * scale, min(ends), x + 2 * scale, max(ends))]


def _places(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]]) -> np.ndarray:
    """Places along the lines, in pixels."""
    found = [np.empty((0, 2))]
    for line in lines:
        for one, other in pairwise(axes.transData.transform(np.asarray(line, dtype=float).reshape(-1, 2))):
            found.append(one + (other - one) * np.linspace(0, 1, _SAMPLES)[:, None])
    return np.concatenate(found)


def _covered(box: Bbox, places: np.ndarray) -> int:
    """How many places of the lines a box would hide."""
    return int(np.all((places > box.min) & (places < box.max), axis=1).sum())


def _within(box: Bbox, inside: Bbox) -> bool:
    return bool(np.all(box.min >= inside.min) and np.all(box.max <= inside.max))


def _box(x: float, y: float, half_width: float, half_height: float) -> Bbox:
    return Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)
