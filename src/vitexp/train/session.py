"""What the commands fit, validate, test and predict do with the parts of a run, and what they print."""

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from vitexp.data.shards.files import keys_of
from vitexp.metrics import LIMITED, is_learned, is_share, label
from vitexp.nn.arch import parse_arch
from vitexp.nn.config import LATER, ViTConfig
from vitexp.record import RECORD_NAME, RunRecord, open_metrics, read_record, write_atomically
from vitexp.train.answers import class_places, gathered
from vitexp.train.checkpoint import Stop, set_aside
from vitexp.train.compute import matmul_precision, threads, threads_for
from vitexp.train.config import plain
from vitexp.train.ending import INTERRUPTED, exit_code, raised_for
from vitexp.train.evaluators import Evaluators
from vitexp.train.identity import RunIdentity, check_network, check_own, claim, differences, in_words, read_checkpoint
from vitexp.train.initial import NONE
from vitexp.train.loggers import RunLogger, run_loggers, tell_agent
from vitexp.train.module import Classifier
from vitexp.train.recorder import RunRecorder
from vitexp.train.terminal import unbreakable_output
from vitexp.words import listed

if TYPE_CHECKING:
    from vitexp.train.command import TrainingCommand

SPLITS = ("val", "test")
WITHHELD = "kept in the record until `vitexp table` has chosen the arm's values (study.tune)"
_ACCURACIES = {"acc": "accuracy", "colour_acc": "colours right"}
_say = rank_zero_only(print)


def fit(command: "TrainingCommand", **arguments: Any) -> None:
    """Trains unless this very run is finished already; measures; writes the record."""
    trainer: Any = command.trainer
    earlier = command.earlier
    arguments["weights_only"] = True
    if trainer.fast_dev_run:
        trainer.fit(**arguments)
        _say("a trial (trainer.fast_dev_run): nothing was measured for good, and there is no record")
    elif earlier is None or not command.done():
        _train_and_record(command, arguments)
    elif trainer.is_global_zero:
        earlier = replace(earlier, config=earlier.config | {"study": command.parsed["study"]})  # as it is tuned today
        print(f"Finished already on {earlier.finished}; nothing trains. To train again, move its folder away.")
        print(summary(earlier, command.identity, []))
        tell_agent(earlier, command.run, command.identity)


def _train_and_record(command: "TrainingCommand", arguments: dict[str, Any]) -> None:
    recorder: RunRecorder = command.recorder
    trainer: Any = command.trainer
    stop = Stop(trainer, recorder.identity.last_checkpoint if command.run.checkpoint else None)
    trainer.callbacks.append(stop)
    code = 1
    try:
        with stop, unbreakable_output(), _threads(command):
            try:
                _say(opening(command))
                recorder.begin(trainer, command.model, command.datamodule)
                arguments["ckpt_path"] = _resumed_from(command)
                trainer.fit(**arguments)
                _say(summary(recorder.record, recorder.identity, run_loggers(trainer)))
            except BaseException as error:
                code = exit_code(error)
                recorder.on_exception(trainer, command.model, error)
                if code > INTERRUPTED:
                    raise SystemExit(code) from error
                raise raised_for(error, trainer.global_step, recorder.identity.directory) from error
        code = 0
    finally:
        recorder.release()
        if trainer.is_global_zero:
            for logger in run_loggers(trainer):
                logger.finish(code)


def _resumed_from(command: "TrainingCommand") -> str | None:
    """The checkpoint to go on from: `last` is this run's newest, or a fresh start when it left none.

    A run that starts anew, where an unfinished one has left a checkpoint, sets that aside and says so.
    """
    given, last, earlier = command.ckpt_path, command.identity.last_checkpoint, command.earlier
    if command.resumes_own():
        return str(last)
    if given == "last":
        _say(f"no checkpoint in {last.parent} yet: the run begins with step 0")
        return None
    if command.trainer.is_global_zero and last.is_file() and not (given and last.samefile(given)):
        where = f", stopped after step {earlier.steps} of {command.steps()}" if earlier and earlier.steps else ""
        print(
            f"an unfinished run lies here{where}; this one does not continue it (--ckpt_path last would): its "
            f"checkpoint is kept as {set_aside(last)}"
        )
    return None if given is None else str(given)


