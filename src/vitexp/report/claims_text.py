"""The report on the claims as text: what every rendering of a verdict says."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from vitexp import stats
from vitexp.record import flatten
from vitexp.report import labels
from vitexp.report.curve_text import crossing_interval
from vitexp.report.paper import Published, published
from vitexp.study.claims.findings import Claim
from vitexp.study.claims.verdicts import (
    CONTRADICT,
    DIFFER,
    SUPPORT,
    UNDECIDED,
    ClaimsReport,
    ClaimVerdict,
    Judged,
)
from vitexp.study.fits import Crossover

MINUS = " − "
_MOST_NAMES = 6  # of networks in the heading of a verdict
_IN_SETTING = ("data.shards", "data.name", "data.train_images", "model.arch", "trainer.max_epochs", "trainer.max_steps")


def heading(found: ClaimVerdict) -> str:
    """Where a verdict was measured, and over how many seeds."""
    counts = [one.judgement.n for one in found.judged]
    seeds = f", n\u00a0=\u00a0{labels.span(counts)} seeds" if counts else ""
    return " · ".join([found.study.name, *setting(found), f"{labels.metric_label(found.metric)}{seeds}"])


def setting(found: ClaimVerdict) -> list[str]:
    """The data, network and length of training that the runs of a verdict share, then its own factors."""
    runs = found.runs
    networks = _distinct(labels.network_label(str(flatten(run.config).get("model.arch", ""))) for run in runs)
    images = _range(run.data["train_images"] for run in runs if "train_images" in run.data)
    epochs = {round(run.epochs, 2) for run in runs if run.epochs}
    steps = _range(run.steps for run in runs if run.steps)
    context = [(key, value) for key, value in found.finding.context if key not in _IN_SETTING and value is not None]
    named = [
        ", ".join(_distinct(str(run.data["name"]) for run in runs if "name" in run.data)),
        f"{images} images" if images else "",
        ", ".join(networks) if len(networks) <= _MOST_NAMES else f"{len(networks)} networks",
        f"{steps} steps" if steps and len(epochs) != 1 else f"{min(epochs):g} epochs" if epochs else "",
        labels.label_text(tuple(context)),
    ]
    return [text for text in named if text]


def _range(values: Iterable[int]) -> str:
    known = sorted(values)
    return " to ".join(_distinct(f"{value:,}" for value in (known[0], known[-1]))) if known else ""


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def contrast_words(found: ClaimVerdict, one: Judged) -> tuple[str, str, str]:
    """A contrast by its two sides, its effect with the interval, and its tests."""
    contrast, judged = one.contrast, one.judgement
    tests = [f"n {judged.n}", f"p {labels.probability(judged.p_adjusted)}"]
    if found.claim.unit == "compute":
        middle, *ends = ("" if factor is None else f"{factor:.2f}" for factor in factors(judged))
        times = f"{middle} times less compute" + (f" (95 % interval {' to '.join(ends)})" if all(ends) else "")
        return f"{contrast.one} beside {contrast.other}", times, ", ".join(tests)
    sides = [labels.value_label(found.claim.axis, side) for side in (contrast.one, contrast.other)]
    effect = labels.signed(judged.mean, found.metric) + labels.half_width(judged, found.metric)
    if judged.p_equivalence is not None and contrast.expected == "alike":
        tests.append(f"p alike {labels.probability(judged.p_equivalence)}")
    if table := table_words(found, one):
        tests.append(f"table: {table}")
    if (beside := paper_difference(found, one)) is not None:
        tests.append(f"paper {labels.signed(beside, found.metric)}")
    return MINUS.join(sides), effect, ", ".join(tests)


def table_words(found: ClaimVerdict, one: Judged) -> str:
    """What the study's table shows of the same two arms, where that is something else; in either direction."""
    margin = found.study.config.margin
    here, there = ((it.is_different, it.is_within(margin)) for it in (one.judgement, one.in_table or one.judgement))
    shown = [word for word, holds in zip(("a difference", "equivalent"), there, strict=True) if holds]
    return "" if here == there else " and ".join(shown) or stats.NO_DIFFERENCE


