"""`vitexp diff`: what makes two runs different, on one screen."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.record import RECORD_NAME, RunRecord, canonical, flatten, read_answers, read_record, result_config
from vitexp.report import words
from vitexp.report.tables import footnote
from vitexp.study.arm import spelling

# On how many images two runs agree, from the answers saved beside their records.

Located = tuple[RunRecord, Path]


def compare_answers(one: Located, other: Located) -> list[str]:
    """For each metric for which both runs have saved answers, how many images both, one, or neither got right."""
    (a, folder), (b, beside) = one, other
    shared = [metric for metric in a.answers if metric in b.answers]
    return [f"{metric}: {_compared(a, folder, b, beside, metric)}." for metric in shared]


def _compared(a: RunRecord, folder: Path, b: RunRecord, beside: Path, metric: str) -> str:
    order = a.answers[metric].get("order")
    if order is None or order != b.answers[metric].get("order"):
        return "the runs measured other images, or in another order, so single images are not compared"
    try:
        pairs = list(zip(read_answers(folder, a, metric), read_answers(beside, b, metric), strict=True))
    except ValueError as error:
        return str(error)
    both, only_a, only_b = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    neither = len(pairs) - both - only_a - only_b
    return f"of {len(pairs):,} images both right {both:,}, only A {only_a:,}, only B {only_b:,}, neither {neither:,}"


MOST_ROWS = 40
SIDES = ("A", "B")
_LENGTHS = ("planned_steps", "steps", "images_seen", "epochs", "train_seconds", "parameters", "train_flops")
Facts = Mapping[str, Any]
Pair = tuple[Any, Any]


def show_difference(one: str | Path, other: str | Path) -> RenderableType:
    """The runs in two folders beside each other.

    Raises: ValueError where one is not there or damaged.
    """
    folders = _folder(one), _folder(other)
    a, b = map(read_record, folders)
    settings = _differing(flatten(a.config), flatten(b.config))
    counted = [key for key in settings if key in result_config(a.config) or key in result_config(b.config)]
    groups = {"config": {f"{key} (neutral)" if key not in counted else key: pair for key, pair in settings.items()}}
    for title in ("code", "data", "versions", "device", "learning"):
        groups[title] = _differing(*(flatten(getattr(run, title)) for run in (a, b)))
    groups["length and cost"] = _differing(*({key: getattr(run, key) for key in _LENGTHS} for run in (a, b)))
    alike = [title for title, differing in groups.items() if not differing]
    return Group(
        _heading("A", folders[0], a),
        _heading("B", folders[1], b),
        Text(),
        Text(_summary(a, b, counted, settings), style="bold"),
        _table(groups, a.metrics, b.metrics),
        *([footnote(f"No difference in {', '.join(alike)}.")] if alike else []),
        *map(footnote, compare_answers((a, folders[0]), (b, folders[1]))),
    )


def _folder(place: str | Path) -> Path:
    path = Path(place)
    folder = path.parent if path.name == RECORD_NAME else path
    if not (folder / RECORD_NAME).is_file():
        raise ValueError(f"{place} holds no {RECORD_NAME}; give the folder of a run, such as runs/STUDY/CELL/seed-0")
    return folder


def _heading(side: str, folder: Path, run: RunRecord) -> Text:
    status = f"{run.status} ({run.reason})" if run.reason else run.status
    parts = [f"study {run.study}", f"cell {run.cell}", f"seed {run.seed}", status, f"fingerprint {run.fingerprint}"]
    return Text.assemble((f"{side}  {folder}", "bold"), f"\n   {' · '.join(parts)}")


def _summary(a: RunRecord, b: RunRecord, counted: Iterable[str], settings: Iterable[str]) -> str:
    """Whether both are the same run by their fingerprints, and which settings make them different ones."""
    keys, neutral = list(counted), [key for key in settings if key not in counted]
    if keys:
        count = "1 setting that counts differs" if len(keys) == 1 else f"{len(keys)} settings that count differ"
        text = f"different configs: {count} ({', '.join(keys[:6])}{', ...' * (len(keys) > 6)})"
        return text + "; yet the records give the same fingerprint" * (a.fingerprint == b.fingerprint)
    if a.fingerprint != b.fingerprint:
        return "different fingerprints, though no setting that counts differs: the records were made by different code"
    only = f"; only neutral settings differ, which change no number ({len(neutral)})" if neutral else ""
    return f"same fingerprint {a.fingerprint}" + (only or "; no setting differs")


def _differing(one: Facts, other: Facts) -> dict[str, Pair]:
    """The keys whose values differ, with both values; what only one side has is None on the other."""
    keys = dict.fromkeys([*one, *other])
    pairs = {key: (one.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if _differ(key, *pair)}


def _differ(key: str, one: Any, other: Any) -> bool:
    """Whether two values mean different things; 1 and 1.0 do where they are numbers of batches and shares."""
    return spelling(canonical(key, one)) != spelling(canonical(key, other))


def _table(groups: Mapping[str, Mapping[str, Pair]], one: Facts, other: Facts) -> RichTable:
    """What differs, group by group, and at last all metrics, equal ones too."""
    table = RichTable("", *SIDES, "B − A", box=box.HORIZONTALS, pad_edge=False, header_style="")
    for title, differing in groups.items():
        for key, pair in list(differing.items())[:MOST_ROWS]:
            table.add_row(key, *map(_text, pair), "")
        if len(differing) > MOST_ROWS:
            table.add_row(f"and {len(differing) - MOST_ROWS} more in {title}", "", "", "")
        table.add_section()
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        texts = ["–" if value is None else words.number(value, name) for value in (a, b)]
        change = "" if a is None or b is None else words.signed(b - a, name)
        table.add_row(name + (" (%)" if words.is_share(name) else ""), *texts, change)
    return table


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
