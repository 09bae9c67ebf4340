"""ResNets from files: BiT's names, written here by hand and read by timm as well; timm's own; and ours."""

from functools import partial

import numpy as np
import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import StdConv2d, StdConv2dSame  # isort: skip
from timm.models.resnetv2 import ResNetV2

from vitexp.nn import resnet
from vitexp.nn.arch import RESNETS
from vitexp.nn.vit import ViT, ViTConfig, build
from vitexp.weights.config import config_of
from vitexp.weights.load import load_stored, load_weights
from vitexp.weights.read import Stored, read_file

BLOCKS, CLASSES, SIZE = (1, 2), 7, 32


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Two stages have every kind of unit; and timm's epsilons, as another test is for ours."""
    monkeypatch.setitem(RESNETS, 26, BLOCKS)
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "preact", 1e-8)
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "postact", 0.0)


def network(order="preact", classes=CLASSES, **choices):
    config = ViTConfig(arch="R26x1", image_size=SIZE, classes=classes, resnet=order, **choices)
    return build(config).double().eval()


def oracle(order="preact"):
    """timm's network, random in every parameter."""
    preact = {"stem_type": "fixed", "conv_layer": partial(StdConv2d, eps=1e-8)}
    postact = {"preact": False, "stem_type": "same", "conv_layer": partial(StdConv2dSame, eps=1e-12)}
    how = preact if order == "preact" else postact
    model = ResNetV2(list(BLOCKS), (256, 512), num_classes=CLASSES, **how)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-5 if order == "preact" else 1e-6
    return model.double().eval()


class Arrays(dict):
    """The arrays of a file, made from names and shapes."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def random(self, name, *shape, mean=0.0):
        self[name] = (mean + 0.2 * self.generator.standard_normal(shape)).astype(np.float32)

    def units(self):
        """Stage and unit from 1, channels that enter, channels inside, and whether the shape changes."""
        channels = 64
        for stage, count in enumerate(BLOCKS, 1):
            for unit in range(1, count + 1):
                middle = 64 * 2 ** (stage - 1)
                yield stage, unit, channels, middle, unit == 1
                channels = 4 * middle


def bit(suffix=""):
    """The names that BiT's files have."""
    arrays, conv = Arrays(), f"standardized_conv2d{suffix}/kernel"
    arrays.random(f"resnet/root_block/{conv}", 7, 7, 3, 64)
    for stage, unit, channels, middle, projects in arrays.units():
        name = f"resnet/block{stage}/unit{unit:02d}"
        shapes = {"a": (1, channels, middle), "b": (3, middle, middle), "c": (1, middle, 4 * middle)}
        for letter, (kernel, into, out) in shapes.items():
            arrays.random(f"{name}/{letter}/{conv}", kernel, kernel, into, out)
            arrays.random(f"{name}/{letter}/group_norm/gamma", into, mean=1.0)
            arrays.random(f"{name}/{letter}/group_norm/beta", into)
        if projects:
            arrays.random(f"{name}/a/proj/{conv}", 1, 1, channels, 4 * middle)
    arrays.random("resnet/group_norm/gamma", 512, mean=1.0)
    arrays.random("resnet/group_norm/beta", 512)
    arrays.random("resnet/head/conv2d/kernel", 1, 1, 512, CLASSES)
    arrays.random("resnet/head/conv2d/bias", CLASSES)
    return arrays


def later():
    """The names of the later code, after activation: those of a hybrid's trunk."""
    arrays = Arrays()
    arrays.random("conv_root/kernel", 7, 7, 3, 64)
    arrays.random("gn_root/scale", 1, 1, 1, 64, mean=1.0)
    arrays.random("gn_root/bias", 1, 1, 1, 64)
    for stage, unit, channels, middle, projects in arrays.units():
        shapes = {"1": (1, channels, middle), "2": (3, middle, middle), "3": (1, middle, 4 * middle)}
        shapes |= {"_proj": (1, channels, 4 * middle)} if projects else {}
        for which, (kernel, into, out) in shapes.items():
            arrays.random(f"block{stage}/unit{unit}/conv{which}/kernel", kernel, kernel, into, out)
            arrays.random(f"block{stage}/unit{unit}/gn{which}/scale", out, mean=1.0)
            arrays.random(f"block{stage}/unit{unit}/gn{which}/bias", out)
    arrays.random("head/kernel", 512, CLASSES)
    arrays.random("head/bias", CLASSES)
    return arrays


def written(path, arrays):
    np.savez(path, **arrays)
    return path


def assert_same_logits(ours, theirs):
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 0.05
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["", "_7"])
def test_a_bit_file_gives_the_logits_that_timm_gets_from_it(tmp_path, suffix):
    model, theirs = network(), oracle()
    load_weights(model, written(tmp_path / "ours.npz", bit(suffix)))
    theirs.load_pretrained(str(written(tmp_path / "timms.npz", bit())))
    assert_same_logits(model, theirs)


