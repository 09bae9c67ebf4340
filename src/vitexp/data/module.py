"""Shards as a LightningDataModule: exact epochs and subsets, the same batches on any number of ranks and workers."""

import hashlib
import sys
import weakref
from typing import Any, Literal, get_args

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before lightning)
import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from vitexp.data.batch import Batch, Batches, BatchLoader, TrainLoader
from vitexp.data.info import class_notes, counts_line
from vitexp.data.locate import open_all
from vitexp.data.mixing import Mix, mixed
from vitexp.data.order import EpochOrder, settle, steps
from vitexp.data.read.reader import Reader, ReaderName, Views, choose_reader
from vitexp.data.shards.index import ShardIndex
from vitexp.data.subset import Wish, select
from vitexp.data.views import Augment, EvalKind, train_view
from vitexp.data.views import eval_view as view_to_measure

Split = Literal["train", "val", "test"]


class ShardData(L.LightningDataModule):
    """Trains and evaluates on a directory of WebDataset shards.

    An epoch is exactly the chosen images, each once; the global batches depend on nothing but the seed and the data.

    Args:
        shards: A directory of shards, the URL of a set with its name, or a bare word naming an embedded source, which
            is written to shards/WORD on first use.
        batch_size: Images in one training step, over all ranks together.
        image_size: Height and width the network sees; null takes the images' own, where they all have one size.
        train_images: Train on that many images, class-stratified; fewer are always a subset of more.
        train_fraction: The same as a fraction of the images there are to train on.
        val_fraction: The part of train that is held out for validation, where the shards have no val split of their
            own.
        augment: What is done to training images: random crop after padding, horizontal flip, both, or Inception crops
            with flip, or these and RandAugment.
        mix: How the training images of a pair are mixed with each other: mixup, cutmix, or either by turns.
        eval_view: What is measured: the whole image resized, or the square in its middle.
        workers: Processes that prepare batches; 0 does it in the training process. Changes no batch.
        reader: Decoded pixels in a cache, single reads from local shards, or whole shards streamed from afar; auto
            chooses.
        subset_seed: Which images train_images and train_fraction choose.
        seed: Of order and augmentation; follows seed_everything.
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
        workers: int = 0,
        reader: ReaderName = "auto",
        subset_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise ValueError(f"data.batch_size is {batch_size} and data.workers {workers}; at least 1 and 0 are needed")
        if mix not in get_args(Mix):
            raise ValueError(f"data.mix is {mix!r}; allowed: {', '.join(get_args(Mix))}")
        self.batch_size, self.workers, self.reader = batch_size, workers, reader
        self._open(shards, image_size, Wish(val_fraction, train_images, train_fraction, subset_seed))
        self.augment, self.mix, self.eval_view, self.seed = augment, mix, eval_view, seed
        self._views = Views(train_view(augment, self.size, seed), view_to_measure(eval_view, self.size))
        self._announced = False
        self._readers: dict[str, Reader] = {}
        self._loaders: weakref.WeakSet[BatchLoader] = weakref.WeakSet()

    def _open(self, shards: str, image_size: int | None, wish: Wish) -> None:
        """The set's facts, and which of its images are used for what."""
        self._indexes = open_all(shards)
        train = self._indexes["train"]
        self.name, self.classes, self.class_names = train.name, train.classes, train.class_names
        self.size, self.shards_fingerprint = size_of(train.name, train.image_size, image_size), train.fingerprint[:16]
        self._held_out = "val" not in self._indexes
        chosen = select(train, wish if self._held_out else wish._replace(val_fraction=None))
        self._rows = {split: np.arange(len(index)) for split, index in self._indexes.items()}
        self._rows |= {"train": chosen.train} | ({"val": chosen.val} if self._held_out else {})
        self.subset_fingerprint = chosen.fingerprint

    @property
    def train_count(self) -> int:
        """Images in an epoch."""
        return len(self._rows["train"])

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
        return len(self._rows.get(split, ()))

    def index_of(self, split: str) -> ShardIndex:
        """The shards that the images of a split lie in."""
        return self._source(split)

    def samples(self, split: str) -> np.ndarray:
        """The numbers of a split's images among those of its shards, ascending."""
        return self._rows[split]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one may hold fewer images."""
        return steps(self.train_count, self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What a run record keeps about its data."""
        return {
            "name": self.name,
            "classes": self.classes,
            "class_names": list(self.class_names),
            "image_size": self.size,
            "train_images": self.train_count,
            "val_images": self.val_count,
            "test_images": self.test_count,
            "subset_fingerprint": self.subset_fingerprint,
            "shards_fingerprint": self.shards_fingerprint,
            "order_fingerprints": {
                split: self.order_fingerprint(split) for split in ("val", "test") if self._has(split)
            },
        }

    def class_counts(self, split: Split) -> np.ndarray:
        """How many images of each class a split has, of those that are used: for train those that are trained on.

        Shapes: int64 (classes,).
        """
        labels = self._source(split).labels[self._rows[split]] if self._has(split) else np.empty(0, np.int64)
        return np.bincount(labels, minlength=self.classes)

    def order_fingerprint(self, split: str, samples: np.ndarray | None = None) -> str:
        """16 hexadecimal digits of which images are measured in which order: the content of a split's shards, and the
        numbers of its images, or of those of them that are given.
        """
        numbers = self.samples(split) if samples is None else samples
        digest = hashlib.sha256(f"{self._source(split).fingerprint}:".encode())
        digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        return digest.hexdigest()[:16]

    def announce(self) -> None:
        """Says once, on the first rank, when the first batches are asked for, how many images are used for what, and
        what is odd about their classes.
        """
        if self._announced or getattr(rank_zero_only, "rank", False):
            return
        self._announced = True
        counts = {split: self.class_counts(split) for split in get_args(Split) if self._has(split)}
        whole = self._available()
        parts = [f"{self.train_count:,} {f'of {whole:,} ' if whole > self.train_count else ''}train"]
        if self.val_count:
            parts.append(f"{self.val_count:,} val{' (held out of train)' if self._held_out else ''}")
        parts += [f"{self.test_count:,} test"] if self.test_count else []
        name = self._indexes["train"].name
        lines = [counts_line(name, parts, self.classes)]
        lines += [f"note: {name}: {note}" for note in class_notes(self.class_names, counts)]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _available(self) -> int:
        """Images to train on, of which a subset may have been chosen."""
        return len(self._indexes["train"]) - (self.val_count if self._held_out else 0)

    def _has(self, split: str) -> bool:
        return len(self._rows.get(split, ())) > 0

    def setup(self, stage: str) -> None:
        """Training without validation images is training without validation; an empty loader would be warned about."""
        if stage == "fit" and self.trainer and not self.val_count:
            self.trainer.limit_val_batches = 0

    def teardown(self, stage: str) -> None:
        """Ends the worker processes of this stage."""
        for loader in list(self._loaders):
            loader.close()

    def train_dataloader(self) -> TrainLoader:
        """The training batches of this rank."""
        ranks = self.trainer.world_size if self.trainer else 1
        if self.batch_size % ranks:
            raise ValueError(
                f"data.batch_size is the global batch, {self.batch_size}, and must divide by the {ranks} ranks"
            )
        if self.trainer:
            settle(self.trainer.fit_loop)  # the first word the loop has for its data after a checkpoint is loaded
        loader = TrainLoader(self._batches("train"), self.workers, self._place, self._pins)
        self._loaders.add(loader)
        return loader

    def val_dataloader(self) -> BatchLoader:
        """The validation images of this rank."""
        return self.eval_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The test images of this rank."""
        return self.eval_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """The test images of this rank."""
        return self.eval_loader("test")

    def eval_loader(self, split: Split) -> BatchLoader:
        """The images of a split in their order, each once, unaugmented; for train those that are trained on."""
        if not self._has(split):
            raise ValueError(f"{self.name} has no {split} images; its shards hold {', '.join(self._indexes)}")
        loader = BatchLoader(self._batches(split), self.workers, pin=self._pins)
        self._loaders.add(loader)
        return loader

    def epoch_order(self, split: str) -> EpochOrder:
        """Which image of a split comes when, in every epoch."""
        return EpochOrder(self._rows[split], self._source(split).starts, self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Bytes to floats in [-1, 1], mixed where asked for, on the device."""
        images = batch.images.to(torch.float32, memory_format=torch.contiguous_format).sub_(127.5).div_(127.5)
        if self.trainer:
            images = self.trainer.precision_plugin.convert_input(images)
        return batch._replace(images=mixed(images, batch.recipe) if batch.recipe else images)

    def state_dict(self) -> dict[str, Any]:
        """What must be the same when a run goes on from a checkpoint."""
        words = ("subset_fingerprint", "batch_size", "augment", "mix", "size", "seed")
        return {word: getattr(self, word) for word in words}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises: ValueError when training would go on with other batches than those it began with."""
        if self.trainer and self.trainer.state.fn != TrainerFn.FITTING:
            return
        for word, now in self.state_dict().items():
            if word in state_dict and state_dict[word] != now:
                raise ValueError(
                    f"the checkpoint was made with {word} {state_dict[word]}, this run has {now}; "
                    "use the same data options to resume"
                )

    @property
    def _pins(self) -> bool:
        return torch.cuda.is_available()

    def _place(self) -> tuple[int, int]:
        """Epoch and step of the next training batch, by Lightning's count, which a checkpoint restores."""
        if not self.trainer:
            return 0, 0
        loop: Any = self.trainer.fit_loop
        return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready

    def _batches(self, split: str) -> Batches:
        self.announce()
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        index = self._source(split)
        order = self.epoch_order(split)
        return Batches(index, self._reader(index), order, self.batch_size, rank, ranks, self.mix)

    def _source(self, split: str) -> ShardIndex:
        """The shards a split comes from: a held-out validation slice lies in those of train."""
        return self._indexes.get(split, self._indexes["train"])

    def _reader(self, index: ShardIndex) -> Reader:
        if index.split not in self._readers:
            self._readers[index.split], why = choose_reader(index, self._views, self.reader)
            rank_zero_info(f"{index.name} {index.split}: {why}")
        return self._readers[index.split]


def size_of(name: str, own: tuple[int, int] | None, image_size: int | None) -> int:
    """Height and width the network sees, by the images' own where they all have one, and by what is asked for."""
    if image_size is not None:
        if image_size < 1:
            raise ValueError(f"data.image_size is {image_size}; at least 1 is needed")
        return image_size
    if own is None or own[0] != own[1]:
        raise ValueError(f"the images of {name} are not all squares of one size; set data.image_size, such as 224")
    return own[0]
