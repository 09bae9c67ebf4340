"""All options of Lightning's trainer: honoured, neutral, or refused with what to use instead.

Each option stands in one of the three, and a test walks the parser's own list, so that a new one of a later release has
to be placed. Those that change no number are the `trainer.` ones of `vitexp.neutral`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment

from vitexp.data.module import ShardData
from vitexp.data.order import steps
from vitexp.train.config import ClassifyConfig, RunConfig
from vitexp.train.own_parts import switches


class Limits(NamedTuple):
    """How long a run is: batches, optimizer steps and images, as these options of the trainer limit them."""

    max_epochs: int | None
    max_steps: int
    accumulate_grad_batches: int = 1
    limit_train_batches: int | float | None = None

    @classmethod
    def of(cls, options: Any) -> "Limits":
        """From the parsed options, or from the trainer that was built from them."""
        get = options.__getitem__ if hasattr(options, "__getitem__") else options.__getattribute__
        return cls(*map(get, cls._fields))

    def batches(self, data: ShardData) -> int:
        """Training batches of an epoch."""
        return limited(data.steps_per_epoch, self.limit_train_batches)

    def steps_per_epoch(self, data: ShardData) -> int:
        """Optimizer steps of an epoch; its last one takes what batches are left."""
        return -(-self.batches(data) // self.accumulate_grad_batches)

    def steps(self, data: ShardData) -> int:
        """Optimizer steps of the run. Raises: ValueError when there is no end, or no step."""
        ends = {"max_epochs": None if self.max_epochs is None else self.max_epochs * self.steps_per_epoch(data)}
        ends["max_steps"] = self.max_steps
        given = {name: steps for name, steps in ends.items() if steps is not None and getattr(self, name) >= 0}
        if not given:
            raise ValueError("the run has no end: give --trainer.max_epochs or --trainer.max_steps")
        shortest = min(given, key=lambda name: given[name])
        if not given[shortest]:
            why = shortest if not getattr(self, shortest) else "limit_train_batches"
            raise ValueError(
                f"trainer.{why} is {getattr(self, why)}, so no step would be taken, and an untrained network is no "
                f"run; give a trainer.{why} that trains"
            )
        return given[shortest]

    def images(self, data: ShardData, steps: int) -> int:
        """Images that this many steps see, repeats included."""
        epochs, left = divmod(steps, self.steps_per_epoch(data))
        batches = (self.batches(data), left * self.accumulate_grad_batches)
        each, rest = (min(count * data.batch_size, data.train_count) for count in batches)
        return epochs * each + rest


def limited(batches: int, limit: int | float | None) -> int:
    """Batches that are left of an epoch or a split. Source: Lightning takes a fraction as a share, and rounds down."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


# On SLURM, Lightning's own environment says which rank this is and where the others are; its requeueing stays off.
# That would save a checkpoint inside a signal handler, in the middle of whatever step is being taken, so that no
# exact resume is possible; and it would save it in the working folder, from which any other run would then go on. The
# job script requeues instead (experiments/slurm.sbatch), and the run goes on from its own last checkpoint.


def environment(chosen: Sequence[Any]) -> list[ClusterEnvironment]:
    """The plugin that a task started by srun needs, unless the `chosen` plugins hold an environment already."""
    if any(isinstance(plugin, ClusterEnvironment) for plugin in chosen) or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def check_shots(run: RunConfig, data: ShardData) -> None:
    """Raises: ValueError when a class has fewer training images than the few-shot probe draws."""
    if run.fewer_shots or not (run.shots and data.test_count):
        return
    if data.opened.published:
        return  # a size says nothing of the single classes
    counts, most = data.class_counts("train"), max(run.shots)
    fewest = int(counts.argmin())
    if counts[fewest] < most:
        possible = [shots for shots in run.shots if shots <= counts[fewest]]
        raise ValueError(
            f"run.shots asks for {most} images of each class, but class {data.class_names[fewest]} has "
            f"{counts[fewest]} of the {data.train_count} training images; give --run.shots {possible}, more images, or "
            "--run.fewer_shots true to take what a class has"
        )


SHOWN: dict[str, Any] = {
    "max_epochs": None,
    "max_steps": -1,
    "min_epochs": None,  # early stopping waits for these two
    "min_steps": None,
    "accumulate_grad_batches": 1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,  # a number from fewer images is called limited_val_acc
    "limit_test_batches": 1.0,
    "val_check_interval": 1.0,  # when validation comes: run.keep best and early stopping choose by it
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
}
"""Options that count and that a trainer shows, as it has them where a config leaves them unset."""
HONOURED = {*SHOWN, "precision", "deterministic", "benchmark", "inference_mode", "fast_dev_run"}
"""Options that do what they say, and count."""

REFUSED: dict[str, tuple[Any, str]] = {
    "gradient_clip_val": (None, "set model.clip_norm instead, which clips the same norm on any number of devices"),
    "gradient_clip_algorithm": (None, "model.clip_norm always clips by the global norm"),
    "overfit_batches": (0, "to train on few images give data.train_images; validation and test stay whole"),
    "reload_dataloaders_every_n_epochs": (0, "the order of the images already is another in each epoch"),
    "use_distributed_sampler": (False, "the data are already shared out exactly over the devices"),
    "sync_batchnorm": (False, "no network here computes statistics over the batch"),
    "barebones": (False, "it leaves out the checkpoints and numbers that a run is recorded with"),
    "model_registry": (None, "weights are uploaded nowhere; `vitexp export` writes them"),
}
"""Options that would do nothing, or something that the record could not say: the value that is accepted, and why."""

