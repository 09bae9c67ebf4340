"""fit, finetune, validate, test and predict: arguments become a config, and a config the parts of one run."""

import json
import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property, partialmethod
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from vitexp import own
from vitexp.data.module import ShardData
from vitexp.eval.flops import train_flops
from vitexp.lightning_private import option, parser_of, parsers_of, set_parsers
from vitexp.record import RunRecord
from vitexp.train import evaluators, session
from vitexp.train import trainer_flags as flags
from vitexp.train.checkpoint import AtomicCheckpoints, BestWeights, RunCheckpoint
from vitexp.train.config import ClassifyConfig, RunConfig, plain
from vitexp.train.ending import one_sentence
from vitexp.train.evaluators import Evaluators
from vitexp.train.identity import RunIdentity, check_own, claim, continuing, identify, start_of
from vitexp.train.initial import NONE, begin
from vitexp.train.loggers import build_loggers
from vitexp.train.measure import FewShotProbe
from vitexp.train.module import Classifier
from vitexp.train.optim import check_length, check_optim, settled
from vitexp.train.parser import Parser, seed, trainer_values
from vitexp.train.recorder import RunRecorder
from vitexp.train.terminal import Bar, NoProfiler, quieten

FINETUNE = {
    "model.optimizer": "sgd",
    "model.schedule": "cosine",
    "model.weight_decay": "0.0",
    "model.clip_norm": "1.0",
    "model.loss": "softmax",
    "model.head": "linear",
    "data.batch_size": "512",
}
"""Source: paper sheet 2.3, Table 4 and what is common to it; momentum is always 0.9."""
_SHORT = {"--init": "--run.init", "--download": "--run.download"}
"""Flags that finetune knows under shorter names too."""


def as_fit(argv: Sequence[str]) -> list[str]:
    """The arguments of finetune as those of fit: its defaults first, so that a config or a flag overrules them."""
    argv = ["--download=true" if word == "--download" else word for word in argv]  # flags of fit all take a value
    split = [word.partition("=") for word in argv]
    long = [f"{_SHORT.get(name, name)}{equals}{value}" for name, equals, value in split]
    return ["fit", *(f"--{name}={value}" for name, value in FINETUNE.items()), *long]


_UPDATES = ("lr", "weight_decay", "clip_norm", "warmup_steps", "warmup_epochs")
"""Options of `model` that its construction only checks."""
_MOST_BUILT = 64
_BUILT: dict[tuple[str, Any], Any] = {}
"""The parsers that this process has built, which takes longer than a short plan."""
KIND: ContextVar[type[Classifier]] = ContextVar("kind", default=Classifier)
"""The class of the module; the parser, which is built once, cannot take it as an argument."""


def classifier(**kwargs: Any) -> Classifier:
    """The module of a run; its flags, with their help, are the fields of `ClassifyConfig`."""
    return KIND.get()(**vars(ClassifyConfig(**kwargs)))


