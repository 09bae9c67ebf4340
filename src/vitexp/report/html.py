"""One offline file about a study: its table, pictures, claims, every run. No script, nothing from outside."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.record import RunRecord, write_atomically
from vitexp.report import claims_text, style, words
from vitexp.report.curve_text import AXES, sentences
from vitexp.report.draw_curve import draw_curve
from vitexp.report.draw_dots import draw_dots
from vitexp.report.escape import as_html as escape
from vitexp.report.view import NOTHING, CellView, Section, arm_words, make_view
from vitexp.study.arm import Arm
from vitexp.study.claims.claims import CLAIMS
from vitexp.study.claims.findings import Claim
from vitexp.study.claims.verdicts import ClaimVerdict, make_ledger
from vitexp.study.cost_curve import against_cost, make_cost_curve
from vitexp.study.curve import make_curve, varies_size
from vitexp.study.select import Root, Runs, select
from vitexp.study.spec import Study, as_study
from vitexp.study.table import Table, make_table

# What a study says about the claims of the ViT paper, as a part of its page.

TITLE = "What it says about the claims of the ViT paper"
_COLUMNS = ("verdict", "measured on", "differences", "why")


def claims_section(study: Study, runs: Root, where: Mapping[str, Any] | None = None) -> str:
    """The claims that the finished runs speak to, as markup; one sentence where they speak to none."""
    selection = select(study, runs, where)
    records = tuple(run for arm in selection.arms for run in arm.runs.values())
    ledger = make_ledger(read=[(study, Runs(place=selection.place, records=records))])
    if not ledger.verdicts:
        return f'<h2>{TITLE}</h2><p class="faint">Nothing: no claim of the paper is about what this study compares.</p>'
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = "".join(_rows(claim, lines) for claim in CLAIMS if (lines := ledger.of(claim)))
    notes = "".join(f"<li>{escape(note)}</li>" for note in claims_text.footnotes(ledger))
    table = f'<div class="wide"><table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<h2>{TITLE}</h2>{table}<ul>{notes}</ul>"


def _rows(claim: Claim, lines: Sequence[ClaimVerdict]) -> str:
    """The claim, and below it every line about it."""
    said = f'<b>{escape(claim.sentence)}</b><span class="faint">{escape(claims_text.paper_words(claim))}</span>'
    first = f'<tr><td colspan="{len(_COLUMNS)}">{said}</td></tr>'
    return first + "".join(f"<tr>{_cells(line)}</tr>" for line in lines)


def _cells(line: ClaimVerdict) -> str:
    verdict = f'<b class="{line.verdict.split()[0]}">{escape(line.verdict)}</b>'
    place = claims_text.heading(line).removeprefix(f"{line.study.name} · ")
    found = [map(escape, claims_text.contrast_words(line, one)) for one in line.judged]
    effects = "".join(
        f'<span>{sides}: <b>{effect}</b> <i class="faint">{tests}</i></span>' for sides, effect, tests in found
    )
    return "".join(f"<td>{cell}</td>" for cell in (verdict, escape(place), effects, escape(claims_text.why(line))))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff }}
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem; margin: 0 }} h2 {{ font-size: 1.05rem; margin: 2rem 0 .5rem }} .faint {{ color: #6b6b6b }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }} .wide {{ overflow-x: auto }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #e6e6e6 }}
thead th {{ border-bottom: 1px solid #9a9a9a }} td span {{ display: block }} img {{ max-width: 100%; height: auto }}
.worse {{ color: #a33c00 }} .better {{ color: #00704f }} .equivalent {{ color: #00598c }} li {{ margin: .15rem 0 }}
.contradicts, .differs {{ color: #a33c00 }} .supports {{ color: #00704f }} .cannot, .caution {{ color: #7a5c00 }}
.runs {{ font-size: 12px }} .claims {{ font-size: 14px }} i {{ font-style: normal }} code {{ font-size: .92em }}
</style></head><body>
<h1>{title}</h1><p class="faint">{setting}</p>
{body}
</body></html>
"""