@pytest.mark.parametrize("order", ["preact", "postact"])
def test_timms_state_dict_gives_timms_logits(order):
    model, theirs = network(order), oracle(order)
    load_stored(model, Stored(theirs.state_dict()))
    assert_same_logits(model, theirs)


def test_a_later_file_gives_the_logits_of_timms_network_filled_by_hand(tmp_path):
    model, theirs, arrays = network("postact"), oracle("postact"), later()
    load_weights(model, written(tmp_path / "later.npz", arrays))
    kernel = {name: torch.from_numpy(array).permute(3, 2, 0, 1) for name, array in arrays.items() if array.ndim == 4}
    flat = {name: torch.from_numpy(array).flatten() for name, array in arrays.items()}
    state = {"stem.conv.weight": kernel["conv_root/kernel"]}
    state |= {"stem.norm.weight": flat["gn_root/scale"], "stem.norm.bias": flat["gn_root/bias"]}
    state |= {"head.fc.weight": torch.from_numpy(arrays["head/kernel"]).T[:, :, None, None]}
    state |= {"head.fc.bias": flat["head/bias"]}
    for stage, unit, _, _, projects in arrays.units():
        here, there = f"block{stage}/unit{unit}/", f"stages.{stage - 1}.blocks.{unit - 1}."
        parts = {f"conv{n}": f"conv{n}" for n in "123"} | ({"conv_proj": "downsample.conv"} if projects else {})
        norms = {f"gn{n}": f"norm{n}" for n in "123"} | ({"gn_proj": "downsample.norm"} if projects else {})
        state |= {f"{there}{timm}.weight": kernel[f"{here}{google}/kernel"] for google, timm in parts.items()}
        for google, timm in norms.items():
            state |= {f"{there}{timm}.weight": flat[f"{here}{google}/scale"]}
            state |= {f"{there}{timm}.bias": flat[f"{here}{google}/bias"]}
    theirs.load_state_dict(state)
    assert_same_logits(model, theirs)


@pytest.mark.parametrize("prefix", ["", "network."])
def test_our_own_checkpoint_comes_back(prefix):
    one, other = network(), network()
    load_stored(one, Stored(oracle().state_dict()))
    load_stored(other, Stored({prefix + name: value for name, value in one.state_dict().items()}))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_new_head_is_zero_and_the_trunk_is_read(tmp_path):
    model = network(classes=3, head_bias=-2.0)
    with pytest.raises(ValueError, match=r"wrong head/conv2d/kernel of shape .*new_head starts a zero head"):
        load_weights(model, written(tmp_path / "bit.npz", bit()))
    load_weights(model, tmp_path / "bit.npz", new_head=True)
    assert not model.head.weight.any()
    assert model.head.bias.tolist() == [-2.0] * 3
    root = torch.from_numpy(bit()["resnet/root_block/standardized_conv2d/kernel"]).permute(3, 2, 0, 1)
    assert torch.equal(model.trunk.conv_root.weight.float(), root)


@pytest.mark.parametrize(("arrays", "order", "classes"), [(bit, "preact", CLASSES), (later, "postact", CLASSES)])
def test_a_file_says_which_network_it_holds(tmp_path, arrays, order, classes):
    stored = read_file(written(tmp_path / "file.npz", arrays()))
    found = config_of(stored, "file.npz", 64)
    assert (found.arch, found.resnet, found.classes, found.image_size) == ("R26x1", order, classes, 64)
    assert config_of(stored, "file.npz").image_size == 224


def test_a_file_of_half_the_channels_is_x05(tmp_path):
    half = {"resnet/root_block/standardized_conv2d/kernel": np.zeros((7, 7, 3, 32), np.float32)}
    stored = read_file(written(tmp_path / "half.npz", bit() | half))
    assert config_of(stored, "half.npz").arch == "R26x0.5"


@pytest.mark.parametrize(
    ("arrays", "order", "message"),
    [
        (bit, "postact", "holds a ResNet with units preact, and the network has postact ones"),
        (later, "preact", "holds a ResNet with units postact, and the network has preact ones"),
        (lambda: {"embedding/kernel": np.ones(3)}, "preact", "holds no ResNet, and R26x1 is a ResNet"),
        (lambda: bit() | {"resnet/extra": np.ones(3)}, "preact", "does not fit this network: unexpected extra"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, arrays, order, message):
    with pytest.raises(ValueError, match=message):
        load_weights(network(order), written(tmp_path / "file.npz", arrays()))


def test_a_resnet_does_not_fit_a_vit(tmp_path):
    model = ViT(ViTConfig(arch="micro/2", image_size=8))
    with pytest.raises(ValueError, match="holds a ResNet, and micro/2 is a Vision Transformer"):
        load_weights(model, written(tmp_path / "bit.npz", bit()))
    with pytest.raises(ValueError, match="into a ViT or a ResNet of vitexp, not into a Linear"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "bit.npz")
