"""How often is a healthy run said not to have trained, and a collapse not seen? Simulated trainings of many kinds.

    python bench/trained.py            # 1,000 healthy runs and 200 collapses of each kind, in half a minute

A network gives an image its class with more or less confidence, and is wrong on some; its loss over the first and over
the last tenth of the steps is the mean over the images that it happens to see then. Nothing here knows how
`why_untrained` decides. Exit status 1 for more than one false alarm in 1,000.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy import special

from vitexp.record import RunRecord
from vitexp.study.trained import why_untrained

SURE = 0.9999


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of training; ranges are those from which each run draws."""

    shares: tuple[float, ...] = (0.1,) * 10
    """Of the classes"""
    smoothing: float = 0.0
    mixup: float = 0.0
    """The parameter of its beta distribution"""
    seen: int = 1000
    """Images in a tenth of the steps"""
    begin: float = 0.05
    end: tuple[float, float] = (0.5, 0.95)
    """Confidence in the first and in the last tenth: from 0, which guesses, to 1"""
    wrong: tuple[float, float] = (0.02, 0.3)
    """Share of the images that it gets wrong at the end"""
    init: str | None = None
    val: int = 500
    """Validation images"""
    objective: str = "classify"


def tail(count: int, ratio: float) -> tuple[float, ...]:
    """Shares of which the first is `ratio` times the last."""
    falling = ratio ** -np.linspace(0, 1, count)
    return tuple(falling / falling.sum())


NEAR = {"init": "weights.npz", "begin": 0.9, "end": (0.9, 0.92)}
KINDS = {
    "ten classes": Kind(),
    "a thousand classes, little learned": Kind(shares=(0.001,) * 1000, end=(0.1, 0.3), wrong=(0.4, 0.7)),
    "two classes": Kind(shares=(0.5, 0.5), end=(0.3, 0.9), wrong=(0.05, 0.3)),
    "long tail, 1 to 100": Kind(shares=tail(10, 100)),
    "long tail, 1 to 1,000, 100 classes": Kind(shares=tail(100, 1000), wrong=(0.1, 0.4)),
    "nine of ten are of one class": Kind(shares=(0.9, 0.1), end=(0.7, 0.98), wrong=(0.01, 0.04)),
    "almost no noise": Kind(end=(0.99, SURE), wrong=(0.0, 0.0005)),
    "label smoothing 0.3": Kind(smoothing=0.3),
    "label smoothing 0.9": Kind(smoothing=0.9),
    "label smoothing 0.9, no validation": Kind(smoothing=0.9, val=0),
    "mixup": Kind(mixup=1.0),
    "mixup, smoothing 0.2, two classes": Kind(shares=(0.5, 0.5), smoothing=0.2, mixup=1.0, wrong=(0.05, 0.2)),
    "short: 64 images a tenth": Kind(seen=64, end=(0.3, 0.6)),
    "from weights, near its end": Kind(**NEAR, wrong=(0.05, 0.06)),
    "from weights, long tail": Kind(**NEAR, shares=tail(10, 100)),
    "from weights, smoothing 0.8, no validation": Kind(**NEAR, smoothing=0.8, val=0),
    # whose loss of guessing nobody knows: of collapses only those that rise are seen
    "from weights, masked patches": Kind(**NEAR, objective="masked_mean", wrong=(0.3, 0.31)),
}
COLLAPSES = ("NaN", "diverged", "never left its start", "one answer", "lost what it had learned")


