"""The table compares arms with their baseline only where one thing has changed, and names what it leaves out."""

import pytest

from vitexp.report.tidy import table as as_csv
from vitexp.report.view import make_view
from vitexp.study.curve import make_curve
from vitexp.study.table import make_table

SEEDS = [0, 1, 2]


def pools(lab, arms, settings=None, **given):
    named = {"study.name": "s", "study.baseline": {"model.pool": "cls"}, **(settings or {})}
    return lab.study(named, {"arm": arms, "seed_everything": SEEDS}, **given)


def value(cell):
    return {"test_acc": 0.8 + 0.01 * cell.seed + 0.001 * (cell.index % 4) + 0.02 * ("gap" in cell.overrides.values())}


def test_an_arm_that_changes_two_factors_at_once_is_not_compared(lab):
    arms = [{"model.pool": "cls", "data.batch_size": 64}, {"model.pool": "gap", "data.batch_size": 128}]
    study = pools(lab, arms, {"study.baseline": {"model.pool": "cls", "data.batch_size": 64}})
    lab.fill(study, value)
    table = make_table(study, lab.root)
    assert [entry.judgement for entry in table.entries["test_acc"]] == [None, None]
    assert table.comparisons == 0
    why = "differ in data.batch_size and model.pool at once"
    assert table.entries["test_acc"][1].left_out == why
    assert f"not compared: {why}" in as_csv(table)
    (caution,) = make_view(table).cautions
    assert caution.startswith("Caution: confounded, and so not compared with the baseline: batch_size=128 pool=gap (it")
    assert [cells[0].verdict for _, cells in make_view(table).sections[0].rows] == ["", "not compared"]


def test_factors_that_go_together_by_intention_are_compared(lab):
    arms = [{"model.pool": "cls", "model.lr": 0.1}, {"model.pool": "gap", "model.lr": 0.2}]
    baseline = {"model.pool": "cls", "model.lr": 0.1}
    together = {"study.baseline": baseline, "study.together": [["model.pool", "model.lr"]]}
    study = pools(lab, arms, together)
    lab.fill(study, value)
    assert make_table(study, lab.root).comparisons == 1


def test_a_full_factorial_is_compared_with_one_baseline(lab):
    swept = {"model.pool": ["cls", "gap"], "model.stem": ["patch", "root"], "seed_everything": SEEDS}
    study = lab.study({"study.name": "s", "study.baseline": {"model.pool": "cls", "model.stem": "patch"}}, swept)
    lab.fill(study, value)
    table = make_table(study, lab.root)
    assert (table.comparisons, table.cautions) == (3, ())


def test_a_setting_that_no_factor_names_bars_a_comparison_too(lab):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "data.train_images": [10, 20], "seed_everything": SEEDS},
    )
    for cell in study.cells():
        odd = cell.overrides["model.pool"] == "gap" and cell.overrides["data.train_images"] == 20
        lab.run(cell, value(cell), study="s", config={"model.warmup_steps": 5 * odd})
    table = make_table(study, lab.root)
    compared = [entry.arm.factors for entry in table.entries["test_acc"] if entry.judgement]
    assert compared == [{"model.pool": "gap", "data.train_images": 10}]
    assert any("also differ in model.warmup_steps" in note for note in table.notes)
    assert any("also differ in model.warmup_steps" in text for text in make_curve(study, lab.root).cautions)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda pool, seed: {"status": "failed"} if pool == "gap" else {}, "no finished run of it holds test_acc"),
        (lambda pool, seed: {"status": "failed"} if pool == "cls" else {}, "no finished run of the baseline holds"),
        (lambda pool, seed: {"status": "failed"} if (pool == "cls") == (seed == 0) else {}, "no seed in common with"),
        (lambda pool, seed: {"metrics": {"val_acc": 0.5}} if pool == "gap" else {}, "no finished run of it holds test"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_named(lab, spoil, why):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "seed_everything": SEEDS},
    )
    for cell in study.cells():
        lab.run(cell, study="s", **{"metrics": value(cell), **spoil(cell.overrides["model.pool"], cell.seed)})
    table = make_table(study, lab.root)
    assert table.comparisons == 0
    assert any(note.startswith(f"comparisons with the baseline left out: pool=gap ({why}") for note in table.notes)


def test_positions_are_compared_at_a_start_that_is_one_of_them_anyway(lab):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pos_embed": "1d"}},
        {"model.pos_embed": ["1d", "relative"], "model.pos_std": [0.02, 0.5], "seed_everything": SEEDS},
    )
    lab.fill(study, value)
    table = make_table(study, lab.root)
    assert (table.comparisons, table.cautions) == (2, ())


def test_an_arm_that_alone_is_compiled_is_not_compared(lab):
    study = pools(lab, [{"model.pool": "cls"}, {"model.pool": "gap"}])
    for cell in study.cells():
        odd = cell.overrides["model.pool"] == "gap"
        lab.run(cell, value(cell), study=study.name, config={"run.compile": True} if odd else {})
    table = make_table(study, lab.root)
    assert table.comparisons == 0
    assert "also differ in run.compile" in str(table)


@pytest.mark.parametrize(
    ("named", "compared", "alone"),
    [({}, [False, True, False], "pos_embed=1d pool=gap"), ({"model.pool": None}, [False, True, True], "")],
    ids=["an option that one arm sets is not named", "null: not set"],
)
def test_arms_that_change_one_option_each_have_one_baseline_if_it_names_them_all(lab, named, compared, alone):
    arms = [{"model.pos_embed": "1d"}, {"model.pos_embed": "2d"}, {"model.pos_embed": "1d", "model.pool": "gap"}]
    study = pools(lab, arms, {"study.baseline": {"model.pos_embed": "1d"} | named})
    lab.fill(study, value)
    table = make_table(study, lab.root)
    assert [entry.judgement is not None for entry in table.entries["test_acc"]] == compared
    notes = [note for note in table.notes if note.startswith("baselines of their own, compared with nothing")]
    assert [note.rpartition(": ")[2] for note in notes] == ([alone] if alone else [])
    labels = [label.lstrip("◆ ") for label, _ in make_view(table).sections[0].rows]
    assert labels == ["1-D", "2-D", "1-D, global average pooling"]
