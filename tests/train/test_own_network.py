"""A pool, stem, attention and schedule of the user's own by import path: as examples, and every way of being wrong."""

import re
from pathlib import Path

import pytest
import torch

from vitexp import cli
from vitexp.eval.flops import forward_macs
from vitexp.nn.vit import ViTConfig, build
from vitexp.record import read_record
from vitexp.tools.network import open_network
from vitexp.train.module import Classifier
from vitexp.train.optim import lr_factor

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=20", "--trainer.max_epochs=1"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
MINE = {"pool": "TopK", "stem": "OverlapStem", "attention": "Near", "schedule": "Cyclic"}
OPTION = {"pool": ("k", 3), "stem": ("more", 1), "attention": ("start", 2.0), "schedule": ("cycles", 2)}
LABEL = {"pool": "longest tokens", "stem": "overlapping patches", "attention": "soft windows"}
LABEL |= {"schedule": "warm restarts"}
PARAMETERS = {"pool": 0, "stem": 64 * (3 * 6 * 6 + 1), "attention": 4 * (4 * 64 * (64 + 1) + 4)}
"""By hand, at a width of 64, 4 layers and 4 heads: a kernel of 6 x 6; four matrices a layer and a number a head."""

pytestmark = pytest.mark.usefixtures("ideas")


def config(**options):
    return ViTConfig(**{"arch": "micro/4", "image_size": 8, "classes": 3} | options)


def network(**options):
    torch.manual_seed(0)
    return moved(build(config(**options)).eval())


def moved(vit):
    vit.head.weight.data = torch.linspace(-1, 1, vit.head.weight.numel()).sin().view_as(vit.head.weight)
    return vit


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("axis", MINE)
def test_it_is_trained_recorded_and_needs_its_file_again(door, ideas, forget, axis):
    name, value = OPTION[axis]
    mine = [f"--model.{axis}=ideas:{MINE[axis]}", f"--model.options.{axis}.{name}={value}"]
    assert door("fit", *TINY, *mine, "--run.dir=run") == 0
    record = read_record("run")
    part = record.parts[f"model.{axis}"]
    assert (part["label"], part["file"]) == (LABEL[axis], "ideas.py")
    assert part.get("parameters") == PARAMETERS.get(axis)
    assert record.config["model"]["options"] == {axis: {name: value}}
    assert record.config["model"]["sources"] == {axis: part["source"]}
    planned = ["fit", *TINY, *mine, f"--data.shards={record.config['data']['shards']}"]
    ideas.write_text("open('imported', 'w').close()\n" + EXAMPLE)
    forget()
    with pytest.raises(ValueError, match=f"needs {axis} ideas:{MINE[axis]}, the file ideas.py"):
        Classifier.load_from_checkpoint("run/checkpoints/last.ckpt")
    if axis == "schedule":  # which a network does not need
        assert open_network("run/checkpoints/last.ckpt").network.config.sources == {}
    else:
        with pytest.raises(ValueError, match="give --allow-import if you trust it"):
            open_network("run/checkpoints/last.ckpt")
    assert not Path("imported").exists()
    with pytest.raises(ValueError, match=r"has changed: the hash of ideas\.py is"):
        Classifier.load_from_checkpoint("run/checkpoints/last.ckpt", allow_import=True)
    assert cli.plan(planned)["fingerprint"] != record.fingerprint


def test_the_network_in_a_checkpoint_is_the_one_that_was_trained(door):
    words = [f"--model.{axis}=ideas:{name}" for axis, name in MINE.items()]
    assert door("fit", *TINY, *words, "--run.dir=run") == 0
    read = open_network("run/checkpoints/last.ckpt", allow_import=True).network
    trained = Classifier.load_from_checkpoint("run/checkpoints/last.ckpt", allow_import=True).network
    assert torch.equal(read(IMAGES), trained(IMAGES))
    assert cli.main(["export", "run/checkpoints/last.ckpt", "kept.safetensors", "--allow-import"]) == 0
    assert torch.equal(open_network("kept.safetensors").network(IMAGES), trained(IMAGES))


