import pytest

from vitexp.study.lines import lines_key

ARCHS = ["S/32", "S/16", "B/32", "B/16"]
LINES = {"Small": ["S/32", "S/16"], "Large": ["B/32", "B/16"]}
SETTINGS = {"study.name": "c", "study.x": "train_flops", "study.baseline": {"model.arch": "S/32"}}


def study_of(lab, swept=None, **settings):
    swept = {"model.arch": ARCHS, "seed_everything": [0, 1, 2]} | (swept or {})
    return lab.study({key: value for key, value in (SETTINGS | settings).items() if value is not None}, swept)


@pytest.mark.parametrize("x", ["train_flops", "relative_flops", "parameters", "train_seconds"])
def test_what_the_runs_measured_may_be_the_axis(lab, x):
    study = study_of(lab, **{"study.x": x, "study.lines": LINES})
    assert (study.config.x, study.config.lines) == (x, LINES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"study.x": None, "study.lines": LINES}, "study.lines has no effect beside study.x ''"),
        ({"study.x": "model.arch", "study.lines": LINES}, "study.lines has no effect beside study.x 'model.arch'"),
        ({"study.x": "flops"}, "study.x names flops, which no parameter sets"),
        ({"study.x": "flops"}, "or a cost, which the runs record: train_flops, relative_flops"),
        ({"study.x": "relative_flops", "study.baseline": None}, "name it with study.baseline"),
        (
            {"study.lines": {**LINES, "X": ["S/32", "H/14"]}},
            "has H/14 in X, which is no value of model.arch",
        ),
        ({"study.lines": {**LINES, "X": ["S/32", "S/32"]}}, "study.lines names S/32 twice in X"),
        ({"study.lines": {**LINES, "X": ["S/32"]}}, "study.lines gives X a single arm, S/32"),
        ({"study.lines": {"Small": ["S/32", "S/16"]}}, "study.lines has no place for B/32, a value of model.arch"),
        ({"study.lines": {"Small": "S/32"}}, "study.lines.Small is 'S/32', which is not a list"),
        ({"study.lines": {"Small": []}}, "has Small without a value"),
        ({"study.lines": ["S/32"]}, "which is not a mapping"),
    ],
)
def test_what_would_have_no_effect_or_no_place_is_refused_in_a_sentence(lab, settings, words):
    with pytest.raises(ValueError, match="study") as refused:
        study_of(lab, **settings)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_arm_needs_a_baseline_to_be_relative_to(lab):
    pairs = [{"arch": "S/32", "pool": "cls"}, {"arch": "B/32", "pool": "gap"}]
    with pytest.raises(ValueError, match=r"no baseline for \{'model.arch': 'B/32', 'model.pool': 'gap'\}"):
        lab.study({**SETTINGS, "study.x": "relative_flops"}, {"model": pairs, "seed_everything": [0]})
    whole = {"model.arch": "S/32", "model.pool": "cls"}
    settings = {**SETTINGS, "study.x": "relative_flops", "study.baseline": whole}
    assert lab.study(settings, {"model": pairs, "seed_everything": [0]}).config.x == "relative_flops"


def test_what_is_tuned_tells_no_arms_apart(lab):
    pairs = [{"arch": "S/32", "lr": 0.001}, {"arch": "B/32", "lr": 0.003}]
    settings = {**SETTINGS, "study.x": "relative_flops", "study.tune": ["model.lr"]}
    assert lab.study(settings, {"model": pairs, "seed_everything": [0]}).config.tune == ["model.lr"]


def test_a_single_value_with_several_arms_makes_a_line(lab):
    kinds = {"Full": ["full"], "Axial": ["axial"]}
    swept = {"model.arch": ["B/32", "B/16"], "model.attention": ["full", "axial"]}
    settings = {"study.lines": kinds, "study.baseline": {"model.attention": "full"}}
    study = study_of(lab, swept, **settings)
    assert lines_key(study.config.lines, [cell.overrides for cell in study.cells()]) == "model.attention"
