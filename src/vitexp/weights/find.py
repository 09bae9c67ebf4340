"""Which networks lie in a file, and under which prefix: a file of a training script may hold several.

A network is known by a name that only its form has; what stands before that name is its prefix. Whatever lies under
another prefix, such as an optimiser's state, is not the network's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vitexp.weights.names import FORMS
from vitexp.weights.read import Stored, read_file, shown

# Hugging Face keeps the head beside the encoder, which has a prefix of its own there.
_HF_ENCODER = re.compile(r"(.*?)(?:vit|deit)\.")
_HF_HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.")
_MOMENTS = re.compile(r"(?:.*[./])?(?:mu|nu|exp_avg|exp_avg_sq|momentum(?:_buffer)?)[./]")
"""Prefixes under which an optimiser keeps an array for each of a network's."""
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
    found = _networks(stored)
    if not found:
        raise ValueError(_none(stored, source))
    wanted = prefix.strip("./")
    under: Mapping[str, str] = {at: form for at, form in found.items() if _under(at, wanted)}
    if prefix:  # a whole prefix before a part of one; "." is the empty one
        under = {at: form for at, form in under.items() if at.strip("./") == wanted} or under
    if not under:
        raise ValueError(f"{source} holds no network under {wanted!r}; it holds {_listed(found)}")
    if len(under) > 1:
        under = _averaged(under)
    if len(under) > 1:
        raise ValueError(
            f"{source} holds several networks, {_listed(under)}: say which, for example "
            f"{source}#{max(under).strip('./')}"
        )
    (at, form), *_ = under.items()
    return Network(form, at, _bare(stored, at, form, found))


def split_name(name: str | Path) -> tuple[Path, str]:
    """The file and the prefix in `FILE#prefix`; a file whose own name has the sign is taken whole."""
    path, sign, prefix = str(name).rpartition("#")
    return (Path(path), prefix) if sign and not Path(name).is_file() else (Path(name), "")


def read_weights(name: str | Path) -> Stored:
    """The network in a file, or of several the one that FILE#prefix names, with what is known of its config.

    Raises: ValueError as `read_file` and `choose`.
    """
    path, prefix = split_name(name)
    stored = read_file(path)
    network = choose(stored.tensors, str(path), prefix)
    bare = network.prefix.strip("./")
    _check_export(stored, network, path)
    return stored._replace(tensors=network.tensors, name=f"{path}#{bare}" if bare else str(path))


def _check_export(stored: Stored, network: Network, path: Path) -> None:
    trunk = network.form == "timm resnet" or any(name.startswith("patch_embed.backbone.") for name in network.tensors)
    if stored.config is not None and network.form.startswith("timm") and trunk:
        raise ValueError(
            f"{path} is an export for timm, its kernels are fitted to timm's epsilons and would compute something else "
            f"here: open it as timm:local-dir:{path.parent}, or use the network that it was made from"
        )


def _networks(stored: Iterable[str]) -> dict[str, str]:
    """Prefixes, each with the form that lies there; the trunk of a hybrid is no network of its own."""
    found: dict[str, str] = {}
    for form, known in reversed(FORMS.items()):
        ending = re.compile(rf"((?:.*[./])?){known.marker}")
        found |= {match[1]: form for name in stored if (match := ending.fullmatch(name))}
    trunks = {at + inner for at, form in found.items() if not FORMS[form].resnet for inner in _TRUNKS_IN_HYBRIDS}
    return {
        at: form
        for at, form in found.items()
        if not (FORMS[form].resnet and at in trunks) and not _MOMENTS.fullmatch(at)
    }


def _under(at: str, wanted: str) -> bool:
    """Whether the words of `wanted` stand in a prefix, one after the other."""
    separated = re.sub(r"[./]", ".", f".{at}")
    return not wanted or f".{re.sub(r'[./]', '.', wanted)}." in separated


def _averaged(found: Mapping[str, str]) -> Mapping[str, str]:
    """Of a checkpoint of ours the averaged network, which is what its run measured; else all."""
    own = [at for at, form in found.items() if form.startswith("own")]
    average = [at for at in own if at.endswith("average.")]
    stem = average[0].removesuffix("average.") if average else ""
    beside = {f"{stem}{name}" for name in ("average.", "network.", "network._orig_mod.")}
    return {average[0]: found[average[0]]} if average and set(found) <= beside else found


def _bare(stored: Mapping[str, Tensor], at: str, form: str, found: Iterable[str]) -> dict[str, Tensor]:
    within = (re.match(r"[^./]*[./]", other[len(at) :]) for other in found if other.startswith(at))
    inner = tuple(at + first[0] for first in within if first)
    bare = {
        name[len(at) :]: value
        for name, value in stored.items()
        if name.startswith(at) and not (inner and name.startswith(inner))
    }
    if form == "hf" and (encoder := _HF_ENCODER.fullmatch(at)):
        above = encoder[1]
        heads = tuple(above + head for head in _HF_HEADS)
        bare |= {name[len(above) :]: value for name, value in stored.items() if name.startswith(heads)}
    return bare


def _listed(found: Mapping[str, str]) -> str:
    return " and ".join(shown(at.strip("./")) or "one without a prefix ('.')" for at in sorted(found))


def _none(stored: Sequence[str] | Mapping[str, Tensor], source: str) -> str:
    known = ", ".join(dict.fromkeys(form.program for form in FORMS.values()))
    names = ", ".join(map(shown, sorted(stored)[:3]))
    holds = f"its names are such as {names}" if names else "there are no arrays in it"
    return f"{source} holds no Vision Transformer or ResNet by the names of {known}: {holds}"
