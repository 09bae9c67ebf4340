"""`vitexp diff`: what makes two runs different, on one screen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.bits import read_answers
from vitexp.record import RECORD_NAME, RunRecord, canonical, flatten, read_record, result_config
from vitexp.report import labels
from vitexp.report.tables import footnote, lines
from vitexp.study.arm import spelling

MOST_ROWS = 40
_FACTS = ("code", "data", "versions", "device", "learning")
_LENGTHS = ("planned_steps", "steps", "images_seen", "epochs", "train_seconds", "parameters", "train_flops")
Pair = tuple[Any, Any]


def show_difference(one: str | Path, other: str | Path) -> RenderableType:
    """The runs in two folders beside each other.

    Raises: ValueError where one is not there or damaged.
    """
    folders = [_folder(one), _folder(other)]
    a, b = runs = [read_record(folder) for folder in folders]
    settings = _differing(*(flatten(run.config) for run in runs))
    counted = [key for key in settings if any(key in result_config(run.config) for run in runs)]
    groups = {"config": {key + " (neutral)" * (key not in counted): pair for key, pair in settings.items()}}
    groups |= {title: _differing(*(flatten(getattr(run, title)) for run in runs)) for title in _FACTS}
    groups["length and cost"] = _differing(*({key: getattr(run, key) for key in _LENGTHS} for run in runs))
    alike = [title for title, differing in groups.items() if not differing]
    return Group(
        *map(_heading, "AB", folders, runs),
        Text(),
        Text(_summary(a, b, counted, len(settings) - len(counted)), style="bold"),
        _table(groups, a.metrics, b.metrics),
        *([footnote(f"No difference in {', '.join(alike)}.")] if alike else []),
        *(footnote(f"{metric}: {_answers(runs, folders, metric)}.") for metric in a.answers if metric in b.answers),
    )


def _folder(given: str | Path) -> Path:
    path = Path(given)
    folder = path.parent if path.name == RECORD_NAME else path
    if not (folder / RECORD_NAME).is_file():
        raise ValueError(f"{given} holds no {RECORD_NAME}; give the folder of a run, such as runs/STUDY/CELL/seed-0")
    return folder


def _heading(side: str, folder: Path, run: RunRecord) -> Text:
    status = f"{run.status} ({run.reason})" if run.reason else run.status
    parts = [f"study {run.study}", f"cell {run.cell}", f"seed {run.seed}", status, f"fingerprint {run.fingerprint}"]
    return Text.assemble((f"{side}  {folder}", "bold"), f"\n   {' · '.join(parts)}")


def _summary(a: RunRecord, b: RunRecord, counted: Sequence[str], neutral: int) -> str:
    """Whether both are the same run by their fingerprints, and which settings make them different ones."""
    same = a.fingerprint == b.fingerprint
    if counted:
        count = "1 setting that counts differs" if len(counted) == 1 else f"{len(counted)} settings that count differ"
        text = f"different configs: {count} ({', '.join(counted[:6])}{', ...' * (len(counted) > 6)})"
        return text + "; yet the records give the same fingerprint" * same
    if not same:
        return "different fingerprints, though no setting that counts differs: the records were made by different code"
    only = f"only neutral settings differ, which change no number ({neutral})" if neutral else "no setting differs"
    return f"same fingerprint {a.fingerprint}; {only}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    """The keys whose values mean different things, with both values; what only one side has is None on the other.

    1 and 1.0 do where they are numbers of batches and shares.
    """
    pairs = {key: (one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])}
    return {k: pair for k, pair in pairs.items() if len({spelling(canonical(k, value)) for value in pair}) > 1}


def _table(groups: Mapping[str, Mapping[str, Pair]], one: Mapping[str, float], other: Mapping[str, float]) -> RichTable:
    """What differs, group by group, and at last all metrics, equal ones too."""
    table = lines(("", "A", "B", "B − A"))
    for title, differing in groups.items():
        for key, pair in list(differing.items())[:MOST_ROWS]:
            table.add_row(key, *map(_text, pair), "")
        if len(differing) > MOST_ROWS:
            table.add_row(f"and {len(differing) - MOST_ROWS} more in {title}", "", "", "")
        table.add_section()
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        texts = ["–" if value is None else labels.number(value, name) for value in (a, b)]
        change = "" if a is None or b is None else labels.signed(b - a, name)
        table.add_row(name + " (%)" * labels.is_share(name), *texts, change)
    return table


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _answers(runs: Sequence[RunRecord], folders: Sequence[Path], metric: str) -> str:
    """On how many images two runs agree, from the answers saved beside their records."""
    orders = {run.answers[metric].get("order") for run in runs}
    if len(orders) > 1 or None in orders:
        return "the runs measured other images, or in another order, so single images are not compared"
    try:
        right = [read_answers(folder, run, metric) for folder, run in zip(folders, runs, strict=True)]
        pairs = list(zip(*right, strict=True))
    except ValueError as error:
        return str(error)
    both, only_a, only_b, neither = (pairs.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0)))
    return f"of {len(pairs):,} images both right {both:,}, only A {only_a:,}, only B {only_b:,}, neither {neither:,}"
