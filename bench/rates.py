"""How often the statistics err, on simulated studies whose truth is known: coverage, error and power, old and new.

    python bench/rates.py                 (about 15 minutes on 2 cores; --studies 200 for a look)

A simulated study has 8 arms, a baseline among them, in two metrics, and every run answers every image: right where
level + seed + image + image x arm + rest > 0, all normal. Seeds and images are crossed, as in a study. `new` is
`vitexp.stats`; `old` is what the tables printed before: Student's interval over seeds, paired t-tests with Holm's
correction, two one-sided tests. A verdict is an error where it is wrong of the images that the intervals are about.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
from scipy import special

from vitexp import stats

IMAGE, INTERACTION, REST, LEVEL = 4.0, 1.0, 1.0, 0.92
"""Standard deviations on the scale of the answers, and the accuracy of the baseline."""
MARGIN, CHANCE, METRICS = 0.02, 0.1, 2
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class World:
    """How studies come about. `effects` are differences in accuracy to the baseline, which is the first arm.

    `sd` is that of a paired difference on 359 images, `spreads` its factors arm by arm, `collapse` the share of runs
    that do not train, `common` the seeds' common effect in units of their own.
    """

    n: int = 5
    images: int = 359
    effects: tuple[float, ...] = (0.0,) * 8
    sd: float = 0.015
    spreads: tuple[float, ...] = (1.0,) * 8
    collapse: float = 0.0
    common: float = 0.0

    def draw(self, draw: np.random.Generator) -> "Drawn":
        """One study."""
        arms = len(self.effects)
        own = np.array([_seed_sd(self.sd, LEVEL + effect) for effect in self.effects]) * np.array(self.spreads)
        total = np.sqrt(own**2 + (self.common * own[0]) ** 2 + REST**2)
        place = special.ndtri(LEVEL + np.array(self.effects)) * np.sqrt(total**2 + IMAGE**2 + INTERACTION**2)
        seeds, hard = draw.normal(size=(arms, self.n)), draw.normal(size=self.images)
        lost = draw.random((arms, self.n)) < self.collapse
        metrics, these = [], []
        for metric in range(METRICS):  # correlated: the same runs and images, looked at in another way
            run = seeds if not metric else 0.7 * seeds + np.sqrt(0.51) * draw.normal(size=seeds.shape)
            image = hard if not metric else 0.8 * hard + 0.6 * draw.normal(size=hard.shape)
            at = place[:, None] + IMAGE * image + INTERACTION * draw.normal(size=(arms, self.images))
            effect = own[:, None] * run + self.common * own[0] * draw.normal(size=self.n)
            noise = REST * draw.normal(size=(arms, self.n, self.images))
            right = at[:, None] + effect[..., None] + noise > 0
            right[lost] = draw.random((int(lost.sum()), self.images)) < CHANCE
            metrics.append(right)
            these.append(special.ndtr(at / total[:, None]).mean(1))
        return Drawn(metrics, lost, these, LEVEL + np.array(self.effects))


@dataclass(frozen=True)
class Drawn:
    """Right answers by metric, shape (arms, seeds, images); which runs collapsed; the true accuracies of the arms."""

    metrics: list[np.ndarray]
    lost: np.ndarray
    these: list[np.ndarray]
    such: np.ndarray

    def truth(self, metric: int, images: bool) -> np.ndarray:
        """Accuracies, given that a run trains: on images like these, or on exactly these."""
        return self.such if images else self.these[metric]


@cache
def _seed_sd(sd: float, level: float, images: int = 359) -> float:
    """The seeds' standard deviation at which a difference of two arms of this level has the deviation `sd`."""

    def found(own: float) -> float:
        total = np.hypot(own, REST)
        place = special.ndtri(level) * np.sqrt(total**2 + IMAGE**2 + INTERACTION**2)
        spread = np.hypot(IMAGE, INTERACTION)
        at = place + spread * _NODES
        means = special.ndtr((at[:, None] + own * _NODES) / REST)  # image x seed
        of_seeds = float(_WEIGHTS @ (_WEIGHTS @ means - _WEIGHTS @ means @ _WEIGHTS) ** 2)
        rest = float(_WEIGHTS @ (means * (1 - means)) @ _WEIGHTS) / images
        return float(np.sqrt(2 * (of_seeds + rest)))

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < sd else (low, middle)
    return (low + high) / 2


