"""`vitexp robustness`: the arms of a study on changed test images, as a table and as a figure.

The networks are measured by a function of a lower floor that is handed in. Clean accuracy and what study.primary names
are the family that verdicts are corrected over; every other column is exploratory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vitexp import stats
from vitexp.metrics import CORRUPTIONS, ROBUST, change
from vitexp.record import RECORD_NAME, RunRecord, read_record
from vitexp.report import labels
from vitexp.report.draw_robustness import draw_robustness
from vitexp.report.footnotes import baseline_text, footnotes
from vitexp.report.markup import visible
from vitexp.report.tables import Where, Written, print_written, write_view
from vitexp.report.view import CellView, Section, View, arm_label, cell_view, seed_counts, shared_setting
from vitexp.robust import Subject
from vitexp.study.comparison import Comparisons, answers_of, other_images
from vitexp.study.frame import fact
from vitexp.study.select import found_study, select, study_folders
from vitexp.study.spec import Study, as_study
from vitexp.study.table import Entry, Table, check_finished, make_table, primary
from vitexp.study.tune import tune

Measure = Callable[[Sequence[Subject], Subject | None, Any], list[dict[str, float]]]
CLEAN = "test_acc"
_MOST_COLUMNS = 5
_WIDE = "one network each, so no interval: give a study for the differences between arms"


class Group(NamedTuple):
    """Tests that stand side by side: how their names begin, what they have in common, and each one's heading."""

    prefix: str
    title: str
    heading: str


GROUPS = (
    Group("shuffle_", "Pieces of a grid shuffled", "{}"),
    Group("drop_", "Patches blanked at random", "{} %"),
    Group("salient_", "Most salient patches blanked", "{} %"),
    Group("nonsalient_", "Least salient patches blanked", "{} %"),
    Group("attended_", "Patches blanked that each attends to most", "{} %"),
    Group("translate_", "Moved, in parts of the side", "{}/8"),
    Group("rotate_", "Turned, in degrees", "{}°"),
    Group("scale_", "Shrunk to a part of the side", "{} %"),
    Group("data_", "Other images of the same classes", "{}"),
    *(Group(f"{whose}{name}_", name.replace("_", " "), "{}") for whose in ("", "ours_") for name in CORRUPTIONS),
    Group("fgsm_", "FGSM, limit in pixels", "{}/255"),
    Group("pgd_", "PGD, limit in pixels", "{}/255"),
    Group("patch_", "Universal adversarial patch, in parts of the side", "{} %"),
)


def show_robustness(chosen: Any, measure: Measure) -> int:
    """Measures what is missing, prints and writes tables and figures.

    Raises: ValueError before anything is measured, for subjects that have no table.
    """
    if wrong := [ratio for ratio in chosen.ratios if not 0 < ratio <= 100]:
        raise ValueError(f"--ratios is {wrong[0]}; give shares of the patches in %, from 1 to 100")
    studies = {one: _studies(one, Path(chosen.root)) for one in chosen.subjects}
    singles = [_single(one, Path(chosen.out)) for one, found in studies.items() if not found]
    for study, root, tested in [(*one, _subjects(*one)) for each in studies.values() for one in each]:
        measure(*tested, chosen)
        print_written(write_robustness(study, root, chosen.out))
    if singles:
        for subject, found in zip(singles, measure(singles, None, chosen), strict=True):
            print(visible(f"{subject.name} ({_WIDE})"))
            print(*(f"{100 * value:6.2f} %  {change(name)}" for name, value in found.items()), sep="\n")
    return 0


def _studies(given: str, root: Path) -> list[tuple[Study, Path]]:
    """The studies that a word names, by a sweep file or a folder of runs; none where it is a run or a checkpoint."""
    path = Path(given)
    if path.suffix in (".yaml", ".yml"):
        return [(as_study(path), root)]
    folders = [] if (path / RECORD_NAME).is_file() else study_folders(path) if path.is_dir() else []
    return [(found_study(folder), folder.parent) for folder in folders]


def _subjects(study: Study, root: Path) -> tuple[list[Subject], Subject]:
    """The finished runs of a study, and the one of its baseline whose gradient tells what is salient.

    Raises: ValueError where there is none, or one has kept no checkpoint.
    """
    selection = tune(select(study, root))
    check_finished(selection)
    if not any(arm.values(CLEAN) for arm in selection.arms):
        raise ValueError(
            f"no run of {study.name} holds {CLEAN}, beside which the tests stand: train with run.test true"
        )
    found = [(arm, _subject(run)) for arm in selection.arms for _, run in sorted(arm.runs.items())]
    base = Comparisons(selection.arms, study.config).baseline_of(selection.arms[0]) or selection.arms[0]
    reference = next((one for arm, one in found if arm is base), found[0][1])
    return [one for _, one in found], reference


