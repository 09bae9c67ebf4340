"""A record goes to W&B and comes back; JSON lies between."""

import json
import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitexp import wandb_record
from vitexp.record import RunRecord
from vitexp.wandb_record import end_summary, from_wandb, start_config, unreachable

RECORD = RunRecord(
    study="pos",
    cell="micro-2",
    seed=3,
    fingerprint="0123456789ab",
    status="finished",
    config={
        "model": {"pos_embed": "none", "lr": 1e-4, "arch": "micro/2"},
        "data": {"train_images": 1000, "train_fraction": None, "augment": "crop_flip"},
        "run": {"test": True, "shots": [1, 5]},
        "seed_everything": 3,
        "study": {"name": "pos"},
    },
    metrics={"test_acc": 0.9375, "val_loss": 0.25},
    parameters=201_610,
    train_flops=2.5e9,
    images_seen=1280,
    steps=10,
    planned_steps=10,
    learning={"train_loss_start": 2.5, "train_loss_end": 0.5, "chance_acc": 0.1},
    answers={"test_acc": {"file": "answers/test_acc.bits", "images": 9, "right": 8, "sha256": "ab", "order": "cd"}},
    epochs=1.28,
    train_seconds=0.5,
    data={"name": "digits", "classes": 10, "train_images": 1000},
    code={"commit": "abc", "dirty": False},
    versions={"torch": "2.13.0"},
    device={"type": "cpu"},
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
)


def through_json(value):
    return json.loads(json.dumps(value))


def back(record, state="finished", **more):
    return from_wandb(through_json(start_config(record)) | more, through_json(end_summary(record)), state)


def test_a_record_comes_back_as_it_was():
    assert back(RECORD) == RECORD


def tuned(record):
    return replace(record, config=record.config | {"study": {"name": "pos", "tune": ["model.lr"]}})


def test_test_numbers_of_a_candidate_come_back_and_are_no_numbers_of_the_summary():
    hidden = {"limited_test_loss": 0.1875, "fewshot_5": 0.625}
    record = tuned(replace(RECORD, metrics=RECORD.metrics | hidden))
    summary = through_json(end_summary(record))
    numbers = json.dumps({name: value for name, value in summary.items() if name != "withheld"})
    assert not any(text in numbers for text in ("test", "fewshot", "0.9375", "0.1875", "0.625"))
    assert (summary["metrics"], summary["val_loss"]) == (["val_loss"], 0.25)
    assert isinstance(summary["withheld"], str)
    assert back(record) == replace(record, config=RECORD.config)


@pytest.mark.parametrize("word", ["no base64", "e30=", "MQ==", 3])
def test_withheld_numbers_that_are_damaged_are_one_sentence(word):
    summary = through_json(end_summary(tuned(RECORD))) | {"withheld": word}
    with pytest.raises(ValueError, match="its withheld test numbers are damaged"):
        from_wandb(through_json(start_config(RECORD)), summary, "finished")


def test_panels_find_the_axis_and_the_cell_under_plain_names():
    config = start_config(RECORD)
    assert (config["data_size"], config["cell"], config["data.train_images"]) == (1000, "micro-2", 1000)
    assert not [key for key, value in config.items() if isinstance(value, dict)]


def test_what_changes_no_number_stays_at_home():
    config = {**RECORD.config, "run": {"root": "/home/someone", "test": True}}
    assert "run.root" not in start_config(replace(RECORD, config=config))


def test_values_that_a_sweep_has_locked_as_a_mapping_do_not_hide_the_resolved_ones():
    assert back(RECORD, model={"lr": "1e-4", "pos_at": "stem"}).config["model"] == {
        **RECORD.config["model"],
        "pos_at": "stem",
    }


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_a_run_that_ended_early_comes_back_as_that(status):
    ended = replace(RECORD, status=status, reason="because", finished=None)
    assert back(ended) == ended


@pytest.mark.parametrize(("state", "status"), [("running", "running"), ("crashed", "failed"), ("finished", "failed")])
def test_a_run_without_an_outcome_is_not_finished_whatever_the_server_says(state, status):
    found = from_wandb(start_config(RECORD), {"test_acc": 0.9}, state)
    assert (found.status, found.metrics) == (status, {})
    assert state in (found.reason or state)


def test_a_run_that_finished_counts_though_its_end_never_arrived():
    assert back(RECORD, state="crashed") == RECORD


def test_a_failed_run_says_why():
    stopped = replace(RECORD, status="stopped", reason="after 3 of 5 planned steps", planned_steps=5)
    found = from_wandb(start_config(stopped), end_summary(stopped), "finished")
    assert (found.status, found.reason, found.planned_steps) == ("stopped", "after 3 of 5 planned steps", 5)
    failed = replace(RECORD, status="failed", reason="out of memory in step 3", metrics={})
    found = back(failed, state="failed")
    assert (found.status, found.reason, found.finished) == ("failed", "out of memory in step 3", None)


def test_a_program_that_never_began_is_a_failed_cell_of_the_sweep():
    found = from_wandb({"model.pos_embed": "none", "seed_everything": 1}, {}, "failed")
    assert (found.status, found.seed, found.config["model"]) == ("failed", 1, {"pos_embed": "none"})


def test_a_number_that_is_none_comes_back_as_that():
    summary = end_summary(RECORD) | {"test_acc": "NaN"}
    assert from_wandb(start_config(RECORD), summary, "finished").metrics["test_acc"] != 0.9375


KEYS = st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,2}", fullmatch=True)
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.dictionaries(KEYS, st.integers())


@given(st.dictionaries(KEYS, VALUES), st.sampled_from(["finished", "running", "failed"]))
def test_no_config_of_another_program_is_too_strange(config, state):
    assert from_wandb(config, {}, state).status in ("running", "failed")


def test_a_record_of_the_first_format_comes_back_as_that():
    assert back(replace(RECORD, format=1)).format == 1
    config = {key: value for key, value in start_config(RECORD).items() if key != "record.format"}
    assert from_wandb(config, end_summary(RECORD), "finished").format == 1


@pytest.mark.parametrize("change", [{"seed_everything": "x"}, {"record.data": 3}, {"record.versions.torch": 2}])
def test_a_value_that_no_record_has_is_refused(change):
    with pytest.raises(ValueError, match="which is not"):
        back(RECORD, **change)


def bound():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_somebody_who_listens_is_reachable():
    listener, url = bound()
    with listener:
        listener.listen()
        assert unreachable(url) is None


def test_nobody_is_not_and_it_takes_a_few_seconds_to_say_so(monkeypatch):
    waits = []
    monkeypatch.setattr(wandb_record, "ATTEMPTS", 3)
    monkeypatch.setattr(wandb_record.time, "sleep", waits.append)
    listener, url = bound()
    with listener:
        assert unreachable(url) == f"{url} cannot be reached (Connection refused)"
    assert waits == [0.0, 1.0, 1.0]


def test_a_server_that_restarts_is_waited_for(monkeypatch):
    listener, url = bound()
    with listener:
        monkeypatch.setattr(wandb_record.time, "sleep", lambda seconds: seconds and listener.listen())
        assert unreachable(url) is None


def test_a_proxy_decides_for_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert unreachable("http://server.invalid") is None
