"""A weights file as names and values, and the network in it: `.npz`, `.safetensors`, and torch files of any program.

The reader is chosen by what is in the file, not by its name. Nothing in a file is executed: arrays of objects are
refused, and of a pickle only tensors, numbers and words are read. Training scripts keep other things beside the
weights, such as their arguments; an object of a class that they are known to use is read as an empty stand-in.
"""

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vitexp.nn.config import LATER, ViTConfig
from vitexp.record import write_atomically
from vitexp.weights.names import FORMS


def save_own(model: nn.Module, path: str | Path) -> None:
    """Writes every network of ours, whole or not at all: safetensors, and the config beside the values."""
    write_atomically(path, own_bytes(model))


def own_bytes(model: nn.Module) -> bytes:
    """The content of such a file."""
    tensors = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={OWN_KEY: config_words(model.config)})


def config_words(config: Any) -> str:
    """The network's config as JSON, for a place in a file that other readers pass over."""
    words = {field.name: getattr(config, field.name) for field in fields(ViTConfig)}
    return json.dumps(
        {name: word for name, word in words.items() if name not in LATER or word != vars(ViTConfig)[name]}
    )


OWN_KEY = "vitexp"
"""Under this key a file of ours says what network it holds."""
_BESIDE = ("preprocessor_config.json", "config.json")
"""What Hugging Face and timm keep beside their weights: how images are normalised, and what network it is."""
_BESIDE_WHICH = ("model.safetensors", "pytorch_model.bin")
_MOST_ENTRIES = 100_000
_MOST_INFLATED, _MOST_SHRUNK = 2**30, 100  # bytes, and the ratio to those on disk: weights do not shrink to a hundredth


class Stored(NamedTuple):
    """What a file holds: names and values, the config in files of ours, the words beside others', the file's name."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    beside: dict[str, Any] | None = None
    name: str = "the state dict"


class _StandIn:
    """Takes whatever an object was made of, and keeps nothing."""

    def __init__(self, *values: Any) -> None: ...

    def __new__(cls, *values: Any) -> "_StandIn":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


_INERT = (
    *("argparse.Namespace", "types.SimpleNamespace"),
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float")),
    *(f"pathlib.{kind}{path}" for kind in ("", "_local.") for path in ("PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"numpy.{kind}.multiarray.{name}" for kind in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.ndarray", "numpy.dtype", "numpy.bool_", "numpy.bool", "datetime.datetime", "datetime.timedelta"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
)
_STAND_INS: list[Any] = [
    *((_StandIn, name) for name in _INERT),
    (lambda *factory: {}, "collections.defaultdict"),
    *((dict, f"{fabric}.utilities.data.AttributeDict") for fabric in ("lightning.fabric", "lightning_fabric")),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "easydict.EasyDict"),
]


def read_file(path: str | Path) -> Stored:
    """Names and values of a file, with the config, where it is one of ours, or else with the config.json beside it.

    Those in mappings within mappings have joined names, `state_dict.norm.weight`.
    Raises: ValueError for a file that is absent, damaged or of no known kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist")
    try:
        with warnings.catch_warnings(action="ignore"):
            read = _reader_of(path)
            stored = read(path) if read else None
    except Exception as error:  # whatever a hostile file makes the parsers of three libraries raise
        raise ValueError(_refusal(path, error)) from error
    if stored is None:
        raise ValueError(f"{path} is no weights file: neither .npz nor .safetensors nor a torch file (.pt, .ckpt)")
    return stored if stored.config else stored._replace(beside=_beside(path))


def _refusal(path: Path, error: Exception) -> str:
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} is a pickle that holds more than arrays ({found[1]}), and was not read, because loading such an "
            "object can run code: with the program that wrote it, save the state dict alone, best as .safetensors "
            "(safetensors.torch.save_file(model.state_dict(), FILE))"
        )
    reason = shown(str(error).split("\n", 1)[0] or type(error).__name__)
    return f"{path} is damaged or holds more than arrays, and was not read ({reason})"


