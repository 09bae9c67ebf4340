"""The position axis: each variant's contract, counts and meaning, over prefixes and grids that are not square."""

import itertools

import pytest
import torch

from vitexp import axes
from vitexp.nn.init import generator_for, initialise
from vitexp.nn.pos_embed import POSITIONS, Layout, Position, check_position, skew

GRIDS = [(2, 3), (4, 1), (1, 1), (3, 3)]
PLACES = [(word, at) for word, kind in POSITIONS.items() for at in axes.values("pos_at") if at not in kind.refused]


def layout_of(grid: tuple[int, int] = (2, 3), prefix: int = 1) -> Layout:
    return Layout(grid=grid, prefix=prefix, width=8, heads=2, depth=3)


def make(word: str, at: str, layout: Layout, seed: int = 0) -> Position:
    position = POSITIONS[word](layout, at)
    initialise(position, seed)
    return position


def table_of(position: Position, layer: int = 0) -> torch.Tensor:
    """What is added to every token of a layer, seen from outside."""
    tokens = torch.zeros(1, position.layout.tokens, position.layout.width)
    return position.add(tokens, layer)[0].detach()


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("word", "at"), PLACES)
def test_contract(word: str, at: str, grid: tuple[int, int], prefix: int) -> None:
    layout = layout_of(grid, prefix)
    position = make(word, at, layout)
    tokens, query = torch.randn(2, layout.tokens, 8), torch.randn(2, 2, layout.tokens, 4)
    for layer in range(layout.depth):
        assert position.add(tokens, layer).shape == tokens.shape
        assert position.rotate(query, layer).shape == query.shape
        bias = position.bias(query, layer)
        assert bias is None or bias.shape == (2, 2, layout.tokens, layout.tokens)
    learned = sum(parameter.numel() for parameter in position.parameters())
    assert learned == POSITIONS[word].count_parameters(layout, at)
    assert all(parameter.numel() for parameter in position.parameters())


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("word", "at"), PLACES)
def test_every_parameter_is_used(word: str, at: str, prefix: int) -> None:
    layout = layout_of((2, 3), prefix)
    position = make(word, at, layout)
    total = torch.zeros(())
    for layer in range(layout.depth):
        total = total + position.add(torch.randn(1, layout.tokens, 8), layer).square().sum()
        query = torch.randn(1, 2, layout.tokens, 4)
        bias = position.bias(query, layer)
        total = total if bias is None else total + bias.square().sum()
        total = total + (position.rotate(query, layer) * torch.randn_like(query)).sum()
    if total.requires_grad:
        total.backward()
    assert all(parameter.grad is not None and parameter.grad.ne(0).all() for parameter in position.parameters())
    assert total.requires_grad == bool(POSITIONS[word].count_parameters(layout, at))


# By hand for the 2 x 3 grid with one prefix token, width 8, 2 heads, depth 3: T = 7, K = 4.
@pytest.mark.parametrize(
    ("word", "at", "count"),
    [
        ("none", "stem", 0),
        ("1d", "stem", 56),
        ("1d", "every", 168),
        ("1d", "shared", 56),
        ("2d", "stem", 28),
        ("2d", "every", 84),
        ("2d", "shared", 28),
        ("relative", "stem", 156),
        ("relative", "shared", 52),
        ("sincos2d", "stem", 0),
        ("sincos2d", "shared", 0),
        ("rope", "stem", 0),
        ("rope_mixed", "stem", 24),
        ("rope_mixed", "shared", 8),
        ("alibi", "stem", 0),
        ("relative2d", "stem", 48),
        ("relative2d", "shared", 16),
    ],
)
def test_counts_by_hand(word: str, at: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in make(word, at, layout_of()).parameters()) == count


def test_none_answers_neutrally() -> None:
    position = make("none", "stem", layout_of())
    tokens = torch.randn(2, 7, 8)
    assert position.add(tokens, 0) is tokens
    assert position.bias(torch.randn(2, 2, 7, 4), 0) is None
    query = torch.randn(2, 2, 7, 4)
    assert position.rotate(query, 0) is query


