import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from vitexp.report.markup import as_latex, study_as_latex
from vitexp.report.view import make_view
from vitexp.study.table import make_table

HOSTILE = r"50 % & $x$ #1 a_b {c} ~^ \input{/etc/passwd} <|> [1] *x* ± − – — ◆ · × ≥ ’ “q” é ł 漢 →"


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
    assert not set(source(filled, title=HOSTILE)) & set("±−–—◆·×≥’“”漢→")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("title", ["Position embeddings", HOSTILE], ids=["plain", "hostile"])
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
