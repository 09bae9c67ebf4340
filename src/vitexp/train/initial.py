"""Where the weights of a run begin: drawn from its seed, or read from a file."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_only

from vitexp.axes import is_path
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.weights.config import config_of
from vitexp.weights.load import Stored, load_stored, read_weights
from vitexp.weights.read import choose, split_name

if TYPE_CHECKING:
    from vitexp.train.module import Classifier

NONE = "none"
TIMM = "timm:"
_OPTIONS = ("arch", "stem", "pos_embed", "pos_at", "pool", "attention", "window", "resnet", "gelu", "registers",
            "block", "norm", "mlp", "qk_norm", "pos_join")  # fmt: skip
"""What must be equal for weights to fit; images of another size are resized to, and a head is begun anew."""
_SAY_NOTHING = ("own", "own resnet", "timm resnet")
"""Names from which no config follows: the run's own is taken for theirs."""


def begin(module: "Classifier", init: str, download: bool = False, *, quiet: bool = False) -> None:
    """Fills the network from what `run.init` names, and says so; positions are resized, the head starts at zero.

    Raises: ValueError for a file that is absent, damaged, or holds another network.
    """
    if init == NONE:
        return
    network: Any = module.network
    stored = _read(init, download)
    _check_same(stored, network.config)
    notes = load_stored(network, stored, new_head=True)
    if module.average is not None:
        module.average.load_state_dict(network.state_dict())
    if not quiet:
        lines = [f"weights     {stored.name}; the head starts at zero", *(f"note: {note}" for note in notes)]
        rank_zero_only(print)("\n".join(lines))


def _read(init: str, download: bool) -> Stored:
    path = file_of(init, download)
    if not init.startswith(TIMM):
        return read_weights(f"{path}#{split_name(init)[1]}" if split_name(init)[1] else path)
    stored = read_weights(path)
    if stored.config is not None:
        return stored
    from vitexp.weights.timm_hub import facts_of

    return stored._replace(beside=facts_of(init.removeprefix(TIMM), stored.beside or {}), name=init)


def _check_same(stored: Stored, wanted: ViTConfig) -> None:
    """Raises: ValueError that says in one sentence by which options the file's network is another than the run's."""
    if stored.config is None and choose(stored.tensors, stored.name).form in _SAY_NOTHING:
        return
    stated = {"arch": parse_arch(wanted.arch, wanted.stem).full_name, "pos_embed": wanted.pos_embed}
    held: Any = config_of(stored, stored.name, wanted.image_size, stated)
    apart = [option for option in _OPTIONS if getattr(held, option) != getattr(wanted, option)]
    for axis in (axis for axis in _OPTIONS if axis not in apart and is_path(getattr(wanted, axis))):
        has, asked = held.options.get(axis), wanted.options.get(axis)
        if has != asked:
            raise ValueError(
                f"{stored.name} holds a network of model.options.{axis} {has}, and the run has {asked}: give the same"
            )
    if not apart:
        return
    has, trains = (", ".join(f"{option} {getattr(one, option)}" for option in apart) for one in (held, wanted))
    options = " ".join(f"--model.{option} {getattr(held, option)}" for option in apart)
    sentence = f"{stored.name} holds a network of {has}, and the run has {trains}: give {options}, or other weights"
    if "gelu" in apart and stored.config is None and not stored.beside and held.gelu == "exact":
        sentence += (
            f" (published weights by such names have gelu exact; for others first run `vitexp export {stored.name} "
            f"own.safetensors --gelu {wanted.gelu}`)"
        )
    raise ValueError(sentence)


def content_of(init: str, download: bool = False) -> str | None:
    """A digest of the file, so that a run from other weights under the same name is another run."""
    if init == NONE:
        return None
    path = file_of(init, download)
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def file_of(init: str, download: bool = False) -> Path:
    """The file behind `run.init`; weights of timm's lie in its cache, or are fetched with `download`.

    Raises: ValueError when there is none.
    """
    path, _ = split_name(init)
    if path.is_file():
        return path
    if init.startswith(TIMM):
        from vitexp.weights.timm_hub import weights_file

        return weights_file(init.removeprefix(TIMM), download=download)
    raise ValueError(
        f"run.init is {init!r}, which is no file; train it first (experiments/pretrain_tiny.yaml), "
        f"or give a checkpoint, .safetensors, .npz, or {TIMM}NAME for weights of timm's"
    )
