from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer

from vitexp.nn.arch import HYBRIDS, Hybrid
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.config import config_of
from vitexp.weights.google import save_npz
from vitexp.weights.load import load_weights
from vitexp.weights.read import read_weights
from vitexp.weights.timm import timm_arguments

WIDTH, DEPTH, MLP, HEADS, CLASSES = 64, 4, 256, 4, 10
PURE = ViTConfig(arch="micro/2", image_size=8, classes=CLASSES)
ROOT = ViTConfig(arch="R+micro/16", image_size=64, classes=CLASSES)
STAGES = ViTConfig(arch="R26+micro/8", image_size=32, classes=CLASSES)
BODY = {"num_classes": CLASSES, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "act_layer": "gelu_tanh"}


class Google(dict):
    """The arrays of a released file, made here from the table of names and shapes."""

    def __init__(self, tokens=17, embedding=(2, 2, 3), cls=True, table=True, pre_logits=False, map_head=False):
        super().__init__()
        self.generator = np.random.default_rng(0)
        self.kernel("embedding", (*embedding, WIDTH))
        if cls:
            self["cls"] = self.random(1, 1, WIDTH)
        if table:
            self["Transformer/posembed_input/pos_embedding"] = self.random(1, tokens, WIDTH)
        for layer in range(DEPTH):
            self.layer(f"Transformer/encoderblock_{layer}")
        self.norm("Transformer/encoder_norm", (WIDTH,))
        if map_head:
            self.attention_pooling()
        if pre_logits:
            self.kernel("pre_logits", (WIDTH, WIDTH))
        self.kernel("head", (WIDTH, CLASSES))

    def random(self, *shape):
        return (0.1 * self.generator.standard_normal(shape)).astype(np.float32)

    def kernel(self, name, shape, bias=None):
        self[f"{name}/kernel"] = self.random(*shape)
        self[f"{name}/bias"] = self.random(*(bias or shape[-1:]))

    def norm(self, name, shape):
        self[f"{name}/scale"], self[f"{name}/bias"] = 1 + self.random(*shape), self.random(*shape)

    def layer(self, name):
        self.norm(f"{name}/LayerNorm_0", (WIDTH,))
        attention, head_width = f"{name}/MultiHeadDotProductAttention_1", WIDTH // HEADS
        for part in ("query", "key", "value"):
            self.kernel(f"{attention}/{part}", (WIDTH, HEADS, head_width), (HEADS, head_width))
        self.kernel(f"{attention}/out", (HEADS, head_width, WIDTH))
        self.norm(f"{name}/LayerNorm_2", (WIDTH,))
        self.kernel(f"{name}/MlpBlock_3/Dense_0", (WIDTH, MLP))
        self.kernel(f"{name}/MlpBlock_3/Dense_1", (MLP, WIDTH))

    def attention_pooling(self):
        attention, head_width = "MAPHead_0/MultiHeadDotProductAttention_0", WIDTH // HEADS
        self["MAPHead_0/probe"] = self.random(1, 1, WIDTH)
        for part in ("query", "key", "value"):
            self.kernel(f"{attention}/{part}", (WIDTH, HEADS, head_width), (HEADS, head_width))
        self.kernel(f"{attention}/out", (HEADS, head_width, WIDTH))
        self.norm("MAPHead_0/LayerNorm_0", (WIDTH,))
        self.kernel("MAPHead_0/MlpBlock_0/Dense_0", (WIDTH, MLP))
        self.kernel("MAPHead_0/MlpBlock_0/Dense_1", (MLP, WIDTH))

    def convolution(self, name, shape):
        # So large that the different epsilons of weight standardisation, here and in timm, do not show.
        self[f"{name}/kernel"] = 100 * self.random(*shape)

    def trunk(self, blocks):
        """A hybrid's ResNet; units and stages count from 1."""
        self.convolution("conv_root", (7, 7, 3, 64))
        self.norm("gn_root", (64,))
        channels = 64
        for stage, units in enumerate(blocks):
            middle = 64 * 2**stage
            for unit in range(units):
                self.unit(f"block{stage + 1}/unit{unit + 1}", channels, middle, unit == 0)
                channels = 4 * middle
        return self

    def unit(self, name, channels, middle, projects):
        shapes = {"1": (1, 1, channels, middle), "2": (3, 3, middle, middle), "3": (1, 1, middle, 4 * middle)}
        shapes |= {"_proj": (1, 1, channels, 4 * middle)} if projects else {}
        for which, shape in shapes.items():
            self.convolution(f"{name}/conv{which}", shape)
            self.norm(f"{name}/gn{which}", shape[-1:])


def linen(arrays):
    """The newer numbers: every class of module counts for itself."""
    renamed = {}
    for name, array in arrays.items():
        for old, new in [("Attention_1", "Attention_0"), ("LayerNorm_2", "LayerNorm_1"), ("MlpBlock_3", "MlpBlock_0")]:
            name = name.replace(old, new)
        renamed[name] = array
    return renamed


