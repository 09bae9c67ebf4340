"""Real processes and real locks; only the training itself is a sleep (trainer.py)."""

import os
import re

import pytest

from vitexp.record import read_record
from vitexp.study.plan import read_plan


def value(*choices):
    return {"values": list(choices)}


def test_every_cell_is_trained_once_and_then_never_again(study, run, ground):
    made = study(**{"model.lr": value(0.1, 0.2)})
    outcome, said = run(made)
    assert (outcome.finished, outcome.started, outcome.exit_status) == (4, 4, 0)
    assert said.startswith("s: parsing 4 cells before anything trains\ns: 4 cells, 4 to train on 2 workers\n")
    assert len(re.findall(r"\[\d/4\] finished", said)) == 4
    assert "s: 4 of 4 cells finished, 4 started now; done in" in said
    assert "val_acc 51.00 %, test_acc 50.00 %" in said
    again, said = run(made)
    assert (again.finished, again.started) == (4, 0)
    assert "4 finished before, 0 to train" in said
    assert ground.trainings() == [1, 1, 1, 1]


def test_cells_run_with_one_thread_in_processes_of_their_own(study, run, ground):
    run(study(seeds=(0, 1, 2)))
    lines = [(folder / "trainings").read_text().split() for folder in ground.folders()]
    assert len({pid for pid, *_ in lines} - {str(os.getpid())}) == 3
    assert {threads for _, threads, *_ in lines} == {"1"}


def test_workers_take_the_gpus_in_turn(study, run, monkeypatch, ground):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run(study(seeds=(0, 1, 2), **{"model.seconds": value(0.3)}), workers=3)
    assert sorted((folder / "trainings").read_text().split()[2] for folder in ground.folders()) == ["3", "3", "5"]


def test_the_plan_names_what_the_analysis_looks_for(study, run, tmp_path):
    made = study(**{"model": value({"lr": 0.3, "seconds": 0.0})})
    run(made)
    plan = read_plan(tmp_path, "s")
    assert plan["sweep_sha256"] == made.sha256
    assert [cell["seed"] for cell in plan["cells"]] == [0, 1]
    for cell in plan["cells"]:
        record = read_record(cell["run_directory"])
        assert (record.fingerprint, record.cell) == (cell["fingerprint"], cell["cell"])
        assert cell["overrides"] == {"model.lr": 0.3, "model.seconds": 0.0, "seed_everything": record.seed}
    with pytest.raises(ValueError, match=r"other/study\.json is no plan of a study .* run `vitexp sweep` first"):
        read_plan(tmp_path, "other")


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("refused", "model.trouble cannot be refused; allowed: none"),
        ("refused with status 2", "error: model.trouble is wrong"),
    ],
)
def test_a_refused_cell_ends_the_study_before_anything_trains(study, run, trouble, sentence, ground):
    made = study(seeds=range(6), **{"model.trouble": value("none", trouble)})
    with pytest.raises(ValueError, match=f"cell 'trouble={trouble} seed=0' is refused: {sentence}.*5 more are refused"):
        run(made)
    assert ground.folders() == []


def test_a_factor_that_does_not_arrive_ends_the_study_too(study, run, ground):
    # A parser that reads the block after the dotted name sets the whole group anew, and the learning rate is lost.
    made = study(**{"model.lr": value(0.1, 0.2), "model.lost": value(True)})
    with pytest.raises(ValueError, match=r"cell 'lr=0\.2 seed=0' asks for model\.lr=0\.2 and would run with 0\.1"):
        run(made)
    assert ground.folders() == []


def test_a_failed_cell_is_reported_and_retried_on_request(study, run):
    made = study(**{"model.trouble": value("nan", "none")})
    outcome, said = run(made)
    assert (outcome.finished, outcome.exit_status) == (2, 1)
    assert {failure.reason for failure in outcome.failures} == {"ValueError: the loss is not finite"}
    assert "failed   trouble=nan seed=0: ValueError: the loss is not finite (log: " in said
    assert "ValueError: the loss is not finite" in outcome.failures[0].log.read_text()
    again, said = run(made)
    assert (again.started, len(again.failures)) == (0, 2)
    assert "2 finished before, 2 failed before, 0 to train" in said
    retried, _ = run(made, retry=True)
    assert (retried.finished, retried.started, retried.exit_status) == (4, 2, 0)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("no record", "ended with status 3 and no finished record: nothing to train"),
        ("exit 0 unfinished", "ended with status 0 and no finished record: it wrote nothing"),
        ("killed", r"killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_cell_without_a_finished_record_has_failed_whatever_its_status(study, run, trouble, reason):
    outcome, _ = run(study(**{"model.trouble": value("none", trouble)}))
    assert [failure.reason for failure in outcome.failures] == [reason] * 2
    assert outcome.finished == 2


def test_a_cell_with_a_finished_record_is_finished_whatever_its_status(study, run):
    outcome, _ = run(study(**{"model.trouble": value("finished, exit 1")}))
    assert (outcome.finished, outcome.exit_status) == (2, 0)


def test_a_killed_worker_leaves_a_record_that_says_so(study, run, ground):
    run(study(**{"model.trouble": value("killed")}))
    records = [read_record(folder) for folder in ground.folders()]
    assert [(r.status, r.reason) for r in records] == [("failed", "killed by signal 9 (SIGKILL)")] * 2


def test_a_directory_of_another_run_is_never_taken_for_the_cell(study, run, ground):
    run(study())
    path = ground.folders()[0] / "record.json"
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "x'))
    with pytest.raises(ValueError, match=r"seed-0 holds another run \(fingerprint x.*move it away"):
        run(study())


def test_cells_that_are_the_same_run_train_once(study, run, ground):
    outcome, _ = run(study(**{"run.project": value("a", "b")}))
    assert (outcome.finished, ground.trainings()) == (2, [1, 1])


def test_an_unfinished_cell_goes_on_with_the_resume_arguments(study, run, ground):
    made = study(seeds=(0, 1))
    run(made)
    path = ground.folders()[1] / "record.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "running"'))
    outcome, _ = run(made, resume=["--ckpt_path", "last"])
    assert (outcome.finished, outcome.started, ground.trainings()) == (2, 1, [1, 2])
    first, second = (ground.folders()[1] / "trainings").read_text().splitlines()
    assert "--ckpt_path last" not in first
    assert second.endswith("--ckpt_path last")


def test_early_termination_is_left_to_wandb(study, run):
    made = study()
    object.__setattr__(made, "early_terminate", {"type": "hyperband"})
    with pytest.raises(ValueError, match="early_terminate needs W&B's own controller"):
        run(made)