def test_formats_of_others_refuse_it_by_name(door, capsys):
    for axis in ("pool", "stem", "attention"):
        assert door("fit", *TINY, f"--model.{axis}=ideas:{MINE[axis]}", f"--run.dir={axis}") == 0
        for out in ("google.npz", "folder"):
            assert cli.main(["export", f"{axis}/checkpoints/last.ckpt", out, "--allow-import"]) == cli.BAD_INPUT
            assert f"cannot express {axis} ideas:{MINE[axis]}" in capsys.readouterr().err


# Each example has an option at which it is a built-in word: then the logits are that word's.


def test_the_mean_of_all_tokens_is_global_average_pooling():
    all_tokens = network(pool="ideas:TopK", options={"pool": {"k": 4}})
    torch.testing.assert_close(all_tokens(IMAGES), network(pool="gap")(IMAGES))
    assert not torch.allclose(network(pool="ideas:TopK", options={"pool": {"k": 1}})(IMAGES), all_tokens(IMAGES))


def test_patches_that_do_not_overlap_are_the_patches():
    mine, plain = network(stem="ideas:OverlapStem", options={"stem": {"more": 0}}), network()
    plain.stem.embedding.load_state_dict(mine.stem.kernel.state_dict())
    torch.testing.assert_close(mine(IMAGES), plain(IMAGES))
    with pytest.raises(ValueError, match=r"images of shape \(3, 12, 12\) met a network built for \(3, 8, 8\)"):
        mine(torch.zeros(1, 3, 12, 12))


def test_attention_that_does_not_fall_is_full_attention_with_the_weights_of_the_baseline():
    flat = network(attention="ideas:Near", options={"attention": {"start": 0.0}})
    torch.testing.assert_close(flat(IMAGES), network()(IMAGES))
    steep = network(attention="ideas:Near", options={"attention": {"start": 100.0}}, pool="gap")
    alone, other = IMAGES.clone(), IMAGES.clone()
    other[..., 4:, 4:] = 0  # one of the four patches
    seen = (steep.encode(alone) != steep.encode(other)).any(-1)
    assert seen.tolist() == [[False, False, False, True]] * 2, "with steep falls each patch sees itself alone"


def test_what_it_draws_follows_the_seed_and_is_another_in_each_layer(ideas):
    ideas.write_text(EXAMPLE.replace("torch.full((layout.heads, 1, 1), start)", "torch.rand(layout.heads, 1, 1)"))
    falls, again = (network(attention="ideas:Near").state_dict() for _ in range(2))
    drawn = [falls[f"blocks.{layer}.attention.fall"] for layer in range(4)]
    assert len({tuple(one.flatten().tolist()) for one in drawn}) == 4
    assert all(torch.equal(one, again[f"blocks.{layer}.attention.fall"]) for layer, one in enumerate(drawn))


def test_the_rates_of_warm_restarts_are_those_of_torch():
    mine = {"schedule": "ideas:Cyclic", "lr": 0.1, "warmup_steps": 4}
    factor = lr_factor(Classifier(arch="micro/4", image_size=8, classes=3, **mine).config, 34)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10)  # 3 cycles of the 30 other steps
    for step in range(34):
        if step < 4:
            assert factor(step) == pytest.approx(step / 4)
        else:
            assert 0.1 * factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
            optimizer.step()
            theirs.step()


def test_what_it_multiplies_is_counted_unless_it_says_so(ideas, forget):
    """By hand: 4 patches, a width of 64, kernels of 8 x 8 and not 4 x 4; a layer of T tokens has 2 T² D beside it."""
    plain = forward_macs(config())
    assert forward_macs(config(stem="ideas:OverlapStem")) == plain + 4 * 64 * 3 * (8 * 8 - 4 * 4)
    assert forward_macs(config(pool="ideas:TopK")) == forward_macs(config(pool="gap"))
    assert forward_macs(config(attention="ideas:Near")) == plain
    pairs = "    @classmethod\n    def pairs(cls, layout, window, *, as_computed=False):\n        return 7\n"
    ideas.write_text(EXAMPLE.replace("    def mix(self", pairs + "\n    def mix(self"))
    forget()
    assert forward_macs(config(attention="ideas:Near")) == plain + 4 * 2 * 64 * (7 - 5 * 5)


