import numpy as np
import pytest
from scipy import stats as reference

from vitexp.study.claims.verdicts import DIFFER, SUPPORT, UNDECIDED, read_verdicts

SEEDS = [0, 1, 2, 3, 4]


def fill(lab, networks, swept=None, seeds=SEEDS, noise=0.002, apart=None, **settings):
    """`networks`: arch -> (TFLOP of an epoch, accuracy); `apart` takes this much from the ViTs at the last seed."""
    swept = {"model.arch": list(networks), **(swept or {}), "seed_everything": seeds}
    study = lab.study({"study.name": "c", "study.metrics": ["test_acc"], **settings}, swept)
    for cell in study.cells():
        arch, epochs = cell.overrides["model.arch"], cell.overrides.get("trainer.max_epochs", 1)
        cost, value = networks[arch]
        value += np.random.default_rng([cell.seed, list(networks).index(arch)]).normal(0, noise)
        value -= (apart or 0) * (cell.seed == seeds[-1] and not arch.startswith("R"))
        value += 0.05 * np.log2(epochs)
        lab.run(cell, {"test_acc": value}, study="c", train_flops=cost * epochs * 1e12, data={"name": "d"})
    return study


def line_of(study, lab, claim):
    found = [line for line in read_verdicts(study, lab.root) if line.claim.name == claim]
    assert len(found) <= 1
    return found[0] if found else None


def families(factor):
    """ViTs and ResNets of which the ViTs take `factor` times less."""
    return {"S/32": (1.0, 0.6), "S/16": (4.0, 0.7), "S/8": (16.0, 0.8),
            "R26x1": (factor, 0.6), "R50x1": (4.0 * factor, 0.7), "R50x2": (16 * factor, 0.8)}  # fmt: skip


@pytest.mark.parametrize(("factor", "verdict"), [(3.0, SUPPORT), (1 / 3, DIFFER)])
def test_what_a_vit_saves_is_read_at_equal_accuracy(lab, factor, verdict):
    line = line_of(fill(lab, families(factor), **{"study.margin": 0.9}), lab, "compute saving")
    difference = line.judged[0].judgement
    assert np.exp(difference.mean) == pytest.approx(factor, rel=0.05)
    assert (line.verdict, len(line.runs), line.judged[0].judgement.p_equivalence) == (verdict, 30, None)
    assert np.exp(difference.low) < factor < np.exp(difference.high)


def test_the_test_is_that_of_scipy_on_the_logarithm_of_the_factor(lab):
    line = line_of(fill(lab, families(1.1), noise=0.02), lab, "compute saving")
    values = {arm.factors["model.arch"]: arm.values("test_acc") for arm in line.finding.arms}

    def log_cost(names, seed, levels):
        known = sorted((values[name][seed], np.log(families(1.1)[name][0])) for name in names)
        return np.interp(levels, *zip(*known, strict=True))

    logs = []
    for seed in SEEDS:
        vits, resnets = list(families(1))[:3], list(families(1))[3:]
        ends = [[values[name][seed] for name in names] for names in (vits, resnets)]
        assert all(end == sorted(end) for end in ends)  # every network is on the running best
        levels = np.linspace(max(map(min, ends)), min(map(max, ends)), 20_001)
        logs.append(np.mean(log_cost(resnets, seed, levels) - log_cost(vits, seed, levels)))
    difference = line.judged[0].judgement
    assert difference.mean == pytest.approx(np.mean(logs), abs=1e-3)
    assert difference.p == pytest.approx(reference.ttest_1samp(logs, 0).pvalue, rel=0.02)
    assert line.verdict == UNDECIDED


def test_two_seeds_decide_nothing(lab):
    assert line_of(fill(lab, families(3), seeds=[0, 1]), lab, "compute saving").verdict == UNDECIDED


def test_families_that_reach_no_common_accuracy_are_not_decided(lab):
    low = {name: (cost, value - 0.4 * name.startswith("S")) for name, (cost, value) in families(1).items()}
    line = line_of(fill(lab, low), lab, "compute saving")
    assert (line.verdict, line.judged) == (UNDECIDED, ())
    assert line.objection == "ViT and ResNet reach no common accuracy"


def test_a_seed_at_which_they_share_none_leaves_it_open(lab):
    line = line_of(fill(lab, families(3), apart=0.5), lab, "compute saving")
    assert line.verdict == UNDECIDED
    assert line.objection.startswith("at 1 of 5 seeds ViT and ResNet reach no common accuracy")


def test_longer_training_is_more_compute_and_no_other_setting(lab):
    networks = {"S/32": (1.0, 0.6), "R26x1": (2.0, 0.6)}
    study = fill(lab, networks, {"trainer.max_epochs": [1, 4]})
    line = line_of(study, lab, "compute saving")
    assert np.exp(line.judged[0].judgement.mean) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("networks", [["S/32", "S/16"], ["R26x1", "R50x1"], ["S/32", "S/16", "R26x1"]])
def test_one_network_is_no_line(lab, networks):
    study = fill(lab, {name: families(2)[name] for name in networks})
    assert line_of(study, lab, "compute saving") is None


def test_depth_is_set_beside_width_around_the_network_that_has_both(lab):
    sized = {
        "w32d1m64h2/4": (0.5, 0.6), "w32d2m64h2/4": (1.0, 0.7), "w32d4m64h2/4": (2.0, 0.8),
        "w16d2m64h1/4": (0.5, 0.6), "w64d2m64h4/4": (8.0, 0.8), "w64d4m64h4/4": (16.0, 0.9), "w32d2m64h2/8": (0.2, 0.3),
    }  # fmt: skip
    line = line_of(fill(lab, sized), lab, "depth over width")
    behind = {arm.factors["model.arch"] for arm in line.finding.arms}
    assert behind == set(list(sized)[:5])
    # No distance from 0.6 to 0.7; from 0.7 to 0.8 it grows from nothing to log(8 / 2).
    assert line.judged[0].judgement.mean == pytest.approx(np.log(4) / 4, rel=0.1)
    assert line.verdict == SUPPORT


def test_networks_without_numbers_have_no_depth_to_compare(lab):
    assert line_of(fill(lab, families(2)), lab, "depth over width") is None
