"""Whether parts of the user's own do their work: use what they are given, and weigh about what the baseline's do."""

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from vitexp.eval.subject import EQUAL, Subject, same
from vitexp.nn.table import TABLES, probe
from vitexp.words import listed

SCALE = 300
"""How many times more or less a part may weigh than the baseline's in its place. Small weights are moved first, so that
only a fixed factor makes such a difference, or a gate that starts all but closed: the sigmoid of -5 is 1 / 150."""
few = partial(listed, most=3)


def own_parts(s: Subject) -> dict[str, Any]:
    """The parts of the user's own, by axis."""
    return {str(module.own_axis): module for module in s.network.modules() if hasattr(module, "own_axis")}


def named(s: Subject, options: Iterable[str]) -> str:
    """Options with their values: `dropout 0.1`."""
    return few([f"{name} {getattr(s.config, name)}" for name in options])


def ignored(s: Subject) -> str:
    """What a part is given and does not use, in a sentence; empty for nothing."""
    own, at, rate = own_parts(s), s.config.pos_at, s.config.dropout
    if "pos_embed" in own and s.placed() <= EQUAL:
        return f"{named(s, ['pos_embed'])} changes nothing: logits are those without positions; connect it"
    if "pos_embed" in own and at != "stem" and s.is_alike(pos_at="stem"):
        what = f"{named(s, ['pos_embed'])} does the same with pos_at {at} as with stem"
        return f"{what}; read `at`, or give the class refused = {{{at!r}: 'why it has no effect'}}"
    if "mlp" in own and rate and not _draws(s, own["mlp"]):
        return f"{named(s, ['mlp'])} drops nothing out, and dropout is {rate}; use it, or leave it out"
    return ""


def _draws(s: Subject, mlp: Any) -> bool:
    tokens = probe(2, 3, mlp.width)
    with s.seeded(s.seed), torch.no_grad():
        return not same(mlp.train()(tokens), mlp(tokens))


def weight(s: Subject) -> str:
    """Which part is of another size altogether than the baseline's, in a sentence; empty for none."""
    mine, its = (s.weights(base) for base in (False, True)) if own_parts(s) else ({}, {})
    for axis in own_parts(s):
        if its.get(axis) and axis in mine and not 1 / SCALE < (times := mine[axis] / its[axis]) < SCALE:
            remedy = f"scale it {'down' if times > 1 else 'up'}, or give it a learned factor"
            return f"{named(s, [axis])} weighs {times:.2g} times what the baseline's {axis} does; {remedy}"
    return ""


def idle_options(s: Subject) -> list[str]:
    """Options of parts that are given and change nothing beside their defaults."""
    found = []
    for axis in own_parts(s):
        given, kind = s.config.options[axis], TABLES[axis][getattr(s.config, axis)]
        for name, one in inspect.signature(kind).parameters.items():
            if one.default is one.empty or given.get(name, one.default) == one.default:
                continue
            others = {key: value for key, value in given.items() if key != name}
            if s.is_alike(options=s.config.options | {axis: others}):
                found.append(f"options.{axis}.{name} {given[name]}")
    return found
