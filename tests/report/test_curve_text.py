import math

import pytest

from vitexp.report.curve_text import arm_names, comparison_text, fit_text, place_text, short_name
from vitexp.stats import Sample
from vitexp.study.arm import Arm
from vitexp.study.curve import Line, Point
from vitexp.study.fits import Crossover, EqualAccuracy, Gap, PowerLaw


def compared(found, axis="data.train_images", metric="test_acc"):
    lines = [Line(label=(("model.pos_embed", word),), axis=axis, metric=metric, points=()) for word in ("none", "1d")]
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


def test_of_losses_the_lower_is_ahead():
    assert "none overtakes 1-D at 300 images" in compared(crossover(), metric="test_loss")
    found = crossover(size=None, crossings=0)
    assert "1-D is ahead of none in the mean at every size" in compared(found, metric="test_loss")


def test_a_crossing_in_training_length_is_not_one_in_images():
    assert "1-D overtakes none at epochs 5.5; 95 %" in compared(crossover(size=5.5), "trainer.max_epochs")


def test_a_fit_is_told_with_its_uncertainty_or_its_reason():
    known = {"a": 3.0, "b": 0.7, "c": 0.01, "b_interval": (0.6, 0.8), "miss": 0.004, "sizes": 6, "seeds": 5}
    law = PowerLaw(**known, c_interval=(0.0, 0.02), outside=0)
    assert fit_text(law) == (
        "error = 3 · n^−0.70 + 0.0100, exponent ± 0.10, floor 0.00 to 2.00 % (bootstrap over 5 seeds); "
        "the largest miss is 0.40 points"
    )
    poor = fit_text(PowerLaw(**known, c_interval=(0.0, 0.0), outside=2, outside_at=(64.0, 1024.0)))
    assert "exponent ± 0.10, no floor seen (bootstrap" in poor
    assert poor.endswith("it leaves the joint 95 % intervals at 2 of 6 sizes (64, 1,024): a summary, not a law")
    assert fit_text("no seed has every size") == "no power law is drawn; no seed has every size"


def line(name, x):
    return Line(label=(("line", name),), axis=x, metric="test_acc", points=())


@pytest.mark.parametrize(
    ("x", "cost", "words"),
    [
        ("train_flops", 4.262e21, "4.26 ZFLOP"),
        ("train_flops", 5.5e19, "55 EFLOP"),
        ("train_flops", 1.274e12, "1.27 TFLOP"),
        ("train_flops", 9.996e11, "1 TFLOP"),
        ("train_flops", 3.5e8, "350 MFLOP"),
        ("train_flops", 12.0, "12 FLOP"),
        ("relative_flops", 1.0, "1×"),
        ("relative_flops", 0.0623, "0.0623×"),
        ("relative_flops", 128.4, "128×"),
        ("parameters", 1_300_000, "1.3 M"),
        ("parameters", 85_800_000, "85.8 M"),
        ("train_seconds", 9.999, "10 s"),
        ("train_seconds", 12_345.6, "12,346 s"),
        ("train_flops", 2e11, "200 GFLOP"),
        ("relative_flops", 0.5, "0.5×"),
    ],
)
def test_a_cost_has_a_unit_and_at_most_three_digits(x, cost, words):
    assert place_text(x, cost) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("w32d8m64h2/4", "d8"),
        ("w64d2m64h4/4", "w64 h4"),
        ("w32d2m64h2/8", "/8"),
        ("w16d1m32h1/8", "w16 d1 m32 h1 /8"),
        ("w32d2m64h2/4", "w32d2m64h2/4"),
        ("w32d2m64h2/4, gap", "the same, gap"),
        ("w32d8m64h2/4, gap", "d8, gap"),
        ("micro/4", "micro/4"),
        ("R50+B/16", "R50+B/16"),
    ],
)
def test_a_network_in_numbers_is_named_by_what_differs(name, words):
    assert short_name(name, "w32d2m64h2/4") == words
    assert short_name(name, "B/16") == name


def test_arms_are_named_by_their_network_and_by_what_tells_them_apart():
    factors = [
        {"model.arch": "B/16", "model.stem": "patch", "trainer.max_epochs": 7},
        {"model.arch": "B/16", "model.stem": "patch", "trainer.max_epochs": 14},
        {"model.arch": "B/16", "model.stem": "resnet50", "trainer.max_epochs": 7},
        {"model.arch": "R50x1", "model.stem": "auto", "trainer.max_epochs": 7},
    ]
    sample = Sample(values={0: 0.5})
    points = [Point(arm=Arm(factors=one, asked=(0,)), x=1.0, sample=sample, images=True) for one in factors]
    names = arm_names(points)
    assert [names[id(point.arm)] for point in points] == ["B/16, 7 epochs", "B/16, 14 epochs", "R50+B/16", "R50x1"]


def found(*logs, low=0.8, high=0.9):
    gaps = [None if log is None else Gap(log_factor=log, low=low, high=high) for log in logs]
    return EqualAccuracy(gaps=dict(enumerate(gaps)))


@pytest.mark.parametrize(
    ("logs", "x", "words"),
    [
        (
            (1.0, 1.1, 1.2),
            "train_flops",
            "For equal top-1 accuracy ViT needs 3.00 times less compute than ResNet (95 % interval 2.34 to 3.85, n = 3 "
            "seeds), over the 80.00 to 90.00 % that both reach",
        ),
        (
            (-1.0, -1.1, -1.2),
            "relative_flops",
            "ViT needs 3.00 times more compute than ResNet (95 % interval 2.34 to 3.85, n = 3 seeds), over",
        ),
        ((0.5, -0.4, 0.2), "parameters", "1.11 times fewer parameters than ResNet (95 % interval 0.35 to 3.45, n = 3"),
        ((0.5, -0.4, 0.2), "parameters", "n = 3 seeds, which holds 1: no difference is shown), over"),
        ((-0.5, 0.4, -0.2), "parameters", "1.11 times more parameters than ResNet (95 % interval 0.35 to 3.45, n = 3"),
        ((0.1, 0.2, 0.3), "train_seconds", "1.22 times less training time than ResNet"),
        ((1.0, 1.2), "train_flops", "3.00 times less compute than ResNet (n = 2: not enough evidence under 3 seeds)"),
        ((1.0, 1.0, 1.0), "train_flops", "2.72 times less compute than ResNet (the same at each of n = 3 seeds)"),
        (
            (1.0, None, 1.2, 1.1),
            "train_flops",
            "less compute than ResNet in the mean of 3 of 4 seeds, while at the others they reach no common accuracy",
        ),
        ((None, None), "train_flops", "ViT and ResNet reach no common top-1 accuracy"),
        ((), "train_flops", "ViT and ResNet share no seed, so they are not compared at equal top-1 accuracy"),
    ],
)
def test_the_factor_is_told_with_how_sure_it_is(logs, x, words):
    assert words in comparison_text(line("ViT", x), line("ResNet", x), found(*logs))
