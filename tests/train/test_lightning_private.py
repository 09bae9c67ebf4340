"""The private names of Lightning: each is there, and no other file of ours touches one."""

import ast
import re
from pathlib import Path

import lightning.pytorch as L
import pytest
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from vitexp.train import lightning_private

SOURCE = Path(lightning_private.__file__)
HOMES = {
    "_trainer": L.LightningModule(),
    "_should_accumulate": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop,
    "_data_fetcher": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop,
    "_should_check_val_fx": _TrainingEpochLoop,
    "_broadcast_sigterm_tensor": _TrainingEpochLoop,
    "_signal_connector": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"),
    "_sigterm_notifier_fn": _SignalConnector,
    "_parser": LightningCLI,
    "_get": LightningCLI,
}
IN_METHODS = {"_subcommand_parsers", "_subcommand_method_arguments"}
"""Set by a method of LightningCLI, so no class has them."""


def private_names(path):
    tree = ast.parse(path.read_text())
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)]
    return {node.attr for node in names if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))}


def test_every_private_name_that_is_used_is_known_here():
    assert private_names(SOURCE) == HOMES.keys() | IN_METHODS


@pytest.mark.parametrize("name", sorted(HOMES))
def test_lightning_still_has(name):
    assert hasattr(HOMES[name], name), f"Lightning has no {name} any more: see {SOURCE.name}"


@pytest.mark.parametrize("name", sorted(IN_METHODS))
def test_lightning_still_sets(name):
    assert f"self.{name}" in Path(LightningCLI.__init__.__code__.co_filename).read_text()


def test_no_other_file_touches_one():
    everywhere = {path: private_names(path) for path in SOURCE.parents[1].rglob("*.py") if path != SOURCE}
    assert {path.name: names for path, names in everywhere.items() if names & (HOMES.keys() | IN_METHODS)} == {}
