"""Losses by NumPy by hand, and the arithmetic of a run's length."""

import inspect
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch

from vitexp.data.batch import Batch
from vitexp.data.mixing import Recipe
from vitexp.train.config import ClassifyConfig, check_objective, plain
from vitexp.train.losses import batch_losses, image_losses, probabilities_of
from vitexp.train.module import Classifier

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5))
LABELS = RNG.integers(0, 5, size=6)


def losses(**options):
    config = ClassifyConfig(classes=5, **options)
    return image_losses(torch.tensor(LOGITS), torch.tensor(LABELS), config).numpy()


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def targets(smoothing, off):
    onehot = np.eye(5)[LABELS]
    return onehot * (1 - smoothing) + off


def test_softmax_by_hand():
    assert losses() == pytest.approx(-(targets(0, 0) * log_softmax(LOGITS)).sum(-1), abs=1e-6)


def test_softmax_smoothing_spreads_over_all_classes():
    assert losses(label_smoothing=0.1) == pytest.approx(-(targets(0.1, 0.02) * log_softmax(LOGITS)).sum(-1), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 1e-4])
def test_sigmoid_is_summed_over_classes(smoothing):
    wanted = np.eye(5)[LABELS] * (1 - 2 * smoothing) + smoothing
    one, zero = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    by_hand = -(wanted * one + (1 - wanted) * zero).sum(-1)
    assert losses(loss="sigmoid", label_smoothing=smoothing) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_mixed_image_is_measured_against_both_labels_as_timm_does(loss):
    from timm.data.mixup import mixup_target
    from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy

    share = torch.tensor([0.3, 0.3, 1.0, 1.0, 0.0, 0.0])
    labels = torch.tensor(LABELS)
    batch = Batch(torch.empty(6, 0), labels, labels, 6, Recipe(share, torch.zeros(6, 4, dtype=torch.long)))
    found = batch_losses(torch.tensor(LOGITS), batch, ClassifyConfig(classes=5, loss=loss))
    for start in (0, 2, 4):  # timm's partners are mirrored in the batch, which for two images is the same
        pair = slice(start, start + 2)
        target = mixup_target(labels[pair], 5, share[start].item(), 0.0).double()
        logits = torch.tensor(LOGITS)[pair]
        timm = SoftTargetCrossEntropy() if loss == "softmax" else BinaryCrossEntropy(smoothing=0, sum_classes=True)
        assert found[pair].mean().item() == pytest.approx(timm(logits, target).item(), rel=1e-6)


def test_probabilities_follow_the_loss():
    logits = torch.tensor(LOGITS)
    assert probabilities_of(logits, ClassifyConfig(classes=5)).sum(-1).numpy() == pytest.approx(1.0)
    by_hand = 1 / (1 + np.exp(-LOGITS))
    assert probabilities_of(logits, ClassifyConfig(classes=5, loss="sigmoid")).numpy() == pytest.approx(by_hand)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"model\.label_smoothing"):
        check_objective(ClassifyConfig(label_smoothing=smoothing))


def test_equal_seeds_give_arms_equal_weights_where_shapes_agree():
    arms = {}
    for word in ("none", "1d", "relative"):
        torch.manual_seed(3)
        arms[word] = Classifier(arch="micro/2", image_size=8, classes=10, pos_embed=word).state_dict()
    shared = [name for name in arms["none"] if "position" not in name and name.startswith("network")]
    assert len(shared) > 40
    for word in ("1d", "relative"):
        assert all(torch.equal(arms["none"][name], arms[word][name]) for name in shared)


def test_the_constructor_says_what_the_config_holds():
    """Names, types and defaults stand in the signature, for completion; the config is where they are documented."""
    given = inspect.signature(Classifier).parameters
    wanted = {
        field.name: (field.type, field.default) if field.default_factory is MISSING else (field.type | None, None)
        for field in fields(ClassifyConfig)
    }
    assert {name: (p.annotation, p.default) for name, p in given.items()} == wanted
    module = Classifier(arch="micro/2", image_size=8, lr=0.5)
    assert dict(module.hparams) == plain(module.config)
