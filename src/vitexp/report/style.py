"""How our pictures look: colours that colour-blind readers tell apart, plain axes, the same bytes each time."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitexp.record import write_atomically

# Source: M. Okabe and K. Ito, Color Universal Design, 2008; without their yellow, which a white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LETTERS_PER_INCH = 16.5
INK, FAINT, GROUND = "#222222", "#6B6B6B", "#FFFFFF"
SETTINGS: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
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
    "svg.fonttype": "path",
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
    return _bytes(figure, "svg", {"Date": None})


def _bytes(figure: Figure, kind: str, metadata: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=160, metadata=dict(metadata))
    return content.getvalue()