@dataclass
class Told:
    """What a procedure says: intervals of levels and differences, and verdicts; None where it says nothing."""

    levels: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    differences: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    different: dict[tuple[int, int], int] = field(default_factory=dict)
    within: set[tuple[int, int]] = field(default_factory=set)


def new(drawn: Drawn, images: bool) -> Told:
    """Ours."""
    told, asked = Told(), {}
    for metric, right in enumerate(drawn.metrics):
        samples = [
            stats.Sample(
                values={s: float(right[arm, s].mean()) for s in np.flatnonzero(~drawn.lost[arm])},
                answers={s: (right[arm, s],) for s in np.flatnonzero(~drawn.lost[arm])},
                images="these",
                pool=metric,
            )
            for arm in range(len(right))
        ]
        for arm, sample in enumerate(samples):
            if len(sample.values) > 1 and (level := stats.level(sample, images)).low is not None:
                told.levels[metric, arm] = level.low, level.high or 0.0
            if arm and set(sample.values) & set(samples[0].values):
                lost = bool(drawn.lost[[0, arm]].any())
                contrast = stats.Contrast(weights={sample: 1.0, samples[0]: -1.0})
                asked[metric, arm] = stats.Asked(contrast=contrast, margin=MARGIN, unstable=lost)
    for key, one in stats.judge(asked, images=images).items():
        if one.low is not None and one.high is not None:
            told.differences[key] = one.low, one.high
            told.different[key] = int(np.sign(one.mean)) * one.is_different
            told.within |= {key} if one.is_within(MARGIN) else set()
    return told


def old(drawn: Drawn, images: bool) -> Told:
    """What was printed before: it knew neither images nor collapse."""
    told, ps, equal = Told(), {}, {}
    for metric, right in enumerate(drawn.metrics):
        values = right.mean(-1)
        n = values.shape[1]
        t = -special.stdtrit(n - 1, 0.025)
        for arm in range(len(values)):
            half = t * values[arm].std(ddof=1) / np.sqrt(n)
            told.levels[metric, arm] = values[arm].mean() - half, values[arm].mean() + half
            if arm:
                difference = values[arm] - values[0]
                mean, error = difference.mean(), max(difference.std(ddof=1), 1e-12) / np.sqrt(n)
                told.differences[metric, arm] = mean - t * error, mean + t * error
                ps[metric, arm] = 2 * special.stdtr(n - 1, -abs(mean) / error), np.sign(mean)
                equal[metric, arm] = special.stdtr(n - 1, -(MARGIN - abs(mean)) / error), 1
    for tests, say in ((ps, lambda key, sign: told.different.update({key: int(sign)})),
                       (equal, lambda key, _: told.within.add(key))):  # fmt: skip
        ranked = sorted(tests.items(), key=lambda item: item[1][0])
        for rank, (key, (p, sign)) in enumerate(ranked):
            if p * (len(ranked) - rank) > 0.05:
                break
            say(key, sign)
    return told


def measure(world: World, images: bool, seed: int) -> dict[str, dict[str, tuple[float, float]]]:
    """One study: for each procedure the counts of hits and of what was asked, by what is measured."""
    drawn = world.draw(np.random.default_rng(seed))
    found = {}
    for name, procedure in (("old", old), ("new", new)):
        told = procedure(drawn, images)
        true = [drawn.truth(metric, images) for metric in range(METRICS)]
        level = [low <= true[m][arm] <= high for (m, arm), (low, high) in told.levels.items()]
        gaps = {(m, arm): true[m][arm] - true[m][0] for m, arm in told.differences}
        covered = [low <= gaps[key] <= high for key, (low, high) in told.differences.items()]
        wrong = any(said and said != np.sign(round(gaps[key], 12)) for key, said in told.different.items())
        wrong |= any(abs(gaps[key]) >= MARGIN for key in told.within)
        planted = [(0, arm) for arm, effect in enumerate(world.effects) if effect == -0.04]
        shown = [told.different.get(key, 0) == -1 for key in planted]
        found[name] = {
            "levels": (sum(level), len(level)),
            "joint": (all(covered) and bool(covered), bool(covered)),
            "error": (wrong, 1),
            "power": (sum(shown), len(shown)),
        }
    return found


