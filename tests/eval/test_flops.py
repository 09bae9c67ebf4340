import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitexp import axes
from vitexp.eval import flops
from vitexp.nn.arch import RESNETS, parse_arch
from vitexp.nn.attention import LAYERS
from vitexp.nn.position import Layout
from vitexp.nn.resnet import pad_same
from vitexp.nn.vit import ViTConfig, build

# ViT paper, Table 6: network, epochs, printed exaFLOPs.
TABLE_6 = [
    ("B/32", 7, 55),
    ("B/16", 7, 224),
    ("L/32", 7, 196),
    ("L/16", 7, 783),
    ("L/16", 14, 1567),
    ("H/14", 14, 4262),
    ("R50x1", 7, 50),
    ("R50x2", 7, 199),
    ("R101x1", 7, 96),
    ("R152x1", 7, 141),
    ("R152x2", 7, 563),
    ("R152x2", 14, 1126),
    ("R200x3", 14, 3306),
    ("R50+B/32", 7, 106),
    ("R50+B/16", 7, 274),
    ("R50+L/32", 7, 246),
    # Printed is 859, which does not fit the row below: 14 epochs cost 1668, twice 834.
    ("R50+L/16", 7, 834),
    ("R50+L/16", 14, 1668),
]
JFT_IMAGES, JFT_CLASSES = 303_000_000, 18_291


def exaflops(arch, epochs, **options):
    head = "linear" if parse_arch(arch).family == "resnet" else "tanh"
    config = ViTConfig(arch=arch, classes=JFT_CLASSES, head=head, **options)
    return flops.train_flops(config, JFT_IMAGES * epochs) / 1e18


@pytest.mark.parametrize(("arch", "epochs", "printed"), TABLE_6)
def test_the_papers_training_costs_are_reproduced(arch, epochs, printed):
    # 2 %, and half a unit because the paper prints whole numbers: B/32 comes out at 56.3 where 55 is printed.
    assert abs(exaflops(arch, epochs) - printed) <= 0.02 * printed + 0.5


@pytest.mark.parametrize(("arch", "epochs"), [row[:2] for row in TABLE_6 if parse_arch(row[0]).family == "resnet"])
def test_both_orders_of_a_resnet_cost_the_same(arch, epochs):
    assert exaflops(arch, epochs, resnet="postact") == exaflops(arch, epochs)


def test_only_b32_needs_the_allowance_for_rounding():
    assert [arch for arch, epochs, printed in TABLE_6 if abs(exaflops(arch, epochs) / printed - 1) > 0.02] == ["B/32"]


def test_the_printed_859_is_off_the_pattern():
    assert abs(exaflops("R50+L/16", 7) / 859 - 1) > 0.03


def test_counting_padding_would_miss_the_papers_resnets():
    config = ViTConfig(arch="R50x1", classes=JFT_CLASSES)
    dense = 6 * flops.forward_macs(config, as_computed=True) * JFT_IMAGES * 7 / 1e18
    assert dense / 50 > 1.04


def measured_macs(config):
    """MACs of the real network, counted by torch while it runs on shapes alone."""
    with torch.device("meta"):
        model, images = build(config), torch.empty(1, 3, *pair(config.image_size))
    with FlopCounterMode(display=False) as counter:
        model(images)
    total = counter.get_total_flops()
    assert total % 2 == 0
    return total // 2


def pair(image_size):
    return image_size if isinstance(image_size, tuple) else (image_size, image_size)


