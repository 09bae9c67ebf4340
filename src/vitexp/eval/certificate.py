"""A certificate: what a config says of its network, checked on random images before anything trains.

Each check is a function that gives one line. A property that a part declares is checked; one that it does not declare
is reported.
"""

import copy
import io
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Literal, NamedTuple

import torch

from vitexp.eval.flops import counted_macs, forward_macs
from vitexp.eval.own_work import few, idle_options, ignored, named, own_parts, weight
from vitexp.eval.subject import EQUAL, Subject, apart, put_buffers, same, unlike, unlike_attributes, unsaved
from vitexp.nn.init import generator_for
from vitexp.nn.pool import POOLS
from vitexp.nn.table import TABLES, settled
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.own import WrongPart, said

Verdict = Literal["holds", "FAILS", "reported"]
BF16 = 0.1
"""The same in bf16, whose numbers have 3 digits."""
DROWNED = 0.03
"""The same of two random images, which differ by a quarter or more in any network of built-in parts."""
_MACS = 0.001
_DRAWN = ("drop", "stochastic")
"""What is in the names of options that draw at random in training."""
_ORDERLESS = {"pos_embed": ("none",), "attention": ("full",), "pool": tuple(POOLS)}
"""Built-in values that do not see the order of the patches."""


class Line(NamedTuple):
    """What was checked, and what was found, in one sentence."""

    check: str
    verdict: Verdict
    text: str


class Fault(Exception):
    """A check that fails: its message says what, and what to mend."""


class Unsaid(Exception):
    """What a check finds and nothing declares, or cannot tell."""


def certify(subject: Subject) -> list[Line]:
    """All checks, in the order of `CHECKS`; one that ends in an error fails with it.

    Raises: ValueError for a part of the user's own that cannot be built.
    """
    subject.starts  # noqa: B018  # a network that cannot be built is refused, not certified
    with subject.seeded(_eval_seed(subject)):
        return [Line(name, *_outcome(check, subject)) for name, check in CHECKS.items()]


def _eval_seed(s: Subject) -> int:
    """That of draws in eval mode, unlike that of training passes."""
    return generator_for(s.seed, "eval mode").initial_seed()


def _outcome(check: Callable[[Subject], str], subject: Subject) -> tuple[Verdict, str]:
    try:
        if check in (_changes, _permutation, _modes) and not subject.plain.isfinite().all():
            raise Unsaid("not known, because logits are NaN or infinite")
        return "holds", check(subject)
    except (Fault, WrongPart) as fault:
        return "FAILS", str(fault)
    except Unsaid as found:
        return "reported", str(found)
    except (Exception, SystemExit) as error:  # whatever the code of a part does
        return "FAILS", f"{said(error)}; mend that file"


def _changes(s: Subject) -> str:
    """The options that differ from the baseline's change the output at all."""
    if not s.changed:
        raise Unsaid("the network is the baseline's")
    if (share := apart(s.plain[:1], s.logits(0, base=True))) > EQUAL:
        if fault := ignored(s) or weight(s):
            raise Fault(fault)
        text = f"logits differ from the baseline's by up to {_percent(share)}"
        if idle := idle_options(s):
            raise Unsaid(f"{text}; the network is the same with {few(idle)} left out")
        return text
    if apart(s.trained, s.logits(0, 1, train=True, base=True)) > EQUAL:
        return "in training alone; in eval mode logits are the baseline's"
    what = " and ".join(f"{name} {here}" for name, (here, _) in s.changed.items())
    raise Fault(f"{what} leaves the logits as the baseline has them, whatever its parameters are; connect it")


def _starts_equal(s: Subject) -> str:
    """Parameters that the baseline has too start with its bits."""
    if names := s.starts.apart:
        raise Fault(f"{few(names)} start with other values than in the baseline; draw by name (init_rules)")
    return f"all {len(s.starts.shared)} parameters that the baseline has too start as there"


def _gradients(s: Subject) -> str:
    """A gradient reaches every parameter, in training mode or in eval mode, which drops nothing."""
    s.training  # noqa: B018
    silent = _without_gradient(s)
    if silent:
        s.backward(train=False)
        silent &= _without_gradient(s)
    unread = _unread(s, sorted(silent))
    if dead := sorted(silent - unread):
        raise Fault(f"no gradient reaches {few(dead)}; use it, or make it a buffer")
    if unread:
        raise Unsaid(f"{few(sorted(unread))} changes tokens of the last layer alone that the head does not read")
    return f"gradient reaches all {sum(1 for _ in s.network.parameters())} parameters"


