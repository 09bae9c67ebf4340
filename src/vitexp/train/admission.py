"""Whether what begins to train is what its config says, and which run it is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L

from vitexp.data.module import ShardData
from vitexp.train.checkpoint import BestWeights
from vitexp.train.config import RunConfig, described
from vitexp.train.identity import RunIdentity, differences, identity_of, in_words
from vitexp.train.measure import FewShotProbe, callback_of
from vitexp.train.module import Classifier
from vitexp.train.trainer_flags import SHOWN

_NO_BOUND = {"max_epochs": -1, "min_epochs": 0}
"""Lightning's signs for no bound."""
_PRECISIONS = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def checked_identity(
    identity: RunIdentity,
    run: RunConfig,
    trainer: Any,
    module: Classifier,
    data: ShardData,
    configured: Sequence[L.Callback],
) -> RunIdentity:
    """The run, if what begins to train is what its config says. A subclass of `Classifier`, and callbacks that the
    config does not name, count as parts of it.

    Raises: ValueError that names the options that differ.
    """
    config = identity.config
    options = config["trainer"]
    given = {
        **config,
        "trainer": options | _changed(options, trainer, data),
        "model": dict(module.hparams),
        "data": config["data"] | dict(data.hparams) | {"subset": data.subset_fingerprint},
    }
    plain, plain_given = (json.loads(json.dumps(one, default=str)) for one in (config, given))
    if apart := differences(plain, plain_given):
        raise ValueError(f"the config of the recorder is not what trains: here {in_words(apart)}")
    _check_measured(run, trainer, data)
    own = config if type(module) is Classifier else config | {"module": _part(module)}
    others = [one for one in trainer.callbacks if one not in configured]
    if more := [_part(one) for one in others if not type(one).__module__.startswith("vitexp.")]:
        own = own | {"trainer": options | {"callbacks": [*options.get("callbacks", []), *more]}}
    return identity_of(own, run, identity.study)


def _changed(config: Mapping[str, Any], trainer: Any, data: ShardData) -> dict[str, Any]:
    """The trainer's options, as far as it shows them, that are others than those that the config sets."""
    options = {}
    for name, default in {**SHOWN, "overfit_batches": 0.0, "reload_dataloaders_every_n_epochs": 0}.items():
        given = getattr(trainer, name)
        if name in _NO_BOUND and given == _NO_BOUND[name]:
            given = None
        wanted = default if config.get(name) is None else config[name]
        if (type(given), given) != (type(wanted), wanted):  # 1 is one batch, and 1.0 all of them
            options[name] = given
    if not data.val_count:
        options.pop("limit_val_batches", None)  # the data turn validation off
    asked = str(config.get("precision") or "32-true")
    if trainer.precision != _PRECISIONS.get(asked, asked):
        options["precision"] = trainer.precision
    return options


def _check_measured(run: RunConfig, trainer: Any, data: ShardData) -> None:
    """Raises: ValueError where the callbacks measure or keep something else than the config asks for."""
    asked, probe = tuple(run.shots if data.test_count else ()), callback_of(trainer, FewShotProbe)
    how = [run.shot_seeds, run.fewer_shots]
    if asked != (probe.shots if probe else ()) or (probe and asked and [probe.draws, probe.fewer] != how):
        raise ValueError(
            f"the config asks for few-shot probes of run.shots {list(asked)} in {run.shot_seeds} draws; give the "
            f"trainer FewShotProbe({', '.join(map(str, [list(asked), *how]))}) beside the recorder, or the config "
            "run.shots []"
        )
    if (run.keep == "best") != (callback_of(trainer, BestWeights) is not None):
        raise ValueError("run.keep best and the callback BestWeights belong together; give both or neither")


def _part(part: Any) -> Any:
    """A part that no config names: its class, its plain attributes, and a digest of the source where it is a user's."""
    named: dict[str, Any] = {"class_path": f"{type(part).__module__}.{type(part).__qualname__}"}
    if isinstance(part, L.Callback):
        plain = {name: value for name, value in vars(part).items() if isinstance(value, str | int | float | bool)}
        named["init_args"] = plain
    return described(named)
