"""Which arms of a study are compared with which, and why others are not."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np

from vitexp import metrics
from vitexp.axes import factor_of
from vitexp.record import RunRecord, flatten, result_config
from vitexp.study.arm import Arm, spelling, unstudied_differences
from vitexp.study.cells import SEED
from vitexp.study.claims.families import is_resnet
from vitexp.study.spec import StudyConfig

# Which comparisons of a study change more than one factor at once, where no other arm tells the factors apart.
# A factor is aliased when no two arms differ in it alone. A comparison of two arms is confounded when they differ in
# several factors and no chain of arms leads from one to the other that changes one factor at a time and takes no
# other values than theirs. Factors that go together (`study.together`) count as one, tuned ones (`study.tune`) and
# the seed as none, and neither does a value that an arm cannot choose, such as the place of a position embedding that
# is none.

Values = Mapping[str, Any]
"""The value of each factor of an arm; `BOUND` where it could have no other."""
BOUND = "(bound)"
_NOT_FOR_RESNETS = {
    f"model.{name}"
    for name in (
        *("pos_embed", "pos_at", "pos_std", "pool", "attention", "window", "dropout", "registers", "block", "norm"),
        *("mlp", "qk_norm", "layer_scale", "drop_path", "patch_dropout", "pos_join"),
    )
}
_NOT_LEARNED = ("none", "sincos2d", "rope", "rope_mixed", "alibi")
_TABLES = ("1d", "2d", "sincos2d")
_COUNT_ALTHOUGH_NEUTRAL = ("data.shards",)
"""Where data lie cannot change a number, but a study that lists several sets compares them."""


def factors(keys: Iterable[str], config: StudyConfig) -> list[str]:
    """Of the keys that a study varies, those by which its arms are compared."""
    compared = [key for key in keys if key != SEED and key not in config.tune and key.split(".")[0] != "study"]
    return [key for key in compared if key in _COUNT_ALTHOUGH_NEUTRAL or key in result_config({key: 0})]


def arm_of(config: Mapping[str, Any], asked: Mapping[str, Any], keys: Sequence[str]) -> Values:
    """The arm of a run by its resolved `config`; `asked` is what the study sets, in dotted keys."""
    flat = {**asked, **flatten(config)}
    return {key: BOUND if _bound(key, flat, asked) else spelling(flat.get(key)) for key in keys}


@dataclass(frozen=True)
class Alias:
    """Factors of which the first ones never change alone, but with others among `keys`."""

    never_alone: tuple[str, ...]
    keys: tuple[str, ...]

    def __str__(self) -> str:
        others = [key for key in self.keys if key not in self.never_alone]
        verb = "change" if len(self.never_alone) > 1 else "changes"
        return f"{' and '.join(self.never_alone)} never {verb} alone, but with {' and '.join(others) or 'each other'}"


def aliases(arms: Sequence[Values], config: StudyConfig) -> list[Alias]:
    """The factors that no two arms separate from others."""

    def changes() -> Iterator[dict[str, list[str]]]:
        return (_differing(one, other, config) for one, other in combinations(arms, 2))

    alone = {factor for changed in changes() if len(changed) == 1 for factor in changed}
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for factor in dict.fromkeys(_together(key, config) for arm in arms[:1] for key in arm):
        if factor not in alone and (tied := [changed for changed in changes() if factor in changed]):
            nearest = min(tied, key=len)
            found[tuple(sorted(key for keys in nearest.values() for key in keys))] += nearest[factor]
    return [Alias(tuple(sorted(never)), keys) for keys, never in found.items()]


class Between:
    """Which of some arms take no other values than those of two; asked of the same arms again and again."""

    def __init__(self, arms: Sequence[Values]) -> None:
        self.arms = arms
        self._held = np.array([list(arm.values()) for arm in arms])

    def __call__(self, one: Values, other: Values) -> list[Values]:
        """The arms in their order, where each value is that of one, that of the other, or bound."""
        fits = [self._held == np.array(list(arm.values())) for arm in (one, other, dict.fromkeys(one, BOUND))]
        return [arm for arm, fit in zip(self.arms, np.any(fits, axis=0).all(axis=1), strict=True) if fit]


def confounded(one: Values, other: Values, between: Between, config: StudyConfig) -> list[str]:
    """The factors that a comparison of two arms cannot tell apart; none where it changes one or other arms do."""
    changed = _differing(one, other, config)
    if len(changed) < 2:
        return []
    steps, reached, edge = [*between(one, other), other], [one], [one]
    while edge:
        here = edge.pop()
        nexts = [arm for arm in steps if arm not in reached and len(_differing(here, arm, config)) <= 1]
        reached += nexts
        edge += nexts
    return [] if other in reached else sorted(key for keys in changed.values() for key in keys)


def _differing(one: Values, other: Values, config: StudyConfig) -> dict[str, list[str]]:
    """The keys in which two arms differ, by the factor that they belong to."""
    found = defaultdict(list)
    for key, value in one.items():
        if value != other[key] and BOUND not in (value, other[key]):
            found[_together(key, config)].append(key)
    return dict(found)


def _together(key: str, config: StudyConfig) -> str:
    """One name for all keys that the study says to change together, or that belong to one part of the user's own."""
    part = factor_of(key)
    return next((" ".join(keys) for keys in config.together if {key, part} & set(keys)), part)