def _without_gradient(s: Subject) -> set[str]:
    learned = {name: one.grad for name, one in s.network.named_parameters() if one.requires_grad}
    largest = {name: 0.0 if one is None else float(one.norm(math.inf)) for name, one in learned.items()}
    if odd := [name for name, value in largest.items() if not math.isfinite(value)]:
        raise Fault(f"the gradient of {few(odd)} is NaN or infinite; bound the slope of what they go through")
    return {name for name, value in largest.items() if not value}


def _unread(s: Subject, names: list[str]) -> set[str]:
    """Those that have a gradient from all tokens of the last layer, of which the head may read one."""
    if not names or not isinstance(s.network, ViT):
        return set()
    with s.begun(s.network, train=False):
        everything = s.network.encode(s.images[:1]).square().sum()
    found = torch.autograd.grad(everything, [s.network.get_parameter(name) for name in names], allow_unused=True)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is not None and gradient.any()}


def _size(s: Subject) -> str:
    """Parameters and multiply-accumulates, beside the baseline's; formulas agree with torch's own count."""
    here, there = (sum(p.numel() for p in network.parameters()) for network in (s.network, s.starts.base))
    macs, base = forward_macs(s.config), forward_macs(s.baseline)
    bare = {axis for axis, module in own_parts(s).items() if not any(True for _ in module.parameters())}
    if wrong := [axis for axis, value in s.declared("adds_parameters").items() if value and axis in bare]:
        raise Fault(f"{named(s, wrong)} declares adds_parameters True and has none; mend one of both")
    if stated := [axis for axis in own_parts(s) if TABLES[axis].has_formula(getattr(s.config, axis))]:
        formula, counted = forward_macs(s.config, as_computed=True), counted_macs(settled(s.config))
        if abs(formula / counted - 1) > _MACS:
            what = f"an image takes {formula:,} multiplications, and torch counts {counted:,}"
            raise Fault(f"with macs of {named(s, stated)} {what}; mend macs")
    cost = f"{macs / 1e9:.4g} GMAC an image ({100 * (macs / base - 1):+.2f} %)"
    raise Unsaid(f"{here:,} parameters ({here - there:+,}), {cost}")


def _permutation(s: Subject) -> str:
    """Whether the order of the patches matters, as parts declare it."""
    if s.patches < 2:
        raise Unsaid("there are no patches to shuffle")
    share, declared = apart(s.beside[1], s.plain[0]), s.declared("permutation_invariant")
    invariant = share <= EQUAL
    found = "logits stay with" if invariant else f"logits move by up to {_percent(share)} under"
    text = f"{found} another order of the patches"
    wrong = [axis for axis, value in declared.items() if value != invariant]
    alike = {axis: getattr(s.config, axis) in words for axis, words in _ORDERLESS.items() if axis not in wrong}
    if wrong and not invariant and not all(alike.values()):
        raise Unsaid(f"{text}; other parts see the order too, so whether {named(s, wrong)} does is not known")
    if wrong:
        raise Fault(f"{named(s, wrong)} declares permutation_invariant {not invariant}, but {text}; mend one of both")
    if not declared:
        raise Unsaid(f"{text}; nothing declares it")
    return f"{text}, as declared"


def _reaches(s: Subject) -> str:
    """Two images differ in their logits, and the class token and every patch have a gradient."""
    token, patches = getattr(s.network.pool, "cls", None) if s.patches else None, s.training[1]
    unseen = s.patches if patches is None else int((patches.abs().amax(dim=(0, 2)) == 0).sum())
    if s.patches and unseen == s.patches:
        raise Fault("no patch reaches the head: every image has one answer; let what the head reads see the patches")
    if (share := apart(s.plain[:1], s.plain[1:])) < DROWNED:
        raise Fault(
            f"two images have one answer up to {_percent(share)}: what is added drowns the patches, or what they give "
            "vanishes; mend the scale"
        )
    if not s.patches:
        raise Unsaid("there are no tokens")
    if token is not None and (token.grad is None or not token.grad.any()):
        raise Fault("the class token does not reach the head: its value changes nothing; keep it among the tokens")
    if unseen:
        raise Unsaid(f"{unseen} of {s.patches} patches do not reach the head")
    return f"{'the class token and ' if token is not None else ''}all {s.patches} patches reach the head"