ARMS = (
    [
        ViTConfig(arch="micro/2", image_size=(8, 12), classes=10, pos_embed=pos_embed, pool=pool, head=head)
        for pos_embed in axes.values("pos_embed")
        for pool in axes.values("pool")
        for head in axes.values("head")
        if (pos_embed, pool) != ("relative2d", "cls")
    ]
    + [
        ViTConfig(arch="micro/2", image_size=(8, 12), classes=10, **choices)
        for choices in (
            {"attention": "local"},
            {"attention": "local", "pos_embed": "relative", "window": 5},
            {"attention": "axial", "pool": "gap"},
            {"attention": "axial", "pool": "map", "pos_embed": "rope"},
            {"attention": "axial", "registers": 2},
            {"attention": "strided", "pos_embed": "relative"},
            {"attention": "fixed", "pool": "class_attention", "registers": 2},
            {"registers": 3, "pos_embed": "relative"},
            {"registers": 3, "pool": "map", "attention": "local"},
            {"mlp": "swiglu", "norm": "rms", "qk_norm": True},
            {"block": "parallel", "layer_scale": 0.1, "drop_path": 0.3},
            {"mlp": "swiglu", "attention": "axial", "pool": "gap", "block": "parallel"},
            {"stem": "conv"},
        )
    ]
    + [
        ViTConfig(arch="Ti/16", image_size=(48, 80), classes=7, pos_embed="relative"),
        ViTConfig(arch="R50x1", image_size=224),
        ViTConfig(arch="R26x2", image_size=(75, 160), classes=7, head="tanh"),
        ViTConfig(arch="R26x1", image_size=(33, 8), classes=7, resnet="postact"),
        ViTConfig(arch="R50x1", image_size=224, resnet="axial"),
        ViTConfig(arch="R26x0.5", image_size=(33, 70), classes=7, resnet="axial"),
        ViTConfig(arch="R50+micro/16", image_size=224),
        ViTConfig(arch="R26+micro/32", image_size=(75, 160), pool="gap"),
        ViTConfig(arch="R+micro/16", image_size=64, pos_embed="relative"),
    ]
)


@pytest.mark.parametrize(
    "config", ARMS, ids=lambda c: f"{c.arch}-{c.pos_embed}-{c.pool}-{c.attention}-{c.head}-{c.mlp}-{c.stem}"
)
def test_the_closed_form_equals_what_torch_counts(config):
    assert flops.forward_macs(config, as_computed=True) == measured_macs(config)


def test_patches_left_out_in_training_cost_nothing_there():
    """Of the 24 patches 12 stay beside a class token and 2 registers; all 24 are embedded."""
    config = ViTConfig(arch="micro/2", image_size=(8, 12), classes=10, patch_dropout=0.5, registers=2)
    with torch.device("meta"):
        model, images = build(config).train(), torch.empty(1, 3, 8, 12)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert flops.forward_macs(config, in_training=True) == counter.get_total_flops() // 2
    assert flops.train_flops(config, 10) == 60 * flops.forward_macs(config, in_training=True)
    assert flops.forward_macs(config) == flops.forward_macs(replace(config, patch_dropout=0.0))
    by_hand = 24 * 12 * 64 + 4 * (15 * (4 * 64**2 + 2 * 64 * 256) + 2 * 15**2 * 64) + 640
    assert flops.forward_macs(config, in_training=True) == by_hand


