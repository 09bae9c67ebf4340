import numpy as np
import pytest
from scipy import stats as reference

from vitexp.report.tables import write_table
from vitexp.study.table import ALL, GROUP, make_table

SETTINGS = {
    "study.name": "suite",
    "study.baseline": {"model.pool": "cls"},
    "study.rows": ["data.shards"],
    "study.columns": ["model.pool"],
    "study.metrics": ["test_acc"],
}
GROUPS = {"natural": ["digits", "pets"], "structured": ["clevr"]}
SWEPT = {"data.shards": ["digits", "pets", "clevr"], "model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2, 3]}


def accuracy(name, pool, seed):
    """Any numbers, other ones for each cell."""
    draw = np.random.default_rng([len(name), ord(name[0]), len(pool), ord(pool[0]), seed])
    return 0.1 + 0.1 * len(name) + (0.02 if pool == "gap" else 0) + 0.01 * draw.normal()


@pytest.fixture
def study(lab):
    return lab.study(SETTINGS | {"study.groups": GROUPS}, SWEPT)


def fill(lab, study, without=()):
    for cell in study.cells():
        name, pool = cell.overrides["data.shards"], cell.overrides["model.pool"]
        if (name, pool, cell.seed) not in without:
            lab.run(
                cell,
                {"test_acc": accuracy(name, pool, cell.seed)},
                study="suite",
                data={"name": name},
                config={"data.content": f"of {name}"},
            )


def by_hand(names, pool, seeds=(0, 1, 2, 3)):
    return np.array([np.mean([accuracy(name, pool, seed) for name in names]) for seed in seeds])


def entry(table, group, pool):
    (found,) = [one for one in table.means["test_acc"] if one.arm.factors == {"model.pool": pool, GROUP: group}]
    return found


@pytest.mark.parametrize(
    ("group", "names"),
    [(ALL, ["digits", "pets", "clevr"]), ("natural", ["digits", "pets"]), ("structured", ["clevr"])],
)
def test_means_and_their_paired_differences_are_those_of_scipy(lab, study, group, names):
    fill(lab, study)
    table = make_table(study, lab.root)
    ours, base = by_hand(names, "gap"), by_hand(names, "cls")
    found = entry(table, group, "gap")
    low, high = reference.t.interval(0.95, 3, ours.mean(), reference.sem(ours))
    assert (found.interval.mean, found.interval.low, found.interval.high) == pytest.approx((ours.mean(), low, high))
    assert found.judgement.mean == pytest.approx((ours - base).mean())
    assert found.judgement.sd == pytest.approx((ours - base).std(ddof=1))
    assert found.judgement.p_adjusted > found.judgement.p
    assert entry(table, group, "cls").is_baseline


def test_a_mean_is_over_all_data_sets_of_its_group_or_there_is_none(lab, tmp_path):
    """With a baseline or without one, an arm that lacks a data set has no mean of the others."""
    arms = [{"data.shards": name, "model.pool": "cls"} for name in SWEPT["data.shards"]]
    arms += [{"data.shards": name, "model.pool": "gap"} for name in ("digits", "clevr")]
    settings = {key: value for key, value in SETTINGS.items() if key != "study.baseline"}
    study = lab.study(settings | {"study.groups": GROUPS}, {"arm": arms, "seed_everything": [0, 1, 2, 3]})
    fill(lab, study)
    table = make_table(study, lab.root)
    found = {(one.arm.factors["model.pool"], one.arm.factors[GROUP]) for one in table.means["test_acc"]}
    assert found == {("cls", ALL), ("cls", "natural"), ("cls", "structured"), ("gap", "structured")}
    text = write_table(study.path, lab.root, tmp_path).paths[0].read_text()
    assert "–" in text[text.index("Mean top-1") :]


def test_a_mean_with_an_unstable_arm_is_not_judged(lab, study):
    lost = {"train_loss_start": 2.3, "train_loss_end": 2.31}
    for cell in study.cells():
        name, pool = cell.overrides["data.shards"], cell.overrides["model.pool"]
        unstable = (name, pool) == ("clevr", "gap") and cell.seed == 0
        more = {"data": {"name": name}, "config": {"data.content": f"of {name}"}, "learning": lost if unstable else {}}
        lab.run(cell, {"test_acc": accuracy(name, pool, cell.seed)}, study="suite", **more)
    table = make_table(study, lab.root)
    verdicts = {group: entry(table, group, "gap").judgement.verdict for group in (ALL, "structured")}
    assert verdicts == {ALL: "unstable", "structured": "unstable"}
    assert entry(table, "natural", "gap").judgement.verdict != "unstable"


def test_group_means_are_in_the_family_of_comparisons(lab, study):
    fill(lab, study)
    assert make_table(study, lab.root).comparisons == 3 + 3


def test_a_seed_that_one_data_set_lacks_is_in_no_mean_with_it(lab, study):
    fill(lab, study, without=[("clevr", "gap", 2)])
    table = make_table(study, lab.root)
    assert sorted(entry(table, ALL, "gap").values) == [0, 1, 3]
    assert entry(table, ALL, "gap").interval.mean == pytest.approx(
        by_hand(["digits", "pets", "clevr"], "gap", (0, 1, 3)).mean()
    )
    assert sorted(entry(table, "natural", "gap").values) == [0, 1, 2, 3]


def test_a_study_without_groups_has_no_means(lab):
    study = lab.study(SETTINGS, SWEPT)
    fill(lab, study)
    assert not make_table(study, lab.root).means["test_acc"]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"natural": ["digits", "pets"]}, "no place for clevr"),
        ({"natural": ["digits", "pets", "clevr", "mars"]}, "has mars in natural, which is no value of data.shards"),
        ({"natural": ["digits", "pets"], "other": ["pets", "clevr"]}, "names pets twice"),
        ({"natural": "digits"}, "study.groups.natural is 'digits', which is not a list"),
        ({"natural": []}, "has natural without a value"),
    ],
)
def test_groups_hold_every_data_set_once(lab, groups, told):
    with pytest.raises(ValueError, match=told):
        lab.study(SETTINGS | {"study.groups": groups}, SWEPT)
