"""Answers to single images: from the bits beside real records to the statistics of a table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vitexp import stats
from vitexp.bits import write_answers
from vitexp.record import read_records, write_record
from vitexp.report import claims_text
from vitexp.report.curve_text import curve_view
from vitexp.study.claims.verdicts import judge_claims
from vitexp.study.curve import make_curve
from vitexp.study.samples import read_answers, sample_of
from vitexp.study.select import select
from vitexp.study.table import make_table

IMAGES, SEEDS = 60, [0, 1, 2, 3]


def answers_of(pool, seed, metric, draw=0):
    """Which of the images a run gets right: hard images are hard for every run."""
    hard = np.linspace(-1, 3, IMAGES)
    noise = np.random.default_rng([seed, pool == "gap", metric == "test_acc", draw]).normal(size=IMAGES)
    return hard + 0.7 * noise > 0


def written(lab, study, order=lambda pool: "the test images", spoil=lambda *_: None, **facts):
    """Records with their answers: one set of bits for the test accuracy, two draws for the probe."""
    for cell in study.cells():
        pool = cell.overrides["model.pool"]
        bits = {"test_acc": answers_of(pool, cell.seed, "test_acc")}
        bits |= {f"fewshot_5/draw-{draw}": answers_of(pool, cell.seed, "fewshot_5", draw) for draw in (0, 1)}
        probe = float(np.mean([bits["fewshot_5/draw-0"], bits["fewshot_5/draw-1"]]))
        metrics = {"test_acc": float(bits["test_acc"].mean()), "fewshot_5": probe}
        folder = lab.root / study.name / pool / f"seed-{cell.seed}"
        entries = {}
        for name, right in bits.items():
            entries |= write_answers(folder, name, right.tolist(), order(pool))
        lab.run(cell, metrics, study=study.name, folder=folder, answers=entries, **facts)
        spoil(pool, cell.seed, folder)


@pytest.fixture
def study(lab):
    settings = {"study.name": "s", "study.metrics": ["test_acc", "fewshot_5"], "study.baseline": {"model.pool": "cls"}}
    return lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": SEEDS})


def entry(table, metric, pool):
    (found,) = [one for one in table.entries[metric] if one.arm.factors["model.pool"] == pool]
    return found


def by_anova(table):
    """Of seeds, images and the rest: the textbook's components of variance, by sums of squares over every cell."""
    n, m = table.shape
    grand = table.mean()
    of_seeds = m * sum((row.mean() - grand) ** 2 for row in table) / (n - 1)
    of_images = n * sum((column.mean() - grand) ** 2 for column in table.T) / (m - 1)
    left = sum(
        (table[i, j] - table[i].mean() - table[:, j].mean() + grand) ** 2 for i in range(n) for j in range(m)
    ) / ((n - 1) * (m - 1))
    return (of_seeds - left) / m, max(0.0, (of_images - left) / n), left


def test_the_interval_of_a_level_takes_in_seeds_and_images(lab, study):
    written(lab, study)
    found = entry(make_table(study, lab.root), "test_acc", "gap").interval
    table = np.array([answers_of("gap", seed, "test_acc") for seed in SEEDS], dtype=float)
    seeds, images, left = by_anova(table)
    of_seeds = (seeds + left / IMAGES) / len(SEEDS)
    variance = of_seeds + images / IMAGES
    df = variance**2 / (of_seeds**2 / (len(SEEDS) - 1) + (images / IMAGES) ** 2 / (IMAGES - 1))
    half = stats.samples.quantile(df) * variance**0.5
    assert (found.mean, found.high - found.mean, found.images) == pytest.approx((table.mean(), half, IMAGES))


def test_these_images_alone_leave_student_s_interval(lab, study):
    settings = {"study.name": "s", "study.metrics": ["test_acc"], "study.images": "these"}
    these = lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": SEEDS})
    written(lab, these)
    found = entry(make_table(these, lab.root), "test_acc", "gap").interval
    values = [float(answers_of("gap", seed, "test_acc").mean()) for seed in SEEDS]
    expected = stats.interval(values)
    assert (found.low, found.high, found.images) == (pytest.approx(expected.low), pytest.approx(expected.high), 0)


