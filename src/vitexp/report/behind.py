"""What is behind a number of the HTML report: its runs, what makes its arm another than the baseline, what made the
runs, what they cost, and the commands that make them again."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitexp.record import RunRecord
from vitexp.report import labels, plot
from vitexp.report.markup import as_html as escape
from vitexp.report.markup import html_table
from vitexp.report.view import NOTHING, arm_label
from vitexp.study.arm import Arm, spelling
from vitexp.study.table import Table

_LISTED = ("seed", "fingerprint", "steps", "seconds", "started")
AGAIN = "runs-again"
"""Folder in which the printed commands train: in their own one a finished run is not trained again."""


def panel(table: Table, arm: Arm, baseline: Arm | None, identity: str, root: str) -> str:
    """The panel of an arm, hidden until a button opens it; it needs no script."""
    title = arm_label(table, arm)
    parts = [
        f'<div popover role="dialog" class="panel" id="{identity}" aria-labelledby="{identity}-title">',
        f'<button type="button" class="close" popovertarget="{identity}" popovertargetaction="hide">Close</button>',
        f'<h3 id="{identity}-title">{escape(title)}</h3>',
        _runs(table, arm),
        f'<div class="curves">{plot.learning(arm.runs)}</div>',
        f"<h4>Config beside the baseline</h4>{_difference(arm, baseline)}",
        f"<h4>What made it</h4>{_facts(arm)}",
        f"<h4>To make it again</h4>{_commands(table, arm, root)}</div>",
    ]
    return "".join(parts)


def _runs(table: Table, arm: Arm) -> str:
    metrics = table.study.config.metrics
    rows = [
        [
            str(seed),
            *(number(run, metric) for metric in metrics),
            f"<code>{escape(run.fingerprint)}</code>",
            NOTHING if run.steps is None else f"{run.steps:,}",
            seconds(run),
            escape(run.started[:19].replace("T", " ") or NOTHING)
            + (f" ({why})" if (why := _untrained(arm, seed)) else ""),
        ]
        for seed, run in sorted(arm.runs.items())
    ]
    blank = [NOTHING] * (len(metrics) + len(_LISTED) - 2)
    rows += [[str(seed), *blank, escape(why)] for seed, why in arm.unfinished.items()]
    header = [_LISTED[0], *map(labels.metric_label, metrics), *_LISTED[1:]]
    return html_table(header, rows, caption="Runs behind the number")


def _untrained(arm: Arm, seed: int) -> str:
    return f" (did not train: {escape(arm.untrained[seed])})" if seed in arm.untrained else ""


def number(run: RunRecord, metric: str) -> str:
    """A metric of one run."""
    return labels.number(run.metrics[metric], metric) if metric in run.metrics else NOTHING


def seconds(run: RunRecord) -> str:
    """How long a run trained."""
    return NOTHING if run.train_seconds is None else f"{run.train_seconds:.1f}"


def commit(run: RunRecord) -> str:
    """The first digits of the commit, with a sign where files were changed since."""
    return str(run.code.get("commit") or NOTHING)[:7] + "+" * bool(run.code.get("dirty"))


def _difference(arm: Arm, baseline: Arm | None) -> str:
    """The settings that can change a number and differ from the baseline's, seed apart."""
    if arm is baseline:
        return "<p>It is the baseline.</p>"
    if baseline is None or not arm.settings or not baseline.settings:
        return "<p>There is no finished run of a baseline to compare with.</p>"
    ours, theirs = (next(iter(one.settings.values())) for one in (arm, baseline))
    keys = [key for key in {**theirs, **ours} if spelling(theirs.get(key)) != spelling(ours.get(key))]
    rows = [[f"<code>{escape(key)}</code>", *(escape(_value(side, key)) for side in (theirs, ours))] for key in keys]
    return html_table(["option", "baseline", "this arm"], rows) if rows else "<p>They do not differ.</p>"


def _value(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "(default)"


def _facts(arm: Arm) -> str:
    """What made the runs, with the seeds where they differ."""
    facts: dict[str, Callable[[RunRecord], Any]] = {
        "data": _data,
        "data fingerprint": lambda run: run.data.get("shards_fingerprint"),
        "training images": lambda run: run.data.get("subset_fingerprint"),
        "order of test images": lambda run: (run.data.get("order_fingerprints") or {}).get("test"),
        "source": lambda run: run.code.get("source"),
        "commit": _code,
        "versions": lambda run: ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "device": lambda run: ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.device.items()),
        "cost": _cost,
        "tuned": lambda run: ", ".join(f"{key} {value}" for key, value in arm.tuned.items()),
    }
    lines = [(name, _shared(arm.runs, read)) for name, read in facts.items()]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in lines if text) + "</dl>"


def _code(run: RunRecord) -> str:
    changed = " with changes" if run.code.get("dirty") else ""
    return f"{run.code['commit']}{changed}" if run.code.get("commit") else ""


def _data(run: RunRecord) -> str:
    counts = {split: run.data.get(f"{split}_images") for split in ("train", "val", "test")}
    return ", ".join(
        [str(run.data.get("name", NOTHING)), *(f"{n:,} {split} images" for split, n in counts.items() if n)]
    )


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


def _commands(table: Table, arm: Arm, root: str) -> str:
    """One command for the study, which trains what is missing, and one for each run, which trains it anew."""
    path = table.study.path
    lines = [f"vitexp sweep {_quoted(path)} --root {_quoted(root)}"] if path.is_file() else []
    configs = [
        Path(run.directory) / run.files["config"]
        for run in arm.runs.values()
        if run.directory and "config" in run.files
    ]
    lines += [f"vitexp fit --config {_quoted(config)} --run.root {AGAIN}" for config in configs]
    if not lines:
        return "<p>The records do not say where the configs of these runs lie.</p>"
    shown = "\n".join(map(escape, lines))
    return f'<pre tabindex="0">{shown}</pre>'


def _quoted(path: str | Path) -> str:
    return shlex.quote(str(path))
