import json

import pytest

from vitexp.study.arm import spelling
from vitexp.study.select import parse_where, select

SEEDS = {"seed_everything": [0, 1, 2]}


def simple(lab, name="s", **swept):
    return lab.study({"study.name": name}, {"model.pool": ["cls", "gap"], **SEEDS, **swept})


def test_every_cell_is_found_and_grouped_by_arm(filled):
    arms = select(filled.study, filled.root).arms
    assert [tuple(arm.factors.values()) for arm in arms][:3] == [("stem", "none"), ("stem", "1d"), ("every", "1d")]
    assert len(arms) == 8
    assert all(list(arm.runs) == [0, 1, 2, 3, 4] for arm in arms)
    cell = filled.study.cells()[7]
    wanted = filled.metrics_of(cell)["test_acc"]
    found = [arm for arm in arms if all(cell.overrides[key] == value for key, value in arm.factors.items())]
    assert [arm.values("test_acc")[cell.seed] for arm in found] == [wanted]


def test_absent_failed_and_running_cells_are_reported_and_never_counted(lab):
    study = simple(lab)
    done, failed, running, *rest = study.cells()
    lab.run(done, {"test_acc": 0.9}, study="s")
    lab.run(failed, {"test_acc": 0.1}, study="s", status="failed", reason="the loss is NaN")
    lab.run(running, {}, study="s", status="running", finished=None)
    cls, gap = select(study, lab.root).arms
    assert cls.values("test_acc") == {0: 0.9}
    assert cls.unfinished == {1: "failed (the loss is NaN)", 2: "running"}
    assert gap.runs == {}
    assert gap.unfinished == dict.fromkeys((cell.seed for cell in rest), "not run")


def test_a_failed_attempt_beside_a_finished_one_does_not_count(lab, tmp_path):
    study = simple(lab)
    cell = study.cells()[0]
    lab.run(cell, {"test_acc": 0.9}, study="s")
    lab.run(cell, {}, study="s", status="failed", started="2026-02-01", folder=lab.root / "s" / "again")
    arm = select(study, lab.root).arms[0]
    assert arm.values("test_acc") == {0: 0.9}
    assert 0 not in arm.unfinished


def test_of_two_finished_runs_of_a_cell_the_newest_counts_and_it_is_said(lab):
    study = simple(lab)
    cell = study.cells()[0]
    lab.run(cell, {"test_acc": 0.9}, study="s", finished="2026-03-01")
    lab.run(cell, {"test_acc": 0.8}, study="s", finished="2026-02-01", folder=lab.root / "s" / "zzz")
    selection = select(study, lab.root)
    assert selection.arms[0].values("test_acc") == {0: 0.9}
    (note,) = [note for note in selection.notes if "the newest counts" in note]
    assert note.startswith("run more than once, of which the newest counts: ")
    assert note.endswith(" seed 0")


def test_runs_of_one_cell_with_other_settings_are_refused_by_name_value_and_count(lab):
    study = simple(lab)
    for cell in study.cells():
        lab.run(cell, {"test_acc": 0.9}, study="s")
    for cell in study.cells()[:2]:
        lab.run(cell, {"test_acc": 0.5}, study="s", config={"trainer.max_epochs": 30}, finished="2026-02-01")
    held = r"trainer\.max_epochs: 10 \(6 runs\), 30 \(2 runs\); .* --where trainer\.max_epochs=30"
    with pytest.raises(ValueError, match=held):
        select(study, lab.root)
    kept = select(study, lab.root, {"trainer.max_epochs": 30}).arms
    assert [len(arm.runs) for arm in kept] == [2, 0]


def test_seeds_of_one_arm_with_other_settings_are_refused_too(lab):
    study = simple(lab)
    for cell in study.cells():
        lab.run(cell, {"test_acc": 0.9}, study="s", config={"trainer.max_epochs": 10 + 20 * (cell.seed == 2)})
    with pytest.raises(ValueError, match=r"trainer\.max_epochs"):
        select(study, lab.root)


def test_what_differs_between_arms_beyond_the_factors_is_said(lab):
    study = simple(lab)
    for cell in study.cells():
        gap = cell.overrides["model.pool"] == "gap"
        lab.run(cell, {"test_acc": 0.9}, study="s", config={"model.lr": 0.003 if gap else 0.001})
    notes = select(study, lab.root).notes
    assert notes == ("the arms differ in more than the studied factors: model.lr is 0.001 (3 runs), 0.003 (3 runs)",)


def test_another_data_set_under_the_same_config_is_another_run(lab):
    study = simple(lab)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    data = {"name": "cifar10", "classes": 10, "test_images": 10000}
    lab.run(study.cells()[0], {"test_acc": 0.1}, study="s", data=data, folder=lab.root / "s" / "elsewhere")
    with pytest.raises(ValueError, match=r"data\.name: .*cifar10 \(1 run\)"):
        select(study, lab.root)
    assert len(select(study, lab.root, {"data.name": "digits"}).arms[0].runs) == 3


