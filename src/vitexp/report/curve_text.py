"""A curve in words: its points as tables, and what is read off them, on the terminal and below a picture."""

import math
import re
from collections.abc import Sequence
from typing import Any

from vitexp import metrics, stats
from vitexp.report import labels
from vitexp.report.paper import published
from vitexp.report.view import MOST_COLUMNS, NOTHING, CellView, Section, View, shared_setting
from vitexp.study.arm import spelling
from vitexp.study.claims import families
from vitexp.study.curve import SIZES, Compared, Curve, Line, Point
from vitexp.study.fits import Crossover, EqualAccuracy, PowerLaw
from vitexp.study.frame import fact
from vitexp.study.lines import MEASURED, RELATIVE

_SAME = 1.02  # training lengths within this factor count as one: the last batch of an epoch is rounded
_NETWORK = re.compile(r"(w\d+)(d\d+)(m\d+)(h\d+)(/\d+)")


def curve_view(curve: Curve) -> View:
    """A curve's numbers, metric by metric, with what is read off them."""
    paper = curve.study.config.paper
    sections = tuple(_section(curve, metric, lines) for metric, lines in curve.lines.items())
    marked = any(cell and cell.baseline for section in sections for _, row in section.rows for cell in row)
    return View(
        name=curve.study.name,
        title=labels.title(curve.study),
        setting=setting(curve),
        cautions=labels.cautions(curve.cautions),
        sections=sections,
        footnotes=(
            *readings(curve),
            *(["◆ is the baseline."] if marked else []),
            *([f"Paper: {published(paper).cited}."] if paper else []),
            *map(labels.sentence, curve.notes),
        ),
    )


def setting(curve: Curve) -> str:
    """What the runs of a curve have in common, as the line below its heading."""
    if curve.against_cost:
        return shared_setting([point.arm for point in curve.points])
    length = training_length(next(iter(curve.lines.values())))
    return length[0].upper() + length[1:]


def training_length(lines: Sequence[Line]) -> str:
    """Whether all points had equal epochs or equal steps, from the images that training really saw."""
    seen = [(images, point.x) for line in lines for point in line.points for images in point.images_seen]
    if not seen:
        return "training length not recorded"
    images, epochs = [count for count, _ in seen], [count / size for count, size in seen]
    if max(images) <= _SAME * min(images):
        return f"fixed steps: {max(images):,} images seen at every size"
    is_size = lines[0].axis in SIZES
    if is_size and max(epochs) <= _SAME * min(epochs):
        return f"fixed epochs: {max(epochs):.3g} at every size"
    return ("neither steps nor epochs fixed: " if is_size else "") + f"{min(images):,} to {max(images):,} images seen"


def seed_counts(lines: Sequence[Line]) -> list[int]:
    """How many seeds are behind each point."""
    return [len(point.values) for line in lines for point in line.points]


# The points as tables.


def _section(curve: Curve, metric: str, lines: Sequence[Line]) -> Section:
    """A row for each place on the axis and a column for each line; against cost, and for many lines, a list."""
    title = labels.headline(metric, seed_counts(lines))
    if curve.against_cost or len(lines) > MOST_COLUMNS:
        return Section(title=title, corner="arm", **_list(curve, metric, lines))
    means = [{point.x: CellView(mean=labels.mean(point.interval, metric)) for point in line.points} for line in lines]
    places = sorted({x for line in means for x in line})
    return Section(
        title=title,
        corner=labels.key_label(curve.axis),
        columns=tuple(map(line_name, lines)),
        rows=tuple((place_text(curve.axis, x), tuple(line.get(x) for line in means)) for x in places),
    )


def _list(curve: Curve, metric: str, lines: Sequence[Line]) -> dict[str, Any]:
    """A row for each point, the lines below each other; against cost with the names of the arms and another cost."""
    names, also = arm_names(curve.points), "train_flops" if curve.axis == "parameters" else "parameters"
    facts: dict[str, list[str]] = {key: [] for key in ((curve.axis, also) if curve.against_cost else (curve.axis,))}
    rows = []
    for line in lines:
        for point in line.points:
            label = line_name(line) + (f" · {names[id(point.arm)]}" if curve.against_cost else "")
            rows.append((label, (CellView(mean=labels.mean(point.interval, metric), baseline=point.is_baseline),)))
            for key, texts in facts.items():
                x = point.x if key == curve.axis else fact(point.arm, key)
                texts.append(NOTHING if x is None else place_text(key, x))
    return {"rows": tuple(rows), "facts": {labels.key_label(key): texts for key, texts in facts.items()}}


