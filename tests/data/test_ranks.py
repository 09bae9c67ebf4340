"""Real runs of Lightning on one and two processes (gloo), with a watchdog: they must see the same and end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json, os, sys, warnings
from vitexp import torch_ops
import lightning.pytorch as L, torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F
from vitexp.data.module import ShardData

options = json.loads(sys.argv[1])
ranks, out, wait = options.pop("ranks"), options.pop("out"), options.pop("wait_file", None)
trainer_options, ckpt = options.pop("trainer", {}), options.pop("ckpt", None)
torch.set_num_threads(1)


class Probe(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Sequential(torch.nn.Linear(192, 32), torch.nn.GELU(), torch.nn.Linear(32, 10)).double()
        self.seen, self.evaluated = [], []

    def training_step(self, batch, step):
        loss = F.cross_entropy(self.layer(batch.images.double().flatten(1)), batch.labels, reduction="sum")
        loss = loss / batch.total * self.trainer.world_size
        pixels = batch.images.double().sum().item()
        self.seen.append([self.current_epoch, step, batch.samples.tolist(), pixels, loss.item()])
        return loss

    def validation_step(self, batch, step):
        right = (self.layer(batch.images.double().flatten(1)).argmax(1) == batch.labels).double()
        self.evaluated += list(zip(batch.samples.tolist(), right.tolist()))

    def on_train_batch_end(self, *_):
        with open(f"{out}.{self.global_rank}", "w") as file:
            json.dump({"seen": self.seen, "evaluated": self.evaluated}, file)

    def on_train_end(self):
        with open(f"{out}.{self.global_rank}", "w") as file:
            json.dump({"seen": self.seen, "evaluated": self.evaluated, "weights": self.layer[0].weight.tolist()}, file)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


if __name__ == "__main__":
    trainer = L.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=os.path.dirname(out), **trainer_options,
        callbacks=[ModelCheckpoint(os.path.dirname(out), save_last=True, every_n_train_steps=1, save_top_k=0)],
    )
    trainer.fit(Probe(), ShardData(**options), ckpt_path=ckpt, weights_only=bool(ckpt) or None)
"""
WATCHDOG_SECONDS = 180


def start(folder: Path, **options) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    words = json.dumps({"out": str(folder / "out"), "ranks": 1} | options)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER", "RANK", "WORLD", "LOCAL"))
    }
    return subprocess.Popen(
        [sys.executable, "script.py", words],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, **options) -> list[dict]:
    """What every rank noted."""
    process = start(folder, **options)
    try:
        text, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the run hung: {process.communicate()[0]}")
    assert process.returncode == 0, text
    return [json.loads((folder / f"out.{rank}").read_text()) for rank in range(options.get("ranks", 1))]


