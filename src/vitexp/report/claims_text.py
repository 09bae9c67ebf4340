"""The ledger of claims in words: what every rendering of a line says."""

import math
from collections.abc import Sequence
from typing import Any

from vitexp import stats
from vitexp.record import RunRecord, flatten
from vitexp.report import words
from vitexp.report.paper import published
from vitexp.study.claims.claims import Claim
from vitexp.study.claims.ledger import ALPHA, CONTRADICT, DIFFER, SUPPORT, UNDECIDED, Judged, Ledger, Line
from vitexp.study.fits import Crossover

MINUS = " − "
_MOST_NAMES = 6  # of networks in the heading of a line


def heading(line: Line) -> str:
    """Where a line was measured, and over how many seeds."""
    counts = [one.judgement.difference.n for one in line.judged]
    seeds = f", n\u00a0=\u00a0{words.span(counts)} seeds" if counts else ""
    parts = [line.study.name, *setting(line), f"{words.metric_label(line.metric)}{seeds}"]
    return " · ".join(parts)


def setting(line: Line) -> list[str]:
    """The data, network and length of training that the runs of a line share, then its own factors."""
    runs = line.runs
    named = [_of_runs(runs, "name"), _images(runs), _arch(runs), _length(runs)]
    named_already = {
        "data.shards",
        "data.name",
        "data.train_images",
        "model.arch",
        "trainer.max_epochs",
        "trainer.max_steps",
    }
    context = [(key, value) for key, value in line.finding.context if key not in named_already and value is not None]
    return [*(text for text in named if text), *([words.label_text(tuple(context))] if context else [])]


def contrast_words(line: Line, one: Judged) -> tuple[str, str, str]:
    """A contrast by its two sides, its effect with the interval, and its tests."""
    difference, judged = one.judgement.difference, one.judgement
    if line.claim.unit == "compute":
        tested = f"n {difference.n}, p {words.probability(judged.p_holm)}"
        return f"{one.contrast.one} beside {one.contrast.other}", _times(difference), tested
    sides = [words.value_label(line.claim.axis, side) for side in (one.contrast.one, one.contrast.other)]
    half = words.half_width(difference, line.metric)
    tests = [f"n {difference.n}", f"p {words.probability(judged.p_holm)}"]
    if judged.p_equivalence is not None and one.contrast.expected == "alike":
        tests.append(f"p alike {words.probability(judged.p_equivalence)}")
    beside = paper_difference(line, one)
    if beside is not None:
        tests.append(f"paper {words.signed(beside, line.metric)}")
    return MINUS.join(sides), words.signed(difference.mean, line.metric) + half, ", ".join(tests)


def factors(difference: stats.Difference) -> list[float | None]:
    """How many times less compute, with the ends of the interval, where a difference is one of logarithms."""
    ends = (difference.mean, difference.low, difference.high)
    return [None if end is None else math.exp(end) for end in ends]


def _times(difference: stats.Difference) -> str:
    middle, *ends = ("" if factor is None else f"{factor:.2f}" for factor in factors(difference))
    return f"{middle} times less compute" + (f" (95 % interval {' to '.join(ends)})" if all(ends) else "")


def reason(line: Line) -> str:
    """Why the verdict of a line is what it is, where its contrasts do not say it by themselves."""
    if line.hindrance:
        return line.hindrance
    margin = line.study.config.margin
    parts = [_undecided(line, margin)] if line.verdict == UNDECIDED else [_protocol(line), _decided(line, margin)]
    if line.finding.absent:
        missing = " or ".join(words.value_label(line.claim.axis, value) for value in line.finding.absent)
        parts.append(f"no arm {missing} here")
    if line.finding.crossover is not None:
        parts.append(_crossing(line.finding.crossover))
    return "; ".join(part for part in parts if part)


def why(line: Line) -> str:
    """The reason of a verdict, with the values that tuning chose."""
    return "; ".join(text for text in (reason(line), tuned_words(line)) if text)


