"""Weight files of ResNets: BiT's `.npz` and its later form after activation, timm's state dicts, and our own.

Source: the BiT and big_vision code for the names; kernels lie with their output last and are not yet standardised.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from vitexp.nn.resnet_network import ResNet
from vitexp.weights.entry import Codec, Entry, Rule, check_expressible, entries_of, written
from vitexp.weights.google import CONVOLUTION, DENSE, pair, trunk_rules

OWN_MARKER = "trunk.conv_root.weight"
TIMM_MARKER = "stem.conv.weight"
BIT_MARKER = "root_block/standardized_conv2d/kernel"
BIT_PREFIXES = ("resnet/", "")
POSTACT_MARKER = "conv_root/kernel"

_EXPRESSIBLE = {"stem": ("auto",), "resnet": ("preact", "postact")}
_UNIT = r"trunk\.stages\.(\d+)\.(\d+)\."
_KIND = r"\.(weight|bias)"
_LETTERS = {1: "a", 2: "b", 3: "c"}

# The head is a convolution of one pixel in these files.
_HEAD = Codec(lambda stored: stored[0, 0].T, lambda own: (own.T[None, None],))
_TIMM_HEAD = Codec(lambda stored: stored[:, :, 0, 0], lambda own: (own[:, :, None, None],))

_TIMM = [
    Rule(r"trunk\.conv_root\.weight", (TIMM_MARKER,)),
    Rule(rf"trunk\.gn_root{_KIND}", ("stem.norm.{0}",)),
    Rule(rf"trunk\.gn{_KIND}", ("norm.{0}",)),
    Rule(rf"{_UNIT}conv([123])\.weight", ("stages.{0}.blocks.{1}.conv{2}.weight",)),
    Rule(rf"{_UNIT}gn([123]){_KIND}", ("stages.{0}.blocks.{1}.norm{2}.{3}",)),
    Rule(rf"{_UNIT}conv_proj\.weight", ("stages.{0}.blocks.{1}.downsample.conv.weight",)),
    Rule(rf"{_UNIT}gn_proj{_KIND}", ("stages.{0}.blocks.{1}.downsample.norm.{2}",)),
    Rule(r"head\.weight", ("head.fc.weight",), _TIMM_HEAD),
    Rule(r"head\.bias", ("head.fc.bias",)),
]


def timm_entries(model: ResNet) -> list[Entry]:
    """Where each parameter lies in timm's ResNetV2. Raises: ValueError for a network that it has no words for."""
    check_expressible(model.config, _EXPRESSIBLE, "timm")
    return entries_of(model.state_dict(), _TIMM)


def bit_entries(model: ResNet, source: str) -> list[Entry]:
    """The same in a BiT file. Raises: ValueError also for a network with the other order of units."""
    _check_order(model, "preact", source)
    check_expressible(model.config, _EXPRESSIBLE, "BiT .npz")
    return entries_of(model.state_dict(), _bit_rules())


def postact_entries(model: ResNet, source: str) -> list[Entry]:
    """The same in a file of the later code, which names a trunk as the hybrids do. Raises: as `bit_entries`."""
    _check_order(model, "postact", source)
    words = _EXPRESSIBLE | {"head": ("linear", "tanh")}
    check_expressible(model.config, words, "Google .npz")
    rules = [*trunk_rules(r"trunk\."), *pair("(pre_logits|head)", "{0}", "kernel", DENSE)]
    return entries_of(model.state_dict(), rules)


def npz_state(model: ResNet) -> dict[str, Tensor]:
    """The weights by the names of a BiT file, or with units after activation by those of the later code.

    Raises: as `bit_entries`.
    """
    if model.config.resnet == "postact":
        return written(model, postact_entries(model, "the file"))
    return {f"{BIT_PREFIXES[0]}{name}": value for name, value in written(model, bit_entries(model, "the file")).items()}


def in_one_spelling(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Some files number their convolutions, and keep a norm's values with three axes too many."""
    spelled = {re.sub(r"standardized_conv2d_\d+", "standardized_conv2d", name): array for name, array in arrays.items()}
    return {name: array.flatten() if "group_norm/" in name else array for name, array in spelled.items()}


def _check_order(model: ResNet, order: str, source: str) -> None:
    if model.config.resnet != order:
        raise ValueError(f"{source} holds a ResNet with units {order}, and the network has {model.config.resnet} ones")


def _bit_rules() -> list[Rule]:
    unit, rules = "block{0}/unit{1:02d}/", []
    for number, letter in _LETTERS.items():
        kernel, norm = f"{unit}{letter}/standardized_conv2d/kernel", f"{unit}{letter}/group_norm/"
        rules += [
            Rule(rf"{_UNIT}conv{number}\.weight", (kernel,), CONVOLUTION, first=1),
            Rule(rf"{_UNIT}gn{number}\.weight", (f"{norm}gamma",), first=1),
            Rule(rf"{_UNIT}gn{number}\.bias", (f"{norm}beta",), first=1),
        ]
    return [
        *rules,
        Rule(rf"{_UNIT}conv_proj\.weight", (f"{unit}a/proj/standardized_conv2d/kernel",), CONVOLUTION, first=1),
        Rule(r"trunk\.conv_root\.weight", (BIT_MARKER,), CONVOLUTION),
        Rule(r"trunk\.gn\.weight", ("group_norm/gamma",)),
        Rule(r"trunk\.gn\.bias", ("group_norm/beta",)),
        Rule(r"head\.weight", ("head/conv2d/kernel",), _HEAD),
        Rule(r"head\.bias", ("head/conv2d/bias",)),
    ]
