import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitexp import stats
from vitexp.record import read_records
from vitexp.report.claims_text import contrast_words, footnotes
from vitexp.study.claims.verdicts import CONTRADICT, DIFFER, SUPPORT, UNDECIDED, judge_claims, read_verdicts, verdict_of
from vitexp.study.select import Runs
from vitexp.study.sequence import Looks
from vitexp.study.table import make_table

RATES = [0.0003, 0.001, 0.003, 0.01]
SEEDS = [0, 1, 2, 3, 4]
SHAPE = np.array([-1.0, 0.5, 0.0, -0.5, 1.0])  # what the seeds have in common
NOISE = {"none": [2, -1, 0, 1, -2], "1d": [0, 1, -2, 1, 0], "2d": [1, -1, 1, 0, -1], "relative": [-1, 2, 0, -1, 0]}


def accuracies(level, kind, spread=0.001):
    return level + 0.01 * SHAPE + spread * np.array(NOISE[kind])


def fill(lab, levels, *, settings=None, fixed=None, spread=0.001, seeds=SEEDS):
    """A study of position embeddings whose arms have these mean accuracies."""
    named = {"study.name": "kinds", "study.metrics": ["test_acc"], **(settings or {})}
    study = lab.study(named, {"model.pos_embed": list(levels), "seed_everything": list(seeds)}, fixed)
    values = {kind: accuracies(level, kind, spread) for kind, level in levels.items()}
    for cell in study.cells():
        value = float(values[cell.overrides["model.pos_embed"]][cell.seed])
        lab.run(cell, {"test_acc": value, "val_acc": value}, study=study.name)
    return study, values


def lines_of(study, lab, claim):
    return [line for line in read_verdicts(study, lab.root) if line.claim.name == claim]


def test_the_contrasts_of_a_claim_are_judged_as_one_family(lab):
    levels = {"none": 0.80, "1d": 0.90, "2d": 0.898, "relative": 0.895}
    study, values = fill(lab, levels, settings={"study.margin": 0.01})
    (line,) = lines_of(study, lab, "kinds alike")
    pairs = [(one.contrast.one, one.contrast.other) for one in line.judged]
    assert pairs == [("2d", "1d"), ("relative", "1d"), ("relative", "2d")]
    samples = {kind: stats.Sample(values=dict(enumerate(map(float, held)))) for kind, held in values.items()}
    family = {
        pair: stats.Asked(contrast=stats.Contrast(weights={samples[pair[0]]: 1.0, samples[pair[1]]: -1.0}), margin=0.01)
        for pair in pairs
    }
    expected = stats.judge(family, images=False)
    for one, pair in zip(line.judged, pairs, strict=True):
        differences = values[pair[0]] - values[pair[1]]
        assert (one.judgement.mean, one.judgement.sd) == pytest.approx((differences.mean(), differences.std(ddof=1)))
        numbers = ("low", "high", "p", "p_adjusted", "p_equivalence")
        found, wanted = ([getattr(judged, name) for name in numbers] for judged in (one.judgement, expected[pair]))
        assert found == pytest.approx(wanted)
    assert {len(line.runs), line.judged[0].judgement.n} == {15, 5}


@pytest.mark.parametrize(
    ("levels", "margin", "worse", "alike"),
    [
        ({"none": 0.80, "1d": 0.90, "2d": 0.899}, 0.01, SUPPORT, SUPPORT),
        ({"none": 0.95, "1d": 0.90, "2d": 0.88}, 0.01, DIFFER, DIFFER),
        ({"none": 0.80, "1d": 0.90, "2d": 0.899}, None, SUPPORT, UNDECIDED),
        ({"none": 0.9, "1d": 0.9, "2d": 0.9}, 0.02, DIFFER, SUPPORT),
        ({"none": 0.9, "1d": 0.9, "2d": 0.9}, 0.0001, UNDECIDED, UNDECIDED),
        ({"none": 0.80, "1d": 0.90, "2d": 0.80}, 0.001, UNDECIDED, DIFFER),
    ],
)
def test_a_claim_stands_with_all_of_its_contrasts_and_falls_with_any(lab, levels, margin, worse, alike):
    study, _ = fill(lab, levels, settings={"study.margin": margin} if margin else {})
    (first,) = lines_of(study, lab, "no positions")
    (second,) = lines_of(study, lab, "kinds alike")
    assert (first.verdict, second.verdict) == (worse, alike)
    assert first.finding.absent == ("relative",)


def difference(mean, sd, n=5):
    base = np.linspace(-1, 1, n) / np.std(np.linspace(-1, 1, n), ddof=1)
    sample = stats.Sample(values=dict(enumerate(map(float, mean + sd * base))))
    return stats.Asked(contrast=stats.Contrast(weights={sample: 1.0}), margin=0.02)


