"""Few-shot linear evaluation: a ridge regression on frozen features, solved in closed form.

Two protocols share one solver. The current one fixes the penalty and repeats the choice of examples over seeds; the
older one takes the first examples of each class and picks the penalty that ranks best over a whole group of data sets.

The answers are those of float64 on the CPU, and depend on the features alone, not on the device. Scores are computed in
float32 where the error of float32 cannot change the answer.

Source: the ViT paper, Sec. 4.1, names the method only; the details are those of big_vision's `fewshot_lsr` and, for the
older protocol, of scenic.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitexp.metrics import PROBE_PENALTY

SHOTS = (1, 5, 10, 25)
SEEDS = (0, 1, 2)
PENALTY = PROBE_PENALTY
OLDER_PENALTIES = tuple(2.0**power for power in range(-10, 20))

_BIAS_FEATURE = 100.0  # so large that the bias is almost free of the penalty
_SMALLEST_SCALE = 1e-5
_SCORES_AT_ONCE = 2**21  # 8 MiB of scores
_UNIT = 2.0**-24  # float32 rounds by at most this share
_UNDERFLOW = 1e-30  # far more than what float32 loses where it has no smaller number

Draws = dict[tuple[int, int | None], Tensor]
"""The training rows that a probe is fitted on, by (shots, seed); the seed None takes the first of each class."""


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
    fewer: bool = False,
) -> dict[tuple[int, int], float]:
    """Test accuracy (0 to 1) of a linear probe on frozen features, for each (shots, seed).

    `shots` are training images per class, drawn anew for each seed; averaging over seeds is left to the reader.
    With `fewer`, a class with fewer images than that gives all it has, as in big_vision.
    Shapes: train_x (n, D), train_y (n), test_x (m, D), test_y (m).

    >>> x, y = torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5)
    >>> fewshot_accuracy(x, y, x, y, shots=[5], seeds=[0], classes=4)
    {(5, 0): 1.0}

    Raises: ValueError when a class has fewer than max(shots) examples. Source: ViT paper, Sec. 4.1, and big_vision.
    """
    _checked(train_x, train_y, classes, "training")
    drawn = draws(train_y, classes, shots, seeds, fewer)
    answers = drawn_answers(drawn, train_x, train_y, test_x, test_y, classes=classes, penalty=penalty)
    return {(shots, int(seed or 0)): share(right) for (shots, seed), right in answers.items()}


def draws(
    labels: Tensor, classes: int, shots: Sequence[int], seeds: Sequence[int | None], fewer: bool = False
) -> Draws:
    """The training rows of each (shots, seed), by their labels alone. Shapes: labels (n) -> int64 (rows of a draw).

    Raises: ValueError when a class has fewer than max(shots) examples, unless `fewer` takes what it has.
    """
    drawn: Draws = {}
    for seed in seeds:
        order = stored_order(labels, classes) if seed is None else shuffled_order(labels, classes, seed)
        drawn |= {(count, seed): first_shots(order, count, fewer) for count in shots}
    return drawn


def drawn_answers(
    drawn: Draws,
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    classes: int,
    penalty: float = PENALTY,
) -> dict[tuple[int, int | None], Tensor]:
    """Whether each test image is answered rightly, for each draw of the training rows.

    Shapes: train_x (n, D), train_y (n), test_x (m, D), test_y (m) -> bool (m).
    """
    train_x, test_x = _checked(train_x, train_y, classes, "training"), _checked(test_x, test_y, classes, "test")
    probes = [fit_probes(train_x[rows], train_y[rows], classes, [penalty])[0] for rows in drawn.values()]
    return dict(zip(drawn, right_answers(probes, test_x, test_y), strict=True))


def accuracy_by_penalty(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    shots: Sequence[int] = SHOTS,
    classes: int,
    penalties: Sequence[float] = OLDER_PENALTIES,
    fewer: bool = False,
) -> dict[tuple[int, float], float]:
    """The older protocol on one data set: test accuracy for each (shots, penalty), by the first examples per class."""
    train_x, test_x = _checked(train_x, train_y, classes, "training"), _checked(test_x, test_y, classes, "test")
    results: dict[tuple[int, float], float] = {}
    for (count, _), rows in draws(train_y, classes, shots, [None], fewer).items():
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
    ends = np.bincount(found, minlength=classes).cumsum()
    return np.split(np.argsort(found, kind="stable"), ends)[:classes]


def first_shots(order: Sequence[np.ndarray], shots: int, fewer: bool = False) -> Tensor:
    """The first `shots` rows of every class, class by class, so that fewer shots are a part of more shots.

    With `fewer`, a class gives what it has. Raises: ValueError naming the class that has too few.
    """
    if shots < 1:
        raise ValueError(f"{shots} shots were asked for; a class gives at least 1")
    for label, rows in enumerate(order):
        if len(rows) < shots and not fewer:
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
    solved = solve_ridge(z, labels.cpu().long(), classes, penalties)
    return [_unstandardised(weight, mean, scale) for weight in solved]


def solve_ridge(z: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> list[Tensor]:
    """Weights that minimise |z w - targets|^2 + penalty |w|^2, through whichever Gram matrix of z is smaller.

    The targets are 1 at the label and -1 elsewhere. Shapes: z (n, d), labels (n); each result (d, classes).
    """
    if min(penalties) <= 0:
        raise ValueError(f"penalty {min(penalties)} is not above 0; the ridge regression needs a positive one")
    primal = z.shape[0] >= z.shape[1]
    if primal:  # z^T targets by the sums of z over each class: most of the cost of a matrix product
        gram, right = z.T @ z, (2 * z.new_zeros(classes, z.shape[1]).index_add_(0, labels, z) - z.sum(dim=0)).T
    else:
        gram, right = z @ z.T, 2.0 * torch.nn.functional.one_hot(labels, classes).to(z.dtype) - 1
    weights = []
    for penalty in penalties:
        shifted = gram.clone()
        shifted.diagonal().add_(penalty)
        solution = torch.cholesky_solve(right, torch.linalg.cholesky(shifted))
        weights.append(solution if primal else z.T @ solution)
    return weights


def accuracies(probes: Sequence[Probe], features: Tensor, labels: Tensor) -> list[float]:
    """The share of rows whose highest score is at their label, per probe."""
    return [share(right) for right in right_answers(probes, features, labels)]


def right_answers(probes: Sequence[Probe], features: Tensor, labels: Tensor) -> Tensor:
    """Whether the highest score is at the label, per probe; of equal scores the first. Shapes: bool (probes, n)."""
    rows_at_once = max(1, _SCORES_AT_ONCE // len(probes[0].bias))
    parts = list(zip(features.detach().cpu().split(rows_at_once), labels.cpu().long().split(rows_at_once), strict=True))
    return torch.stack([torch.cat([_right(probe, x, y) for x, y in parts]) for probe in probes])


def _rounds_as_float32() -> bool:
    """Whether a product in float32 is one: settings allow torch fewer digits, on processors that have them."""
    backend: Any = torch.backends.mkldnn
    return (
        backend.matmul.fp32_precision in ("none", "ieee")
        and not torch.is_autocast_enabled("cpu")
        and "DNNL_DEFAULT_FPMATH_MODE" not in os.environ
    )


def _right(probe: Probe, features: Tensor, labels: Tensor) -> Tensor:
    """In float32, and again in float64 where the label and the best other class are closer than the error of float32.

    A score is a sum of D + 1 products, whatever its order: Higham, "Accuracy and Stability of Numerical Algorithms",
    sec. 3.1; a few more roundings are those of features, weights and bias themselves.
    """
    x = features.float()
    scores = torch.addmm(probe.bias.float(), x, probe.weight.float())
    own = scores.gather(1, labels[:, None])[:, 0]
    lead = own - scores.scatter_(1, labels[:, None], -torch.inf).amax(dim=1)
    most = x.double().norm(dim=1) * probe.weight.norm(dim=0).max() + probe.bias.abs().max()
    error = 2 * 1.01 * (x.shape[1] + 8) * (_UNIT if _rounds_as_float32() else torch.inf) * most + _UNDERFLOW
    sure = (lead.abs() > error) & lead.isfinite()  # float32 cannot hold all that float64 can
    right, unsure = lead > 0, sure.logical_not().nonzero()[:, 0]
    if len(unsure):
        exact = torch.addmm(probe.bias, features[unsure].double(), probe.weight)
        right[unsure] = exact.argmax(dim=1) == labels[unsure]
    return right


def share(right: Tensor) -> float:
    """The share that is true."""
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
