"""fit, validate, test and predict: a parsed config becomes a trained network and a record."""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from vitexp.data.module import ShardData
from vitexp.learn import session, slurm
from vitexp.learn.bar import Bar
from vitexp.learn.best import Best
from vitexp.learn.check import check_metrics, check_shots
from vitexp.learn.checkpoint import AtomicCheckpoints, Keeper
from vitexp.learn.classify import Classify, plain, planned_steps
from vitexp.learn.config import RunConfig
from vitexp.learn.cost import train_flops
from vitexp.learn.ending import one_sentence
from vitexp.learn.initial import begin
from vitexp.learn.loggers import build_loggers
from vitexp.learn.optim import check_length, settled
from vitexp.learn.parser import Parser, plain_words
from vitexp.learn.plan import RunPlan, make_plan
from vitexp.learn.recorder import claim
from vitexp.learn.start import start_of
from vitexp.learn.verify_resume import Outline, first_validation

LAST = "last.ckpt"
_BUILT: dict[str, Any] = {}


class TrainingCommand(LightningCLI):
    """LightningCLI with this project's groups, run directory, loggers and record."""

    def __init__(
        self, arguments: Sequence[str], groups: dict[str, type], *, plan_only: bool = False, weights: bool = True
    ) -> None:
        self.groups = groups
        self.plan_only = plan_only
        self.weights = weights
        words, dropped = plain_words(list(arguments))
        self.verb = words[0]
        if dropped:
            print(f"left out {' '.join(dropped)}: W&B's own argument for a resumed sweep run")
        quieten()
        super().__init__(
            Classify,
            ShardData,
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
        if self.verb not in _BUILT:
            super().setup_parser(*arguments)
            _BUILT[self.verb] = self.parser, self._subcommand_parsers, self._subcommand_method_arguments
        self.parser, self._subcommand_parsers, self._subcommand_method_arguments = _BUILT[self.verb]

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
        self.run: RunConfig = self._get(self.config_init, "run")
        self.model.config = settled(self.model.config, self.steps)
        self.plan = self._plan()
        chosen = self._get(self.config_init, "trainer")
        if self.subcommand == "fit":
            self._check_fit(chosen)
        if self.plan_only:
            self.facts, self.outline = self._facts(), self._outline()
            return None
        if self.subcommand != "fit" or chosen["fast_dev_run"]:
            return super().instantiate_trainer(**({"logger": False} if chosen["logger"] is None else {}) | kwargs)
        self.earlier = claim(self.plan.directory, self.plan.fingerprint)  # before a logger writes into the folder
        if chosen["logger"] is None:
            kwargs["logger"] = False if self.done() else self._loggers()
        plugins = chosen["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [*plugins, AtomicCheckpoints(), *slurm.environment(plugins)]
        kwargs["default_root_dir"] = chosen["default_root_dir"] or str(self.plan.directory)
        kwargs["callbacks"] = [*(chosen["callbacks"] or []), *self._callbacks(chosen)]
        return super().instantiate_trainer(**kwargs)

    def check_start(self) -> None:
        """Any start will do: a seed, or given weights."""

    def _check_fit(self, chosen: Any) -> None:
        """What training needs, and the weights it begins with."""
        self.check_start()
        if not chosen["fast_dev_run"]:
            check_length(self.model.config, self.steps())
        check_shots(self.run, self.datamodule)
        study, unset = self._get(self.config, "study"), self.groups["study"]()
        if study["name"] != unset.name and (self.model.masked is None or study["metrics"] != unset.metrics):
            check_metrics(study["metrics"], self.run, self.datamodule, list(self.model.readings["val"]))
        if self.run.keep == "best" and not self.datamodule.val_count:
            raise ValueError("run.keep best chooses by validation images, and there are none; set data.val_fraction")
        if self.run.keep == "best" and self.model.masked is not None:
            raise ValueError("run.keep best chooses by the accuracy over classes; use last where patches are predicted")
        if self.weights:
            begin(self.model, self.run.init, self.run.download)

    def after_instantiate_classes(self) -> None:
        """Ends here when only the plan is wanted."""
        if self.plan_only:
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
        return self.plan.directory / "checkpoints" / LAST

    @property
    def study(self) -> str:
        """The study this run belongs to."""
        return str(self._get(self.config, "study")["name"])

    def done(self) -> bool:
        """Whether this very run has finished before."""
        return self.earlier is not None and self.earlier.status == "finished"

    def asked_to_resume(self) -> bool:
        """Whether a checkpoint is to be continued."""
        return bool(self.config[self.subcommand].get("ckpt_path"))

    def steps(self) -> int:
        """Optimiser steps the run will take."""
        asked = self._get(self.config_init, "trainer")
        return planned_steps(self.datamodule, asked["max_epochs"], asked["max_steps"], asked["accumulate_grad_batches"])

    def _outline(self) -> Outline:
        """What a check of its resuming needs to know."""
        trainer = self._get(self.config_init, "trainer")
        epoch = -(-self.datamodule.steps_per_epoch // trainer["accumulate_grad_batches"])
        validation = first_validation(trainer, self.datamodule.steps_per_epoch) if self.datamodule.val_count else 0
        return Outline(self.steps(), epoch, self.datamodule.workers, validation)

    def _facts(self) -> dict[str, Any]:
        """What is known of a run beforehand: its size, its length and its cost."""
        steps, data = self.steps(), self.datamodule
        accumulated = self._get(self.config_init, "trainer")["accumulate_grad_batches"]
        epochs, left = divmod(steps * accumulated, data.steps_per_epoch)
        images = epochs * data.train_count + min(left * data.batch_size, data.train_count)
        return {
            "parameters": sum(p.numel() for p in self.model.network.parameters()),
            "steps": steps,
            "images_seen": images,
            "train_flops": train_flops(self.model.config, images),
            "start": start_of(self.model.network, data) if self.weights else None,
        }

    def save_config(self, path: Path) -> None:
        """Writes the resolved config as YAML that `--config` takes back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        parser = self._parser(self.subcommand)
        parser.save(
            self.config[self.subcommand], path, skip_none=False, overwrite=True, multifile=False, skip_check=True
        )

    def _plan(self) -> RunPlan:
        parser = self._parser(self.subcommand)
        parsed = json.loads(parser.dump(self.config[self.subcommand], format="json", skip_none=False))
        return make_plan(parsed, plain(self.model.config), self.datamodule.describe(), self.run, self.study)

    def _loggers(self) -> list[Any]:
        name = f"{self.plan.cell}-seed{self.plan.seed}"
        return list(
            build_loggers(self.run, self.plan.directory, group=self.study, name=name, resumed=self.asked_to_resume())
        )

    def _callbacks(self, chosen: Any) -> list[Callback]:
        """The bar, the holder of the best weights, and the keeper of checkpoints, which comes last."""
        bar = [Bar()] if chosen["enable_progress_bar"] is not False else []
        keeper = [self._keeper()] if self.run.checkpoint and chosen["enable_checkpointing"] is not False else []
        best = [Best()] if self.run.keep == "best" else []
        return [*bar, *best, *keeper]

    def _keeper(self) -> Keeper:
        return Keeper(
            dirpath=self.last_checkpoint.parent,
            filename=self.last_checkpoint.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
            **self.run.checkpoint_trigger(),
        )


def quieten() -> None:
    """Leaves out what Lightning says about itself: advice on workers, on its other products, on the seed."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter is intended.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    for name in (
        "pytorch.utilities.rank_zero",
        "fabric.utilities.seed",
        "pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