@pytest.mark.parametrize(
    ("mean", "sd", "n", "lower", "higher", "alike"),
    [
        (-0.05, 0.01, 5, SUPPORT, CONTRADICT, CONTRADICT),
        (0.05, 0.01, 5, CONTRADICT, SUPPORT, CONTRADICT),
        (0.001, 0.05, 5, UNDECIDED, UNDECIDED, UNDECIDED),
        (0.001, 0.005, 5, CONTRADICT, CONTRADICT, SUPPORT),
        (-0.005, 0.001, 5, SUPPORT, CONTRADICT, SUPPORT),
        (-0.05, 0.01, 2, UNDECIDED, UNDECIDED, UNDECIDED),
    ],
)
def test_one_contrast_speaks_in_the_direction_in_which_it_is_shown(mean, sd, n, lower, higher, alike):
    judged = stats.judge({"one": difference(mean, sd, n)}, images=False)["one"]
    assert [verdict_of(expected, judged, 0.02) for expected in ("lower", "higher", "alike")] == [lower, higher, alike]


def test_two_seeds_decide_nothing(lab):
    study, _ = fill(lab, {"none": 0.5, "1d": 0.9}, seeds=[0, 1])
    (line,) = lines_of(study, lab, "no positions")
    assert line.verdict == UNDECIDED


def test_every_size_gives_a_line_of_its_own_and_all_are_one_family(lab):
    swept = {"model.pos_embed": ["none", "1d"], "data.train_images": [100, 200], "seed_everything": SEEDS}
    study = lab.study({"study.name": "sizes"}, swept)
    for cell in study.cells():
        kind, size = cell.overrides["model.pos_embed"], cell.overrides["data.train_images"]
        level = {("none", 100): 0.8, ("1d", 100): 0.802, ("none", 200): 0.8, ("1d", 200): 0.9}[kind, size]
        lab.run(cell, {"test_acc": accuracies(level, kind, 0.002)[cell.seed]}, study="sizes")
    small, large = lines_of(study, lab, "no positions")
    assert (dict(small.finding.context), dict(large.finding.context)) == (
        {"data.train_images": 100}, {"data.train_images": 200},
    )  # fmt: skip
    assert (small.verdict, large.verdict) == (UNDECIDED, SUPPORT)
    for line in (small, large):  # two independent comparisons: Šidák
        judged = line.judged[0].judgement
        assert judged.p_adjusted == pytest.approx(1 - (1 - judged.p) ** 2, rel=0.05)


def pooled(lab, rates, tune=("model.lr",), missing=()):
    settings = {"study.name": "pool", "study.margin": 0.02, "study.tune": list(tune)}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "model.lr": rates, "seed_everything": SEEDS})
    for cell in study.cells():
        pool, rate = cell.overrides["model.pool"], cell.overrides["model.lr"]
        if (pool, rate, cell.seed) in missing:
            continue
        best = {"cls": 0.003, "gap": 0.001}[pool] == rate
        measured = float(accuracies(0.9 if best else 0.7, "1d" if pool == "cls" else "2d")[cell.seed])
        block = {key.removeprefix("study."): value for key, value in settings.items()}
        lab.run(cell, {"test_acc": measured, "val_acc": measured}, study="pool", config={"study": block})
    return study


def test_readouts_are_compared_at_the_rate_that_each_has_chosen(lab):
    (line,) = lines_of(pooled(lab, RATES), lab, "readouts alike")
    assert line.verdict == SUPPORT
    assert [dict(arm.tuned) for arm in line.finding.arms] == [{"model.lr": 0.003}, {"model.lr": 0.001}]
    assert [arm.tuning_runs for arm in line.finding.arms] == [20, 20]


def test_without_tuning_readouts_are_not_judged(lab):
    lines = lines_of(pooled(lab, RATES, tune=()), lab, "readouts alike")
    assert {line.verdict for line in lines} == {UNDECIDED}
    assert all("not tuned in each arm" in line.objection for line in lines)


def test_unequal_tuning_budgets_are_not_judged(lab):
    (line,) = lines_of(pooled(lab, RATES, missing={("gap", 0.003, 4)}), lab, "readouts alike")
    assert (line.verdict, line.objection) == (UNDECIDED, "the arms were tuned on unequal numbers of runs (19, 20)")


def test_runs_that_were_read_elsewhere_speak_too(lab):
    study, _ = fill(lab, {"none": 0.8, "1d": 0.9})
    runs = Runs(location="the W&B sweep a/b/c", records=tuple(read_records(lab.root)[0]))
    (line,) = judge_claims(root=lab.folder / "nothing", read=[(study, runs)]).verdicts
    assert (line.selection.location, line.verdict, line.path_of(line.runs[0])) == (
        runs.location,
        SUPPORT,
        runs.location,
    )
    (here,) = judge_claims(root=lab.root).verdicts
    assert [one.judgement for one in line.judged] == [one.judgement for one in here.judged]


def test_a_study_that_is_named_twice_counts_once(lab, monkeypatch):
    study, _ = fill(lab, {"none": 0.8, "1d": 0.9})
    monkeypatch.chdir(lab.folder)
    assert judge_claims([study.path, "runs", lab.root / "kinds"], "runs").studies == ("kinds",)


