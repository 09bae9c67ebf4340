import csv
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from vitexp.report import style
from vitexp.report.draw_curve import caption, draw_curve, write_curve
from vitexp.report.draw_dots import draw_dots, write_dots
from vitexp.report.view import arm_label
from vitexp.study.curve import make_curve
from vitexp.study.table import make_table

SIZES = [64, 128, 256, 512, 1024]


def metrics(cell):
    """Two arms that cross at 256 images."""
    size = cell.overrides["data.train_images"]
    noise = np.random.default_rng([cell.seed, size]).normal(0, 0.002)
    tilt = 0.02 * np.log2(size / 256) * (cell.overrides["model.pos_embed"] == "none") * (1 + 0.1 * cell.seed)
    return {"test_acc": 1 - 2.0 * size**-0.6 - tilt + noise}


def grow(lab, seeds=4, sizes=SIZES):
    swept = {"model.pos_embed": ["none", "1d"], "data.train_images": sizes, "seed_everything": list(range(seeds))}
    settings = {"study.name": "size", "study.baseline": {"model.pos_embed": "1d"}, "study.paper": "figure4"}
    study = lab.study(settings, swept)
    for cell in study.cells():
        data = {"name": "digits", "train_images": cell.overrides["data.train_images"]}
        lab.run(cell, metrics(cell), study="size", data=data, images_seen=25_600)
    return study


def shown(written, width=110):
    console = Console(file=io.StringIO(), width=width)
    console.print(written.renderable)
    return console.file.getvalue()


@pytest.fixture
def grown(lab, tmp_path):
    study = grow(lab)
    written = write_curve(study.path, lab.root, tmp_path / "results")
    return make_curve(study, lab.root), tmp_path / "results" / "size", shown(written)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_curve_is_written_as_pictures_and_numbers(grown):
    _, folder, _ = grown
    assert sorted(path.name for path in folder.iterdir()) == ["curve-fits.csv", "curve.csv", "curve.png", "curve.svg"]


def test_the_png_is_a_picture_on_a_light_ground_in_our_colours(grown):
    with Image.open(grown[1] / "curve.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 900
    assert (pixels[:5, :5] == 255).all()
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(pixels.astype(int) - colour).max(axis=-1) < 6).sum() > 100


