"""Few-shot linear evaluation: a ridge regression on frozen features, solved in closed form.

Two protocols share one solver. The current one fixes the penalty and repeats the choice of examples over seeds; the
older one takes the first examples of each class and picks the penalty that ranks best over a whole group of data sets.

Everything is computed in float64 on the CPU: the answer then depends on the features alone, not on the device.

Source: the ViT paper, Sec. 4.1, names the method only; the details are those of big_vision's `fewshot_lsr` and, for the
older protocol, of scenic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHOTS = (1, 5, 10, 25)
SEEDS = (0, 1, 2)
PENALTY = 1024.0
OLDER_PENALTIES = tuple(2.0**power for power in range(-10, 20))

_BIAS_FEATURE = 100.0  # so large that the bias is almost free of the penalty
_SMALLEST_SCALE = 1e-5
_SCORES_AT_ONCE = 2**24  # 128 MiB of scores


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features; the standardisation is folded into it.

    Shapes: weight (D, classes), bias (classes).
    """

    weight: Tensor
    bias: Tensor


def fewshot_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    classes: int,
    penalty: float = PENALTY,
) -> dict[tuple[int, int], float]:
    """Test accuracy (0 to 1) of a linear probe on frozen features, for each (shots, seed).

    `shots` are training images per class, drawn anew for each seed; averaging over seeds is left to the reader.
    Shapes: train_x (n, D), train_y (n), test_x (m, D), test_y (m).

    >>> x, y = torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5)
    >>> fewshot_accuracy(x, y, x, y, shots=[5], seeds=[0], classes=4)
    {(5, 0): 1.0}

    Raises: ValueError when a class has fewer than max(shots) examples. Source: ViT paper, Sec. 4.1, and big_vision.
    """
    answers = fewshot_answers(
        train_x, train_y, test_x, test_y, shots=shots, seeds=seeds, classes=classes, penalty=penalty
    )
    return {draw: _share(right) for draw, right in answers.items()}


def fewshot_answers(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    classes: int,
    penalty: float = PENALTY,
) -> dict[tuple[int, int], Tensor]:
    """Whether each test image is answered rightly, for each (shots, seed).

    Shapes: train_x (n, D), train_y (n), test_x (m, D), test_y (m) -> bool (m).
    Raises: ValueError when a class has fewer than max(shots) examples.
    """
    train_x, test_x = _checked(train_x, train_y, classes, "training"), _checked(test_x, test_y, classes, "test")
    probes = {}
    for seed in seeds:
        order = shuffled_order(train_y, classes, seed)
        for count in shots:
            rows = first_shots(order, count)
            probes[count, seed] = fit_probes(train_x[rows], train_y[rows], classes, [penalty])[0]
    return dict(zip(probes, right_answers(list(probes.values()), test_x, test_y), strict=True))


def accuracy_by_penalty(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    shots: Sequence[int] = SHOTS,
    classes: int,
    penalties: Sequence[float] = OLDER_PENALTIES,
) -> dict[tuple[int, float], float]:
    """The older protocol on one data set: test accuracy for each (shots, penalty), by the first examples per class."""
    train_x, test_x = _checked(train_x, train_y, classes, "training"), _checked(test_x, test_y, classes, "test")
    order = stored_order(train_y, classes)
    results: dict[tuple[int, float], float] = {}
    for count in shots:
        rows = first_shots(order, count)
        probes = fit_probes(train_x[rows], train_y[rows], classes, penalties)
        found = accuracies(probes, test_x, test_y)
        results |= {(count, penalty): accuracy for penalty, accuracy in zip(penalties, found, strict=True)}
    return results


def best_penalties(results: Mapping[str, Mapping[tuple[int, float], float]]) -> dict[int, float]:
    """For each shot count the penalty with the best mean rank of accuracy over all data sets (name -> its accuracies).

    Equal accuracies get ranks in the order of their penalties, and equal mean ranks go to the smaller penalty.
    """
    cells = next(iter(results.values())).keys()
    if any(found.keys() != cells for found in results.values()):
        raise ValueError(f"the data sets {', '.join(results)} have different (shots, penalty) pairs; give all the same")
    chosen = {}
    for count in sorted({count for count, _ in cells}):
        penalties = sorted(penalty for other, penalty in cells if other == count)
        table = np.array([[found[count, penalty] for penalty in penalties] for found in results.values()])
        ranks = table.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        chosen[count] = penalties[int(ranks.mean(axis=0).argmax())]
    return chosen