def shown(text: str, most: int = 160) -> str:
    """Text that a file chose, fit for a sentence: without control characters, and not endless."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text)
    return plain if len(plain) <= most else f"{plain[:most]} ..."


def _reader_of(path: Path) -> Callable[[Path], Stored] | None:
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        return _read_npz if _checked_names(path) else _read_torch
    if start[8:] == b"{":
        return _read_safetensors
    return _read_torch if start[:1] == b"\x80" else None


def _checked_names(path: Path) -> bool:
    """Whether all that an archive holds are arrays. Its checksums are compared, which torch itself does not do.

    Raises: ValueError for a name that is there twice, for what inflates beyond reason, and for a wrong checksum.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ():
            raise ValueError(f"{min(twice)} is in it twice")
        size, packed = (sum(getattr(member, kind) for member in members) for kind in ("file_size", "compress_size"))
        if size > max(_MOST_INFLATED, _MOST_SHRUNK * packed):
            raise ValueError(f"{packed:,} bytes would become {size:,}")
        arrays = bool(names) and all(name.endswith(".npy") for name in names)
        if not arrays and (damaged := archive.testzip()):  # NumPy compares as it reads
            raise ValueError(f"the checksum of {damaged} is wrong")
        return arrays


def _read_npz(path: Path) -> Stored:
    with zipfile.ZipFile(path) as archive:
        words = archive.comment
    with np.load(path, allow_pickle=False) as file:
        tensors = {name: _tensor(file[name]) for name in file.files}
    return Stored(tensors, json.loads(words)[OWN_KEY] if words.startswith(b'{"' + OWN_KEY.encode()) else None)


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # how NumPy sees a bfloat16 that it has no name for
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _read_safetensors(path: Path) -> Stored:
    with safetensors.safe_open(path, "pt") as file:
        words = (file.metadata() or {}).get(OWN_KEY)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Stored(tensors, json.loads(words) if words else None)


def _read_torch(path: Path) -> Stored:
    with torch.serialization.safe_globals(_STAND_INS):
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise TypeError("not a mapping of names to tensors")
    tensors: dict[str, Tensor] = {}
    for count, (name, value) in enumerate(_flat(content, "")):
        if count > _MOST_ENTRIES:
            raise ValueError(f"more than {_MOST_ENTRIES:,} entries")
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            if name in tensors:
                raise ValueError(f"{name} is in it twice")
            tensors[name] = value
    own = content.get(OWN_KEY)
    return Stored(tensors, own.get("model") if isinstance(own, dict) else None)


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Names and values at any depth, the mappings too, so that their number can be limited."""
    for name, value in tree.items():
        if isinstance(name, str | int):
            yield f"{prefix}{name}", value if isinstance(name, str) else None
            if isinstance(value, Mapping):
                yield from _flat(value, f"{prefix}{name}.")


def _beside(path: Path) -> dict[str, Any] | None:
    """The words in these, where the file has the name under which Hugging Face and timm keep such a file."""
    words: dict[str, Any] = {}
    paths = [path.with_name(name) for name in _BESIDE] if path.name in _BESIDE_WHICH else []
    for beside in filter(Path.is_file, paths):
        try:
            words |= json.loads(beside.read_bytes())
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{beside}, which says what network {path.name} holds, cannot be read ({error})"
            ) from error
    return words


# Which networks lie in a file, and under which prefix: a file of a training script may hold several. A network is known
# by a name that only its form has; what stands before that name is its prefix. Whatever lies under another prefix, such
# as an optimizer's state, is not the network's.

# Hugging Face keeps the head beside the encoder, which has a prefix of its own there.
_HF_ENCODER = re.compile(r"(.*?)(?:vit|deit)\.")
_HF_HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.")
_MOMENTS = re.compile(r"(?:.*[./])?(?:mu|nu|exp_avg|exp_avg_sq|momentum(?:_buffer)?)[./]")
"""Prefixes under which an optimizer keeps an array for each of a network's."""
_TRUNKS_IN_HYBRIDS = ("", "stem.", "patch_embed.backbone.")


class Network(NamedTuple):
    """One network of a file: its form, its prefix, and its values by the names that follow."""

    form: str
    prefix: str
    tensors: dict[str, Tensor]