def big_vision(arrays, prefix="params/", first=1):
    """Linen numbers under a prefix, and a root-level table without a row for cls; beside it a piece of an optimizer."""
    renamed = linen(arrays)
    renamed["pos_embedding"] = renamed.pop("Transformer/posembed_input/pos_embedding")[:, first:]
    return {prefix + name: array for name, array in renamed.items()} | {"opt/count": np.array(7)}


def stacked(arrays):
    """One array for all layers, the layer first."""
    layers = {name.split("/", 2)[2] for name in arrays if name.startswith("Transformer/encoderblock_")}
    rest = {name: array for name, array in arrays.items() if not name.startswith("Transformer/encoderblock_")}
    each = {name: [arrays[f"Transformer/encoderblock_{layer}/{name}"] for layer in range(DEPTH)] for name in layers}
    return rest | {f"Transformer/encoderblock/{name}": np.stack(parts) for name, parts in each.items()}


def written(path, arrays):
    np.savez(path, **arrays)
    return path


def filled(config, path, **options):
    model = ViT(config).eval()
    load_weights(model, path, **options)
    return model


def assert_same_logits(model, oracle):
    size = model.config.image_size
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    images = images.to(next(model.parameters()).dtype)
    with torch.no_grad():
        ours, theirs = model(images), oracle.eval()(images)
    assert theirs.std() > 0.05  # the files are random: a network that says nothing would agree with anything
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("dialect", "timms"),
    [
        (dict, {}),
        (lambda arrays: {f"opt/target/{name}": array for name, array in arrays.items()}, {}),
        (big_vision, {"no_embed_class": True}),
        (lambda arrays: big_vision(arrays, "params/img/"), {"no_embed_class": True}),
        (lambda arrays: big_vision(stacked(arrays)), {"no_embed_class": True}),
    ],
    ids=["pre-linen", "opt/target", "params", "params/img", "stacked"],
)
def test_a_pure_file_gives_the_logits_that_timm_gets_from_it(tmp_path, dialect, timms):
    path = written(tmp_path / "vit.npz", dialect(Google()))
    model = filled(PURE, path)
    oracle = VisionTransformer(**timm_arguments(model), **timms)
    oracle.load_pretrained(str(path))
    assert_same_logits(model, oracle)


@pytest.mark.parametrize("dialect", [dict, lambda arrays: big_vision(arrays, first=0)], ids=["pre-linen", "params"])
def test_a_file_without_cls_fills_a_gap_network(tmp_path, dialect):
    path = written(tmp_path / "gap.npz", dialect(Google(tokens=16, cls=False)))
    model = filled(ViTConfig(arch="micro/2", image_size=8, classes=CLASSES, pool="gap"), path)
    oracle = VisionTransformer(**timm_arguments(model))
    oracle.load_pretrained(str(path))
    assert_same_logits(model, oracle)


def test_an_attention_pooling_head_gives_timms_logits(tmp_path):
    path = written(tmp_path / "map.npz", big_vision(Google(tokens=16, cls=False, map_head=True), first=0))
    model = filled(ViTConfig(arch="micro/2", image_size=8, classes=CLASSES, pool="map"), path)
    oracle = VisionTransformer(**timm_arguments(model))
    oracle.load_pretrained(str(path))
    assert_same_logits(model, oracle)


def test_a_hidden_layer_before_the_head_is_kept(tmp_path):
    arrays = Google(pre_logits=True)
    path = written(tmp_path / "vit.npz", arrays)
    model = filled(ViTConfig(arch="micro/2", image_size=8, classes=CLASSES, head="tanh"), path)
    oracle = VisionTransformer(**timm_arguments(ViT(PURE)))
    oracle.load_pretrained(str(path))  # timm passes over the hidden layer
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pooled = oracle.eval().forward_head(oracle.forward_features(images), pre_logits=True).numpy()
        logits = model(images).numpy()
    hidden = np.tanh(pooled @ arrays["pre_logits/kernel"] + arrays["pre_logits/bias"])
    np.testing.assert_allclose(logits, hidden @ arrays["head/kernel"] + arrays["head/bias"], atol=1e-5)


def timm_root():
    return timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, **BODY)


def timm_stages():
    conv = partial(StdConv2dSame, eps=1e-8)
    options = {"num_classes": 0, "global_pool": "", "preact": False, "stem_type": "same", "conv_layer": conv}
    embed = partial(HybridEmbed, backbone=ResNetV2((2, 1), (256, 512), **options))
    return VisionTransformer(32, 1, embed_layer=embed, **BODY)


@pytest.mark.parametrize(
    ("config", "oracle", "blocks", "embedding", "tokens"),
    [(ROOT, timm_root, (), (8, 8, 64), 5), (STAGES, timm_stages, (2, 1), (1, 1, 512), 17)],
    ids=["root", "stages"],
)
def test_a_hybrid_file_gives_timms_logits_and_comes_back_exactly(
    tmp_path, monkeypatch, config, oracle, blocks, embedding, tokens
):
    monkeypatch.setitem(HYBRIDS, "resnet26", Hybrid("R26", {8: (2, 1)}))  # as the real one, but small
    arrays, oracle = Google(tokens, embedding).trunk(blocks), oracle()
    path = written(tmp_path / "hybrid.npz", arrays)
    model = filled(config, path)
    oracle.load_pretrained(str(path))
    for module in oracle.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6  # as in Google's code; timm has 1e-5
    save_npz(model, tmp_path / "again.npz")
    assert_same_arrays(tmp_path / "again.npz", arrays)
    assert_same_logits(model.double(), oracle.double())


