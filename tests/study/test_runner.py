"""Real processes and real locks; only the training itself is a sleep (trainer.py)."""

import importlib.metadata
import json
import os
import re

import pytest

from vitexp.record import read_record
from vitexp.study.run.runner import MOST_LOSSES
from vitexp.study.select import found_study


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


def test_the_first_seeds_alone_leave_the_whole_study_known(study, run, ground, tmp_path):
    made = study(seeds=(0, 1, 2), **{"model.lr": value(0.1, 0.2)})
    run(made)
    outcome, _ = run(made, seeds=[0, 1])
    assert (outcome.finished, outcome.started) == (4, 0)
    assert len(found_study(tmp_path / "s").cells()) == 6


def test_the_end_names_the_arms_whose_runs_did_not_train(study, run):
    grid = {"model.lr": value(0.1, 0.2), "model.flat": value([], [1, 2])}
    said = run(study(seeds=(0, 1, 2), **grid))[1].splitlines()
    what = "training loss 2.3 at the start, 2.31 at the end"
    found = [line for line in said if "did not train" in line]
    rate = "(2 of 3 runs, 67 %, 95 % interval 9 to 99 %; left out;"
    assert found == [f"did not train: flat=[1, 2] lr={lr} {rate} seed 1: {what}; seed 2: {what})" for lr in (0.1, 0.2)]
    assert said[-1] == found[-1]


def test_of_a_study_that_tunes_no_test_number_is_said(study, run):
    outcome, said = run(study(**{"model.lr": value(0.1, 0.2), "study.tune": {"value": ["model.lr"]}}))
    assert outcome.finished == 4
    assert "trains; their test numbers stay in the records until `vitexp table` has chosen (study.tune)\n" in said
    assert "val_acc 51.00 %" in said
    assert "test_acc" not in said


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
    plan = json.loads((tmp_path / "s" / "study.json").read_text())
    assert plan["sweep_sha256"] == made.sha256
    assert [cell["seed"] for cell in plan["cells"]] == [0, 1]
    for cell in plan["cells"]:
        record = read_record(cell["run_directory"])
        assert (record.fingerprint, record.cell) == (cell["fingerprint"], cell["cell"])
        assert cell["overrides"] == {"model.lr": 0.3, "model.seconds": 0.0, "seed_everything": record.seed}


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
        ("crashes", "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_cell_without_a_finished_record_has_failed_whatever_its_status(study, run, trouble, reason):
    outcome, _ = run(study(**{"model.trouble": value("none", trouble)}))
    assert [failure.reason for failure in outcome.failures] == [reason] * 2
    assert outcome.finished == 2


def test_a_cell_with_a_finished_record_is_finished_whatever_its_status(study, run):
    outcome, _ = run(study(**{"model.trouble": value("finished, exit 1")}))
    assert (outcome.finished, outcome.exit_status) == (2, 0)


def test_a_cell_that_is_killed_each_time_ends_with_its_reason_and_is_cut_off_not_failed(study, run, ground):
    made = study(seeds=(0,), **{"model.trouble": value("killed")})
    outcome, said = run(made, resume=["--ckpt_path", "last"])
    (failure,) = outcome.failures
    assert failure.reason == (
        "killed by signal 9 (SIGKILL), several times, perhaps for lack of memory; the same command goes on with it"
    )
    assert (ground.trainings(), outcome.exit_status) == ([1 + MOST_LOSSES], 1)
    assert said.count("its process was ended from outside; it goes on from its last checkpoint") == MOST_LOSSES
    assert "--retry" not in said
    (folder,) = ground.folders()
    record = read_record(folder)
    assert (record.status, record.reason[-49:]) == ("stopped", "--ckpt_path last goes on from its last checkpoint")
    first, *others = (folder / "trainings").read_text().splitlines()
    assert "--ckpt_path" not in first
    assert all(line.endswith("--ckpt_path last") for line in others)
    again, _ = run(made)
    assert again.started == 1 + MOST_LOSSES


def change_record(folder, **changes):
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"fingerprint": "x"}, r"seed-0 holds another run \(fingerprint x, .*move it away and run the study again"),
        ({"status": "?"}, r"seed-0/record.json is not a run record .*move it away"),
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone_and_named_while_the_rest_trains(
    study, run, ground, content, sentence
):
    run(study())
    folder = ground.folders()[0]
    change_record(folder, **content)
    before = (folder / "record.json").read_bytes()
    outcome, said = run(study(seeds=(0, 1, 2)), retry=True, stale="rerun")
    assert re.search(f"failed seed=0: .*{sentence}", said)
    assert (outcome.finished, outcome.started, outcome.exit_status) == (2, 1, 1)
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("running", None),
        ("stopped", "interrupted after step 5 of 20; --ckpt_path last goes on from there"),
        ("stopped", "ended by SIGTERM before the first step; it left no checkpoint"),
    ],
)
def test_what_was_cut_off_goes_on_from_its_checkpoint_without_retry(study, run, ground, status, reason):
    made = study()
    run(made)
    change_record(ground.folders()[1], status=status, reason=reason)
    outcome, _ = run(made, resume=["--ckpt_path", "last"])
    assert (outcome.finished, outcome.started, ground.trainings()) == (2, 1, [1, 2])
    first, second = (ground.folders()[1] / "trainings").read_text().splitlines()
    assert "--ckpt_path last" not in first
    assert second.endswith("--ckpt_path last")


