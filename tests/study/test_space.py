"""The expected points and orders are what W&B's engine (sweeps 0.3.0, numpy 1.26) gave for the same blocks."""

import itertools

import pytest

from vitexp.study import space


def grid(block):
    return list(space.grid(space.read_parameters(block)))


def values(*choices):
    return {"values": list(choices)}


NONE_AT_STEM, ONE_EVERYWHERE = {"pos_embed": "none", "pos_at": "stem"}, {"pos_embed": "1d", "pos_at": "every"}


def test_grid_walks_sorted_names_last_one_fastest():
    block = {
        "seed_everything": values(0, 1),
        "model": values(NONE_AT_STEM, ONE_EVERYWHERE),
        "data.train_images": {"value": 100},
        "Zeta": values("b", "a"),
    }
    assert grid(block) == [
        {"Zeta": zeta, "data.train_images": 100, "model": model, "seed_everything": seed}
        for zeta in ("b", "a")
        for model in (NONE_AT_STEM, ONE_EVERYWHERE)
        for seed in (0, 1)
    ]


def test_grid_of_nested_blocks_is_sorted_level_by_level():
    block = {
        "model.x": values(1, 2),
        "model": {
            "parameters": {
                "lr": values(0.1, 0.2),
                "head": {"parameters": {"b": values(True, False), "a": {"value": None}}},
            }
        },
        "a": values(3),
    }
    found = [(cell["model"]["head"]["b"], cell["model"]["lr"], cell["model.x"]) for cell in grid(block)]
    assert found == list(itertools.product((True, False), (0.1, 0.2), (1, 2)))
    assert grid(block)[0] == {"a": 3, "model.x": 1, "model": {"head": {"a": None, "b": True}, "lr": 0.1}}


@pytest.mark.parametrize("twice", [values(0, 1, 0), values(1, 2, 1.0), values([1, 2], [1, 2]), values("a", "a")])
def test_a_value_that_is_given_twice_is_refused(twice):
    # W&B would take it once, without a word.
    with pytest.raises(ValueError, match=r"parameter seed lists .* twice; take one out"):
        grid({"seed": twice})


def test_values_of_different_kinds_are_not_equal():
    assert [cell["a"] for cell in grid({"a": values(1, True, "1", None)})] == [1, True, "1", None]


def test_a_random_search_draws_no_point_twice_and_says_when_there_are_too_few():
    block = space.read_parameters({"a": values("x", "y"), "n": {"min": 1, "max": 3}})
    found = [(point["a"], point["n"]) for point in space.sample(block, 6, 0)]
    assert sorted(found) == [(a, n) for a in "xy" for n in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"run_cap is 7, but .* found no point beyond the first 6; lower run_cap to 6"):
        list(space.sample(block, 7, 0))


def test_grid_lists_the_values_of_ranges():
    block = {
        "n": {"min": 2, "max": 4},
        "q": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
        "c": {"distribution": "constant", "value": "x"},
    }
    found = [(cell["c"], cell["n"], cell["q"]) for cell in grid(block)]
    assert found == list(itertools.product("x", (2, 3, 4), (0.0, 0.25, 0.5, 0.75)))


def test_capitals_come_before_underscores_and_10_before_9():
    block = {"b10": values(1, 2), "b9": values(1, 2), "B": values(1, 2), "_a": values(0, 1)}
    found = [(cell["B"], cell["_a"], cell["b10"], cell["b9"]) for cell in grid(block)]
    assert found == list(itertools.product((1, 2), (0, 1), (1, 2), (1, 2)))


