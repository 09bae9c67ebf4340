import csv
import io
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from PIL import Image
from rich.console import Console

from vitexp.report import style
from vitexp.report.curve_text import line_name, place_text
from vitexp.report.draw_curve import caption, draw_curve, round_numbers, ticks, write_curve
from vitexp.report.html import write_html
from vitexp.study.curve import make_curve

SIZED = {
    "w32d2m64h2/4": (1.0, 0.90), "w32d1m64h2/4": (0.55, 0.80), "w32d4m64h2/4": (1.9, 0.94),
    "w32d8m64h2/4": (3.7, 0.95), "w16d2m64h1/4": (0.45, 0.82), "w64d2m64h4/4": (2.8, 0.93),
    "w128d2m64h8/4": (8.5, 0.945), "w32d2m32h2/4": (0.8, 0.89), "w32d2m128h2/4": (1.4, 0.905),
    "w32d2m64h2/8": (0.27, 0.84), "w32d2m64h2/2": (4.3, 0.955), "w16d1m32h1/8": (0.06, 0.6),
}  # fmt: skip
BASE = "w32d2m64h2/4"
LINES = {
    "Depth": ["w32d1m64h2/4", BASE, "w32d4m64h2/4", "w32d8m64h2/4"],
    "Width": ["w16d2m64h1/4", BASE, "w64d2m64h4/4", "w128d2m64h8/4"],
    "Others": ["w32d2m32h2/4", "w32d2m128h2/4", "w32d2m64h2/8", "w32d2m64h2/2", "w16d1m32h1/8", BASE],
}
FAMILIES = {
    "micro/8": (0.2, 0.70), "micro/4": (0.8, 0.85), "micro/2": (3.0, 0.84), "R14x0.5": (0.4, 0.68), "R14x1": (1.5, 0.83)
}  # fmt: skip


def fill(lab, networks, seeds=3, noise=0.01, **settings):
    named = {"study.name": "c", "study.x": "train_flops", "study.metrics": ["test_acc", "fewshot_5"], **settings}
    study = lab.study(named, {"model.arch": list(networks), "seed_everything": list(range(seeds))})
    for cell in study.cells():
        cost, value = networks[cell.overrides["model.arch"]]
        drawn = np.random.default_rng([cell.seed, list(networks).index(cell.overrides["model.arch"])]).normal(0, noise)
        metrics = {"test_acc": value + drawn, "fewshot_5": value - 0.1 + 2 * drawn}
        data = {"name": "digits", "train_images": 600}
        lab.run(cell, metrics, study="c", train_flops=cost * 1e12, parameters=4321, epochs=10.0, data=data)
    return study


@pytest.fixture(scope="module")
def labs(tmp_path_factory, make_lab):
    """A study of dimensions and one of families, only to be read."""
    relative = {"study.x": "relative_flops", "study.lines": LINES, "study.baseline": {"model.arch": BASE}}
    one, other = (make_lab(tmp_path_factory.mktemp(name)) for name in ("sized", "families"))
    sized = fill(one, SIZED, **relative)
    families = fill(other, FAMILIES, **{"study.baseline": {"model.arch": "R14x1"}, "study.paper": "figure5"})
    return {"sized": (sized, one.root), "families": (families, other.root)}


@pytest.fixture
def sized(labs):
    return labs["sized"]


@pytest.fixture
def families(labs):
    return labs["families"]


@pytest.fixture(scope="module")
def pictures(labs):
    """The pictures of both, drawn, with their curves."""
    found = {}
    for name, place in labs.items():
        curve = make_curve(*place)
        with style.settings():
            figure = draw_curve(curve)
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
            found[name] = curve, figure, renderer
    return found


