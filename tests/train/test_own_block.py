"""A norm and an MLP of the user's own by import path: built in every layer, counted, recorded, or refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vitexp import axes, own
from vitexp.eval.flops import forward_macs
from vitexp.nn.vit import ViTConfig, build
from vitexp.record import read_records
from vitexp.train.module import Classifier

TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=20", "--trainer.max_epochs=1"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
PARTS = """
import torch
from vitexp.nn.mlp import TokenMlp
from vitexp.nn.norm import TokenNorm

class Scale(TokenNorm):
    label = "scale alone"

    def __init__(self, width, start: float = 1.0):
        super().__init__(width)
        self.scale = torch.nn.Parameter(torch.full((width,), start))

    def forward(self, tokens):
        return tokens * self.scale

class Bottleneck(TokenMlp):
    def __init__(self, width, hidden, dropout, rank: int = 8):
        super().__init__(width, hidden, dropout)
        self.down = torch.nn.Linear(width, rank)
        self.up = torch.nn.Linear(rank, width)

    def forward(self, tokens):
        return self.up(self.down(tokens).relu())
"""


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    """The file, in a process that has seen none before."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blocks.py").write_text(PARTS)
    yield tmp_path / "blocks.py"
    sys.path[:] = path
    sys.modules.pop("blocks", None)
    own.load.cache_clear()
    own._LOADED.clear()
    axes._LABELS.clear()


def config(**options):
    return ViTConfig(**{"arch": "micro/4", "image_size": 8, "classes": 3} | options)


def test_both_are_trained_and_recorded_with_their_options_and_all_their_parameters(door, capsys):
    words = ["--model.norm=blocks:Scale", "--model.options.norm.start=0.5", "--model.mlp=blocks:Bottleneck"]
    assert door("fit", *TINY, *words, "--study.name=mine") == 0
    assert "position 1d at stem, cls, norm blocks:Scale, mlp blocks:Bottleneck: " in capsys.readouterr().out
    (record,), _ = read_records("runs")
    assert record.config["model"]["options"] == {"norm": {"start": 0.5}, "mlp": {"rank": 8}}
    assert {key: (part["label"], part["parameters"]) for key, part in record.parts.items()} == {
        "model.norm": ("scale alone", 9 * 64),
        "model.mlp": ("Bottleneck", 4 * (2 * 64 * 8 + 64 + 8)),
    }
    again = Classifier.load_from_checkpoint(next(Path("runs").rglob("last.ckpt")), allow_import=True)
    assert type(again.network.blocks[3].mlp).__name__ == "Bottleneck"


def test_each_layer_draws_its_own_values_by_the_seed_and_all_others_start_as_the_baselines():
    def states(*seeds, **options):
        for seed in seeds:
            torch.manual_seed(seed)
            yield build(config(**options)).state_dict()

    here, again, other = states(3, 3, 4, mlp="blocks:Bottleneck", norm="blocks:Scale")
    (plain,) = states(3)
    name = "blocks.{}.mlp.down.weight".format
    assert torch.equal(here[name(0)], again[name(0)])
    assert not torch.equal(here[name(0)], here[name(1)])
    assert not torch.equal(here[name(0)], other[name(0)])
    shared = [name for name in here.keys() & plain.keys() if "norm" not in name]
    assert len(shared) > 20
    assert all(torch.equal(here[name], plain[name]) for name in shared)


def test_the_norm_stands_everywhere_but_within_other_parts(parts):
    parts.write_text(PARTS.replace("self.down =", "self.inner = torch.nn.LayerNorm(width)\n        self.down ="))
    network = build(config(norm="blocks:Scale", mlp="blocks:Bottleneck", qk_norm=True, pool="map"))
    kinds = {path: type(module).__name__ for path, module in network.named_modules() if path.endswith("norm")}
    assert {kinds.pop(f"blocks.{layer}.attention.{one}_norm") for layer in range(4) for one in "qk"} == {"Scale"}
    assert kinds == {"norm": "Scale", "pool.norm": "Scale"}
    assert all(isinstance(block.mlp.inner, nn.LayerNorm) for block in network.blocks)


def test_what_they_multiply_is_counted():
    """By hand: 2 x 2 patches and a class token, in 4 layers."""
    plain = forward_macs(config())
    assert forward_macs(config(norm="blocks:Scale")) == plain
    mine = forward_macs(config(mlp="blocks:Bottleneck", options={"mlp": {"rank": 4}}))
    assert mine == plain - 4 * 5 * 2 * 64 * 256 + 4 * 5 * 2 * 64 * 4


@pytest.mark.parametrize(
    ("old", "new", "chosen", "message"),
    [
        ("tokens * self.scale", "tokens - tokens.mean(0)", "norm", "of a token among others something else"),
        ("tokens * self.scale", "tokens - tokens.mean(-2, True)", "norm", "of a token among others something else"),
        ("tokens * self.scale", "(tokens * self.scale)[..., 1:]", "norm", r"forward\(\) gives shape \(2, 3, 63\)"),
        (".relu())", ".relu())[:, 1:]", "mlp", r"gives shape \(2, 2, 64\) and must give shape \(2, 3, 64\)"),
        ("(TokenMlp)", "(torch.nn.Module)", "mlp", "derive the class from vitexp.nn.mlp.TokenMlp and write forward"),
        ("def forward(self, tokens):\n        return tokens", "def f(self, tokens):\n        return tokens", "norm",
         "has no method of its own: write forward"),
        ("self.down(tokens)", "self.dwon(tokens)", "mlp", "mlp blocks:Bottleneck fails: AttributeError"),
    ],
)  # fmt: skip
def test_a_part_that_is_wrong_is_refused_in_one_sentence(parts, old, new, chosen, message):
    parts.write_text(PARTS.replace(old, new))
    word = {"norm": "blocks:Scale", "mlp": "blocks:Bottleneck"}[chosen]
    with pytest.raises(ValueError, match=message):
        build(config(**{chosen: word}))
