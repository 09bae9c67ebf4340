import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitexp.report import style


def embedded(picture):
    """The SVG of a figure that shows a picture in pixels, and the picture in it."""
    with style.settings():
        figure = Figure(figsize=(4, 4))
        figure.subplots().imshow(picture, interpolation="none")
        svg = style.svg(figure)
    ((kind, text),) = re.findall(r"data:image/(\w+);base64,([^\"]+)\"", svg.decode())
    return svg, kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_a_picture_of_few_colours_keeps_each_in_an_svg():
    levels = np.random.default_rng(0).integers(0, 250, (300, 300, 1)).repeat(3, axis=2)
    svg, kind, found = embedded((levels / 255).astype(float))
    assert kind == "png"
    assert any(np.array_equal(one, levels) for one in (found, found[::-1]))
    assert len(svg) < 150_000


def test_a_photograph_makes_no_large_svg():
    smooth = np.random.default_rng(0).normal(size=(300, 300, 3)).cumsum(axis=0).cumsum(axis=1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    svg, kind, found = embedded(smooth)
    assert kind == "jpeg"
    assert len(svg) < 100_000
    close = min(np.abs(one / 255 - smooth).mean() for one in (found, found[::-1]))
    assert close == pytest.approx(0, abs=0.02)