def _bound(key: str, flat: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether an arm could not have another value here, given its other choices."""
    if asked.get(key, flat.get(key)) == "auto":
        return True
    if key == "model.pos_std" and flat.get("model.pos_embed") in _NOT_LEARNED:
        return True
    if key == "model.pos_join" and (flat.get("model.pos_embed") not in _TABLES or flat.get("model.pos_at") != "stem"):
        return True
    if key == "model.pos_at":
        kind, place = flat.get("model.pos_embed"), flat.get(key)
        return kind == "none" or (kind, place) == ("relative", "stem")
    return key in _NOT_FOR_RESNETS if is_resnet(str(flat.get("model.arch"))) else key == "model.resnet"


def _without_options(factors: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """An arm without the options of the parts of the user's own that stand where values are `named`."""
    return spelling({key: value for key, value in factors.items() if key in named or factor_of(key) not in named})


class Comparisons:
    """Some arms of a study, and which of them can be compared; what needs a look at all of them is done once."""

    def __init__(self, arms: Sequence[Arm], config: StudyConfig) -> None:
        self.arms, self.config = arms, config
        self._by_factors: dict[str, Arm] = {}
        for arm in arms:
            self._by_factors.setdefault(arm.spelled, arm)

    def baseline_of(self, arm: Arm) -> Arm | None:
        """The arm that `arm` is compared with: the same, but for the values that `study.baseline` names."""
        named = {key: value for key, value in self.config.baseline.items() if key in arm.factors}
        found = self._by_factors.get(spelling({**arm.factors, **named})) if named else None
        if found or not named:
            return found
        wanted = _without_options({**arm.factors, **named}, named)  # options of a part go with it
        others = [other for other in self.arms if _without_options(other.factors, named) == wanted]
        return others[0] if len(others) == 1 else None

    def unlike(self, arm: Arm, other: Arm) -> str:
        """Why the difference of two arms has several causes, as the end of a sentence; empty where it has one.

        Either their runs' resolved configs differ in more than the study's factors, or they differ in several factors
        that none of the arms tells apart.
        """
        moved = [key for key, value in arm.factors.items() if spelling(value) != spelling(other.factors.get(key))]
        both = [(arm.settings[seed], other.settings[seed]) for seed in sorted(arm.runs.keys() & other.runs.keys())]
        pairs = {(id(one), id(two)): (one, two) for one, two in both}.values()  # most seeds are configured alike
        # a stated start is no difference of settings where one position has it anyway: `result_config` leaves it out
        asked = [*moved, *self.config.tune, *({"model.pos_std"} & arm.factors.keys())]
        if also := dict.fromkeys(key for pair in pairs for key in unstudied_differences(pair, asked)):
            return f"also differ in {', '.join(also)}"
        several = confounded(self._values(arm), self._values(other), self._between, self.config)
        return f"differ in {' and '.join(several)} at once" if several else ""

    def _values(self, arm: Arm) -> Values:
        return arm_of(next((run.config for run in arm.runs.values()), {}), arm.factors, self._keys)

    @cached_property
    def _keys(self) -> list[str]:
        """The factors that all arms have."""
        shared = (key for key in self.arms[0].factors if all(key in arm.factors for arm in self.arms))
        return factors(shared, self.config)

    @cached_property
    def _between(self) -> Between:
        return Between([self._values(arm) for arm in self.arms])


def why_not(arm: Arm, base: Arm | None, metric: str) -> str:
    """Why there is no difference between an arm and its baseline in a metric; empty where there is one."""
    if base is None:
        return "the study has no arm that is its baseline"
    values, others = arm.values(metric), base.values(metric)
    if not values or not others:
        return f"no finished run of {'it' if not values else 'the baseline'} holds {metric}"
    if not (common := sorted(values.keys() & others.keys())):
        return f"no seed in common with the baseline in {metric}"
    both = zip(getattr(arm, "members", (arm,)), getattr(base, "members", (base,)), strict=True)
    runs = ((one.runs[seed], two.runs[seed]) for one, two in both for seed in common)
    different = next((text for pair in runs if (text := other_images(*pair, metric))), "")
    return f"not measured on the baseline's images: {different}" if different else ""


def image_order(run: RunRecord, metric: str) -> str:
    """Which images a metric was measured on, as far as is known; of several draws all that there are."""
    orders = {str(entry.get("order")) for entry in answers_of(run, metric).values() if entry.get("order")}
    split = metrics.split_of(metric) or "test"
    return "+".join(sorted(orders)) or str((run.data.get("order_fingerprints") or {}).get(split, ""))


def answers_of(run: RunRecord, metric: str) -> dict[str, Mapping[str, Any]]:
    """The entries of a metric's answers by name: one, or one for each of its draws."""
    return {key: entry for key, entry in run.answers.items() if key == metric or key.startswith(f"{metric}/draw-")}


def _settings(metric: str, run: RunRecord) -> str:
    """All that decides how test images were changed, for a metric of `vitexp robustness`."""
    every = {
        key: value for one in answers_of(run, metric).values() for key, value in (one.get("settings") or {}).items()
    }
    return ", ".join(f"{key} {value}" for key, value in sorted(every.items()))


def other_images(one: RunRecord, other: RunRecord, metric: str) -> str:
    """In what the images differ that two runs were measured on; empty where they do not, as far as is known."""
    changes = [settings for settings in map(partial(_settings, metric), (one, other)) if settings]
    if changes[1:] and changes[0] != changes[1]:
        return f"changed by {changes[0]} and by {changes[1]}"
    split = metrics.split_of(metric) or "test"
    orders = [image_order(run, metric)[:12] for run in (one, other)]
    if all(orders):
        return "" if orders[0] == orders[1] else f"{split} images {orders[0]} and {orders[1]}"
    pairs = {key: (one.data.get(key), other.data.get(key)) for key in ("name", "classes", f"{split}_images")}
    return next((f"{key} {a} and {b}" for key, (a, b) in pairs.items() if a != b), "")
