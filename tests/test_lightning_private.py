"""The private names of Lightning: each is there, and no other file of ours touches one."""

import ast
import re
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch import nn

from vitexp import lightning_private


class Noting(lightning_private.QuickNotes, nn.Linear):
    """A module as the trainer meets it, with one part more."""

    def __init__(self):
        super().__init__(2, 3)
        self.word, self.part = None, nn.ReLU()


def test_notes_are_plain_attributes_and_weights_and_parts_stay_guarded():
    module = Noting()
    module.word = "on_train_start"
    assert module.__dict__["word"] == "on_train_start"
    module.bias, module.part = None, None
    assert (module.bias, module.part, list(module.state_dict())) == (None, None, ["weight"])
    with pytest.raises(TypeError, match="parameter 'weight'"):
        module.weight = 1
    module.word = nn.Parameter(torch.ones(1))
    assert "word" in module.state_dict()


SOURCE = Path(lightning_private.__file__)
HOMES = {
    "_trainer": L.LightningModule(),
    "_should_accumulate": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop,
    "_data_fetcher": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop,
    "_should_check_val_fx": _TrainingEpochLoop,
    "_broadcast_sigterm_tensor": _TrainingEpochLoop,
    "_signal_connector": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"),
    "_sigterm_notifier_fn": _SignalConnector,
    "_batches_that_stepped": L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop.epoch_loop,
    "_parser": LightningCLI,
    "_get": LightningCLI,
}
IN_METHODS = {"_subcommand_parsers", "_subcommand_method_arguments"}
"""Set by a method of LightningCLI, so no class has them."""


OVERRIDDEN = {"_parse_ckpt_path": LightningCLI, "_get_train_description": RichProgressBar}
"""Methods of Lightning that ours replace, which would silently not be called under another name."""
OTHERS = {
    *("_replace", "_asdict"),  # of named tuples
    "_exit",  # of os
    *("_foreach_lerp_", "_upsample_bilinear2d_aa", "_dispatch_has_kernel", "_dynamo"),  # of torch
    *("_iterator", "_shutdown_workers", "_error_if_any_worker_fails"),  # of torch's DataLoader
    *("_typehint", "_fingerprint", "_json_dict"),  # of jsonargparse, datasets and wandb
}
"""Private names of others than Lightning."""


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


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_lightning_still_calls(name):
    home = OVERRIDDEN[name]
    assert hasattr(home, name), f"{home.__name__} has no {name} any more, and ours is never called"


def test_no_other_file_touches_one():
    """Nor any other private name of a library: a new one is moved there, or named above."""
    files = [path for path in SOURCE.parent.rglob("*.py") if path != SOURCE]
    own = {name for path in files for name in re.findall(r"\b(?:self\.|def )(_[a-z]\w*)", path.read_text())}
    allowed = OTHERS | (own - HOMES.keys() - IN_METHODS)
    assert {path.name: names for path in files if (names := private_names(path) - allowed)} == {}