def test_what_cannot_change_a_result_does_not_keep_runs_apart(lab):
    study = lab.study({"study.name": "s"}, {"model.pool": ["cls", "gap"], **SEEDS}, {"data.workers": 4})
    for cell in study.cells():
        lab.run(cell, {"test_acc": 0.9}, study="s", config={"data.workers": cell.seed, "trainer.devices": cell.seed})
    selection = select(study, lab.root)
    assert [len(arm.runs) for arm in selection.arms] == [3, 3]
    assert selection.notes == ()


def test_the_runner_s_plan_says_which_of_two_kinds_counts(lab):
    study = simple(lab)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    newer = lab.fill(study, lambda cell: {"test_acc": 0.7}, config={"trainer.max_epochs": 30})
    cells = [
        {"overrides": cell.overrides, "seed": cell.seed, "fingerprint": record.fingerprint}
        for cell, record in zip(study.cells(), newer, strict=True)
    ]
    (lab.root / "s" / "study.json").write_text(json.dumps({"cells": cells}))
    assert all(set(arm.values("test_acc").values()) == {0.7} for arm in select(study, lab.root).arms)
    assert set(select(study, lab.root, {"trainer.max_epochs": 10}).arms[0].values("test_acc").values()) == {0.9}


def test_a_command_that_was_changed_since_is_named(lab):
    study = simple(lab)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    cells = [{"overrides": cell.overrides, "seed": cell.seed, "fingerprint": "f"} for cell in study.cells()]
    for command, notes in ((list(study.command), 0), (["vitexp", "fit", "--trainer.max_epochs", "3"], 1)):
        (lab.root / "s" / "study.json").write_text(json.dumps({"cells": cells, "command": command}))
        assert sum("the command of the sweep file is another" in one for one in select(study, lab.root).notes) == notes


def test_a_damaged_plan_is_refused_by_name(lab):
    study = simple(lab)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    (lab.root / "s" / "study.json").write_text('{"cells": [{}]}')
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        select(study, lab.root)


def test_where_that_fits_nothing_says_what_there_is(lab):
    study = simple(lab)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    with pytest.raises(ValueError, match=r"none of the 6 runs .* has trainer\.max_epochs=99; .*10 \(6 runs\)"):
        select(study, lab.root, {"trainer.max_epochs": 99})


def test_where_is_read_as_yaml():
    assert parse_where(["a.b=10", "c=word", "d=null", "e=1e-3"]) == {"a.b": 10, "c": "word", "d": None, "e": "1e-3"}
    with pytest.raises(ValueError, match="write key=value"):
        parse_where(["a.b"])


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), ((1, 2), [1, 2.0]), ("1e-3", 0.001), ({"a": 1}, {"a": 1.0}), (None, None)]
)
def test_values_that_mean_the_same_have_one_spelling(one, other):
    assert spelling(one) == spelling(other)


@pytest.mark.parametrize(("one", "other"), [(1, True), ("1d", 1), (None, "None"), (0, False), (None, 0), ("", None)])
def test_values_that_mean_something_else_have_another(one, other):
    assert spelling(one) != spelling(other)


def test_runs_of_several_commits_are_told(lab):
    study = simple(lab)
    for cell in study.cells():
        lab.run(
            cell,
            {"test_acc": 0.9},
            study="s",
            code={"commit": "abc" if cell.seed else "def"},
            versions={"torch": "2.13"},
        )
    (caution,) = select(study, lab.root).cautions
    assert "source code: commit abc (4 runs), commit def (pool=cls seed 0, pool=gap seed 0)" in caution


@pytest.mark.parametrize(("content", "remarked"), [("one", False), ("set{}", True)])
def test_a_subset_that_follows_from_a_studied_size_is_no_remark_but_another_set_is(lab, content, remarked):
    settings = {"study.name": "sizes", "study.metrics": ["test_acc"]}
    study = lab.study(settings, {"data.train_images": [100, 200], "seed_everything": [0, 1]})
    for cell in study.cells():
        size = cell.overrides["data.train_images"]
        config = {"data.subset": f"s{size}", "data.content": content.format(size)}
        lab.run(cell, {"test_acc": 0.5}, study="sizes", config=config)
    notes = " ".join(select(study, lab.root).notes)
    assert ("data.content" in notes) is remarked
    assert "data.subset" not in notes


def test_a_where_that_is_no_yaml_is_refused():
    with pytest.raises(ValueError, match="whose value is not YAML"):
        parse_where(["model.pool=["])
