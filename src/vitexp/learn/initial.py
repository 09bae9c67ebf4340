"""Where the weights of a run begin: drawn from its seed, or read from a file."""

import hashlib
from functools import lru_cache
from pathlib import Path

from vitexp.learn.classify import Classify
from vitexp.nn.weights import load_weights, read_weights
from vitexp.nn.weights_config import config_of

NONE = "none"
TIMM = "timm:"
_ONCE = "timm/"
"""How TIMM was spelt before."""
_HEX = 16
_OPTIONS = ("arch", "stem", "pos_embed", "pos_at", "pool", "attention", "resnet")
"""What must be equal for weights to fit; images of another size are resized to, and a head is begun anew."""


def begin(module: Classify, init: str, download: bool = False) -> None:
    """Fills the network from what `run.init` names; positions are resized, the head starts at zero.

    Raises: ValueError for a file that is absent, damaged, or holds another network.
    """
    if init == NONE:
        return
    path = file_of(init, download)
    try:
        load_weights(module.network, path, new_head=True)
    except ValueError as error:
        raise ValueError(_other_network(path, module) or str(error)) from error
    if module.average is not None:
        module.average.load_state_dict(module.network.state_dict())


def _other_network(path: Path, module: Classify) -> str:
    """In a sentence, by which options the network in a file is another than the run's; empty where none is known."""
    try:
        held = config_of(read_weights(path), str(path))
    except ValueError:
        return ""
    wanted = module.network.config
    apart = [option for option in _OPTIONS if getattr(held, option) != getattr(wanted, option)]
    if not apart:
        return ""
    has, trains = (", ".join(f"{option} {getattr(one, option)}" for option in apart) for one in (held, wanted))
    options = " ".join(f"--model.{option} {getattr(held, option)}" for option in apart)
    return f"{path} holds a network of {has}, and the run has {trains}: give {options}, or other weights"


def content_of(init: str, download: bool = False) -> str | None:
    """A digest of the file, so that a run from other weights under the same name is another run."""
    if init == NONE:
        return None
    path = file_of(init, download)
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


def file_of(init: str, download: bool = False) -> Path:
    """The file behind `run.init`; weights of timm's lie where an earlier download left them, or are fetched if told.

    Raises: ValueError when there is none.
    """
    path = Path(init)
    if path.is_file():
        return path
    if init.startswith(TIMM):
        from vitexp.nn.timm_network import weights_file

        return weights_file(init.removeprefix(TIMM), download=download)
    if init.startswith(_ONCE):
        name = init.removeprefix(_ONCE)
        raise ValueError(f"run.init is {init!r}, which is no file; for weights of timm's write {TIMM}{name}")
    raise ValueError(
        f"run.init is {init!r}, which is no file; train it first (experiments/pretrain_tiny.yaml), "
        f"or give a checkpoint, .safetensors, .npz, or {TIMM}NAME for weights of timm's"
    )


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HEX]