def _subject(run: RunRecord, name: str = "") -> Subject:
    folder = Path(str(run.directory))
    checkpoint = folder / run.files.get("checkpoint", "")
    if not checkpoint.is_file():
        raise ValueError(
            f"{folder} has no checkpoint to test; train it again with run.checkpoint true, which is the default"
        )
    return Subject(name=name or str(folder), checkpoint=checkpoint, folder=folder, record=run)


def _single(given: str, out: Path) -> Subject:
    """A run by its folder, or a checkpoint: what is found lies beside the run, or in the folder of results.

    Raises: ValueError where there is neither.
    """
    path = Path(given)
    folder = path if path.is_dir() else path.parent.parent
    if (folder / RECORD_NAME).is_file():
        found = _subject(read_record(folder), given)
        if path.is_dir() or path.resolve() == found.checkpoint.resolve():
            return found
    if not path.is_file():
        raise ValueError(f"{given} is no sweep file, no folder of runs and no checkpoint")
    alone = Subject(name=given, checkpoint=path, folder=out)
    return replace(alone, folder=out / f"{path.stem}-{alone.digest[:8]}")  # many files are called last.ckpt


def write_robustness(study: Study, root: Path, results: str | Path) -> Written:
    """Writes results/NAME/robustness.{md,csv,tex,png,svg}. Raises: ValueError where nothing was measured."""
    table = robust_table(study, root)
    folder = Path(results) / study.name
    written = write_view(table, robust_view(table), folder / "robustness")
    pictures = draw_robustness(table, levels(table), folder)
    return Written(written.renderable, (*written.paths, *pictures))


def robust_table(study: Study, root: Path, where: Where = None) -> Table:
    """The table of a study over clean accuracy and every test that any of its runs has."""
    arms = select(study, root, where).arms
    held = {name for arm in arms for run in arm.runs.values() for name in run.metrics if change(name)}
    held -= {f"{ROBUST}clean"}
    ordered = list(_ordered(held))
    if not ordered:
        raise ValueError(f"no run of {study.name} was tested; run `vitexp robustness` on it first")
    named = [name for name in primary(study.config) if name in ordered]
    config = replace(study.config, metrics=[CLEAN, *ordered], primary=[CLEAN, *named], paper="", groups={})
    return make_table(replace(study, config=config), root, where)


def _ordered(held: set[str]) -> Iterator[str]:
    for group in GROUPS:
        levels = [name for name in held if _level(name, group)]
        yield from sorted(levels, key=lambda name: (len(name), name), reverse=group.prefix == "scale_")
    yield from sorted(name for name in held if change(name).endswith("mean of five severities"))


def _level(name: str, group: Group) -> str:
    """What follows the beginning of a group's names; empty for a test of another group."""
    start = ROBUST + group.prefix
    return name.removeprefix(start) if name.startswith(start) else ""


def robust_view(table: Table) -> View:
    """Clean accuracy with compute, then a grid for each group of tests; corruptions by the means of their families."""
    short = replace(table, entries={name: table.entries[name] for name in primary(table.study.config)}, means={})
    sections = [_clean(table), *_grids(table), *_corruption_errors(table)]
    notes = [
        *footnotes(short, None, False),
        _sameness(table),
        f"Exploratory: every column that is not marked as primary; primary are "
        f"{', '.join(map(labels.metric_label, primary(table.study.config)))}.",
    ]
    return View(
        name=f"{table.study.name}-robustness",
        title=f"{labels.title(table.study)}: robustness",
        setting=shared_setting(table.arms),
        cautions=labels.cautions(table.cautions),
        sections=tuple(sections),
        footnotes=tuple(notes),
    )


def _sameness(table: Table) -> str:
    """Whether what is below one heading is one test."""
    runs = [run for arm in table.arms for run in arm.runs.values()]
    held = ([(name, run) for run in runs if name in run.metrics] for name in table.entries if change(name))
    pairs = ((name, other_images(first, run, name)) for (name, first), *more in held for _, run in more)
    own = "only FGSM, PGD, the patch and what a network itself attends to are each network's own"
    for name, why in pairs:
        if why:
            return f"NOT every network saw the same changed images: {change(name)}, {why}. Measure all runs in one go."
    return f"Every network saw the same changed images; {own}."


