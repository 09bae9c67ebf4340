"""One run of the position study as a plain timm + Lightning script, as many would write it: the peer of bench/study.py.

    python bench/plain_timm.py --precision bf16-mixed --epochs 10

Trains a network of the size of `micro/2` on scikit-learn's digits with the study's batches, optimizer and schedule,
validates each epoch, tests, and probes frozen features with ridge regressions on 5 images of each class, three draws.
It uses nothing of vitexp, except what lets torchvision load beside a CPU build of torch. The
last line is a JSON object of accuracies.
"""

import argparse
import json
import logging
import math
import os
import tempfile
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from vitexp import torch_ops  # noqa: F401, I001  (before torchvision)

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

Set = tuple[Tensor, Tensor]
Pair = list[Tensor]


class Plain(L.LightningModule):
    """A timm network with cross-entropy, AdamW, a warm-up and a cosine."""

    def __init__(self, steps: int, fused: bool) -> None:
        super().__init__()
        self.steps, self.fused = steps, fused
        self.network = VisionTransformer(
            img_size=8, patch_size=2, embed_dim=64, depth=4, num_heads=4, mlp_ratio=4, num_classes=10
        )

    def training_step(self, batch: Pair, number: int) -> Tensor:
        """The loss of a batch."""
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Pair, number: int) -> None:
        """Logs `val_acc`."""
        self.log("val_acc", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch: Pair, number: int) -> None:
        """Logs `test_acc`."""
        self.log("test_acc", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> object:
        """The warm-up is linear from 0, the cosine ends at 0."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.1, fused=self.fused)
        warm = round(0.143 * self.steps)

        def factor(step: int) -> float:
            return min(1.0, step / warm) * 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (self.steps - warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def digits() -> tuple[Set, Set, Set]:
    """1,293 training, 144 validation and 360 test images."""
    found = load_digits()
    images = np.repeat(found.images[:, None].astype("float32") / 8 - 1, 3, axis=1)
    x, test_x, y, test_y = train_test_split(images, found.target, test_size=0.2, random_state=0, stratify=found.target)
    x, val_x, y, val_y = train_test_split(x, y, test_size=0.1, random_state=0, stratify=y)
    pairs = ((x, y), (val_x, val_y), (test_x, test_y))
    train, val, test = ((torch.from_numpy(a), torch.from_numpy(b).long()) for a, b in pairs)
    return train, val, test


@torch.no_grad()
def probe(network: VisionTransformer, train: Set, test: Set) -> float:
    """Mean accuracy of ridge regressions on 5 images of each class."""
    found = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        rows = np.concatenate([random.permutation(np.flatnonzero(train[1] == label))[:5] for label in range(10)])
        ridge = make_pipeline(StandardScaler(), RidgeClassifier(alpha=1024.0))
        x, test_x = (
            network.forward_head(network.forward_features(x), pre_logits=True) for x in (train[0][rows], test[0])
        )
        ridge.fit(x.float().numpy(), train[1][rows].numpy())
        found.append(ridge.score(test_x.float().numpy(), test[1].numpy()))
    return float(np.mean(found))


def main() -> None:
    """Trains, validates, tests and probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    L.seed_everything(chosen.seed, verbose=False)
    train, val, test = digits()
    first, *rest = (DataLoader(TensorDataset(*part), 64, shuffle=part is train) for part in (train, val, test))
    fused = chosen.precision == "32-true"  # Lightning clips no gradient of a fused optimizer in mixed precision
    module = Plain(chosen.epochs * len(first), fused)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=chosen.epochs,
            accelerator="cpu",
            precision=chosen.precision,
            gradient_clip_val=1.0,
            logger=CSVLogger(folder),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, first, rest[0])
        result = trainer.test(module, rest[1], verbose=False)[0]
    module.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == "bf16-mixed"):
        result["fewshot_5"] = probe(module.network, train, test)
    print(json.dumps({**result, "images": chosen.epochs * len(train[1])}))


if __name__ == "__main__":
    main()