def test_a_run_that_ended_early_by_its_own_rule_is_not_taken_up_blindly(study, run, ground):
    made = study()
    run(made)
    reason = "after 7 of 20 planned steps: the time of trainer.max_time was up; --ckpt_path last goes on from there"
    change_record(ground.folders()[1], status="stopped", reason=reason)
    outcome, said = run(made, resume=["--ckpt_path", "last"])
    assert (outcome.finished, outcome.started, outcome.exit_status) == (1, 0, 1)
    assert f"failed seed=1: {reason}" in said
    outcome, _ = run(made, resume=["--ckpt_path", "last"], retry=True)
    assert outcome.exit_status == 0
    assert "--ckpt_path" not in (ground.folders()[1] / "trainings").read_text()


def test_a_finished_run_of_another_length_is_no_result_of_the_cell(study, run, ground, tmp_path):
    run(study())
    folder = ground.folders()[0]
    change_record(folder, steps=7)
    outcome, said = run(study())
    assert (outcome.finished, outcome.started, outcome.exit_status) == (1, 0, 1)
    assert f"failed seed=0: {folder} is finished after 7 steps, the study plans 20" in said
    outcome, said = run(study(), stale="rerun")
    assert (outcome.finished, outcome.started, outcome.exit_status) == (2, 1, 0)
    assert read_record(tmp_path.with_name(f"{tmp_path.name}-aside") / folder.relative_to(tmp_path)).steps == 7


def test_cells_that_other_code_has_made_are_counted_and_kept_or_set_aside(study, run, ground, tmp_path):
    made = study(seeds=(0, 1, 2, 3))
    assert "today's code" not in run(made)[1]
    assert "today's code" not in run(made)[1]
    one, two, three, _ = ground.folders()
    change_record(one, code={"source": "0"})
    change_record(two, code={}, format=1)
    change_record(three, versions={"numpy": "0.1", "wandb": "0"})
    outcome, said = run(made)
    assert (outcome.finished, outcome.started) == (4, 0)
    words = (
        f"other source code (1); source code not recorded (1); numpy 0.1, now {importlib.metadata.version('numpy')} (1)"
    )
    assert f"s: 3 of 4 finished cells were not made by today's code: {words}; they are kept (--stale rerun" in said
    outcome, said = run(made, stale="rerun")
    assert (outcome.finished, outcome.started, outcome.exit_status) == (4, 3, 0)
    assert f"{words}; they are set aside and trained again" in said
    aside = sorted(tmp_path.with_name(f"{tmp_path.name}-aside").rglob("record.json"))
    assert [path.parent.name for path in aside] == ["seed-0", "seed-1", "seed-2"]
    assert run(made, stale="rerun")[0].started == 0


def test_cells_that_are_the_same_run_train_once(study, run, ground):
    outcome, _ = run(study(**{"run.project": value("a", "b")}))
    assert (outcome.finished, ground.trainings()) == (2, [1, 1])


@pytest.mark.parametrize(
    ("trouble", "sentence"), [("parser killed once", ""), ("parser killed always", "were killed 3 times; there may be")]
)
def test_a_process_that_parses_and_is_killed_is_replaced_but_not_for_ever(study, run, ground, trouble, sentence):
    made = study(seeds=range(6), **{"model.trouble": value(trouble)})
    if not sentence:
        assert run(made)[0].finished == 6
        return
    with pytest.raises(ValueError, match=sentence):
        run(made)
    assert ground.folders() == []


def test_early_termination_is_left_to_wandb(study, run):
    made = study()
    object.__setattr__(made, "early_terminate", {"type": "hyperband"})
    with pytest.raises(ValueError, match="early_terminate needs the controller of W&B"):
        run(made)
