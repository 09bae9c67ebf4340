"""`vitexp plan`: how many seeds and images a study takes, as a table and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitexp.report import labels
from vitexp.report.curve_text import place_text
from vitexp.report.tables import caution, footnote, lines
from vitexp.report.view import short_verdict
from vitexp.stats.planning import MOST_SEEDS, Needed
from vitexp.study.arm import clause
from vitexp.study.plan import StudyPlan

SCHEMA = "vitexp.plan/1"
_KINDS = {"for_effect": "to show {effect}", "for_margin": "to show equivalence within ±{margin}"}

_IMAGES = (
    "These test images are few for such sizes: with about {:,} they would take half of the variance that may be, and "
    "leave the other half to the seeds."
)


def terminal(plan: StudyPlan) -> RenderableType:
    """A row for each comparison, and what the whole study costs."""
    sizes = {"effect": labels.points(plan.effect), "margin": labels.points(plan.margin)}
    rows = []
    for row in plan.rows:
        needed = [_needed(getattr(row, kind), row.images) for kind in _KINDS]
        needed = needed if row in plan.open else [f"{short_verdict(row.verdict)} (pilot)", ""]
        rows.append([row.arm, labels.metric_label(row.metric), *needed])
    kinds = [text.format(**sizes) for text in _KINDS.values()]
    images = [row.images for row in plan.open if row.images]
    notes = [
        *(_total(plan, kind, text) for kind, text in zip(_KINDS, kinds, strict=True)),
        *([_IMAGES.format(max(images))] if images else []),
        "Seeds an arm, with the range that the uncertainty of the pilot's variance leaves (10 to 90 %); power 80 % "
        f"(of equivalence where nothing differs), 5 % over all {plan.comparisons} comparisons.",
        "A study that stops when it is decided takes fewer runs: vitexp sweep FILE --until-decided --budget RUNS.",
    ]
    table = lines(("comparison with the baseline", "metric", *kinds), rows)
    decided = "The pilot decides all." if not plan.left_out else "The pilot decides all that are planned."
    left_out = clause("not planned", list(plan.left_out), 6, "; ")
    said = [*map(footnote, notes if plan.open else [decided]), *map(footnote, map(labels.sentence, left_out))]
    cautions = map(caution, labels.cautions(plan.cautions))
    return Group(*cautions, Text(f"What {plan.study.name} takes", style="bold"), table, *said)


def _needed(needed: Needed, images: int | None) -> str:
    if needed.seeds is None:
        return "no number of seeds: more test images" if images else f"over {MOST_SEEDS:,} seeds"
    high = "more" if needed.high is None else str(needed.high)
    return f"{needed.seeds} seeds ({needed.low} to {high})"


def _total(plan: StudyPlan, kind: str, text: str) -> str:
    seeds = plan.seeds(kind)
    if seeds is None:
        return f"Every comparison {text}: with no number of seeds up to {MOST_SEEDS:,}."
    runs = seeds * plan.arms
    costs = [f"{runs:,} runs ({plan.arms} arms, {seeds} seeds)"]
    costs += [f"{place_text('train_seconds', runs * plan.seconds)} of training"] if plan.seconds else []
    costs += [place_text("train_flops", runs * plan.train_flops)] if plan.train_flops else []
    return f"Every comparison {text}: {', '.join(costs)}."


def as_document(plan: StudyPlan) -> dict[str, Any]:
    """The same for programs: sizes in accuracy, seconds and FLOPs of one run."""
    return {
        "schema": SCHEMA,
        "study": plan.study.name,
        **{key: getattr(plan, key) for key in ("effect", "margin", "arms", "seconds", "train_flops")},
        "seeds_for_effect": plan.seeds("for_effect"),
        "seeds_for_margin": plan.seeds("for_margin"),
        "comparisons": [asdict(row) for row in plan.rows],
        "left_out": list(plan.left_out),
        "cautions": list(plan.cautions),
    }