def test_all_studies_below_the_root_are_read_and_a_damaged_one_is_left_out_by_name(lab):
    fill(lab, {"none": 0.8, "1d": 0.9})
    pooled(lab, RATES)
    (lab.root / "broken" / "cell" / "seed-0").mkdir(parents=True)
    (lab.root / "broken" / "cell" / "seed-0" / "record.json").write_text("{")
    claims_report = judge_claims(root=lab.root)
    assert claims_report.studies == ("kinds", "pool")
    assert [line.claim.name for line in claims_report.verdicts] == ["no positions", "readouts alike"]
    assert len(claims_report.unread) == 1
    assert "broken" in claims_report.unread[0]


def test_a_study_without_a_claim_is_named(lab):
    study = lab.study({"study.name": "rates"}, {"model.dropout": [0.0, 0.1], "seed_everything": SEEDS})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    claims_report = judge_claims(root=lab.root)
    assert (claims_report.verdicts, claims_report.untouched) == ((), ("rates",))


def test_where_there_is_nothing_it_says_so(lab):
    with pytest.raises(ValueError, match="holds no run; run a study first"):
        judge_claims(root=lab.root)
    study = lab.study({"study.name": "s"}, {"model.pos_embed": ["none", "1d"], "seed_everything": SEEDS})
    with pytest.raises(ValueError, match="holds no finished run"):
        judge_claims([study.path], lab.root)


@pytest.fixture
def with_looks(lab):
    """A study whose file has three seeds and whose plan had looks after 3 and 5: `none` was decided at the first."""
    levels, seeds = {"none": 0.80, "1d": 0.90, "2d": 0.8973}, {"none": [0, 1, 2]}
    study, values = fill(lab, levels, settings={"study.baseline": {"model.pos_embed": "1d"}}, seeds=[0, 1, 2])
    cells = []
    for cell in {cell.overrides["model.pos_embed"]: cell for cell in study.cells()}.values():
        kind = cell.overrides["model.pos_embed"]
        for seed in seeds.get(kind, SEEDS):
            value = float(values[kind][seed])
            one = replace(cell, overrides={**cell.overrides, "seed_everything": seed}, seed=seed)
            record = lab.run(one, {"test_acc": value, "val_acc": value}, study="kinds")
            cells.append({"overrides": one.overrides, "seed": seed, "fingerprint": record.fingerprint})
    looks = Looks(tuple(SEEDS), (3, 5), study.sha256)
    (lab.root / "kinds" / "study.json").write_text(json.dumps({"cells": cells, "until_decided": looks.as_stored()}))
    return study


def test_a_planned_study_is_judged_by_its_looks_as_its_table_is(lab, with_looks):
    (worse,), (alike,) = (lines_of(with_looks, lab, name) for name in ("no positions", "kinds alike"))
    entries = {one.arm.factors["model.pos_embed"]: one for one in make_table(with_looks, lab.root).entries["test_acc"]}
    (at_first,) = (one.judgement for one in worse.judged if one.contrast.other == "1d")
    assert (at_first.n, entries["none"].judgement.n) == (3, 3)
    (at_last,) = (one.judgement for one in alike.judged)
    assert (at_last.n, entries["2d"].judgement.n) == (5, 5)
    # the last look has 0.032 of the 5 %, so its interval is wider than that of five seeds that nobody looked at
    assert at_last.p_adjusted < 0.05
    assert not at_last.is_different


def test_without_the_seeds_of_the_first_look_nothing_is_decided(lab, with_looks):
    for record in read_records(lab.root / "kinds")[0]:
        if record.seed == 0 and record.config["model"]["pos_embed"] == "2d":
            Path(record.directory, "record.json").unlink()
    (line,) = lines_of(with_looks, lab, "kinds alike")
    assert (line.verdict, line.judged[0].judgement.n) == (UNDECIDED, 4)
    assert line.objection == "the seeds of the first planned look are not all there"


def test_a_claim_says_where_the_table_shows_something_else(lab, monkeypatch):
    """The only contrast of a claim is one of three comparisons of the table."""
    monkeypatch.setitem(NOISE, "sincos2d", [3, -2, 1, 0, -2])
    levels = {"none": 0.80, "1d": 0.90, "sincos2d": 0.90, "relative": 0.9075}
    study, _ = fill(lab, levels, settings={"study.baseline": {"model.pos_embed": "1d"}}, spread=0.003)
    (alike,), (none,) = (lines_of(study, lab, name) for name in ("kinds alike", "no positions"))
    (one,) = alike.judged
    entries = {one.arm.factors["model.pos_embed"]: one for one in make_table(study, lab.root).entries["test_acc"]}
    assert one.in_table.low == pytest.approx(entries["relative"].judgement.low)
    assert one.judgement.is_different
    assert not one.in_table.is_different
    assert contrast_words(alike, one)[2].endswith(", table: no difference shown")
    report = judge_claims([study.path], lab.root)
    assert any(note.startswith("Table: what the table") for note in footnotes(report))
    same, unpaired = none.judged  # none - 1-D, which both show, and none - relative, which the table does not compare
    assert (same.in_table.is_different, unpaired.in_table) == (True, None)
    assert not [word for pair in none.judged for word in contrast_words(none, pair) if "table" in word]