def test_a_probe_s_answers_are_the_mean_over_its_draws(lab, study):
    written(lab, study)
    sample = entry(make_table(study, lab.root), "fewshot_5", "cls").sample
    both = [answers_of("cls", 2, "fewshot_5", draw) for draw in (0, 1)]
    assert sample.answers[2][0] == pytest.approx(np.mean(both, axis=0))
    assert set(sample.answers[2][0]) == {0.0, 0.5, 1.0}


def test_the_images_part_of_a_difference_is_that_of_the_paired_answers(lab, study):
    written(lab, study)
    found = entry(make_table(study, lab.root), "test_acc", "gap").judgement
    tables = [np.array([answers_of(pool, s, "test_acc") for s in SEEDS], dtype=float) for pool in ("gap", "cls")]
    _, images, left = by_anova(tables[0] - tables[1])
    assert found.variance.images == pytest.approx(images / IMAGES)
    assert found.variance.rest == pytest.approx(left / IMAGES / len(SEEDS))
    assert found.images == IMAGES


def damaged(pool, seed, folder):
    if (pool, seed) == ("gap", 1):
        (folder / "answers" / "test_acc.bits").write_bytes(b"\x00" * 8)


def test_without_sound_answers_on_both_sides_a_difference_is_about_seeds_alone(lab, study):
    written(lab, study, spoil=lambda pool, seed, folder: damaged(pool, seed, folder))
    judged = entry(make_table(study, lab.root), "test_acc", "gap").judgement
    assert (judged.images, judged.variance.images) == (0, 0.0)


def test_bits_that_are_not_behind_the_number_are_not_used(lab, study):
    written(lab, study)
    (arm, _) = select(study, lab.root).arms
    run = arm.runs[0]
    assert read_answers(run, "test_acc") is not None
    run.metrics["test_acc"] += 0.01
    with pytest.raises(ValueError, match="and the mean of its answers"):
        read_answers(run, "test_acc")


def test_records_without_bits_have_intervals_over_seeds_alone(lab, filled):
    arm = select(filled.study, filled.root).arms[0]
    sample = sample_of(arm, "test_acc")
    assert (dict(sample.answers), sample.has_answers) == ({}, False)
    assert sample_of(arm, "test_acc") is sample


def test_the_folder_of_a_record_is_known_when_it_is_read_and_never_written(lab, study, tmp_path):
    written(lab, study)
    records, _ = read_records(lab.root)
    assert {record.directory for record in records} == {str(path.parent) for path in lab.root.rglob("record.json")}
    written_again = write_record(records[0], tmp_path / "again")
    assert "directory" not in written_again.read_text()
    text = written_again.read_text().replace('"study"', '"directory": "/", "study"', 1)
    written_again.write_text(text)
    assert read_records(tmp_path / "again")[0][0].directory == str(tmp_path / "again")


def test_an_arm_of_which_some_runs_did_not_train_is_unstable(lab, study):
    for cell in study.cells():
        lost = (cell.overrides["model.pool"], cell.seed) == ("gap", 3)
        losses = {"train_loss_start": 2.31, "train_loss_end": 2.32 if lost else 0.5}
        value = 0.1 if lost else 0.9 + 0.01 * cell.seed
        lab.run(cell, {"test_acc": value, "fewshot_5": value}, study="s", learning=losses)
    table = make_table(study, lab.root)
    found = entry(table, "test_acc", "gap")
    assert (found.judgement.verdict, found.judgement.low) == ("unstable", None)
    assert (found.interval.n, found.interval.mean) == (3, pytest.approx(0.91))
    assert entry(table, "test_acc", "cls").interval.n == 4