def factors(difference: stats.Judgement) -> list[float | None]:
    """How many times less compute, with the ends of the interval, where a difference is one of logarithms."""
    return [None if end is None else math.exp(end) for end in (difference.mean, difference.low, difference.high)]


def reason(found: ClaimVerdict) -> str:
    """Why a verdict is what it is, where its contrasts do not say it by themselves."""
    if found.objection:
        return found.objection
    parts = []
    if found.verdict == DIFFER:  # what was measured, beside what the paper has measured
        parts.append(f"under another protocol: {', '.join(setting(found))} (the paper: {_paper(found.claim).cited})")
    parts.append(_undecided(found) if found.verdict == UNDECIDED else _decided(found))
    if found.finding.absent:
        missing = " or ".join(labels.value_label(found.claim.axis, value) for value in found.finding.absent)
        parts.append(f"no arm {missing} here")
    if found.finding.crossover is not None:
        parts.append(_crossing(found.finding.crossover))
    return "; ".join(part for part in parts if part)


def _undecided(found: ClaimVerdict) -> str:
    margin = found.study.config.margin
    undecided = [one.judgement for one in found.judged if one.verdict == UNDECIDED]
    if any(judged.n < stats.MINIMUM_SEEDS for judged in undecided):
        return f"fewer than {stats.MINIMUM_SEEDS} common seeds"
    text = "no difference is shown"
    if found.claim.expected == "alike":
        without = "; without a margin (study.margin) nothing can be shown to be alike"
        text += f", nor likeness within ±{labels.points(margin)}" if margin else without
    known = [judged.detectable for judged in undecided if judged.detectable]
    if not known:
        return text
    ends = _distinct(labels.number(end, found.metric) for end in (min(known), max(known)))
    shown, what = f"{' to '.join(ends)} points", "differences"
    if found.claim.unit == "compute":
        shown, what = f"{math.exp(max(known)):.2f}", "factors"
    return f"{text}; {what} are shown with 80 % probability from {shown} on"


def _decided(found: ClaimVerdict) -> str:
    """How far what is shown goes, beside the margin."""
    alike, margin = found.claim.expected == "alike", found.study.config.margin
    points = labels.points(margin or 0.0)
    judged = [one.judgement for one in found.judged if one.verdict == found.verdict]
    if found.verdict == SUPPORT:
        within = all(one.is_within(margin) for one in judged)
        if margin is None or not within:
            return ""
        return f"within ±{points}" if alike else f"though by less than {points}"
    if not alike:
        opposite = any(one.is_different for one in judged)
        return "the opposite is shown" if opposite else f"shown to be alike within ±{points}"
    ends = [(one.mean, one.low, one.high) for one in judged]
    nearest = min(abs(end) for interval in ends for end in interval if end is not None)  # none of them holds zero
    small = margin is not None and nearest < margin
    return "a difference is shown" + (f", which may still lie within ±{points}" if small else "")


def _crossing(found: Crossover) -> str:
    if found.size is None:
        return "the means do not cross once" if found.crossings else "the means do not cross"
    text = f"the means cross at {found.size:,.0f} images"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({crossing_interval(found.low, found.high)})"


def tuned_words(found: ClaimVerdict) -> str:
    """The values that tuning chose in each arm, and from how many runs; nothing of arms with a single value."""
    axis, chosen = found.claim.axis, []
    for arm in found.finding.arms:
        if arm.tuned and arm.tuning_runs > len(arm.runs):
            name = labels.label_text(((axis, arm.factors[axis]),)) if axis in arm.factors else ""
            values = ", ".join(f"{labels.key_label(key)} {labels.value_label(key, v)}" for key, v in arm.tuned.items())
            chosen.append(f"{name or 'the arm'}: {values} (of {arm.tuning_runs} runs)")
    where = labels.metric_label(found.study.config.select)
    return f"tuned on {where}: {'; '.join(_distinct(chosen))}" if chosen else ""


def why(found: ClaimVerdict) -> str:
    """The reason of a verdict, with the values that tuning chose."""
    return "; ".join(text for text in (reason(found), tuned_words(found)) if text)


def runs_words(found: ClaimVerdict) -> str:
    """How many runs are behind a verdict, and where."""
    return f"{len(found.runs)} runs in {found.selection.location}"


