"""Callbacks of one's own, through the real parser: they count, with their source."""

import sys

import pytest

from vitexp import cli

CALLBACK = (
    "from lightning.pytorch import Callback\n{imports}\nclass Mine(Callback):\n    def __init__(self, by: int = 1): ..."
)


@pytest.fixture
def plan(digits, tmp_path, monkeypatch):
    """The plan of a run whose callback lies in a module of the given text, which may import a second one."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def made(text, *words, helper=""):
        for name, content in {"own_part": text, "own_helper": helper}.items():
            sys.modules.pop(name, None)
            (tmp_path / f"{name}.py").write_text(content)
        callback = ["--trainer.callbacks+=own_part.Mine"] if text else []
        return cli.plan(
            ["fit", f"--data.shards={digits}", "--model.arch=micro/2", "--trainer.max_epochs=1", *callback, *words]
        )

    return made


def test_a_callback_of_ones_own_counts_with_its_arguments_and_its_source(plan):
    text, helper = CALLBACK.format(imports="import own_helper"), "FACTOR = 1\n"
    first = plan(text, helper=helper)
    (part,) = first["config"]["trainer"]["callbacks"]
    assert part["class_path"] == "own_part.Mine"
    assert len(part["source"]) == 16
    others = [
        plan(""),
        plan(text, "--trainer.callbacks.by=2", helper=helper),
        plan(text + "\n    # another line", helper=helper),
        plan(text, helper="FACTOR = 2\n"),
    ]
    assert len({made["fingerprint"] for made in [first, *others]}) == 5
    assert plan(text, helper=helper)["fingerprint"] == first["fingerprint"]


def test_one_class_of_lightnings_under_two_names_is_one_part_without_a_source(plan):
    names = ("EarlyStopping", "lightning.pytorch.callbacks.early_stopping.EarlyStopping")
    made = [plan("", f"--trainer.callbacks+={name}", "--trainer.callbacks.monitor=val_acc") for name in names]
    assert made[0]["fingerprint"] == made[1]["fingerprint"] != plan("")["fingerprint"]
    assert "source" not in made[0]["config"]["trainer"]["callbacks"][0]
