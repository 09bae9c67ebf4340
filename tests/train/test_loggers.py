"""The loggers with the real W&B client: no key, no network."""

import socket

import pytest
import wandb

from vitexp import wandb_record
from vitexp.train.config import RunConfig
from vitexp.train.identity import RunIdentity
from vitexp.train.loggers import RunLogger, build_loggers, kept_run, wandb_mode


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


def identity(folder):
    return RunIdentity(study="g", cell="n", seed=0, fingerprint="f", directory=folder, config={})


def test_csv_comes_first_and_off_means_csv_alone(tmp_path):
    loggers = build_loggers(RunConfig(wandb="off"), identity(tmp_path), resumed=False)
    assert [type(logger).__name__ for logger in loggers] == ["CSVLogger"]
    loggers = build_loggers(RunConfig(wandb="offline"), identity(tmp_path), resumed=False)
    assert [type(logger).__name__ for logger in loggers] == ["CSVLogger", "RunLogger"]


def offline(folder, resumed=False):
    return RunLogger(RunConfig(), identity(folder), mode="offline", resumed=resumed)


def test_a_resumed_run_goes_on_with_the_run_that_its_folder_began_with_and_a_fresh_one_does_not(tmp_path):
    first = offline(tmp_path)
    name = first.experiment.id
    assert kept_run(tmp_path) == {"id": name, "project": "vitexp"}
    first.finish(0)
    (tmp_path / "wandb_id.txt").write_text(f"someone/theirs/{name}\n")
    again = offline(tmp_path, resumed=True)
    assert (again.experiment.id, again.experiment.project, again.experiment.entity) == (name, "theirs", "someone")
    again.finish(0)
    fresh = offline(tmp_path)
    assert fresh.experiment.id != name
    fresh.finish(0)


def test_a_client_that_breaks_is_told_of_once_and_never_raises(tmp_path, capsys):
    logger = offline(tmp_path)
    logger.log_metrics({"val_acc": 0.5}, step=1)
    logger.experiment.finish()
    for step in (2, 3):
        logger.log_metrics({"val_acc": 0.5}, step=step)
    logger.finish(0)
    assert capsys.readouterr().err.count("it gets no more numbers of this run") == 1


@pytest.fixture
def closed_port():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()[1]


def test_a_server_that_is_not_there_leaves_an_offline_run(monkeypatch, tmp_path, closed_port, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb_record, "ATTEMPTS", 1)
    wandb.teardown()  # the client reads its settings once
    logger = RunLogger(RunConfig(), identity(tmp_path), mode="online", resumed=False)
    logger.log_metrics({"val_acc": 0.5}, step=1)
    kind, place = logger.describe()
    logger.finish(0)
    wandb.teardown()
    assert kind == "W&B offline"
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert "wandb sync" in place
    assert "cannot be reached (Connection refused); logging offline" in capsys.readouterr().err
