"""A study as pandas frames: the numbers of the CSV files, to the digit."""

import csv
import io
import sys
import warnings

import pandas
import pytest

from vitexp.report import tidy
from vitexp.study.curve import make_curve
from vitexp.study.table import make_table


def same(frame, text):
    """Each cell of the frame stands in the CSV under the same name, which may say more."""
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(frame) > 0
    for (_, ours), theirs in zip(frame.iterrows(), rows, strict=True):
        for name, value in ours.items():
            if isinstance(value, dict):
                value = " ".join(f"{seed}:{one!r}" for seed, one in sorted(value.items()))
            elif isinstance(value, list):
                value = " ".join(map(str, value))
            shown = "" if pandas.isna(value) else repr(float(value)) if isinstance(value, float) else str(value)
            assert theirs[name] in (shown, shown.removesuffix(".0")), name


def test_a_table_as_a_frame_has_the_numbers_of_its_csv(filled):
    frame = filled.study.table(filled.root)
    same(frame, tidy.table(make_table(filled.study, filled.root)))
    none = frame.query("metric == 'test_acc' and `model.pos_embed` == 'none'").iloc[0]
    assert none.verdict == "worse"
    assert none.difference_low < none.difference < none.difference_high < 0
    assert frame.pairs.dtype == "Int64"
    assert set(frame[frame.baseline]["model.pos_embed"]) == {"1d"}


def test_a_table_is_made_from_the_path_of_a_sweep_file_too(filled):
    assert make_table(filled.study.path, filled.root) == make_table(filled.study, filled.root)


def test_the_records_of_a_study_are_those_of_its_cells(filled):
    found = filled.study.records(filled.root)
    assert sorted(r.fingerprint for r in found) == sorted(r.fingerprint for r in filled.records)
    assert len(filled.study.records(filled.root, {"model.pos_embed": "none"})) == 5
    assert [r.seed for r in found[:5]] == [0, 1, 2, 3, 4]


LOST = {"train_loss_start": 2.30, "train_loss_end": 2.31}


def test_cautions_are_warned_about_and_kept_with_the_notes(lab):
    study = lab.positions(seeds=2)
    lab.fill(study, lambda cell: {"test_acc": 0.1, "fewshot_5": 0.1}, learning=LOST)
    (lab.root / "pos" / "broken").mkdir()
    (lab.root / "pos" / "broken" / "record.json").write_text("{")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        frame = study.table(lab.root)
    table = make_table(study, lab.root)
    assert [str(one.message) for one in heard] == list(table.cautions)
    assert "did not train" in str(heard[0].message)
    assert "is not a run record" in str(heard[1].message)
    assert heard[0].filename == __file__
    assert frame.attrs == {"cautions": table.cautions, "notes": table.notes}


SIZES = {"study.metrics": ["test_acc"], "study.baseline": {"model.pool": "cls"}}
SWEPT = {"model.pool": ["cls", "gap"], "seed_everything": [0, 1]}


def test_the_points_of_a_curve_against_data_size(lab):
    sizes = {"data.train_images": [100, 200, 400]}
    study = lab.study({"study.name": "sizes", **SIZES}, {**SWEPT, **sizes})
    lab.fill(study, lambda cell: {"test_acc": 0.5 + cell.overrides["data.train_images"] / 1000 + cell.seed / 100})
    frame = study.curve(lab.root)
    same(frame, tidy.points(make_curve(study, lab.root)))
    assert frame[frame["model.pool"] == "gap"]["size"].tolist() == [100, 200, 400]


def test_the_points_of_a_curve_against_cost(lab):
    study = lab.study(
        {"study.name": "costs", "study.x": "train_flops", **SIZES, "study.lines": {"one": ["cls", "gap"]}}, SWEPT
    )
    for cell in study.cells():
        cost = 1e9 * len(cell.overrides["model.pool"])
        lab.run(cell, {"test_acc": 0.9 + cell.seed / 100}, study="costs", train_flops=cost)
    same(study.curve(lab.root), tidy.points(make_curve(study, lab.root)))


def test_without_pandas_one_sentence_says_what_to_install(filled, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"need pandas: pip install 'vitexp\[pandas\]'"):
        filled.study.table(filled.root)