def choose(stored: Mapping[str, Tensor], source: str, prefix: str = "") -> Network:
    """The network in a file, or of several the one under `prefix`; of ours the averaged weights before the last ones.

    Raises: ValueError where there is none, and with the prefixes to choose from where there are several.
    """
    found, wanted = _networks(stored), prefix.strip("./")
    if not found:
        known = ", ".join(dict.fromkeys(form.program for form in FORMS.values()))
        names = ", ".join(map(shown, sorted(stored)[:3]))
        holds = f"its names are such as {names}" if names else "there are no arrays in it"
        raise ValueError(f"{source} holds no Vision Transformer or ResNet by the names of {known}: {holds}")
    under = {at: form for at, form in found.items() if not wanted or f".{_dotted(wanted)}." in _dotted(f".{at}")}
    if prefix:  # a whole prefix before a part of one; "." is the empty one
        under = {at: form for at, form in under.items() if at.strip("./") == wanted} or under
    if not under:
        raise ValueError(f"{source} holds no network under {wanted!r}; it holds {_listed(found)}")
    if len(under) > 1:
        under = _averaged(under)
    if len(under) > 1:
        one = f"{source}#{max(under).strip('./')}"
        raise ValueError(f"{source} holds several networks, {_listed(under)}: say which, for example {one}")
    (at, form), *_ = under.items()
    return Network(form, at, _bare(stored, at, form, found))


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def split_name(name: str | Path) -> tuple[Path, str]:
    """The file and the prefix in `FILE#prefix`; a file whose own name has the sign is taken whole."""
    path, sign, prefix = str(name).rpartition("#")
    return (Path(path), prefix) if sign and not Path(name).is_file() else (Path(name), "")


def read_weights(name: str | Path) -> Stored:
    """The network in a file, or of several the one that FILE#prefix names, with what is known of its config.

    Raises: ValueError as `read_file` and `choose`, and for an export that only timm computes as it was meant.
    """
    path, prefix = split_name(name)
    stored = read_file(path)
    network = choose(stored.tensors, str(path), prefix)
    bare = network.prefix.strip("./")
    trunk = network.form == "timm resnet" or any(name.startswith("patch_embed.backbone.") for name in network.tensors)
    if stored.config is not None and network.form.startswith("timm") and trunk:
        raise ValueError(
            f"{path} is an export for timm, its kernels are fitted to timm's epsilons: open it as "
            f"timm:local-dir:{path.parent}, or use the network that it was made from"
        )
    return stored._replace(tensors=network.tensors, name=f"{path}#{bare}" if bare else str(path))


def _networks(stored: Iterable[str]) -> dict[str, str]:
    """Prefixes, each with the form that lies there; the trunk of a hybrid is no network of its own."""
    found: dict[str, str] = {}
    for form, known in reversed(FORMS.items()):
        ending = re.compile(rf"((?:.*[./])?){known.marker}")
        found |= {match[1]: form for name in stored if (match := ending.fullmatch(name))}
    trunks = {at + inner for at, form in found.items() if not FORMS[form].resnet for inner in _TRUNKS_IN_HYBRIDS}
    others = {at for at, form in found.items() if (FORMS[form].resnet and at in trunks) or _MOMENTS.fullmatch(at)}
    return {at: form for at, form in found.items() if at not in others}


def _averaged(found: dict[str, str]) -> dict[str, str]:
    """Of a checkpoint of ours the averaged network, which is what its run measured; else all."""
    at = next((at for at, form in found.items() if form.startswith("own") and at.endswith("average.")), "")
    beside = {at.removesuffix("average.") + name for name in ("average.", "network.", "network._orig_mod.")}
    return {at: found[at]} if at and found.keys() <= beside else found


def _bare(stored: Mapping[str, Tensor], at: str, form: str, found: Iterable[str]) -> dict[str, Tensor]:
    """What follows the prefix, but not another network within."""
    within = (re.match(r"[^./]*[./]", other[len(at) :]) for other in found if other.startswith(at))
    inner = tuple(at + first[0] for first in within if first)
    bare = {name[len(at) :]: v for name, v in stored.items() if name.startswith(at) and not name.startswith(inner)}
    if form == "hf" and (encoder := _HF_ENCODER.fullmatch(at)):
        above = encoder[1]
        heads = tuple(above + head for head in _HF_HEADS)
        bare |= {name[len(above) :]: value for name, value in stored.items() if name.startswith(heads)}
    return bare


def _listed(found: Mapping[str, str]) -> str:
    return " and ".join(shown(at.strip("./")) or "one without a prefix ('.')" for at in sorted(found))
