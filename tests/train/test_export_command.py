"""Every form of an export, read by its own program; every word of every axis, exported or refused by its name.

Longer than the house asks: forms and words are held against the same network behind the same door, made at the top.
"""

import json
import typing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip
from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2

from vitexp import cli
from vitexp.nn.arch import HYBRIDS, RESNETS
from vitexp.nn.vit import ViT, ViTConfig, build
from vitexp.tools import export as export_command
from vitexp.tools.network import open_network
from vitexp.weights.read import save_own
from vitexp.weights.timm import timm_state

ALL = {"timm", "npz", "onnx", "safetensors"}
ANY = {"onnx", "safetensors"}  # what runs or reads any network
MICRO = {"arch": "micro/2", "image_size": 8, "classes": 10}
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def saved(folder, **axes):
    """A network whose every parameter is far from its initial value, so that none can be left out unseen."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(**MICRO | axes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        save_own(model, folder / "own.safetensors")
        return model(IMAGES)


def export(folder, out, form, *more):
    return cli.main(["export", str(folder / "own.safetensors"), str(folder / out), "--format", form, *more])


TODAY = {"registers": 2, "norm": "rms", "qk_norm": True, "layer_scale": 0.1}


@pytest.mark.parametrize(
    "axes", [{}, {"pool": "gap"}, {"pos_embed": "none"}, TODAY], ids=["cls", "gap", "none", "today"]
)
def test_timm_builds_the_folder_itself_and_gives_the_same_logits(tmp_path, axes, capsys):
    logits = saved(tmp_path, **axes)
    assert export(tmp_path, "hub", "timm") == 0
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["config.json", "model.safetensors"]
    read = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(read(IMAGES), logits, rtol=0, atol=1e-5)
    told = read.pretrained_cfg
    assert (told["input_size"], tuple(told["mean"]), told["num_classes"]) == ((3, 8, 8), (0.5, 0.5, 0.5), 10)
    again = open_network(f"timm:local-dir:{tmp_path / 'hub'}")
    with torch.no_grad():
        torch.testing.assert_close(again.network(IMAGES), logits, rtol=0, atol=1e-5)
    assert again.image_size == 8
    assert "Read back by timm" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize("axes", [{}, {"head": "tanh"}, {"pool": "gap"}], ids=["cls", "tanh", "gap"])
def test_a_file_read_back_gives_the_same_bits(tmp_path, form, axes):
    logits = saved(tmp_path, **axes)
    assert export(tmp_path, f"out.{form}", form) == 0
    again = open_network(str(tmp_path / f"out.{form}"))
    with torch.no_grad():
        assert torch.equal(again.network(IMAGES), logits)
    assert again.network.config == open_network(str(tmp_path / "own.safetensors")).network.config


def test_our_own_form_holds_what_no_other_can(tmp_path):
    logits = saved(tmp_path, pos_embed="relative", pos_at="shared", pool="gap")
    assert export(tmp_path, "out.safetensors", "safetensors") == 0
    with torch.no_grad():
        assert torch.equal(open_network(str(tmp_path / "out.safetensors")).network(IMAGES), logits)


@pytest.mark.parametrize(
    "axes",
    [{"pos_embed": "relative"}, *(pytest.param(axes, marks=pytest.mark.slow) for axes in (
        {}, {"pos_embed": "1d", "pos_at": "shared"},
        {"pool": "gap", "pos_embed": "2d", "pos_at": "every"}, {"pool": "map", "pos_embed": "rope"},
        {"attention": "local", "pos_embed": "sincos2d"}, {"attention": "axial", "pool": "gap"}, {"attention": "axial"},
        {"attention": "strided", "pool": "class_attention"}, {"attention": "fixed", "pool": "seqpool"},
        {"head": "tanh", "pos_embed": "none"}, {"stem": "conv"},
        {"registers": 2, "norm": "rms", "mlp": "swiglu", "qk_norm": True, "layer_scale": 0.1, "block": "parallel"},
    ))],
    ids=str,
)  # fmt: skip
def test_onnxruntime_gives_the_same_logits_for_any_number_of_images(tmp_path, axes):
    onnxruntime = pytest.importorskip("onnxruntime")
    logits = saved(tmp_path, arch="w32d1m64h2/2", **axes)
    assert export(tmp_path, "out.onnx", "onnx") == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    for count in (1, 2, 5):
        (read,) = session.run(None, {"images": IMAGES[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(read), logits[:count], rtol=0, atol=1e-4)


def test_a_part_that_takes_the_number_of_images_for_a_fixed_one_is_no_onnx_file(tmp_path, ideas, capsys):
    pytest.importorskip("onnxruntime")
    source = "return norm(tokens).mean(1) + torch.zeros(len(tokens), tokens.shape[-1])"
    ideas.write_text(ideas.read_text().replace("longest = tokens", f"{source}\n        longest = tokens"))
    saved(tmp_path, arch="w32d1m64h2/2", pool="ideas:TopK")
    assert export(tmp_path, "out.onnx", "onnx", "--allow-import") == 2
    assert "a part of your own must take from x.shape[0] and not from len(x), fails: " in capsys.readouterr().err


CONV = partial(StdConv2d, eps=1e-10)
TRUNKS = {
    "bit": {"arch": "R50x0.5"},
    "plain": {"arch": "R14x0.5"},
    "hybrid": {"arch": "R50+micro/16"},
    "root": {"arch": "R+micro/16", "pool": "gap"},
}


@pytest.mark.parametrize("axes", TRUNKS.values(), ids=TRUNKS)
def test_timm_computes_a_convolutional_trunk_as_we_do_whatever_its_epsilons(tmp_path, axes, trunk):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model = trunk(**axes)
    assert export(tmp_path, "hub", "timm") == 0
    read = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert any("Std" in type(part).__name__ for part in read.modules()) == (axes["arch"] != "R14x0.5")
    with torch.no_grad():
        logits = model(images)
        assert logits.std() > 0.1
        torch.testing.assert_close(read(images), logits, rtol=0, atol=1e-4)


@pytest.fixture
def trunk(tmp_path):
    """Saves a network with kernels so short and scales so small that epsilons are a part of what it computes."""

    def make(**axes):
        torch.manual_seed(0)
        model = build(ViTConfig(**{"image_size": 32, "classes": 10} | axes)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "conv" in name:
                    parameter.mul_(0.01 * (1.5 + torch.rand(1)))
                else:
                    parameter.add_((0.02 if "head" in name else 0.1) * torch.randn_like(parameter))
                if name.startswith("stem.") and (".gn1" in name or ".gn2" in name):
                    parameter.mul_(1e-3)
        save_own(model, tmp_path / "own.safetensors")
        return model

    return make


@pytest.mark.parametrize("order", ["preact", "postact"])
def test_a_resnet_written_in_googles_names_gives_the_same_bits(tmp_path, order, trunk):
    model = trunk(arch="R14x0.5", resnet=order)
    assert export(tmp_path, "out.npz", "npz") == 0
    images, again = torch.rand(2, 3, 32, 32), open_network(str(tmp_path / "out.npz"), 32)
    assert again.ours.config == model.config
    with torch.no_grad():
        assert torch.equal(again.network(images), model(images))
    if order == "preact":  # and timm reads BiT's files too
        theirs = ResNetV2(
            [1] * 4, (128, 256, 512, 1024), num_classes=10, stem_chs=32, stem_type="fixed", conv_layer=CONV
        )
        theirs.load_pretrained(str(tmp_path / "out.npz"))
        with torch.no_grad():
            torch.testing.assert_close(theirs.eval()(images), model(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("order", ["preact", "postact"])
def test_resnets_are_kept_in_our_own_form_and_refused_in_others(tmp_path, order, capsys):
    torch.manual_seed(0)
    model = build(ViTConfig(arch="R14x0.5", image_size=32, classes=3, resnet=order)).eval()
    save_own(model, tmp_path / "own.safetensors")
    assert export(tmp_path, "out.safetensors", "safetensors") == 0
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        again = open_network(str(tmp_path / "out.safetensors")).network
        assert torch.equal(again.features(images), model.features(images))
    if order == "postact":
        assert export(tmp_path, "out", "timm") == cli.BAD_INPUT
        assert "timm weights cannot express resnet postact, only preact" in capsys.readouterr().err


@pytest.mark.parametrize(
    "axes", [{"arch": "R14x0.5"}, *(pytest.param(axes, marks=pytest.mark.slow) for axes in (
        {"arch": "R14x0.5", "resnet": "postact"}, {"arch": "R14x0.5", "resnet": "axial"}, {"arch": "R14+micro/16"},
        {"arch": "R+micro/16"},
    ))],
    ids=str,
)  # fmt: skip
def test_onnxruntime_computes_a_convolutional_trunk_as_we_do(tmp_path, axes, trunk, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(RESNETS, 14, (1,))
    trunk(**axes)
    assert export(tmp_path, "out.onnx", "onnx") == 0
    assert "Read back by onnxruntime" in capsys.readouterr().out


# Every word of every axis, and which forms take it. A new word must be written here, on one side or the other.
TAKEN_BY = {
    "pos_embed": {"none": ALL, "1d": ALL, "2d": ANY, "relative": ANY, "sincos2d": ANY | {"npz"}, "rope": ANY},
    "pos_at": {"stem": ALL, "every": ANY, "shared": ANY},
    "pos_join": {"add": ALL, "concat": ANY, "multiply": ANY},
    "pool": {"cls": ALL, "gap": ALL, "map": ALL, "seqpool": ANY, "class_attention": ANY},
    "stem": {
        "auto": ALL,
        "patch": ALL,
        "resnet50": ALL,
        "resnet26": ALL,
        "resnet14": ANY | {"npz"},
        "root": ALL,
        "conv": ANY,
    },
    "block": {"sequential": ALL, "parallel": ANY},
    "attention": {"full": ALL, "local": ANY, "axial": ANY, "strided": ANY, "fixed": ANY},
    "resnet": {"preact": ALL, "postact": ANY | {"npz"}, "axial": ANY},
    "gelu": {"tanh": ALL, "exact": ANY | {"timm"}},
    "head": {"linear": ALL, "tanh": ANY | {"npz"}},
}
BESIDE = {
    "every": {"pos_embed": "1d"}, "resnet50": {"arch": "micro/16"},
    "resnet26": {"arch": "micro/32"}, "resnet14": {"arch": "micro/16"}, "root": {"arch": "micro/16"},
    "resnet": {"arch": "R14x0.5"},
}  # fmt: skip


def words():
    """Every axis of a network with each of its words, as the config types them."""
    for axis, kind in typing.get_type_hints(ViTConfig).items():
        if typing.get_origin(kind) is typing.Literal:
            yield from ((axis, word) for word in typing.get_args(kind))


def both():
    """The same for each form; a whole ResNet-50 takes its time, and the test of trunks above has one already."""
    for axis, word in words():
        long = [pytest.mark.slow] if word in ("resnet50", "resnet26") else []
        yield pytest.param(axis, word, "timm", marks=long)
        yield pytest.param(axis, word, "npz")


@pytest.mark.parametrize(("axis", "word", "form"), list(both()))
def test_every_word_is_exported_or_refused_by_its_name(tmp_path, axis, word, form, capsys, monkeypatch):
    torch.manual_seed(0)
    if form == "npz" and word in ("resnet50", "resnet26"):  # timm builds them at their own depth alone
        monkeypatch.setitem(HYBRIDS, word, replace(HYBRIDS[word], blocks=dict.fromkeys(HYBRIDS[word].blocks, (1, 1))))
    size = 8 if not {"stem", "resnet"} & {axis} else 32
    chosen = (
        {"arch": "micro/2", "image_size": size, "classes": 3, axis: word} | BESIDE.get(axis, {}) | BESIDE.get(word, {})
    )
    save_own(build(ViTConfig(**chosen)), tmp_path / "own.safetensors")
    status, said = export(tmp_path, "out", form), capsys.readouterr()
    if form in TAKEN_BY[axis][word]:
        assert status == 0, said.err
        assert "differ by at most" in said.out
        assert "a random one was compared" in said.out  # these have a head of zeros, and are compared all the same
    else:
        assert status == cli.BAD_INPUT
        refused = said.err.splitlines()[-1]
        assert (
            f"cannot express {axis} {word}" in refused or "timm has no hybrid with the ResNet of R14+micro" in refused
        )
        assert not (tmp_path / "out").exists()


def test_a_difference_behind_a_head_of_zeros_is_seen(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    save_own(ViT(ViTConfig(**MICRO)), tmp_path / "own.safetensors")
    other = ViT(ViTConfig(**MICRO)).eval()
    form = export_command.EXPORTS["npz"]._replace(read=lambda place, model: other)
    monkeypatch.setitem(export_command.EXPORTS, "npz", form)
    assert export(tmp_path, "out", "npz") == cli.BAD_INPUT
    assert "computes other logits than the network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_of_a_checkpoint_the_averaged_weights_are_written(tmp_path, form):
    torch.manual_seed(0)
    last, average = (ViT(ViTConfig(**MICRO)).eval() for _ in range(2))
    state = {f"network.{name}": value for name, value in last.state_dict().items()}
    state |= {f"average.{name}": value for name, value in average.state_dict().items()}
    kept = {"model": {**MICRO, "objective": "classify", "polyak": 0.99}}
    torch.save({"state_dict": state, "vitexp": kept}, tmp_path / "last.ckpt")
    assert cli.main(["export", str(tmp_path / "last.ckpt"), str(tmp_path / "out"), "--format", form]) == 0
    again = open_network(str(tmp_path / "out")).network
    with torch.no_grad():
        assert torch.equal(again.features(IMAGES), average.features(IMAGES))


@pytest.mark.parametrize(
    ("axes", "form", "told"),
    [
        ({"pos_embed": "relative"}, "timm", "timm weights cannot express pos_embed relative"),
        ({"pos_at": "every"}, "timm", "cannot express pos_at every"),
        ({"head": "tanh"}, "timm", "cannot express head tanh"),
        ({"pos_embed": "2d"}, "npz", "Google .npz weights cannot express pos_embed 2d"),
        ({"pos_embed": "relative"}, "npz", "cannot express pos_embed relative"),
        ({"pos_at": "shared"}, "npz", "cannot express pos_at shared"),
    ],
)
def test_what_a_form_cannot_express_is_refused_by_name_and_nothing_is_written(tmp_path, axes, form, told, capsys):
    saved(tmp_path, **axes)
    assert export(tmp_path, "out", form) == cli.BAD_INPUT
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_an_earlier_export_is_replaced_and_other_folders_are_not(tmp_path, capsys):
    saved(tmp_path)
    assert export(tmp_path, "hub", "timm") == export(tmp_path, "hub", "timm", "--image-size", "16") == 0
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["model_args"]["img_size"] == 16
    (tmp_path / "hub" / "thesis.txt").write_text("dear")
    assert export(tmp_path, "hub", "timm") == cli.BAD_INPUT
    assert "holds thesis.txt" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "own.safetensors"]
    assert export(tmp_path, "hub", "npz") == cli.BAD_INPUT
    assert "is a folder" in capsys.readouterr().err


def test_a_network_that_is_not_ours_is_not_exported(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "none.ckpt"), str(tmp_path / "x"), "--format", "npz"]) == cli.BAD_INPUT
    assert "does not exist" in capsys.readouterr().err


def test_the_form_is_what_a_name_ends_in(tmp_path, capsys):
    saved(tmp_path)
    own = str(tmp_path / "own.safetensors")
    for out, form in (("a.npz", "npz"), ("b.safetensors", "safetensors"), ("hub", "timm")):
        assert cli.main(["export", own, str(tmp_path / out)]) == 0
        assert f"{out} ({form}, " in capsys.readouterr().out
    assert cli.main(["export", own, str(tmp_path / "x.bin")]) == cli.BAD_INPUT
    assert "ends in .bin, which is no format" in capsys.readouterr().err
    assert not (tmp_path / "x.bin").exists()


def test_what_a_file_does_not_say_is_stated_by_flags(tmp_path, capsys):
    """A .npz of fixed sines and a timm state dict of the tanh GELU look like others; the flags tell them apart."""
    logits = saved(tmp_path, pos_embed="sincos2d")
    assert export(tmp_path, "out.npz", "npz") == 0
    assert "note: the names of a .npz do not say pos_embed sincos2d" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as file:  # without the comment, as Google's own code writes it
        np.savez(tmp_path / "bare.npz", **{name: file[name] for name in file.files})
    bare = ["export", str(tmp_path / "bare.npz"), str(tmp_path / "again.safetensors"), "--image-size=8"]
    assert cli.main(bare) == cli.BAD_INPUT
    assert "state it with --pos-embed sincos2d or none" in capsys.readouterr().err
    for words, same in (["--pos-embed=sincos2d"], True), (["--pos-embed=none"], False):
        assert cli.main([*bare, *words]) == 0
        with torch.no_grad():
            again = open_network(str(tmp_path / "again.safetensors")).network(IMAGES)
        assert torch.equal(again, logits) == same
    assert cli.main([*bare, "--pos-embed=none", "--gelu=exact"]) == cli.BAD_INPUT
    assert "--gelu exact contradicts" in capsys.readouterr().err


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
def test_an_export_to_timm_keeps_its_activation_and_says_which(tmp_path, gelu, capsys):
    logits = saved(tmp_path, gelu=gelu)
    assert export(tmp_path, "hub", "timm") == 0
    act = {"tanh": "gelu_tanh", "exact": "gelu"}[gelu]
    assert f"note: timm's config.json says act_layer='{act}'" in capsys.readouterr().out
    with torch.no_grad():
        again = open_network(str(tmp_path / "hub" / "model.safetensors"))
        assert torch.equal(again.network(IMAGES), logits)
        state = load_file(tmp_path / "hub" / "model.safetensors")
        save_file(state, tmp_path / "bare.safetensors")  # as another program would write it
        read = open_network(str(tmp_path / "bare.safetensors")).network(IMAGES)
        assert torch.equal(read, logits) == (gelu == "exact")
        stated = open_network(str(tmp_path / "bare.safetensors"), stated={"gelu": gelu}).network(IMAGES)
        assert torch.equal(stated, logits)


def test_a_hybrid_exported_to_timm_is_not_read_back_as_another(tmp_path, trunk, capsys):
    trunk(arch="R+micro/16")
    assert export(tmp_path, "hub", "timm") == 0
    words = ["export", str(tmp_path / "hub" / "model.safetensors"), str(tmp_path / "again.npz")]
    assert cli.main(words) == cli.BAD_INPUT
    assert "its kernels are fitted to timm's epsilons" in capsys.readouterr().err


def test_a_file_without_a_head_gets_one_of_zeros_and_says_so(tmp_path, capsys):
    saved(tmp_path)
    state = load_file(tmp_path / "own.safetensors")
    theirs = timm_state(open_network(str(tmp_path / "own.safetensors")).network)
    save_file({name: value for name, value in theirs.items() if "head" not in name}, tmp_path / "body.safetensors")
    opened = open_network(str(tmp_path / "body.safetensors"), stated={"gelu": "tanh"})
    assert "it holds no head, and gets one of zeros" in capsys.readouterr().out
    assert torch.equal(opened.network.norm.weight, state["norm.weight"])
