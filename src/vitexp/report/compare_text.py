"""`vitexp compare`: a comparison in a few sentences, and as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitexp import stats
from vitexp.metrics import is_share, label
from vitexp.report import labels
from vitexp.report.tables import STYLES, caution, footnote
from vitexp.study.compare import STATUSES, Compared
from vitexp.study.sides import SOURCE, Side, differences, seeds_text

SCHEMA = "vitexp.compare/1"
MOST_SETTINGS = 6


def show_comparison(found: Compared) -> RenderableType:
    """The verdict first, then what it rests on and what to do next."""
    return Group(
        *map(caution, labels.cautions(found.cautions)),
        Text(sentence(found), style=f"bold {STYLES.get(found.verdict, '')}"),
        *map(footnote, _notes(found)),
    )


def sentence(found: Compared) -> str:
    """The verdict with the difference and its interval."""
    judged = found.judgement
    if judged is None or judged.low is None or judged.high is None:
        return f"Undecided: {found.why}."
    within = f"within {_amount(found.margin, found.metric)}" if found.margin else ""
    words = {"equivalent": f"Equivalent {within}"}.get(found.verdict, found.verdict.capitalize())
    words += f", and equivalent {within}" if found.is_equivalent and judged.is_different else ""
    low, high = (labels.signed(value, found.metric) for value in (judged.low, judged.high))
    images = f"images like the {judged.images:,} tested" if judged.images else "exactly these images"
    return (
        f"{words}: {label(found.metric)} {_amount(judged.mean, found.metric, signed=True)}, "
        f"{100 * (1 - found.level):.7g} % interval {low} to {high}, on {images}, {judged.n} seeds."
    )


def _amount(value: float, metric: str, signed: bool = False) -> str:
    text = labels.signed(value, metric) if signed else f"{100 * value:.3g}" if is_share(metric) else f"{value:.3g}"
    return f"{text} points" if is_share(metric) else text


def _notes(found: Compared) -> Iterator[str]:
    for word, side in (("Base", found.base), ("Candidate", found.candidate)):
        values = side.arm.values(found.metric)
        mean = labels.number(sum(values.values()) / len(values), found.metric)
        yield f"{word} {side.given}: mean {mean}, seeds {labels.seeds_text(sorted(values))}."
    pairs = list(differences(found.base, found.candidate).items())
    named = [("source code" if key == SOURCE else key, *pair) for key, pair in pairs[:MOST_SETTINGS]]
    texts = [f"{name} ({base} → {candidate})" for name, base, candidate in named]
    yield f"They differ in {', '.join(texts)}{f' and {len(pairs) - len(texts)} more' * (len(pairs) > len(texts))}."
    if found.verdict == "undecided":
        yield from _next(found)
    yield _level(found)


def _next(found: Compared) -> Iterator[str]:
    """What would decide it."""
    judged, (seeds, images) = found.judgement, found.need or (None, None)
    if judged is not None and judged.low is not None:
        yield f"{found.why[0].upper()}{found.why[1:]}."
    if images:
        assert judged is not None
        yield (
            f"More images are needed: with {judged.images:,} test images no number of seeds shows "
            f"{_amount(found.effect, found.metric)}; about {images:,} images and {seeds} seeds would."
        )
    elif found.need and seeds is None:
        yield f"No study of a sensible size shows {_amount(found.effect, found.metric)}."
    elif any(found.to_run):
        goal = f" ({seeds} in common show {_amount(found.effect, found.metric)} with 80 % power)" if found.need else ""
        yield f"Run {seeds_text(found.base, found.candidate, found.to_run)}{goal}."


def _level(found: Compared) -> str:
    """What the error rate is about."""
    if found.turn is None:
        return (
            f"The error of {100 * stats.ALPHA:g} % is that of one comparison, made once. Where several candidates are "
            "tried, or seeds added after a look, give --ledger FILE."
        )
    return (
        f"Candidate {found.turn.place} of its campaign, look {found.turn.look}: judged at {found.turn.level:.2g}, its "
        f"share of {100 * stats.ALPHA:g} % over all of them; a look with more seeds has {found.turn.next_level:.2g}."
    )


def document(found: Compared) -> dict[str, Any]:
    """The same for programs. Shares are between 0 and 1; what is not known is null."""
    judged = found.judgement
    names = ("mean", "low", "high", "sd", "n", "seeds", "images", "p", "detectable")
    return {
        "schema": SCHEMA,
        "verdict": found.verdict,
        "status": STATUSES[found.verdict],
        "equivalent": found.is_equivalent,
        "sentence": sentence(found),
        "why": found.why or None,
        "metric": found.metric,
        "margin": found.margin,
        "about": "such" if found.such else "these",
        "level": found.level,
        "base": _side(found.base, found.metric),
        "candidate": _side(found.candidate, found.metric),
        "differs": {key: list(pair) for key, pair in differences(found.base, found.candidate).items()},
        "difference": {name: getattr(judged, name) for name in names} if judged else None,
        "to_run": {"base": list(found.to_run[0]), "candidate": list(found.to_run[1])},
        "needed": found.need and {"effect": found.effect, "seeds": found.need[0], "images": found.need[1]},
        "ledger": asdict(found.turn) | {"next_level": found.turn.next_level} if found.turn else None,
        "cautions": list(found.cautions),
    }


def _side(side: Side, metric: str) -> dict[str, Any]:
    values = side.arm.values(metric)
    return {
        "runs": side.given,
        "identity": side.identity,
        "values": {str(seed): value for seed, value in values.items()},
        "did_not_train": sorted(side.arm.untrained),
    }