def test_a_norm_inside_it_stays_what_it_is(ideas):
    norm = "self.k, self.inner = k, torch.nn.LayerNorm(width)"
    ideas.write_text(EXAMPLE.replace("self.k = k", norm).replace("adds_parameters = False", ""))
    vit = build(config(pool="ideas:TopK", norm="rms"))
    assert type(vit.pool.inner).__name__ == "LayerNorm"
    assert type(vit.blocks[0].norm1).__name__ == "RmsNorm"


def test_all_four_at_once_hold_their_certificate(door, capsys):
    words = [f"--model.{axis}=ideas:{name}" for axis, name in MINE.items()]
    assert door("selfcheck", *TINY[:1], *words) == 0
    said = capsys.readouterr().out
    assert "11 checks: 9 hold, 0 fail, 2 reported" in said
    assert "other parts see the order too, so whether pool ideas:TopK does is not known" in said


FAULTY = {
    "pool": ("norm(tokens.gather(", "norm(tokens.mean(0, keepdim=True) + tokens.gather(", "depend on the others of"),
    "stem": ("self.kernel =", "self.idle = torch.nn.Parameter(torch.ones(3)); self.kernel =", "reaches stem.idle"),
    "attention": (
        "1, 1), start)",
        "1, 1), random.SystemRandom().random())",
        "fall .* start with other values in a",
    ),
}


@pytest.mark.parametrize("axis", FAULTY)
def test_planted_faults_are_named(door, ideas, capsys, axis):
    right, wrong, said = FAULTY[axis]
    ideas.write_text("import random\n" + EXAMPLE.replace(right, wrong))
    assert door("selfcheck", *TINY[:1], f"--model.{axis}=ideas:{MINE[axis]}") == 1
    assert re.search(said, capsys.readouterr().out)


HEAD = (
    "import torch\nfrom vitexp.nn.pool import Pool\nfrom vitexp.nn.stem import Stem\n"
    "from vitexp.nn.attention import Full\nclass {}:\n"
)
PART = {"pool": "part(Pool)", "stem": "part(Stem)", "attention": "part(Full)", "schedule": "part"}
READ, EMBED = "    def read(self, tokens, norm): return ", "    def embed(self, images): return "
INIT = "    def __init__(self, layout): super().__init__(layout.width, layout.heads)\n"
MIX, RATE = INIT + "    def mix(self, query, key, value, bias): return ", "    def __call__(self, step, steps): return "
GRID = "    def __init__(self, arch, size): super().__init__(arch, size); self.grid = {}\n"
TOKENS = "images.flatten(2).mean(-1)[:, None, :1].expand(-1, {}, 64)"
WRONG = [
    ("pool", READ + "tokens", r"read\(\) gives shape \(1, 4, 64\) and must give shape \(1, 64\)"),
    ("pool", READ + "tokens[:, 0]\n    prefix = 1", r"prepend\(\) gives shape \(1, 4, 64\) and must .* \(1, 5, 64\)"),
    ("pool", READ + "norm(tokens[:, 9])", "pool ideas:part fails: IndexError"),
    ("pool", READ + "0\n    def __init__(self, *sizes): super().__init__(*sizes); self.prefix = 2", "has prefix 2,"),
    ("pool", "    pass", "has no method of its own: write read"),
    ("pool", READ + "0\n    label = 'GAP'", "is called 'GAP' like the built-in gap"),
    ("pool", READ + "0\n    permutation_invariant = 1", "declares permutation_invariant 1; it must be True or False"),
    ("stem", EMBED + "images", r"embed\(\) gives shape \(1, 3, 8, 8\) and must give shape \(1, 4, 64\)"),
    ("stem", GRID.format("(1, 2)") + EMBED + TOKENS.format(4), r"gives shape \(1, 4, 64\) and must give .* \(1, 2,"),
    ("stem", GRID.format("(0, 2)") + EMBED + "0", r"has grid \(0, 2\), and must have a pair of whole numbers"),
    ("stem", EMBED + "1 / 0", "stem ideas:part fails: ZeroDivisionError"),
    ("stem", "    def forward(self, images): return images", "has no method of its own: write embed"),
    ("stem", EMBED + "0\n    label = 'conv'", "is called 'conv' like the built-in conv"),
    ("attention", MIX + "value[:, :, 1:]", r"forward\(\) gives shape \(1, 4, 64\) and must give shape \(1, 5, 64\)"),
    ("attention", MIX + "lost", "attention ideas:part fails: NameError"),
    ("attention", INIT, "has no method of its own: write mix or forward"),
    ("attention", MIX + "0\n    label = 'full'", "is called 'full' like the built-in full"),
    ("schedule", RATE + "1.5", "gives 1.5 at step 0 of 2, and must give a share of model.lr, from 0 to 1"),
    ("schedule", RATE + "-0.1 * step", "gives -0.1 at step 1 of 2"),
    ("schedule", RATE + "float('nan')", "gives nan at step 0 of 2"),
    ("schedule", RATE + "0", "is 0 at all of 2 steps, so nothing is learned"),
    ("schedule", "    n = 0\n    def __call__(self, *at): self.n += 1; return 1 / self.n", "when it is asked again"),
    ("schedule", RATE + "'fast'", "schedule ideas:part fails: ValueError"),
    ("schedule", "    def rate(self, step): pass", "has no method __call__"),
    ("schedule", RATE + "1\n    label = 'Linear'", "is called 'Linear' like the built-in linear"),
]  # fmt: skip


