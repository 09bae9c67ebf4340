"""A study as a part of the HTML report: its tables, pictures, claims, runs, and what other commands found in it."""

import base64
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitexp.report import behind, claims_text, labels, plot, style
from vitexp.report.curve_text import readings
from vitexp.report.draw_curve import draw_curve
from vitexp.report.found import found_files
from vitexp.report.markup import as_html as escape
from vitexp.report.markup import html_table
from vitexp.report.tables import Where
from vitexp.report.view import NOTHING, CellView, Section, arm_label, make_view
from vitexp.study.arm import Arm
from vitexp.study.claims.claims import CLAIMS
from vitexp.study.claims.verdicts import ClaimVerdict, judge_claims
from vitexp.study.curve import has_curve, make_curve
from vitexp.study.select import Root, Runs, select
from vitexp.study.spec import Study
from vitexp.study.table import Table

_CLAIMS = "What it says about the claims of the ViT paper"
_COLUMNS = ("verdict", "measured on", "differences", "why")
_FACTS = ("parameters", "steps", "images seen", "seconds", "run", "commit")
Buttons = dict[int, str]
"""The id of the panel of each arm, by that of the arm object."""


def study_section(identity: str, table: Table, runs: Root, results: Path, where: Where) -> str:
    """The section of a study, as markup; ids in it begin with `identity`."""
    view, study = make_view(table), table.study
    buttons = {id(arm): f"{identity}-{i}" for i, arm in enumerate(table.arms, start=1)}
    name = f'<h2 id="{identity}">{escape(view.title)}</h2>'
    parts = [f'<section aria-labelledby="{identity}">{name}<p class="faint">{escape(view.setting)}</p>']
    parts += [f'<p class="caution">{escape(caution)}</p>' for caution in view.cautions]
    parts += [_table(one, buttons) for one in view.sections]
    parts.append(_items(view.footnotes, "notes"))
    parts.append("<h3>Every arm, and its difference to the baseline</h3>")
    parts += [plot.dots(table, metric) for metric in table.entries]
    if has_curve(study):
        parts.append(_curve(study, runs, where))
    parts += [_claims(study, runs, where), found_files(results, study.name), _runs(table, buttons)]
    root = str(runs) if not isinstance(runs, Runs) else "runs"
    baselines = {id(one.arm): one.baseline for entries in table.entries.values() for one in entries}
    parts += [behind.panel(table, arm, baselines.get(id(arm)), buttons[id(arm)], root) for arm in table.arms]
    return "\n".join([*parts, "</section>"])


def _table(section: Section, buttons: Buttons) -> str:
    """A grid or a list of arms, whose means open what is behind them."""
    if section.columns:
        header, rows = section.as_table(escape, lambda cell: _cell(cell, buttons))
        return html_table(header, rows, caption=section.title)
    columns = section.listed()
    cells = [cell for _, (cell, *_) in section.rows if cell is not None]
    shown = {name: list(map(escape, texts)) for name, texts in columns.items()}
    shown["mean"] = [_mean(cell, buttons) for cell in cells]
    return html_table(list(columns), list(map(list, zip(*shown.values(), strict=True))), "rows", section.title)


def _mean(cell: CellView, buttons: Buttons) -> str:
    text = escape(cell.mean)
    arms = [] if cell.entry is None else [cell.entry.arm, *getattr(cell.entry.arm, "members", ())]
    opened = [buttons[id(arm)] for arm in arms if id(arm) in buttons]
    if len(opened) == 1:
        return _button(opened[0], text)
    more = "".join(f"{_button(one, str(i))} " for i, one in enumerate(opened, start=1))
    return f'{text}<span class="faint">of arms {more}</span>' if more else text


def _button(identity: str, text: str) -> str:
    return f'<button type="button" class="open" aria-haspopup="dialog" popovertarget="{identity}">{text}</button>'


