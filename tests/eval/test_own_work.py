"""Parts of the user's own that weigh too much or too little, or do not use what they are given, and sound ones."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitexp import own
from vitexp.eval.certificate import certify
from vitexp.eval.subject import Subject
from vitexp.nn.vit import ViTConfig, resolve

AXES = """
import torch
from torch import nn
from vitexp.nn.attention import Full
from vitexp.nn.mlp import Mlp, TokenMlp
from vitexp.nn.norm import RmsNorm, TokenNorm
from vitexp.nn.pool import Pool
from vitexp.nn.position import Position
from vitexp.nn.stem import Stem

class Table(Position):
    def __init__(self, layout, at, times: float = 1.0, std: float = 0.02, hue: int = 0):
        super().__init__(layout, at)
        self.times, self.table = times, nn.Parameter(torch.randn(layout.tokens, layout.width) * std)
    def add(self, tokens, layer):
        return tokens + self.times * self.table if layer == 0 else tokens

class Times(Mlp):
    def __init__(self, width, hidden, dropout, times: float = 1.0):
        super().__init__(width, hidden, dropout)
        self.times = times
    def forward(self, tokens):
        return self.times * super().forward(tokens)

class Gated(Mlp):
    def __init__(self, width, hidden, dropout, start: float = 1e-5, squashed: bool = False, drawn: bool = False):
        super().__init__(width, hidden, dropout)
        self.gate = nn.Parameter(torch.randn(width) * start if drawn else torch.full((width,), start))
        self.squashed = squashed
    def forward(self, tokens):
        return (self.gate.sigmoid() if self.squashed else self.gate) * super().forward(tokens)

class Kept(Mlp):
    def __init__(self, width, hidden, dropout):
        super().__init__(width, hidden, 0.0)

class Norm(TokenNorm):
    def __init__(self, width, times: float = 1.0):
        super().__init__(width)
        self.inner, self.times = RmsNorm(width), times
    def forward(self, tokens):
        return self.times * self.inner(tokens)

class Attention(Full):
    def __init__(self, layout, times: float = 1.0):
        super().__init__(layout.width, layout.heads)
        self.times = times
    def mix(self, query, key, value, bias):
        return self.times * super().mix(query, key, value.abs(), bias)

class Mean(Pool):
    def __init__(self, width, heads, mlp_width, times: float = 1.0):
        super().__init__(width, heads, mlp_width)
        self.times = times
    def read(self, tokens, norm):
        return self.times * norm(tokens).mean(1)

class Cut(Stem):
    def __init__(self, arch, image_size, times: float = 1.0):
        super().__init__(arch, image_size)
        self.kernel, self.times = nn.Conv2d(3, arch.width, arch.patch, stride=arch.patch), times
    def embed(self, images):
        return self.times * self.kernel(images).flatten(2).transpose(1, 2)
"""
SLOTS = {"pos_embed": "Table", "mlp": "Times", "norm": "Norm", "attention": "Attention", "pool": "Mean",
         "stem": "Cut"}  # fmt: skip


def changes(axis, name, options=None, **others):
    """What `changes the output` finds of this class of `AXES`."""
    Path("planted.py").write_text(AXES)
    sys.modules.pop("planted", None)
    own.load.cache_clear()
    base = ViTConfig(arch="micro/2", image_size=8, classes=10)
    mine = replace(base, **{axis: f"planted:{name}"}, options={axis: options or {}}, **others)
    subject = Subject(resolve(mine), resolve(base), 0, lambda network: torch.optim.AdamW(network.parameters()))
    return next(line for line in certify(subject) if line.check == "changes the output")


@pytest.mark.usefixtures("ideas")
@pytest.mark.parametrize("axis", SLOTS)
@pytest.mark.parametrize("times", [1.0, 1e-3, 1e3])
def test_a_part_of_another_size_altogether_is_named_and_no_other(axis, times):
    found = changes(axis, SLOTS[axis], {"times": times} if times != 1 else {})
    if times == 1e3 and axis == "pos_embed":
        return  # a share of what is there already: "two images have one answer" names it
    assert found.verdict == ("holds" if times == 1 else "FAILS"), found
    if times != 1:
        assert f"{axis} planted:{SLOTS[axis]} weighs " in found.text
        assert f" times what the baseline's {axis} does; scale it {'up' if times < 1 else 'down'}" in found.text


@pytest.mark.parametrize(
    ("axis", "name", "options"),
    [
        ("mlp", "Gated", {}),  # LayerScale, as in CaiT
        ("mlp", "Gated", {"drawn": True}),
        ("mlp", "Gated", {"start": -5.0, "squashed": True}),
        ("pos_embed", "Table", {"std": 1e-6}),  # as DINOv2 begins its registers
    ],
)
@pytest.mark.usefixtures("ideas")
def test_a_part_that_begins_small_and_learns_to_grow_is_no_fault(axis, name, options):
    assert changes(axis, name, options).verdict == "holds"


@pytest.mark.parametrize("at", ["every", "shared"])
@pytest.mark.usefixtures("ideas")
def test_a_position_that_ignores_where_it_acts_is_named(at):
    found = changes("pos_embed", "Table", pos_at=at)
    assert found.verdict == "FAILS"
    assert f"pos_embed planted:Table does the same with pos_at {at} as with stem; read `at`, or give" in found.text


@pytest.mark.usefixtures("ideas")
def test_an_mlp_that_ignores_dropout_and_an_option_that_changes_nothing_are_named():
    assert changes("mlp", "Gated", dropout=0.1).verdict == "holds"
    found = changes("mlp", "Kept", dropout=0.1)
    assert found.verdict == "FAILS"
    assert found.text == "mlp planted:Kept drops nothing out, and dropout is 0.1; use it, or leave it out"
    idle = changes("pos_embed", "Table", {"hue": 3, "times": 2.0})
    assert idle.verdict == "reported"
    assert idle.text.endswith("; the network is the same with options.pos_embed.hue 3 left out")
