"""Attacks on a linear network, by hand; patches by loops."""

import numpy as np
import pytest
import torch
from torch import nn

from vitexp.eval import attacks


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3 * 8 * 8) * 0.05)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])


def gradient_by_hand(network, pixels, labels):
    """d loss / d pixel of softmax cross entropy: 2 (p - onehot) W, for a network that takes 2 x - 1."""
    logits = (2 * pixels - 1).flatten(1) @ network.weight.T
    wrong = torch.softmax(logits, 1) - nn.functional.one_hot(labels, 4)
    return (2 * wrong @ network.weight).reshape(pixels.shape).detach()


def test_fgsm_is_one_step_along_the_sign_of_the_gradient(batch):
    network, (pixels, labels) = Linear(), batch
    expected = (pixels + 4 / 255 * gradient_by_hand(network, pixels, labels).sign()).clamp(0, 1)
    assert torch.equal(attacks.fgsm(network, pixels, labels, 4 / 255), expected)


def test_pgd_is_steps_that_are_brought_back(batch):
    network, (pixels, labels) = Linear(), batch
    limit, seen = 4 / 255, pixels
    for _ in range(5):
        seen = seen + limit / 2 * gradient_by_hand(network, seen, labels).sign()
        seen = (pixels + (seen - pixels).clamp(-limit, limit)).clamp(0, 1)
    assert torch.allclose(attacks.pgd(network, pixels, labels, limit, 5), seen, atol=1e-6)


def test_pgd_from_a_start_of_each_image_stays_within_the_limit(batch):
    network, (pixels, labels) = Linear(), batch
    samples = np.arange(6)
    found = attacks.pgd(network, pixels, labels, 4 / 255, 5, samples)
    assert float((found - pixels).abs().max()) <= 4 / 255 + 1e-6
    alone = attacks.pgd(network, pixels[3:4], labels[3:4], 4 / 255, 5, samples[3:4])
    assert torch.allclose(alone, found[3:4])
    assert not torch.equal(attacks.pgd(network, pixels, labels, 4 / 255, 1, samples + 9), found)


def test_salience_is_the_strongest_weight_of_the_class(batch):
    network, (pixels, labels) = Linear(), batch
    expected = 2 * network.weight[labels].reshape(6, 3, 8, 8).abs().amax(dim=1)
    assert torch.allclose(attacks.salience(network, pixels, labels), expected)


def test_a_patch_covers_its_place_and_nothing_else(batch):
    pixels, _ = batch
    patch, places = torch.full((3, 3, 3), 2.0), attacks.patch_places(np.arange(6), 8, 3)
    assert places.min() >= 0
    assert places.max() <= 5
    expected = pixels.clone()
    for image, (top, left) in zip(expected, places, strict=True):
        for row in range(3):
            for column in range(3):
                image[:, top + row, left + column] = patch[:, row, column]
    assert torch.equal(attacks.patched(pixels, patch, places), expected)
    assert not (attacks.patch_places(np.arange(6), 8, 3, 0) == places).all()


def test_training_raises_the_loss_of_images_that_it_has_not_seen():
    network = Linear()
    torch.manual_seed(2)
    pixels = torch.rand(400, 3, 8, 8)
    network.requires_grad_(False)
    labels = torch.zeros(400, dtype=torch.int64)

    def batches():
        for step in range(40):
            rows = attacks.training_rows(np.arange(200), 64, step)
            yield pixels[rows], labels[rows], rows

    def loss(patch):
        covered = attacks.patched(pixels[200:], patch, attacks.patch_places(np.arange(200, 400), 8, 4))
        return float(nn.functional.cross_entropy(attacks.logits(network, covered), labels[200:]))

    trained = attacks.train_patch(network, batches(), 8, 4)
    assert float(trained.min()) >= 0
    assert float(trained.max()) <= 1
    assert loss(trained) > loss(torch.rand(3, 4, 4)) + 0.1
    assert torch.equal(trained, attacks.train_patch(network, batches(), 8, 4))
