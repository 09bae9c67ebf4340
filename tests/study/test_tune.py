import pytest

from vitexp.study.select import select
from vitexp.study.table import make_table
from vitexp.study.tune import tune

RATES = [0.001, 0.003, 0.01]
# Validation accuracy by pool and learning rate; the test accuracies order the rates the other way round.
VALIDATION = {("cls", 0.001): 0.80, ("cls", 0.003): 0.90, ("cls", 0.01): 0.85} | {
    ("gap", 0.001): 0.92, ("gap", 0.003): 0.88, ("gap", 0.01): 0.70
}  # fmt: skip


def metrics(cell):
    level = VALIDATION[cell.overrides["model.pool"], cell.overrides["model.lr"]] + 0.001 * cell.seed
    return {"val_acc": level, "val_loss": 1 - level, "test_acc": 1 - level}


def pooling(lab, **settings):
    settings = {"study.name": "pool", "study.tune": ["model.lr"], **settings}
    return lab.study(settings, {"model.pool": ["cls", "gap"], "model.lr": RATES, "seed_everything": [0, 1, 2]})


@pytest.mark.parametrize("metric", ["val_acc", "val_loss"])
def test_each_arm_gets_the_value_that_is_best_on_validation(lab, metric):
    study = pooling(lab, **{"study.select": metric})
    lab.fill(study, metrics)
    cls, gap = tune(select(study, lab.root)).arms
    assert (cls.factors, cls.tuned) == ({"model.pool": "cls"}, {"model.lr": 0.003})
    assert (gap.factors, gap.tuned) == ({"model.pool": "gap"}, {"model.lr": 0.001})
    assert cls.values("test_acc") == pytest.approx({0: 0.1, 1: 0.099, 2: 0.098})


def test_only_the_chosen_cells_reach_the_table(lab):
    study = pooling(lab, **{"study.baseline": {"model.pool": "cls"}})
    lab.fill(study, metrics)
    table = make_table(study, lab.root)
    assert [entry.interval.mean for entry in table.entries["test_acc"]] == pytest.approx([0.099, 0.079])
    assert table.entries["test_acc"][1].judgement.mean == pytest.approx(-0.02)


def test_a_tie_goes_to_the_first_value_in_the_file(lab):
    study = pooling(lab)
    lab.fill(study, lambda cell: {"val_acc": 0.9, "test_acc": 0.9})
    assert [arm.tuned["model.lr"] for arm in tune(select(study, lab.root)).arms] == [0.001, 0.001]


def test_the_choice_rests_on_the_seeds_that_all_candidates_have(lab):
    study = pooling(lab)
    for cell in study.cells():
        best = cell.overrides["model.lr"] == 0.003
        if not (best and cell.seed == 2):
            # Without pairing, the seed that 0.003 lacks would lift the mean of the others above it.
            lab.run(cell, {"val_acc": 0.8 + 0.05 * best + 0.5 * (cell.seed == 2), "test_acc": 0.9}, study="pool")
    selection = tune(select(study, lab.root))
    assert [arm.tuned["model.lr"] for arm in selection.arms] == [0.003, 0.003]
    assert "pool=cls: chosen with 1 of 9 tuning runs missing" in selection.notes


def test_a_value_at_the_end_of_its_grid_is_told(lab):
    study = pooling(lab)
    lab.fill(study, metrics)
    notes = tune(select(study, lab.root)).notes
    assert [note for note in notes if "grid" in note] == [
        "pool=gap: the chosen model.lr 0.001 ends its grid (0.001 to 0.01): widen it"
    ]


def test_unequal_tuning_budgets_are_told(lab):
    model = [{"pool": "cls", "lr": 0.001}, {"pool": "cls", "lr": 0.003}, {"pool": "gap", "lr": 0.001}]
    settings = {"study.name": "pool", "study.tune": ["model.lr"]}
    study = lab.study(settings, {"model": model, "seed_everything": [0, 1, 2]})
    lab.fill(study, metrics)
    told = "the arms had unequal tuning budgets, in runs for so many values: "
    assert tune(select(study, lab.root)).notes[-1] == told + "pool=cls 6 runs for 2, pool=gap 3 runs for 1"


def test_equal_runs_of_unequal_grids_are_unequal_budgets(lab):
    cells = {("cls", 0.001): 3, ("cls", 0.003): 3, ("gap", 0.001): 2, ("gap", 0.003): 2, ("gap", 0.01): 2}
    points = [{"pool": pool, "lr": rate} for pool, rate in cells]
    study = lab.study(
        {"study.name": "pool", "study.tune": ["model.lr"]}, {"model": points, "seed_everything": [0, 1, 2]}
    )
    for cell in study.cells():
        if cell.seed < cells[cell.overrides["model.pool"], cell.overrides["model.lr"]]:
            lab.run(cell, metrics(cell), study="pool")
    selection = tune(select(study, lab.root))
    assert [arm.tuning_runs for arm in selection.arms] == [6, 6]
    assert "pool=cls 6 runs for 2, pool=gap 6 runs for 3" in selection.notes[-1]


def test_an_arm_without_any_validation_number_is_missing_and_not_guessed(lab):
    study = pooling(lab)
    for cell in study.cells():
        if cell.overrides["model.pool"] == "cls":
            lab.run(cell, metrics(cell), study="pool")
    cls, gap = tune(select(study, lab.root)).arms
    assert len(cls.runs) == 3
    assert (dict(gap.runs), dict(gap.tuned)) == ({}, {})
    assert set(gap.unfinished.values()) == {"no common seed with val_acc to choose by"}


def test_candidates_without_a_common_seed_cannot_be_compared(lab):
    study = pooling(lab)
    for cell in study.cells():
        if RATES.index(cell.overrides["model.lr"]) == cell.seed:
            lab.run(cell, metrics(cell), study="pool")
    assert [dict(arm.runs) for arm in tune(select(study, lab.root)).arms] == [{}, {}]


@pytest.mark.parametrize("metric", ["test_acc", "fewshot_5"])
def test_a_test_metric_is_no_judge_of_tuning(lab, metric):
    study = pooling(lab, **{"study.select": metric})
    lab.fill(study, metrics)
    with pytest.raises(ValueError, match="a number of the test split; choose by val_acc"):
        tune(select(study, lab.root))


def test_a_metric_that_no_run_holds_is_refused(lab):
    study = pooling(lab, **{"study.select": "val_colour_acc"})
    lab.fill(study, metrics)
    with pytest.raises(ValueError, match="val_colour_acc, which no run holds"):
        tune(select(study, lab.root))