def opening(command: "TrainingCommand") -> str:
    """The first line of a run: what trains, from which weights if they are given, to which end, on how much."""
    config, data = command.model.config, command.datamodule
    words = [f"{network_words(config)}: {sum(p.numel() for p in command.model.network.parameters()):,} parameters"]
    words += [] if command.run.init == NONE else [f"from {command.run.init}"]
    words += [] if config.objective == "classify" else [f"predicts masked patches ({config.objective})"]
    words += [f"{data.train_count:,} training images of {data.size}x{data.size}", f"{command.steps():,} steps"]
    device, count = command.trainer.strategy.root_device, torch.get_num_threads()
    if device.type == "cpu":
        words += [f"{count} {'thread' if count == 1 else 'threads'} of the CPU"]
    else:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        words += [f"{command.trainer.world_size} x {name}"]
    return ", ".join([*words, f"precision {command.trainer.precision}"])


def _threads(command: "TrainingCommand") -> AbstractContextManager[None]:
    return threads(threads_for(command.run, command.trainer, command.model, command.datamodule))


def network_words(config: ViTConfig) -> str:
    """What a network is, by what it has: a ResNet has no positions and no readout to choose."""
    if parse_arch(config.arch, config.stem).family == "resnet":
        return f"ResNet {config.arch} ({config.resnet})"
    where = f" at {config.pos_at}" if config.pos_embed != "none" else ""
    pattern = [] if config.attention == "full" else [f"{config.attention} attention"]
    words = [f"{config.arch} ({config.stem} stem)", f"position {config.pos_embed}{where}", *pattern, config.pool]
    later = [f"{name} {getattr(config, name)}" for name in LATER if getattr(config, name) != getattr(ViTConfig, name)]
    return ", ".join(words + later)


def summary(record: RunRecord, identity: RunIdentity, loggers: Sequence[RunLogger]) -> str:
    """The last lines of a run: what came out, and where everything is."""
    # before format 2 nobody had counted
    counts = {split: record.data.get(f"{split}_images") if record.format > 1 else None for split in SPLITS}
    lines = [(record.status, record.reason)] if record.reason else []
    lines += [("record", str(identity.directory / RECORD_NAME))]
    if "checkpoint" in record.files:
        lines += [("checkpoint", str(identity.directory / record.files["checkpoint"]))]
    lines += [place for logger in loggers if (place := logger.describe())]
    shown = open_metrics(record.metrics, record.config)
    if len(shown) < len(record.metrics):
        lines = [("test", WITHHELD), *lines]
    return "\n".join(["", *results(shown, counts), *(f"{name:<11} {text}" for name, text in lines)])


def results(metrics: Mapping[str, float], counts: Mapping[str, int | None]) -> list[str]:
    """A line for each number, with the images that it was measured on; `counts` are those of the splits."""
    names = [(split, prefix) for split in SPLITS for prefix in ("", LIMITED) if f"{prefix}{split}_loss" in metrics]
    lines = [_line(metrics, split, prefix, counts.get(split)) for split, prefix in names]
    for name, value in sorted(metrics.items()):
        if name.startswith("fewshot_") and not name.endswith("_images"):
            images = metrics.get(f"{name}_images")
            few = f" on {images:.0f} images: a class with fewer gave all it has" if images is not None else ""
            shots = f"{name.removeprefix('fewshot_')}-shot"
            lines.append(f"{shots:<11} accuracy {100 * value:.2f} %   (linear probe{few})")
        elif is_learned(name):
            shown = f"{100 * value:.2f} %" if is_share(name) else f"{value:.4g}"
            lines.append(f"{'test':<11} {label(name)} {shown}")
    return lines


def _line(metrics: Mapping[str, float], split: str, prefix: str, count: int | None) -> str:
    found = {words: metrics.get(f"{prefix}{split}_{name}") for name, words in _ACCURACIES.items()}
    shares = "".join(f"{words} {100 * value:.2f} %   " for words, value in found.items() if value is not None)
    loss = f"loss {metrics[f'{prefix}{split}_loss']:.4f}"
    measured = f"only {metrics[f'{prefix}{split}_images']:.0f} of " if prefix else ""
    return f"{split:<11} {shares}{loss}" + (f"   ({measured}{count} images)" if count is not None else "")


def measure(command: "TrainingCommand", verb: str, **arguments: Any) -> None:
    """validate or test: measures the weights given or else this run's own last ones; prints, and writes nothing."""
    module = _take_checkpoint(command, arguments)
    with matmul_precision(command.run.matmul_precision), _threads(command):
        getattr(command.trainer, verb)(**arguments)
        own: dict[str, float] = {}
        if verb == "test" and command.run.evaluators:
            own = Evaluators(command.run).measure(command.trainer, module, command.datamodule)
    counts: dict[str, int | None] = {split: command.datamodule.count(split) for split in SPLITS}
    _say("\n".join(results(module.measurements | own, counts)) or f"{verb} measured no image")