def shown(written, width=110):
    console = Console(file=io.StringIO(), width=width)
    console.print(written.renderable)
    return " ".join(console.file.getvalue().split())


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("name", ["sized", "families"])
def test_names_lie_within_the_picture_and_over_nothing(pictures, name):
    curve, figure, renderer = pictures[name]
    with style.settings():
        for axes in figure.axes:
            named = [text for text in axes.texts if isinstance(text, Annotation)]
            boxes = [text.get_window_extent(renderer) for text in named]
            assert len(boxes) >= 0.8 * len(curve.points)
            assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
            inside = axes.get_window_extent(renderer)
            assert all((box.min >= inside.min).all() and (box.max <= inside.max).all() for box in boxes)
            points = np.concatenate([line.get_xydata() for line in axes.lines])
            pixels = axes.transData.transform(points)
            assert not any(box.contains(x, y) for box in boxes for x, y in pixels)


@pytest.mark.parametrize("name", ["sized", "families"])
def test_the_ticks_of_the_axis_keep_apart(pictures, name):
    _, figure, renderer = pictures[name]
    with style.settings():
        for axes in figure.axes:
            boxes = [text.get_window_extent(renderer) for text in axes.get_xticklabels() if text.get_text()]
            assert len(boxes) >= 2
            assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize(("low", "high"), [(1e9, 1.04e9), (1e9, 2e9), (3e10, 4e12), (1e6, 1e21), (0.01, 150.0)])
def test_ticks_are_round_numbers_within_the_axis(low, high):
    found = ticks(round_numbers(low, high), "train_flops", low, high, 5.0)
    assert 2 <= len(found) <= 8
    assert found == sorted(found)
    assert all(low <= tick <= high for tick in found)
    assert len({place_text("train_flops", tick) for tick in found}) == len(found)


def test_the_caption_says_what_names_and_lines_are(pictures):
    assert "Names say what differs from w32d2m64h2/4" in caption(pictures["sized"][0])
    text = caption(pictures["families"][0])
    assert "the running best of a family" in text
    assert "Names say" not in text


