"""What a library or somebody's own part raises is one sentence: before a run its settings' fault, in a run its end."""

import sys
from pathlib import Path

import pytest

from vitexp import cli
from vitexp.record import read_record

TINY = [
    "--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_steps=2", "--trainer.accelerator=cpu",
    "--run.wandb=off", "--run.shots=[]", "--run.dir=run", "--trainer.enable_progress_bar=false",
]  # fmt: skip
PARTS = """from lightning.pytorch import Callback
class Picky(Callback):
    def __init__(self, number: int = 0):
        if number:
            raise KeyError("this part takes no number")
    def on_train_batch_end(self, *more):
        raise KeyError("this part takes no batch")
"""


@pytest.fixture
def parts(door, tmp_path, monkeypatch):
    """A callback of somebody's own, which raises when it is built with a number, and otherwise in its first batch."""
    (tmp_path / "picky_part.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "picky_part", raising=False)
    return door


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trainer.accelerator=gpu"], "the trainer refuses its settings: No supported gpu backend found!"),
        (
            ["--trainer.devices=0"],
            "the trainer refuses its settings: `Trainer(devices='0')` value",
        ),
        (["--trainer.strategy=nonsense"], "nonsense"),
        (["--trainer.max_time=nonsense"], "nonsense"),
        (["--trainer.profiler=nonsense"], "the trainer refuses its settings: When passing string value"),
        (
            ["--trainer.callbacks+=picky_part.Picky", "--trainer.callbacks.number=1"],
            "the run cannot be set up: KeyError: 'this part takes no number' (",
        ),
    ],
)
def test_settings_that_nothing_can_be_built_from_are_refused_before_anything_is_written(parts, capsys, words, told):
    assert parts("fit", *TINY, *words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("vitexp: ")
    assert told in error
    assert error.count("\n") == 1
    assert not Path("run").exists()


def test_a_part_that_raises_in_training_fails_the_run_and_its_line_is_named(parts, capsys, tmp_path, monkeypatch):
    words = [*TINY, "--trainer.callbacks+=picky_part.Picky"]
    assert parts("fit", *words) == 1
    told = f"KeyError: 'this part takes no batch' ({tmp_path / 'picky_part.py'}:7)"
    assert capsys.readouterr().err.endswith(f"\nvitexp: {told}; the traceback is in run/traceback.txt\n")
    record = read_record("run")
    assert (record.status, record.reason, record.steps) == ("failed", told, 1)
    assert "on_train_batch_end" in Path("run/traceback.txt").read_text()
    monkeypatch.setenv("VITEXP_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="this part takes no batch") as caught:
        parts("fit", *words)
    assert isinstance(caught.value.__cause__, KeyError)
