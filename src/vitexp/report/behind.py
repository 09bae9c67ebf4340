"""What is behind a number of the HTML report: its runs, what makes its arm another than the baseline, what made the
runs, what they cost, and the commands that make them again."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitexp.record import RunRecord
from vitexp.report import labels, plot
from vitexp.report.footnotes import commit
from vitexp.report.markup import as_html
from vitexp.report.view import NOTHING, arm_label
from vitexp.study.arm import Arm, spelling
from vitexp.study.csv_runs import is_csv
from vitexp.study.table import Table

AGAIN = "runs-again"
"""Folder in which the printed commands train: in their own one a finished run is not trained again."""


def key_of(arm: Arm) -> str:
    """What an arm is called by in the tables of one study."""
    return str(arm.factors)


def panels(table: Table, ids: Mapping[str, str], root: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What stands behind each arm, and the facts that all arms share."""
    baselines = {id(one.arm): one.baseline for entries in table.entries.values() for one in entries}
    points = plot.points_of_a_curve(table)
    facts = [_facts(arm) for arm in table.arms]
    shared = {name: text for name, text in facts[0].items() if all(one[name] == text for one in facts)}
    found = [
        {
            "id": ids[key_of(arm)],
            "title": ", ".join(filter(None, (arm_label(table, arm), labels.label_text(tuple(arm.tuned.items()))))),
            "runs": _runs(table, arm),
            "curves": plot.learning(arm.runs, points),
            "beside": _beside(arm, baselines.get(id(arm))),
            "facts": {name: text for name, text in made.items() if name not in shared},
            "commands": _commands(table, arm, root),
        }
        for arm, made in zip(table.arms, facts, strict=True)
    ]
    return found, shared


def _runs(table: Table, arm: Arm) -> tuple[list[str], list[list[str]]]:
    """A row for each seed of an arm; of a missing run the reason alone."""
    metrics = table.study.config.metrics
    header = ["seed", *map(labels.metric_label, metrics), *_FACTS]
    rows = []
    for seed, run in sorted(arm.runs.items()):
        why = f" (did not train: {arm.untrained[seed]})" if seed in arm.untrained else ""
        values = [labels.number(run.metrics[name], name) if name in run.metrics else NOTHING for name in metrics]
        rows.append([str(seed) + why, *values, *(read(run) or NOTHING for read in _FACTS.values())])
    blank = [*([NOTHING] * len(metrics)), *([""] * (len(_FACTS) - 1))]
    return header, rows + [[str(seed), *blank, why] for seed, why in arm.unfinished.items()]


def _count(fact: str) -> Callable[[RunRecord], str]:
    return lambda run: "" if getattr(run, fact) is None else f"{getattr(run, fact):,}"


_FACTS: dict[str, Callable[[RunRecord], str]] = {
    "parameters": _count("parameters"),
    "steps": _count("steps"),
    "images seen": _count("images_seen"),
    "seconds": lambda run: "" if run.train_seconds is None else f"{run.train_seconds:.1f}",
    "run": lambda run: as_html("<code>{}</code>", run.fingerprint),
    "commit": commit,
    "started": lambda run: run.started[:19].replace("T", " "),
}


def _beside(arm: Arm, baseline: Arm | None) -> str | list[list[str]]:
    """The settings that can change a number and differ from the baseline's, seed apart; or why there is none."""
    if arm is baseline:
        return "It is the baseline."
    if baseline is None or not arm.settings or not baseline.settings:
        return "There is no finished run of a baseline to compare with."
    ours, theirs = (next(iter(one.settings.values())) for one in (arm, baseline))
    keys = [key for key in {**theirs, **ours} if spelling(theirs.get(key)) != spelling(ours.get(key))]
    rows = [[key, *(str(side.get(key, "(default)")) for side in (theirs, ours))] for key in keys]
    return rows or "They do not differ."


def _facts(arm: Arm) -> dict[str, str]:
    """What made the runs, with the seeds where they differ."""
    facts: dict[str, Callable[[RunRecord], Any]] = {
        "data": _data,
        "data fingerprint": lambda run: run.data.get("shards_fingerprint"),
        "training images": lambda run: run.data.get("subset_fingerprint"),
        "order of test images": lambda run: (run.data.get("order_fingerprints") or {}).get("test"),
        "source": lambda run: run.code.get("source"),
        "commit": lambda run: (run.code.get("commit") or "") + " with changes" * bool(run.code.get("dirty")),
        "versions": lambda run: ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "device": lambda run: ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.device.items()),
        "cost": _cost,
        "tuned": lambda run: ", ".join(f"{key} {value}" for key, value in arm.tuned.items()),
    }
    return {name: _shared(arm.runs, read) for name, read in facts.items()}


def _data(run: RunRecord) -> str:
    counts = [f"{n:,} {kind} images" for kind in ("train", "val", "test") if (n := run.data.get(f"{kind}_images"))]
    return ", ".join([str(run.data.get("name", NOTHING)), *counts])


def _cost(run: RunRecord) -> str:
    """Size and length of a run; seconds are in the list of runs."""
    counts = {"parameters": run.parameters, "steps": run.steps, "images seen": run.images_seen}
    known = [f"{count:,} {name}" for name, count in counts.items() if count is not None]
    return ", ".join([*known, *([f"{run.train_flops:.3g} FLOPs of training"] if run.train_flops else [])])


def _shared(runs: Mapping[int, RunRecord], read: Callable[[RunRecord], Any]) -> str:
    held: dict[str, list[int]] = {}
    for seed, run in sorted(runs.items()):
        held.setdefault(str(read(run) or ""), []).append(seed)
    if len(held) == 1:
        return next(iter(held))
    return "; ".join(f"{text or NOTHING} (seeds {labels.seeds_text(seeds)})" for text, seeds in held.items())


def _commands(table: Table, arm: Arm, root: str) -> list[str]:
    """One command for the study, which trains what is missing, and one for each run, which trains it anew."""
    path = table.study.path
    again = [["vitexp", "sweep", str(path), "--root", root]] if path.is_file() and not is_csv(path) else []
    again += [
        ["vitexp", "fit", "--config", str(Path(run.directory) / run.files["config"]), "--run.root", AGAIN]
        for run in arm.runs.values()
        if run.directory and "config" in run.files
    ]
    return [shlex.join(words) for words in again]