# What is read off the points.


def readings(curve: Curve) -> list[str]:
    """What is read off the points of each metric."""
    several = len(curve.lines) > 1 and not curve.against_cost  # equal accuracy names its metric
    texts = {metric: _readings(curve, lines, curve.compared[metric]) for metric, lines in curve.lines.items()}
    return [f"{labels.metric_label(m)}: {text}" if several else text for m, found in texts.items() for text in found]


def _readings(curve: Curve, lines: Sequence[Line], compared: Sequence[Compared]) -> list[str]:
    """Equal accuracy against cost; else power laws, crossovers, and the values that tuning chose."""
    comparisons = [f"{comparison_text(*found)}." for found in compared]
    if curve.against_cost:
        return comparisons
    first = lines[0].fit
    if isinstance(first, str) and len(lines) > 1 and all(line.fit == first for line in lines):
        fits = [f"All arms: {fit_text(first)}."]
    else:
        fits = [f"{line_name(line)}: {fit_text(line.fit)}." for line in lines]
    return [*fits, *comparisons, *_tuned(curve, lines)]


def fit_text(fit: PowerLaw | str) -> str:
    """A power law in a sentence, or why there is none."""
    if isinstance(fit, str):
        return f"no power law is drawn; {fit}"
    # A fit whose floor lies on its bound in every resample says nothing of its size.
    ends = " to ".join(labels.number(end, "test_acc") for end in fit.c_interval)
    floor = f"floor {ends} %" if fit.c_interval[1] else "no floor seen"
    text = (
        f"error = {fit.a:.3g} · n^−{fit.b:.2f} + {fit.c:.4f}, exponent ± {fit.b_interval[1] - fit.b:.2f}, {floor} "
        f"(bootstrap over {fit.seeds} seeds); the largest miss is {100 * fit.miss:.2f} points"
    )
    if fit.outside:
        text += f"; it leaves the joint 95 % intervals at {fit.outside} of {fit.sizes} sizes"
        text += f" ({', '.join(f'{size:,.6g}' for size in fit.outside_at)}): a summary, not a law"
    return text


def comparison_text(line: Line, base: Line, found: Crossover | EqualAccuracy) -> str:
    """How a line compares with that of the baseline, and how sure that is."""
    return _crossover(line, base, found) if isinstance(found, Crossover) else _equal_accuracy(line, base, found)


def _crossover(line: Line, base: Line, found: Crossover) -> str:
    """Which arm leads where."""
    one, other = line_name(line), line_name(base)
    sign = -1 if metrics.is_judged(line.metric) and not metrics.higher_is_better(line.metric) else 1
    ahead, behind = (one, other)[:: sign * (found.leader or 1)]
    if not found.leader:
        return f"{one} and {other} do not differ at any size"
    if found.size is None and found.crossings:
        return f"{one} and {other} change places {found.crossings} times in the mean: no one crossover"
    if found.size is None:
        return f"{ahead} is ahead of {behind} in the mean at every size"
    text = f"{behind} overtakes {ahead} at {between_text(line.axis, found.size)}"
    if found.low is None or found.high is None:
        return f"{text} by the means alone: not enough evidence under 3 seeds"
    shown = "" if found.shown else ", so that a crossing is not shown"
    return f"{text}; {crossing_interval(found.low, found.high)} (n = {found.seeds} seeds){shown}"


def crossing_interval(low: float, high: float) -> str:
    """The interval of the size at which two lines cross."""
    first = "before the smallest size" if low == 0 else f"{low:,.0f}"
    return f"95 % interval {first} to {'beyond the largest size' if high == math.inf else f'{high:,.0f}'}"


def between_text(axis: str, x: float) -> str:
    """A place between two points of the axis."""
    return f"{x:,.0f} images" if axis in SIZES else f"{labels.key_label(axis)} {x:.3g}"


