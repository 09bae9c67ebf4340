"""Real searches by Optuna over cells that sleep; their loss is least at trainer.BEST_LR."""

import json
import math
import signal
import time

import pytest

from vitexp.record import read_records
from vitexp.study.run import lock, search
from vitexp.study.run.search import suggest
from vitexp.study.select import select

LR = {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0}


@pytest.fixture
def searched(study):
    def make(cap=12, metric=None, **parameters):
        settings = {"method": "bayes", "run_cap": cap, "metric": metric or {"name": "val_loss", "goal": "minimize"}}
        return study(settings=settings, **{"seed_everything": {"value": 0}, "model.lr": LR} | parameters)

    return make


def kept(ground):
    return json.loads((ground.root / "s" / "search.json").read_text())["trials"]


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_search_trains_so_many_cells_and_finds_the_best(searched, run, ground, trainer):
    outcome, said = run(searched(24))
    assert (outcome.finished, outcome.started, outcome.exit_status) == (24, 24, 0)
    assert ground.trainings() == [1] * 24
    losses = {record.config["model"]["lr"]: record.metrics["val_loss"] for record in read_records(ground.root)[0]}
    assert {trial["point"]["model.lr"] for trial in kept(ground)} == set(losses)
    best = min(losses, key=losses.get)
    assert abs(math.log10(best / trainer.BEST_LR)) < 0.15
    tail = said.split("best of 24 points by val_loss (minimize); each was chosen from the results before it, so ")[1]
    assert tail.splitlines()[1] == f"  val_loss {losses[best]:.4f}  lr={best}"
    assert "24 to train on 2 workers" in said


def test_a_finished_search_is_not_run_again_but_can_be_lengthened(searched, run, ground):
    run(searched(5))
    first = kept(ground)
    again, said = run(searched(5))
    assert (again.finished, again.started) == (5, 0)
    assert "best of 5 points" in said
    longer, _ = run(searched(8))
    assert (longer.finished, longer.started) == (8, 3)
    assert kept(ground)[:5] == first


def test_a_killed_search_goes_on_where_it_was(searched, ground):
    made = searched(10, **{"model.seconds": {"value": 0.3}})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses().count("finished") >= 4)
    runner.end(signal.SIGKILL)
    before, done = kept(ground), ground.statuses().count("finished")
    status, said = ground.start(made).end()
    assert status == 0, said
    assert ground.statuses() == ["finished"] * 10
    assert [trial["point"] for trial in kept(ground)][: len(before)] == [trial["point"] for trial in before]
    assert sum(ground.trainings()) <= 10 + 2  # two workers: at most two cells were in flight
    assert f"{done} finished before" in said


def test_a_failed_point_is_no_result(searched, run, ground):
    outcome, said = run(searched(6, **{"model.trouble": {"values": ["none", "nan", "no record"]}}))
    failed = {failure.cell.run_directory for failure in outcome.failures}
    assert 0 < len(failed) < len({trial["run_directory"] for trial in kept(ground)})
    assert outcome.exit_status == 1
    assert f"best of {outcome.finished} points by val_loss" in said


@pytest.mark.parametrize("trouble", ["none", "nan", "no record", "exit 0 unfinished"])
def test_what_became_of_a_point_is_read_from_its_run(searched, run, trouble, monkeypatch):
    seen = []
    monkeypatch.setattr(search, "suggest", lambda *given: seen.append(given[1]) or suggest(*given))
    run(searched(2, **{"model.trouble": {"value": trouble}}), workers=1)
    ((), (trial,)) = seen
    assert (trial.state, trial.value is None) == (("COMPLETE", False) if trouble == "none" else ("FAIL", True))


def test_a_point_that_comes_again_is_not_trained_again(searched, run, ground):
    outcome, said = run(searched(8, **{"model.lr": {"values": [0.1, 0.2]}}))
    assert (outcome.finished, ground.trainings()) == (2, [1, 1])
    assert "best of 2 points by val_loss (minimize), 6 more were repeats; each" in said


def test_a_search_belongs_to_its_parameters_and_metric(searched, run):
    run(searched(2))
    with pytest.raises(ValueError, match=r"search\.json belongs to a search over other parameters or another metric"):
        run(searched(2, metric={"name": "val_acc", "goal": "maximize"}))
    with pytest.raises(ValueError, match=r"search\.json belongs to a search over other parameters or another metric"):
        run(searched(2, **{"model.lr": LR | {"max": 0.5}}))


def test_two_runners_do_not_choose_at_the_same_time(searched, run, ground):
    held = lock.acquire(ground.root / "s")
    with pytest.raises(ValueError, match=r"s is searched by process \d+ on .*; one runner chooses"):
        run(searched(2))
    held.release()
    assert run(searched(2))[0].finished == 2


def test_damage_is_named(searched, run, ground):
    run(searched(2))
    (ground.root / "s" / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"search\.json is damaged .* move it away to search anew"):
        run(searched(2))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cap": None}, r"a bayes search has no end of its own; add run_cap: 20"),
        ({"metric": {"goal": "minimize"}}, r"method bayes needs metric: \{name: val_acc, goal: maximize\}"),
        ({"metric": {"name": "test_acc"}}, "metric.name is test_acc, a number of the test split; choose by val_acc"),
        (
            {"metric": {"name": "val_acc", "goal": "max"}},
            "metric.goal is max, but higher is better for val_acc; write goal: maximize",
        ),
        ({"metric": {"name": "accuracy"}}, "metric.name is accuracy, which is not a known metric; known are val_acc, "),
        (
            {"metric": {"name": "val_colour_acc", "goal": "maximize"}},
            "metric.name is val_colour_acc, but a run measured test_acc, val_acc, val_loss;",
        ),
        ({"metric": {"name": "val_acc"}}, "metric.goal is missing, so W&B would minimize val_acc; write goal: max"),
        ({"metric": {"name": "limited_test_acc"}}, "metric.name is limited_test_acc, a number of the test split"),
        ({"model.lr": {"value": 0.1}}, "every parameter is fixed, so there is nothing to search"),
        ({"model.lr": {"distribution": "normal"}}, "parameter model.lr is normal, which method bayes does not know"),
    ],
)
def test_what_a_search_lacks_is_said_in_one_sentence(searched, run, changes, sentence):
    made = searched(**{key: value for key, value in changes.items() if key != "cap"})
    if "cap" in changes:
        object.__setattr__(made, "run_cap", None)
    with pytest.raises(ValueError, match=sentence):
        run(made)


def test_early_termination_is_refused(searched, run):
    made = searched()
    object.__setattr__(made, "early_terminate", {"type": "hyperband"})
    with pytest.raises(ValueError, match="early_terminate needs the controller of W&B"):
        run(made)


def test_chosen_points_make_no_table(searched, run, ground):
    made = searched(3)
    run(made)
    with pytest.raises(ValueError, match="are no arms to compare; put the best ones in a grid with seeds"):
        select(made, ground.root)