def test_the_svg_is_sound_and_has_no_outside_reference(grown):
    text = (grown[1] / "curve.svg").read_text()
    tree = ElementTree.fromstring(text)
    assert tree.tag.endswith("svg")
    links = [value for element in tree.iter() for name, value in element.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "<script" not in text


def test_an_svg_holds_its_text_as_text_whatever_the_text_is():
    """Outlined letters made files of 400 kB; as text, a name needs what XML forbids replaced."""
    figure, names = Figure(), [r"a $x$ <&> \\alpha", "escape \x1b[31m", "bell \x07", "form \x0c", "é"]
    with style.settings():
        for place, name in enumerate(names):
            figure.text(0.1, place / 8, name)
        axes = figure.subplots()
        style.annotate(axes, [style.Label(0.5, 0.5, 0.4, 0.6, text="micro/16", colour="#000000")], [])
        first, again = style.svg(figure), style.svg(figure)
    found = {element.text for element in ElementTree.fromstring(first).iter() if element.tag.endswith("text")}
    assert {"micro/16", *(re.sub("[\x00-\x1f]", "\ufffd", name) for name in names)} <= found
    assert first == again
    assert len(first) < 20_000


def test_the_same_records_give_the_same_bytes(grown, lab, tmp_path):
    first = {path.name: path.read_bytes() for path in grown[1].iterdir()}
    write_curve(grown[0].study.path, lab.root, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again" / "size").iterdir()} == first


def test_every_point_reads_back_from_the_csv(grown):
    curve, folder, _ = grown
    rows = rows_of(folder / "curve.csv")
    points = [(dict(one.label)["model.pos_embed"], point) for one in curve.lines["test_acc"] for point in one.points]
    assert len(rows) == 10
    for row, (arm, point) in zip(rows, points, strict=True):
        assert (row["model.pos_embed"], float(row["size"]), int(row["n"])) == (arm, point.x, 4)
        interval = point.interval
        assert [float(row[name]) for name in ("mean", "sd", "low", "high")] == [
            interval.mean, interval.sd, interval.low, interval.high
        ]  # fmt: skip
        assert {int(s): float(v) for s, v in (pair.split(":") for pair in row["values"].split())} == point.values
        assert row["images_seen"] == "25600"


def test_fits_and_crossovers_read_back_from_the_csv(grown):
    curve, folder, _ = grown
    laws = [row for row in rows_of(folder / "curve-fits.csv") if row["kind"] == "power law"]
    for row, fit in zip(laws, (line.fit for line in curve.lines["test_acc"]), strict=True):
        found = [float(row[name]) for name in ("a", "b", "c", "b_low", "b_high", "c_low", "c_high", "miss")]
        assert found == [fit.a, fit.b, fit.c, *fit.b_interval, *fit.c_interval, fit.miss]
    (row,) = [row for row in rows_of(folder / "curve-fits.csv") if row["kind"] == "crossover"]
    crossover = curve.compared["test_acc"][0][2]
    assert [float(row[name]) for name in ("size", "low", "high")] == [crossover.size, crossover.low, crossover.high]
    assert (row["model.pos_embed"], row["against"], row["shown"]) == ("none", "1d", "True")


def test_the_picture_says_where_the_law_leaves_the_means(grown, lab):
    """One mean is far off the law of the others: it is hollow, and the foot says what that means."""
    swept = {"data.train_images": SIZES, "seed_everything": [0, 1, 2, 3]}
    study = lab.study({"study.name": "bent", "study.metrics": ["test_acc"]}, swept)
    for cell in study.cells():
        size = cell.overrides["data.train_images"]
        error = 2 * size**-0.6 + 0.02 * (size == 256) + np.random.default_rng([cell.seed, size]).normal(0, 0.001)
        data = {"name": "digits", "train_images": size}
        lab.run(cell, {"test_acc": 1 - error}, study="bent", data=data, images_seen=25_600)
    curve = make_curve(study, lab.root)
    (line,) = curve.lines["test_acc"]
    assert 256 in line.fit.outside_at
    with style.settings():
        (axes,) = draw_curve(curve).axes
    hollow = {one.get_xdata()[0]: one.get_ydata()[0] for one in axes.lines if one.get_markerfacecolor() == style.GROUND}
    means = {point.x: 100 * point.interval.mean for point in line.points}
    assert hollow == {size: pytest.approx(means[size]) for size in line.fit.outside_at}
    assert "Hollow: the law leaves the mean" in caption(curve)
    assert "Hollow" not in caption(grown[0])


def test_the_terminal_tells_points_fits_and_crossover(grown):
    curve, _, text = grown
    flat = " ".join(text.split())
    assert "Fixed steps: 25,600 images seen at every size" in flat
    assert "n = 4 seeds" in flat
    assert "Paper: Figure 4, drawn only:" in flat
    point = curve.lines["test_acc"][1].points[4].interval
    assert re.search(rf"1,024 +\S+ ± \S+ +{100 * point.mean:.2f} ± {100 * (point.high - point.mean):.2f}", text)
    assert re.search(r"1-D: error = 2\.\d+ · n\^−0\.\d\d \+ 0\.0\d+, exponent ± 0\.\d\d", flat)
    assert re.search(r"1-D overtakes none at 256 images; 95 % interval 2\d\d to 2\d\d \(n = 4 seeds\)\.", flat)


def test_a_tuned_curve_prints_the_value_chosen_at_every_size(lab, tmp_path):
    settings = {"study.name": "rates", "study.tune": ["model.lr"], "study.x": "data.train_images"}
    swept = {"data.train_images": [64, 128], "model.lr": [0.001, 0.003], "seed_everything": [0, 1, 2]}
    study = lab.study(settings, swept)

    def metrics(cell):
        best = {64: 0.003, 128: 0.001}[cell.overrides["data.train_images"]] == cell.overrides["model.lr"]
        return {"val_acc": 0.8 + 0.1 * best + 0.01 * cell.seed, "test_acc": 0.7 - 0.1 * best + 0.01 * cell.seed}

    lab.fill(study, metrics)
    text = " ".join(shown(write_curve(study.path, lab.root, tmp_path)).split())
    best = "top-1 accuracy on the validation slice"
    assert f"The learning rate that is best by {best} at each size: the only arm 0.003, 0.001." in text
    rows = rows_of(tmp_path / "rates" / "curve.csv")
    assert [(row["size"], row["tuned model.lr"], row["n"]) for row in rows] == [
        ("64", "0.003", "3"), ("128", "0.001", "3")
    ]  # fmt: skip
    assert [float(row["mean"]) for row in rows] == pytest.approx([0.61, 0.61])


@pytest.mark.parametrize(("seeds", "sizes"), [(1, SIZES), (2, [64, 128]), (3, [64, 128])])
def test_few_seeds_and_sizes_are_drawn_without_fits(lab, tmp_path, seeds, sizes):
    study = grow(lab, seeds, sizes)
    written = write_curve(study.path, lab.root, tmp_path / "results")
    assert written.paths[0].stat().st_size > 10_000
    rows = rows_of(tmp_path / "results" / "size" / "curve-fits.csv")
    assert all(row["absent"] for row in rows if row["kind"] == "power law")


def test_the_dots_of_a_table_are_drawn_with_gaps_and_all(lab, filled, tmp_path):
    study = lab.positions(**{"study.name": "gaps"})
    for cell in study.cells():
        if cell.overrides["model.pos_embed"] != "relative":
            lab.run(cell, filled.metrics_of(cell), study="gaps")
    png, svg = write_dots(study.path, lab.root, tmp_path / "results")
    ElementTree.fromstring(svg.read_text())
    with Image.open(png) as image:
        assert image.size[0] > 1000
        assert math.prod(image.size) > 1_000_000


def test_long_names_of_arms_take_several_lines_and_leave_room_for_the_dots(lab):
    parts = ["dropout", "drop_path", "registers", "patch_dropout", "weight_decay", "label_smoothing"]
    fixed = [{f"model.{key}": 0.1 * (key == changed) for key in parts} for changed in ("", *parts)]
    settings = {"study.name": "long", "study.baseline": fixed[0]}
    study = lab.study(settings, {"arm": fixed, "seed_everything": [0, 1, 2]})
    lab.fill(study, lambda cell: {"test_acc": 0.9 + 0.01 * cell.seed * (1 + cell.index % 2)})
    table = make_table(study, lab.root)
    with style.settings():
        figure = draw_dots(table)
    means, differences = figure.axes
    names = [tick.get_text() for tick in means.get_yticklabels()]
    assert [" ".join(name.split()) for name in names] == [arm_label(table, arm) for arm in table.arms]
    assert {len(name.splitlines()) > 1 for name in names} == {True}
    assert max(len(line) for name in names for line in name.splitlines()) <= 48
    width, height = figure.get_size_inches()
    assert min(axes.get_position().width * width for axes in (means, differences)) > 1.5
    tall = max(len(name.splitlines()) for name in names)
    assert means.get_position().height * height / len(names) > tall * 10 * 1.15 / 72  # no name runs into the next


def test_many_arms_are_listed_under_each_other_and_share_a_reason(lab, tmp_path):
    kinds = ["none", "1d", "2d", "relative", "rope"]
    swept = {"model.pos_embed": kinds, "data.train_images": [64, 128], "seed_everything": [0, 1, 2]}
    study = lab.study({"study.name": "many", "study.baseline": {"model.pos_embed": "1d"}}, swept)
    lab.fill(study, lambda cell: {"test_acc": 0.5 + cell.overrides["data.train_images"] / 1000 + 0.001 * cell.seed})
    text = shown(write_curve(study.path, lab.root, tmp_path / "results"))
    assert "All arms: no power law is drawn; three numbers need 4 sizes, and there are 2." in " ".join(text.split())
    assert re.search(r"^ relative +64 +56\.50 ± 0\.25 +$", text, flags=re.MULTILINE)
    assert re.search(r"^ relative +128 +62\.90 ± 0\.25 +$", text, flags=re.MULTILINE)
    assert text.count("do not differ at any size") == 4