def _equal_accuracy(line: Line, base: Line, found: EqualAccuracy) -> str:
    """How many times less one line costs than another."""
    one, other, metric = line_name(line), line_name(base), labels.metric_label(line.metric)
    if not found.gaps:
        return f"{one} and {other} share no seed, so they are not compared at equal {metric}"
    if found.factor is None or found.accuracies is None:
        return f"{one} and {other} reach no common {metric}"
    less, what = ("fewer", "parameters") if line.axis == "parameters" else ("less", "compute")
    what = "training time" if line.axis == "train_seconds" else what
    times = f"{found.factor:.2f} times {less}" if found.factor >= 1 else f"{1 / found.factor:.2f} times more"
    ends = " to ".join(labels.number(end, line.metric) for end in found.accuracies)
    needs = f"For equal {metric} {one} needs {times} {what} than {other}"
    return f"{needs}{_certainty(found)}, over the {ends} % that both reach"


def _certainty(found: EqualAccuracy) -> str:
    n = len(found.log_factors)
    if found.apart:
        return f" in the mean of {n} of {len(found.gaps)} seeds, while at the others they reach no common accuracy"
    if n < stats.MINIMUM_SEEDS:
        return f" (n = {n}: not enough evidence under {stats.MINIMUM_SEEDS} seeds)"
    if found.interval is None:
        return f" (the same at each of n = {n} seeds)"
    low, high = found.interval if (found.factor or 0) >= 1 else [1 / end for end in reversed(found.interval)]
    shown = "" if low > 1 else ", which holds 1: no difference is shown"
    return f" (95 % interval {low:.2f} to {high:.2f}, n = {n} seeds{shown})"


def _tuned(curve: Curve, lines: Sequence[Line]) -> list[str]:
    """The values that tuning chose, in the order of the sizes."""
    tuned = [line for line in lines if any(point.arm.tuned for point in line.points)]
    found = []
    for key in curve.study.config.tune if tuned else ():
        chosen = [[labels.value_label(key, point.arm.tuned.get(key)) for point in line.points] for line in tuned]
        arms = "; ".join(f"{line_name(line)} {', '.join(values)}" for line, values in zip(tuned, chosen, strict=True))
        best = labels.metric_label(curve.study.config.select)
        found.append(f"The {labels.key_label(key)} that is best by {best} at each size: {arms}.")
    return found


# Names of lines and arms, and costs with their units.


def line_name(line: Line) -> str:
    """A line by what its arms share, or by its own name."""
    return labels.label_text(line.label) or "the only arm"


def arm_names(points: Sequence[Point]) -> dict[int, str]:
    """The arm of each point by its network, and by the factors that tell it from others with the same network."""
    arms = [point.arm for point in points]
    found = {}
    for arm in arms:
        alike = [other.factors for other in arms if families.network(other) == families.network(arm)]
        keys = [key for key in arm.factors if key not in families.NETWORK]
        telling = [key for key in keys if len({spelling(factors.get(key)) for factors in alike}) > 1]
        network = families.network(arm).replace("None", "")  # where neither runs nor factors name one
        label = labels.label_text(tuple((key, arm.factors[key]) for key in telling))
        found[id(arm)] = ", ".join(filter(None, (network, label))) or "the only arm"
    return found


def short_name(name: str, base: str) -> str:
    """A network in numbers by what differs from another: d8 for w32d8m64h2/4 beside w32d2m64h2/4."""
    sizes, others = _NETWORK.match(name), _NETWORK.match(base)
    if not sizes or not others or name == base:
        return name
    parts = [part for part, other in zip(sizes.groups(), others.groups(), strict=True) if part != other]
    return (" ".join(parts) or "the same") + name[sizes.end() :]


def place_text(axis: str, x: float) -> str:
    """A place on an axis, costs with their unit and to three digits: 1,024, 1.27 TFLOP, 2.5×, 1.3 M, 12.3 s."""
    if axis not in MEASURED:
        return labels.value_label(axis, int(x) if float(x).is_integer() else x)
    if axis in ("train_flops", "parameters"):
        from matplotlib.ticker import EngFormatter  # few commands write costs, and matplotlib takes long to load

        return EngFormatter("FLOP" if axis == "train_flops" else "")(float(f"{x:.3g}")).strip()
    text = f"{x:.3g}" if x < 100 else f"{x:,.0f}"
    return f"{text}×" if axis == RELATIVE else f"{text} s"
