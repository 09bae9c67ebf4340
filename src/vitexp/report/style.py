"""How our pictures look: colours that colour-blind readers tell apart, plain axes, the same bytes each time."""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Bbox

from vitexp.record import write_atomically

# Source: M. Okabe and K. Ito, Color Universal Design, 2008; without their yellow, which a white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LETTERS_PER_INCH = 16.5
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file may hold; a name may, and stands in the file as text."""
INK, FAINT, GROUND = "#222222", "#6B6B6B", "#FFFFFF"
SETTINGS: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": "#9A9A9A",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "svg.hashsalt": "vitexp",
    "svg.fonttype": "none",  # text stays text: a tenth of the size, and it can be searched
}


@contextmanager
def settings() -> Iterator[None]:
    """A context in which all our pictures are drawn; a control character in a name is drawn as a box."""
    every: dict[Any, Any] = dict(matplotlib.rcParamsDefault) | dict(SETTINGS) | {"backend": "agg"}
    with matplotlib.rc_context(every), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph (\d|[12]\d|3[01]|12[7-9]|1[3-5]\d) ")
        yield


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the series at `index`; beyond seven, the colours come again with other markers."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def head(figure: Figure, title: str, below: str) -> None:
    """The title at the upper left, with a fainter line beneath it."""
    inch = 1 / figure.get_figheight()
    figure.text(0.012, 1 - 0.12 * inch, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.39 * inch, below, fontsize=9, color=FAINT, va="top")


def caption(figure: Figure, text: str) -> None:
    """What a reader must know, at the lower left."""
    wrapped = "\n".join(_lines(text, figure.get_figwidth()))
    figure.text(0.012, 0.10 / figure.get_figheight(), wrapped, fontsize=8, color=FAINT, va="bottom", linespacing=1.35)


def caption_inches(text: str, width: float) -> float:
    """The height that `caption` needs in a figure of that width."""
    return 0.10 + 0.15 * len(_lines(text, width))


def _lines(text: str, width: float) -> list[str]:
    kept = text.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")
    return textwrap.wrap(kept, int(width * _LETTERS_PER_INCH))


def plain(axes: Axes, grid: str) -> None:
    """Grid lines along one axis alone, no tick marks."""
    axes.grid(False, axis="x" if grid == "y" else "y")
    axes.tick_params(length=0)


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Writes NAME.png and NAME.svg, each whole or not at all."""
    paths = folder / f"{name}.png", folder / f"{name}.svg"
    for path, content in zip(paths, (_bytes(figure, "png", {"Software": None}), svg(figure)), strict=True):
        write_atomically(path, content)
    return paths


def svg(figure: Figure) -> bytes:
    """The figure as SVG without a date, so that equal numbers make equal files."""
    text = _bytes(figure, "svg", {"Date": None}).decode()
    return _NOT_XML.sub("\ufffd", text).encode()


def _bytes(figure: Figure, kind: str, metadata: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=160, metadata=dict(metadata))
    return content.getvalue()


# Names beside the points of a picture, where there is room: never over a point, an interval or another name.

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
        bbox={"facecolor": GROUND, "alpha": 0.75, "linewidth": 0, "pad": 0.4},  # lines pass behind the name
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