def assert_same_arrays(path, arrays):
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == sorted(arrays)
        for name, array in arrays.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, {}),
        ({"head": "tanh"}, {"pre_logits": True}),
        ({"pool": "gap"}, {"cls": False, "tokens": 16}),
        ({"pool": "map"}, {"cls": False, "tokens": 16, "map_head": True}),
        ({"pos_embed": "none"}, {"table": False}),
        ({"image_size": (4, 10)}, {"tokens": 11}),
    ],
    ids=["cls", "tanh", "gap", "map", "none", "oblong"],
)
@pytest.mark.parametrize("numbers", [dict, linen])
def test_a_round_trip_of_a_pure_file_is_exact(tmp_path, options, kinds, numbers):
    arrays = Google(**kinds)
    config = {"arch": "micro/2", "image_size": 8, "classes": CLASSES} | options
    model = filled(ViTConfig(**config), written(tmp_path / "vit.npz", numbers(arrays)))
    save_npz(model, tmp_path / "again.npz")
    assert_same_arrays(tmp_path / "again.npz", arrays)


def test_group_norms_with_three_axes_too_many_are_flattened(tmp_path):
    arrays = Google(5, (8, 8, 64)).trunk(())
    old = {name: array[None, None, None] if name.startswith("gn_") else array for name, array in arrays.items()}
    assert old["gn_root/scale"].shape == (1, 1, 1, 64)
    save_npz(filled(ROOT, written(tmp_path / "old.npz", old)), tmp_path / "again.npz")
    assert_same_arrays(tmp_path / "again.npz", arrays)


def test_halves_are_read_as_the_numbers_they_are(tmp_path):
    arrays = Google()
    halves = {name: torch.from_numpy(array).bfloat16() for name, array in arrays.items()}
    path = written(tmp_path / "vit.npz", {n: half.view(torch.int16).numpy().view("V2") for n, half in halves.items()})
    model = filled(PURE, path)
    assert torch.equal(model.head.weight, halves["head/kernel"].float().T)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pos_embed": "2d"}, "pos_embed 2d, only 1d or sincos2d or none"),
        ({"pos_embed": "relative"}, "pos_embed relative"),
        ({"pos_at": "every"}, "pos_at every, only stem"),
        ({"pos_at": "shared"}, "pos_at shared"),
    ],
)
def test_what_the_format_cannot_express_is_refused_by_name(tmp_path, options, words):
    config = ViTConfig(arch="micro/2", image_size=8, classes=CLASSES, **options)
    with pytest.raises(ValueError, match=f"cannot express {words}"):
        save_npz(ViT(config), tmp_path / "vit.npz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"cannot express {words}"):
        filled(config, written(tmp_path / "vit.npz", Google()))


def big_visions_table(rows, columns, width):
    """Its posemb_sincos_2d, again in NumPy."""
    y, x = np.mgrid[:rows, :columns]
    omega = 1.0 / 10_000 ** (np.arange(width // 4) / (width // 4 - 1))
    y, x = (np.einsum("m,d->md", part.flatten(), omega) for part in (y, x))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)[None].astype(np.float32)


@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
@torch.no_grad()
def test_fixed_sines_are_read_and_written_without_a_table(tmp_path, pool):
    """Against the same network with big_vision's table as a learned one, added before the class token is prepended."""
    arrays = Google(cls=pool == "cls", table=False, map_head=pool == "map")
    table = {"pos_embedding": big_visions_table(4, 4, WIDTH)}
    config = replace(PURE, pool=pool)
    fixed = filled(replace(config, pos_embed="sincos2d"), written(tmp_path / "fixed.npz", arrays))
    learned = filled(config, written(tmp_path / "learned.npz", arrays | table))
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(fixed(images), learned(images), rtol=0, atol=1e-5)
    nothing = filled(replace(config, pos_embed="none"), tmp_path / "fixed.npz")
    assert (nothing(images) - fixed(images)).abs().max() > 0.1
    save_npz(fixed, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as file:
        assert set(file.files) == set(arrays)
        assert all(np.array_equal(file[name], array) for name, array in arrays.items())
    assert config_of(read_weights(tmp_path / "again.npz"), "again.npz") == fixed.config
    for words in ({}, {"pos_embed": "1d"}):
        with pytest.raises(ValueError, match="does not say whether its network adds fixed sines"):
            config_of(read_weights(tmp_path / "fixed.npz"), "fixed.npz", 8, words)
    stated = config_of(read_weights(tmp_path / "fixed.npz"), "fixed.npz", 8, {"pos_embed": "sincos2d"})
    assert stated == fixed.config
