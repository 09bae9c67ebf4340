import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits
from torch.utils.flop_counter import FlopCounterMode

from vitexp.eval import fewshot

CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    """Raw pixels of the digits as features: some of them are the same in all chosen images."""
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)
    return x[:1200], y[:1200], x[1200:], y[1200:]


def plain_rows(labels, shots, seed):
    """The choice of examples, written out: one generator, class after class."""
    generator, rows = np.random.default_rng(seed), []
    for label in range(CLASSES):
        shuffled = generator.permutation([i for i, found in enumerate(labels.tolist()) if found == label])
        rows += list(shuffled[:shots])
    return rows


def plain_scores(x, y, test_x, penalty):
    """Scores of the test rows by a plain float64 solve of the normal equations, whatever n and d are."""
    x, test_x = x.double().numpy(), test_x.double().numpy()
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-5
    z = np.hstack([(x - mean) / scale, np.full((len(x), 1), 100.0)])
    test_z = np.hstack([(test_x - mean) / scale, np.full((len(test_x), 1), 100.0)])
    targets = np.where(y.numpy()[:, None] == np.arange(CLASSES), 1.0, -1.0)
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ targets)
    return test_z @ weights


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shots", [1, 5, 10, 25])
def test_scores_and_accuracy_equal_a_plain_float64_solve(digits, shots, seed):
    x, y, test_x, test_y = digits
    rows = plain_rows(y, shots, seed)
    expected = plain_scores(x[rows], y[rows], test_x, 1024.0)
    probe = fewshot.fit_probes(x[rows], y[rows], CLASSES, [1024.0])[0]
    scores = (test_x.double() @ probe.weight + probe.bias).numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    found = fewshot.fewshot_accuracy(*digits, shots=[shots], seeds=[seed], classes=CLASSES)
    assert found == {(shots, seed): pytest.approx((expected.argmax(axis=1) == test_y.numpy()).mean(), abs=1e-12)}


def test_defaults_are_the_protocol_and_more_shots_help(digits):
    found = fewshot.fewshot_accuracy(*digits, classes=CLASSES)
    assert set(found) == {(shots, seed) for shots in (1, 5, 10, 25) for seed in (0, 1, 2)}
    means = [np.mean([found[shots, seed] for seed in range(3)]) for shots in (1, 5, 10, 25)]
    assert means == sorted(means)
    assert 0.3 < means[0] < 0.7 < means[3] < 1


@pytest.mark.parametrize("seed", [0, 7])
def test_shots_are_chosen_class_by_class_from_one_generator_and_are_nested(digits, seed):
    labels = digits[1]
    order = fewshot.shuffled_order(labels, CLASSES, seed)
    for shots in (1, 5, 25):
        assert fewshot.first_shots(order, shots).tolist() == plain_rows(labels, shots, seed)
    few, many = fewshot.first_shots(order, 5).tolist(), fewshot.first_shots(order, 10).tolist()
    assert set(few) < set(many)
    assert labels[few].bincount().tolist() == [5] * CLASSES
    assert fewshot.first_shots(fewshot.shuffled_order(labels, CLASSES, seed + 1), 5).tolist() != few


@pytest.mark.parametrize("rows", [3, 8, 9, 10, 40])
def test_both_gram_matrices_give_the_same_weights(rows):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (rows,), generator=generator)
    targets = torch.where(labels[:, None] == torch.arange(4), 1.0, -1.0).double()
    for penalty, weights in zip([0.5, 1024.0], fewshot.solve_ridge(z, labels, 4, [0.5, 1024.0]), strict=True):
        expected = np.linalg.solve((z.T @ z).numpy() + penalty * np.eye(9), (z.T @ targets).numpy())
        np.testing.assert_allclose(weights.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("rows", "width"), [(200, 3), (3, 200)])
def test_the_smaller_gram_matrix_is_the_one_computed(rows, width):
    with FlopCounterMode(display=False) as counter:
        fewshot.solve_ridge(torch.ones(rows, width).double(), torch.arange(rows) % 2, 2, [1.0])
    assert counter.get_total_flops() <= 2 * 200 * 3 * (3 + 2 + 2)


def test_a_feature_that_never_varies_in_the_chosen_rows_says_nothing(digits):
    x, y, test_x, _ = digits
    rows = plain_rows(y, 10, 0)
    constant = torch.full((len(x), 1), 0.1)
    probe = fewshot.fit_probes(torch.cat([x, constant], dim=1)[rows], y[rows], CLASSES, [1024.0])[0]
    alone = fewshot.fit_probes(x[rows], y[rows], CLASSES, [1024.0])[0]
    wild = torch.cat([test_x, torch.full((len(test_x), 1), 1e4)], dim=1).double()
    difference = wild @ probe.weight + probe.bias - (test_x.double() @ alone.weight + alone.bias)
    assert difference.abs().max() < 1e-6