def test_where_no_run_of_an_arm_trains_it_is_compared_as_it_is(lab, study):
    for cell in study.cells():
        lost = cell.overrides["model.pool"] == "gap"
        losses = {"train_loss_start": 2.31, "train_loss_end": 2.31 if lost else 0.5}
        value = 0.1 if lost else 0.9 + 0.01 * cell.seed
        lab.run(cell, {"test_acc": value, "fewshot_5": value}, study="s", learning=losses)
    found = entry(make_table(study, lab.root), "test_acc", "gap")
    assert (found.judgement.verdict, found.interval.n, found.sample.alone) == ("worse", 4, True)


def without(key):
    def change(pool, seed, folder):
        if (pool, seed) == ("gap", 1):
            path = folder / "record.json"
            record = json.loads(path.read_text())
            record["answers"]["test_acc"].pop(key)
            path.write_text(json.dumps(record))

    return change


def off(pool, seed, folder):
    if (pool, seed) == ("gap", 1):
        path = folder / "record.json"
        record = json.loads(path.read_text())
        record["metrics"]["test_acc"] += 0.001
        path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "test_acc.bits is damaged"),
        (without("order"), "the answers of test_acc do not say which images they are about"),
        (without("sha256"), "the entry of test_acc under answers"),
        (off, "and the mean of its answers"),
    ],
)
def test_answers_that_are_not_what_the_record_says_are_named_and_not_used(lab, study, spoil, why):
    written(lab, study, spoil=spoil)
    table = make_table(study, lab.root)
    (caution,) = [text for text in table.cautions if "answers to single images are unsound" in text]
    assert "pool=gap seed 1: " in caution
    assert why in caution
    assert not entry(table, "test_acc", "gap").sample.has_answers
    assert entry(table, "test_acc", "cls").sample.has_answers


def test_curves_and_claims_name_them_as_tables_do(lab):
    settings = {"study.name": "s", "study.metrics": ["test_acc"], "study.x": "train_flops"}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": SEEDS})
    written(lab, study, spoil=damaged, train_flops=1e9)
    curve, claims = make_curve(study, lab.root), judge_claims([study.path], lab.root)
    said = [curve.cautions, claims_text.cautions(claims), curve_view(curve).cautions]
    assert [sum("answers to single images are unsound" in text for text in texts) for texts in said] == [1, 1, 1]
    assert not make_curve(study, lab.root).points[1].sample.has_answers


def test_a_metric_in_float32_is_still_the_mean_of_its_bits(lab, study):
    written(lab, study)
    run = select(study, lab.root).arms[0].runs[0]
    run.metrics["test_acc"] = float(np.float32(run.metrics["test_acc"]))
    assert read_answers(run, "test_acc") is not None


def test_old_records_and_sound_ones_have_no_such_caution(lab, study, filled):
    written(lab, study)
    for table in (make_table(study, lab.root), make_table(filled.study, filled.root)):
        assert not [text for text in table.cautions if "unsound" in text]


def test_a_number_that_is_not_finite_does_not_spoil_the_answers_of_other_seeds(lab, study):
    def nan(pool, seed, folder):
        if (pool, seed) == ("gap", 1):
            record = json.loads((folder / "record.json").read_text())
            record["metrics"]["test_acc"] = float("nan")
            (folder / "record.json").write_text(json.dumps(record))

    written(lab, study, spoil=nan)
    table = make_table(study, lab.root)
    assert entry(table, "test_acc", "gap").interval.images == IMAGES
    assert not [text for text in table.cautions if "unsound" in text]


@pytest.mark.parametrize("about", ["such", "these"])
def test_an_arm_that_was_measured_on_other_images_is_not_compared(lab, study, about):
    written(lab, study, order=lambda pool: f"images of {pool}")
    table = make_table(replace(study, config=replace(study.config, images=about)), lab.root)
    found = entry(table, "test_acc", "gap")
    assert found.judgement is None
    assert found.left_out == "not measured on the baseline's images: test images {} and {}".format(
        *(f"images of {pool}"[:12] for pool in ("gap", "cls"))
    )
    assert any(found.left_out in note for note in table.notes)
