import math

import pytest

from vitexp.report.curve_text import comparison_text, fit_text
from vitexp.study.curve import Line
from vitexp.study.fits import Crossover, PowerLaw


def compared(found, axis="data.train_images"):
    lines = [
        Line(label=(("model.pos_embed", word),), axis=axis, metric="test_acc", points=()) for word in ("none", "1d")
    ]
    return comparison_text(*lines, found)


def crossover(**changes):
    return Crossover(**{"size": 300.0, "low": 250.0, "high": 400.0, "crossings": 1, "leader": 1, "seeds": 5} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "1-D overtakes none at 300 images; 95 % interval 250 to 400 (n = 5 seeds)"),
        ({"leader": -1}, "none overtakes 1-D at 300 images; 95 % interval 250 to 400"),
        ({"high": math.inf}, "interval 250 to beyond the largest size (n = 5 seeds), so that a crossing is not shown"),
        ({"low": 0.0}, "interval before the smallest size to 400 (n = 5 seeds), so that a crossing is not shown"),
        ({"low": None, "high": None}, "by the means alone: not enough evidence under 3 seeds"),
        ({"size": None, "crossings": 0}, "none is ahead of 1-D in the mean at every size"),
        ({"size": None, "crossings": 0, "leader": -1}, "1-D is ahead of none in the mean at every size"),
        ({"size": None, "crossings": 3}, "none and 1-D change places 3 times"),
        ({"size": None, "crossings": 0, "leader": 0}, "none and 1-D do not differ at any size"),
    ],
)
def test_who_overtakes_whom_and_how_sure_that_is(changes, words):
    assert words in compared(crossover(**changes))


def test_a_crossing_in_training_length_is_not_one_in_images():
    assert "1-D overtakes none at epochs 5.5; 95 %" in compared(crossover(size=5.5), "trainer.max_epochs")


def test_a_fit_is_told_with_its_uncertainty_or_its_reason():
    known = {"a": 3.0, "b": 0.7, "c": 0.01, "b_interval": (0.6, 0.8), "miss": 0.004, "sizes": 6, "seeds": 5}
    law = PowerLaw(**known, c_interval=(0.0, 0.02), outside=0)
    assert fit_text(law) == (
        "error = 3 · n^−0.70 + 0.0100, exponent ± 0.10, floor 0.00 to 2.00 % (bootstrap over 5 seeds); "
        "the largest miss is 0.40 points"
    )
    poor = fit_text(PowerLaw(**known, c_interval=(0.0, 0.0), outside=2))
    assert "exponent ± 0.10, no floor seen (bootstrap" in poor
    assert poor.endswith("it leaves the joint 95 % intervals at 2 of 6 sizes: a summary, not a law")
    assert fit_text("no seed has every size") == "no power law is drawn; no seed has every size"
