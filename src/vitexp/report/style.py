"""How our pictures look: colours that colour-blind readers tell apart, plain axes, the same bytes each time."""

import base64
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image

from vitexp.record import write_atomically

# Source: M. Okabe and K. Ito, Color Universal Design, 2008; without their yellow, which a white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LETTERS_PER_INCH = 16.5
_MARKS = "Identifier"
"""Among the metadata of an SVG, the marks of the runs that it is about"""
_PIXELS = re.compile(r"data:image/png;base64,\s*([\w+/=\s]+)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file may hold; a name may, and stands in the file as text."""
_PLAIN = " /:;=?@!$()*+,'[]"
"""Signs that need no code in an address within double quotes."""
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
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
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


def page(
    inches: tuple[float, float],
    margins: tuple[float, float, float, float],
    texts: tuple[str, str, str],
    grid: tuple[int, int] = (1, 1),
    between: tuple[float, float] = (0.2, 0.2),
    **ratios: Any,
) -> tuple[Figure, Any]:
    """A figure with panels in a grid, a title with a fainter line beneath it, and at the foot what a reader must know.

    The foot takes the room that it needs. Inches are width and height without it, margins left, lower, right and upper
    ones around the panels, texts title, line beneath and foot; `between` is in widths and heights of a panel.
    """
    (width, height), (left, lower, right, upper), (title, below, foot) = inches, margins, texts
    kept = foot.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")
    lines = textwrap.wrap(kept, int(width * _LETTERS_PER_INCH))
    room = 0.10 + 0.15 * len(lines)
    height += room
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(*grid, squeeze=False, **ratios)
    figure.subplots_adjust(left / width, (lower + room) / height, 1 - right / width, 1 - upper / height, *between)
    figure.text(0.012, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.39 / height, below, fontsize=9, color=FAINT, va="top")
    small: dict[str, Any] = {"fontsize": 8, "color": FAINT, "va": "bottom", "linespacing": 1.35}
    figure.text(0.012, 0.10 / height, "\n".join(lines), **small)
    return figure, panels


def save(figure: Figure, folder: Path, name: str, runs: Sequence[str] = ()) -> tuple[Path, Path]:
    """Writes NAME.png and NAME.svg, each whole or not at all; the SVG with the marks of the runs that it is about."""
    paths = folder / f"{name}.png", folder / f"{name}.svg"
    title, about = _words(figure)
    png = _bytes(figure, "png", {"Software": None, "Title": title, "Description": about})
    for path, content in zip(paths, (png, svg(figure, runs)), strict=True):
        write_atomically(path, content)
    return paths


def _words(figure: Figure) -> tuple[str, str]:
    """What a reader is told who does not see a picture: its title, and all else that is written around its panels."""
    title, *about = [_NOT_XML.sub("\ufffd", " ".join(text.get_text().split())) for text in figure.texts] or [""]
    axes = " against ".join(text for one in figure.axes[:1] for text in (one.get_ylabel(), one.get_xlabel()) if text)
    return title, ". ".join(text.rstrip(".") for text in (axes, *about) if text) + "."


def svg(figure: Figure, runs: Sequence[str] = ()) -> bytes:
    """The figure as SVG without a date, so that equal numbers make equal files."""
    title, about = map(escape, _words(figure))
    told = f' role="img">\n <title>{title}</title>\n <desc>{about}</desc>'
    text = _bytes(figure, "svg", {"Date": None} | ({_MARKS: " ".join(runs)} if runs else {})).decode()
    text = re.sub(r"(<svg [^>]*)>", lambda found: found[1] + told, text, count=1)
    return _PIXELS.sub(_packed, _NOT_XML.sub("\ufffd", text)).encode()


def data_url(picture: bytes) -> str:
    """A picture in SVG as an address, for a page that holds it itself."""
    return f"data:image/svg+xml,{quote(picture, safe=_PLAIN)}"


def _packed(found: re.Match[str]) -> str:
    """A picture in pixels, in an SVG: of few colours it keeps each, of many it becomes a JPEG, a tenth as large."""
    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    kind = "png" if picture.getcolors(256) else "jpeg"
    picture = picture.quantize(256, dither=Image.Dither.NONE) if kind == "png" else picture
    picture.save(content, kind, optimize=True, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _bytes(figure: Figure, kind: str, metadata: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=160, metadata=dict(metadata))
    return content.getvalue()


# Names beside the points of a picture, where there is room: never over a point, an interval or another name.

_DISTANCES = (7.0, 11.0, 16.0, 26.0, 38.0, 52.0)  # in points of type
_NEAR = 16.0  # as far a name is taken for that of its point without a line between them
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SAMPLES = 40  # places of a segment at which a name may lie on it


class Label(NamedTuple):
    """A name for the point at (x, y), whose interval reaches from low to high."""

    x: float
    y: float
    low: float
    high: float
    text: str
    colour: str


def annotate(axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Writes the names that find room, away from the lines where that goes, near their points.

    The limits and the place of the axes must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer, scale, to_pixels = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72, axes.transData.transform
    segments = [ends for line in lines for ends in pairwise(to_pixels(np.array(line, dtype=float)))]
    on_lines = np.concatenate([np.empty((0, 2)), *(np.linspace(*ends, _SAMPLES) for ends in segments)])
    points = [to_pixels((label.x, label.y)) for label in labels]
    taken = [Bbox([point, point]).padded(5 * scale) for point in points]
    taken += [Bbox(to_pixels([(label.x, label.low), (label.x, label.high)])).padded(2 * scale, 0) for label in labels]
    for label, point in zip(labels, points, strict=True):
        name = _name(axes, label)
        extent = name.get_window_extent(renderer)
        free = []
        for distance, (right, up) in product(_DISTANCES, _DIRECTIONS):
            across = right * (distance + extent.width / scale / 2)
            along = up * (distance * (0.7 if right else 1) + extent.height / scale / 2)
            middle = point + scale * np.array([across, along])
            box = Bbox([middle, middle]).padded(extent.width / 2 + 1, extent.height / 2 + 1)
            if axes.get_window_extent().count_contains(box.corners()) == 4 and not box.count_overlaps(taken):
                crossed = sum(
                    other.count_contains(np.linspace(point, middle, _SAMPLES)) for other in taken[len(points) :]
                )
                covers = box.count_contains(on_lines) + crossed * (distance > _NEAR)
                free.append((distance > _NEAR, covers, distance, (across, along), box))
        if free:
            far, *_, offset, box = min(free, key=lambda found: found[:3])  # of several the nearest
            name.set_position(offset)
            taken.append(box)
            if far:
                end = axes.transData.inverted().transform(point + 0.8 * scale * np.array(offset))
                axes.plot(
                    *zip((label.x, label.y), end, strict=True),
                    color=label.colour,
                    linewidth=0.6,
                    scalex=False,
                    scaley=False,
                )
        else:
            name.remove()


def _name(axes: Axes, label: Label) -> Annotation:
    around: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
    ground = {"facecolor": GROUND, "alpha": 0.75, "linewidth": 0, "pad": 0.4}  # lines pass behind the name
    place = label.x, label.y
    return axes.annotate(label.text, place, (0, 0), **around, fontsize=7, color=label.colour, bbox=ground)
