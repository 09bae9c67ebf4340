import base64
import io
import re
from xml.etree import ElementTree

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


def test_a_picture_says_in_words_what_it_is(tmp_path):
    """SVG: title and description first of all, so that browsers take them; PNG: the standard keywords."""
    with style.settings():
        texts = "A <b> & c", "line\x07 beneath", "foot."
        figure, ((axes,),) = style.page((5, 3), (0.5, 0.5, 0.1, 0.8), texts)
        axes.set_xlabel("data")
        axes.set_ylabel("accuracy")
        png, svg = style.save(figure, tmp_path, "picture")
    tree = ElementTree.fromstring(svg.read_text())
    title, about = list(tree)[:2]
    assert (title.tag.rpartition("}")[2], about.tag.rpartition("}")[2]) == ("title", "desc")
    assert (title.text, tree.get("role")) == ("A <b> & c", "img")
    assert about.text == "accuracy against data. line\ufffd beneath. foot."
    with Image.open(png) as opened:
        assert (opened.text["Title"], opened.text["Description"]) == (title.text, about.text)