def paper_words(claim: Claim) -> str:
    """What the paper measured, with its differences where it prints numbers."""
    paper = published(claim.published)
    if not paper.figures:
        return f"{paper.source}, {paper.caveat}"
    places = ["stem"] if claim.axis == "model.pos_embed" else ["1d", "2d"]
    found = []
    for place in places:
        for one, other in claim.pairs:
            difference = _figures(claim, one, other, place)
            if difference is not None:
                kind = "" if len(places) == 1 else f"{words.value_label('model.pos_embed', place)} "
                sides = MINUS.join(words.value_label(claim.axis, side) for side in (one, other))
                found.append(f"{kind}{sides} {words.signed(difference, 'fewshot_5')}")
    return f"{paper.source}, {paper.caveat}: {', '.join(found)} points"


def tuned_words(line: Line) -> str:
    """The values that tuning chose in each arm, and from how many runs; nothing of arms with a single value."""
    chosen: dict[str, None] = {}
    for arm in line.arms:
        if arm.tuned and arm.tuning_runs > len(arm.runs):
            name = words.label_text(tuple((k, v) for k, v in arm.factors.items() if k == line.claim.axis))
            values = ", ".join(f"{words.key_label(key)} {words.value_label(key, v)}" for key, v in arm.tuned.items())
            chosen[f"{name or 'the arm'}: {values} (of {arm.tuning_runs} runs)"] = None
    return f"tuned on {words.metric_label(line.study.config.select)}: {'; '.join(chosen)}" if chosen else ""


def runs_words(line: Line) -> str:
    """How many runs are behind a line, and where."""
    return f"{len(line.runs)} runs in {line.place}"


def summary(ledger: Ledger) -> str:
    """What the ledger rests on."""
    verdicts = [line.verdict for line in ledger.lines]
    counted = ", ".join(f"{word} {verdicts.count(word)}" for word in (SUPPORT, CONTRADICT, DIFFER, UNDECIDED))
    studies = f"{len(ledger.studies)} {'study' if len(ledger.studies) == 1 else 'studies'}"
    return f"{studies} ({', '.join(ledger.studies)}) · {len(ledger.lines)} lines: {counted}"


def footnotes(ledger: Ledger) -> list[str]:
    """What a reader must know of every line, and what was left out."""
    found = [
        "Differences are in points of accuracy, paired by seed, with their own 95 % intervals. p: no difference; "
        "p alike: the difference exceeds the margin of the study (two one-sided tests). Both are Holm-corrected over "
        f"all contrasts that a study gives to a claim, and judged at {100 * ALPHA:g} %.",
        "Supports: all of a line's contrasts are shown as the claim says. Contradicts: one is shown to be otherwise on "
        "the paper's own data and networks. Differs from the paper here: one is shown to be otherwise on others, of "
        "which the paper says nothing. Cannot decide: nothing is shown, or the runs cannot, for the cause given.",
    ]
    if any(line.claim.unit == "compute" for line in ledger.lines):
        found.append(
            "Times less compute: the horizontal distance of two lines of networks, averaged over accuracies that both "
            "reach, seed by seed; the tests are on its logarithm."
        )
    if ledger.silent:
        found.append(f"No claim is touched by: {', '.join(ledger.silent)}.")
    notes = dict.fromkeys(f"{line.study.name}: {note}." for line in ledger.lines for note in line.notes)
    return [*found, *notes, *(f"Left out: {sentence}." for sentence in ledger.unread)]


def cautions(ledger: Ledger) -> list[str]:
    """What stands above the first claim, by study."""
    found = dict.fromkeys(f"{line.study.name}: {text}" for line in ledger.lines for text in line.cautions)
    return list(words.cautions(list(found)))


def paper_difference(line: Line, one: Judged) -> float | None:
    """The paper's difference for the same pair at the same place, if it prints it in this metric."""
    context = dict(line.finding.context)
    if published(line.claim.published).metric != line.metric:
        return None
    place = str(context.get(_beside(line.claim), "stem" if line.claim.axis == "model.pos_embed" else "1d"))
    return _figures(line.claim, one.contrast.one, one.contrast.other, place)


def _beside(claim: Claim) -> str:
    """The other axis of Table 8."""
    return "model.pos_at" if claim.axis == "model.pos_embed" else "model.pos_embed"


def _figures(claim: Claim, one: str, other: str, place: str) -> float | None:
    paper = published(claim.published)
    first, second = (paper.figure({claim.axis: side, _beside(claim): place}) for side in (one, other))
    return None if first is None or second is None else first - second


