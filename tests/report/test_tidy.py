import csv
import io

import pytest

from vitexp.report import tidy
from vitexp.report.markup import csv_table
from vitexp.study.table import make_table


def rows_of(table):
    return list(csv.DictReader(io.StringIO(tidy.table(table))))


def test_every_number_reads_back_as_it_was(filled):
    table = make_table(filled.study, filled.root)
    rows = rows_of(table)
    assert len(rows) == 16
    for row, entry in zip(rows, [e for entries in table.entries.values() for e in entries], strict=True):
        assert row["metric"] == entry.metric
        assert (row["model.pos_embed"], row["model.pos_at"]) == tuple(
            entry.arm.factors[k] for k in ("model.pos_embed", "model.pos_at")
        )
        assert [float(row[name]) for name in ("mean", "sd", "low", "high")] == [
            entry.interval.mean, entry.interval.sd, entry.interval.low, entry.interval.high
        ]  # fmt: skip
        assert {
            int(seed): float(value) for seed, value in (pair.split(":") for pair in row["values"].split())
        } == entry.values
        if entry.judgement:
            difference = entry.judgement
            assert (int(row["n"]), int(row["pairs"])) == (5, 5)
            names = ("difference", "difference_sd", "difference_low", "difference_high", "p")
            numbers = (difference.mean, difference.sd, difference.low, difference.high, difference.p)
            assert tuple(float(row[name]) for name in names) == numbers
            assert float(row["p_adjusted"]) == entry.judgement.p_adjusted
            assert float(row["p_equivalence"]) == entry.judgement.p_equivalence
            assert float(row["detectable"]) == entry.judgement.detectable
            assert row["verdict"] == entry.judgement.verdict
        else:
            assert row["baseline"] == "True"
            assert row["difference"] == row["p"] == row["verdict"] == ""


def test_the_paper_s_figures_stand_in_the_rows_that_it_measured(filled):
    rows = {
        (r["metric"], r["model.pos_embed"], r["model.pos_at"]): r
        for r in rows_of(make_table(filled.study, filled.root))
    }
    none = rows["fewshot_5", "none", "stem"]
    assert (float(none["paper"]), none["paper_source"]) == (0.61382, "Table 8")
    assert float(none["paper_difference"]) == pytest.approx(0.61382 - 0.64206)
    assert rows["test_acc", "none", "stem"]["paper"] == ""


def test_a_missing_arm_is_a_row_of_absent_numbers_and_no_zero(lab, filled):
    study = lab.positions(**{"study.name": "gaps"})
    for cell in study.cells():
        if cell.overrides["model.pos_embed"] != "relative":
            lab.run(cell, filled.metrics_of(cell), study="gaps")
    row = next(row for row in rows_of(make_table(study, lab.root)) if row["model.pos_embed"] == "relative")
    assert (row["n"], row["mean"], row["low"], row["difference"], row["values"]) == ("0", "", "", "", "")


def test_tuned_values_are_columns(lab):
    settings = {"study.name": "pool", "study.tune": ["model.lr"]}
    swept = {"model.pool": ["cls", "gap"], "model.lr": [0.001, 0.003], "seed_everything": [0, 1, 2]}
    study = lab.study(settings, swept)
    lab.fill(study, lambda cell: {"val_acc": cell.overrides["model.lr"], "test_acc": 0.9})
    assert [row["tuned model.lr"] for row in rows_of(make_table(study, lab.root))] == ["0.003", "0.003"]


def test_columns_are_the_union_of_the_lines():
    assert csv_table([{"a": 1}, {"b": None, "a": 'x,"y"'}]) == 'a,b\n1,\n"x,""y""",\n'