@pytest.mark.parametrize("word", ["1d", "2d"])
def test_where_tables_enter(word: str) -> None:
    stem, every, shared = (make(word, at, layout_of()) for at in ("stem", "every", "shared"))
    assert table_of(stem, 0).ne(0).all()
    assert not table_of(stem, 1).any()
    assert not table_of(stem, 2).any()
    assert all(torch.equal(table_of(shared, layer), table_of(stem, 0)) for layer in range(3))
    assert all(not torch.equal(table_of(every, a), table_of(every, b)) for a, b in itertools.combinations(range(3), 2))


@pytest.mark.parametrize("prefix", [0, 1])
def test_one_d_has_a_free_row_per_token(prefix: int) -> None:
    table = table_of(make("1d", "stem", layout_of((2, 3), prefix)))
    assert torch.linalg.matrix_rank(table) == 6 + prefix


@pytest.mark.parametrize("prefix", [0, 1])
def test_two_d_factorises_over_rows_and_columns(prefix: int) -> None:
    rows, columns = 3, 4
    table = table_of(make("2d", "stem", layout_of((rows, columns), prefix)))[prefix:].view(rows, columns, 8)
    for (r, s), (c, d) in itertools.product(
        itertools.combinations(range(rows), 2), itertools.combinations(range(columns), 2)
    ):
        crossed = table[r, c] - table[r, d] - table[s, c] + table[s, d]
        assert crossed.abs().max() < 1e-8
    assert torch.equal(table[0, :, :4], table[2, :, :4]), "the first half is the column alone"
    assert torch.equal(table[:, 0, 4:], table[:, 3, 4:]), "the second half is the row alone"
    assert not torch.equal(table[0, 0, :4], table[0, 1, :4])
    assert not torch.equal(table[0, 0, 4:], table[1, 0, 4:])


def test_two_d_gives_the_prefix_a_vector_of_its_own() -> None:
    position = make("2d", "stem", layout_of())
    assert torch.equal(table_of(position)[0], position.prefix[0][0])


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", [(2, 3), (1, 1), (1, 2)])
def test_relative_is_query_times_offset_vector(grid: tuple[int, int], prefix: int) -> None:
    layout = layout_of(grid, prefix)
    position, length = make("relative", "stem", layout), layout.tokens
    query = torch.randn(2, 2, length, 4)
    for layer in range(layout.depth):
        expected = torch.zeros(2, 2, length, length)
        for q, k in itertools.product(range(length), range(length)):
            vector = position.offsets[layer][k - q + length - 1]
            expected[:, :, q, k] = (query[:, :, q] * vector).sum(-1) / 4**0.5
        torch.testing.assert_close(position.bias(query, layer), expected)


def test_relative_depends_on_the_offset_alone_for_equal_content() -> None:
    position = make("relative", "stem", layout_of((3, 4)))
    bias = position.bias(torch.randn(1, 2, 1, 4).expand(1, 2, 13, 4), 1)
    for offset in range(-12, 13):
        diagonal = bias.diagonal(offset, -2, -1)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal))
    assert len(bias[0, 0].detach().mul(1e4).round().unique()) > 13, "and offsets differ"


def test_relative_sees_the_query_and_shares_heads_but_not_layers() -> None:
    own, shared = make("relative", "stem", layout_of()), make("relative", "shared", layout_of())
    query = torch.randn(1, 1, 7, 4).expand(1, 2, 7, 4)
    assert torch.equal(own.bias(query, 0)[:, 0], own.bias(query, 0)[:, 1])
    assert not torch.equal(own.bias(query, 0), own.bias(query, 1))
    assert torch.equal(shared.bias(query, 0), shared.bias(query, 1))
    torch.testing.assert_close(own.bias(2 * query, 0), 2 * own.bias(query, 0))