def shuffled_order(labels: Tensor, classes: int, seed: int) -> list[np.ndarray]:
    """The rows of each class in random order; one generator serves the classes from 0 upwards."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(rows) for rows in stored_order(labels, classes)]


def stored_order(labels: Tensor, classes: int) -> list[np.ndarray]:
    """The rows of each class as they are stored."""
    found = labels.cpu().numpy()
    return [np.flatnonzero(found == label) for label in range(classes)]


def first_shots(order: Sequence[np.ndarray], shots: int) -> Tensor:
    """The first `shots` rows of every class, class by class, so that fewer shots are a part of more shots.

    Raises: ValueError naming the class that has too few.
    """
    if shots < 1:
        raise ValueError(f"{shots} shots were asked for; a class gives at least 1")
    for label, rows in enumerate(order):
        if len(rows) < shots:
            raise ValueError(
                f"class {label} has {len(rows)} training examples, fewer than the {shots} shots asked for; "
                "ask for fewer shots or give more training images"
            )
    return torch.from_numpy(np.concatenate([rows[:shots] for rows in order]))


def fit_probes(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> list[Probe]:
    """One ridge regression to targets of -1 and 1 per penalty, all from one Gram matrix.

    Shapes: features (n, D), labels (n).
    """
    x = features.to("cpu", torch.float64)
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0) + _SMALLEST_SCALE
    z = torch.cat([(x - mean) / scale, x.new_full((len(x), 1), _BIAS_FEATURE)], dim=1)
    targets = 2 * torch.nn.functional.one_hot(labels.cpu().long(), classes).double() - 1
    return [_unstandardised(weight, mean, scale) for weight in solve_ridge(z, targets, penalties)]


def solve_ridge(z: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """Weights that minimise |z w - targets|^2 + penalty |w|^2, through whichever Gram matrix of z is smaller.

    Shapes: z (n, d), targets (n, classes); each result (d, classes).
    """
    if min(penalties) <= 0:
        raise ValueError(f"penalty {min(penalties)} is not above 0; the ridge regression needs a positive one")
    primal = z.shape[0] >= z.shape[1]
    gram, right = (z.T @ z, z.T @ targets) if primal else (z @ z.T, targets)
    weights = []
    for penalty in penalties:
        shifted = gram.clone()
        shifted.diagonal().add_(penalty)
        solution = torch.cholesky_solve(right, torch.linalg.cholesky(shifted))
        weights.append(solution if primal else z.T @ solution)
    return weights


def accuracies(probes: Sequence[Probe], features: Tensor, labels: Tensor) -> list[float]:
    """The share of rows whose highest score is at their label, per probe."""
    return [_share(right) for right in right_answers(probes, features, labels)]


def right_answers(probes: Sequence[Probe], features: Tensor, labels: Tensor) -> Tensor:
    """Whether the highest score is at the label, per probe; one product scores all probes. Shapes: bool (probes, n)."""
    weight = torch.cat([probe.weight for probe in probes], dim=1)
    bias = torch.cat([probe.bias for probe in probes])
    rows_at_once = max(1, _SCORES_AT_ONCE // len(bias))
    parts = []
    for x, y in zip(features.split(rows_at_once), labels.cpu().split(rows_at_once), strict=True):
        scores = torch.addmm(bias, x.to("cpu", torch.float64), weight).unflatten(1, (len(probes), -1))
        parts.append((scores.argmax(dim=2) == y[:, None]).T)
    return torch.cat(parts, dim=1)


def _share(right: Tensor) -> float:
    return int(right.sum()) / right.numel()


def _unstandardised(weight: Tensor, mean: Tensor, scale: Tensor) -> Probe:
    raw = weight[:-1] / scale[:, None]
    return Probe(raw, _BIAS_FEATURE * weight[-1] - mean @ raw)


def _checked(features: Tensor, labels: Tensor, classes: int, part: str) -> Tensor:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        given = f"{tuple(features.shape)} with {tuple(labels.shape)} labels"
        raise ValueError(f"{part} features of shape {given} are not n x width with n labels, n at least 1")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"{part} labels run from {int(labels.min())} to {int(labels.max())}, outside 0..{classes - 1}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{part} features hold values that are not finite; the network that made them has diverged")
    return features.detach()
