"""Names that somebody else chose are printed as they are, and act on nothing, in every form of output."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from vitexp import cli
from vitexp.report.markup import (
    as_csv,
    as_html,
    as_latex,
    as_markdown,
    study_as_latex,
    study_as_markdown,
    visible,
)
from vitexp.report.view import make_view
from vitexp.study.table import make_table

HOSTILE = (
    "<script>alert(1)</script>", "[red]a[/red]", "\x1b[31mb\x1b[0m", "=1+1", "a|b", "$\\frac", ":smile:", "c\nd",
    "+cmd|' /C calc'!A0", "-1", "@x", "\\%&#_{}~^", "\"'><img src=x onerror=alert(1)>", "\u202eabc\u200f",
)  # fmt: skip


@pytest.fixture(scope="module", params=["grid", "list"])
def hostile(make_lab, tmp_path_factory, request):
    """A study whose names are all hostile, as a grid of rows and columns or as a list of arms."""
    lab = make_lab(tmp_path_factory.mktemp("hostile"))
    settings = {"study.name": "s", "study.title": HOSTILE[0], "study.rows": ["model.stem"]}
    settings |= {"study.columns": ["model.head"]} if request.param == "grid" else {}
    swept = {"model.stem": list(HOSTILE), "model.head": ["<i>", "@x"], "seed_everything": [0, 1]}
    study = lab.study(settings, swept | ({"data.train_images": [9, 99]} if request.param == "list" else {}))
    for cell in study.cells():
        stopped = {"status": "stopped", "reason": "\x1b]0;x\x07<u>"} if cell.index % 7 == 3 else {}
        data = {"name": "<b>[bold]digits", "classes": 10, "test_images": 360}
        lab.run(cell, {"test_acc": 0.5 + 0.1 * cell.seed}, study="s", data=data, **stopped)
    return study, lab, request.param


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def test_every_file_of_a_table_and_report_prints_hostile_names(hostile, tmp_path, capsys):
    study, lab, _ = hostile
    places = ["--root", str(lab.root), "--results", str(tmp_path)]
    for words in (["table"], ["report", "--out", str(tmp_path)]):
        assert cli.main([*words, str(study.path), *places]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]a[/red]" in shown
    assert ":smile:" in shown
    page = (tmp_path / "report.html").read_text()
    assert "u" not in Tags(page).tags
    assert page.count("<script") == 1  # our own
    assert "<img src=x" not in page + (tmp_path / "s" / "table.md").read_text()
    assert not set("\u202e\u200f") & set(page + shown)
    assert "<b>[bold]" not in page
    assert page.count("&lt;script&gt;") > 3
    markdown = (tmp_path / "s" / "table.md").read_text()
    assert "<script" not in markdown
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}
    assert len(bars) == 1
    latex = (tmp_path / "s" / "table.tex").read_text()
    assert "$\\frac" not in latex
    assert "\x1b" not in markdown + latex + page
    rows = list(csv.reader((tmp_path / "s" / "table.csv").read_text().splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not [cell for row in rows for cell in row if re.match(r"[=@]|[+-](?![\d.]+(e-?\d+)?$)", cell)]
    assert all(any(text in row for row in rows) for text in ("'=1+1", "'@x", "'+cmd|' /C calc'!A0"))


def test_a_curve_is_drawn_and_told_with_hostile_names(hostile, tmp_path, capsys):
    study, lab, kind = hostile
    if kind == "grid":
        pytest.skip("has no size to draw against")
    assert cli.main(["curve", str(study.path), "--root", str(lab.root), "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "[red]a[/red]" in shown
    assert "\x1b" not in shown
    cells = [cell for row in csv.reader((tmp_path / "s" / "curve.csv").read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "@")]


@pytest.mark.parametrize(("text", "seen"), [("a\nb\tc", "a b c"), ("\x1b[0m", "\ufffd[0m"), ("\u202eabc", "\ufffdabc")])
def test_what_cannot_be_seen_is_made_visible(text, seen):
    assert visible(text) == as_html("{}", text) == seen


@pytest.mark.parametrize(
    ("value", "written"),
    [("=1", "'=1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), (" =1", "' =1"), ("\t=1", "' =1"), (-0.5, -0.5),
     ("-0.5", "-0.5"), ("a=1", "a=1"), (None, None)],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(value, written):
    assert as_csv(value) == written


def test_markdown_keeps_what_it_would_read_as_its_own():
    assert as_markdown("a|b <i> &lt; $x$ ~~y~~") == "a\\|b &lt;i&gt; &amp;lt; \\$x\\$ \\~\\~y\\~\\~"


def lines_of(filled, **changes):
    return study_as_markdown(replace(make_view(make_table(filled.study, filled.root)), **changes)).splitlines()


def test_every_row_of_a_table_has_as_many_cells_as_its_header(filled):
    rows = [line for line in lines_of(filled) if line.startswith("|")]
    assert {line.count("|") for line in rows} == {5}
    assert rows.count("| --- | --- | --- | --- |") == 2
    assert [row.split(" | ")[0] for row in rows[2:6]] == ["| none", "| 1-D", "| 2-D", "| relative"]


def test_a_cell_has_its_lines_apart(filled):
    row = next(line for line in lines_of(filled)[::-1] if line.startswith("| 1-D"))
    stem, every = row.split(" | ")[1:3]
    assert stem.endswith(" ◆<br>paper 64.21")
    assert "**" not in stem  # bold would mean best
    assert every.count("<br>") == 2
    assert "equivalent<br>paper 63.96 (−0.24)" in every


def test_what_markdown_would_read_as_its_own_is_escaped(filled):
    first = lines_of(filled, title="a|b *c* <d> _e_ [f] #1")[0]
    assert first == r"### a\|b \*c\* &lt;d&gt; \_e\_ \[f\] \#1"


def test_a_list_of_arms_is_one_table(lab):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]},
    )
    lab.fill(study, lambda cell: {"test_acc": 0.9 + 0.01 * cell.seed * (cell.overrides["model.pool"] == "gap")})
    rows = [
        line for line in study_as_markdown(make_view(make_table(study, lab.root))).splitlines() if line.startswith("|")
    ]
    assert rows == [
        "| arm | mean | difference | verdict | p (adjusted) |",
        "| --- | --- | --- | --- | --- |",
        "| ◆ class token | 90.00 |  |  |  |",
        "| global average pooling | 91.00 ± 2.48 | +1.00 ± 2.58 | no difference shown | 0.251 |",
    ]


SIGNS = r"50 % & $x$ #1 a_b {c} ~^ \input{/etc/passwd} <|> [1] *x* ± − – — ◆ · × ≥ ’ “q” é ł 漢 →"


def source(filled, **changes):
    return study_as_latex(replace(make_view(make_table(filled.study, filled.root)), **changes))


def test_every_sign_that_latex_reads_as_its_own_is_escaped():
    assert as_latex("5 % & $ # _ { }") == r"5 \% \& \$ \# \_ \{ \}"
    assert as_latex("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert as_latex("~^<>|[]*") == (r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}{[}{]}{*}")
    assert as_latex("1 ± 2 − 3 – 4 ◆") == r"1 $\pm$ 2 $-$ 3 -- 4 $\diamond$"
    assert as_latex("é ł 漢 ﬁ") == "é ł ? fi"


def test_every_line_of_a_tabular_has_the_same_number_of_cells(filled):
    text = source(filled)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    rows = [line for line in text.splitlines() if line.endswith((r"\\", r"\\[3pt]")) and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    starts = [row.split(" & ")[0] for row in rows if not row.startswith(" ")]
    assert starts == ["position embedding", "none", "1-D", "2-D", "relative"] * 2


def test_no_sign_is_left_that_a_plain_latex_cannot_print(filled):
    assert not set(source(filled, title=SIGNS)) & set("±−–—◆·×≥’“”漢→")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("title", ["Position embeddings", SIGNS], ids=["plain", "hostile"])
def test_it_compiles(filled, tmp_path, title):
    (tmp_path / "table.tex").write_text(source(filled, title=title))
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, errors="replace")
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("the booktabs package is not installed")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
