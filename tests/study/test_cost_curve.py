import math

import numpy as np
import pytest
from scipy import stats as reference

from vitexp.report.curve_text import line_name
from vitexp.study.curve import has_curve, make_curve
from vitexp.study.select import Runs
from vitexp.wandb_record import end_summary, from_wandb, start_config

# TFLOP of a run, and its accuracy: the ViTs take a quarter of what the ResNets take.
NETWORKS = {
    "micro/16": (1.0, 0.6), "micro/8": (4.0, 0.7), "micro/4": (16.0, 0.8),
    "R14x0.5": (4.0, 0.6), "R26x0.5": (16.0, 0.7), "R14x1": (64.0, 0.8),
    "R14+micro/32": (8.0, 0.65), "R14+micro/16": (64.0, 0.9),
}  # fmt: skip
SEEDS = [0, 1, 2, 3]
SETTINGS = {"study.name": "c", "study.x": "train_flops", "study.baseline": {"model.arch": "R26x0.5"}}
SIZED = {
    "w32d2m64h2/4": (1.0, 0.7), "w32d1m64h2/4": (0.5, 0.6), "w32d4m64h2/4": (2.0, 0.8),
    "w16d2m64h1/4": (0.4, 0.6), "w64d2m64h4/4": (4.0, 0.8),
}  # fmt: skip
LINES = {
    "Width": ["w16d2m64h1/4", "w32d2m64h2/4", "w64d2m64h4/4"],
    "Depth": ["w32d1m64h2/4", "w32d2m64h2/4", "w32d4m64h2/4"],
}


def accuracy(networks, arch, seed, noise):
    drawn = np.random.default_rng([seed, list(networks).index(arch)]).normal(0, noise)
    return networks[arch][1] + 0.01 * seed + drawn


def fill(lab, networks=NETWORKS, seeds=SEEDS, noise=0.0, priced=lambda cell: True, **settings):
    named = {**SETTINGS, **settings}
    study = lab.study(named, {"model.arch": list(networks), "seed_everything": seeds})
    for cell in study.cells():
        arch = cell.overrides["model.arch"]
        cost = networks[arch][0] * 1e12 if priced(cell) else None
        value = accuracy(networks, arch, cell.seed, noise)
        facts = {"train_flops": cost, "parameters": 1000 * list(networks).index(arch) + 1, "epochs": 10.0}
        facts["train_seconds"] = 10.0 + cell.seed
        lab.run(cell, {"test_acc": value, "test_loss": 1 - value}, study="c", **facts)
    return study


def test_every_arm_is_a_point_at_its_cost_on_the_line_of_its_family(lab):
    curve = make_curve(fill(lab, noise=0.01), lab.root)
    lines = curve.lines["test_acc"]
    assert {line_name(line): [point.arm.factors["model.arch"] for point in line.points] for line in lines} == {
        "ViT": ["micro/16", "micro/8", "micro/4"],
        "Hybrid": ["R14+micro/32", "R14+micro/16"],
        "ResNet": ["R14x0.5", "R26x0.5", "R14x1"],
    }
    for point in (point for line in lines for point in line.points):
        arch = point.arm.factors["model.arch"]
        values = [accuracy(NETWORKS, arch, seed, 0.01) for seed in SEEDS]
        low, high = reference.t.interval(0.95, 3, np.mean(values), reference.sem(values))
        assert point.x == NETWORKS[arch][0] * 1e12
        assert (point.interval.low, point.interval.high) == (pytest.approx(low), pytest.approx(high))
        assert point.is_baseline == (arch == "R26x0.5")


def test_each_line_is_read_against_that_of_the_baseline(lab):
    curve = make_curve(fill(lab, noise=0.002), lab.root)
    found = {line_name(line): (line_name(base), equal) for line, base, equal in curve.compared["test_acc"]}
    assert {name: base for name, (base, _) in found.items()} == {"ViT": "ResNet", "Hybrid": "ResNet"}
    equal = found["ViT"][1]
    assert equal.factor == pytest.approx(4, rel=0.05)
    assert equal.interval[0] < 4 < equal.interval[1]
    assert found["Hybrid"][1].accuracies[0] == pytest.approx(0.65 + 0.015, abs=0.005)