def test_the_files_are_pictures_and_numbers_and_the_same_each_time(families, tmp_path):
    written = write_curve(*families, tmp_path / "one")
    folder = tmp_path / "one" / "c"
    assert [path.name for path in written.paths] == ["curve.png", "curve.svg", "curve.csv", "curve-fits.csv"]
    ElementTree.fromstring((folder / "curve.svg").read_text())
    with Image.open(folder / "curve.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(pixels - colour).max(axis=-1) < 6).sum() > 100
    write_curve(*families, tmp_path / "two")
    assert all(path.read_bytes() == (tmp_path / "two" / "c" / path.name).read_bytes() for path in written.paths)


def test_every_point_and_comparison_reads_back_from_the_csv(sized, tmp_path):
    write_curve(*sized, tmp_path)
    curve = make_curve(*sized)
    rows = rows_of(tmp_path / "c" / "curve.csv")
    points = [(metric, dict(line.label)["line"], point) for metric in curve.lines for line in curve.lines[metric]
              for point in line.points]  # fmt: skip
    assert len(rows) == len(points) == 2 * 14  # the base stands on three lines
    for row, (metric, name, point) in zip(rows, points, strict=True):
        assert (row["metric"], row["line"], row["model.arch"]) == (metric, name, point.arm.factors["model.arch"])
        assert float(row["relative_flops"]) == point.x
        assert float(row["train_flops"]) == SIZED[row["model.arch"]][0] * 1e12
        assert (row["parameters"], float(row["mean"]), float(row["high"])) == (
            "4321", point.interval.mean, point.interval.high
        )  # fmt: skip
        assert {int(s): float(v) for s, v in (pair.split(":") for pair in row["values"].split())} == point.values
    compared = rows_of(tmp_path / "c" / "curve-fits.csv")
    found = [
        (line_name(line), line_name(base), equal) for pairs in curve.compared.values() for line, base, equal in pairs
    ]
    for row, (name, base, equal) in zip(compared, found, strict=True):
        assert (row["kind"], row["line"], row["against"]) == ("equal accuracy", name, base)
        assert float(row["factor"]) == equal.factor
        assert (row["low"] != "") == (equal.interval is not None)
        assert not row["low"] or (float(row["low"]), float(row["high"])) == equal.interval


def test_the_terminal_tells_points_and_comparisons(families, tmp_path):
    text = shown(write_curve(*families, tmp_path))
    assert "digits · 600 training images · 10 epochs · 5 arms · 15 of 15 runs finished · seeds 0–2" in text
    assert "ViT · micro/8 200 GFLOP 4.32 k" in text
    assert "◆ ResNet · R14x1 1.5 TFLOP 4.32 k" in text
    assert "For equal top-1 accuracy ViT needs" in text
    assert "Paper: Figure 5, drawn only: ViTs take 2 to 4 times less compute" in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_drawn_and_decide_nothing(families, lab, tmp_path, seeds):
    settings = {"study.name": "c", "study.x": "train_flops", "study.baseline": {"model.arch": "R14x1"}}
    few = lab.study(settings, {"model.arch": list(FAMILIES), "seed_everything": list(range(seeds))})
    text = shown(write_curve(few.path, families[1], tmp_path))
    assert f"n = {seeds} seeds" in text
    assert f"(n = {seeds}: not enough evidence under 3 seeds)" in text


def test_the_page_of_a_study_holds_the_picture(families, tmp_path):
    page = write_html([families], tmp_path).read_text()
    assert "Against training compute" in page
    assert "For equal top-1 accuracy ViT needs" in page


def test_a_single_size_has_its_own_tick_and_many_are_thinned_to_those_with_room():
    assert ticks([[64]], "data.train_images", 43, 96, 5.0) == [64]
    sizes = [1000 + step for step in range(0, 1000, 10)]
    grids = [sizes[::-step][::-1] for step in range(1, len(sizes))]
    found = ticks(grids, "data.train_images", 1000, 1990, 5.0)
    assert 4 < len(found) < 15
    assert found[-1] == 1990


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, make_lab):
    """Thirty networks whose errors fall with compute from 29 % to 1 %, along one band."""
    random, networks = np.random.default_rng(1), {}
    for depth in (1, 2, 4, 8, 12, 16):
        for width in (16, 32, 64, 128, 256):
            cost = depth * width**2 / 2000
            error = 0.35 * (cost / 0.1) ** -0.35 * (1 + 0.1 * random.normal())
            networks[f"w{width}d{depth}m{2 * width}h{width // 16}/4"] = (cost, 1 - error)
    lines = {f"width {width}": [name for name in networks if name.startswith(f"w{width}d")] for width in (16, 32, 64)}
    lines["wide"] = [name for name in networks if name.startswith(("w128d", "w256d"))]
    lab = make_lab(tmp_path_factory.mktemp("crowd"))
    settings = {"study.lines": lines, "study.baseline": {"model.arch": "w64d4m128h4/4"}, "study.metrics": ["test_acc"]}
    return make_curve(fill(lab, networks, noise=0.002, **settings), lab.root)


def test_thirty_points_are_all_named_and_no_name_lies_on_another(crowd):
    with style.settings():
        figure = draw_curve(crowd)
        (axes,), renderer = figure.axes, FigureCanvasAgg(figure).get_renderer()
        boxes = [one.get_window_extent(renderer) for one in axes.texts if isinstance(one, Annotation)]
    assert len(boxes) == 30
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_accuracies_lie_as_far_apart_as_the_logarithms_of_their_errors(crowd):
    with style.settings():
        (axes,) = draw_curve(crowd).axes
    assert axes.get_ylabel() == "top-1 accuracy (%), errors logarithmic"
    places = [axes.transData.transform((1e12, accuracy))[1] for accuracy in (80, 90, 95, 97.5)]
    assert np.diff(places) == pytest.approx([places[1] - places[0]] * 3)
    shown = axes.get_yticks()
    assert len(shown) >= 3
    means = [100 * point.interval.mean for point in crowd.points]
    low, high = axes.get_ylim()
    assert low < min(means) < max(means) < high < 100


def test_an_error_of_nothing_has_no_logarithm(lab):
    networks = {name: (cost, 1.0 if name == "micro/2" else value) for name, (cost, value) in FAMILIES.items()}
    study = fill(lab, networks, noise=0.0, **{"study.metrics": ["test_acc"]})
    with style.settings():
        (axes,) = draw_curve(make_curve(study, lab.root)).axes
    assert "logarithmic" not in axes.get_ylabel()
