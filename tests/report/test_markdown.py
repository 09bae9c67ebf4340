from dataclasses import replace

from vitexp.report.markup import study_as_markdown
from vitexp.report.view import make_view
from vitexp.study.table import make_table


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
    assert stem.endswith("** ◆<br>paper 64.21")
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
        "| arm | mean | difference | verdict | p (Holm) |",
        "| --- | --- | --- | --- | --- |",
        "| ◆ class token | 90.00 |  |  |  |",
        "| global average pooling | 91.00 ± 2.48 | +1.00 ± 2.48 | no difference shown | 0.225 |",
    ]