@pytest.mark.parametrize(("arch", "size"), [("S/16", 224), ("Ti/16", (32, 64)), ("micro/2", (8, 12))])
def test_a_convolutional_stem_multiplies_no_padding(arch, size):
    """By hand: along a side of n pixels a kernel of 3 with stride 2 meets 3 n / 2 - 1 of them."""
    rows, columns = pair(size)
    channels, macs = [3, *parse_arch(arch, "conv").convolutions], 0
    for before, after in itertools.pairwise(channels):
        macs += (3 * rows // 2 - 1) * (3 * columns // 2 - 1) * before * after
        rows, columns = rows // 2, columns // 2
    macs += rows * columns * channels[-1] ** 2
    patch = parse_arch(arch).patch
    one, other = (ViTConfig(arch=arch, image_size=size, stem=stem) for stem in ("conv", "patch"))
    embedding = rows * columns * 3 * patch**2 * channels[-1]
    assert flops.forward_macs(one) - flops.forward_macs(other) == macs - embedding


def test_a_local_window_hides_relative_logits_as_well():
    config = ViTConfig(arch="w8d3m16h1/1", image_size=(4, 5), classes=1, pos_embed="relative")
    full, local = (
        LAYERS[word].pairs(Layout(grid=(4, 5), prefix=1, width=8, heads=1, depth=3), 3) for word in ("full", "local")
    )
    less = flops.forward_macs(config) - flops.forward_macs(replace(config, attention="local"))
    assert less == 3 * 3 * (full - local) * 8


def test_a_relative_table_costs_one_product_per_pair_of_tokens():
    one = ViTConfig(arch="micro/2", image_size=8, classes=10)
    relative = replace(one, pos_embed="relative")
    assert flops.forward_macs(relative) - flops.forward_macs(one) == 4 * 17 * 17 * 64
    assert flops.forward_macs(relative, as_computed=True) - flops.forward_macs(one) == 4 * 17 * 33 * 64


@pytest.mark.parametrize(("length", "kernel", "stride"), [(224, 7, 2), (7, 3, 1), (14, 3, 2), (5, 7, 2), (1, 3, 1)])
def test_taps_are_the_nonzero_products_of_a_padded_convolution(length, kernel, stride):
    outputs = math.ceil(length / stride)
    total = max((outputs - 1) * stride + kernel - length, 0)
    padded = torch.nn.functional.pad(torch.ones(1, 1, length), (total // 2, total - total // 2))
    products = torch.nn.functional.conv1d(padded, torch.ones(1, 1, kernel), stride=stride)
    assert products.shape[-1] == outputs
    assert flops._taps(length, kernel, stride, as_computed=False) == products.sum()


@pytest.mark.parametrize("order", ["preact", "postact"])
@pytest.mark.parametrize(("arch", "size"), [("R26x1", (64, 48)), ("R26x0.5", (33, 75))])
def test_a_resnets_products_with_padding_are_left_out(arch, size, order, monkeypatch):
    """Counted while the network runs: in the same places, a convolution of ones over ones sums to its real products."""
    monkeypatch.setitem(RESNETS, 26, (2, 1, 1))
    config = ViTConfig(arch=arch, image_size=size, classes=7, resnet=order)
    model, macs = build(config), []

    def count(conv, inputs, _out):
        (images,), kernel, stride = inputs, conv.kernel_size[0], conv.stride[0]
        ones = torch.ones(1, 1, *images.shape[2:])
        padded = pad_same(ones, kernel, stride) if order == "postact" else ones
        products = torch.nn.functional.conv2d(
            padded, torch.ones(1, 1, kernel, kernel), stride=stride, padding=conv.padding
        )
        macs.append(int(products.sum()) * conv.in_channels * conv.out_channels)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, *size))
    assert len(macs) == 1 + 3 * 4 + 3
    assert flops.forward_macs(config) == sum(macs) + 1024 * parse_arch(arch).resnet_width * 7


def test_training_flops_are_six_per_mac_and_image():
    config = ViTConfig(arch="micro/2", image_size=8, classes=10)
    assert flops.train_flops(config, 100) == 600 * flops.forward_macs(config)


@pytest.mark.parametrize(("grid", "window", "prefix"), [((4, 5), 3, 1), ((1, 6), 5, 0), ((5, 3), 1, 2)])
def test_a_window_costs_the_pairs_that_it_shows(grid, window, prefix):
    layout = Layout(grid=grid, prefix=prefix, width=8, heads=2, depth=3)
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    near = sum(max(abs(a - c), abs(b - d)) <= window // 2 for a, b in places for c, d in places)
    tokens = prefix + len(places)
    hidden = len(places) ** 2 - near
    full, local = (LAYERS[word].pairs(layout, window) for word in ("full", "local"))
    assert full - local == hidden
    assert LAYERS["local"].pairs(layout, window, as_computed=True) == full
    assert tokens**2 - hidden == near + 2 * prefix * len(places) + prefix**2


@pytest.mark.parametrize("option", ["pos_embed", "pool", "attention", "head"])
def test_an_unknown_word_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} 'spiral' is unknown; allowed are "):
        flops.train_flops(ViTConfig(**{option: "spiral"}), 1)
