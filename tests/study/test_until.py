"""Seeds until a study is decided: real processes and real records; only the training itself is a sleep (trainer.py)."""

import io
import json
import shutil

import pytest
import yaml
from rich.console import Console

from vitexp import cli
from vitexp.report.tables import TerminalTable
from vitexp.report.view import make_view
from vitexp.study.run.runner import run_until_decided
from vitexp.study.run.until import seeds_due
from vitexp.study.select import select
from vitexp.study.sequence import plan_looks, read_looks
from vitexp.study.spec import read_study
from vitexp.study.table import make_table

CLEAR, BASE, HARD = 0.7, 0.5, 0.509


@pytest.fixture
def until(trainer, tmp_path):
    def start(made, budget=None):
        more = {"extra": ["--run.root", str(tmp_path)], "preload": ["vitexp.record"], "workers": 2}
        return run_until_decided(made, budget, parse=trainer.parse, train=trainer.train, root=tmp_path, **more)

    return start


def seeds(made, root):
    return {arm.factors["model.level"]: sorted(arm.runs) for arm in make_table(made, root).arms}


def test_decided_arms_stop_and_the_rest_go_on_to_the_last_look(planned, until, tmp_path, capsys):
    outcome = until(planned, 15)
    assert outcome.exit_status == 0
    assert seeds(planned, tmp_path) == {CLEAR: [0, 1, 2], BASE: [0, 1, 2, 3, 4], HARD: [0, 1, 2, 3, 4]}
    assert "1 of 2 comparisons are decided, with 13 of 15 runs" in capsys.readouterr().out
    entries = {entry.arm.factors["model.level"]: entry for entry in make_table(planned, tmp_path).entries["test_acc"]}
    assert (entries[CLEAR].judgement.verdict, entries[CLEAR].judgement.n) == ("better", 3)
    assert (entries[HARD].decision.seeds, entries[HARD].decision.decided) == (5, False)
    file = io.StringIO()
    Console(file=file, width=200).print(TerminalTable(make_view(make_table(planned, tmp_path))))
    assert "Looks after 3, 5 seeds were planned before the first run" in file.getvalue()


def test_the_plan_is_written_before_the_first_run_and_holds(planned, until, tmp_path):
    until(planned, 15)
    looks = read_looks(tmp_path / "s")
    assert (looks.seeds, looks.after, looks.sweep_sha256) == ((0, 1, 2, 3, 4), (3, 5), planned.sha256)
    with pytest.raises(ValueError, match=r"--budget 30 is not that of the plan, .* 5 seeds an arm \(15 runs\)"):
        plan_looks(planned, tmp_path, 30)
    assert plan_looks(planned, tmp_path, None) == looks
    sweep = yaml.safe_load(planned.path.read_text())
    sweep["parameters"]["study.margin"] = {"value": 0.5}
    planned.path.write_text(yaml.safe_dump(sweep))
    with pytest.raises(ValueError, match="was changed after its looks were planned"):
        plan_looks(read_study(planned.path), tmp_path, None)


def test_a_study_that_was_cut_off_anywhere_comes_to_the_same(planned, until, ground, tmp_path):
    until(planned, 15)
    before, plan = seeds(planned, tmp_path), (tmp_path / "s" / "study.json").read_text()
    for folder in ground.folders()[::3]:  # as if these had never been run
        shutil.rmtree(folder)
    assert until(planned).started > 0
    assert (seeds(planned, tmp_path), (tmp_path / "s" / "study.json").read_text()) == (before, plan)
    assert until(planned).started == 0


def test_every_reader_of_a_study_has_the_seeds_of_its_plan(planned, until, tmp_path):
    """Claims and curves read a selection, Python the records: all have what the table has, beyond the sweep file."""
    until(planned, 15)
    arms = select(planned, tmp_path).arms
    assert {arm.factors["model.level"]: sorted(arm.runs) for arm in arms} == seeds(planned, tmp_path)
    assert len(planned.records(tmp_path)) == 13 > len(planned.cells())


def test_nothing_is_due_beyond_what_did_not_finish(planned, until, ground, tmp_path):
    until(planned, 15)
    due = seeds_due(planned, read_looks(tmp_path / "s"), tmp_path)
    assert sorted(due.values()) == [3, 5, 5]


@pytest.mark.parametrize(
    ("change", "budget", "sentence"),
    [
        ({"study.metrics": ["test_acc", "robust/fog_3"]}, 15, "and robust/fog_3 is measured afterwards"),
        ({}, 8, "--budget 8 is below the first look: 3 arms take 3 seeds each, 9 runs"),
        (
            {"study.baseline": None},
            None,
            "--until-decided needs seed_everything among the parameters",
        ),
        ({"study.tune": ["model.lr"]}, None, "no study.tune"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_runs(study, tmp_path, change, budget, sentence):
    settings = {"study.baseline": {"model.level": BASE}, "model.lr": 0.1} | change
    fixed = {key: {"value": value} for key, value in settings.items() if value is not None}
    made = study(seeds=(0, 1, 2), **{"model.level": {"values": [BASE, CLEAR, HARD]}, **fixed})
    with pytest.raises(ValueError, match=sentence):
        plan_looks(made, tmp_path, budget)


def test_a_plan_that_was_edited_is_refused(planned, until, tmp_path):
    until(planned, 15)
    path = tmp_path / "s" / "study.json"
    plan = json.loads(path.read_text())
    for changes in ({"after": [3, 4, 5]}, {"seeds": list(range(8)), "after": [3, 5, 8]}, {"sha256": "0"}):
        path.write_text(json.dumps(plan | {"until_decided": plan["until_decided"] | changes}))
        with pytest.raises(ValueError, match=r"study\.json is damaged or was edited"):
            make_table(planned, tmp_path)
    del plan["until_decided"]["sha256"]  # that of an earlier version
    path.write_text(json.dumps(plan))
    assert make_table(planned, tmp_path).looks.after == (3, 5)


def test_neither_a_sweep_without_the_flag_nor_a_pilot_undoes_a_plan(planned, until, tmp_path, capsys):
    until(planned, 15)
    before = (tmp_path / "s" / "study.json").read_text()
    for words in (["sweep"], ["plan", "--pilot", "3"]):
        assert cli.main([*words, str(planned.path), "--root", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert "gets seeds by a plan: go on with --until-decided" in said
    assert (tmp_path / "s" / "study.json").read_text() == before
    assert cli.main(["sweep", str(planned.path), "--root", str(tmp_path / "other"), "--budget", "9"]) == 2
    assert "--budget has no effect alone" in capsys.readouterr().err
