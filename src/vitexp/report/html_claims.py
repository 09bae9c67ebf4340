"""What a study says about the claims of the ViT paper, as a part of its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitexp.report import claims_words as say
from vitexp.report.escape import as_html as escape
from vitexp.study.claims import CLAIMS, Claim
from vitexp.study.ledger import Line, make_ledger
from vitexp.study.select import Root, Runs, select
from vitexp.study.spec import Study

TITLE = "What it says about the claims of the ViT paper"
_COLUMNS = ("verdict", "measured on", "differences", "why")


def claims_section(study: Study, runs: Root, where: Mapping[str, Any] | None = None) -> str:
    """The claims that the finished runs speak to, as markup; one sentence where they speak to none."""
    selection = select(study, runs, where)
    records = tuple(run for arm in selection.arms for run in arm.runs.values())
    ledger = make_ledger(read=[(study, Runs(place=selection.place, records=records))])
    if not ledger.lines:
        return f'<h2>{TITLE}</h2><p class="faint">Nothing: no claim of the paper is about what this study compares.</p>'
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = "".join(_rows(claim, lines) for claim in CLAIMS if (lines := ledger.of(claim)))
    notes = "".join(f"<li>{escape(note)}</li>" for note in say.footnotes(ledger))
    table = f'<div class="wide"><table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<h2>{TITLE}</h2>{table}<ul>{notes}</ul>"


def _rows(claim: Claim, lines: Sequence[Line]) -> str:
    """The claim, and below it every line about it."""
    said = f'<b>{escape(claim.sentence)}</b><span class="faint">{escape(say.paper_words(claim))}</span>'
    first = f'<tr><td colspan="{len(_COLUMNS)}">{said}</td></tr>'
    return first + "".join(f"<tr>{_cells(line)}</tr>" for line in lines)


def _cells(line: Line) -> str:
    verdict = f'<b class="{line.verdict.split()[0]}">{escape(line.verdict)}</b>'
    place = say.heading(line).removeprefix(f"{line.study.name} · ")
    found = [map(escape, say.contrast_words(line, one)) for one in line.judged]
    effects = "".join(
        f'<span>{sides}: <b>{effect}</b> <i class="faint">{tests}</i></span>' for sides, effect, tests in found
    )
    why = "; ".join(text for text in (say.reason(line), say.tuned_words(line)) if text)
    return "".join(f"<td>{cell}</td>" for cell in (verdict, escape(place), effects, escape(why)))
