"""What cannot change the numbers of a run, and why. Everything that does not stand here counts in its fingerprint.

An option of a later release therefore counts until somebody has looked at it. The table at the end of docs/records.md
is this one.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

NEUTRAL = {
    "config": "the files that options came from; what they say is counted option by option",
    "study": "names a run and says how studies show it",
    "run.root": "where files lie",
    "run.dir": "where files lie",
    "run.wandb": "who else gets the numbers",
    "run.project": "who else gets the numbers",
    "run.download": "whether weights may be fetched; which weights they are counts by content",
    "run.checkpoint": "whether the last weights are kept",
    "run.checkpoint_steps": "how often a run can be resumed from",
    "run.checkpoint_minutes": "how often a run can be resumed from",
    "run.threads": "how many compute together, which moves only last digits; stands under `device`",
    "data.shards": "where the images lie; which they are counts by content",
    "data.workers": "each image is drawn from seed and epoch, whoever decodes it",
    "data.reader": "every reader and decoder gives the same pixels",
    "data.seed": "a copy of seed_everything, which counts",
    "model.classes": "follows from the data, which count by content",
    "model.image_size": "follows from the data and data.image_size, which count",
    "trainer.devices": "global batches are exact on any number of devices",
    "trainer.num_nodes": "global batches are exact on any number of devices",
    "trainer.default_root_dir": "where files lie",
    "trainer.enable_progress_bar": "only shows",
    "trainer.enable_model_summary": "only shows",
    "trainer.enable_autolog_hparams": "only shows",
    "trainer.enable_checkpointing": "whether weights are kept",
    "trainer.log_every_n_steps": "how often a number is written down",
    "trainer.detect_anomaly": "looks for non-finite numbers, and changes none",
    "trainer.limit_predict_batches": "only `vitexp predict` reads it",
    "trainer.max_time": "a run that it cuts short is `stopped`, never `finished`",
    "trainer.use_distributed_sampler": "only false is accepted",
    "trainer.barebones": "only false is accepted",
    "trainer.sync_batchnorm": "only false is accepted",
}
"""Options, and groups of options, that do not count."""

_PL = "lightning.pytorch"
PARTS: dict[str, dict[str, str]] = {
    "trainer.callbacks": {
        **dict.fromkeys(("TQDMProgressBar", "RichProgressBar", "ModelSummary", "RichModelSummary"), "only show"),
        **dict.fromkeys(("LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor"), "only log"),
        **dict.fromkeys(
            ("ModelCheckpoint", "OnExceptionCheckpoint"), "keep more checkpoints, and choose none to be measured"
        ),
        "Timer": "as trainer.max_time",
        "vitexp.train.verify_resume.BatchLog": "ends the process before there is a result",
    },
    "trainer.profiler": dict.fromkeys(
        ("simple", "advanced", "pytorch", "xla", f"{_PL}.profilers.*"), "measure time and memory"
    ),
    "trainer.logger": {f"{_PL}.loggers.*": "write numbers down"},
    "trainer.plugins": {f"{_PL}.plugins.environments.*": "find the other processes of a run"},
    "trainer.strategy": dict.fromkeys(
        ("auto", "single_device", "ddp", "ddp_*"), "global batches are exact on any number of devices"
    ),
    "trainer.accelerator": dict.fromkeys(
        ("auto", "cpu", "gpu", "cuda", "mps", "tpu"), "where it is computed; stands under `device`"
    ),
}
"""Options whose value may be code. Each part counts with its class, its arguments and, where its module is your own,
a digest of its source; but for those named here."""


def counted(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted options that count, each with what of it counts."""
    found = {key: value for key, value in flat.items() if key not in NEUTRAL and key.partition(".")[0] not in NEUTRAL}
    for key in PARTS.keys() & found.keys():
        value = found.pop(key)
        given = [one for one in (value if isinstance(value, list | tuple) else [value]) if one is not None]
        if parts := [set_only(one) for one in given if not (isinstance(one, bool) or _watches(key, one))]:
            found[key] = parts
    return found


def set_only(value: Any) -> Any:
    """Without the arguments that were left unset, so that a new one of a library does not count."""
    if isinstance(value, Mapping):
        return {name: set_only(item) for name, item in value.items() if item is not None}
    return [set_only(item) for item in value] if isinstance(value, list | tuple) else value


def _watches(key: str, part: Any) -> bool:
    """Whether a part is named in `PARTS`; a callback of Lightning's is by its class, whatever its module there."""
    name = str(part.get("class_path") if isinstance(part, Mapping) else part)
    short = name.rpartition(".")[2] if name.startswith(f"{_PL}.callbacks.") else name
    return any(fnmatchcase(name, pattern) or short == pattern for pattern in PARTS[key])
