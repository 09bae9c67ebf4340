"""The controls hold for records as they should be, and planted faults are found. The real runs are a slow test."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitexp import cli
from vitexp.record import read_records, run_directory, write_record
from vitexp.study import controls
from vitexp.study.spec import read_study

KINDS = ("none", "1d", "2d", "relative")
ALL_SAME = [f"same: pos_embed={kind}, other seeds" for kind in KINDS]


def where(kind, seed):
    return 0.5 if kind == "none" else 0.88


def what(kind, seed):
    return 0.9


def metrics_of(level, spread):
    def metrics(cell):
        kind, seed = cell.overrides["model.pos_embed"], cell.seed
        noise = np.random.default_rng([seed, KINDS.index(kind)]).normal(0, spread)
        return {"test_acc": level(kind, seed) + noise}

    return metrics


@pytest.fixture
def judge(lab):
    """Which answers do not hold, for accuracies by kind of position and seed, with some noise."""

    def run(where=where, what=what, spread=0.004):
        for file, level, noise, classes in ((controls.WHERE, where, 0.004, 2), (controls.WHAT, what, spread, 10)):
            data = {"name": file.stem, "classes": classes, "test_images": 4000}
            lab.fill(read_study(file), metrics_of(level, noise), data=data)
        for run in lab.root.glob("*/*/seed-*"):  # what W&B's client leaves, at times pointing nowhere
            (run / "wandb").mkdir(exist_ok=True)
            (run / "wandb/debug.log").unlink(missing_ok=True)
            (run / "wandb/debug.log").symlink_to("run-of-the-past/logs/debug.log")
        found = controls.answers(lab.root)
        assert len(found) == 5 + 3 + 3 + 4 + 4
        return [one.arm for one in found if not one.holds]

    return run


def test_planted_answers_hold_where_the_chain_gives_them(judge):
    assert judge() == []


def test_a_network_without_positions_that_knows_places_is_found_in_each_run(judge):
    leak = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.55, 4: 0.5}
    assert judge(where=lambda kind, seed: leak[seed] if kind == "none" else 0.88) == ["where: pos_embed=none seed=3"]
    assert judge(where=lambda kind, seed: 0.88) == [
        *(f"where: pos_embed=none seed={seed}" for seed in range(5)),
        *(f"where: pos_embed={kind}" for kind in ("1d", "2d", "relative")),
    ]


def test_accuracies_below_chance_are_as_wrong_as_those_above(judge):
    found = judge(where=lambda kind, seed: 0.45 if kind == "none" else 0.88)
    assert found == [f"where: pos_embed=none seed={seed}" for seed in range(5)]


def test_a_kind_of_position_that_does_not_work_is_found(judge):
    assert judge(where=lambda kind, seed: 0.5 if kind in ("none", "2d") else 0.88) == ["where: pos_embed=2d"]


def test_records_that_are_mixed_up_between_arms_are_found(judge):
    """As if, seed by seed, the runs had been given to other arms."""
    found = judge(where=lambda kind, seed: where(KINDS[(KINDS.index(kind) + seed) % 4], seed))
    assert {"where: pos_embed=1d", "where: pos_embed=2d", "where: pos_embed=relative"} <= set(found)


def test_arms_that_differ_where_positions_do_not_matter_are_found(judge):
    assert judge(what=lambda kind, seed: 0.85 if kind == "2d" else 0.9) == ["what: pos_embed=2d"]


def test_a_spread_too_large_to_say_equivalent_is_no_success(judge):
    assert judge(spread=0.06) == [f"what: pos_embed={kind}" for kind in ("none", "2d", "relative")]


@pytest.mark.parametrize("level", [0.3, 0.995])
def test_a_ceiling_and_a_floor_show_nothing(judge, level):
    found = judge(what=lambda kind, seed: level, spread=0.001)
    assert found == [f"what: pos_embed={kind}" for kind in KINDS]


def test_an_arm_that_differs_from_itself_is_found(judge):
    """As if the machine had changed between the fifth seed and the sixth."""
    found = judge(what=lambda kind, seed: 0.9 - 0.04 * (seed >= 5))
    assert found == ALL_SAME


def test_missing_runs_hold_nothing(judge, lab):
    judge()
    for record in read_records(Path(lab.root) / "controls_where")[0]:
        if record.config["model"]["pos_embed"] == "none" and record.seed == 2:
            shutil.rmtree(run_directory(lab.root, record.study, record.cell, record.seed))
    (lacking,) = [one for one in controls.answers(lab.root) if not one.holds]
    assert (lacking.arm, lacking.obtained) == ("where: pos_embed=none seed=2", "no finished run")
    shutil.rmtree(Path(lab.root) / "controls_what")
    with pytest.raises(ValueError, match="no finished run"):
        controls.answers(lab.root)


def test_json_is_one_document_whatever_training_says(judge, lab, capsys, monkeypatch):
    judge(where=lambda kind, seed: 0.6 if kind == "none" else 0.88)
    # the runs are there: that training takes minutes is no part of this
    monkeypatch.setattr("vitexp.study.run.runner.run_sweep", lambda chosen, **more: print("trained") or 0)
    assert cli.main(["controls", "--json", "--root", str(lab.root), "--results", str(lab.root / "results")]) == 1
    output, said = capsys.readouterr()
    found = json.loads(output)
    assert said.splitlines() == ["trained", "trained"]
    assert (found["schema"], found["holds"]) == ("vitexp.controls/1", False)
    assert [one["holds"] for one in found["answers"]] == [False] * 5 + [True] * 14
    assert found["answers"][0].keys() == {"arm", "expected", "obtained", "holds"}
    assert not (lab.root / "results").exists()


def test_the_lines_say_what_was_expected_and_what_came(judge, lab):
    judge(where=lambda kind, seed: 0.6 if kind == "none" else 0.88)
    *lines, count = controls.shown(controls.answers(lab.root)).splitlines()
    assert count == "14 of 19 planted answers hold"
    first = " ".join(lines[0].split())
    # two standard errors of a share of 1/2 among 4,000 images
    assert first.startswith("where: pos_embed=none seed=0 expected chance, 50.00 ± 1.58 % obtained ")
    assert first.endswith("% DOES NOT HOLD")
    assert " ".join(lines[5].split()) == "where: pos_embed=1d expected better than none obtained better holds"


@pytest.mark.slow
def test_real_runs_give_the_planted_answers_and_runs_given_to_the_wrong_arm_do_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["controls", "--root", "runs"]) == 0
    assert "19 of 19 planted answers hold" in capsys.readouterr().out
    assert (tmp_path / "results" / "controls_where" / "table.md").is_file()
    runs = {(run.config["model"]["pos_embed"], run.seed): run for run in read_records("runs/controls_where")[0]}
    for seed in range(5):
        exchange(runs["none", seed], runs["1d", seed])
    lacking = [one.arm for one in controls.answers("runs") if not one.holds]
    assert lacking == [*(f"where: pos_embed=none seed={seed}" for seed in range(5)), *lacking[5:]]
    assert lacking[5:]


def exchange(one, other):
    """Each run lies in the other's folder, with its answers, and says it were the other."""
    first, second = (run_directory("runs", run.study, run.cell, run.seed) for run in (one, other))
    first.rename("aside")
    second.rename(first)
    Path("aside").rename(second)
    for folder, theirs, here in ((first, other, one), (second, one, other)):
        write_record(replace(theirs, config=here.config, fingerprint=here.fingerprint, cell=here.cell), folder)