EVERY_DISTRIBUTION = {
    "a": values("x", "y", "z"),
    "b": {"value": 7},
    "c": {"min": 1, "max": 10},
    "d": {"min": 0.0, "max": 2},
    "e": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
    "f": {"distribution": "log_uniform", "min": -3, "max": 0},
    "g": {"distribution": "q_uniform", "min": 0, "max": 10, "q": 2},
    "h": {"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 8},
    "i": {"distribution": "normal"},
    "j": {"distribution": "q_normal", "mu": 10, "sigma": 3, "q": 0.5},
    "k": {"distribution": "log_normal", "mu": 1.0},
    "l": {"distribution": "beta", "a": 2, "b": 5},
    "m": {"values": [1, 2, 3], "probabilities": [0.2, 0.5, 0.3]},
    "n": {"distribution": "inv_log_uniform_values", "min": 1e-3, "max": 1.0},
    "o": {"distribution": "inv_log_uniform", "min": 0, "max": 2},
    "p": {"distribution": "q_beta", "q": 0.1},
    "q": {"distribution": "q_log_normal", "q": 1},
    "r": {"parameters": {"s": {"min": 0.5, "max": 1.0}}},
    "t": {"distribution": "q_log_uniform", "min": 0, "max": 3, "q": 1},
}
ENGINE_SEED_5 = [
    {
        "a": "y", "b": 7, "c": 8, "d": 1.8849005675541006, "e": 0.01658424573430511, "f": 0.7921337620082145, "g": 0,
        "h": 56, "i": 1.5835921300827087, "j": 11.0, "k": 9.842400048711939, "l": 0.09946114580292725, "m": 2,
        "n": 0.005491847864247182, "o": 0.40152789079166606, "p": 0.6000000000000001, "q": 0, "t": 2,
        "r.s": 0.608364900231924,
    },
    {
        "a": "z", "b": 7, "c": 2, "d": 1.594293982862409, "e": 0.0002607967981601484, "f": 0.317384140644499, "g": 2,
        "h": 8, "i": 1.1330565398459154, "j": 7.5, "k": 1.2367092805180535, "l": 0.667699971931024, "m": 3,
        "n": 0.007377606767256763, "o": 0.9258490948880743, "p": 0.5, "q": 2, "t": 17, "r.s": 0.6023897572668964,
    },
    {
        "a": "z", "b": 7, "c": 9, "d": 0.5975777957077355, "e": 0.0012121875080580993, "f": 0.08191019386841024, "g": 2,
        "h": 8, "i": -0.5204955889450609, "j": 11.0, "k": 0.18120332825906557, "l": 0.34841113333549967, "m": 2,
        "n": 0.00850890734963231, "o": 0.6956115789121723, "p": 0.5, "q": 1, "t": 8, "r.s": 0.740609193118432,
    },
]  # fmt: skip


def test_random_points_are_the_engines():
    found = [
        point | {"r.s": point.pop("r")["s"]} for point in space.sample(space.read_parameters(EVERY_DISTRIBUTION), 3, 5)
    ]
    for point, expected in zip(found, ENGINE_SEED_5, strict=True):
        assert point.keys() == expected.keys()
        for name, value in expected.items():
            assert point[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name
            assert type(point[name]) is type(value), name


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "parameter lr is 3; write `value:` or `values:`"),
        (values(), "empty list of values"),
        ({"min": 2, "max": 1}, "min 2, not below max 1"),
        ({"min": 0.5}, r"gives \['min'\]; it takes \['max', 'min'\]"),
        ({"value": 1, "values": [1]}, r"gives \['value', 'values'\]; it takes \['value'\]"),
        ({"values": 3}, "values: 3; this must be a list"),
        ({"min": "1e-4", "max": 1.0}, "min: '1e-4'; this must be a number"),
        (
            {"distribution": "log-uniform", "min": 1, "max": 2},
            "distribution 'log-uniform'; it is one of constant, categorical",
        ),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "one per value, together 1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "one per value, together 1"),
        ({"values": [1, 2], "probabilities": ["a", "b"]}, "one per value, together 1"),
        ({"distribution": ["uniform"], "min": 1, "max": 2}, r"distribution \['uniform'\]; it is one of"),
        ({"parameters": 3}, "write `value:` or `values:`"),
        ({"distribution": "q_uniform", "min": 0, "max": 2, "q": 0}, "has q: 0; give a number above 0"),
        ({"distribution": "normal", "sigma": -1.0}, "has sigma: -1.0; give a number above 0"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "min 0; a logarithm needs one above 0"),
        (
            {"distribution": "log_uniform", "min": 0.0001, "max": 0.1},
            "mean values between 1 and 1.105; for values between 0.0001 and 0.1 write log_uniform_values",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(entry, message):
    with pytest.raises(ValueError, match=f"parameter lr.*{message}|{message}"):
        space.read_parameters({"lr": entry})


@pytest.mark.parametrize("entry", [{"min": 0.0, "max": 1.0}, {"values": [1, 2], "probabilities": [0.5, 0.5]}])
def test_a_grid_needs_plain_values(entry):
    with pytest.raises(ValueError, match="which a grid cannot walk; give `values:` without probabilities"):
        grid({"lr": entry})


def test_a_grid_beyond_all_bounds_is_refused():
    with pytest.raises(ValueError, match=r"1,000,000 cells, more than 100,000"):
        grid({name: values(*range(100)) for name in "abc"})
