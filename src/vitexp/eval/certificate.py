"""A certificate: what a config says of its network, checked on random images before anything trains.

Each check is a function that gives one line. A property that a part declares is checked; one that it does not declare
is reported.
"""

import copy
import io
import traceback
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, Literal, NamedTuple

import torch

from vitexp.eval.flops import counted_macs, forward_macs
from vitexp.eval.subject import Subject, apart, same, unlike, unsaved
from vitexp.nn.init import generator_for
from vitexp.nn.table import TABLES, settled
from vitexp.nn.vit import ViTConfig

Verdict = Literal["holds", "FAILS", "reported"]
EQUAL = 3e-5
"""Logits whose largest difference is a smaller share of the largest are equal but for rounding in fp32."""
BF16 = 0.1
"""The same in bf16, whose numbers have 3 digits."""
_MACS = 0.001
_DRAWN = ("drop", "stochastic")
"""What is in the names of options that draw at random in training."""
_SHOWN = 3


class Line(NamedTuple):
    """What was checked, and what was found, in one sentence."""

    check: str
    verdict: Verdict
    text: str


Found = tuple[Verdict, str]


def certify(subject: Subject) -> list[Line]:
    """All checks, in the order of `CHECKS`; one that ends in an error fails with it.

    Raises: ValueError for a part of the user's own that cannot be built.
    """
    lines = []
    subject.starts  # noqa: B018  # a network that cannot be built is refused, not certified
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(subject.seed, "eval mode").initial_seed())  # unlike that of training passes
        for name, check in CHECKS.items():
            try:
                lines.append(Line(name, *check(subject)))
            except Exception as error:  # whatever the code of a part does
                frames = traceback.extract_tb(error.__traceback__)
                where = next(frame for frame in reversed(frames) if "site-packages" not in frame.filename)
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                lines.append(Line(name, "FAILS", f"{said} ({where.filename}:{where.lineno}); mend that file"))
    return lines


def _changes(s: Subject) -> Found:
    """The options that differ from the baseline's change the output at all."""
    if not s.changed:
        return "reported", "it is the baseline itself"
    if (share := apart(s.plain[:1], s.logits(0, base=True))) > EQUAL:
        return "holds", f"logits differ from the baseline's by up to {_percent(share)}"
    if apart(s.training.logits[:1], s.logits(0, 1, train=True, base=True)[:1]) > EQUAL:
        return "holds", "in training alone; in eval mode logits are the baseline's"
    what = " and ".join(f"{name} {here}" for name, (here, _) in s.changed.items())
    return "FAILS", f"{what} leaves the logits as the baseline has them, whatever its parameters are; connect it"


def _starts_equal(s: Subject) -> Found:
    """Parameters that the baseline has too start with its bits."""
    *_, drawn = s.starts
    if drawn:
        return "FAILS", f"{_some(drawn)} start with other values than in the baseline; draw by name (init_rules)"
    return "holds", f"all {s.shared} parameters that the baseline has too start as there"


def _gradients(s: Subject) -> Found:
    """The loss moves every parameter."""
    if silent := s.silent:
        return "FAILS", f"no gradient reaches {_some(silent)}; use it, or make it a buffer"
    return "holds", f"gradient reaches all {sum(1 for _ in s.network.parameters())} parameters"


def _size(s: Subject) -> Found:
    """Parameters and multiply-accumulates, beside the baseline's; formulas agree with torch's own count."""
    here, there = (sum(p.numel() for p in network.parameters()) for network in (s.network, s.base))
    macs, base = forward_macs(s.config), forward_macs(s.baseline)
    text = f"{here:,} parameters ({here - there:+,}), {macs / 1e9:.4g} GMAC an image ({100 * (macs / base - 1):+.2f} %)"
    for part, value in s.declared("adds_parameters").items():
        if value and not any(True for _ in s.parameters_of(part)):
            return "FAILS", f"{part} declares adds_parameters True and has none; mend one of both ({text})"
    if stated := [f"{axis} {path}" for axis, path in s.own.items() if TABLES[axis].has_formula(path)]:
        formula, counted = forward_macs(s.config, as_computed=True), counted_macs(settled(s.config))
        if abs(formula / counted - 1) > _MACS:
            return (
                "FAILS",
                f"with macs of {_some(stated)} an image takes {formula:,} multiplications, torch counts {counted:,}",
            )
    return "reported", text


def _permutation(s: Subject) -> Found:
    """Whether the order of the patches matters, as parts declare it."""
    if s.patches < 2:
        return "reported", "there are no patches to shuffle"
    share, declared = apart(s.beside[1], s.plain[0]), s.declared("permutation_invariant")
    invariant = share <= EQUAL
    found = "logits stay with" if invariant else f"logits move by up to {_percent(share)} under"
    text = f"{found} another order of the patches"
    wrong = [part for part, value in declared.items() if value != invariant]
    if wrong and not invariant and _moves_without(s, wrong):
        return "reported", f"{text}, also without {_some(wrong)}"
    if wrong:
        return "FAILS", f"{_some(wrong)} declares permutation_invariant {not invariant}, but {text}; mend one of both"
    return ("holds", f"{text}, as declared") if declared else ("reported", f"{text}; nothing declares it")


def _moves_without(s: Subject, parts: Iterable[str]) -> bool:
    """Whether the order matters in the network with none, or a plain word, in place of these parts."""
    axes = {part.partition(" ")[0] for part in parts}
    plain: dict[str, Any] = {axis: "none" if "none" in TABLES[axis] else TABLES[axis].plain for axis in axes}
    options = {axis: values for axis, values in s.config.options.items() if axis not in plain}
    other = replace(s, config=settled(replace(s.config, **plain, options=options, sources={})))
    return apart(other.beside[1], other.plain[0]) > EQUAL