CALLBACKS = {
    "GradientAccumulationScheduler": "the schedule could not follow it; give trainer.accumulate_grad_batches",
    "LearningRateFinder": "the record could not say which rate was used; tune model.lr with a sweep",
    "BatchSizeFinder": "the record could not say which size was used; give data.batch_size",
}
"""Callbacks of Lightning's that are refused, and what to use instead."""

_LIMITS = {"fit": ("val", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
_WITHOUT = {"val": "data.val_fraction 0", "test": "run.test false", "predict": "another command"}


def check_flags(options: Any) -> None:
    """Raises: ValueError for an option of the trainer, or a callback, that is refused."""
    for name, (accepted, instead) in REFUSED.items():
        if options[name] not in (accepted, None):
            raise ValueError(f"trainer.{name} is {options[name]!r}, which is not used here: {instead}")
    for callback in as_list(options["callbacks"]):
        for kind in type(callback).__mro__:
            if kind.__module__.startswith("lightning.") and kind.__name__ in CALLBACKS:
                raise ValueError(f"the callback {type(callback).__name__} is not used here: {CALLBACKS[kind.__name__]}")
    if options["accumulate_grad_batches"] < 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {options['accumulate_grad_batches']}; give a whole number from 1 on"
        )
    for split in ("train", "val", "test", "predict"):
        limit = options[f"limit_{split}_batches"]
        if limit is not None and not 0 <= limit <= (1 if isinstance(limit, float) else limit):
            raise ValueError(
                f"trainer.limit_{split}_batches is {limit}; give a number of batches, or a share such as 0.5"
            )


def check_computation(options: Any, run: RunConfig, objective: str) -> None:
    """Raises: ValueError for weights kept in half precision, and for an objective that is not compiled."""
    if options["precision"] in ("bf16-true", "16-true"):
        instead = str(options["precision"]).replace("true", "mixed")
        raise ValueError(
            f"trainer.precision {options['precision']} keeps the weights themselves in half precision, where small "
            f"updates are lost to rounding; give {instead}, which keeps them in fp32"
        )
    if run.compile and objective != "classify":
        raise ValueError(f"run.compile has no effect with model.objective {objective}; leave it out")


def check_minimum(options: Any, steps: int) -> None:
    """Raises: ValueError for a least length above that of the run, which would have no effect."""
    epochs, most = options["min_epochs"], options["max_epochs"]
    if epochs and most is not None and 0 <= most < epochs:
        raise ValueError(f"trainer.min_epochs is {epochs}, more than trainer.max_epochs {most}; leave it out")
    if (options["min_steps"] or 0) > steps:
        raise ValueError(f"trainer.min_steps is {options['min_steps']}, but the run has {steps} steps; leave it out")


def check_limits(verb: str, options: Any, data: ShardData, test: bool) -> None:
    """Raises: ValueError when a share leaves nothing of a split that is measured; 0 says that it is left out."""
    images = {"val": data.val_count, "test": data.test_count if test else 0, "predict": data.test_count}
    for split in _LIMITS[verb]:
        limit, batches = options[f"limit_{split}_batches"], steps(images[split], data.batch_size)
        if images[split] and limit != 0 and limited(batches, limit) < 1:
            raise ValueError(
                f"trainer.limit_{split}_batches is {limit}, which leaves none of {batches} batches to measure; give "
                f"more, leave it out, or measure nothing there with {_WITHOUT[split]}"
            )


def check_monitors(options: Any, data: ShardData, objective: str) -> None:
    """Raises: ValueError for a callback that watches a number which no run of this config logs."""
    accuracy = {"classify": ["acc"], "masked_pixels": []}.get(objective, ["colour_acc"])
    batches = steps(data.val_count, data.batch_size)
    prefix = "limited_" if limited(batches, options["limit_val_batches"]) < batches else ""
    known = ["train_loss", *(f"{prefix}val_{name}" for name in [*accuracy, "loss"] if data.val_count)]
    for callback in as_list(options["callbacks"]):
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor not in known:
            raise ValueError(
                f"the callback {type(callback).__name__} watches {monitor!r}, which this run does not log; "
                f"give it one of {', '.join(known)} as monitor"
            )
        if isinstance(callback, EarlyStopping):
            callback.strict = False  # the number is logged, but not yet in an epoch that trainer.max_steps cuts short


def check_keep(keep: str, options: Any, config: ClassifyConfig, data: ShardData) -> None:
    """Raises: ValueError where nothing, or more than one thing, would choose the weights that are kept."""
    others = (StochasticWeightAveraging, WeightAveraging)
    found = [type(one).__name__ for one in as_list(options["callbacks"]) if isinstance(one, others)]
    if found and (keep == "best" or config.polyak or switches(config)):
        mine = f"model.polyak {config.polyak}" if config.polyak else f"model.optimizer {config.optimizer}"
        other = "run.keep best" if keep == "best" else mine
        raise ValueError(f"{found[0]} and {other} both choose the weights that are kept; leave one of them out")
    if keep != "best":
        return
    if not data.val_count:
        raise ValueError("run.keep best chooses by validation images, and there are none; set data.val_fraction")
    limit = options["limit_val_batches"]
    if limit is not None and not (isinstance(limit, float) and limit == 1.0):  # a whole number is a count of batches
        raise ValueError(
            "run.keep best chooses by all validation images, and the trainer limits them; leave out "
            "trainer.limit_val_batches, or keep the last weights"
        )
    if config.objective != "classify":
        raise ValueError("run.keep best chooses by the accuracy over classes; use last where patches are predicted")


def as_list(value: Any) -> list[Any]:
    """An option that takes one part, several, or none."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
