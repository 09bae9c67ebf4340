"""How a position table and the tokens become one."""

from typing import Any

import pytest
import torch

from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.pos_join import JOINS, Concat, Multiply
from vitexp.nn.vit import ViT, ViTConfig, resolve

TABLES = ("1d", "2d", "sincos2d")


def network(**choices: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig(**{"arch": "micro/2", "image_size": (8, 12), "classes": 10, **choices}))


def test_those_that_have_a_table() -> None:
    assert tuple(word for word, kind in POSITIONS.items() if kind.has_table()) == TABLES


@pytest.mark.parametrize("word", TABLES)
@pytest.mark.parametrize("pool", ["cls", "gap"])
@torch.no_grad()
def test_what_enters_the_first_layer(word: str, pool: str) -> None:
    images, entered = torch.randn(2, 3, 8, 12), {}
    for join in JOINS:
        net = network(pos_embed=word, pos_join=join, pool=pool)
        net.blocks[0].register_forward_pre_hook(lambda _, inputs, join=join: entered.update({join: inputs[0]}))
        net(images)
    tokens, table = net.pool.prepend(net.stem(images)), net.position.table(0)
    assert table.any()
    assert torch.equal(entered["add"], tokens + table)
    assert torch.equal(entered["multiply"], tokens * (1 + table))
    project = network(pos_embed=word, pos_join="concat", pool=pool).pos_join.project
    both = tokens @ project.weight[:, :64].t() + table @ project.weight[:, 64:].t() + project.bias
    torch.testing.assert_close(entered["concat"], both)


@pytest.mark.parametrize("join", [word for word in JOINS if word != "add"])
@pytest.mark.parametrize("word", TABLES)
def test_later_layers_and_all_other_weights_are_those_of_adding(word: str, join: str) -> None:
    plain, net = network(pos_embed=word), network(pos_embed=word, pos_join=join)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in plain.state_dict().items())
    more = sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == (2 * 64**2 + 64 if join == "concat" else 0)
    tokens = torch.randn(2, net.layout.tokens, 64)
    assert net.pos_join(tokens, net.position, 1) is tokens


@pytest.mark.parametrize("join", ["concat", "multiply"])
@pytest.mark.parametrize("word", TABLES)
def test_order_shows_and_every_parameter_is_trained(word: str, join: str) -> None:
    net = network(pos_embed=word, pos_join=join)
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 8, 12)
    logits = net(images)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    assert not torch.allclose(net(images.roll(4, dims=2)), logits, atol=1e-3)


@torch.no_grad()
def test_a_table_of_zeros_multiplies_by_one() -> None:
    net, tokens = network(pos_join="multiply"), torch.randn(2, 25, 64)
    net.position.tables[0].zero_()
    assert torch.equal(net.pos_join(tokens, net.position, 0), tokens)
    assert (Concat.macs(net.layout), Multiply.macs(net.layout)) == (25 * 2 * 64 * 64, 0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"pos_embed": "none"},
            "pos_join concat cannot be with pos_embed none at stem: .*; use pos_embed 1d or 2d or sin",
        ),
        ({"pos_embed": "rope"}, "cannot be with pos_embed rope at stem"),
        ({"pos_embed": "relative"}, "cannot be with pos_embed relative at stem"),
        (
            {"pos_at": "every"},
            "cannot be with pos_embed 1d at every: it joins a table and the tokens once, at the stem",
        ),
        ({"pos_join": "sum"}, "pos_join 'sum' is unknown; allowed are add, concat, multiply"),
        ({"arch": "R50x1"}, "pos_join concat has no effect on the ResNet R50x1; leave it out"),
    ],
)
def test_where_there_is_nothing_to_join_it_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(ViTConfig(**{"pos_join": "concat", **choices}))