def _reaches(s: Subject) -> Found:
    """The class token and every patch have a gradient from what the head reads."""
    if not s.patches:
        return "reported", "there are no tokens"
    token, patches = getattr(s.network.pool, "cls", None), s.training.patches
    if token is not None and (token.grad is None or not token.grad.any()):
        return "FAILS", "the class token does not reach the head: its value changes nothing; keep it among the tokens"
    unseen = s.patches if patches is None else int((patches.abs().amax(dim=(0, 2)) == 0).sum())
    if unseen:
        return "reported", f"{unseen} of {s.patches} patches do not reach the head"
    return "holds", f"{'the class token and ' if token is not None else ''}all {s.patches} patches reach the head"


def _batch(s: Subject) -> Found:
    """An image's logits are the same whatever lies beside it."""
    told = {"eval": not s.random_in_eval, "training": not s.unseeded}
    alone, other = {"eval": s.plain, "training": s.training.logits}, {"eval": s.beside, "training": s.trained_beside}
    leaks = [mode for mode, known in told.items() if known and not same(alone[mode][0], other[mode][0])]
    if leaks:
        return "FAILS", f"an image's logits depend on the others of its batch in {leaks[0]} mode; keep images apart"
    if not all(told.values()):
        return "reported", "cannot be told, as two passes over the same images differ"
    return "holds", "an image's logits are the same beside other images"


def _modes(s: Subject) -> Found:
    """Training and eval mode differ only where that is declared, and eval mode draws nothing."""
    if s.random_in_eval:
        return "FAILS", "two passes in eval mode over the same images differ; draw only where self.training is true"
    options = [field.name for field in fields(ViTConfig) if any(word in field.name for word in _DRAWN)]
    declared = [part for part, value in s.declared("differs_in_training").items() if value]
    allowed = [f"{name} {getattr(s.config, name)}" for name in options if getattr(s.config, name)] + declared
    share = apart(s.training.logits, s.plain)
    if share <= EQUAL and declared:
        return (
            "FAILS",
            f"{_some(declared)} declares differs_in_training True and is alike in both modes; mend one of both",
        )
    if share > EQUAL and not allowed:
        return (
            "FAILS",
            f"training and eval mode differ by up to {_percent(share)}; declare differs_in_training, or mend it",
        )
    return "holds", "training and eval mode " + (f"differ, as {_some(allowed)} says" if share > EQUAL else "are alike")


def _precision(s: Subject) -> Found:
    """Logits under autocast to bf16 are those in fp32 but for its rounding."""
    if s.random_in_eval:
        return "reported", "cannot be told, as two passes in eval mode differ"
    with torch.autocast("cpu", torch.bfloat16):
        low = s.logits(0, 1)
    for kind, values in (("fp32", s.plain), ("bf16", low)):
        if not values.isfinite().all():
            return "FAILS", f"logits are NaN or infinite in {kind}; bound what grows, and take its sums in fp32"
    share = apart(low, s.plain)
    if share > BF16:
        return (
            "FAILS",
            f"logits in bf16 differ by up to {_percent(share)}; scale it, or compute in fp32 what is so large",
        )
    return "holds", f"logits in bf16 are those in fp32 up to {_percent(share)}"


def _seed(s: Subject) -> Found:
    """One seed gives one network and one training pass."""
    _, _, again, _ = s.starts
    if again:
        return (
            "FAILS",
            f"{_some(again)} start with other values when built again from one seed; draw by torch's generator",
        )
    if s.unseeded:
        return "FAILS", "two training passes from one seed differ; draw by torch's generator alone"
    return "holds", "two networks and two training passes from one seed are equal to the bit"


def _survives(s: Subject) -> Found:
    """A network of another seed that takes over the saved state goes on to the bit. The last check: it steps."""
    first = s.step()
    state, fresh = s.network.state_dict(), s.make(s.config, s.seed + 1)
    others = io.BytesIO()
    torch.save({name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}, others)
    torch.load(io.BytesIO(others.getvalue()), weights_only=True)
    fresh.load_state_dict(state)
    if lost := unsaved(s.network, fresh):
        return "FAILS", f"{_some(lost)} is not saved, and a new network has other values; make it a persistent buffer"
    second = s.optimize(fresh)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # it would share the tensors
    answers = []
    for network in (s.network, fresh):
        with torch.no_grad(), s.seeded():
            answers.append(network.train()(s.images[:1]))
    for name, parameter in s.network.named_parameters():  # equal passes have equal gradients
        fresh.get_parameter(name).grad = parameter.grad
    first.step()
    second.step()
    if s.unseeded:
        return "reported", "its state loads; what comes then cannot be told, as training passes from one seed differ"
    if not same(*answers) or unlike(s.network.state_dict(), fresh.state_dict()):
        return "FAILS", "a network that loads its state goes on otherwise; keep all state in parameters and buffers"
    return "holds", "saved, loaded and resumed it goes on to the bit"


CHECKS: dict[str, Callable[[Subject], Found]] = {
    "changes the output": _changes,
    "equal start": _starts_equal,
    "gradient": _gradients,
    "size": _size,
    "order of patches": _permutation,
    "reaches the head": _reaches,
    "batch": _batch,
    "train and eval": _modes,
    "bf16": _precision,
    "seed": _seed,
    "save and resume": _survives,
}


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
