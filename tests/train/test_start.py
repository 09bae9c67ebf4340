import hashlib

import pytest
import torch

from vitexp import cli
from vitexp.train.command import TrainingCommand
from vitexp.train.identity import weight_digest

WORDS = ["fit", "--model.arch=micro/4", "--data.train_images=150", "--trainer.max_epochs=1", "--data.augment=flip"]


@pytest.fixture
def fitted(monkeypatch, tmp_path):
    """The parts of a run at the moment in which training would begin."""

    def start(*words):
        caught = []
        monkeypatch.setattr(TrainingCommand, "fit", lambda command, **_: caught.append(command))
        cli.main([*WORDS, "--run.wandb=off", "--trainer.accelerator=cpu", f"--run.root={tmp_path}", *words])
        return caught[0]

    return start


def sha(content):
    return hashlib.sha256(content).hexdigest()[:16]


def test_the_start_is_the_one_that_training_has(fitted):
    words = ["--seed_everything=3", "--data.batch_size=64"]
    start, command = cli.examine([*WORDS, *words])["start"], fitted(*words)
    network = dict(command.model.network.named_parameters())
    assert start["weights"].keys() == network.keys()
    drawn = {name: weight["values"] for name, weight in start["weights"].items() if "constant" not in weight["values"]}
    assert len(drawn) > 10
    assert drawn == {name: sha(network[name].detach().numpy().tobytes()) for name in drawn}
    loader = command.datamodule.train_dataloader()
    batches = [batch.samples for batch in loader]
    assert [len(samples) for samples in batches] == [64, 64, 22]
    assert start["order"] == sha(b"64:" + torch.cat(batches).numpy().tobytes())
    assert start["views"] == "augment flip, mix none, 8 pixels, seed 3"


def test_other_seeds_subsets_and_batches_are_other_starts():
    def order(*words):
        return cli.examine([*WORDS, *words])["start"]["order"]

    orders = [order(), order("--seed_everything=1"), order("--data.subset_seed=1"), order("--data.batch_size=50")]
    assert len(set(orders)) == 4
    assert order("--model.pos_embed=none") == orders[0]


def test_a_plan_makes_no_weights():
    assert cli.plan(WORDS)["start"] is None


@pytest.mark.parametrize(
    ("weight", "values"),
    [
        (torch.zeros(2, 3), "constant 0"),
        (torch.full((4,), -1.5), "constant -1.5"),
        (torch.tensor([1.0, 2.0]), sha(b"\0\0\x80\x3f\0\0\0\x40")),
        (torch.tensor([[1.0, 9.0], [2.0, 9.0]])[:, 0], sha(b"\0\0\x80\x3f\0\0\0\x40")),
    ],
)
def test_a_weight_is_told_by_its_values(weight, values):
    assert weight_digest(weight) == {"shape": list(weight.shape), "values": values}
