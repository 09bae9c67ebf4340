"""Masked patch prediction against NumPy by hand: what is corrupted, what is predicted; and that runs are exact."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from vitexp import cli
from vitexp.data.batch import Batch
from vitexp.record import read_record
from vitexp.train.masked import Corruption, colours, corruption, cut
from vitexp.train.module import Classifier

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, size=(3, 3, 8, 12))
IMAGES = torch.tensor((BYTES - 127.5) / 127.5, dtype=torch.float32)


@pytest.fixture(scope="module")
def drawn():
    return Corruption(*(part.numpy() for part in corruption(np.arange(4000), 16, 0.5, seed=3, epoch=1)))


def test_exactly_half_of_each_image_is_corrupted_everywhere_alike(drawn):
    assert drawn.chosen.shape == (4000, 8)
    assert (np.diff(drawn.chosen, axis=1) > 0).all()
    places = np.bincount(drawn.chosen.ravel(), minlength=16) / 4000
    assert np.abs(places - 0.5).max() < 4 * np.sqrt(0.25 / 4000)


def test_of_the_corrupted_80_are_masked_10_moved_and_10_stay(drawn):
    chosen = np.zeros((4000, 16), bool)
    chosen[np.arange(4000)[:, None], drawn.chosen] = True
    moved = drawn.source != np.arange(16)
    assert not (drawn.masked & ~chosen).any()
    assert not (moved & ~chosen).any()
    assert not (moved & drawn.masked).any()
    for share, wanted in ((drawn.masked[chosen].mean(), 0.8), (moved[chosen].mean(), 0.1)):
        assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 32_000)


def test_a_moved_patch_is_any_other_of_its_image(drawn):
    steps = (drawn.source - np.arange(16))[drawn.source != np.arange(16)] % 16
    counts = np.bincount(steps, minlength=16)
    assert counts[0] == 0
    assert np.abs(counts[1:] / counts.sum() - 1 / 15).max() < 0.02


def test_a_samples_corruption_is_its_own_in_any_batch():
    samples = np.array([7, 3, 250, 12])
    whole, alone = corruption(samples, 9, 0.5, 0, 5), corruption(samples[2:3], 9, 0.5, 0, 5)
    assert all(torch.equal(one[2:3], other) for one, other in zip(whole, alone, strict=True))
    for other in (corruption(samples, 9, 0.5, 1, 5), corruption(samples, 9, 0.5, 0, 6)):
        assert not torch.equal(whole.chosen, other.chosen)


@pytest.mark.parametrize("cells", [1, 4])
def test_colours_are_three_bits_for_each_channel(cells):
    found = colours(IMAGES, (2, 3), cells).numpy()
    for image in range(3):
        for patch in range(6):
            top, left = patch // 3 * 4, patch % 3 * 4
            for cell in range(cells * cells):
                side = 4 // cells
                row, column = top + cell // cells * side, left + cell % cells * side
                means = BYTES[image, :, row : row + side, column : column + side].mean((1, 2))
                red, green, blue = np.floor(means / 32).astype(int)
                assert found[image, patch, cell] == red * 64 + green * 8 + blue


def test_a_mean_on_an_edge_belongs_to_the_upper_part():
    image = torch.full((1, 3, 7, 7), (32 - 127.5) / 127.5)
    image[:, 1] = (31 - 127.5) / 127.5
    image[:, 2] = 1.0
    assert colours(image, (1, 1), 1).item() == 1 * 64 + 0 * 8 + 7


def test_patches_are_cut_as_the_stem_cuts_them():
    network = Classifier(arch="micro/4", image_size=8, classes=3).network
    by_hand = cut(IMAGES[..., :8], (2, 2)).flatten(2) @ network.stem.embedding.weight.flatten(1).t()
    torch.testing.assert_close(network.stem(IMAGES[..., :8]), by_hand + network.stem.embedding.bias)


def module(objective, **options):
    torch.manual_seed(0)
    options = {"arch": "micro/4", "image_size": 8, "classes": 3, "masked_share": 0.5} | options
    made = Classifier(objective=objective, **options)
    torch.nn.init.normal_(made.masked.predict.weight, std=0.1)
    return made


def batch(samples=(5, 6, 7)):
    images = IMAGES[..., :8]
    return Batch(images, torch.zeros(3, dtype=torch.long), torch.tensor(samples), 3)


def embeddings_in(made, how):
    """What stands at each place after the corruption, by loops over the stem's own output."""
    plain = made.network.stem(IMAGES[..., :8])
    rows = []
    for image in range(3):
        own = [made.masked.mask if how.masked[image, n] else plain[image, how.source[image, n]] for n in range(4)]
        rows.append(torch.stack(own))
    return torch.stack(rows)


