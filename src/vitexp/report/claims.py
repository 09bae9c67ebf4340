"""`vitexp claims`: the verdicts on the terminal, and as Markdown, CSV and JSON beside it."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.json_text import as_text
from vitexp.report import claims_text as text
from vitexp.report import tidy
from vitexp.report.markup import as_markdown as escape
from vitexp.report.markup import csv_table, markdown_page, markdown_table
from vitexp.report.tables import Written, caution, footnote, write_all
from vitexp.study.claims.claims import CLAIMS, OUT_OF_REACH
from vitexp.study.claims.verdicts import CONTRADICT, DIFFER, SUPPORT, UNDECIDED, ClaimsReport, ClaimVerdict

TITLE = "What our runs say about the claims of the ViT paper"
UNTOUCHED, BEYOND = "no study of ours touches it yet", "out of reach"
STYLES = {SUPPORT: "bold green", CONTRADICT: "bold red", DIFFER: "bold magenta", UNDECIDED: "bold yellow"}
COLUMNS = 100
_NUMBERS = ("low", "high", "sd", "images", "p", "p_adjusted", "p_equivalence", "detectable")


def write_claims(report: ClaimsReport, results: str | Path) -> Written:
    """Writes results/claims.{md,csv,json}."""
    contents = {"md": markdown(report), "csv": table(report), "json": as_text(document(report)) + "\n"}
    files = {f"claims.{kind}": content for kind, content in contents.items()}
    return write_all(Path(results), files, Constrain(terminal(report), COLUMNS))


def terminal(report: ClaimsReport) -> RenderableType:
    """The verdicts, claim by claim."""
    parts: list[RenderableType] = [Text(TITLE, style="bold"), Text(text.summary(report), style="dim")]
    parts += map(caution, text.cautions(report))
    for claim in CLAIMS:
        parts += [
            Text(),
            Text(claim.sentence, style="bold"),
            Padding.indent(Text(text.paper_words(claim), style="dim"), 2),
        ]
        for found in report.of(claim):
            parts += _verdict(found)
        if not report.of(claim):
            parts.append(Padding.indent(Text(f"{UNTOUCHED}: it takes {claim.needs}", style="yellow"), 2))
    parts += [Text(), Text(BEYOND.capitalize(), style="bold")]
    parts += [Padding.indent(Text(f"{one.sentence} ({one.source}): {one.reason}"), 2) for one in OUT_OF_REACH]
    return Group(*parts, Text(), *map(footnote, text.footnotes(report)), Text())


def _verdict(found: ClaimVerdict) -> list[RenderableType]:
    head = Text.assemble((found.verdict.upper(), STYLES[found.verdict]), f"  {text.heading(found)}")
    parts: list[RenderableType] = [Padding.indent(head, 2)]
    if found.judged:
        grid = RichTable.grid(padding=(0, 2))
        for one in found.judged:
            sides, effect, tests = text.contrast_words(found, one)
            grid.add_row("   ", sides, Text(effect, style="bold"), Text(tests, style="dim"))
        parts.append(grid)
    more = (text.reason(found), text.tuned_words(found), text.runs_words(found))
    return parts + [Padding.indent(Text(said, style="dim"), 5) for said in more if said]


def markdown(report: ClaimsReport) -> str:
    """The verdicts as one table a claim."""
    header, parts = ["verdict", "measured on", "differences", "why", "runs"], []
    for claim in CLAIMS:
        rows = list(map(_markdown_row, report.of(claim)))
        found = markdown_table(header, rows) if rows else f"{UNTOUCHED}: it takes {escape(claim.needs)}"
        parts.append((f"**{escape(claim.sentence)}** — {escape(text.paper_words(claim))}", found))
    beyond = markdown_table(["claim", "source", "reason"], [list(map(escape, one)) for one in OUT_OF_REACH])
    parts.append((f"**{BEYOND.capitalize()}**", beyond))
    return markdown_page(TITLE, text.summary(report), text.cautions(report), parts, text.footnotes(report))


def _markdown_row(found: ClaimVerdict) -> list[str]:
    contrasts = [map(escape, text.contrast_words(found, one)) for one in found.judged]
    effects = "<br>".join(f"{sides}: **{effect}** ({tests})" for sides, effect, tests in contrasts)
    place, why, runs = map(escape, (text.heading(found), text.why(found), text.runs_words(found)))
    return [f"**{found.verdict}**", place, effects, why, runs]


def table(report: ClaimsReport) -> str:
    """The verdicts as CSV: one line a contrast, and one for each verdict or claim without any."""
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        first = {"claim": claim.name, "source": claim.source}
        rows += [first | row for found in report.of(claim) for row in _csv_rows(found)]
        if not report.of(claim):
            rows.append(first | {"verdict": UNTOUCHED, "reason": claim.needs})
    for one in OUT_OF_REACH:
        rows.append({"claim": one.sentence, "source": one.source, "verdict": BEYOND, "reason": one.reason})
    return csv_table(rows)


def _csv_rows(found: ClaimVerdict) -> list[dict[str, Any]]:
    row: dict[str, Any] = {"verdict": found.verdict, "reason": text.reason(found), "study": found.study.name}
    row |= {"setting": " · ".join(text.setting(found)), "metric": found.metric, "runs": len(found.runs)}
    row |= {"place": found.selection.location, "margin": found.study.config.margin}
    row["notes"] = tidy.notes(found.selection)
    return [row | numbers for numbers in _numbers(found)] or [row]


def _numbers(found: ClaimVerdict) -> list[dict[str, Any]]:
    """Every contrast; where compute is compared, the difference is one of natural logarithms, beside its factors."""
    rows = []
    for one in found.judged:
        contrast, judged = one.contrast, one.judgement
        row: dict[str, Any] = {"one": contrast.one, "other": contrast.other, "expected": contrast.expected}
        row |= {"contrast_verdict": one.verdict, "n": judged.n, "seeds": " ".join(map(str, judged.seeds))}
        row |= {"difference": judged.mean, **{key: getattr(judged, key) for key in _NUMBERS}}
        row |= {"table_verdict": one.in_table.verdict if one.in_table else None}
        row |= {"paper_difference": text.paper_difference(found, one)}
        if found.claim.unit == "compute":
            row |= dict(zip(("factor", "factor_low", "factor_high"), text.factors(judged), strict=True))
        rows.append(row)
    return rows


def document(report: ClaimsReport) -> dict[str, Any]:
    """The verdicts, with the record of every run behind each verdict."""
    claims = []
    for claim in CLAIMS:
        named = {"claim": claim.name, "sentence": claim.sentence, "source": claim.source}
        found = {"paper": text.paper_words(claim), "lines": list(map(_json_verdict, report.of(claim)))}
        claims.append(named | found | {"needs": claim.needs})
    beyond = [one._asdict() for one in OUT_OF_REACH]
    whole = {"schema": "vitexp.claims/1", "studies": report.studies, "claims": claims}
    return whole | {"out_of_reach": beyond, "left_out": report.unread}


def _json_verdict(found: ClaimVerdict) -> dict[str, Any]:
    runs = [(found.path_of(run), run.seed, run.fingerprint) for run in found.runs]
    return {
        "study": found.study.name,
        "setting": text.setting(found),
        "metric": found.metric,
        "verdict": found.verdict,
        "reason": text.reason(found),
        "margin": found.study.config.margin,
        "notes": [*found.selection.cautions, *found.selection.notes],
        "contrasts": _numbers(found),
        "tuned": [dict(arm.tuned) for arm in found.finding.arms],
        "records": [dict(zip(("path", "seed", "fingerprint"), run, strict=True)) for run in runs],
    }
