import numpy as np
import pytest

from vitexp.study.claims.families import HYBRID, OTHER, RESNET, VIT, family_of, network
from vitexp.study.claims.verdicts import DIFFER, SUPPORT, UNDECIDED, read_verdicts
from vitexp.study.select import select

SEEDS = [0, 1, 2, 3, 4]
NOISE = np.random.default_rng(3).normal(0, 0.002, (8, 5))


def fill(lab, arms, swept=None, **settings):
    """`arms`: network -> (TFLOP of a run, accuracy at the first value of `swept`, and at the last)."""
    networks = [dict(zip(("arch", "stem"), name.split("@"), strict=False)) for name in arms]
    study = lab.study({"study.name": "f", **settings}, {"model": networks, **(swept or {}), "seed_everything": SEEDS})
    values = {}
    for cell in study.cells():
        name = "@".join(str(cell.overrides[key]) for key in ("model.arch", "model.stem") if cell.overrides.get(key))
        cost, *levels = arms[name]
        size = cell.overrides.get("data.train_images")
        place = 0 if size is None else (swept or {})["data.train_images"].index(size)
        value = levels[place] + NOISE[list(arms).index(name) + 3 * place][cell.seed]
        values[name, place, cell.seed] = value
        data = {"name": "d", **({} if size is None else {"train_images": size})}
        lab.run(cell, {"test_acc": value}, study="f", train_flops=cost * 1e12, data=data)
    return study, values


def lines_of(study, lab, claim):
    return [line for line in read_verdicts(study, lab.root) if line.claim.name == claim]


@pytest.mark.parametrize(
    ("arch", "family", "called"),
    [
        ("B/16", VIT, "B/16"),
        ("micro/4@patch", VIT, "micro/4"),
        ("R50+B/16", HYBRID, "R50+B/16"),
        ("R26+S/32", HYBRID, "R26+S/32"),
        ("micro/16@resnet50", HYBRID, "R50+micro/16"),
        ("micro/4@my_ideas:Overlap", OTHER, "Overlap+micro/4"),
        ("R50x1", RESNET, "R50x1"),
        ("R152x2", RESNET, "R152x2"),
    ],
)
def test_a_network_is_told_by_its_name_and_stem(lab, arch, family, called):
    study, _ = fill(lab, {arch: (1.0, 0.5), "Ti/16": (1.0, 0.5)})
    arm = select(study, lab.root).arms[0]
    assert (family_of(arm), network(arm)) == (family, called)


def test_a_hybrid_is_set_beside_the_line_between_plain_networks_in_the_logarithm_of_compute(lab):
    study, values = fill(lab, {"S/32": (1.0, 0.70), "S/16": (100.0, 0.90), "R26+S/32": (10.0, 0.85)})
    (line,) = lines_of(study, lab, "hybrid lead")
    leads = [values["R26+S/32", 0, s] - (values["S/32", 0, s] + values["S/16", 0, s]) / 2 for s in SEEDS]
    found = line.judged[0].judgement
    assert found.mean == pytest.approx(np.mean(leads), rel=1e-9)
    assert found.sd == pytest.approx(np.std(leads, ddof=1), rel=1e-9)
    assert [round(weight, 9) for weight in line.judged[0].contrast.contrast.weights.values()] == [1.0, -0.5, -0.5]
    assert line.verdict == SUPPORT
    assert len(line.runs) == 15


def test_a_plain_network_that_trained_longer_may_cost_as_much(lab):
    cells = [("R26+S/32", 1, 0.85), ("S/32", 1, 0.6), ("S/32", 4, 0.8)]
    settings = {"study.name": "f"}
    swept = {"model.arch": ["R26+S/32", "S/32"], "trainer.max_epochs": [1, 4], "seed_everything": SEEDS}
    study = lab.study(settings, swept)
    for cell in study.cells():
        network, epochs = cell.overrides["model.arch"], cell.overrides["trainer.max_epochs"]
        for row, (arch, length, level) in enumerate(cells):
            if (arch, length) == (network, epochs):
                cost = 4e12 if "+" in arch else length * 1e12
                lab.run(cell, {"test_acc": level + NOISE[row][cell.seed]}, study="f", train_flops=cost)
    (line,) = lines_of(study, lab, "hybrid lead")
    leads = NOISE[0] - NOISE[2] + 0.05
    assert line.judged[0].judgement.mean == pytest.approx(np.mean(leads), rel=1e-9)


