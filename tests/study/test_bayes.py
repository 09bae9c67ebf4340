import math
import sys

import pytest

from vitexp.study import space
from vitexp.study.run.search import Trial, arguments, suggest

ENTRIES = {
    "uniform": {"distribution": "uniform", "min": -2.0, "max": 3.0},
    "whole": {"min": 2, "max": 5},
    "rate": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-1},
    "exponents": {"distribution": "log_uniform", "min": -9.0, "max": -2.0},
    "inverse": {"distribution": "inv_log_uniform", "min": 2.0, "max": 9.0},
    "inverse_values": {"distribution": "inv_log_uniform_values", "min": 1.0e-4, "max": 1.0e-1},
    "steps": {"distribution": "q_uniform", "min": 16, "max": 256, "q": 16},
    "log_steps": {"distribution": "q_log_uniform_values", "min": 16, "max": 256, "q": 16},
    "word": {"values": ["none", "1d", None]},
    "block": {"values": [{"pos_embed": "none", "pos_at": "stem"}, {"pos_embed": "1d", "pos_at": "every"}]},
    "fixed": {"value": [1, 2]},
    "only": {"values": ["x"]},
    "model": {"parameters": {"lr": {"distribution": "uniform", "min": 0.0, "max": 1.0}}},
}
PARAMETERS = space.read_parameters(ENTRIES)


@pytest.fixture(scope="module")
def points():
    """Fifty points, none of them with a result."""
    trials = []
    for _ in range(50):
        trials.append(Trial(suggest(PARAMETERS, trials, "maximize"), "FAIL"))
    return [arguments(PARAMETERS, trial.point) for trial in trials]


def test_points_lie_where_the_sweep_says(points):
    def values(name):
        return [point[name] for point in points]

    assert all(-2 <= value <= 3 for value in values("uniform"))
    assert set(values("whole")) == {2, 3, 4, 5}
    assert all(1e-4 <= value <= 1e-1 for value in values("rate") + values("inverse_values"))
    assert all(math.exp(-9) <= value <= math.exp(-2) for value in values("exponents") + values("inverse"))
    assert all(16 <= value <= 256 and value % 16 == 0 for value in values("steps") + values("log_steps"))
    assert {type(value) for value in values("steps")} == {int}
    assert {str(value) for value in values("word")} == {"none", "1d", "None"}
    assert all(value in ENTRIES["block"]["values"] for value in values("block"))
    assert all((point["fixed"], point["only"]) == ([1, 2], "x") for point in points)
    assert all(0 <= point["model"]["lr"] <= 1 for point in points)


@pytest.mark.parametrize("name", ["rate", "inverse_values", "log_steps"])
def test_logarithmic_parameters_are_walked_by_their_logarithm(points, name):
    low, high = ENTRIES[name]["min"], ENTRIES[name]["max"]
    places = sorted(math.log(point[name] / low) / math.log(high / low) for point in points)
    assert places[25] == pytest.approx(0.5, abs=0.2)  # of a linear walk it would be 0.9 and more


FAILED = Trial({}, "FAIL")
RATE = space.read_parameters({"lr": ENTRIES["rate"]})


def loss(point):
    return math.log10(point["lr"] / 0.01) ** 2


@pytest.mark.parametrize(("goal", "sign"), [("minimize", 1), ("maximize", -1)])
def test_later_points_are_better_ones(goal, sign):
    trials = []
    for _ in range(40):
        point = suggest(RATE, trials, goal)
        trials.append(Trial(point, "COMPLETE", sign * loss(point)))
    losses = [loss(trial.point) for trial in trials]
    assert sum(losses[-10:]) < sum(losses[:10]) / 5


def test_a_point_follows_from_the_trials_before_it_and_their_number():
    done = [Trial({"lr": lr}, "COMPLETE", loss({"lr": lr})) for lr in (0.001, 0.02, 0.005) * 5]
    assert suggest(RATE, done, "minimize") == suggest(RATE, list(done), "minimize")
    others = [suggest(RATE, [*done, FAILED], "minimize"), suggest(RATE, done[1:], "minimize")]
    assert suggest(RATE, done, "minimize") not in others


def test_running_points_are_avoided_by_parallel_workers():
    rates = [10 ** (-4 + 3 * place / 39) for place in range(40)]
    done = [Trial({"lr": lr}, "COMPLETE", loss({"lr": lr})) for lr in rates]
    running = [Trial({"lr": 0.01 * 10 ** (place / 20)}) for place in range(-5, 5)]

    def near(trials):
        more = [trials + [FAILED] * count for count in range(10)]  # another draw for each number of trials
        return sum(loss(suggest(RATE, some, "minimize")) < 0.2**2 for some in more)

    assert near(done + [FAILED] * len(running)) >= 8
    assert near(done + running) <= 2


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"distribution": "normal"}, "parameter lr is normal, which method bayes does not know; use constant, categ"),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, "parameter lr is categorical_w_probabilities, which"),
        ({"distribution": "q_beta"}, "parameter lr is q_beta, which"),
        (
            {"distribution": "log_uniform_values", "min": 0.0, "max": 1.0},
            r"parameter lr \(log_uniform_values\) has min 0.0; a logarithm needs one above 0",
        ),
    ],
)
def test_what_cannot_be_walked_is_refused_by_name(entry, sentence):
    with pytest.raises(ValueError, match=sentence):
        suggest(space.read_parameters({"lr": entry}), [], "minimize")


def test_without_optuna_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r'^method bayes needs Optuna: pip install "vitexp\[bayes\]"$'):
        suggest(RATE, [], "minimize")