TRIPLE, HALVES = (1.0,) * 7 + (3.0,), tuple(np.geomspace(0.5, 2.0, 8))
README = (0.0, -0.187, 0.002, -0.012, -0.051, -0.052, -0.048, -0.010)
PLANTED = (0.0,) * 7 + (-0.04,)
SCENARIOS: dict[str, World] = {
    "nothing differs": World(),
    "one arm of triple spread": World(spreads=TRIPLE),
    "a baseline of triple spread": World(spreads=TRIPLE[::-1]),
    "spreads from half to double": World(spreads=HALVES),
    "one run in ten does not train": World(collapse=0.1),
    "seeds in common": World(common=2.0),
    "differences as in README": World(effects=README),
}
POWERS = [(0.015, 359), (0.02, 359), (0.015, 2000), (0.015, 10_000)]


def asked(measured: str, n: int) -> tuple[float, float] | None:
    """The range that a rate must lie in."""
    if measured == "levels":
        return (0.93, 0.97) if n >= 5 else (0.90, 1.0)
    if measured == "joint":
        return (0.945, 1.0) if n >= 5 else (0.93, 1.0)
    return (0.0, 0.05 if n >= 5 else 0.07) if measured == "error" else None


def simulate(world: World, images: bool, studies: int, pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Rates with their Monte Carlo errors."""
    each = list(pool.map(measure, repeat(world), repeat(images), range(studies), chunksize=20))
    rates: dict[str, dict[str, Any]] = {}
    for name in ("old", "new"):
        for what in ("levels", "joint", "error", "power"):
            hits, of = (sum(one[name][what][place] for one in each) for place in (0, 1))
            if of:
                rate = hits / of
                known = min(of, studies)  # answers within a study are not independent
                rates.setdefault(what, {})[name] = rate, float(np.sqrt(max(rate * (1 - rate), 1 / known) / known))
    return rates


def rows(chosen: argparse.Namespace, pool: ProcessPoolExecutor) -> Iterator[dict[str, Any]]:
    """Every scenario at every number of seeds; then the power of five seeds."""
    for n in chosen.n:
        for name, world in SCENARIOS.items():
            for images in (False, True):
                rates = simulate(replace(world, n=n), images, chosen.studies, pool)
                for what in ("levels", "joint", "error"):
                    yield _row(rates[what], n, name, images, what, asked(what, n))
    for sd, count in POWERS:
        for images in (False, True):
            rates = simulate(World(effects=PLANTED, sd=sd, images=count), images, chosen.studies, pool)
            where = f"-4 points, sd {100 * sd:g}, {count:,} images"
            goal = (0.9, 1.0) if (sd, count, images) == (0.015, 359, False) else None
            yield _row(rates["power"], 5, where, images, "power", goal)


def _row(
    rate: Mapping[str, tuple[float, float]],
    n: int,
    scenario: str,
    images: bool,
    measured: str,
    goal: tuple[float, float] | None,
) -> dict[str, Any]:
    value, error = rate["new"]
    missed = goal is not None and not goal[0] - 2 * error <= value <= goal[1] + 2 * error
    about = "images like these" if images else "these images"
    named = {"n": n, "scenario": scenario, "about": about, "measured": measured}
    return {**named, "old": rate["old"][0], "new": value, "error": error, "asked": goal, "missed": missed}


def main() -> int:
    """Prints the table; exit status 1 where a rate lies outside what is asked by more than two standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies a row (default: 1000)")
    parser.add_argument("--n", type=int, nargs="+", default=[3, 5, 10, 20], help="seeds (default: 3 5 10 20)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", help="write the rows here too")
    chosen = parser.parse_args()
    print("| seeds | scenario | intervals about | measured | old | new | asked |\n|---|---|---|---|---|---|---|")
    every = []
    with ProcessPoolExecutor(chosen.workers) as pool:
        for row in rows(chosen, pool):
            every.append(row)
            goal = "" if row["asked"] is None else "{:g} to {:g}".format(*row["asked"])
            told = f"{row['old']:.3f} | {row['new']:.3f} ± {row['error']:.3f} | {goal}{' missed' * row['missed']}"
            print(f"| {row['n']} | {row['scenario']} | {row['about']} | {row['measured']} | {told} |", flush=True)
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(every, file, indent=1)
    return int(any(row["missed"] for row in every))


if __name__ == "__main__":
    sys.exit(main())
