"""Where the weights of a run begin: drawn from its seed, or read from a file."""

import hashlib
from functools import lru_cache
from pathlib import Path

from vitexp.learn.classify import Classify
from vitexp.nn.weights import load_weights

NONE = "none"
HUB = "timm/"
_HEX = 16


def begin(module: Classify, init: str) -> None:
    """Fills the network from what `run.init` names; positions are resized, the head starts at zero.

    Raises: ValueError for a file that is absent, damaged, or holds another network.
    """
    if init == NONE:
        return
    load_weights(module.network, file_of(init), new_head=True)
    if module.average is not None:
        module.average.load_state_dict(module.network.state_dict())


def content_of(init: str) -> str | None:
    """A digest of the file, so that a run from other weights under the same name is another run."""
    if init == NONE:
        return None
    path = file_of(init)
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


def file_of(init: str) -> Path:
    """The file behind `run.init`; weights of timm's come from its hub, or from where an earlier download left them.

    Raises: ValueError when there is none.
    """
    path = Path(init)
    if path.is_file():
        return path
    if init.startswith(HUB):
        return _from_hub(init)
    raise ValueError(
        f"run.init is {init!r}, which is no file; train it first (experiments/pretrain_tiny.yaml), "
        f"or give a checkpoint, .safetensors, .npz, or {HUB}NAME for weights of timm's"
    )


def _from_hub(init: str) -> Path:
    """The `.safetensors` file of a timm model; pickles are not asked for."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(init, "model.safetensors"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"run.init {init}: the hub gave no model.safetensors ({reason})") from error


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HEX]
