"""fit, validate, test and predict: a parsed config becomes a trained network and a record."""

import contextlib
import json
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from vitexp.data.module import ShardData
from vitexp.lightning_private import option, parser_of, parsers_of, set_parsers
from vitexp.record import RECORD_NAME, read_record
from vitexp.train import session
from vitexp.train import trainer_flags as slurm
from vitexp.train.admission import claim
from vitexp.train.callbacks.bar import Bar
from vitexp.train.callbacks.best import BestWeights, check_averages, validates_all
from vitexp.train.callbacks.checkpoint import AtomicCheckpoints, RunCheckpoint
from vitexp.train.callbacks.probe import FewShotProbe
from vitexp.train.callbacks.record import LAST_CHECKPOINT, RunRecorder
from vitexp.train.config import ClassifyConfig, RunConfig, plain
from vitexp.train.continuation import adopt, check_own, continued, read_origin, with_continued
from vitexp.train.failure import one_sentence
from vitexp.train.initial import begin
from vitexp.train.loggers import build_loggers
from vitexp.train.module import Classifier
from vitexp.train.optim import check_length, settled
from vitexp.train.parser import Parser, plain_words
from vitexp.train.plan import RunPlan, make_plan, plan_of, start_of, train_flops
from vitexp.train.terminal import quieten
from vitexp.train.trainer_flags import (
    Limits,
    as_list,
    check_flags,
    check_limits,
    check_minimum,
    check_monitors,
    check_shots,
    monitored,
)
from vitexp.train.verify_resume import Outline, first_validation

_BUILT: dict[tuple[str, Any], Any] = {}


KIND: ContextVar[type[Classifier]] = ContextVar("kind", default=Classifier)


def classifier(**kwargs: Any) -> Classifier:
    """The module of a run; its flags, with their help, are the fields of `ClassifyConfig`."""
    config = ClassifyConfig(**kwargs)
    return KIND.get()(**vars(config))


