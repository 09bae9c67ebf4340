"""Each of the paper's protocols in small, really killed and resumed: bit for bit the unbroken run on one CPU.

Every case is killed before an epoch's end, in a validation, behind it and at the end of its steps; what is compared
are the batches, the weights, their average, the best ones so far, and the optimizer's state.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitexp.nn.vit import ViT, ViTConfig

ROOT = Path(__file__).parents[2]
EPOCHS = ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]
STEPS = ["--trainer.max_steps=14", "--trainer.val_check_interval=4"]
TWO_RANKS = ["--trainer.devices=2", "--trainer.strategy=ddp"]
SGD = ["--model.optimizer=sgd", "--model.schedule=staircase", "--model.lr=0.03", "--model.weight_decay=1.0e-4"]
PROTOCOLS = {
    "pretrain": ["pretrain_tiny", *EPOCHS],
    "finetune": ["finetune_tiny", *STEPS, "--run.init=own.pt", "--model.polyak=0.99", "--run.keep=best"],
    "masked colours": ["masked_tiny", *EPOCHS],
    "masked small colours": ["masked_tiny", *EPOCHS, "--model.objective=masked_small"],
    "masked pixels, two ranks": ["masked_tiny", *EPOCHS, "--model.objective=masked_pixels", *TWO_RANKS],
    "sgd for a resnet": ["adam_sgd", "--trainer.max_epochs=5", "--trainer.check_val_every_n_epoch=1", *SGD],
    "data size, vit": ["datasize_models", *STEPS, "--data.train_images=1000"],
    "data size, resnet": ["datasize_models", *STEPS, "--data.train_images=1000", "--model.arch=R14x0.5"],
    "hybrid": ["hybrid", *EPOCHS, "--model.arch=micro/16", "--model.stem=resnet14"],
    "schedule-free": [
        "pos_ablation", *STEPS, "--model.optimizer=schedulefree:AdamWScheduleFree", "--model.schedule=constant",
    ],
    "rope": ["pos_ablation", *EPOCHS, "--model.pos_embed=rope"],
    "map": ["pos_ablation", *EPOCHS, "--model.pool=map"],
    "local": ["pos_ablation", *EPOCHS, "--model.attention=local", "--model.pool=gap"],
    "axial, two ranks": [
        "pos_ablation", *EPOCHS, "--model.attention=axial", "--model.pool=gap", "--model.pos_embed=2d", *TWO_RANKS,
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_killed_and_found_equal(name, digits, tmp_path):
    experiment, *more = PROTOCOLS[name]
    torch.manual_seed(1)
    torch.save(ViT(ViTConfig(arch="micro/4", image_size=16, classes=7)).state_dict(), tmp_path / "own.pt")
    words = ["--config", str(ROOT / "experiments" / f"{experiment}.yaml"), *more, f"--data.shards={digits}"]
    words += ["--data.batch_size=200", "--model.warmup_steps=3", "--trainer.accelerator=cpu"]
    command = [sys.executable, "-m", "vitexp.cli", "verify-resume", *words]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQUAL: the same batches and, bit for bit, the same weights and optimizer state" in done.stdout
    assert "in the validation after step" in done.stdout