def test_a_plain_network_of_equal_cost_stands_alone(lab):
    study, values = fill(lab, {"S/32": (1.0, 0.7), "S/16": (10.5, 0.9), "R26+S/32": (10.0, 0.85)})
    (line,) = lines_of(study, lab, "hybrid lead")
    leads = [values["R26+S/32", 0, seed] - values["S/16", 0, seed] for seed in SEEDS]
    assert line.judged[0].judgement.mean == pytest.approx(np.mean(leads), rel=1e-9)
    assert line.verdict == DIFFER


@pytest.mark.parametrize("cost", [0.5, 300.0])
def test_nothing_is_extrapolated(lab, cost):
    study, _ = fill(lab, {"S/32": (1.0, 0.7), "S/16": (100.0, 0.9), "R26+S/32": (cost, 0.85)})
    (line,) = lines_of(study, lab, "hybrid lead")
    assert line.verdict == UNDECIDED
    assert f"1 to 1e+02 beside {cost:.2g} TFLOP a run" in line.objection


@pytest.mark.parametrize(("late", "verdict"), [(0.90, SUPPORT), (0.97, DIFFER)])
def test_a_lead_fades_or_grows_from_the_smallest_hybrid_to_the_largest(lab, late, verdict):
    arms = {"S/32": (1.0, 0.7), "B/32": (10.0, 0.9), "R26+S/32": (1.0, 0.75), "R26+B/32": (10.0, late)}
    study, _ = fill(lab, arms)
    (line,) = lines_of(study, lab, "hybrid fade")
    assert line.judged[0].judgement.mean == pytest.approx(late - 0.9 - 0.05, abs=0.005)
    assert line.verdict == verdict
    (lead,) = lines_of(study, lab, "hybrid lead")
    assert lead.judged[0].contrast.one == "R26+S/32"
    assert lead.judged[0].judgement.mean == pytest.approx(0.05, abs=0.005)


def test_one_hybrid_cannot_fade(lab):
    study, _ = fill(lab, {"S/32": (1.0, 0.7), "S/16": (100.0, 0.9), "R26+S/32": (10.0, 0.85)})
    (line,) = lines_of(study, lab, "hybrid fade")
    assert (line.verdict, line.judged) == (UNDECIDED, ())
    assert "hybrids of two sizes" in line.objection


SIZES = {"data.train_images": [100, 400]}


@pytest.mark.parametrize(
    ("vit", "verdict"), [((0.50, 0.85), SUPPORT), ((0.70, 0.85), DIFFER), ((0.50, 0.70), UNDECIDED)]
)
def test_a_vit_falls_behind_on_little_data_and_catches_up(lab, vit, verdict):
    study, values = fill(lab, {"S/32": (1.0, *vit), "R50x1": (1.2, 0.60, 0.80)}, SIZES)
    (line,) = lines_of(study, lab, "data hunger")
    gaps = [[values["S/32", place, s] - values["R50x1", place, s] for s in SEEDS] for place in (0, 1)]
    behind, change = (one.judgement for one in line.judged)
    assert (behind.mean, change.mean) == pytest.approx((np.mean(gaps[0]), np.mean(gaps[1]) - np.mean(gaps[0])))
    assert change.sd == pytest.approx(np.std(np.subtract(gaps[1], gaps[0]), ddof=1), rel=1e-9)
    assert line.verdict == verdict
    assert line.finding.crossover.seeds == 5


def test_networks_of_other_cost_are_not_compared_on_data(lab):
    study, _ = fill(lab, {"S/32": (1.0, 0.5, 0.8), "R50x1": (3.0, 0.6, 0.7)}, SIZES)
    (line,) = lines_of(study, lab, "data hunger")
    assert (line.verdict, line.judged) == (UNDECIDED, ())
    assert "differ 3.0 times in compute" in line.objection


def test_each_vit_meets_the_resnet_nearest_in_cost(lab):
    arms = {"S/32": (1.0, 0.5, 0.8), "B/32": (8.0, 0.5, 0.8), "R50x1": (1.2, 0.6, 0.7), "R101x1": (9.0, 0.6, 0.7)}
    study, _ = fill(lab, arms, SIZES)
    sides = {line.judged[0].contrast.one: line.judged[0].contrast.other for line in lines_of(study, lab, "data hunger")}
    assert sides == {"S/32": "R50x1 on 100 images", "B/32": "R101x1 on 100 images"}


def test_without_resnets_or_sizes_the_claim_is_untouched(lab):
    study, _ = fill(lab, {"S/32": (1.0, 0.5, 0.8), "S/16": (1.0, 0.5, 0.8)}, SIZES)
    assert lines_of(study, lab, "data hunger") == []