def _undecided(line: Line, margin: float | None) -> str:
    open_ones = [one for one in line.judged if one.verdict == UNDECIDED]
    if any(one.judgement.difference.n < stats.MINIMUM_SEEDS for one in open_ones):
        return f"fewer than {stats.MINIMUM_SEEDS} common seeds"
    known = [one.judgement.detectable for one in open_ones if one.judgement.detectable]
    text = "no difference is shown"
    if line.claim.expected == "alike":
        text += f", nor likeness within ±{words.points(margin)}" if margin else ""
        text += "" if margin else "; without a margin (study.margin) nothing can be shown to be alike"
    if known:
        if line.claim.unit == "compute":
            return f"{text}; factors are shown with 80 % probability from {math.exp(max(known)):.2f} on"
        ends = list(dict.fromkeys(words.number(end, line.metric) for end in (min(known), max(known))))
        text += f"; differences are shown with 80 % probability from {' to '.join(ends)} points on"
    return text


def _protocol(line: Line) -> str:
    """What makes a difference to the paper no contradiction: what was measured, beside what the paper has measured."""
    if line.verdict != DIFFER:
        return ""
    paper = published(line.claim.published)
    return f"under another protocol: {', '.join(setting(line))} (the paper: {paper.source}, {paper.caveat})"


def _decided(line: Line, margin: float | None) -> str:
    alike = line.claim.expected == "alike"
    if line.verdict in (CONTRADICT, DIFFER):
        return _against([one for one in line.judged if one.verdict == line.verdict], alike, margin)
    if margin is None or not all(_is_within(one) for one in line.judged):
        return ""
    return f"within ±{words.points(margin)}" if alike else f"though by less than {words.points(margin)}"


def _against(found: Sequence[Judged], alike: bool, margin: float | None) -> str:
    """What speaks against a claim, and how far."""
    if not alike:
        opposite = any((one.judgement.p_holm or 0.0) <= ALPHA for one in found)
        return "the opposite is shown" if opposite else f"shown to be alike within ±{words.points(margin or 0.0)}"
    nearest = [_nearest_to_zero(one.judgement.difference) for one in found]
    small = margin is not None and any(end < margin for end in nearest)
    return "a difference is shown" + (f", which may still lie within ±{words.points(margin or 0.0)}" if small else "")


def _nearest_to_zero(difference: stats.Difference) -> float:
    """The smallest difference that the interval holds, where it does not hold zero."""
    ends = (difference.mean, difference.low, difference.high)
    return min(abs(end) for end in ends if end is not None)


def _is_within(one: Judged) -> bool:
    return one.judgement.p_equivalence is not None and one.judgement.p_equivalence <= ALPHA


def _crossing(found: Crossover) -> str:
    if found.size is None:
        return "the means do not cross once" if found.crossings else "the means do not cross"
    text = f"the means cross at {found.size:,.0f} images"
    if found.low is None or found.high is None:
        return text
    low = "before the smallest size" if found.low == 0 else f"{found.low:,.0f}"
    high = "beyond the largest" if found.high == float("inf") else f"{found.high:,.0f}"
    return f"{text} (95 % interval {low} to {high})"


def _of_runs(runs: Sequence[RunRecord], key: str) -> str:
    return ", ".join(dict.fromkeys(str(run.data[key]) for run in runs if key in run.data))


def _images(runs: Sequence[RunRecord]) -> str:
    counts = sorted({run.data["train_images"] for run in runs if "train_images" in run.data})
    return f"{_range(counts)} images" if counts else ""


def _arch(runs: Sequence[RunRecord]) -> str:
    named = list(dict.fromkeys(words.network_label(str(flatten(run.config).get("model.arch", ""))) for run in runs))
    return ", ".join(named) if len(named) <= _MOST_NAMES else f"{len(named)} networks"


def _length(runs: Sequence[RunRecord]) -> str:
    epochs = sorted({round(run.epochs, 2) for run in runs if run.epochs})
    steps = sorted({run.steps for run in runs if run.steps})
    if len(epochs) == 1 or not steps:
        return f"{epochs[0]:g} epochs" if epochs else ""
    return f"{_range(steps)} steps"


def _range(values: Sequence[Any]) -> str:
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1])))
