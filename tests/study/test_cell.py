import json

import pytest

from vitexp.study.cells import make_cells, varying

POINTS = [
    {
        "model": {"pos_embed": word, "head": {"bias": 0.0}},
        "data.train_images": 100,
        "seed_everything": seed,
        "study.name": "s",
    }
    for word in ("none", "1d")
    for seed in (3, 4)
]


def test_a_cell_keeps_its_arguments_and_flattens_them():
    cell = make_cells(POINTS)[2]
    assert json.loads(cell.args_json) == POINTS[2]
    expected = {"model.pos_embed": "1d", "model.head.bias": 0.0, "data.train_images": 100, "seed_everything": 3}
    assert cell.overrides == expected
    assert (cell.index, cell.seed) == (2, 3)


def test_labels_name_only_what_varies():
    assert [cell.label for cell in make_cells(POINTS)][1:3] == ["pos_embed=none seed=4", "pos_embed=1d seed=3"]
    assert make_cells(POINTS[:1])[0].label == "the only cell"


def test_short_names_stay_different():
    points = [{"model.size": a, "data.size": b, "data.name": a} for a, b in ((1, 2), (3, 4))]
    assert make_cells(points)[1].label == "name=3 data.size=4 model.size=3"
    deep = [{"model": {"head": {"size": a}, "stem": {"size": b}}} for a, b in ((1, 2), (3, 4))]
    assert make_cells(deep)[1].label == "head.size=3 stem.size=4"


def test_true_is_not_one_and_absent_is_not_null():
    assert varying([{"a": 1, "b": None, "c": 1}, {"a": True, "c": 1}]) == ("a", "b")


def test_a_key_that_two_parameters_set_is_refused():
    with pytest.raises(ValueError, match=r"two parameters set model\.lr"):
        make_cells([{"model": {"lr": 0.1}, "model.lr": 0.2}])


def test_an_arm_sets_options_of_several_groups_at_once():
    points = [
        {"arm": {"model.arch": arch, "trainer.max_epochs": epochs}, "a.b": 1} for arch, epochs in (("B", 7), ("L", 14))
    ]
    cells = make_cells(points)
    assert [cell.overrides for cell in cells] == [
        {"model.arch": "B", "trainer.max_epochs": 7, "a.b": 1},
        {"model.arch": "L", "trainer.max_epochs": 14, "a.b": 1},
    ]
    assert json.loads(cells[1].args_json) == points[1]
    assert cells[1].label == "arch=L max_epochs=14"
    with pytest.raises(ValueError, match=r"two parameters set a\.b"):
        make_cells([{"arm": {"a.b": 1}, "a.b": 2}])
    with pytest.raises(ValueError, match=r"arm is 'B/16'; give a mapping of dotted keys"):
        make_cells([{"arm": "B/16"}])
