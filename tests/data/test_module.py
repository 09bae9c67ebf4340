import inspect
import itertools
import logging
import pickle
from dataclasses import fields

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from vitexp.data.augmentation import Augmentation
from vitexp.data.mixing import mixed
from vitexp.data.module import ShardData

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),  # inside lightning
    pytest.mark.filterwarnings("ignore:.*logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed.*"),
]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Probe(L.LightningModule):
    """A linear classifier that notes which images it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(192, 10)
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch, step):
        self.seen.append((self.current_epoch, step, batch.samples.tolist()))
        return F.cross_entropy(self.layer(batch.images.flatten(1)), batch.labels, reduction="sum") / batch.total

    def validation_step(self, batch, step):
        self.log("val", self.layer(batch.images.flatten(1)).mean(), batch_size=len(batch.labels))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def fit(folder, data, ckpt=None, callbacks=(), **options) -> Probe:
    probe = Probe()
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    every = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    options = {"max_epochs": 3} | options
    trainer = L.Trainer(**silent, callbacks=[*callbacks, every], default_root_dir=folder, **options)
    trainer.fit(probe, data, ckpt_path=ckpt, weights_only=bool(ckpt) or None)
    return probe


def data_of(digits, **options) -> ShardData:
    return ShardData(**{"shards": str(digits), "train_images": 330, "augment": "crop_flip", "seed": 3} | options)


def test_counts_are_known_at_once(digits) -> None:
    data = ShardData(shards=str(digits), batch_size=100)
    assert (data.train_count, data.val_count, data.test_count) == (1294, 144, 359)
    assert (data.classes, data.class_names[3], data.size, data.name, data.steps_per_epoch) == (10, "3", 8, "digits", 13)
    described = data.describe()
    assert described["train_images"] == 1294
    assert described["subset_fingerprint"] == data.subset_fingerprint


def test_what_is_used_is_said_once_and_only_when_it_is_used(digits, tmp_path, capsys) -> None:
    data = data_of(digits, train_images=300)
    data.describe()
    assert capsys.readouterr().err == ""
    fit(tmp_path, data, max_epochs=1, limit_train_batches=1)
    line = "data: digits: 300 of 1,294 train + 144 val (held out of train) + 359 test images, 10 classes\n"
    assert [line] == [text for text in capsys.readouterr().err.splitlines(keepends=True) if "data: " in text]
    data.eval_loader("test")
    assert "data: " not in capsys.readouterr().err
    data_of(digits, train_images=None, val_fraction=0.0).eval_loader("test")  # as commands without a trainer do
    assert "data: digits: 1,438 train + 359 test images, 10 classes\n" in capsys.readouterr().err


def test_classes_are_counted_by_what_is_used(tmp_path, make_set, capsys) -> None:
    make_set(tmp_path, classes=3, train=[[0, 0, 0, 1] * 5], val=[[0, 1, 2]])
    data = ShardData(shards=str(tmp_path), train_images=8)
    assert [data.class_counts(split).tolist() for split in ("train", "val", "test")] == [
        [6, 2, 0],
        [1, 1, 1],
        [0, 0, 0],
    ]
    data.eval_loader("val")
    assert capsys.readouterr().err.startswith(
        "data: toy: 8 of 20 train + 3 val images, 3 classes\n"
        "note: toy: 1 of 3 classes (class 2) has no training image, but 1 in val: never right there\n"
    )


def test_the_order_of_what_is_measured_has_a_fingerprint(tmp_path, make_set) -> None:
    one = ShardData(shards=str(make_set(tmp_path / "one", train=[[0, 1] * 20], test=[[0, 1], [1]]))).describe()
    same = ShardData(shards=str(make_set(tmp_path / "same", train=[[0, 1] * 20], test=[[0, 1], [1]]))).describe()
    other = ShardData(shards=str(make_set(tmp_path / "other", train=[[0, 1] * 20], test=[[1, 0], [1]]))).describe()
    assert one["class_names"] == ["0", "1"]
    assert one["order_fingerprints"] == same["order_fingerprints"]
    assert one["order_fingerprints"]["val"] == other["order_fingerprints"]["val"]
    assert one["order_fingerprints"]["test"] != other["order_fingerprints"]["test"]


def test_train_and_validation_share_no_image_and_subsets_are_nested(digits) -> None:
    def seen(split: str, **options) -> set[int]:
        return {int(s) for batch in ShardData(shards=str(digits), **options).eval_loader(split) for s in batch.samples}

    held = seen("val")
    chosen = [seen("train", train_images=n) for n in (10, 100, 1294)] + [seen("train", train_fraction=1.0)]
    assert all(small <= large for small, large in itertools.pairwise(chosen))
    assert [len(c) for c in chosen] == [10, 100, 1294, 1294]
    assert not held & chosen[-1]
    assert len(held | chosen[-1]) == 1438
    assert seen("train", train_images=100, subset_seed=1) != chosen[1]
    assert seen("val", train_images=100, subset_seed=1, seed=4) == held
    assert len(seen("train", train_fraction=0.5)) == 647


def test_a_split_of_its_own_is_validated_on(tmp_path, make_set) -> None:
    data = ShardData(shards=str(make_set(tmp_path, train=[[0, 1] * 10], val=[[0, 1]])), image_size=4)
    assert (data.train_count, data.val_count, data.test_count) == (20, 2, 0)
    with pytest.raises(ValueError, match="toy has no test images; its shards hold train, val"):
        data.eval_loader("test")


def test_images_become_floats_from_minus_one_to_one(digits) -> None:
    data = ShardData(shards=str(digits))
    batch = next(iter(data.test_dataloader()))
    floats = data.on_after_batch_transfer(batch, 0).images
    assert (floats.dtype, floats.is_contiguous()) == (torch.float32, True)
    assert torch.equal(floats, (batch.images.float() - 127.5) / 127.5)
    assert floats.aminmax() == (-1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": "nosuch"}, r"data\.shards is 'nosuch': no embedded source .*digits"),
        ({"mix": "blend"}, "data.mix is 'blend'; allowed: none, mixup, cutmix, mixup_cutmix"),
        ({"eval_view": "centre"}, "data.eval_view is 'centre'; allowed: resize, crop"),
        ({"reader": "fast"}, "data.reader is 'fast'; allowed: auto, cache, local, stream"),
        ({"shards": "ftp://host/set"}, "ftp: is not opened"),
        ({"train_images": 100, "train_fraction": 0.1}, "say the same thing twice"),
        ({"train_fraction": 0.0}, r"train_fraction is 0\.0; it must be more than 0"),
        ({"train_fraction": 1.5}, r"train_fraction is 1\.5"),
        ({"val_fraction": 1.0}, r"val_fraction is 1\.0"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"workers": -1}, r"data\.workers is -1"),
        ({"image_size": 0}, r"data\.image_size is 0"),
        ({"augment": "mixup"}, "data.augment is 'mixup'; allowed: none, crop, flip, crop_flip, inception, randaugment"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(digits, tmp_path, monkeypatch, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        ShardData(**{"shards": str(digits)} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": "./nosuch"}, r"there is no directory nosuch; make one with `vitexp shards make"),
        ({"train_images": 1295}, "is 1295, but there are 1294 images"),
        ({"train_images": 9}, "cannot hold all 10 classes"),
        ({"augment": "crop", "image_size": 7}, "crop has no effect on images of 7 pixels"),
    ],
)
def test_what_the_set_refuses_is_said_when_it_is_opened(digits, tmp_path, monkeypatch, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    data = ShardData(**{"shards": str(digits)} | options)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            data.prepare_data()


def test_images_of_several_sizes_need_a_size(tmp_path, write_tar, png) -> None:
    members = [m for i in range(4) for m in ((f"{i}.png", png(0, 4, 4 + i)), (f"{i}.cls", b"0"))]
    write_tar(tmp_path / "x-train-0.tar", members)
    with pytest.raises(ValueError, match=r"not all squares of one size; set data\.image_size"):
        ShardData(shards=str(tmp_path)).setup("fit")
    data = ShardData(shards=str(tmp_path), image_size=6, val_fraction=0)
    assert next(iter(data.eval_loader("train"))).images.shape == (4, 3, 6, 6)
    with pytest.raises(ValueError, match="a crop needs them whole; use local"):
        next(
            iter(ShardData(shards=str(tmp_path), image_size=6, augment="inception", reader="cache").train_dataloader())
        )


def test_the_reader_is_named_with_the_reason(digits, caplog) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        ShardData(shards=str(digits)).eval_loader("train")
    assert "digits train: cache reader" in caplog.text


class TestResume:
    """A run that goes on from the checkpoint of any step ends with the weights of one that was never stopped."""

    @pytest.mark.parametrize(
        "options",
        [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 0.5}],
        ids=["plain", "accumulating", "validating within the epoch"],
    )
    def test_from_every_step(self, digits, tmp_path, options) -> None:
        whole = fit(tmp_path, data_of(digits), **options)
        checkpoints = sorted(tmp_path.glob("*.ckpt"))
        assert len(checkpoints) == 9 if not options.get("accumulate_grad_batches") else 6
        for checkpoint in checkpoints:
            rest = fit(tmp_path / "rest", data_of(digits), checkpoint, **options)
            assert rest.seen == whole.seen[len(whole.seen) - len(rest.seen) :]
            assert torch.equal(rest.layer.weight, whole.layer.weight)
            assert len(rest.seen) < 9

    def test_from_every_step_of_a_resumed_run(self, digits, tmp_path) -> None:
        """Two interruptions, the first of them also where an epoch ends."""
        whole = fit(tmp_path, data_of(digits))
        for first in range(1, 9):
            fit(tmp_path / f"{first}", data_of(digits), tmp_path / f"step={first}.ckpt")
            for second in range(first + 1, 9):
                rest = fit(tmp_path / "rest", data_of(digits), tmp_path / f"{first}" / f"step={second}.ckpt")
                assert rest.seen == whole.seen[second:], (first, second)
                assert torch.equal(rest.layer.weight, whole.layer.weight)

    @pytest.mark.parametrize("on_train_end", [True, False])
    def test_from_the_end_of_an_epoch(self, digits, tmp_path, on_train_end) -> None:
        every = ModelCheckpoint(tmp_path / "e", "{epoch}", save_top_k=-1, save_on_train_epoch_end=on_train_end)
        whole = fit(tmp_path, data_of(digits), callbacks=[every])
        for epoch in range(3):
            again = ModelCheckpoint(tmp_path / "f", "{epoch}", save_top_k=-1, save_on_train_epoch_end=on_train_end)
            rest = fit(tmp_path / "rest", data_of(digits), tmp_path / "e" / f"epoch={epoch}.ckpt", [again])
            assert rest.seen == whole.seen[3 * epoch + 3 :]
            assert torch.equal(rest.layer.weight, whole.layer.weight)

    def test_with_other_workers_and_readers(self, digits, tmp_path) -> None:
        whole = fit(tmp_path, data_of(digits))
        for options in ({"workers": 2}, {"workers": 1, "reader": "local"}):
            rest = fit(tmp_path / "rest", data_of(digits, **options), tmp_path / "step=4.ckpt")
            assert rest.seen == whole.seen[4:]
            assert torch.equal(rest.layer.weight, whole.layer.weight)

    @pytest.mark.parametrize(
        "options",
        [
            {"seed": 4},
            {"batch_size": 64},
            {"train_images": 331},
            {"augment": "flip"},
            {"subset_seed": 1},
            {"mix": "mixup"},
        ],
    )
    def test_other_batches_are_refused(self, digits, tmp_path, options) -> None:
        fit(tmp_path, data_of(digits), max_steps=1)
        with pytest.raises(ValueError, match=r"the checkpoint was made with .*; use the same data options to resume"):
            fit(tmp_path, data_of(digits, **options), tmp_path / "step=1.ckpt")


def test_training_on_goes_on_with_the_next_epoch(digits, tmp_path) -> None:
    """A second fit without a checkpoint, with more epochs, sees what a single one would have seen."""
    whole = fit(tmp_path, data_of(digits))
    probe, data = Probe(), data_of(digits)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(**silent, max_epochs=1, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.fit(probe, data)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(probe, data)
    assert probe.seen == whole.seen


def test_training_images_are_mixed_and_no_others(digits) -> None:
    plain, mixing = data_of(digits, augment="none"), data_of(digits, augment="none", mix="mixup_cutmix")
    for one, other in zip(plain.train_dataloader(), mixing.train_dataloader(), strict=True):
        assert torch.equal(one.samples, other.samples)
        images = plain.on_after_batch_transfer(one, 0).images
        assert torch.equal(mixing.on_after_batch_transfer(other, 0).images, mixed(images, other.recipe))
        assert (images != mixed(images, other.recipe)).any((1, 2, 3)).float().mean() > 0.9
    for one, other in zip(plain.val_dataloader(), mixing.val_dataloader(), strict=True):
        assert torch.equal(
            plain.on_after_batch_transfer(one, 0).images, mixing.on_after_batch_transfer(other, 0).images
        )


def test_the_options_are_hyperparameters_and_make_the_same_data_again(digits, tmp_path) -> None:
    options = {"shards": str(digits), "train_images": 330, "augment": "flip", "seed": 3, "batch_size": 50}
    data = ShardData(**options)
    arguments = set(inspect.signature(ShardData).parameters) - {"augmentation"}
    assert set(data.hparams) == arguments | {field.name for field in fields(Augmentation)}
    assert dict(data.hparams) == dict(ShardData(**data.hparams).hparams) == dict(data.hparams) | options
    fit(tmp_path, data, max_steps=1)
    again = ShardData.load_from_checkpoint(tmp_path / "step=1.ckpt")
    assert again.hparams == data.hparams
    assert again.describe() == data.describe()


def test_data_in_use_can_be_sent_to_another_process(digits) -> None:
    data = data_of(digits, workers=1)
    first = next(iter(data.train_dataloader()))
    again = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert again._opened is None
    assert again.describe() == data.describe()
    assert all(map(torch.equal, first[:3], next(iter(again.train_dataloader()))[:3]))
    data.teardown("fit")
    again.teardown("fit")


def test_without_validation_images_there_is_no_validation(digits, tmp_path) -> None:
    probe = fit(tmp_path, data_of(digits, val_fraction=0), max_epochs=1)
    assert len(probe.seen) == 3


def test_a_batch_that_does_not_divide_is_refused(digits) -> None:
    data = data_of(digits, batch_size=129)
    data.trainer = L.Trainer(
        accelerator="cpu", devices=2, logger=False, enable_checkpointing=False, strategy="ddp_spawn"
    )
    with pytest.raises(ValueError, match=r"the global batch, 129, and must divide by the 2 ranks"):
        data.train_dataloader()


def test_epochs_repeat_no_order_and_every_epoch_is_whole(digits, tmp_path) -> None:
    probe = fit(tmp_path, data_of(digits))
    epochs = [[s for epoch, _, samples in probe.seen if epoch == e for s in samples] for e in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(epochs[0])) == len(epochs[0]) == 330
