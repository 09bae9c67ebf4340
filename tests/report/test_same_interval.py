"""One interval in every form of a table: terminal, Markdown, LaTeX, HTML, CSV and JSON."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats as reference

from vitexp.json_text import as_text
from vitexp.record import RunRecord, fingerprint
from vitexp.report import tidy
from vitexp.report.html import write_html
from vitexp.report.markup import study_as_latex, study_as_markdown
from vitexp.report.tables import TerminalTable
from vitexp.report.view import make_view
from vitexp.study.select import Runs
from vitexp.study.table import make_table

SHARES = st.integers(0, 1000).map(lambda count: count / 1000)


def t_interval(values):
    """Low and high end of Student's t interval of a share, which cannot pass 0 and 1."""
    half = reference.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return max(0.0, np.mean(values) - half), min(1.0, np.mean(values) + half)


def text_of(mean, low, high):
    if low == 0 or high == 1:
        return f"{100 * mean:.2f} ({100 * low:.2f} to {100 * high:.2f})"
    return f"{100 * mean:.2f} ± {100 * (high - mean):.2f}"


@pytest.fixture(scope="module")
def two_arms(make_lab, tmp_path_factory):
    lab = make_lab(tmp_path_factory.mktemp("interval"))
    named = {"study.name": "s", "study.metrics": ["test_acc"], "study.baseline": {"model.pool": "cls"}}
    return lab.study(named, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]})


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SHARES, min_size=6, max_size=6, unique=True))
def test_every_form_of_a_table_gives_the_same_interval(two_arms, tmp_path, values):
    facts = {"study": "s", "cell": "c", "status": "finished", "data": {"name": "digits", "classes": 10}}
    records = []
    for cell, value in zip(two_arms.cells(), values, strict=True):
        config = {"seed_everything": cell.seed, "model": {"pool": cell.overrides["model.pool"]}}
        measured = {"metrics": {"test_acc": value}, "fingerprint": fingerprint(cell.overrides)}
        records.append(RunRecord(seed=cell.seed, config=config, **measured, **facts))
    runs = Runs(location="here", records=tuple(records))
    table = make_table(two_arms, runs)
    view, out = make_view(table), io.StringIO()
    Console(file=out, width=200).print(TerminalTable(view))
    page = write_html([(two_arms, runs)], tmp_path, tmp_path).read_text()
    rows = list(csv.DictReader(io.StringIO(tidy.table(table))))
    for arm, row, line in zip(table.arms, rows, json.loads(as_text(tidy.table_document(table)))["rows"], strict=True):
        trained = list(arm.values("test_acc").values())
        mean, (low, high) = np.mean(trained), t_interval(trained)
        for given_row in (row, line):
            assert [float(given_row[key]) for key in ("mean", "low", "high")] == pytest.approx(
                [mean, low, high], abs=1e-12
            )
        said = text_of(*(float(row[key]) for key in ("mean", "low", "high")))
        for form in (out.getvalue(), study_as_markdown(view), page, study_as_latex(view).replace(r"$\pm$", "±")):
            assert re.search(rf"(?<![\d.]){re.escape(said)}(?!\d)", form)
