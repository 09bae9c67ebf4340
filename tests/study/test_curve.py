import json
from dataclasses import replace

import numpy as np
import pytest

from vitexp.report.curve_text import setting
from vitexp.study.curve import make_curve, size_key
from vitexp.study.fits import PowerLaw
from vitexp.study.sequence import Looks

SIZES = [64, 128, 256, 512, 1024]
SETTINGS = {"study.name": "size", "study.baseline": {"model.pos_embed": "1d"}, "study.rows": ["model.pos_embed"]}


def study_of(lab, seeds=4, sizes=SIZES, **settings):
    swept = {"model.pos_embed": ["none", "1d"], "data.train_images": sizes, "seed_everything": list(range(seeds))}
    return lab.study({**SETTINGS, **settings}, swept)


def accuracy(cell):
    """1d follows a power law with exponent 0.6; none is better below 256 images and worse above."""
    size = cell.overrides["data.train_images"] or 1437
    noise = np.random.default_rng([cell.seed, size]).normal(0, 0.002)
    tilt = 0.02 * np.log2(size / 256) * (cell.overrides["model.pos_embed"] == "none")
    return {"test_acc": 1 - 2.0 * size**-0.6 - tilt + noise, "val_acc": 0.5}


def fill(lab, study, seen=lambda cell: 25_600, keep=lambda cell: True):
    for cell in study.cells():
        if keep(cell):
            size = cell.overrides["data.train_images"] or 1437
            data = {"name": "digits", "train_images": size}
            lab.run(cell, accuracy(cell), study="size", data=data, images_seen=seen(cell))


def test_each_arm_is_a_series_of_its_sizes_in_rising_order(lab):
    study = study_of(lab, sizes=[1024, 64, 256])
    fill(lab, study)
    none, one_d = make_curve(study, lab.root).lines["test_acc"]
    assert (dict(none.label), dict(one_d.label)) == ({"model.pos_embed": "none"}, {"model.pos_embed": "1d"})
    assert [point.x for point in none.points] == [64, 256, 1024]
    cells = [
        cell
        for cell in study.cells()
        if cell.overrides == {**cell.overrides, "model.pos_embed": "1d", "data.train_images": 64}
    ]
    assert one_d.points[0].values == {cell.seed: accuracy(cell)["test_acc"] for cell in cells}
    assert one_d.points[0].interval.mean == pytest.approx(np.mean([accuracy(cell)["test_acc"] for cell in cells]))


def test_an_arm_is_named_by_the_rows_and_columns_of_the_study_first(lab):
    swept = {
        "model.pool": ["cls", "gap"],
        "model.arch": ["a", "b"],
        "model.stem": ["p"],
        "data.train_images": [64, 128],
    }
    settings = {"study.name": "size", "study.rows": ["model.pool"], "study.columns": ["data.train_images"]}
    study = lab.study(settings, {**swept, "seed_everything": [0]})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    labels = [one.label for one in make_curve(study, lab.root).lines["test_acc"]]
    assert labels[1] == (("model.pool", "gap"), ("model.arch", "a"))


def test_the_power_law_is_found_behind_the_points(lab):
    study = study_of(lab)
    fill(lab, study)
    fit = make_curve(study, lab.root).lines["test_acc"][1].fit
    assert isinstance(fit, PowerLaw)
    assert fit.b_interval[0] < 0.6 < fit.b_interval[1]
    assert fit.b == pytest.approx(0.6, abs=0.05)


def test_lines_whose_arms_a_table_does_not_compare_do_not_cross(lab):
    study = study_of(lab)
    for cell in study.cells():
        other = cell.overrides["model.pos_embed"] == "none"
        data = {"name": "digits", "train_images": cell.overrides["data.train_images"]}
        data["order_fingerprints"] = {"test": "one" if other else "another"}
        lab.run(cell, accuracy(cell), study="size", data=data, images_seen=25_600)
    curve = make_curve(study, lab.root)
    assert curve.compared["test_acc"] == ()
    (note,) = [text for text in curve.notes if text.startswith("crossovers left out")]
    assert "not measured on the baseline's images" in note


def test_the_arms_cross_where_they_were_made_to(lab):
    study = study_of(lab)
    fill(lab, study)
    ((one, base, crossover),) = make_curve(study, lab.root).compared["test_acc"]
    assert (dict(one.label), dict(base.label)) == ({"model.pos_embed": "none"}, {"model.pos_embed": "1d"})
    assert crossover.size == pytest.approx(256, rel=1e-6)
    assert crossover.leader == 1


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (lambda cell: 25_600, "Fixed steps: 25,600 images seen at every size"),
        (lambda cell: 30 * cell.overrides["data.train_images"], "Fixed epochs: 30 at every size"),
        (
            lambda cell: 1000 + cell.overrides["data.train_images"],
            "Neither steps nor epochs fixed: 1,064 to 2,024 images seen",
        ),
        (lambda cell: None, "Training length not recorded"),
    ],
)
def test_the_training_length_is_read_from_the_records(lab, seen, words):
    study = study_of(lab)
    fill(lab, study, seen)
    assert setting(make_curve(study, lab.root)) == words