def predict(command: "TrainingCommand", **arguments: Any) -> None:
    """Writes `predictions.csv`: a line per test image, with its label, the class predicted, and all probabilities."""
    data, path = command.datamodule, command.identity.directory / "predictions.csv"
    module = _take_checkpoint(command, arguments)
    with matmul_precision(command.run.matmul_precision), _threads(command):
        rows = gathered(list(command.trainer.predict(**arguments | {"return_predictions": True}) or []))
    samples, labels, chances = (
        torch.cat([row[name] for row in rows]) for name in ("samples", "labels", "probabilities")
    )
    order = samples.argsort()
    text = io.StringIO()
    writer = csv.writer(text)
    names = module.class_names or data.class_names
    writer.writerow(["sample", "key", "label", "predicted", *(f"p_{name}" for name in names)])
    for key, i in zip(keys_of(data.index_of("test"), samples[order].numpy()), order.tolist(), strict=True):
        shares = [f"{share:.6f}" for share in chances[i].tolist()]
        writer.writerow([int(samples[i]), key, int(labels[i]), int(chances[i].argmax()), *shares])
    write_atomically(path, text.getvalue())
    _say(f"predictions {path}")


def _take_checkpoint(command: "TrainingCommand", arguments: dict[str, Any]) -> Classifier:
    """The checkpoint that is measured goes into the arguments, with a network that has its classes."""
    path = _checkpoint_of(command)
    arguments |= {"ckpt_path": path, "weights_only": True, "model": _with_classes(command, path)}
    return arguments["model"]


def _checkpoint_of(command: "TrainingCommand") -> str:
    """The checkpoint to read: never fresh random weights without a word, and never another network's.

    Raises: ValueError when none is given and this run has left none, or when it holds another network.
    """
    given, identity = command.ckpt_path, command.identity
    if given and given != "last":
        check_network(given, plain(command.model.config), command.model.average is not None)
        return str(given)
    earlier, last = claim(identity, command.datamodule.describe()), identity.last_checkpoint
    if not last.is_file():
        raise ValueError(
            f"this config has no trained weights: no {last} (fingerprint {identity.fingerprint}){_nearest(identity)}; "
            "train it with `vitexp fit`, or give --ckpt_path"
        )
    check_own(last, identity.config)
    if earlier is not None and earlier.status != "finished":
        _say(f"this run is {earlier.status}, not finished: measuring its newest checkpoint")
    return str(last)


def _nearest(identity: RunIdentity) -> str:
    """The run of the same study that differs in the fewest options, and in which."""
    folder = identity.directory
    if folder.parts[-3:-1] != (identity.study, identity.cell):
        return ""  # a folder of its own, which says nothing of where others lie
    apart = {}
    for path in sorted(folder.parent.parent.glob(f"*/*/{RECORD_NAME}")):
        with contextlib.suppress(ValueError, OSError):
            apart[path.parent] = differences(read_record(path).config, identity.config)
    if not apart:
        return ""
    nearest = min(apart, key=lambda place: len(apart[place]))
    return f"; the nearest run, {nearest}, is another: here {in_words(apart[nearest])}"


def _with_classes(command: "TrainingCommand", path: str) -> Classifier:
    """A module with the classes of the checkpoint, which answers for the labels of the data by the classes' names.

    Raises: ValueError when the data have a class that the network does not know, or nobody can tell.
    """
    module, data, kept = command.model, command.datamodule, read_checkpoint(path)["vitexp"]
    if module.masked is not None or not isinstance(kept, dict) or "model" not in kept:
        return module
    count, names = int(kept["model"]["classes"]), kept.get("classes")
    if names is None:
        if count != data.classes:
            raise ValueError(
                f"{path} keeps no class names, and its network has {count} classes where {data.name} has "
                f"{data.classes}; measure it on a set with the classes it was trained on"
            )
        _say(f"{path} keeps no class names: classes are matched by number, which nobody can check")
        return module
    places = class_places(names, data.class_names, str(data.name), path)
    if count != module.config.classes:
        module = Classifier(**(plain(module.config) | {"classes": count}))
    module.class_names = tuple(names)
    module.places = torch.tensor(places)
    absent = [name for place, name in enumerate(names) if place not in places]
    order = ", in another order" if places != sorted(places) else ""
    lacks = f"; {data.name} has no {listed(absent)}" if absent else ""
    _say(f"classes are matched by name: {len(places)} of {len(names)}{order}{lacks}")
    return module
