"""Initial values: the laws of the paper's code, and the same draws for every arm."""

import itertools
import math

import pytest
import torch

from vitexp.nn.init import TRUNCATED_STD, initialise
from vitexp.nn.vit import ViT, ViTConfig


def network(seed: int = 0, **choices: object) -> ViT:
    torch.manual_seed(seed)
    return ViT(ViTConfig(**{"arch": "micro/2", "image_size": (8, 12), "classes": 10, **choices}))  # type: ignore[arg-type]


ARMS = [
    {"pos_embed": "none"},
    {"pos_embed": "1d"},
    {"pos_embed": "1d", "pos_at": "every"},
    {"pos_embed": "2d", "pos_at": "shared"},
    {"pos_embed": "relative"},
    {"pool": "gap"},
    {"pool": "map", "pos_embed": "sincos2d"},
    {"pos_embed": "rope", "attention": "local"},
    {"pool": "gap", "attention": "axial"},
    {"head": "tanh", "dropout": 0.1},
    {"image_size": (16, 16)},
    {"classes": 7},
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ARMS, 2)), ids=str)
def test_arms_of_one_seed_share_every_weight_they_both_have(one: dict[str, object], other: dict[str, object]) -> None:
    ours, theirs = network(**one).state_dict(), network(**other).state_dict()
    shared = [name for name in ours.keys() & theirs.keys() if ours[name].shape == theirs[name].shape]
    assert sum(name.startswith(("blocks", "stem")) for name in shared) == 4 * 12 + 2
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_the_first_table_is_the_same_at_every_place() -> None:
    tables = [network(pos_at=at).state_dict()["position.tables.0"] for at in ("stem", "every", "shared")]
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


def test_seeds_layers_and_parts_differ() -> None:
    first, second = network(0), network(1)
    assert not torch.equal(first.stem.embedding.weight, second.stem.embedding.weight)
    query, key, value = first.blocks[0].attention.qkv.weight.chunk(3)
    other = first.blocks[1].attention.qkv.weight.chunk(3)[0]
    assert not any(torch.equal(one, two) for one, two in itertools.combinations((query, key, value, other), 2))


@pytest.mark.parametrize("choices", [*ARMS, {"arch": "R14+micro/32", "image_size": 32}], ids=str)
def test_building_leaves_the_global_generator_alone(choices: dict[str, object]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network(3, **choices)
    assert torch.equal(torch.get_rng_state(), before)


def test_meta_network_fills_to_the_same_values() -> None:
    torch.manual_seed(9)
    with torch.device("meta"):
        empty = ViT(ViTConfig(arch="micro/2", image_size=(8, 12), classes=10))
    assert all(parameter.is_meta for parameter in empty.parameters())
    filled = empty.to_empty(device="cpu")
    initialise(filled, seed=5)
    expected = network(5).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in filled.state_dict().items())


def test_default_device_and_precision_do_not_change_the_draws() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        double = network(2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(double.head.bias.float(), network(2).head.bias)
    assert torch.equal(double.blocks[2].mlp.fc1.weight.float(), network(2).blocks[2].mlp.fc1.weight)


def test_a_parameter_without_a_rule_is_a_fault() -> None:
    with pytest.raises(AssertionError, match=r"Linear\.weight has no initial value"):
        initialise(torch.nn.Sequential(torch.nn.Linear(2, 2)))


@pytest.fixture(scope="module")
def tiny() -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig(arch="Ti/16", image_size=224, head="tanh", head_bias=-6.9, pos_embed="1d"))


def assert_uniform(values: torch.Tensor, bound: float) -> None:
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.999 * bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert values.mean().item() == pytest.approx(0, abs=0.01 * bound)


def assert_truncated_normal(values: torch.Tensor, fan_in: int) -> None:
    assert values.std().item() == pytest.approx(fan_in**-0.5, rel=0.01)
    # Truncation at two sigma of the untruncated normal, which is wider than the result.
    edge = 2 * fan_in**-0.5 / 0.8796
    assert edge * 0.99 < values.abs().max().item() <= edge * 1.0001


def test_attention_is_xavier_on_each_matrix(tiny: ViT) -> None:
    for block in tiny.blocks[:2]:
        for matrix in (*block.attention.qkv.weight.chunk(3), block.attention.out.weight):
            assert_uniform(matrix, math.sqrt(3 / 192))
        assert not block.attention.qkv.bias.any()
        assert not block.attention.out.bias.any()


def test_mlp_is_xavier_with_tiny_normal_biases(tiny: ViT) -> None:
    for matrix in (tiny.blocks[0].mlp.fc1.weight, tiny.blocks[0].mlp.fc2.weight):
        assert_uniform(matrix, math.sqrt(6 / (192 + 768)))
    biases = torch.cat([block.mlp.fc1.bias for block in tiny.blocks] + [block.mlp.fc2.bias for block in tiny.blocks])
    assert biases.std().item() == pytest.approx(1e-6, rel=0.05)


def test_stem_and_hidden_head_are_lecun_normal(tiny: ViT) -> None:
    assert_truncated_normal(tiny.stem.embedding.weight, 3 * 16 * 16)
    assert tiny.pre_logits is not None
    assert_truncated_normal(tiny.pre_logits.weight, 192)
    assert not tiny.stem.embedding.bias.any()
    assert not tiny.pre_logits.bias.any()


def test_cls_head_norms_and_table(tiny: ViT) -> None:
    assert not tiny.pool.cls.any()
    assert not tiny.head.weight.any()
    assert torch.equal(tiny.head.bias, torch.full((1000,), -6.9))
    assert tiny.position.tables[0].std().item() == pytest.approx(0.02, rel=0.02)
    for norm in (tiny.norm, tiny.blocks[3].norm1, tiny.blocks[3].norm2):
        assert torch.equal(norm.weight, torch.ones(192))
        assert not norm.bias.any()


def test_truncation_constant_by_numerical_integration() -> None:
    grid = torch.linspace(-2, 2, 200_001, dtype=torch.float64)
    density = torch.exp(-(grid**2) / 2)
    variance = torch.trapezoid(grid**2 * density, grid) / torch.trapezoid(density, grid)
    assert variance.sqrt().item() == pytest.approx(TRUNCATED_STD, rel=1e-9)


def test_last_group_norm_of_a_unit_starts_at_zero() -> None:
    net = network(arch="R26+micro/32", image_size=32)
    for stage in net.stem.trunk.stages:
        for unit in stage:
            assert not unit.gn3.weight.any()
            assert torch.equal(unit.gn1.weight, torch.ones_like(unit.gn1.weight))
            assert torch.equal(unit.gn2.weight, torch.ones_like(unit.gn2.weight))
    assert_truncated_normal(net.stem.trunk.stages[3][1].conv2.weight, 512 * 9)
