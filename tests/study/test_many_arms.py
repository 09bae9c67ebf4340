"""What a table of many arms costs: looks at an arm or a record, not at all of them for each; and the same answers."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vitexp
from vitexp.record import RunRecord, fingerprint
from vitexp.report.tidy import table as as_csv
from vitexp.report.view import make_view
from vitexp.study.cells import make_cells
from vitexp.study.comparison import BOUND, Between
from vitexp.study.select import Runs
from vitexp.study.table import make_table

SOURCE = Path(vitexp.__file__).parent
OWN = tuple(str(SOURCE / part) for part in ("study", "report", "record.py", "neutral.py"))


def factorial(lab, rates, **settings):
    """A full factorial with 20 arms for each of some learning rates, one baseline for all, and its records."""
    baseline = {"model.pos_embed": "1d", "model.pool": "cls", "model.stem": "patch", "model.lr": 0.01}
    swept = {
        "model.pos_embed": ["none", "1d", "2d", "rope", "sincos2d"],
        "model.pool": ["cls", "gap"],
        "model.stem": ["patch", "root"],
        "model.lr": [0.01 * (1 + step) for step in range(rates)],
        "seed_everything": [0, 1, 2],
    }
    study = lab.study({"study.name": "s", "study.baseline": baseline, **settings}, swept)
    facts = {"study": "s", "cell": "c", "status": "finished", "data": {"name": "digits", "classes": 10}}
    records = []
    for cell in study.cells():
        metrics = {"test_acc": 0.8 + np.random.default_rng([cell.index]).normal(0, 0.01)}
        mark = fingerprint(cell.overrides)
        records.append(
            RunRecord(seed=cell.seed, config=nested(cell.overrides), metrics=metrics, fingerprint=mark, **facts)
        )
    return study, Runs(location="here", records=tuple(records))


def nested(flat):
    """Dotted keys of two words as blocks."""
    blocks = {key: value for key, value in flat.items() if "." not in key}
    for key in flat.keys() - blocks.keys():
        block, word = key.split(".")
        blocks.setdefault(block, {})[word] = flat[key]
    return blocks


def calls_of(work):
    """How many functions of the table's own modules are entered, and built-in ones called from there."""
    count = 0

    def seen(frame, event, _):
        nonlocal count
        count += event in ("call", "c_call") and frame.f_code.co_filename.startswith(OWN)

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("settings", [{}, {"study.columns": ["model.stem"], "study.rows": ["model.lr"]}])
def test_twice_the_arms_take_at_most_twice_the_calls(lab, settings):
    def table_of(study, runs):
        table = make_table(study, runs)
        make_view(table)
        as_csv(table)

    few, many = factorial(lab, 3, **settings), factorial(lab, 6, **settings)
    table_of(*few)  # what is done once in a process
    # a little more than double: of the arms more differ from the baseline in every factor, with more arms between
    assert calls_of(lambda: table_of(*many)) < 2.05 * calls_of(lambda: table_of(*few))


def test_the_arms_between_two_are_those_that_a_look_at_each_finds():
    draw = np.random.default_rng(0)
    arms = [dict(zip("abcd", map(str, row), strict=True)) for row in draw.integers(0, 3, (60, 4))]
    for arm in arms[::7]:
        arm["c"] = BOUND
    between = Between(arms)
    for one, other in ((arms[i], arms[j]) for i, j in draw.integers(0, 60, (200, 2))):
        wanted = [arm for arm in arms if all(arm[key] in (one[key], other[key], BOUND) for key in arm)]
        assert between(one, other) == wanted


def test_places_of_a_table_go_by_what_values_mean(lab):
    """In one row stands what W&B has as the number 0.001 for one arm and as the text 1e-3 for another."""
    values = [("cls", 0.001), ("gap", "1e-3"), ("cls", 1.0), ("gap", 1)]
    cells = make_cells([{"model.pool": pool, "model.lr": rate, "seed_everything": 0} for pool, rate in values])
    settings = {"study.name": "s", "study.rows": ["model.lr"], "study.columns": ["model.pool"]}
    study = replace(lab.study(settings, {"model.pool": ["cls", "gap"], "model.lr": [0.1]}), known=tuple(cells))
    for cell in cells:
        config = {"model.lr": float(cell.overrides["model.lr"])}
        lab.run(cell, {"test_acc": 0.5 + cell.index / 10}, study="s", config=config)
    table = make_table(study, lab.root)
    found = [[table.at("test_acc", row, column).values[0] for column in table.columns] for row in table.rows]
    assert found == [[0.5, 0.6], [0.7, 0.8]]


def test_of_equal_cells_and_records_the_same_runs_are_found_without_a_plan(lab):
    """All that a cell sets decides, in any spelling; of two runs of a cell the newest counts."""
    swept = {"model.lr": [0.001, 1], "model.pool": ["cls", "gap"], "seed_everything": [0]}
    study = lab.study({"study.name": "s"}, swept)
    for index, cell in enumerate(study.cells()):
        written = {"model.lr": "1e-3" if cell.overrides["model.lr"] < 1 else 1.0}
        for again in range(2):
            lab.run(
                cell, {"test_acc": 0.1 * index + 0.01 * again}, study="s", config=written,
                finished=f"2026-0{2 - again}-01", folder=lab.root / "s" / f"{index}-{again}",
            )  # fmt: skip
    arms = make_table(study, lab.root).arms
    assert [arm.runs[0].metrics["test_acc"] for arm in arms] == [0.0, 0.1, 0.2, pytest.approx(0.3)]
    assert len({fingerprint(arm.runs[0].config) for arm in arms}) == 4
