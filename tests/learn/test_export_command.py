import json

import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip

from vitexp import cli
from vitexp.learn.network import open_network
from vitexp.nn.vit import ViT, ViTConfig, build
from vitexp.nn.weights_own import save_own

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


@pytest.mark.parametrize("axes", [{}, {"pool": "gap"}, {"pos_embed": "none"}], ids=["cls", "gap", "none"])
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
    assert again.vit.config == open_network(str(tmp_path / "own.safetensors")).vit.config


def test_our_own_form_holds_what_no_other_can(tmp_path):
    logits = saved(tmp_path, pos_embed="relative", pos_at="shared", pool="gap")
    assert export(tmp_path, "out.safetensors", "safetensors") == 0
    with torch.no_grad():
        assert torch.equal(open_network(str(tmp_path / "out.safetensors")).network(IMAGES), logits)


@pytest.mark.parametrize(
    "axes",
    [{"pos_embed": "relative"}, *(pytest.param(axes, marks=pytest.mark.slow) for axes in (
        {}, {"pool": "gap", "pos_embed": "2d", "pos_at": "every"}, {"pool": "map", "pos_embed": "rope"},
        {"attention": "local", "pos_embed": "sincos2d"}, {"attention": "axial", "pool": "gap"},
        {"head": "tanh", "pos_embed": "none"},
    ))],
    ids=str,
)  # fmt: skip
def test_onnxruntime_gives_the_same_logits_for_any_number_of_images(tmp_path, axes):
    onnxruntime = pytest.importorskip("onnxruntime")
    logits = saved(tmp_path, **axes)
    assert export(tmp_path, "out.onnx", "onnx") == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    for count in (1, 2, 5):
        (read,) = session.run(None, {"images": IMAGES[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(read), logits[:count], rtol=0, atol=1e-4)


@pytest.mark.parametrize("order", ["preact", "postact"])
def test_resnets_are_kept_in_our_own_form_and_refused_in_others(tmp_path, order, capsys):
    torch.manual_seed(0)
    model = build(ViTConfig(arch="R26x1", image_size=32, classes=3, resnet=order)).eval()
    save_own(model, tmp_path / "own.safetensors")
    assert export(tmp_path, "out.safetensors", "safetensors") == 0
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        again = open_network(str(tmp_path / "out.safetensors")).network
        assert torch.equal(again.features(images), model.features(images))
    assert export(tmp_path, "out", "timm") == cli.BAD_INPUT
    assert "needs a ViT of vitexp, not a ResNet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("axes", "form", "told"),
    [
        ({"pos_embed": "relative"}, "timm", "timm VisionTransformer weights cannot express pos_embed relative"),
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
