from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as reference

from vitexp import stats
from vitexp.study.comparison import Comparisons
from vitexp.study.table import make_table


def arm_values(filled, kind, at, metric):
    """The values of an arm straight from its cells, without any record."""
    return np.array([
        filled.metrics_of(cell)[metric]
        for cell in sorted(filled.study.cells(), key=lambda cell: cell.seed)
        if (cell.overrides["model.pos_embed"], cell.overrides["model.pos_at"]) == (kind, at)
    ])  # fmt: skip


def entry(table, metric, kind, at):
    return table.at(metric, (("model.pos_embed", kind),), (("model.pos_at", at),))


def test_rows_and_columns_are_those_of_the_study_in_its_order(filled):
    table = make_table(filled.study, filled.root)
    assert [dict(row) for row in table.rows] == [{"model.pos_embed": word} for word in ("none", "1d", "2d", "relative")]
    assert [dict(column) for column in table.columns] == [
        {"model.pos_at": word} for word in ("stem", "every", "shared")
    ]
    assert entry(table, "test_acc", "none", "shared") is None
    assert len(table.arms) == 8


@pytest.mark.parametrize("metric", ["test_acc", "fewshot_5"])
def test_mean_and_interval_are_those_of_scipy(filled, metric):
    found = entry(make_table(filled.study, filled.root), metric, "2d", "every").interval
    values = arm_values(filled, "2d", "every", metric)
    low, high = reference.t.interval(0.95, 4, values.mean(), reference.sem(values))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 5), rel=1e-12)


def test_differences_are_paired_by_seed_and_judged_over_the_whole_table(filled):
    table = make_table(filled.study, filled.root)
    places = [(arm.factors["model.pos_embed"], arm.factors["model.pos_at"]) for arm in table.arms]
    metrics = ("test_acc", "fewshot_5")
    samples = {
        (metric, *at): stats.Sample(values=dict(enumerate(map(float, arm_values(filled, *at, metric)))), pool=metric)
        for metric in metrics
        for at in places
    }
    base = {metric: samples[metric, "1d", "stem"] for metric in metrics}
    family = {
        key: stats.Asked(contrast=stats.Contrast(weights={sample: 1.0, base[key[0]]: -1.0}), margin=0.01)
        for key, sample in samples.items()
        if key[1:] != ("1d", "stem")
    }
    assert table.comparisons == len(family) == 14
    for key, wanted in stats.judge(family, images=False).items():
        found = entry(table, *key).judgement
        differences = arm_values(filled, *key[1:], key[0]) - arm_values(filled, "1d", "stem", key[0])
        assert (found.mean, found.sd) == pytest.approx((differences.mean(), differences.std(ddof=1)))
        numbers = ("low", "high", "p", "p_adjusted", "p_equivalence")
        assert [getattr(found, n) for n in numbers] == pytest.approx([getattr(wanted, n) for n in numbers], rel=0.05)
        assert found.verdict == wanted.verdict


def test_metrics_that_are_not_primary_are_families_of_their_own(lab, filled):
    study = lab.positions(**{"study.name": "one", "study.primary": ["test_acc"]})
    lab.fill(study, filled.metrics_of)
    table, whole = make_table(study, lab.root), make_table(filled.study, filled.root)
    assert (table.comparisons, whole.comparisons) == (7, 14)
    for metric in ("test_acc", "fewshot_5"):
        alone, both = (entry(one, metric, "2d", "every").judgement for one in (table, whole))
        assert alone.p == pytest.approx(both.p)
        assert alone.high - alone.low < both.high - both.low


def test_the_verdicts_are_in_words(filled):
    table = make_table(filled.study, filled.root)
    assert entry(table, "test_acc", "none", "stem").judgement.verdict == "worse"
    assert entry(table, "test_acc", "2d", "stem").judgement.verdict == "equivalent within 0.01"
    assert entry(table, "test_acc", "1d", "stem").judgement is None
    assert entry(table, "test_acc", "1d", "stem").is_baseline
    assert not entry(table, "test_acc", "2d", "stem").is_baseline


def test_under_three_seeds_there_is_not_enough_evidence(lab, filled):
    study = lab.positions(seeds=2, **{"study.name": "two"})
    lab.fill(study, filled.metrics_of)
    verdicts = {e.judgement.verdict for e in make_table(study, lab.root).entries["test_acc"] if e.judgement}
    assert verdicts == {"not enough evidence"}