def whole(ranks: list[dict]) -> list[tuple]:
    """The global steps: epoch, step, samples in order, the sum of the pixels, the mean loss."""
    steps = []
    for pieces in zip(*(rank["seen"] for rank in ranks), strict=True):
        samples = [sample for piece in pieces for sample in piece[2]]
        pixels, loss = sum(piece[3] for piece in pieces), np.mean([piece[4] for piece in pieces])
        steps.append((pieces[0][0], pieces[0][1], samples, pixels, loss))
    return steps


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, digits) -> Path:
    """The digits in three shards of 3, 900 and 97 images, fewer than the workers of some tests."""
    import tarfile

    folder = tmp_path_factory.mktemp("uneven")
    groups: dict[str, list] = {}
    for shard in sorted(digits.glob("digits-train-*.tar")):
        with tarfile.open(shard) as tar:
            for info in tar:
                groups.setdefault(info.name.partition(".")[0], []).append((info, tar.extractfile(info).read()))
    samples = list(groups.values())[:1000]
    import io

    for number, (a, b) in enumerate([(0, 3), (3, 903), (903, 1000)]):
        with tarfile.open(folder / f"u-train-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for info, data in (member for sample in samples[a:b] for member in sample):
                tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.mark.slow
class TestTwoRanks:
    def test_the_same_batches_views_and_losses_as_one(self, uneven, tmp_path) -> None:
        options = {
            "shards": str(uneven),
            "batch_size": 64,
            "augment": "crop_flip",
            "seed": 5,
            "trainer": {"max_steps": 50},
        }
        one = run(tmp_path / "one", **options)
        two = run(tmp_path / "two", ranks=2, workers=2, **options)
        assert len(whole(one)) == 50
        for (*where, pixels, loss), (*there, pixels_two, loss_two) in zip(whole(one), whole(two), strict=True):
            assert where == there
            assert pixels_two == pytest.approx(pixels, rel=1e-12)
            assert loss_two == pytest.approx(loss, rel=1e-6)
        assert np.allclose(one[0]["weights"], two[0]["weights"], rtol=1e-6, atol=1e-9)

    def test_each_image_once_a_epoch_and_each_key_once_in_evaluation(self, uneven, tmp_path) -> None:
        options = {"shards": str(uneven), "batch_size": 98, "val_fraction": 0.101, "trainer": {"max_epochs": 2}}
        ranks = run(tmp_path / "two", ranks=2, workers=4, **options)
        one = run(tmp_path / "one", **options)
        for epoch in (0, 1):
            seen = sorted(s for e, _, samples, *_ in whole(ranks) if e == epoch for s in samples)
            assert len(seen) == len(set(seen)) == 899
        for epoch in (0, 1):  # 101 validation images: the last batch gives 2 to one rank and 1 to the other
            mine = dict(map(tuple, one[0]["evaluated"][epoch * 101 : epoch * 101 + 101]))
            count = [len(rank["evaluated"]) // 2 for rank in ranks]
            theirs = [
                tuple(p) for r, c in zip(ranks, count, strict=True) for p in r["evaluated"][epoch * c : epoch * c + c]
            ]
            assert len(theirs) == 101
            assert dict(theirs) == mine

    def test_a_last_batch_smaller_than_the_ranks_does_not_hang(self, uneven, tmp_path) -> None:
        options = {"shards": str(uneven), "batch_size": 64, "train_images": 65, "trainer": {"max_epochs": 2}}
        two, one = run(tmp_path / "two", ranks=2, **options), run(tmp_path / "one", **options)
        assert [len(step[2]) for step in whole(two)] == [64, 1, 64, 1]
        assert np.allclose([step[4] for step in whole(one)], [step[4] for step in whole(two)], rtol=1e-6)
        assert np.allclose(one[0]["weights"], two[0]["weights"], rtol=1e-6, atol=1e-9)

    def test_another_number_of_ranks_goes_on_with_the_same_batches(self, uneven, tmp_path) -> None:
        options = {"shards": str(uneven), "batch_size": 64, "augment": "crop_flip"}
        one = whole(run(tmp_path / "one", trainer={"max_steps": 25}, **options))
        run(tmp_path / "first", trainer={"max_steps": 10}, **options)
        rest = run(
            tmp_path / "rest", ranks=2, trainer={"max_steps": 25}, ckpt=str(tmp_path / "first" / "last.ckpt"), **options
        )
        assert [step[:3] for step in whole(rest)] == [step[:3] for step in one[10:]]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "reader"), [(0, "auto"), (2, "local")])
def test_a_killed_run_goes_on_bit_for_bit(digits, tmp_path, workers, reader) -> None:
    """SIGKILL at an arbitrary moment, again and again, each time with other workers."""
    options = {"shards": str(digits), "batch_size": 32, "augment": "crop_flip", "seed": 2, "train_images": 640}
    options |= {"trainer": {"max_epochs": 5}}
    (whole_run,) = run(tmp_path / "whole", **options)
    folder, random, kills = tmp_path / "killed", np.random.default_rng(workers), 0
    while kills < 4:
        last = folder / "last.ckpt"
        ckpt = str(last) if last.is_file() else None
        before = last.stat().st_mtime_ns if ckpt else 0
        process = start(folder, workers=workers if kills % 2 else 0, reader=reader, ckpt=ckpt, **options)
        try:
            for _ in range(WATCHDOG_SECONDS * 20):  # until it has got further than the last one, and then a little more
                if (last.is_file() and last.stat().st_mtime_ns > before) or process.poll() is not None:
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
            if process.poll() is None:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(float(random.uniform(0, 0.2)))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    (rest,) = run(folder, workers=workers, reader=reader, ckpt=str(folder / "last.ckpt"), **options)
    assert rest["weights"] == whole_run["weights"]
    assert [step[:3] for step in rest["seen"]] == [step[:3] for step in whole_run["seen"][-len(rest["seen"]) :]]
