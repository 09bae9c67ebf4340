"""The loggers with the real W&B client: no key, no network."""

import socket

import pytest
import wandb

from vitexp.learn.config import RunConfig
from vitexp.learn.loggers import RunLogger, build_loggers, run_id, wandb_mode


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.mark.usefixtures("no_account")
def test_without_a_key_the_run_goes_offline():
    assert wandb_mode(RunConfig()) == "offline"


@pytest.mark.usefixtures("no_account")
def test_the_environment_overrules_auto_but_not_a_word_given(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(RunConfig()) == "disabled"
    assert wandb_mode(RunConfig(wandb="offline")) == "offline"
    assert wandb_mode(RunConfig(wandb="off")) == "disabled"


def test_csv_comes_first_and_off_means_csv_alone(tmp_path):
    loggers = build_loggers(RunConfig(wandb="off"), tmp_path, group="g", name="n", resumed=False)
    assert [type(logger).__name__ for logger in loggers] == ["CSVLogger"]
    loggers = build_loggers(RunConfig(wandb="offline"), tmp_path, group="g", name="n", resumed=False)
    assert [type(logger).__name__ for logger in loggers] == ["CSVLogger", "RunLogger"]


def test_a_resumed_run_keeps_its_id_and_a_fresh_one_gets_another(tmp_path):
    first = run_id(tmp_path, resumed=False)
    assert run_id(tmp_path, resumed=True) == first
    assert run_id(tmp_path, resumed=False) != first


def test_a_server_that_is_not_there_leaves_an_offline_run(monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("vitexp.learn.loggers.INIT_SECONDS", 1.0)
    wandb.teardown()  # the client reads its settings once
    logger = RunLogger(RunConfig(), tmp_path, mode="online", group="g", name="n", resumed=False)
    logger.log_metrics({"val_acc": 0.5}, step=1)
    kind, place = logger.describe()
    logger.finish(0)
    assert kind == "W&B offline"
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert "wandb sync" in place
