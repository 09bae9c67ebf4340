"""A run is finished when its last planned step was taken, or by a rule that its config states; else it is stopped."""

import sys

import pytest

from vitexp.record import read_record

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.enable_progress_bar=false", "--run.wandb=off"]
QUIET = ["--trainer.accelerator=cpu", "--run.dir=run", "--run.shots=[]", "--run.test=false", "--trainer.max_epochs=3"]
STOP = [f"--trainer.callbacks{rest}" for rest in ("+=EarlyStopping", ".monitor=val_acc", ".mode=max", ".patience=1")]
OWN = """from lightning.pytorch import Callback
class Stops(Callback):
    def on_train_batch_end(self, trainer, *rest):
        trainer.should_stop = trainer.global_step == 2
class Skips(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if index == 3:
            raise StopIteration
"""


@pytest.fixture
def fit(door, tmp_path, monkeypatch):
    (tmp_path / "own_endings.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_endings", raising=False)
    return lambda *words: door("fit", *TINY, *QUIET, *words)


def test_early_stopping_that_the_config_states_is_a_plan_and_recorded(fit, capsys):
    assert fit(*STOP, "--trainer.callbacks.min_delta=0.9") == 0
    record = read_record("run")
    assert (record.status, record.steps, record.planned_steps) == ("finished", 14, 21)
    assert record.reason.startswith("early stopping after 14 of 21 planned steps: Monitored metric val_acc did not")
    assert record.reason in capsys.readouterr().out
    assert fit() == 2, "a plain run is another run and does not take the folder over"


@pytest.mark.parametrize(
    ("words", "steps", "why"),
    [
        (["--trainer.max_time=00:00:00:00"], 0, "trainer.max_time"),
        (["--trainer.callbacks+=own_endings.Stops"], 2, "a callback ended training"),
        (["--trainer.callbacks+=own_endings.Skips"], 9, "shorter than planned"),
    ],
)
def test_a_run_that_anything_else_ends_is_stopped_with_both_numbers_of_steps(fit, capsys, words, steps, why):
    assert fit(*words) == 0
    record = read_record("run")
    assert (record.status, record.steps, record.planned_steps) == ("stopped", steps, 21)
    assert f"after {steps} of 21 planned steps" in record.reason
    assert why in record.reason
    assert record.reason in capsys.readouterr().out


def test_a_record_says_its_planned_steps_from_the_start_and_what_made_it(fit, monkeypatch):
    from vitexp.source import package_versions, source_hash
    from vitexp.train.recorder import RunRecorder

    begun = []
    monkeypatch.setattr(RunRecorder, "on_fit_start", lambda recorder, *_: begun.append(read_record("run")))
    assert fit("--trainer.max_steps=2", *STOP) == 0
    assert (begun[0].status, begun[0].planned_steps) == ("running", 2)
    record = read_record("run")
    assert (record.status, record.reason, record.steps) == ("finished", None, 2)
    assert record.code["source"] == source_hash()
    assert record.versions == package_versions()
