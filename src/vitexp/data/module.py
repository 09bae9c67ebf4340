"""Shards as a LightningDataModule: exact epochs and subsets, the same batches on any number of ranks and workers."""

import hashlib
import sys
import weakref
from collections.abc import Callable
from functools import partialmethod
from typing import Any, Literal, get_args

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before lightning)
import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from vitexp.data.augmentation import Augment, Augmentation, Mix
from vitexp.data.batch import Batch, Batches, BatchLoader, default_workers, settle
from vitexp.data.info import class_notes
from vitexp.data.mixing import mixed
from vitexp.data.opened import DrawSeed, OpenedSet, SubsetOptions, check_location, check_val_seed, open_set
from vitexp.data.order import EpochOrder, steps
from vitexp.data.reader import Reader, ReaderName, choose_reader
from vitexp.data.shards.index import ShardIndex
from vitexp.data.views import EvalKind, View

Split = Literal["train", "val", "test"]


class ShardData(L.LightningDataModule):
    """A directory of WebDataset shards, or a set at a URL, for `Trainer.fit`, `validate`, `test` and `predict`.

    An epoch is exactly the chosen images, each once; the global batches depend on nothing but the seed and the data,
    not on the number of ranks, workers or the reader. Batches are `vitexp.data.batch.Batch`, whose first two items are
    images and labels: `images, labels = batch[:2]` in any LightningModule.

    The constructor touches neither disk nor network. `prepare_data` makes or fetches what is missing, `setup` opens the
    set; an attribute that needs the set, such as `classes` or `size`, does both on first use.

    Args:
        shards: A directory of shards, the URL of a set with its name, or the name of an embedded source (`digits`,
            `drawn-digits`, ...), which is written to shards/NAME on first use.
        batch_size: Images in one training step, over all ranks together.
        image_size: Height and width in pixels that the network sees; null takes the images' own, where they all have
            one.
        train_images: Train on that many images, class-stratified; fewer are always a subset of more.
        train_fraction: The same as a fraction of the images there are to train on, more than 0 and at most 1.
        val_fraction: The part of train that is held out for validation, where the shards have no val split of their
            own; at least 0 and less than 1.
        augment: What is done to training images: padded crops, flips, both, Inception crops, or these and RandAugment.
        mix: How the training images of a pair are mixed with each other: mixup, cutmix, or a random one of the two.
        eval_view: What is measured: the whole image resized, or the square in its middle.
        workers: Processes that prepare batches; 0 does it in the training process. Changes no batch. Null is 0 where
            pixels are cached or the run trains on the CPU, and else the rank's cores but one, up to 8.
        reader: Decoded pixels in a cache, single reads from local shards, or whole shards streamed from a URL; auto
            chooses.
        subset_seed: Which images train_images and train_fraction choose; with follow each seed_everything chooses its
            own.
        val_seed: Which images val_fraction holds out; with follow each seed_everything holds out its own.
        seed: Of order and augmentation; follows seed_everything.
        augmentation: How strongly images are augmented and mixed: the options of `Augmentation`.

    Raises:
        ValueError: For an option that no set could satisfy at once; for a set that is missing, damaged or too small for
            the options on first use. Each message names the option or the file and says what to do.
    """

    def __init__(
        self,
        *,
        shards: str = "digits",
        batch_size: int = 128,
        image_size: int | None = None,
        train_images: int | None = None,
        train_fraction: float | None = None,
        val_fraction: float = 0.1,
        augment: Augment = "none",
        mix: Mix = "none",
        eval_view: EvalKind = "resize",
        workers: int | None = None,
        reader: ReaderName = "auto",
        subset_seed: DrawSeed = 0,
        val_seed: DrawSeed = 0,
        seed: int = 0,
        **augmentation: Any,
    ) -> None:
        super().__init__()
        self.augmentation = Augmentation.of(**augmentation)
        augmentation |= vars(self.augmentation)  # in the hyper-parameters too
        self.save_hyperparameters(logger=False)  # loggers get the complete config of a run, not a part of it
        for option, least in {"batch_size": 1, "workers": 0, "image_size": 1}.items():
            if self.hparams[option] is not None and self.hparams[option] < least:
                raise ValueError(f"data.{option} is {self.hparams[option]}; at least {least} is needed")
        for option, allowed in {"mix": Mix, "augment": Augment, "eval_view": EvalKind, "reader": ReaderName}.items():
            if self.hparams[option] not in get_args(allowed):
                raise ValueError(f"data.{option} is {self.hparams[option]!r}; allowed: {', '.join(get_args(allowed))}")
        self.augmentation.check(augment, mix)
        check_location(shards)
        chosen = SubsetOptions(val_fraction, train_images, train_fraction, subset_seed, val_seed)
        self._subset = chosen.drawn_by(seed)
        self.shards, self.image_size = shards, image_size
        self.batch_size, self.workers, self.reader = batch_size, workers, reader
        self.augment, self.mix, self.eval_view, self.seed = augment, mix, eval_view, seed
        self._announced = False
        self._opened: OpenedSet | None = None
        self._readers: dict[str, Reader] = {}
        self._loaders: list[weakref.ref[BatchLoader]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without what each process opens for itself."""
        return vars(self) | {"_opened": None, "_readers": {}, "_loaders": []}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.hparams.items())})"

    __str__ = __repr__  # Lightning's own would open the set and read batches

    def prepare_data(self) -> None:
        """Makes or fetches what is missing: the shards of an embedded source, an index, the index of a set at a URL.

        Lightning calls it on one rank; others that come first wait for each other at a lock, and find the work done.
        """
        self.opened  # noqa: B018

    def setup(self, stage: str) -> None:
        """Opens the set. Without validation images there is no validation: Lightning would warn of an empty loader."""
        if not self.val_count and stage == "fit" and self.trainer:
            self.trainer.limit_val_batches = 0

    def teardown(self, stage: str) -> None:
        """Ends the worker processes of this stage."""
        for loader in filter(None, (held() for held in self._loaders)):
            loader.close()
        self._loaders.clear()

    @property
    def opened(self) -> OpenedSet:
        """The set, opened on first use."""
        if self._opened is None:
            opened = self._open()
            self._view(opened.size)  # refuses a view that is impossible at this size
            check_val_seed(opened, self.hparams["val_seed"])
            self._opened = opened
        return self._opened

    def _open(self) -> OpenedSet:
        return open_set(self.shards, self.image_size, self._subset)

    def _view(self, size: int) -> View:
        return View(size, self.augment, self.eval_view, self.seed, self.augmentation)

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning has an attribute here that it does not use
        """The name of the set."""
        return self.opened.name

    @property
    def classes(self) -> int:
        """How many classes the set has, over all its splits."""
        return self.opened.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by their labels, which count from 0; their numbers as text where none are given."""
        return self.opened.class_names

    @property
    def size(self) -> int:
        """Height and width in pixels of the images in a batch."""
        return self.opened.size

    @property
    def subset_fingerprint(self) -> str:
        """16 hexadecimal digits of which images are trained on, with which labels."""
        return self.opened.subset_fingerprint

    @property
    def train_count(self) -> int:
        """Images in an epoch."""
        return len(self.opened.rows["train"])

    @property
    def val_count(self) -> int:
        """Images to choose by; 0 where there are none."""
        return self.count("val")

    @property
    def test_count(self) -> int:
        """Images to report by; 0 where there are none."""
        return self.count("test")

    def count(self, split: str) -> int:
        """Images of a split; 0 where there are none."""
        return len(self.opened.rows.get(split, ()))

    def index_of(self, split: str) -> ShardIndex:
        """The shards that the images of a split lie in: a held-out validation slice lies in those of train."""
        if self.opened.published:
            raise ValueError(f"{self.opened.published}; there are no images to train on or to measure")
        return self.opened.indexes.get(split, self.opened.indexes["train"])

    def samples(self, split: str) -> np.ndarray:
        """The numbers of a split's images among those of its shards, ascending."""
        return self.opened.rows[split]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one may hold fewer images."""
        return steps(self.train_count, self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What a run record keeps about its data."""
        measured = [split for split in ("val", "test") if self.count(split) and not self.opened.published]
        return {
            "name": self.name,
            "classes": self.classes,
            "class_names": list(self.class_names),
            "image_size": self.size,
            "train_images": self.train_count,
            "val_images": self.val_count,
            "test_images": self.test_count,
            "subset_fingerprint": self.subset_fingerprint,
            "shards_fingerprint": self.opened.shards_fingerprint,
            "order_fingerprints": {split: self.order_fingerprint(split) for split in measured},
        }

    def labels(self, split: str) -> np.ndarray:
        """The labels of a split's images, as `samples`: from the index; no image is read."""
        return self.index_of(split).labels[self.samples(split)] if self.count(split) else np.empty(0, np.int64)

    def class_counts(self, split: Split) -> np.ndarray:
        """How many images of each class a split has, of those that are used: int64 (classes,)."""
        return np.bincount(self.labels(split), minlength=self.classes)

    def order_fingerprint(self, split: str, samples: np.ndarray | None = None) -> str:
        """16 hexadecimal digits of which images are measured in which order: all of a split, or those of them given."""
        numbers = self.samples(split) if samples is None else samples
        digest = hashlib.sha256(f"{self.index_of(split).fingerprint}:".encode())
        digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        return digest.hexdigest()[:16]

    def _announce(self) -> None:
        """Prints once, on rank 0, how many images are used for what, and what is odd about their classes."""
        if self._announced or getattr(rank_zero_only, "rank", False):
            return
        self._announced = True
        held_out = 0 if "val" in self.opened.indexes else self.val_count
        whole = len(self.index_of("train")) - held_out
        parts = [f"{self.train_count:,} {f'of {whole:,} ' if whole > self.train_count else ''}train"]
        parts += [f"{self.val_count:,} val{' (held out of train)' if held_out else ''}"] if self.val_count else []
        parts += [f"{self.test_count:,} test"] if self.test_count else []
        classes = f"{self.classes:,} {'class' if self.classes == 1 else 'classes'}"
        counts = {split: self.class_counts(split) for split in get_args(Split) if self.count(split)}
        lines = [f"data: {self.name}: {' + '.join(parts)} images, {classes}"]
        lines += [f"note: {self.name}: {note}" for note in class_notes(self.class_names, counts)]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def train_dataloader(self) -> BatchLoader:
        """The training batches of this rank."""
        ranks = self.trainer.world_size if self.trainer else 1
        if self.batch_size % ranks:
            raise ValueError(
                f"data.batch_size is the global batch, {self.batch_size}, and must divide by the {ranks} ranks"
            )
        if self.trainer:
            settle(self.trainer.fit_loop)  # the first hook that the loop calls after a checkpoint is loaded
        return self._loader("train", self._place)

    def eval_loader(self, split: Split, samples: np.ndarray | None = None) -> BatchLoader:
        """The images of a split in their order, each once, unaugmented; for train those that are trained on.

        `samples` are the numbers of those to read, ascending, where not all are.
        """
        if not self.count(split):
            raise ValueError(f"{self.name} has no {split} images; its shards hold {', '.join(self.opened.indexes)}")
        return self._loader(split, samples=samples)

    val_dataloader = partialmethod(eval_loader, "val")
    test_dataloader = predict_dataloader = partialmethod(eval_loader, "test")

    def _loader(
        self, split: Split, place: Callable[[], tuple[int, int]] | None = None, samples: np.ndarray | None = None
    ) -> BatchLoader:
        self._announce()
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        index = self.index_of(split)
        if index.split not in self._readers:
            self._readers[index.split], why = choose_reader(index, self._view(self.size), self.reader)
            rank_zero_info(f"{index.name} {index.split}: {why}")
        reader, order = self._readers[index.split], self.epoch_order(split, samples)
        batches = Batches(index, reader, order, self.batch_size, rank, ranks, self.mix, self.augmentation)
        loader = BatchLoader(batches, self._worker_count(reader), place)
        self._loaders.append(weakref.ref(loader))
        return loader

    def _worker_count(self, reader: Reader) -> int:
        if self.workers is not None or not self.trainer:
            return self.workers or 0
        on = self.trainer.strategy.root_device.type
        return default_workers(reader.pixels is not None, on, self.trainer.num_devices)

    def _place(self) -> tuple[int, int]:
        """Epoch and step of the next training batch, by Lightning's count, which a checkpoint restores."""
        if not self.trainer:
            return 0, 0
        loop: Any = self.trainer.fit_loop
        return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready

    def epoch_order(self, split: str, samples: np.ndarray | None = None) -> EpochOrder:
        """Which image of a split, or of some of its samples, comes when, in every epoch."""
        rows = self.samples(split) if samples is None else samples
        return EpochOrder(rows, self.index_of(split).starts, self.seed)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """All but the samples' numbers: only the host reads them, and to fetch them back would wait for the device."""
        if device.type == "cpu":
            return batch
        if device.type == "cuda":  # as workers' are: the host need not wait for a copy from pinned memory
            batch = batch._replace(images=batch.images.pin_memory())
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved._replace(samples=batch.samples)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Bytes to floats in [-1, 1], mixed where asked for, on the device."""
        images = batch.images.to(torch.float32, memory_format=torch.contiguous_format).sub_(127.5).div_(127.5)
        if self.trainer:
            images = self.trainer.precision_plugin.convert_input(images)
        return batch._replace(images=mixed(images, batch.recipe) if batch.recipe else images)

    def state_dict(self) -> dict[str, Any]:
        """What must be the same when a run goes on from a checkpoint."""
        names = ("subset_fingerprint", "batch_size", "augment", "mix", "size", "seed")
        return {name: getattr(self, name) for name in names} | {"augmentation": str(self.augmentation.changed())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises: ValueError when training would go on with other batches than those it began with."""
        if self.trainer and self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name, now in self.state_dict().items():
            if state_dict.get(name, now) != now:
                raise ValueError(
                    f"the checkpoint was made with {name} {state_dict[name]}, this run has {now}; "
                    "use the same data options to resume"
                )
