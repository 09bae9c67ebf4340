"""How a run computes: compiled, in other matrix products, in half precision, and without a wait in a step."""

import math
import os
from types import SimpleNamespace

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vitexp import cli
from vitexp.data.batch import Batch
from vitexp.data.module import ShardData
from vitexp.record import fingerprint, read_record
from vitexp.train.compute import threads_for
from vitexp.train.config import RunConfig
from vitexp.train.module import Classifier

TINY = [
    "--model.arch=micro/4", "--trainer.max_epochs=1", "--data.train_images=120", "--trainer.accelerator=cpu",
    "--run.wandb=off", "--run.shots=[1]", "--trainer.enable_progress_bar=false", "--model.lr=0.001",
]  # fmt: skip


def kept(folder):
    return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, by torch.compile itself
def test_a_compiled_run_has_the_losses_and_weights_of_an_uncompiled_one(door):
    more = ["--model.dropout=0.1", "--model.optimizer=sgd", "--model.lr=0.1", "--data.batch_size=50"]
    for word in ("false", "true"):
        assert door("fit", *TINY, *more, f"--run.compile={word}", f"--run.dir={word}") == 0
    plain, compiled = (read_record(word) for word in ("false", "true"))
    one, other = kept("false"), kept("true")
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5, msg=name)
    assert compiled.metrics["test_loss"] == pytest.approx(plain.metrics["test_loss"], abs=1e-4)
    assert compiled.curves["train_loss"][0][1] == pytest.approx(plain.curves["train_loss"][0][1], abs=1e-4)
    assert compiled.compile_seconds > 0
    assert plain.compile_seconds is None
    assert compiled.fingerprint != plain.fingerprint


def test_masked_patches_are_not_compiled(door, capsys):
    assert door("fit", *TINY, "--run.compile=true", "--model.objective=masked_mean") == cli.BAD_INPUT
    assert "run.compile has no effect with model.objective masked_mean" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["bf16", "16"])
def test_weights_in_half_precision_are_refused(door, capsys, word):
    assert door("fit", *TINY, f"--trainer.precision={word}-true") == cli.BAD_INPUT
    assert f"give {word}-mixed" in capsys.readouterr().err


def test_matrix_products_are_computed_as_asked_during_a_run(door, monkeypatch):
    seen, step = set(), Classifier.test_step
    monkeypatch.setattr(
        Classifier, "test_step", lambda *words: (seen.add(torch.get_float32_matmul_precision()), step(*words))[1]
    )
    words = [*TINY, "--run.matmul_precision=high", "--run.dir=run"]
    assert door("fit", *words) == door("test", *words) == 0
    assert (seen, torch.get_float32_matmul_precision()) == ({"high"}, "highest")
    assert read_record("run").config["run"]["matmul_precision"] == "high"


def test_only_other_values_than_before_count_in_a_fingerprint():
    plain = fingerprint({})
    assert fingerprint({"run.compile": False, "run.matmul_precision": "highest"}) == plain
    others = [fingerprint(changed) for changed in ({"run.compile": True}, {"run.matmul_precision": "high"})]
    assert len({plain, *others}) == 3


class _NoWait(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a number is read on the host"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", ["classify", "masked_mean", "masked_pixels"])
def test_no_step_reads_a_number_from_the_device(door, monkeypatch, objective):
    watched = []
    for name in ("training_step", "validation_step"):
        step = getattr(Classifier, name)

        def watch(module, *words, step=step):
            if module._is_logged():
                return step(module, *words)
            watched.append(step.__name__)
            with _NoWait():
                return step(module, *words)

        monkeypatch.setattr(Classifier, name, watch)
    words = [f"--model.objective={objective}", "--trainer.log_every_n_steps=100", "--data.batch_size=32"]
    assert door("fit", *TINY, *words, "--run.shots=[]") == 0
    assert {*watched} == {"training_step", "validation_step"}


def test_sample_numbers_stay_on_the_host():
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.tensor([5, 7]), 2)
    moved = ShardData().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.images.device.type == "meta"
    assert moved.samples.tolist() == [5, 7]


def test_a_loss_that_is_no_number_stays_visible():
    reading = Classifier(arch="micro/4", image_size=8, classes=10).readings["val"]["loss"]
    reading.update(torch.tensor([1.0, np.nan]))
    assert math.isnan(reading.compute())


def test_images_go_to_a_gpu_from_pinned_memory_without_workers_too(monkeypatch) -> None:
    pinned = torch.full((2, 3, 8, 8), 7, dtype=torch.uint8)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: pinned)
    monkeypatch.setattr(L.LightningDataModule, "transfer_batch_to_device", lambda _, batch, *__: batch)
    batch = Batch(torch.zeros_like(pinned), torch.zeros(2, dtype=torch.int64), torch.arange(2), 2)
    assert ShardData().transfer_batch_to_device(batch, torch.device("cuda"), 0).images is pinned
    assert ShardData().transfer_batch_to_device(batch, torch.device("cpu"), 0).images is batch.images


@pytest.mark.parametrize(
    ("arch", "batch", "cores", "devices", "given", "count"),
    [
        ("micro/2", 128, 64, 1, 0, 1),  # 2.7 GFLOPs a step
        ("micro/2", 1024, 64, 1, 0, 2),  # 21.5
        ("S/2", 128, 64, 1, 0, 27),  # 276
        ("S/2", 128, 2, 1, 0, 2),
        ("S/2", 128, 16, 4, 0, 4),
        ("micro/2", 128, 64, 1, 3, 3),
    ],
)
def test_the_number_of_threads_follows_from_the_step_and_the_cores(
    monkeypatch, arch, batch, cores, devices, given, count
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(strategy=strategy, num_devices=devices, world_size=1)
    with torch.device("meta"):
        module = Classifier(arch=arch, image_size=8, classes=10)
    assert threads_for(RunConfig(threads=given), trainer, module, ShardData(batch_size=batch)) == count
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_for(RunConfig(threads=given), trainer, module, ShardData()) == (given or torch.get_num_threads())


@pytest.mark.parametrize(("words", "count"), [([], 1), (["--run.threads=2"], 2)])
def test_a_run_says_and_records_its_threads(door, capsys, monkeypatch, words, count):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    assert door("fit", *TINY, *words, "--run.dir=run", "--run.shots=[]", "--run.test=false") == 0
    assert f"steps, {count} thread" in capsys.readouterr().out
    assert read_record("run").device["threads"] == count
    assert (torch.get_num_threads(), "OMP_NUM_THREADS" in os.environ) == (3, False)


def test_threads_are_no_part_of_the_fingerprint_and_never_fewer_than_none(door, capsys):
    assert fingerprint({"run.threads": 2, "seed_everything": 1}) == fingerprint({"seed_everything": 1})
    assert door("fit", *TINY, "--run.threads=-1") == cli.BAD_INPUT
    assert "run.threads is -1; give a number of threads" in capsys.readouterr().err