@pytest.mark.parametrize(("axis", "source", "said"), WRONG)
def test_a_part_that_cannot_be_is_refused_in_one_sentence_before_training(door, ideas, capsys, axis, source, said):
    ideas.write_text(HEAD.format(PART[axis]) + source + "\n")
    assert door("fit", *TINY, f"--model.{axis}=ideas:part") == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=said):  # as a pattern
        raise AssertionError(error)
    assert not list(Path("runs").rglob("record.json"))


@pytest.mark.parametrize(("pos_embed", "unused"), [("alibi", "bias"), ("rope", "rotate"), ("1d", "")])
def test_an_attention_that_does_not_use_a_position_is_refused_beside_it(ideas, forget, pos_embed, unused):
    ideas.write_text(HEAD.format(PART["attention"]) + MIX + "value")
    if not unused:
        assert build(config(attention="ideas:part", pos_embed=pos_embed))(IMAGES).shape == (2, 3)
        return
    if unused == "bias":
        ideas.write_text(ideas.read_text() + "\n    sees_all = False\n")
        with pytest.raises(ValueError, match="pos_embed alibi cannot be with attention ideas:part"):
            build(config(attention="ideas:part", pos_embed=pos_embed))
        ideas.write_text(HEAD.format(PART["attention"]) + MIX + "value")
        forget()
    with pytest.raises(ValueError, match=rf"ideas:part does not use what position.{unused}\(\) says, so that"):
        build(config(attention="ideas:part", pos_embed=pos_embed))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.pool=ideas:TopK", "--model.arch=R14x0.5"], "pool ideas:TopK has no effect on the ResNet R14x0.5"),
        (["--model.stem=ideas:OverlapStem", "--model.arch=R14x0.5"], "has no effect on the ResNet R14x0.5"),
        (["--model.stem=ideas:OverlapStem", "--model.arch=R14+micro/16"], "contradicts arch 'R14+micro/16'"),
        (["--model.attention=ideas:Near", "--model.window=5"], "window 5 has no effect with attention ideas:Near"),
        (["--model.attention=ideas:Near", "--model.patch_dropout=0.5"], "cannot be with attention ideas:Near"),
        (["--model.schedule=ideas:Cyclic", "--model.min_lr=1e-5"], "has no effect with model.schedule ideas:Cyclic"),
        (["--model.pool=ideas:Near"], "pool ideas:Near has no method read"),
        (["--model.pool=ideas:TopK", "--model.options.pool.k=two"], "model.options.pool.k is 'two', which is not a wh"),
        (["--model.options.stem.more=1"], "model.options.stem has no effect with stem auto"),
        (["--model.schedule=triangle"], "staircase, or MODULE:NAME of your own"),
    ],
)
def test_what_does_not_go_together_is_refused(door, capsys, words, said):
    assert door("fit", *TINY, *words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("axis", MINE)
def test_what_a_server_sends_imports_nothing(door, ideas, monkeypatch, capsys, axis):
    ideas.write_text("open('imported', 'w').close()\n" + EXAMPLE)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert door("fit", *TINY, f"--model.{axis}=ideas:{MINE[axis]}") == cli.BAD_INPUT
    assert "give --allow-import if you trust it" in capsys.readouterr().err
    assert not Path("imported").exists()
