"""One offline file about a study: its table, pictures, claims, every run. No script, nothing from outside."""

import base64
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitexp.record import RunRecord, write_atomically
from vitexp.report import claims_text, labels, style
from vitexp.report.curve_text import readings
from vitexp.report.draw_curve import draw_curve
from vitexp.report.draw_dots import draw_dots
from vitexp.report.markup import as_html as escape
from vitexp.report.markup import html_table
from vitexp.report.tables import Sweep, Where
from vitexp.report.view import NOTHING, CellView, arm_label, make_view
from vitexp.study.claims.claims import CLAIMS
from vitexp.study.claims.verdicts import ClaimVerdict, judge_claims
from vitexp.study.curve import has_curve, make_curve
from vitexp.study.select import Root, Runs, select
from vitexp.study.spec import Study, as_study
from vitexp.study.table import Table, make_table

_CLAIMS = "What it says about the claims of the ViT paper"
_COLUMNS = ("verdict", "measured on", "differences", "why")
_FACTS = ("parameters", "steps", "images seen", "seconds", "run", "commit")
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


def write_html(sweep: Sweep, runs: Root = "runs", results: str | Path = "results", where: Where = None) -> Path:
    """The report of the study in `sweep` from the records in `runs`, as results/NAME/report.html.

    Raises: ValueError when the study file is not sound, or the records do not make a table.
    """
    study = as_study(sweep)
    table = make_table(study, runs, where)
    view = make_view(table)
    parts = [f'<p class="caution">{escape(caution)}</p>' for caution in view.cautions]
    parts += [f"<h2>{escape(one.title)}</h2>{html_table(*one.as_table(escape, _cell))}" for one in view.sections]
    parts.append(_items(view.footnotes))
    with style.settings():
        parts.append(_picture("Every arm, and its difference to the baseline", draw_dots(table)))
        if has_curve(study):
            curve = make_curve(study, runs, where)
            parts += [
                _picture(f"Against {labels.key_label(curve.axis)}", draw_curve(curve)),
                _items(readings(curve)),
            ]
    parts += [_claims(study, runs, where), _runs(table)]
    path = Path(results) / study.name / "report.html"
    write_atomically(path, _PAGE.format(title=escape(view.title), setting=escape(view.setting), body="\n".join(parts)))
    return path


def _cell(cell: CellView) -> str:
    note = " ".join(text for text in ("◆" if cell.baseline else "", cell.count) if text)
    kind = cell.verdict.replace(",", " ").partition(" ")[0]
    verdict = f'<span class="{escape(kind)}">{escape(cell.verdict)}</span>' if cell.verdict else ""
    faint = "".join(f'<span class="faint">{escape(text)}</span>' for text in (cell.tuned, cell.paper) if text)
    return f"<b>{escape(cell.mean)}</b> {escape(note)}<span>{escape(cell.difference)}</span>{verdict}{faint}"


def _items(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _picture(title: str, figure: Figure) -> str:
    """As data of its own, so that the names inside two pictures do not meet."""
    data = base64.b64encode(style.svg(figure)).decode()
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'


def _claims(study: Study, runs: Root, where: Where) -> str:
    """The claims that the finished runs test, as markup; one sentence where there is none."""
    selection = select(study, runs, where)
    records = tuple(run for arm in selection.arms for run in arm.runs.values())
    report = judge_claims(read=[(study, Runs(location=selection.location, records=records))])
    if not report.verdicts:
        return (
            f'<h2>{_CLAIMS}</h2><p class="faint">Nothing: no claim of the paper is about what this study compares.</p>'
        )
    rows: list[list[str]] = []
    for claim in CLAIMS:
        verdicts = report.of(claim)
        said = f'<b>{escape(claim.sentence)}</b><span class="faint">{escape(claims_text.paper_words(claim))}</span>'
        rows += [[said], *map(_claim_row, verdicts)] if verdicts else []
    return f"<h2>{_CLAIMS}</h2>{html_table(_COLUMNS, rows, 'claims')}{_items(claims_text.footnotes(report))}"


def _claim_row(found: ClaimVerdict) -> list[str]:
    verdict = f'<b class="{found.verdict.split()[0]}">{escape(found.verdict)}</b>'
    place = claims_text.heading(found).removeprefix(f"{found.study.name} · ")
    contrasts = [map(escape, claims_text.contrast_words(found, one)) for one in found.judged]
    effects = [
        f'<span>{sides}: <b>{effect}</b> <i class="faint">{tests}</i></span>' for sides, effect, tests in contrasts
    ]
    return [verdict, escape(place), "".join(effects), escape(claims_text.why(found))]


def _runs(table: Table) -> str:
    """Every run behind the numbers, and every one that is missing."""
    metrics = table.study.config.metrics
    header = ["arm", "seed", *map(labels.metric_label, metrics), *_FACTS]
    rows = []
    for arm in table.arms:
        named = (arm_label(table, arm), labels.label_text(tuple(arm.tuned.items())))
        label = escape(", ".join(text for text in named if text))
        rows += [[label, str(seed), *_facts(run, metrics)] for seed, run in sorted(arm.runs.items())]
        blank = [*([NOTHING] * len(metrics)), "", "", "", ""]
        rows += [[label, str(seed), *blank, escape(why), ""] for seed, why in arm.unfinished.items()]
    return f"<h2>Runs</h2>{html_table(header, rows, 'runs')}"


def _facts(run: RunRecord, metrics: Sequence[str]) -> list[str]:
    values = [labels.number(run.metrics[metric], metric) if metric in run.metrics else NOTHING for metric in metrics]
    counts = [NOTHING if count is None else f"{count:,}" for count in (run.parameters, run.steps, run.images_seen)]
    seconds = NOTHING if run.train_seconds is None else f"{run.train_seconds:.1f}"
    commit = str(run.code.get("commit") or NOTHING)[:7] + "+" * bool(run.code.get("dirty"))
    return [*values, *counts, seconds, *(f"<code>{escape(text)}</code>" for text in (run.fingerprint, commit))]
