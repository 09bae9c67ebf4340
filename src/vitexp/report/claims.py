"""`vitexp claims`: the ledger on the terminal, and as Markdown, CSV and JSON beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.record import write_atomically
from vitexp.report import claims_text, tidy, words
from vitexp.report.escape import as_markdown as escape
from vitexp.report.markdown import lines_of_table
from vitexp.report.tables import Written, caution, footnote
from vitexp.study.claims.claims import CLAIMS, OUT_OF_REACH, Claim
from vitexp.study.claims.ledger import CONTRADICT, DIFFER, SUPPORT, UNDECIDED, Judged, Known, Ledger, Line, make_ledger

TITLE = "What our runs say about the claims of the ViT paper"
UNTOUCHED, BEYOND = "no study of ours touches it yet", "out of reach"
STYLES = {SUPPORT: "bold green", CONTRADICT: "bold red", DIFFER: "bold magenta", UNDECIDED: "bold yellow"}
COLUMNS = 100


def write_claims(
    places: Sequence[str | Path] = (),
    runs: str | Path = "runs",
    results: str | Path = "results",
    read: Sequence[Known] = (),
) -> Written:
    """The ledger of the studies in `places` and `read`, or below `runs`; writes results/claims.{md,csv,json}.

    Raises: ValueError where there is nothing to read, or a named sweep file is not sound.
    """
    ledger = make_ledger(places, runs, read)
    contents = {"claims.md": markdown(ledger), "claims.csv": table(ledger), "claims.json": as_json(ledger)}
    for name, content in contents.items():
        write_atomically(Path(results) / name, content)
    return Written(Constrain(terminal(ledger), COLUMNS), tuple(Path(results) / name for name in contents))


def terminal(ledger: Ledger) -> RenderableType:
    """The ledger claim by claim."""
    parts: list[RenderableType] = [Text(TITLE, style="bold"), Text(claims_text.summary(ledger), style="dim")]
    parts += map(caution, claims_text.cautions(ledger))
    for claim in CLAIMS:
        parts += [Text(), Text(claim.sentence, style="bold"), _indented(claims_text.paper_words(claim), 2, "dim")]
        for line in ledger.of(claim):
            parts += _line(line)
        if not ledger.of(claim):
            parts.append(_indented(f"{UNTOUCHED}: it takes {claim.needs}", 2, "yellow"))
    parts += [Text(), Text(f"{BEYOND[0].upper()}{BEYOND[1:]}", style="bold")]
    parts += [_indented(f"{one.sentence} ({one.source}): {one.reason}", 2) for one in OUT_OF_REACH]
    return Group(*parts, Text(), *map(footnote, claims_text.footnotes(ledger)), Text())


def _line(line: Line) -> list[RenderableType]:
    head = Text.assemble((line.verdict.upper(), STYLES[line.verdict]), f"  {claims_text.heading(line)}")
    parts: list[RenderableType] = [_indented(head, 2)]
    if line.judged:
        grid = RichTable.grid(padding=(0, 2))
        for one in line.judged:
            sides, effect, tests = claims_text.contrast_words(line, one)
            grid.add_row("   ", sides, Text(effect, style="bold"), Text(tests, style="dim"))
        parts.append(grid)
    texts = (claims_text.reason(line), claims_text.tuned_words(line), claims_text.runs_words(line))
    return parts + [_indented(text, 5, "dim") for text in texts if text]


def _indented(text: str | Text, blanks: int, style: str = "") -> RenderableType:
    grid = RichTable.grid()
    grid.add_column(width=blanks)
    grid.add_row("", Text(text, style=style) if isinstance(text, str) else text)
    return grid


def markdown(ledger: Ledger) -> str:
    """The ledger as one table a claim."""
    parts = [f"### {TITLE}", escape(claims_text.summary(ledger))]
    parts += [f"**{escape(text)}**" for text in claims_text.cautions(ledger)]
    for claim in CLAIMS:
        parts += [f"**{escape(claim.sentence)}** — {escape(claims_text.paper_words(claim))}"]
        rows = [_markdown_row(line) for line in ledger.of(claim)]
        header = ["verdict", "measured on", "differences", "why", "runs"]
        parts.append(lines_of_table(header, rows) if rows else f"{UNTOUCHED}: it takes {escape(claim.needs)}")
    rows = [[escape(one.sentence), escape(one.source), escape(one.reason)] for one in OUT_OF_REACH]
    parts += [f"**{BEYOND[0].upper()}{BEYOND[1:]}**", lines_of_table(["claim", "source", "reason"], rows)]
    parts.append("\n".join(f"- {escape(note)}" for note in claims_text.footnotes(ledger)))
    return "\n\n".join(parts) + "\n"


def _markdown_row(line: Line) -> list[str]:
    found = [claims_text.contrast_words(line, one) for one in line.judged]
    effects = "<br>".join(f"{escape(sides)}: **{escape(effect)}** ({escape(tests)})" for sides, effect, tests in found)
    return [
        f"**{line.verdict}**",
        escape(claims_text.heading(line)),
        effects,
        escape(claims_text.why(line)),
        escape(claims_text.runs_words(line)),
    ]


def table(ledger: Ledger) -> str:
    """The ledger as CSV: one line a contrast, and one for each line or claim without any."""
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        lines = ledger.of(claim)
        rows += [row for line in lines for row in _csv_rows(line)]
        if not lines:
            rows.append({"claim": claim.name, "source": claim.source, "verdict": UNTOUCHED, "reason": claim.needs})
    rows += [
        {"claim": one.sentence, "source": one.source, "verdict": BEYOND, "reason": one.reason} for one in OUT_OF_REACH
    ]
    return tidy.write(rows)


def _csv_rows(line: Line) -> list[dict[str, Any]]:
    first: dict[str, Any] = {
        "claim": line.claim.name,
        "source": line.claim.source,
        "verdict": line.verdict,
        "reason": claims_text.reason(line),
    }
    first |= {"study": line.study.name, "setting": " · ".join(claims_text.setting(line)), "metric": line.metric}
    first |= {"runs": len(line.runs), "place": line.place, "margin": line.study.config.margin}
    first["notes"] = " ".join((*words.cautions(line.cautions), *map(words.sentence, line.notes)))
    return [{**first, **_numbers(line, one)} for one in line.judged] or [first]


def _numbers(line: Line, one: Judged) -> dict[str, Any]:
    difference, judged = one.judgement.difference, one.judgement
    return {
        "one": one.contrast.one,
        "other": one.contrast.other,
        "expected": one.contrast.expected,
        "contrast_verdict": one.verdict,
        "n": difference.n,
        "seeds": " ".join(map(str, difference.seeds)),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "sd": difference.sd,
        "p": difference.p,
        "p_holm": judged.p_holm,
        "p_equivalence_holm": judged.p_equivalence,
        "detectable": judged.detectable,
        "paper_difference": claims_text.paper_difference(line, one),
        **_factor(line, one),
    }


def _factor(line: Line, one: Judged) -> dict[str, Any]:
    """Where compute is compared, the difference is one of natural logarithms, and these are the factors."""
    if line.claim.unit != "compute":
        return {}
    return dict(
        zip(("factor", "factor_low", "factor_high"), claims_text.factors(one.judgement.difference), strict=True)
    )


def as_json(ledger: Ledger) -> str:
    """The ledger with the record of every run behind each line."""
    claims = [_json_claim(claim, ledger.of(claim)) for claim in CLAIMS]
    beyond = [vars(one) for one in OUT_OF_REACH]
    whole = {"studies": ledger.studies, "claims": claims, "out_of_reach": beyond, "left_out": ledger.unread}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json_claim(claim: Claim, lines: Sequence[Line]) -> dict[str, Any]:
    named = {
        "claim": claim.name,
        "sentence": claim.sentence,
        "source": claim.source,
        "paper": claims_text.paper_words(claim),
    }
    return named | {"lines": [_json_line(line) for line in lines], "needs": claim.needs}


def _json_line(line: Line) -> dict[str, Any]:
    return {
        "study": line.study.name,
        "setting": claims_text.setting(line),
        "metric": line.metric,
        "verdict": line.verdict,
        "reason": claims_text.reason(line),
        "margin": line.study.config.margin,
        "notes": [*line.cautions, *line.notes],
        "contrasts": [_numbers(line, one) for one in line.judged],
        "tuned": [dict(arm.tuned) for arm in line.arms],
        "records": [{"path": line.path_of(run), "seed": run.seed, "fingerprint": run.fingerprint} for run in line.runs],
    }