class TrainingCommand(LightningCLI):
    """LightningCLI with this project's groups, run directory, loggers and record."""

    def __init__(
        self,
        arguments: Sequence[str],
        groups: dict[str, type],
        *,
        plan_only: bool = False,
        start: bool = True,
        weights: bool = True,
        data: type[ShardData] = ShardData,
    ) -> None:
        self.groups = groups
        self.plan_only = plan_only
        self.start = start and not plan_only
        self.weights = weights
        words, dropped = plain_words(list(arguments))
        self.verb = words[0]
        if dropped:
            print(f"left out {' '.join(dropped)}: W&B's own argument for a resumed sweep run")
        quieten()
        super().__init__(
            classifier,
            data,
            args=words,
            parser_class=Parser,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
        )

    @classmethod
    def prepare(cls, verb: str, groups: dict[str, type]) -> None:
        """Builds the parser of a verb ahead of its use."""
        with contextlib.suppress(ValueError):  # a parser is built before it can refuse a word
            cls([verb, "--no-such-flag"], groups)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one verb that is asked for: building the parsers of all four would take longer than a short plan."""
        return {verb: words for verb, words in LightningCLI.subcommands().items() if verb == self.verb}

    def setup_parser(self, *arguments: Any) -> None:
        """Builds the verb's parser once a process: the cells of a study are forked from one that has it."""
        key = self.verb, self.datamodule_class
        if key not in _BUILT:
            super().setup_parser(*arguments)
            cast(Parser, parser_of(self, self.verb)).read_whole_numbers_first()
            _BUILT[key] = parsers_of(self)
        set_parsers(self, _BUILT[key])

    def _parse_ckpt_path(self) -> None:
        """Takes no options from a checkpoint: Lightning would let those in the file win over the flags."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's and the study's groups, and the facts that the data set tells the network."""
        parser.add_class_arguments(RunConfig, "run")
        for name, group in self.groups.items():
            parser.add_class_arguments(group, name)
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.size", "model.image_size", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def instantiate_classes(self) -> None:
        """Builds data, network and trainer; most plans need no weights, and there the network has none."""
        with torch.device("cpu" if self.weights else "meta"), one_sentence():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer | None:  # type: ignore[override]
        """Plans the run and builds the trainer with its loggers."""
        self.run: RunConfig = option(self, self.config_init, "run")
        chosen = option(self, self.config_init, "trainer")
        check_flags(chosen)
        self.model.configure(settled(self.model.config, self.steps))
        self.plan = self._plan()
        check_limits(str(self.subcommand), chosen, self.datamodule, self.run.test)
        if self.subcommand == "fit":
            self._check_fit(chosen)
        if self.plan_only:
            self.facts, self.outline = self._facts(), self._outline()
            return None
        if chosen["enable_checkpointing"] is False:
            self.run = replace(self.run, checkpoint=False)
        if self.subcommand != "fit" or chosen["fast_dev_run"]:
            return super().instantiate_trainer(**({"logger": False} if chosen["logger"] is None else {}) | kwargs)
        self.earlier = claim(self.plan, self.datamodule.describe())  # before a logger writes into the folder
        if self.resumes_own() and not self.done():
            check_own(read_origin(self.last_checkpoint), self.plan.config)
        if chosen["logger"] is None:
            kwargs["logger"] = False if self.done() else self._loggers()
        plugins = as_list(chosen["plugins"])
        kwargs["plugins"] = [*plugins, AtomicCheckpoints(), *slurm.environment(plugins)]
        kwargs["default_root_dir"] = chosen["default_root_dir"] or str(self.plan.directory)
        self.recorder = RunRecorder(self.plan, self.run, self.save_config)
        # first, before the checkpoints, which hold what it has collected
        kwargs["callbacks"] = [self.recorder, *as_list(chosen["callbacks"]), *self._callbacks(chosen)]
        if not self.start:
            left_out = ("callbacks", "logger") if chosen["logger"] is None else ("callbacks",)
            self.trainer_options = {k: v for k, v in {**chosen, **kwargs}.items() if k not in left_out}
            self.callbacks = kwargs["callbacks"][1:]
            return None
        return super().instantiate_trainer(**kwargs)

    def check_start(self) -> None:
        """Any start will do: a seed, or given weights."""

    def _check_fit(self, chosen: Any) -> None:
        """What training needs, and the weights it begins with."""
        self.check_start()
        known = monitored(chosen, self.datamodule, self.model.config.objective)
        check_monitors(as_list(chosen["callbacks"]), known)
        if not chosen["fast_dev_run"]:
            check_length(self.model.config, self.steps())
            check_minimum(chosen, self.steps())
            check_shots(self.run, self.datamodule)
        check_averages(chosen["callbacks"], self.run.keep, self.model.config.polyak)
        if self.run.keep == "best" and not self.datamodule.val_count:
            raise ValueError("run.keep best chooses by validation images, and there are none; set data.val_fraction")
        if self.run.keep == "best" and not validates_all(chosen):
            raise ValueError(
                "run.keep best chooses by all validation images, and the trainer limits them; leave out "
                "trainer.limit_val_batches and trainer.overfit_batches, or keep the last weights"
            )
        if self.run.keep == "best" and self.model.masked is not None:
            raise ValueError("run.keep best chooses by the accuracy over classes; use last where patches are predicted")
        if self.weights:
            begin(self.model, self.run.init, self.run.download, quiet=self.plan_only)

    def after_instantiate_classes(self) -> None:
        """Ends here when nothing is to run."""
        if not self.start:
            self.subcommand = None

    def fit(self, **arguments: Any) -> None:
        """Trains, measures, and writes the record."""
        session.fit(self, arguments)

    def validate(self, **arguments: Any) -> None:
        """Measures the validation slice with kept weights."""
        session.measure(self, "validate", arguments)

    def test(self, **arguments: Any) -> None:
        """Measures the test split with kept weights."""
        session.measure(self, "test", arguments)

    def predict(self, **arguments: Any) -> None:
        """Writes class probabilities of the test split as CSV."""
        session.predict(self, arguments)

    @property
    def last_checkpoint(self) -> Path:
        """Where this run's newest checkpoint lies."""
        return self.plan.directory / LAST_CHECKPOINT

    @property
    def study(self) -> str:
        """The study this run belongs to."""
        return str(option(self, self.config, "study")["name"])

    def done(self) -> bool:
        """Whether this very run has finished before."""
        if self.earlier is None or self.earlier.status != "finished":
            return False
        return self.earlier.format > 1 or self.earlier.steps == self.steps()  # once, any end of training was a finish

    def resumes_own(self) -> bool:
        """Whether this run's own newest checkpoint is to be continued, and there is one."""
        return self.config[self.subcommand].get("ckpt_path") == "last" and self.last_checkpoint.is_file()

    def asked_to_resume(self) -> bool:
        """Whether a checkpoint is to be continued."""
        return bool(self.config[self.subcommand].get("ckpt_path"))

    def steps(self) -> int:
        """Optimiser steps the run will take."""
        return self._limits().steps(self.datamodule)

    def _limits(self) -> Limits:
        return Limits.of(option(self, self.config_init, "trainer"))

    def _outline(self) -> Outline:
        """What a check of its resuming needs to know."""
        trainer, limits, data = option(self, self.config_init, "trainer"), self._limits(), self.datamodule
        validation = first_validation(trainer, limits.batches(data)) if data.val_count else 0
        return Outline(self.steps(), limits.steps_per_epoch(data), data.workers, validation)

    def _facts(self) -> dict[str, Any]:
        """What is known of a run beforehand: its size, its length and its cost."""
        steps, data = self.steps(), self.datamodule
        images = self._limits().images(data, steps)
        return {
            "parameters": sum(p.numel() for p in self.model.network.parameters()),
            "steps": steps,
            "images_seen": images,
            "images": {"val": data.val_count, "test": data.test_count},
            "measured_on": data.describe()["order_fingerprints"],
            "train_flops": train_flops(self.model.config, images),
            "start": start_of(self.model.network, data) if self.weights else None,
        }

    def save_config(self, path: Path) -> None:
        """Writes the resolved config as YAML that `--config` takes back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        parser = parser_of(self, self.verb)
        parser.save(self.config[self.verb], path, skip_none=False, overwrite=True, multifile=False, skip_check=True)

    def _plan(self) -> RunPlan:
        verb = str(self.subcommand)
        parsed = json.loads(parser_of(self, verb).dump(self.config[verb], format="json", skip_none=False))
        for name in ("config", *parsers_of(self)[2][verb]):  # what only this verb takes
            parsed.pop(name, None)
        plan = make_plan(parsed, plain(self.model.config), self.datamodule.describe(), self.run, self.study)
        before = self._continued(plan)
        return plan_of(with_continued(plan.config, before), self.run, self.study) if before else plan

    def _continued(self, plan: RunPlan) -> dict[str, Any] | None:
        """From which run this one goes on: by the checkpoint that is given, or by what its folder holds."""
        given = self.config[self.subcommand].get("ckpt_path")
        if self.subcommand == "fit" and given and given != "last":
            return continued(plan.config, self.steps(), Path(given))
        if not (plan.directory / RECORD_NAME).is_file():
            return None
        earlier = read_record(plan.directory)
        return adopt(plan.config, earlier.fingerprint, earlier.config)

    def _loggers(self) -> list[Any]:
        name = f"{self.plan.cell}-seed{self.plan.seed}"
        return list(
            build_loggers(self.run, self.plan.directory, group=self.study, name=name, resumed=self.asked_to_resume())
        )

    def _callbacks(self, chosen: Any) -> list[Callback]:
        """The bar, the holder of the best weights, and the keeper of checkpoints, which comes last."""
        bar = [Bar()] if chosen["enable_progress_bar"] is not False else []
        keeper = [self._keeper()] if self.run.checkpoint else []
        return [*bar, *self.measuring(), *keeper]

    def measuring(self) -> list[Callback]:
        """The callbacks that the run's options ask for: the best weights, and the few-shot probe."""
        best = [BestWeights()] if self.run.keep == "best" else []
        probes = [FewShotProbe(self.run.shots, self.run.shot_seeds)] if self.run.shots else []
        return [*best, *probes]

    def _keeper(self) -> RunCheckpoint:
        return RunCheckpoint(
            dirpath=self.last_checkpoint.parent,
            filename=self.last_checkpoint.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
            **self.run.checkpoint_trigger(),
        )