def _batch(s: Subject) -> str:
    """An image's logits are the same whatever lies beside it."""
    pairs = {"eval": (s.plain, s.beside), "training": (s.trained, s.trained_beside)}
    for mode, (one, other) in pairs.items():
        if not s.random[mode] and not same(one[0], other[0]):
            raise Fault(f"an image's logits depend on the others of its batch in {mode} mode; keep images apart")
    if any(s.random.values()):
        raise Unsaid("not known, because two passes over the same images differ")
    return "an image's logits are the same beside other images"


def _modes(s: Subject) -> str:
    """Training and eval mode differ only where that is declared, and eval mode draws nothing."""
    if s.random["eval"]:
        raise Fault("two passes in eval mode over the same images differ; draw only where self.training is true")
    share, names = apart(s.trained, s.plain), [field.name for field in fields(ViTConfig)]
    drawn = [name for name in names if any(word in name for word in _DRAWN) and getattr(s.config, name)]
    declared = [axis for axis, value in s.declared("differs_in_training").items() if value]
    if share <= EQUAL and declared:
        what = f"{named(s, declared)} declares differs_in_training True"
        raise Fault(f"{what} and is alike in both modes; mend one of both")
    if share <= EQUAL:
        return "training and eval mode are alike"
    if drawn or declared:
        return f"training and eval mode differ, as {named(s, drawn + declared)} says"
    raise Fault(f"training and eval mode differ by up to {_percent(share)}; declare differs_in_training, or mend it")


def _precision(s: Subject) -> str:
    """Logits under autocast to bf16 are those in fp32 but for its rounding."""
    if s.random["eval"]:
        raise Unsaid("not known, because two passes in eval mode differ")
    with torch.autocast("cpu", torch.bfloat16):
        low = s.logits(0, 1)
    for kind, values in (("fp32", s.plain), ("bf16", low)):
        if not values.isfinite().all():
            raise Fault(f"logits are NaN or infinite in {kind}; bound what grows, and take its sums in fp32")
    if (share := apart(low, s.plain)) > BF16:
        raise Fault(f"logits in bf16 differ by up to {_percent(share)}; compute in fp32 what is so large")
    return f"logits in bf16 are those in fp32 up to {_percent(share)}"


def _seed(s: Subject) -> str:
    """One seed gives one network and one training pass."""
    if names := s.starts.again:
        raise Fault(f"{few(names)} start with other values in a second build from one seed; draw by torch's generator")
    if s.random["training"]:
        what = "draw by torch's generator alone, and keep what passes change in buffers"
        raise Fault(f"two training passes from one seed differ; {what}")
    if torch.initial_seed() != _eval_seed(s):
        raise Fault("a pass in eval mode seeds torch's generator, from which others draw; use a generator of your own")
    return "two networks and two training passes from one seed are equal to the bit"


def _survives(s: Subject) -> str:
    """A network of another seed that takes over the saved state goes on to the bit. The last check: it steps."""
    put_buffers(s.network, s.training[2])
    first = s.optimize(s.network)
    first.step()
    state, fresh, stored = s.network.state_dict(), s.make(s.config, s.seed + 1), io.BytesIO()
    torch.save({name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}, stored)
    torch.load(io.BytesIO(stored.getvalue()), weights_only=True)  # tensors are safe, and large
    fresh.load_state_dict(state)
    if lost := unsaved(s.network, fresh):
        raise Fault(f"{few(lost)} is not saved, and a new network has other values; make it a persistent buffer")
    second = s.optimize(fresh)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # it would share the tensors
    if lost := unlike_attributes(first, second):
        raise Fault(f"{few(lost)} of the optimizer is not in its state_dict(); keep it in self.state")
    answers = []
    for network in (s.network, fresh):
        with torch.no_grad(), s.seeded(s.seed):
            answers.append(network.train()(s.images[:1]))
    for name, parameter in s.network.named_parameters():  # equal passes have equal gradients
        fresh.get_parameter(name).grad = copy.deepcopy(parameter.grad)  # an optimizer may write into it
    first.step()
    second.step()
    if s.random["training"]:
        raise Unsaid(
            "its state loads; whether it goes on alike is not known, because training passes from one seed differ"
        )
    if not same(*answers) or unlike(s.network.state_dict(), fresh.state_dict()):
        raise Fault("a network that loads its state goes on otherwise; keep all state in parameters and buffers")
    return "saved, loaded and resumed it goes on to the bit"


CHECKS: dict[str, Callable[[Subject], str]] = {
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
    return f"{100 * share:.2g} %" if share < 0.99 else f"{100 * share:.0f} %"
