"""Names that somebody else chose are printed as they are, and act on nothing, in every form of output."""

import csv
import re
from html.parser import HTMLParser

import pytest

from vitexp import cli
from vitexp.report.markup import as_csv, as_html, as_markdown, visible

HOSTILE = ("<script>alert(1)</script>", "[red]a[/red]", "\x1b[31mb\x1b[0m", "=1+1", "a|b", "$\\frac", ":smile:", "c\nd")


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
    for verb in ("table", "report"):
        assert cli.main([verb, str(study.path), "--root", str(lab.root), "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]a[/red]" in shown
    assert ":smile:" in shown
    page = (tmp_path / "s" / "report.html").read_text()
    assert Tags(page).tags.isdisjoint({"script", "u"})
    assert "<script" not in page
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
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "@")]
    assert any("'=1+1" in row for row in rows)


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
    assert visible(text) == as_html(text) == seen


@pytest.mark.parametrize(
    ("value", "written"),
    [("=1", "'=1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), (" =1", "' =1"), ("\t=1", "' =1"), (-0.5, -0.5),
     ("-0.5", "-0.5"), ("a=1", "a=1"), (None, None)],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(value, written):
    assert as_csv(value) == written


def test_markdown_keeps_what_it_would_read_as_its_own():
    assert as_markdown("a|b <i> &lt; $x$ ~~y~~") == "a\\|b &lt;i&gt; &amp;lt; \\$x\\$ \\~\\~y\\~\\~"
