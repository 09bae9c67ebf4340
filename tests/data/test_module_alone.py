"""The data module for those who bring nothing of this project: a source by name, a plain Trainer, any network."""

import logging
import multiprocessing
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch.nn import functional as F

from vitexp.data.module import ShardData

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),  # inside lightning
    pytest.mark.filterwarnings("ignore:.*logging interval.*"),
]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_an_embedded_source_is_written_on_first_use_with_a_line(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        first, second = ShardData(), ShardData()
        assert not any(tmp_path.iterdir())
        first.prepare_data()
        second.setup("fit")
    assert first.subset_fingerprint == second.subset_fingerprint
    assert caplog.text.count("writing its shards to shards/digits") == 1
    assert Path("shards/digits/recipe.json").is_file()


def _prepared(place: int) -> str:
    data = ShardData()
    data.prepare_data()
    return data.subset_fingerprint


def test_processes_that_prepare_at_once_write_the_source_once(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert len(set(pool.map(_prepared, range(3), chunksize=1))) == 1
    assert [path.name for path in Path("shards").iterdir()] == ["digits"]


class Stranger(L.LightningModule):
    """A module that knows nothing of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 10)
        self.losses: list[float] = []

    def training_step(self, batch, step):
        images, labels = batch[:2]
        loss = F.cross_entropy(self.layer(images.flatten(1)), labels)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, step):
        images, labels = batch[:2]
        self.log("acc", (self.layer(images.flatten(1)).argmax(1) == labels).float().mean(), batch_size=len(labels))

    test_step = validation_step

    def predict_step(self, batch, step):
        return self.layer(batch[0].flatten(1)).argmax(1)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_trainer_and_a_strangers_module_use_the_data(tmp_path, monkeypatch, workers) -> None:
    monkeypatch.chdir(tmp_path)
    data, module = ShardData(batch_size=100, workers=workers), Stranger()
    assert str(data).startswith("ShardData(shards='digits', batch_size=100, ")
    assert not any(tmp_path.iterdir())
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(**silent, max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False)
    trainer.fit(module, data)
    assert len(module.losses) == 26
    assert module.losses[-1] < module.losses[0]
    (validated,), (tested,) = (run(module, data, verbose=False) for run in (trainer.validate, trainer.test))
    predicted = torch.cat(trainer.predict(module, data))
    labels = torch.cat([batch.labels for batch in data.eval_loader("test")])
    assert validated["acc"] > 0.5
    assert tested["acc"] == pytest.approx(float((predicted == labels).float().mean()))
    for _ in range(2):
        data.setup("fit")
        data.teardown("fit")
    assert len(next(iter(data.train_dataloader()))[1]) == 100
    data.teardown("fit")
