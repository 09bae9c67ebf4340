"""A Trainer of one's own writes the record of `vitexp fit`, bit by bit, and no false one."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

import vitexp
from vitexp.cli import main
from vitexp.train.admission import checked_identity

ROOT = Path(__file__).parent.parent
CONFIG = "experiments/pos_ablation.yaml"
OPTIONS = {
    "trainer.max_epochs": 2,
    "trainer.enable_progress_bar": False,
    "data.train_images": 200,
    "run.wandb": "off",
    "run.shots": [1],
    "model.pos_embed": "2d",
}
TIMES = {"started", "finished", "train_seconds", "directory"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def flags(root, **more):
    options = OPTIONS | {"run.root": str(root)} | more
    return [
        f"--{name}={value}".lower() if isinstance(value, bool) else f"--{name}={value}"
        for name, value in options.items()
    ]


def configured(root, options=None, **more):
    return vitexp.from_config(CONFIG, OPTIONS | {"run.root": str(root)} | (options or {}), **more)


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def record_in(root):
    (path,) = root.glob("**/record.json")
    return vitexp.read_record(path.parent), path.parent


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    root = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        assert main(["fit", "--config", str(ROOT / CONFIG), *flags(root)]) == 0
    return record_in(root)


@pytest.mark.parametrize("own", [False, True], ids=["its trainer", "my trainer"])
def test_a_trainer_writes_the_same_record_to_the_bit(by_command, tmp_path, own):
    theirs, folder = by_command
    run = configured(tmp_path)
    if own:
        plain = {"max_epochs": 2, "num_sanity_val_steps": 0, "logger": False, "enable_progress_bar": False}
        probe = vitexp.FewShotProbe(shots=[1], draws=3)
        trainer = L.Trainer(**plain, enable_checkpointing=False, callbacks=[run.recorder, probe])
    else:
        trainer = run.trainer()
    trainer.fit(run.module, datamodule=run.data)
    ours, place = record_in(tmp_path)
    apart = {name for name in vars(ours) if getattr(ours, name) != getattr(theirs, name)}
    assert apart <= TIMES | {"config"}, {name: (getattr(ours, name), getattr(theirs, name)) for name in apart}
    assert ours.fingerprint == theirs.fingerprint
    assert ours.metrics["fewshot_1"] == theirs.metrics["fewshot_1"]
    assert ours.answers
    assert ours.answers == theirs.answers
    here, there = weights(place), weights(folder)
    assert all(torch.equal(here[name], there[name]) for name in there)
    assert main(["fit", "--config", str(ROOT / CONFIG), *flags(tmp_path)]) == 0  # finds it finished


def test_the_checkpoint_gives_the_trained_network(by_command):
    record, folder = by_command
    network = vitexp.Classifier.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert network.hparams["pos_embed"] == "2d"
    assert not network.training
    data = vitexp.ShardData(train_images=200)
    right = images = 0
    for batch in data.test_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)
        with torch.no_grad():
            right += int((network(batch.images).argmax(-1) == batch.labels).sum())
        images += len(batch.labels)
    assert right / images == record.metrics["test_acc"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda run, options: options.update(max_epochs=3), r"here trainer\.max_epochs is 3 \(there 2\)"),
        (lambda run, options: run.data.hparams.update(batch_size=32), r"here data\.batch_size is 32 \(there"),
        (lambda run, options: run.module.hparams.update(lr=1.0), r"here model\.lr is 1\.0 \(there"),
        (lambda run, options: options.update(limit_train_batches=1), r"here trainer\.limit_train_batches is 1 \(there"),
        (lambda run, options: options.update(limit_test_batches=1), r"here trainer\.limit_test_batches is 1 \(there"),
        (lambda run, options: options.update(overfit_batches=1), r"trainer\.overfit_batches is 1 \(there"),
        (lambda run, options: options.update(val_check_interval=0.5), r"here trainer\.val_check_interval is 0\.5"),
        (lambda run, options: options.update(precision="bf16-mixed"), r"trainer\.precision is bf16-mixed"),
        (lambda run, options: run.callbacks.clear(), r"asks for few-shot probes of run\.shots \[1\]"),
    ],
)
def test_what_the_config_does_not_say_is_never_recorded(tmp_path, change, match):
    run = configured(tmp_path)
    options = {}
    change(run, options)
    with pytest.raises(ValueError, match=match):
        run.trainer(**options).fit(run.module, datamodule=run.data)
    assert not list(tmp_path.glob("**/record.json"))


class Doubled(vitexp.Classifier):
    def loss(self, logits, batch):
        return 2 * super().loss(logits, batch)


def test_a_subclass_is_another_run_from_the_same_start(by_command, tmp_path):
    theirs, _ = by_command
    run = configured(tmp_path, module=Doubled)
    assert isinstance(run.module, Doubled)
    run.trainer().fit(run.module, datamodule=run.data)
    record, _ = record_in(tmp_path)
    assert record.fingerprint != theirs.fingerprint
    assert record.config["module"]["class_path"].endswith("Doubled")
    assert len(record.config["module"]["source"]) == 16
    assert record.learning["train_loss_start"] > 1.9 * theirs.learning["train_loss_start"]


class Nudge(L.Callback):
    def __init__(self, by):
        self.by = by


def test_a_callback_that_the_config_does_not_name_counts(by_command, tmp_path):
    """One that only watches does not."""
    found = []
    for callbacks in ([Nudge(1)], [Nudge(2)], [LearningRateMonitor()]):
        run = configured(tmp_path / str(len(found)))
        trainer = run.trainer(callbacks, logger=CSVLogger(tmp_path))
        own = run.recorder
        identity = checked_identity(own.identity, own.run, trainer, run.module, run.data, own.configured)
        found.append(identity.fingerprint)
    assert len(set(found)) == 3
    assert found[2] == by_command[0].fingerprint


def test_a_probe_alone_measures_too(tmp_path):
    run = configured(tmp_path, {"model.warmup_steps": 0})
    probe = vitexp.FewShotProbe([1], 1)
    trainer = L.Trainer(max_steps=1, logger=False, enable_checkpointing=False, callbacks=[probe])
    trainer.fit(run.module, datamodule=run.data)
    assert 0 < probe.metrics["fewshot_1"] < 1


def test_plain_batches_train_and_are_measured(tmp_path):
    torch.manual_seed(0)
    pairs = [(torch.rand(3, 8, 8) * 2 - 1, n % 2) for n in range(20)]
    loader = torch.utils.data.DataLoader(pairs, batch_size=8)
    module = vitexp.Classifier(arch="micro/2", image_size=8, classes=2)
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.fit(module, loader, loader)
    assert module.images_seen == 20
    (found,) = trainer.validate(module, loader, verbose=False)
    assert found["val_acc"] in {n / 20 for n in range(21)}