def loss(kind: Kind, confidence: float, wrong: float, draw: np.random.Generator) -> float:
    """The mean training loss over a tenth of the steps."""
    shares, n, smooth = np.asarray(kind.shares), kind.seen, kind.smoothing
    count, sure = len(shares), min(confidence, SURE)
    labels = np.searchsorted(np.cumsum(shares)[:-1], draw.random((2, n)))  # of an image, and of the one mixed into it
    found = np.where(draw.random((2, n)) < wrong, draw.integers(count, size=(2, n)), labels)
    part = draw.beta(kind.mixup, kind.mixup, n) if kind.mixup else np.ones(n)
    parts = np.stack([part, 1 - part])
    base = (1 - sure) * (shares * (1 - smooth) + smooth / count) + sure * smooth / count
    peaks = sure * (1 - smooth) * parts
    peaks[:, found[0] == found[1]] = sure * (1 - smooth)  # both are the same class
    given = np.stack([base[own] + np.where(own == found, peaks, 0).max(0) for own in labels])
    each = (1 - smooth) * (parts * np.log(given)).sum(0)
    raised = np.log1p(peaks / base[found])
    all_classes = np.log(base).sum() + np.where(found[0] == found[1], raised[0], raised.sum(0))
    return -float((each + smooth / count * all_classes).mean())


def record(kind: Kind, start: float, end: float, right: float, draw: np.random.Generator) -> RunRecord:
    """What such a run leaves; `right` is its accuracy."""
    shares = np.asarray(kind.shares)
    smoothed = shares * (1 - kind.smoothing) + kind.smoothing / len(shares)
    chance = {"chance_acc": float(shares.max()), "chance_loss": float(special.entr(smoothed).sum())}
    judged = kind.objective == "classify"
    return RunRecord(
        study="s", cell="c", seed=0, fingerprint="f", status="finished", steps=100,
        config={
            "model": {"label_smoothing": kind.smoothing, "objective": kind.objective}, "run": {"init": kind.init},
        },
        learning={"train_loss_start": start, "train_loss_end": end} | (chance if judged else {}),
        data={"classes": len(shares), "test_images": 1000, "val_images": kind.val},
        metrics={"val_acc": draw.binomial(kind.val, right) / kind.val} if kind.val and judged else {},
    )  # fmt: skip


def healthy(kind: Kind, draw: np.random.Generator) -> RunRecord:
    """A run that trained."""
    wrong = draw.uniform(*kind.wrong)
    start = loss(kind, kind.begin, wrong if kind.init else 0.9, draw)
    return record(kind, start, loss(kind, draw.uniform(*kind.end), wrong, draw), 1 - wrong, draw)


def collapsed(kind: Kind, how: str, draw: np.random.Generator) -> RunRecord:
    """A run that did not."""
    guessing = loss(kind, 0.0, 0.0, draw)
    start = loss(kind, 0.3, 0.3, draw) if how == "lost what it had learned" else guessing * draw.uniform(1.0, 1.3)
    ends = {"NaN": np.nan, "diverged": start * draw.uniform(1.5, 100), "never left its start": start}
    end = ends.get(how, loss(kind, 0.0, 0.0, draw) * draw.uniform(1.0, 1.01))
    return record(kind, start, end, max(kind.shares), draw)


def false_alarms(kind: Kind, runs: int, draw: np.random.Generator) -> Counter[str]:
    """What is said of healthy runs."""
    return Counter(why for _ in range(runs) if (why := why_untrained(healthy(kind, draw))))


def missed(kind: Kind, how: str, runs: int, draw: np.random.Generator) -> int:
    """Collapses of which nothing is said."""
    return sum(not why_untrained(collapsed(kind, how, draw)) for _ in range(runs))


def main() -> int:
    """Prints a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="healthy runs of each kind (default: 1000)")
    runs = parser.parse_args().runs
    few, draw, alarms = max(1, runs // 5), np.random.default_rng(0), 0
    print(f"| kind | false alarms in {runs:,} | missed in {few:,}: {' | '.join(COLLAPSES)} |\n|---|---|{'---|' * 5}")
    for name, kind in KINDS.items():
        said = false_alarms(kind, runs, draw)
        alarms += said.total()
        lost = [missed(kind, how, few, draw) for how in COLLAPSES]
        print(f"| {name} | {said.total()} | {' | '.join(map(str, lost))} |", *list(said)[:1], flush=True)
    print(f"{alarms} false alarms in {runs * len(KINDS):,} healthy runs")
    return int(alarms > runs * len(KINDS) / 1000)


if __name__ == "__main__":
    sys.exit(main())