def test_accuracy_does_not_depend_on_how_many_rows_are_scored_at_once(digits, monkeypatch):
    whole = fewshot.fewshot_accuracy(*digits, shots=[5], seeds=[0, 1], classes=CLASSES)
    monkeypatch.setattr(fewshot, "_SCORES_AT_ONCE", 7 * 2 * CLASSES)
    assert fewshot.fewshot_accuracy(*digits, shots=[5], seeds=[0, 1], classes=CLASSES) == whole


def close_scores(features=1.0, weights=1.0):
    """Probes whose classes come in pairs that are closer than float32 tells apart; and the answers of NumPy's float64.

    Pairs differ by 1e-9 of a weight, images by their label being the better or the worse of its pair.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 20, generator=generator, dtype=torch.float64).repeat_interleave(2, dim=1)
    weight[:, 1::2] += 1e-9 * torch.randn(32, 20, generator=generator, dtype=torch.float64)
    x = torch.randn(500, 32, generator=generator).float() * features
    probe = fewshot.Probe(weights * weight, weights * torch.randn(40, generator=generator, dtype=torch.float64) * 1e-12)
    best = (x.double().numpy() @ probe.weight.numpy() + probe.bias.numpy()).argmax(axis=1)
    labels = torch.from_numpy(np.where(np.arange(500) % 3 == 0, best ^ 1, best))
    return probe, x, labels, best == labels.numpy()


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1e25, 1e25), (1e-25, 1e-25), (1e25, 1e-25)])
def test_answers_are_those_of_float64_where_float32_cannot_tell(scale):
    probe, x, labels, right = close_scores(*scale)
    assert fewshot.right_answers([probe, probe], x, labels).tolist() == [right.tolist()] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert fewshot.right_answers([probe], x, labels).tolist() == [right.tolist()]


def test_answers_do_not_follow_the_precision_that_products_are_allowed(digits, monkeypatch):
    """Nor do they where scores are far apart for float32, and near for fewer digits."""
    x, y, test_x, test_y = digits
    rows = plain_rows(y, 5, 0)
    (probe,) = fewshot.fit_probes(x[rows], y[rows], CLASSES, [1024.0])
    expected = plain_scores(x[rows], y[rows], test_x, 1024.0).argmax(axis=1) == test_y.numpy()
    product = torch.addmm

    def coarse(bias, left, right):  # what processors with coarser products do with float32, and more of it
        if left.dtype == torch.float64:
            return product(bias, left, right)
        return product(bias, left.to(torch.float8_e5m2).float(), right.to(torch.float8_e5m2).float())

    monkeypatch.setattr(torch, "addmm", coarse)
    assert fewshot.right_answers([probe], test_x, test_y)[0].tolist() != expected.tolist()
    with torch.autocast("cpu", torch.bfloat16):
        assert fewshot.right_answers([probe], test_x, test_y)[0].tolist() == expected.tolist()
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    assert fewshot.right_answers([probe], test_x, test_y)[0].tolist() == expected.tolist()
    monkeypatch.delenv("DNNL_DEFAULT_FPMATH_MODE")
    allowed = torch.backends.mkldnn.matmul.fp32_precision
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert fewshot.right_answers([probe], test_x, test_y)[0].tolist() == expected.tolist()
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = allowed


def test_almost_all_images_are_scored_in_float32(digits):
    x, y, test_x, test_y = digits
    with pytest.MonkeyPatch.context() as patch:
        scored, product = [], torch.addmm
        patch.setattr(torch, "addmm", lambda b, x, w: scored.append((x.dtype, len(x))) or product(b, x, w))
        fewshot.fewshot_accuracy(x, y, test_x, test_y, shots=[5], seeds=[0], classes=CLASSES)
    assert sum(images for kind, images in scored if kind == torch.float32) == len(test_y)
    assert sum(images for kind, images in scored if kind == torch.float64) < 0.02 * len(test_y)


def test_a_class_gives_what_it_has_where_that_is_asked_for(digits):
    """Draws of the others stay, and of this class all three images are taken in each."""
    x, y, test_x, test_y = digits
    keep = (y != 7) | (torch.cumsum(y == 7, dim=0) <= 3)
    x, y = x[keep], y[keep]
    rows = plain_rows(y, 5, 1)
    assert len(rows) == 48
    assert fewshot.draws(y, CLASSES, [5], [1], fewer=True)[5, 1].tolist() == rows
    ask = {"shots": [5], "classes": CLASSES, "fewer": True}
    right = plain_scores(x[rows], y[rows], test_x, 1024.0).argmax(axis=1) == test_y.numpy()
    found = fewshot.fewshot_accuracy(x, y, test_x, test_y, seeds=[1], **ask)
    assert found == {(5, 1): pytest.approx(right.mean(), abs=1e-12)}
    rows = [row for label in range(CLASSES) for row in np.flatnonzero(y.numpy() == label)[:5]]
    right = plain_scores(x[rows], y[rows], test_x, 1.0).argmax(axis=1) == test_y.numpy()
    found = fewshot.accuracy_by_penalty(x, y, test_x, test_y, penalties=[1.0], **ask)
    assert found == {(5, 1.0): pytest.approx(right.mean(), abs=1e-12)}
    absent = y != 7
    assert len(fewshot.draws(y[absent], CLASSES, [5], [0], fewer=True)[5, 0]) == 45


def test_half_precision_features_are_probed_in_float64(digits):
    x, y, test_x, test_y = digits
    halves = (x.bfloat16(), y, test_x.bfloat16(), test_y)
    assert fewshot.fewshot_accuracy(*halves, classes=CLASSES) == fewshot.fewshot_accuracy(*digits, classes=CLASSES)


def test_the_older_protocol_takes_the_first_examples_for_every_penalty(digits):
    x, y, test_x, test_y = digits
    found = fewshot.accuracy_by_penalty(*digits, shots=[5], classes=CLASSES)
    rows = [row for label in range(CLASSES) for row in np.flatnonzero(y.numpy() == label)[:5]]
    assert sorted({penalty for _, penalty in found}) == [2.0**power for power in range(-10, 20)]
    for penalty in (2.0**-10, 1.0, 2.0**19):
        scores = plain_scores(x[rows], y[rows], test_x, penalty)
        assert found[5, penalty] == pytest.approx((scores.argmax(axis=1) == test_y.numpy()).mean(), abs=1e-12)


def test_the_older_protocol_picks_the_penalty_with_the_best_mean_rank():
    accuracies = {"a": [0.1, 0.9, 0.8, 0.2], "b": [0.3, 0.5, 0.6, 0.4], "c": [0.2, 0.3, 0.9, 0.8]}
    penalties = [0.5, 1.0, 2.0, 4.0]
    results = {
        name: {(5, penalty): value for penalty, value in zip(penalties, row, strict=True)}
        for name, row in accuracies.items()
    }
    ranks = np.mean([scipy.stats.rankdata(row, method="ordinal") for row in accuracies.values()], axis=0)
    assert ranks.tolist() == [1, 3, 11 / 3, 7 / 3]
    assert fewshot.best_penalties(results) == {5: 2.0}


def test_equal_mean_ranks_go_to_the_smaller_penalty():
    results = {"a": {(1, 2.0): 0.5, (1, 1.0): 0.4}, "b": {(1, 2.0): 0.4, (1, 1.0): 0.5}}
    assert fewshot.best_penalties(results) == {1: 1.0}
    with pytest.raises(ValueError, match="a, b have different"):
        fewshot.best_penalties({"a": {(1, 1.0): 0.5}, "b": {(5, 1.0): 0.5}})


def test_a_class_with_too_few_examples_is_named(digits):
    x, y, test_x, test_y = digits
    keep = (y != 7) | (torch.cumsum(y == 7, dim=0) <= 3)
    with pytest.raises(ValueError, match="class 7 has 3 training examples, fewer than the 5 shots"):
        fewshot.fewshot_accuracy(x[keep], y[keep], test_x, test_y, shots=[5], seeds=[0], classes=CLASSES)
    with pytest.raises(ValueError, match="class 10 has 0 training examples"):
        fewshot.fewshot_accuracy(*digits, shots=[1], seeds=[0], classes=11)


def test_bad_input_is_refused(digits):
    x, y, test_x, test_y = digits
    ask = {"shots": [1], "seeds": [0], "classes": CLASSES}
    with pytest.raises(ValueError, match=r"test labels run from 0 to 9, outside 0\.\.4"):
        fewshot.fewshot_accuracy(x[y < 5], y[y < 5], test_x, test_y, **(ask | {"classes": 5}))
    with pytest.raises(ValueError, match="not finite"):
        fewshot.fewshot_accuracy(x.log().log(), y, test_x, test_y, **ask)
    with pytest.raises(ValueError, match="training features of shape"):
        fewshot.fewshot_accuracy(x, y[:5], test_x, test_y, **ask)
    with pytest.raises(ValueError, match=r"penalty 0\.0 is not above 0"):
        fewshot.fewshot_accuracy(*digits, penalty=0.0, **ask)
    with pytest.raises(ValueError, match="0 shots"):
        fewshot.fewshot_accuracy(*digits, **(ask | {"shots": [0]}))