def test_losses_have_no_margin_and_small_is_good(lab):
    settings = {"study.name": "s", "study.metrics": ["test_acc", "test_loss"], "study.margin": 0.5}
    study = lab.study(
        {**settings, "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]},
    )
    lost = {"cls": [0.50, 0.51, 0.53], "gap": [0.40, 0.42, 0.43]}
    lab.fill(study, lambda cell: {"test_acc": 0.9, "test_loss": lost[cell.overrides["model.pool"]][cell.seed]})
    table = make_table(study, lab.root)
    judgement = table.entries["test_loss"][1].judgement
    assert judgement.mean == pytest.approx(np.mean(lost["gap"]) - np.mean(lost["cls"]))
    assert (judgement.verdict, judgement.p_equivalence) == ("better", None)


def test_a_partial_baseline_compares_within_the_other_factors(lab):
    swept = {"model.pool": ["cls", "gap"], "data.train_images": [100, 200], "seed_everything": [0, 1, 2]}
    study = lab.study({"study.name": "s", "study.baseline": {"model.pool": "cls"}}, swept)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    arms = make_table(study, lab.root).arms
    comparisons = Comparisons(arms, study.config)
    pairs = [(arm.factors, comparisons.baseline_of(arm).factors) for arm in arms]
    assert all(base == {**own, "model.pool": "cls"} for own, base in pairs)
    assert Comparisons(arms, replace(study.config, baseline={})).baseline_of(arms[0]) is None


def test_pairing_uses_common_seeds_alone_and_says_what_is_missing(lab, filled):
    kept = [
        cell for cell in filled.study.cells() if not (cell.overrides["model.pos_embed"] == "none" and cell.seed < 2)
    ]
    for cell in kept:
        lab.run(cell, filled.metrics_of(cell))
    table = make_table(filled.study, lab.root)
    none = entry(table, "test_acc", "none", "stem")
    assert none.interval.n == 3
    assert none.judgement.seeds == (2, 3, 4)
    assert table.notes == ("38 of 40 runs are finished; pos_at=stem pos_embed=none: seeds 0, 1 not run",)


def test_an_arm_without_runs_stays_in_the_table_empty(lab, filled):
    study = lab.positions(**{"study.name": "gaps"})
    for cell in study.cells():
        if cell.overrides["model.pos_embed"] != "relative":
            lab.run(cell, filled.metrics_of(cell), study="gaps")
    empty = entry(make_table(study, lab.root), "test_acc", "relative", "stem")
    assert (empty.interval, empty.judgement, empty.values) == (None, None, {})
    assert not empty.is_baseline


def test_a_metric_that_is_not_finite_or_not_held_is_left_out_and_told(lab, filled):
    study = lab.positions(**{"study.name": "nan"})
    for cell in study.cells():
        values = filled.metrics_of(cell)
        if cell.seed == 0:
            values["test_acc"] = float("nan")
        lab.run(cell, values, study="nan")
    table = make_table(study, lab.root)
    assert {e.interval.n for e in table.entries["test_acc"]} == {4}
    assert "finished runs without a finite test_acc: 8" in table.notes


def test_runs_that_did_not_train_are_not_said_to_lack_a_metric(lab, filled):
    study = lab.positions(**{"study.name": "lost"})
    lost = {"train_loss_start": 2.3, "train_loss_end": 2.31}
    for cell in study.cells():
        lab.run(cell, filled.metrics_of(cell), study="lost", learning=lost if cell.seed == 1 else {})
    table = make_table(study, lab.root)
    assert {e.interval.n for e in table.entries["test_acc"]} == {4}
    assert not [text for text in table.notes if "finite" in text]


def test_no_run_at_all_and_a_metric_nobody_holds_are_refused(lab, filled):
    with pytest.raises(ValueError, match=r"holds no finished run of .*never\.yaml; run `vitexp sweep"):
        make_table(lab.positions(**{"study.name": "never"}), lab.root)
    study = lab.positions(**{"study.metrics": ["test_f1"]})
    with pytest.raises(ValueError, match=r"no run in .*pos holds test_f1; they hold fewshot_5, test_acc, val_acc"):
        make_table(study, filled.root)
    study = lab.positions(**{"study.metrics": ["test_acc", "robust/fog_3"]})
    with pytest.raises(ValueError, match=r"holds robust/fog_3; `vitexp robustness .*\.yaml` measures it"):
        make_table(study, filled.root)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_finite_nowhere_is_refused_and_not_said_to_be_absent(lab, value):
    study = lab.positions(**{"study.metrics": ["test_acc", "test_ece"]})
    for cell in study.cells():
        lab.run(cell, {"test_acc": 0.9, "test_ece": value})
    with pytest.raises(ValueError, match="holds test_ece as a finite number; take it out"):
        make_table(study, lab.root)


def test_a_metric_without_a_known_direction_is_shown_and_not_judged(lab, filled):
    study = lab.positions(**{"study.name": "f1", "study.metrics": ["test_f1", "test_acc"]})
    lab.fill(study, lambda cell: {**filled.metrics_of(cell), "test_f1": 0.5})
    table = make_table(study, lab.root)
    assert {entry.interval.mean for entry in table.entries["test_f1"]} == {0.5}
    assert {entry.judgement for entry in table.entries["test_f1"]} == {None}
    alone = make_table(lab.positions(**{"study.name": "f1", "study.metrics": ["test_acc"]}), lab.root)
    assert [e.judgement for e in table.entries["test_acc"]] == [e.judgement for e in alone.entries["test_acc"]]
    (note,) = [note for note in table.notes if "test_f1" in note]
    assert note.startswith("test_f1 is shown and not judged: a metric of the study is test_f1, which is not")


def test_the_intervals_of_the_primary_metrics_do_not_depend_on_what_else_is_shown_where(lab, filled):
    tables = []
    for metrics in (["test_acc", "fewshot_5"], ["val_acc", "fewshot_5", "test_acc"]):
        study = lab.positions(**{"study.metrics": metrics, "study.primary": ["test_acc", "fewshot_5"]})
        lab.fill(study, filled.metrics_of)
        tables.append(make_table(study, lab.root))
    for metric in ("test_acc", "fewshot_5"):
        one, other = ([entry.judgement for entry in table.entries[metric]] for table in tables)
        assert any(one)
        assert one == other
