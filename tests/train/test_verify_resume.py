"""The check of resuming: what it looks at, what it says, and real runs that are really killed."""

import json
import os
import subprocess
import sys

import pytest
import torch

from vitexp import cli
from vitexp.train import verify_resume as verify
from vitexp.train.verify_resume import Cut, Outline, Trace, cuts, default_steps, digest, first_validation

WHOLE = Trace({(0, 0): ([1, 2], "a"), (0, 1): ([3, 4], "b"), (1, 0): ([2, 4], "c")}, "w", [1.0, 2.0])


def outline(**changes):
    return Outline(**{"steps": 100, "epoch": 21, "workers": 0, "validation": 21} | changes)


def test_an_epochs_end_and_a_validation_are_looked_at_where_they_are_near():
    assert default_steps(outline()) == 25
    assert cuts(outline(), 25) == [Cut(11), Cut(21, True), Cut(24)]
    assert cuts(outline(validation=0), 25) == [Cut(12), Cut(22), Cut(24)]
    assert default_steps(outline(validation=50)) == 54
    assert cuts(outline(validation=50), 54) == [Cut(12), Cut(22), Cut(50, True), Cut(53)]
    assert cuts(outline(validation=50), 25) == [Cut(12), Cut(22), Cut(24)]
    assert cuts(outline(validation=5), 25) == [Cut(3), Cut(5, True), Cut(22), Cut(24)]
    assert cuts(outline(epoch=1, validation=1), 5) == [Cut(1, True), Cut(4)]
    assert cuts(outline(epoch=5, validation=5), 6) == [Cut(3), Cut(5), Cut(5, True)]
    far = outline(epoch=5000, validation=5000)
    assert default_steps(far) == verify.STEPS
    assert cuts(far, 24) == [Cut(7), Cut(12), Cut(23)]


@pytest.mark.parametrize(
    ("interval", "every", "accumulated", "step"),
    [
        (None, 1, 1, 21),
        (1.0, 10, 1, 210),
        (0.5, 1, 1, 10),
        (0.5, 3, 1, 52),
        (7, 1, 1, 7),
        (50, None, 1, 50),
        (50, None, 4, 14),
        (None, 2, 4, 12),
        (8, 1, 4, 2),
        ("00:00:10:00", None, 1, 0),
    ],
)
def test_the_first_validation_is_where_lightning_has_it(interval, every, accumulated, step):
    """Of 21 batches an epoch; 50 are two epochs, of 6 updates each where 4 batches make one, and 8 batches more."""
    asked = {"val_check_interval": interval, "check_val_every_n_epoch": every, "limit_val_batches": None}
    trainer = asked | {"accumulate_grad_batches": accumulated}
    assert first_validation(trainer, 21) == step
    assert first_validation(trainer | {"limit_val_batches": 0}, 21) == 0


def part(batches, weights=None, sums=()):
    return Trace({place: WHOLE.batches[place] for place in batches}, weights, list(sums))


def test_equal_is_every_batch_and_every_bit(capsys):
    parts = [part([(0, 0), (0, 1)]), part([(0, 1), (1, 0)], "w", [1.0, 2.0])]
    assert verify._verdict(WHOLE, parts) == 0
    assert "EQUAL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([part([(0, 0)]), part([(1, 0)], "w")], "from batch 1 of epoch 0 on"),
        ([part(WHOLE.batches), Trace({(1, 0): ([2, 3], "c")}, "w", [])], "from batch 0 of epoch 1 on"),
        ([part(WHOLE.batches), Trace({(1, 0): ([2, 4], "d")}, "w", [])], "from batch 0 of epoch 1 on"),
        ([part(WHOLE.batches), Trace({(9, 0): ([2, 4], "c")}, "w", [])], "from batch 0 of epoch 9 on"),
        ([part(WHOLE.batches), part([], "v", [1.0, 2.002])], "other weights (a parameter's norm by up to 1.0e-03"),
    ],
    ids=["one left out", "another image", "other pixels", "one too many", "other weights"],
)
def test_what_differs_is_named(parts, said, capsys):
    assert verify._verdict(WHOLE, parts) == 1
    told = capsys.readouterr().out
    assert told.startswith("DIFFERENT")
    assert said in told


def test_the_ranks_of_a_batch_are_put_together(tmp_path):
    for rank, samples in ((0, [5, 6]), (1, [7])):
        lines = [{"epoch": 0, "batch": 0, "samples": samples, "pixels": f"p{rank}"}, {"weights": "w", "sums": [1.0]}]
        (tmp_path / f"notes.{rank}").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify._read(tmp_path) == Trace({(0, 0): ([5, 6, 7], "p0p1")}, "w", [1.0])


def test_one_bit_is_another_digest():
    one = torch.zeros(3, 2)
    other = one.clone()
    other[2, 1] = -0.0
    assert torch.equal(one, other)
    assert digest([one]) != digest([other])
    assert digest([torch.tensor(1.0).bfloat16()]) == digest([torch.tensor([1.0]).bfloat16()])


@pytest.fixture(scope="module")
def words(digits):
    return [
        "--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_epochs=2", "--model.warmup_steps=2",
        "--trainer.accelerator=cpu", f"--data.shards={digits}", "--data.augment=crop_flip", "--data.mix=mixup_cutmix",
        "--model.dropout=0.1",
    ]  # fmt: skip


def test_bad_input_is_one_sentence(words, capsys):
    assert cli.main(["verify-resume", *words, "--steps=3"]) == cli.BAD_INPUT
    assert "3 steps are too few to be interrupted; at least 4 are needed" in capsys.readouterr().err
    assert cli.main(["verify-resume", *words, "--model.lrr=3"]) == cli.BAD_INPUT
    assert "lrr" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.workers=1"]])
def test_a_run_is_killed_and_found_equal(words, tmp_path, more):
    command = [sys.executable, "-m", "vitexp.cli", "verify-resume", *words, *more]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SIGKILL") == 3
    assert "EQUAL" in done.stdout
    assert not list(tmp_path.iterdir())