def test_the_running_best_leaves_out_what_a_cheaper_network_beats(lab):
    worse = {**NETWORKS, "micro/8": (4.0, 0.55)}
    (vit, *_) = make_curve(fill(lab, worse), lab.root).lines["test_acc"]
    assert [point.arm.factors["model.arch"] for point in vit.points] == ["micro/16", "micro/8", "micro/4"]
    assert [point.arm.factors["model.arch"] for point in vit.best] == ["micro/16", "micro/4"]


def test_named_lines_meet_in_one_point_and_compute_is_relative_to_the_baseline(lab):
    settings = {"study.x": "relative_flops", "study.lines": LINES, "study.baseline": {"model.arch": "w32d2m64h2/4"}}
    curve = make_curve(fill(lab, SIZED, noise=0.001, **settings), lab.root)
    by_name = {line_name(line): line for line in curve.lines["test_acc"]}
    costs = {name: [point.x for point in line.points] for name, line in by_name.items()}
    assert costs == {"Width": pytest.approx([0.4, 1.0, 4.0]), "Depth": pytest.approx([0.5, 1.0, 2.0])}
    assert by_name["Width"].points[1].arm is by_name["Depth"].points[1].arm
    ((line, base, equal),) = curve.compared["test_acc"]
    assert (line_name(line), line_name(base)) == ("Width", "Depth")  # of several the first by name
    # From 0.6 to 0.7 width goes from 0.4 to 1 and depth from 0.5; from 0.7 to 0.8 to 4 and to 2.
    expected = (math.log(0.5 / 0.4) / 2 + math.log(2 / 4) / 2) / 2
    assert math.log(equal.factor) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("x", "cost"), [("parameters", 4001.0), ("train_seconds", 11.5)])
def test_other_costs_are_the_mean_over_runs(lab, x, cost):
    curve = make_curve(fill(lab, **{"study.x": x}), lab.root)
    assert {point.x for point in curve.points if point.is_baseline} == {cost}


def test_a_loss_is_drawn_and_not_compared(lab):
    curve = make_curve(fill(lab, **{"study.metrics": ["test_acc", "test_loss"]}), lab.root)
    assert len(curve.lines["test_loss"]) == 3
    assert (len(curve.compared["test_acc"]), curve.compared["test_loss"]) == (2, ())


def test_without_a_baseline_nothing_is_compared(lab):
    assert make_curve(fill(lab, **{"study.baseline": {}}), lab.root).compared["test_acc"] == ()


def test_runs_without_a_cost_are_named_and_not_drawn(lab):
    study = fill(lab, priced=lambda cell: cell.overrides["model.arch"] != "micro/8")
    curve = make_curve(study, lab.root)
    assert [len(line.points) for line in curve.lines["test_acc"]] == [2, 2, 3]
    assert curve.notes == ("without a recorded train_flops, and so not drawn: arch=micro/8",)
    assert has_curve(study)


def test_a_study_without_any_cost_has_no_axis(lab):
    with pytest.raises(ValueError, match=r"recorded its train_flops, so there is no axis; choose another study\.x"):
        make_curve(fill(lab, priced=lambda cell: False), lab.root)


def test_without_the_baselines_cost_nothing_is_relative(lab):
    settings = {"study.x": "relative_flops"}
    study = fill(lab, priced=lambda cell: cell.overrides["model.arch"] != "R26x0.5", **settings)
    with pytest.raises(ValueError, match="recorded its relative_flops"):
        make_curve(study, lab.root)


def test_runs_read_from_wandb_give_the_same_curve(lab):
    study = fill(lab, noise=0.002)
    local = make_curve(study, lab.root)
    records = [run for p in local.points for run in p.arm.runs.values()]
    read = tuple(from_wandb(start_config(run), end_summary(run), "finished") for run in records)
    there = make_curve(study, Runs(location="the sweep", records=read))
    assert [(p.x, p.values) for p in there.points] == [(p.x, p.values) for p in local.points]
    assert [found[2] for found in there.compared["test_acc"]] == [found[2] for found in local.compared["test_acc"]]