def _cell(cell: CellView, buttons: Buttons) -> str:
    note = " ".join(text for text in ("◆" if cell.baseline else "", cell.count) if text)
    kind = cell.verdict.replace(",", " ").partition(" ")[0]
    verdict = f'<span class="{escape(kind)}">{escape(cell.verdict)}</span>' if cell.verdict else ""
    faint = "".join(f'<span class="faint">{escape(text)}</span>' for text in (cell.tuned, cell.paper) if text)
    return f"{_mean(cell, buttons)} {escape(note)}<span>{escape(cell.difference)}</span>{verdict}{faint}"


def _items(texts: Sequence[str], kind: str = "") -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _curve(study: Study, runs: Root, where: Where) -> str:
    curve = make_curve(study, runs, where)
    with style.settings():
        return _picture(f"Against {labels.key_label(curve.axis)}", draw_curve(curve)) + _items(readings(curve))


def _picture(title: str, figure: Figure) -> str:
    """As data of its own, so that the names inside two pictures do not meet."""
    data = base64.b64encode(style.svg(figure)).decode()
    return f'<h3>{escape(title)}</h3><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'


def _claims(study: Study, runs: Root, where: Where) -> str:
    """The claims that the finished runs test, as markup; one sentence where there is none."""
    selection = select(study, runs, where)
    records = tuple(run for arm in selection.arms for run in arm.runs.values())
    report = judge_claims(read=[(study, Runs(location=selection.location, records=records))])
    if not report.verdicts:
        return (
            f'<h3>{_CLAIMS}</h3><p class="faint">Nothing: no claim of the paper is about what this study compares.</p>'
        )
    rows: list[list[str]] = []
    for claim in CLAIMS:
        verdicts = report.of(claim)
        said = f'<b>{escape(claim.sentence)}</b> <span class="faint">{escape(claims_text.paper_words(claim))}</span>'
        rows += [[said], *map(_claim_row, verdicts)] if verdicts else []
    return html_table(_COLUMNS, rows, "claims", _CLAIMS) + _items(claims_text.footnotes(report), "notes")


def _claim_row(found: ClaimVerdict) -> list[str]:
    verdict = f'<b class="{found.verdict.split()[0]}">{escape(found.verdict)}</b>'
    place = claims_text.heading(found).removeprefix(f"{found.study.name} · ")
    contrasts = [map(escape, claims_text.contrast_words(found, one)) for one in found.judged]
    effects = [
        f'<span>{sides}: {effect} <span class="faint">{tests}</span></span>' for sides, effect, tests in contrasts
    ]
    return [verdict, escape(place), "".join(effects), escape(claims_text.why(found))]


def _runs(table: Table, buttons: Buttons) -> str:
    """Every run behind the numbers, and every one that is missing."""
    metrics = table.study.config.metrics
    header = ["arm", "seed", *map(labels.metric_label, metrics), *_FACTS]
    rows = []
    for arm in table.arms:
        label = _button(buttons[id(arm)], escape(_named(table, arm)))
        rows += [[label, str(seed), *_facts(table, arm, seed)] for seed in sorted(arm.runs)]
        blank = [*([NOTHING] * len(metrics)), "", "", "", ""]
        rows += [[label, str(seed), *blank, escape(why), ""] for seed, why in arm.unfinished.items()]
    return html_table(header, rows, "rows", "Runs")


def _named(table: Table, arm: Arm) -> str:
    named = (arm_label(table, arm), labels.label_text(tuple(arm.tuned.items())))
    return ", ".join(text for text in named if text)


def _facts(table: Table, arm: Arm, seed: int) -> list[str]:
    run = arm.runs[seed]
    values = [behind.number(run, metric) for metric in table.study.config.metrics]
    counts = [NOTHING if count is None else f"{count:,}" for count in (run.parameters, run.steps, run.images_seen)]
    codes = [f"<code>{escape(text)}</code>" for text in (run.fingerprint, behind.commit(run))]
    return [*values, *counts, behind.seconds(run), *codes]