class TrainingCommand(LightningCLI):
    """LightningCLI with this project's groups, run directory, loggers and record.

    It runs the command; or ends once the run is planned, or once its parts are built for somebody else's Trainer.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        groups: dict[str, type],
        *,
        until: Literal["planned", "built", "done"] = "done",
        weights: bool = True,
        data: type[ShardData] = ShardData,
    ) -> None:
        self.groups, self.until, self.weights = groups, until, weights
        self.built: dict[str, Classifier] = {}
        """Modules without weights, of other runs that were planned beside this one."""
        self.earlier: RunRecord | None = None
        """What this very run left in its folder before."""
        self.transfer = arguments[0] == "finetune"
        self.allow_import = own.ALLOW in arguments
        arguments = [word for word in arguments if word != own.ALLOW]
        argv = as_fit(arguments[1:]) if self.transfer else list(arguments)
        self.verb = argv[0]
        if dropped := [word for word in argv if word.startswith("--_wandb")]:
            print(f"left out {' '.join(dropped)}: W&B's own argument for a resumed sweep run")
        quieten()
        super().__init__(
            classifier,
            data,
            args=[word for word in argv if word not in dropped],
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

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one verb that is asked for: building the parsers of all four would take longer than a short plan."""
        return {verb: parser for verb, parser in LightningCLI.subcommands().items() if verb == self.verb}

    def setup_parser(self, *arguments: Any) -> None:
        """Builds the verb's parser once a process: the cells of a study are forked from one that has it."""
        key = self.verb, self.datamodule_class
        if key not in _BUILT:
            super().setup_parser(*arguments)
            cast(Parser, parser_of(self, self.verb)).read_whole_numbers_first()
            cast(Parser, parser_of(self, self.verb)).show_words()
            _BUILT[key] = parsers_of(self)
        set_parsers(self, _BUILT[key])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Reads the arguments; what a W&B agent has fetched imports nothing on the way."""
        with own.allowing(self.allow_import):
            own.check_downloaded(trainer_values(args))
            super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Takes no options from a checkpoint: Lightning would let those in the file win over the flags."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's and the study's groups, and the facts that the data set tells the network."""
        for name, group in {"run": RunConfig, **self.groups}.items():
            parser.add_class_arguments(group, name)
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.size", "model.image_size", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def instantiate_classes(self) -> None:
        """Builds data, network and trainer; most plans need no weights, and there the network has none."""
        with torch.device("cpu" if self.weights else "meta"), one_sentence(), own.allowing(self.allow_import):
            if "WANDB_SWEEP_ID" in os.environ:  # a W&B agent has fetched the arguments, and with them the files' names
                for group in ("model", "data", "run"):
                    own.check_allowed(self.config[self.verb][group].as_dict(), "this W&B sweep")
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer | None:  # type: ignore[override]
        """Finds out which run it is and whether it may begin, and builds the trainer with its loggers."""
        self.run: RunConfig = evaluators.settled(option(self, self.config_init, "run"))
        self.options = chosen = option(self, self.config_init, "trainer")
        self.ckpt_path = self.config[self.verb].get("ckpt_path")
        flags.check_flags(chosen)
        self.model.configure(settled(self.model.config, self.steps, self.epoch_steps))
        self.identity = self._identify()
        flags.check_limits(self.verb, chosen, self.datamodule, self.run.test)
        if self.verb == "fit":
            self._check_fit()
        if self.until == "planned":
            return None
        if chosen["enable_checkpointing"] is False:
            self.run = replace(self.run, checkpoint=False)
        unlogged = {"logger": False} if chosen["logger"] is None else {}
        if self.verb != "fit" or chosen["fast_dev_run"]:
            return super().instantiate_trainer(**unlogged | kwargs)
        self.earlier = claim(self.identity, self.datamodule.describe())  # before a logger writes into the folder
        if self.resumes_own() and not self.done():
            check_own(self.identity.last_checkpoint, self.identity.config)
        self.recorder = RunRecorder(self.identity, self.run, self.save_config)
        self.callbacks = self.recorder.configured = [*flags.as_list(chosen["callbacks"]), *self._own_callbacks()]
        plugins = flags.as_list(chosen["plugins"])
        kwargs["plugins"] = [*plugins, AtomicCheckpoints(), *flags.environment(plugins)]
        kwargs["default_root_dir"] = chosen["default_root_dir"] or str(self.identity.directory)
        if self.until == "built":
            left_out = {"callbacks", *unlogged}
            self.trainer_options = {k: v for k, v in {**chosen, **kwargs}.items() if k not in left_out}
            return None
        if unlogged and not self.done():
            kwargs["logger"] = build_loggers(self.run, self.identity, resumed=bool(self.ckpt_path))
        if chosen["profiler"] is None:
            kwargs["profiler"] = NoProfiler()
        # the recorder first, before the checkpoints, which hold what it has collected
        return super().instantiate_trainer(**unlogged | kwargs, callbacks=[self.recorder, *self.callbacks])

    @cached_property
    def parsed(self) -> dict[str, Any]:
        """The options as plain values, without what only this verb takes."""
        dumped = parser_of(self, self.verb).dump(self.config[self.verb], format="json", skip_none=False)
        only = ("config", *parsers_of(self)[2][self.verb])
        return {name: value for name, value in json.loads(dumped).items() if name not in only}

    def _identify(self) -> RunIdentity:
        study = str(self.config[self.verb]["study"]["name"])
        own_parts = {"data": self.datamodule.augmentation, "run": self.run}
        parsed = {
            group: {**self.parsed[group], "options": of.options, "sources": of.sources}
            for group, of in own_parts.items()
        }
        found = identify(self.parsed | parsed, plain(self.model.config), self.datamodule.describe(), self.run, study)
        given = self.ckpt_path if self.verb == "fit" and self.ckpt_path != "last" else None
        return continuing(found, self.run, given, self.steps)

    def _check_fit(self) -> None:
        """What training needs, and the weights it begins with."""
        run, data, config, chosen = self.run, self.datamodule, self.model.config, self.options
        if self.transfer and run.init == NONE:
            raise ValueError(
                "finetune starts from given weights; add --init CHECKPOINT, .safetensors, .npz or timm:NAME"
            )
        if run.init != NONE and config.pos_std is not None:
            raise ValueError(f"model.pos_std {config.pos_std} has no effect on the weights of run.init; leave it out")
        flags.check_monitors(chosen, data, config.objective)
        if not chosen["fast_dev_run"]:
            check_length(config, self.steps())
            flags.check_minimum(chosen, self.steps())
            flags.check_shots(run, data)
        evaluators.check(run, config, data)
        flags.check_computation(chosen, run, config.objective)
        flags.check_keep(run.keep, chosen, config, data)
        if self.weights:
            begin(self.model, run.init, run.download, quiet=self.until == "planned")

    def _own_callbacks(self) -> list[Callback]:
        """Those that the run's options ask for; checkpoints come last, after what they hold."""
        run, last = self.run, self.identity.last_checkpoint
        due: dict[str, Any] = {"train_time_interval": timedelta(minutes=run.checkpoint_minutes)}
        if run.checkpoint_steps:
            due = {"every_n_train_steps": run.checkpoint_steps}
        found: list[Callback] = [Bar()] if self.options["enable_progress_bar"] is not False else []
        found += [BestWeights()] if run.keep == "best" else []
        found += [FewShotProbe(run.shots, run.shot_seeds, run.fewer_shots)] if run.shots else []
        found += [Evaluators(run)] if run.evaluators else []
        if run.checkpoint:
            where: dict[str, Any] = {"dirpath": last.parent, "filename": last.stem, "enable_version_counter": False}
            found.append(RunCheckpoint(**where, save_on_train_epoch_end=False, **due))
        return found

    def after_instantiate_classes(self) -> None:
        """Ends here when nothing is to run."""
        if self.until != "done":
            self.subcommand = None

    fit = session.fit
    validate = partialmethod(session.measure, "validate")
    test = partialmethod(session.measure, "test")
    predict = session.predict

    def done(self) -> bool:
        """Whether this very run has finished before."""
        if self.earlier is None or self.earlier.status != "finished":
            return False
        return self.earlier.format > 1 or self.earlier.steps == self.steps()  # once, any end of training was a finish

    def resumes_own(self) -> bool:
        """Whether this run's own newest checkpoint is to be continued, and there is one."""
        return self.ckpt_path == "last" and self.identity.last_checkpoint.is_file()

    def steps(self) -> int:
        """Optimizer steps the run will take."""
        return flags.Limits.of(self.options).steps(self.datamodule)

    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return flags.Limits.of(self.options).steps_per_epoch(self.datamodule)

    def facts_of(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of another run, which differs from this planned one in its seed and options of `model` alone.

        Raises: ValueError where that run would be refused.
        """
        self.parsed["seed_everything"] = seed(options.get("seed_everything", self.parsed["seed_everything"]))
        named = {key.removeprefix("model."): value for key, value in options.items() if key.startswith("model.")}
        self.parsed["model"] = self.parsed["model"] | named
        self.model = self._network(self.parsed["model"])
        self.identity = self._identify()
        self._check_fit()
        return self.facts()

    def _network(self, options: dict[str, Any]) -> Classifier:
        """The module of other options, without weights; built once for all that differ in how it is updated."""
        updates = {name: options[name] for name in _UPDATES}
        kind = json.dumps({name: value for name, value in options.items() if name not in _UPDATES})
        if kind not in self.built:
            if len(self.built) == _MOST_BUILT:
                self.built.clear()
            follows = {"classes": self.datamodule.classes, "image_size": self.datamodule.size}
            with torch.device("meta"), one_sentence():
                self.built[kind] = classifier(**options | follows)
        config = replace(self.built[kind].config, **updates)
        check_optim(config)
        self.built[kind].configure(cast(ClassifyConfig, settled(config, self.steps, self.epoch_steps)))
        return self.built[kind]

    def facts(self) -> dict[str, Any]:
        """What is known of a run beforehand, in words and numbers: its identity, its size, length and cost."""
        steps, data = self.steps(), self.datamodule
        images = flags.Limits.of(self.options).images(data, steps)
        own_metrics = {"own_metrics": evaluators.metrics_of(self.run)} if self.run.evaluators else {}
        return {
            **asdict(self.identity),
            **own_metrics,
            "directory": str(self.identity.directory),
            "run_directory": str(self.identity.directory),
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