def test_skew_has_the_gradient_of_a_gather() -> None:
    length = 5
    by_offset = torch.randn(2, length, 2 * length - 1, dtype=torch.float64, requires_grad=True)
    index = torch.arange(length)[None] - torch.arange(length)[:, None] + length - 1
    weights = torch.randn(2, length, length, dtype=torch.float64)
    (expected,) = torch.autograd.grad((by_offset.gather(-1, index.expand(2, -1, -1)) * weights).sum(), by_offset)
    (actual,) = torch.autograd.grad((skew(by_offset) * weights).sum(), by_offset)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("word", "at", "message"),
    [
        ("none", "every", "pos_at every has no effect with pos_embed none: .*; use pos_at stem$"),
        ("none", "shared", "use pos_at stem$"),
        ("relative", "every", "no effect with pos_embed relative: .*; use pos_at stem or shared$"),
        ("sincos2d", "every", "no effect with pos_embed sincos2d: its table is fixed.*; use pos_at stem or shared$"),
        ("rope_mixed", "every", "no effect with pos_embed rope_mixed: .* in every layer already.* stem or shared$"),
        ("relative2d", "every", "no effect with pos_embed relative2d: .* in every layer already.* stem or shared$"),
        ("alibi", "every", "no effect with pos_embed alibi: its penalty acts in every layer already.* pos_at stem$"),
        ("alibi", "shared", "no effect with pos_embed alibi: .*; use pos_at stem$"),
        ("rope", "every", "no effect with pos_embed rope: .* in every layer already.*; use pos_at stem$"),
        ("rope", "shared", "no effect with pos_embed rope: .*; use pos_at stem$"),
        ("sincos", "stem", "pos_embed 'sincos' is unknown; allowed are none, 1d, 2d, relative, sincos2d, rope"),
        ("1d", "top", "pos_at 'top' is unknown; allowed are stem, every, shared"),
    ],
)
def test_what_has_no_effect_is_refused(word: str, at: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_position(word, at)


LEARNED = [(word, at) for word, at in PLACES if POSITIONS[word].own_std(1)]


@pytest.mark.parametrize("std", [None, 0.02, 0.5, 0.0])
@pytest.mark.parametrize(("word", "at"), LEARNED)
def test_tables_start_as_the_same_standard_normals_at_any_std(word: str, at: str, std: float | None) -> None:
    """By torch's own draws: 0.02 for tables that are added, 1 / sqrt(K) = 0.5 for offsets, or what is given."""
    position = POSITIONS[word](layout_of(), at, std)
    initialise(position, seed=3)
    scale = std if std is not None else {"1d": 0.02, "2d": 0.02, "relative": 0.5, "relative2d": 0.5}[word]
    parameters = list(position.named_parameters())
    assert parameters
    for name, parameter in parameters:
        drawn, normals = (
            torch.empty(parameter.shape).normal_(0, one, generator=generator_for(3, name)) for one in (scale, 1)
        )
        assert torch.equal(parameter, drawn), name
        torch.testing.assert_close(parameter.detach(), normals * scale)


@pytest.mark.parametrize("word", [word for word, at in PLACES if at == "stem" and (word, at) not in LEARNED])
def test_a_start_has_no_effect_where_nothing_is_learned(word: str) -> None:
    message = f"pos_std 0.02 has no effect with pos_embed {word}, .*; leave it out, or use pos_embed 1d or 2d or relat"
    with pytest.raises(ValueError, match=message):
        check_position(word, "stem", 0.02)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_an_impossible_start_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match=f"pos_std is {std}, and must be a finite standard deviation, at least 0$"):
        check_position("1d", "stem", std)


def test_layouts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide the width 8"):
        Layout(grid=(2, 2), prefix=0, width=8, heads=3, depth=1)
    with pytest.raises(ValueError, match=r"grid \(0, 2\) is empty"):
        Layout(grid=(0, 2), prefix=0, width=8, heads=2, depth=1)
    with pytest.raises(ValueError, match="pos_embed 2d halves the width, and 9 is odd"):
        POSITIONS["2d"](Layout(grid=(2, 2), prefix=0, width=9, heads=3, depth=1), "stem")