def test_the_size_is_the_number_of_images_that_the_records_tell(lab):
    study = study_of(lab, sizes=[64, 128, None])
    fill(lab, study)
    assert [point.x for point in make_curve(study, lab.root).lines["test_acc"][0].points] == [64, 128, 1437]


def test_fits_and_crossovers_use_the_seeds_that_have_every_size(lab):
    study = study_of(lab)
    fill(lab, study, keep=lambda cell: not (cell.seed == 3 and cell.overrides["data.train_images"] == 64))
    curve = make_curve(study, lab.root)
    assert [len(point.values) for point in curve.lines["test_acc"][0].points] == [3, 4, 4, 4, 4]
    assert [line.fit.seeds for line in curve.lines["test_acc"]] == [3, 3]
    assert curve.compared["test_acc"][0][2].seeds == 3
    assert "38 of 40 runs are finished" in curve.notes[0]


def test_a_size_that_one_arm_lacks_is_left_out_of_the_comparison_alone(lab):
    study = study_of(lab)
    lacks = {"model.pos_embed": "none", "data.train_images": 64}
    fill(lab, study, keep=lambda cell: cell.overrides | lacks != cell.overrides)
    curve = make_curve(study, lab.root)
    assert [len(one.points) for one in curve.lines["test_acc"]] == [4, 5]
    assert curve.compared["test_acc"][0][2].size == pytest.approx(256, rel=1e-6)


def test_over_training_length_there_is_no_power_law_and_no_count_of_epochs(lab):
    swept = {"model.pos_embed": ["none", "1d"], "trainer.max_epochs": [2, 4, 8, 16], "seed_everything": [0, 1, 2]}
    study = lab.study({**SETTINGS, "study.x": "trainer.max_epochs"}, swept)
    for cell in study.cells():
        epochs = cell.overrides["trainer.max_epochs"]
        accuracy = 1 - 0.5 * epochs**-0.6 + 0.001 * cell.seed
        lab.run(cell, {"test_acc": accuracy, "val_acc": 0.5}, study="size", images_seen=100 * epochs)
    curve = make_curve(study, lab.root)
    assert {line.fit for line in curve.lines["test_acc"]} == {"fitted over the number of training images only"}
    assert setting(curve) == "200 to 1,600 images seen"


def test_few_sizes_or_seeds_leave_the_fit_out_and_say_so(lab):
    study = study_of(lab, seeds=2)
    fill(lab, study)
    assert "there are 2" in make_curve(study, lab.root).lines["test_acc"][0].fit


def test_without_a_baseline_nothing_is_compared(lab):
    study = study_of(lab, **{"study.baseline": {}})
    fill(lab, study)
    assert make_curve(study, lab.root).compared["test_acc"] == ()


def test_a_loss_has_points_but_no_fit(lab):
    study = study_of(lab, **{"study.metrics": ["test_acc", "test_loss"]})
    for cell in study.cells():
        lab.run(cell, {**accuracy(cell), "test_loss": 1 / cell.overrides["data.train_images"]}, study="size")
    curve = make_curve(study, lab.root)
    assert {line.fit for line in curve.lines["test_loss"]} == {"fitted to accuracies only"}
    assert len(curve.lines["test_loss"][0].points) == 5


def test_the_axis_is_the_one_named_or_else_the_data_size(lab):
    assert size_key(study_of(lab)) == "data.train_images"
    swept = {"model.depth": [2, 4], "data.train_images": [64, 128], "seed_everything": [0]}
    assert size_key(lab.study({"study.name": "d", "study.x": "model.depth"}, swept)) == "model.depth"
    with pytest.raises(ValueError, match=r"pos\.yaml does not vary data\.train_images or data\.train_fraction"):
        make_curve(lab.positions(), lab.root)


def test_a_value_without_a_place_on_the_axis_is_refused(lab):
    settings = {"study.name": "word", "study.x": "model.pool", "study.baseline": {"model.pool": "cls"}}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1]})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    with pytest.raises(ValueError, match=r"model\.pool is 'cls' in a cell, which has no place"):
        make_curve(study, lab.root)


def test_a_planned_study_has_the_seeds_of_its_plan_and_says_that_looks_do_not_count(lab):
    study = study_of(lab, seeds=3)
    more = [
        replace(one, overrides={**one.overrides, "seed_everything": n}, seed=n) for one in study.cells() for n in (3, 4)
    ]
    cells = [
        {
            "overrides": cell.overrides,
            "seed": cell.seed,
            "fingerprint": lab.run(cell, accuracy(cell), study="size").fingerprint,
        }
        for cell in {(str(cell.overrides)): cell for cell in [*study.cells(), *more]}.values()
    ]
    assert not any("planned looks" in note for note in make_curve(study, lab.root).notes)
    looks = Looks((0, 1, 2, 3, 4), (3, 5), study.sha256)
    (lab.root / "size" / "study.json").write_text(json.dumps({"cells": cells, "until_decided": looks.as_stored()}))
    curve = make_curve(study, lab.root)
    assert {tuple(point.values) for line in curve.lines["test_acc"] for point in line.points} == {(0, 1, 2, 3, 4)}
    assert any(note.startswith("seeds were added at planned looks") for note in curve.notes)