def _clean(table: Table) -> Section:
    entries = table.entries[CLEAN]
    costs = [fact(entry.arm, "train_flops") for entry in entries]
    sizes = [fact(entry.arm, "parameters") for entry in entries]
    return Section(
        title=labels.headline(CLEAN, seed_counts(entries)) + "; primary",
        corner="arm",
        rows=tuple((arm_label(table, entry.arm), (cell_view(entry),)) for entry in entries),
        facts={
            "training TFLOPs": ["" if cost is None else f"{cost / 1e12:.3g}" for cost in costs],
            "parameters": ["" if size is None else f"{size:,.0f}" for size in sizes],
        },
    )


def levels(table: Table) -> Iterator[tuple[str, dict[str, str]]]:
    """The title of each group and its tests with their headings; corruptions with a mean over severities are none."""
    for group in GROUPS:
        names = [name for name in table.entries if _level(name, group)]
        if names and ROBUST + group.prefix.removesuffix("_") not in table.entries:
            yield group.title, {name: group.heading.format(_level(name, group)) for name in names}


def _grids(table: Table) -> Iterator[Section]:
    yield from (_grid(table, title, headings) for title, headings in levels(table))
    means = [name for name in table.entries if change(name).endswith("mean of five severities")]
    for start in range(0, len(means), _MOST_COLUMNS - 1):
        some = means[start : start + _MOST_COLUMNS - 1]
        headings = {name: change(name).partition(",")[0] for name in some}
        yield _grid(table, "Corruptions, mean of five severities", headings)


def _grid(table: Table, title: str, headings: dict[str, str]) -> Section:
    judged = primary(table.study.config)
    counts = [count for name in headings for count in seed_counts(table.entries[name])]
    arms = [arm_label(table, entry.arm) for entry in table.entries[CLEAN]]
    cells = zip(*([_cell(entry) for entry in table.entries[name]] for name in headings), strict=True)
    runs = [run for arm in table.arms for run in arm.runs.values()]
    images = sorted({one["images"] for run in runs for name in headings for one in answers_of(run, name).values()})
    shown = f", {labels.span(images)} test images" if images else ""
    return Section(
        title=f"{title}: top-1 accuracy, %: mean ± 95 % interval, n = {labels.span(counts)} seeds{shown}",
        corner="arm",
        columns=tuple(f"{text}, primary" if name in judged else text for name, text in headings.items()),
        rows=tuple(zip(arms, cells, strict=True)),
    )


def _cell(entry: Entry) -> CellView:
    """A network without attention has no patches that it attends to."""
    return cell_view(entry) if entry.interval else CellView(mean="not measured", baseline=entry.is_baseline)


def _corruption_errors(table: Table) -> Iterator[Section]:
    """Mean corruption error: of each family the errors over the five severities as a share of the baseline's, and the
    mean over families; the baseline's are means over its seeds. Source: Hendrycks and Dietterich 2019, section 4.2.
    """
    bases = [place for place, entry in enumerate(table.entries[CLEAN]) if entry.is_baseline]
    if len(bases) != 1:  # shares of different baselines do not stand in one column
        return
    base = bases[0]
    errors = [
        [{seed: 1 - right for seed, right in entry.values.items()} for entry in entries]
        for name, entries in table.entries.items()
        if change(name).endswith("mean of five severities") and all(entry.values for entry in entries)
        if not any(entry.left_out for entry in entries)
    ]
    parts = [(family, mean) for family in errors if (mean := math.fsum(family[base].values()) / len(family[base]))]
    if not parts:
        return
    rows = []
    for place, first in enumerate(table.entries[CLEAN]):
        seeds = sorted(set.intersection(*(set(family[place]) for family, _ in parts)))
        shares = [100 * math.fsum(family[place][seed] / mean for family, mean in parts) / len(parts) for seed in seeds]
        found = stats.interval(shares) if shares else None
        half = f" ± {found.high - found.mean:.1f}" if found and found.high is not None else ""
        cell = CellView(mean=f"{found.mean:.1f}{half}" if found else "–", baseline=first.is_baseline)
        rows.append((arm_label(table, first.arm), (cell,)))
    left = len(errors) - len(parts)
    without = f" (without {left} in which it makes no error)" if left else ""
    title = f"Mean corruption error over {len(parts)} families{without}, % of that of {baseline_text(table)}"
    yield Section(title=f"{title}; exploratory", corner="arm", rows=tuple(rows))
