import json

import pytest

from vitexp.record import RunRecord
from vitexp.study.select import _read_runs, found_study, select, study_folders
from vitexp.study.tune import tune
from vitexp.wandb_record import end_summary, start_config

SWEPT = {"model.pos_embed": ["none", "1d"], "model.lr": [0.001, 0.003], "seed_everything": [0, 1, 2]}


def filled_lab(lab):
    settings = {"study.name": "kinds", "study.tune": ["model.lr"], "study.margin": 0.03}
    study = lab.study(settings, SWEPT, {"data.workers": 2})
    for cell in study.cells():
        value = 0.9 - cell.overrides["model.lr"]
        config = {"study": {"name": "kinds", "tune": ["model.lr"], "margin": 0.03, "since then": 1}}
        lab.run(cell, {"test_acc": value, "val_acc": value}, study="kinds", config=config)
    return study


def test_runs_alone_tell_the_arms_that_the_sweep_file_tells(lab):
    study = filled_lab(lab)
    found = found_study(lab.root / "kinds")
    assert (found.name, found.config.margin, found.config.tune) == ("kinds", 0.03, ["model.lr"])
    told, read = (select(one, lab.root).arms for one in (found, study))
    key = lambda arm: sorted(arm.factors.items())  # noqa: E731
    assert [(key(arm), arm.values("test_acc")) for arm in sorted(told, key=key)] == [
        (key(arm), arm.values("test_acc")) for arm in sorted(read, key=key)
    ]
    assert [dict(arm.tuned) for arm in tune(select(found, lab.root)).arms] == [{"model.lr": 0.001}] * 2


def test_the_runner_s_plan_tells_the_cells_that_have_no_run(lab):
    study = filled_lab(lab)
    cells = [
        {"index": cell.index, "label": cell.label, "overrides": cell.overrides, "seed": cell.seed, "fingerprint": "x"}
        for cell in study.cells()
    ]
    (lab.root / "kinds" / "study.json").write_text(json.dumps({"cells": cells}))
    assert [cell.overrides for cell in found_study(lab.root / "kinds").cells()] == [
        cell.overrides for cell in study.cells()
    ]
    (lab.root / "kinds" / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        found_study(lab.root / "kinds")


def test_another_data_set_is_a_factor_by_its_name_and_what_follows_from_it_is_none(lab):
    study = lab.study({"study.name": "two"}, {"data.shards": ["a", "b"], "seed_everything": [0, 1]})
    for cell in study.cells():
        name = cell.overrides["data.shards"]
        data = {"name": name, "classes": 10, "test_images": 5 if name == "a" else 9}
        config = {"data.content": f"c-{name}", "data.subset": f"s-{name}"}
        lab.run(cell, {"test_acc": 0.5}, study="two", data=data, config=config)
    for one in (found_study(lab.root / "two"), study):
        selection = select(one, lab.root)
        assert [(len(arm.factors), len(arm.runs)) for arm in selection.arms] == [(1, 2), (1, 2)]
        assert selection.notes == ()


def test_folders_are_found_at_and_below_a_place(lab, monkeypatch):
    filled_lab(lab)
    assert study_folders(lab.root) == study_folders(lab.root / "kinds") == [(lab.root / "kinds").resolve()]
    assert study_folders(lab.folder / "elsewhere") == []
    monkeypatch.chdir(lab.folder)
    assert [str(folder) for folder in study_folders("runs")] == ["runs/kinds"]


def test_a_run_with_a_folder_of_its_own_makes_no_study_of_all_the_others(lab):
    filled_lab(lab)
    record = next(lab.root.rglob("record.json"))
    own = lab.root / "pretrain_tiny" / "last"
    own.mkdir(parents=True)
    (own / "record.json").write_bytes(record.read_bytes())
    assert study_folders(lab.root) == [(lab.root / "kinds").resolve()]


@pytest.mark.parametrize("block", [{"tune": "model.lr"}, {"margin": "2"}, {"metrics": 1}])
def test_a_damaged_study_block_is_refused_by_name(lab, block):
    study = lab.study({"study.name": "s"}, {"seed_everything": [0]})
    lab.run(study.cells()[0], {"test_acc": 0.5}, study="s", config={"study": block})
    with pytest.raises(ValueError, match=rf"its newest run cannot be read as a study: study\.{next(iter(block))} is"):
        found_study(lab.root / "s")


def test_a_folder_without_runs_is_refused(lab):
    with pytest.raises(ValueError, match="holds no run; run a study there first"):
        found_study(lab.root / "kinds")


def test_a_damaged_run_of_a_server_is_named_and_the_others_are_read():
    config = {"seed_everything": 3}
    run = RunRecord(study="s", cell="c", seed=3, fingerprint="f", status="finished", config=config, finished="2026")
    sound = ("calm-1", start_config(run), end_summary(run), "finished")
    damaged = ("wild-2", {**start_config(run), "record.versions": 7}, end_summary(run), "finished")
    odd = ("wild-3", start_config(run), {**end_summary(run), "metrics": 5}, "finished")
    runs = _read_runs("the W&B sweep a/b/c", [sound, damaged, odd])
    assert [record.seed for record in runs.records] == [3]
    assert [text.split(" is not")[0] for text in runs.damaged] == [
        "run wild-2 in the W&B sweep a/b/c",
        "run wild-3 in the W&B sweep a/b/c",
    ]