def write_html(
    sweep: str | Path | Study,
    runs: Root = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> Path:
    """The report of the study in `sweep` from the records in `runs`, as results/NAME/report.html.

    Raises: ValueError when the study file is not sound, or the records do not make a table.
    """
    study = as_study(sweep)
    table = make_table(study, runs, where)
    view = make_view(table)
    parts = [f'<p class="caution">{escape(caution)}</p>' for caution in view.cautions]
    parts += [_section(section) for section in view.sections]
    parts.append(_items(view.footnotes))
    with style.settings():
        parts.append(_picture("Every arm, and its difference to the baseline", style.svg(draw_dots(table))))
        if against_cost(study):
            priced = make_cost_curve(study, runs, where)
            read = [text for metric in priced.lines for text in sentences(priced, metric)]
            parts += [_picture(f"Against {AXES[priced.x]}", style.svg(draw_curve(priced))), _items(read)]
        elif varies_size(study):
            curve = make_curve(study, runs, where)
            read = [f"{words.metric_words(m)}: {text}" for m in curve.series for text in sentences(curve, m)]
            parts += [_picture("Against data size", style.svg(draw_curve(curve))), _items(read)]
    parts += [claims_section(study, runs, where), _runs(table)]
    page = _PAGE.format(title=escape(view.title), setting=escape(view.setting), body="\n".join(parts))
    path = Path(results) / study.name / "report.html"
    write_atomically(path, page)
    return path


def _section(section: Section) -> str:
    return f"<h2>{escape(section.title)}</h2>{_table(*section.as_table(escape, _cell))}"


def _cell(cell: CellView) -> str:
    note = " ".join(text for text in ("◆" if cell.baseline else "", cell.count) if text)
    verdict = (
        f'<span class="{escape(cell.verdict.split(",")[0].split()[0])}">{escape(cell.verdict)}</span>'
        if cell.verdict
        else ""
    )
    faint = "".join(f'<span class="faint">{escape(text)}</span>' for text in (cell.tuned, cell.paper) if text)
    return f"<b>{escape(cell.mean)}</b> {escape(note)}<span>{escape(cell.difference)}</span>{verdict}{faint}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table whose header is text and whose cells are markup already."""
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _items(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _picture(title: str, svg: bytes) -> str:
    """As data of its own, so that the names inside two pictures do not meet."""
    data = base64.b64encode(svg).decode()
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'


def _runs(table: Table) -> str:
    """Every run behind the numbers, and every one that is missing."""
    measured = map(words.metric_words, table.study.config.metrics)
    header = ["arm", "seed", *measured, "parameters", "steps", "images seen", "seconds", "run", "commit"]
    rows = [row for arm in table.arms for row in _runs_of(table, arm)]
    return f"<h2>Runs</h2>{_table(header, rows, 'runs')}"


def _runs_of(table: Table, arm: Arm) -> list[list[str]]:
    metrics = table.study.config.metrics
    label = escape(
        ", ".join(text for text in (arm_words(table, arm), words.label_words(tuple(arm.tuned.items()))) if text)
    )
    done = [[label, str(seed), *_numbers(run, metrics), *_origin(run)] for seed, run in sorted(arm.runs.items())]
    blank = [*([NOTHING] * len(metrics)), "", "", "", ""]
    return done + [[label, str(seed), *blank, escape(why), ""] for seed, why in arm.unfinished.items()]


def _numbers(run: RunRecord, metrics: Sequence[str]) -> list[str]:
    return [words.number(run.metrics[metric], metric) if metric in run.metrics else NOTHING for metric in metrics]


def _origin(run: RunRecord) -> list[str]:
    counts = [NOTHING if count is None else f"{count:,}" for count in (run.parameters, run.steps, run.images_seen)]
    seconds = NOTHING if run.train_seconds is None else f"{run.train_seconds:.1f}"
    commit = str(run.code.get("commit") or NOTHING)[:7] + ("+" if run.code.get("dirty") else "")
    return [*counts, seconds, f"<code>{escape(run.fingerprint)}</code>", f"<code>{escape(commit)}</code>"]