@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("objective", ["masked_mean", "masked_small", "masked_pixels"])
def test_the_loss_by_hand(objective, pool):
    made, given = module(objective, pool=pool), batch()
    how = corruption(np.array([5, 6, 7]), 4, 0.5, made._seed, 2)
    with torch.no_grad():
        tokens = made.network.norm(made.network.encode_patches(embeddings_in(made, how)))[
            :, 1 if pool == "cls" else 0 :
        ]
        found, right = made.masked(made.network, given, 2)
        outputs = made.masked.predict(tokens).double().numpy()
    for image in range(3):
        losses, hits = [], []
        for patch in how.chosen[image].tolist():
            if objective == "masked_pixels":
                wanted = cut(IMAGES[..., :8], (2, 2))[image, patch].flatten().numpy()
                losses.append(((outputs[image, patch] - wanted) ** 2).mean())
                continue
            cells = 1 if objective == "masked_mean" else 4
            classes = colours(IMAGES[..., :8], (2, 2), cells)[image, patch].numpy()
            for cell, wanted in enumerate(classes):
                logits = outputs[image, patch, cell * 512 : (cell + 1) * 512]
                losses.append(np.log(np.exp(logits).sum()) - logits[wanted])
                hits.append(logits.argmax() == wanted)
        assert found[image].item() == pytest.approx(np.mean(losses), rel=1e-4)
        if hits:
            assert right[image].item() == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
def test_every_weight_that_is_trained_has_a_gradient(pool, registers):
    """A weight without one would stall DistributedDataParallel."""
    made = module("masked_mean", pool=pool, registers=registers)
    made.masked(made.network, batch(), 0)[0].sum().backward()
    trained = dict(made.trained())
    assert not [name for name, parameter in trained.items() if parameter.grad is None]
    assert {"masked.mask", "masked.predict.weight", "network.blocks.3.mlp.fc2.bias"} <= set(trained)
    assert not [name for name in trained if name.startswith("network.head")]


QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.wandb=off"]
TINY = ["--model.arch=micro/4", "--data.image_size=16", "--data.batch_size=200", "--model.warmup_steps=2"]


@pytest.fixture(scope="module")
def words(digits):
    return [*TINY, f"--data.shards={digits}", "--trainer.max_epochs=2", "--model.objective=masked_mean"]


def test_a_run_is_measured_in_colours_and_then_fine_tuned(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", *words, *QUIET, "--run.dir=pre"]) == 0
    record = read_record("pre")
    assert set(record.metrics) == {"val_colour_acc", "val_loss", "test_colour_acc", "test_loss", "fewshot_5"}
    assert [step for step, _ in record.curves["val_colour_acc"]] == [7, 14]
    told = capsys.readouterr().out
    assert "parameters, predicts masked patches (masked_mean), 1,294 training images of 16x16, 14 steps" in told
    assert "colours right" in told
    transfer = [word for word in words if "objective" not in word]
    tuned = ["finetune", "--init=pre/checkpoints/last.ckpt", *transfer, *QUIET, "--run.dir=ft", "--model.lr=0.01"]
    assert cli.main(tuned) == 0
    assert "test_acc" in read_record("ft").metrics
    told = capsys.readouterr().out
    assert "parameters, from pre/checkpoints/last.ckpt, 1,294 training images" in told
    assert "predicts" not in told
    assert cli.main(["predict", *words, *QUIET, "--run.dir=pre"]) == cli.BAD_INPUT
    assert "knows no classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--model.masked_share=0"], "leaves nothing to predict"),
        (["--model.arch=micro/16"], "of 1 patches"),
        (["--model.loss=sigmoid"], "model.loss sigmoid has no effect with model.objective masked_mean"),
        (["--model.polyak=0.9"], "model.polyak 0.9 has no effect"),
        (["--model.objective=classify", "--model.masked_share=0.2"], "model.masked_share 0.2 has no effect"),
        (["--model.objective=masked_small", "--data.image_size=12", "--model.arch=micro/6"], "4x4 cells"),
        (["--model.patch_dropout=0.5"], "masked_mean needs every patch; leave model.patch_dropout out"),
        (["--run.keep=best"], "use last where patches are predicted"),
    ],
)
def test_what_means_nothing_is_one_sentence(words, tmp_path, monkeypatch, capsys, more, told):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", *words, *QUIET, "--run.dir=pre", *more]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [["--data.augment=crop_flip"], ["--trainer.devices=2", "--trainer.strategy=ddp"]],
    ids=["one rank", "two ranks"],
)
def test_a_run_is_killed_and_found_equal(words, tmp_path, more):
    command = [sys.executable, "-m", "vitexp.cli", "verify-resume", *words, "--trainer.accelerator=cpu", *more]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQUAL" in done.stdout
