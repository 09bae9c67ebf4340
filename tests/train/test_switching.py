"""Optimizers that evaluate with other weights than they train with: what is saved on the way, and what is refused.

That their numbers are those of the library's own loop is in test_by_hand.py.
"""

import copy
import sys

import pytest
import torch

from vitexp import cli, own
from vitexp.record import read_record
from vitexp.tools.network import open_network
from vitexp.train.checkpoint import AtomicCheckpoints
from vitexp.train.module import Classifier

TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=10", "--trainer.max_epochs=2"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false", "--model.lr=0.01"]
OWN = """
import torch

class Mine(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr, momentum=0.9)
        for group in self.param_groups: group["training"] = False
    def _far(self, training, by):
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for one in group["params"]: one.data += by
    def train(self): self._far(True, 1.0)
    def eval(self): self._far(False, -1.0)
"""


@pytest.fixture
def kept(monkeypatch):
    """The checkpoints that runs write, in their order."""
    found, write = [], AtomicCheckpoints.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        found.append(copy.deepcopy(checkpoint))
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", save)
    return found


def part_of(checkpoint, name):
    state = checkpoint["state_dict"]
    return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}


def test_what_is_saved_measured_and_opened_are_the_weights_of_evaluation(door, ideas, kept):
    ideas.write_text(OWN)
    words = [*TINY, "--model.optimizer=ideas:Mine", "--model.schedule=constant", "--run.dir=run"]
    assert door("fit", *words, "--run.checkpoint_steps=3") == 0
    *under_way, last = kept
    assert len(under_way) == 2
    for one in under_way:
        training, measured = part_of(one, "network."), part_of(one, "average.")
        assert measured.keys() == training.keys()
        for name, value in training.items():
            torch.testing.assert_close(measured[name], value - 1.0, msg=name)
    assert all(torch.equal(part_of(last, "average.")[key], value) for key, value in part_of(last, "network.").items())
    torch.save(under_way[0], "third.ckpt")
    expected = part_of(under_way[0], "average.")
    for network in (open_network("third.ckpt").network, Classifier.load_from_checkpoint("third.ckpt").network):
        assert all(torch.equal(network.state_dict()[key], value) for key, value in expected.items())
    metrics = read_record("run").metrics
    assert door("test", *words, "--ckpt_path=run/checkpoints/last.ckpt") == 0
    assert metrics["test_loss"] < 10  # with the weights that train, 1 too large throughout, it is far from any guess


def test_measuring_on_the_way_changes_nothing(door, kept):
    pytest.importorskip("schedulefree")
    mine = ["--model.optimizer=schedulefree:AdamWScheduleFree", "--model.schedule=constant"]
    states = []
    for name, often in (("often", ["--run.checkpoint_steps=1", "--trainer.val_check_interval=2"]), ("once", [])):
        assert door("fit", *TINY, *mine, f"--run.dir={name}", *often) == 0
        states.append(kept[-1]["state_dict"])
    assert len(kept) > 8
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


REFUSED = {
    "optimizer ideas:Mine averages its weights itself, in place of a schedule (it has train() and eval()), and "
    "model.schedule cosine does not go with that; give model.schedule constant alone": [],
    "model.polyak 0.9 does not go with that": ["--model.schedule=constant", "--model.polyak=0.9"],
    "model.objective masked_pixels does not go": ["--model.schedule=constant", "--model.objective=masked_pixels"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_go_with_them_is_refused(door, ideas, capsys, said):
    ideas.write_text(OWN)
    assert door("fit", *TINY, "--model.optimizer=ideas:Mine", *REFUSED[said]) == cli.BAD_INPUT
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1


def test_a_checkpoint_is_measured_by_the_kind_of_optimizer_that_trained_it(door, ideas, capsys):
    ideas.write_text(OWN)
    words = [*TINY, "--model.optimizer=ideas:Mine", "--model.schedule=constant", "--run.dir=run"]
    assert door("fit", *words) == 0
    last = "--ckpt_path=run/checkpoints/last.ckpt"
    assert door("test", *TINY, last) == cli.BAD_INPUT
    assert "last.ckpt was trained with model.optimizer ideas:Mine; give that too" in capsys.readouterr().err
    assert door("fit", *words[:-1], last, "--trainer.max_epochs=3") == cli.BAD_INPUT
    assert "may hold other weights than those of its last step (model.optimizer)" in capsys.readouterr().err


def test_a_package_that_is_absent_is_said_so(door, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    own.load.cache_clear()  # another test of this process may have imported it
    assert door("fit", *TINY, "--model.optimizer=schedulefree:AdamWScheduleFree") == cli.BAD_INPUT
    found = capsys.readouterr().err
    assert "optimizer schedulefree:AdamWScheduleFree cannot be imported: there is no schedulefree.py in" in found
    assert "no installed module of that name; install it, or give a path as MODULE:NAME" in found
