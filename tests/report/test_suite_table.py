"""A suite of data sets in every form that a table takes."""

import csv
import io

import pytest

from vitexp.report.tables import write_table

GROUPS = {"natural": ["digits", "pets"], "structured": ["clevr"]}


@pytest.fixture
def written(lab, tmp_path):
    settings = {
        "study.name": "suite",
        "study.baseline": {"model.pool": "cls"},
        "study.rows": ["data.shards"],
        "study.columns": ["model.pool"],
        "study.metrics": ["test_acc"],
        "study.groups": GROUPS,
    }
    swept = {"data.shards": ["digits", "pets", "clevr"], "model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]}
    study = lab.study(settings, swept)
    levels = {"digits": 0.9, "pets": 0.5, "clevr": 0.1}
    for cell in study.cells():
        name, gap = cell.overrides["data.shards"], cell.overrides["model.pool"] == "gap"
        value = levels[name] + 0.04 * gap + 0.001 * (-1) ** cell.seed * (2 if gap else 1)
        lab.run(cell, {"test_acc": value}, study="suite", data={"name": name}, config={"data.content": f"of {name}"})
    write_table(study, lab.root, tmp_path / "results")
    return tmp_path / "results" / "suite"


def test_markdown_has_a_table_of_means_beside_that_of_the_data_sets(written):
    text = written.joinpath("table.md").read_text()
    assert "| data set | class token | global average pooling |" in text
    assert "**Mean top-1 accuracy over data sets, %: ± 95 % interval, n = 3 seeds**" in text
    assert "| readout | all (3) | natural (2) | structured (1) |" in text
    # Seeds 0 and 2 are a step up, seed 1 a step down: their mean is a third of a step, and gap's step is twice cls's.
    assert "| class token | 50.03 ± 0.29 ◆ | 70.03 ± 0.29 ◆ | 10.03 ± 0.29 ◆ |" in text
    assert "54.07 ± 0.57<br>+4.03 ± " in text
    assert "The intervals of the 6 comparisons hold together" in text
    assert "every data set counts the same" in text
    assert "n = 3 seeds" in text


def test_csv_has_the_means_in_full(written):
    rows = list(csv.DictReader(io.StringIO(written.joinpath("table.csv").read_text())))
    means = {(row["model.pool"], row["study.groups"]): float(row["mean"]) for row in rows if row["study.groups"]}
    assert means["gap", "all"] == pytest.approx((0.9 + 0.5 + 0.1) / 3 + 0.04 + 0.002 / 3)
    assert len(rows) == 6 + 6
    assert all(not row["data.shards"] for row in rows if row["study.groups"])


def test_latex_has_them_too(written):
    assert "structured (1)" in written.joinpath("table.tex").read_text()