def paper_words(claim: Claim) -> str:
    """What the paper measured, with its differences where it prints numbers."""
    paper, found = _paper(claim), []
    for kind in ("",) if claim.axis == "model.pos_embed" else ("1d", "2d"):
        for pair in claim.pairs:
            difference = _paper_difference(claim, *pair, {"model.pos_embed": kind} if kind else {})
            if difference is not None:
                sides = MINUS.join(labels.value_label(claim.axis, side) for side in pair)
                named = f"{labels.value_label('model.pos_embed', kind)} {sides}" if kind else sides
                found.append(f"{named} {labels.signed(difference, 'fewshot_5')}")
    return paper.cited + (f": {', '.join(found)} points" if found else "")


def paper_difference(found: ClaimVerdict, one: Judged) -> float | None:
    """The paper's difference for the same pair at the same place, if it prints it in this metric."""
    if _paper(found.claim).metric != found.metric:
        return None
    return _paper_difference(found.claim, one.contrast.one, one.contrast.other, dict(found.finding.context))


def _paper_difference(claim: Claim, one: str, other: str, context: Mapping[str, Any]) -> float | None:
    """At the value that the context has of the other axis of Table 8, or that of a study which does not name it."""
    beside, usual = ("model.pos_at", "stem") if claim.axis == "model.pos_embed" else ("model.pos_embed", "1d")
    place = str(context.get(beside, usual))
    first, second = (_paper(claim).figure({claim.axis: side, beside: place}) for side in (one, other))
    return None if first is None or second is None else first - second


def _paper(claim: Claim) -> Published:
    return published(claim.source.lower().replace(" ", ""))


def summary(report: ClaimsReport) -> str:
    """The studies and the number of verdicts of each kind."""
    verdicts = [one.verdict for one in report.verdicts]
    counted = ", ".join(f"{word} {verdicts.count(word)}" for word in (SUPPORT, CONTRADICT, DIFFER, UNDECIDED))
    studies = f"{len(report.studies)} {'study' if len(report.studies) == 1 else 'studies'}"
    return f"{studies} ({', '.join(report.studies)}) · {len(verdicts)} lines: {counted}"


def cautions(report: ClaimsReport) -> tuple[str, ...]:
    """What stands above the first claim, by study."""
    said = _distinct(f"{one.study.name}: {text}" for one in report.verdicts for text in one.selection.cautions)
    return labels.cautions(said)


_DIFFERENCES = (
    "Differences are in points of accuracy, paired by seed. The intervals of all contrasts that a study gives to a "
    "claim hold together in 95 % of cases, and a verdict is what its interval excludes. p: no difference; p alike: the "
    "difference exceeds the margin of the study; both are adjusted alike."
)
_TABLE = (
    "Table: what the table of the study shows of the same two arms, where that is something else. Its intervals hold "
    "together, and its variances are shrunk, over all comparisons with the baseline in the primary metrics; those here "
    "over the contrasts of one claim."
)
_VERDICTS = (
    "Supports: all of a line's contrasts are shown as the claim says. Contradicts: one is shown to be otherwise on the "
    "paper's own data and networks. Differs from the paper here: one is shown to be otherwise on others, of which the "
    "paper says nothing. Cannot decide: nothing is shown, or the runs cannot, for the cause given."
)
_COMPUTE = (
    "Times less compute: the horizontal distance of two lines of networks, averaged over accuracies that both reach, "
    "seed by seed; the tests are on its logarithm."
)


def footnotes(report: ClaimsReport) -> list[str]:
    """What a reader must know of every line, and what was left out."""
    compute = [_COMPUTE] if any(one.claim.unit == "compute" for one in report.verdicts) else []
    untouched = [f"No claim is touched by: {', '.join(report.untouched)}."] if report.untouched else []
    notes = _distinct(f"{one.study.name}: {note}." for one in report.verdicts for note in one.selection.notes)
    table = [_TABLE] if any(table_words(found, one) for found in report.verdicts for one in found.judged) else []
    unread = [f"Left out: {why}." for why in report.unread]
    return [_DIFFERENCES, *table, _VERDICTS, *compute, *untouched, *notes, *unread]
