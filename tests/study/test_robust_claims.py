"""What the runs say about a ViT beside a ResNet on changed images."""

import numpy as np
import pytest

from vitexp.bits import write_answers
from vitexp.study.claims.verdicts import DIFFER, SUPPORT, UNDECIDED, read_verdicts

SEEDS = [0, 1, 2, 3, 4]
NOISE = np.random.default_rng(5).normal(0, 0.002, (4, 5))
NAMES = {
    "occlusion": "robust/drop_50",
    "distribution shift": "robust/translate_2",
    "adversarial patch": "robust/patch_25",
    "shuffled patches": "robust/shuffle_2x2",
}


def fill(lab, vit, resnet, metric, cost=1.0):
    """Each network by its accuracy on images as they are, and on changed ones."""
    networks = {"micro/4": vit, "R14x0.5": resnet}
    settings = {"study.name": "rob", "study.metrics": ["test_acc", metric], "study.margin": 0.01}
    study = lab.study(settings, {"model.arch": list(networks), "seed_everything": SEEDS})
    for cell in study.cells():
        arch = cell.overrides["model.arch"]
        clean, changed = (level + NOISE[i][cell.seed] for i, level in enumerate(networks[arch]))
        found = {"test_acc": clean, "robust/clean": clean, metric: changed}
        lab.run(cell, found, study="rob", train_flops=1e12 * (cost if arch == "micro/4" else 1.0))
    return [line for line in read_verdicts(study, lab.root) if line.claim.source == "Naseer 2021"]


@pytest.mark.parametrize(("claim", "metric"), NAMES.items())
def test_a_vit_that_loses_less_and_ends_above_supports_the_claim_of_its_test(lab, claim, metric):
    (line,) = fill(lab, (0.80, 0.70), (0.80, 0.50), metric)
    assert (line.claim.name, line.metric, line.verdict) == (claim, metric, SUPPORT)
    above, less = (one.judgement.mean for one in line.judged)
    assert (above, less) == pytest.approx((0.2, 0.2), abs=0.001)


@pytest.mark.parametrize(
    ("vit", "resnet", "verdict"),
    [
        ((0.60, 0.50), (0.90, 0.70), DIFFER),  # it loses less, and is still worse
        ((0.90, 0.60), (0.60, 0.55), DIFFER),  # it is still better, and loses more
        ((0.60, 0.50), (0.60, 0.50), DIFFER),  # shown to be alike
    ],
)
def test_both_the_level_and_the_loss_count(lab, vit, resnet, verdict):
    (line,) = fill(lab, vit, resnet, "robust/drop_50")
    assert line.verdict == verdict


def test_networks_of_unlike_compute_decide_nothing(lab):
    (line,) = fill(lab, (0.80, 0.70), (0.80, 0.50), "robust/drop_50", cost=3.0)
    assert line.verdict == UNDECIDED
    assert "differ 3.0 times in compute" in line.objection


@pytest.mark.parametrize("same", [True, False])
def test_clean_accuracy_of_other_images_is_not_taken_off(lab, same):
    settings = {"study.name": "rob", "study.metrics": ["test_acc", "robust/drop_50"], "study.margin": 0.01}
    study = lab.study(settings, {"model.arch": ["micro/4", "R14x0.5"], "seed_everything": SEEDS})
    for cell in study.cells():
        folder = lab.root / "rob" / cell.overrides["model.arch"].replace("/", "-") / f"seed-{cell.seed}"
        lost = 40 if cell.overrides["model.arch"] == "micro/4" else 80
        answers = {}
        for name, wrong in (("robust/clean", 20), ("robust/drop_50", lost)):
            order = "some" if name == "robust/clean" and not same else "all"
            right = np.random.default_rng([cell.seed, wrong]).permutation(200) >= wrong
            answers |= write_answers(folder, name, right.tolist(), order)
        found = {"test_acc": 0.9} | {name: entry["right"] / 200 for name, entry in answers.items()}
        lab.run(cell, found, study="rob", folder=folder, answers=answers, train_flops=1e12)
    (line,) = (one for one in read_verdicts(study, lab.root) if one.claim.source == "Naseer 2021")
    assert line.verdict == (SUPPORT if same else UNDECIDED)
    assert ("not all tested on the same images" in (line.objection or "")) != same


def test_arms_that_a_table_does_not_compare_support_no_claim(lab):
    settings = {"study.name": "pos", "study.metrics": ["test_acc"], "study.margin": 0.01}
    study = lab.study(settings, {"model.pos_embed": ["none", "1d"], "seed_everything": SEEDS})
    for cell in study.cells():
        none = cell.overrides["model.pos_embed"] == "none"
        data = {"name": "digits", "order_fingerprints": {"test": "one" if none else "another"}}
        lab.run(cell, {"test_acc": 0.9 - 0.1 * none + NOISE[int(none)][cell.seed]}, study="pos", data=data)
    (line,) = (one for one in read_verdicts(study, lab.root) if one.claim.name == "no positions")
    assert line.verdict == UNDECIDED
    assert "not measured on the baseline's images" in line.objection


def test_claims_of_images_as_they_are_do_not_count_changed_ones(lab):
    settings = {"study.name": "pos", "study.metrics": ["test_acc", "robust/shuffle_2x2"], "study.margin": 0.01}
    study = lab.study(settings, {"model.pos_embed": ["none", "1d"], "seed_everything": SEEDS})
    for cell in study.cells():
        low = 0.1 * (cell.overrides["model.pos_embed"] == "none") + NOISE[0][cell.seed]
        lab.run(cell, {"test_acc": 0.9 - low, "robust/shuffle_2x2": 0.5 + low}, study="pos")
    assert {(line.claim.name, line.metric) for line in read_verdicts(study, lab.root)} == {("no positions", "test_acc")}
