"""The published numbers that stand beside ours: which there are, which arms meet them, and where they do not belong."""

from pathlib import Path

import pytest

from vitexp.report.paper import PAPER, published
from vitexp.report.view import make_view
from vitexp.study.spec import read_study
from vitexp.study.table import make_table

SWEEPS = sorted(Path(__file__).parents[2].glob("sweeps/*.yaml"))


def test_table_8_is_asked_in_our_own_words():
    table = published("table8")

    def figures(kind, *places):
        return [table.figure({"model.pos_embed": kind, "model.pos_at": at}) for at in places]

    assert table.metric == "fewshot_5"
    assert figures("none", "stem", "every") == [0.61382, None]
    assert figures("1d", "stem", "every", "shared") == [0.64206, 0.63964, 0.64292]
    assert figures("2d", "stem", "every", "shared") == [0.64001, 0.64046, 0.64022]
    assert figures("relative", "stem", "shared") == [0.64032, None]
    assert figures("rope", "stem") == [None]
    assert table.figure({"model.pos_embed": "1d"}) is None


def test_table_5_is_asked_by_network_and_the_name_of_its_weights():
    table = published("table5")
    assert table.figure({"model.arch": "B/16", "run.init": "weights/imagenet21k-B-16.npz"}) == pytest.approx(0.8397)
    assert table.figure({"model.arch": "H/14", "run.init": "weights/imagenet-H-14.ckpt"}) is None
    assert table.figure({"model.arch": "B/16", "run.init": "none"}) is None


def test_every_figure_meets_a_cell_of_a_shipped_sweep():
    met = set()
    for study in map(read_study, SWEEPS):
        paper = PAPER.get(study.config.paper)
        if paper is None or paper.metric not in study.config.metrics:
            continue
        for factors in (cell.overrides for cell in study.cells()):
            if not paper.data or Path(factors.get("data.shards", "")).name == paper.data:
                met |= {(paper.source, key) for key in paper.figures if paper.figure(factors) == paper.figures[key]}
    assert met == {(paper.source, key) for paper in PAPER.values() for key in paper.figures}
    assert len(met) == 8 + 14


@pytest.mark.parametrize(("shards", "beside"), [("shards/imagenet", True), ("shards/cifar100", False)])
def test_levels_stand_beside_runs_on_the_same_data_set_alone(lab, shards, beside):
    starts = ["weights/imagenet-B-16.ckpt", "weights/jft-B-16.ckpt"]
    settings = {"study.name": "t", "study.rows": ["run.init", "model.arch"], "study.paper": "table5"}
    settings |= {"study.metrics": ["test_acc"], "study.baseline": {"run.init": starts[0]}}
    arms = [{"run.init": start, "model.arch": "B/16"} for start in starts]
    swept = {"arm": arms, "seed_everything": [0, 1, 2]}
    study = lab.study({**settings, "study.together": [["run.init", "model.arch"]]}, swept, {"data.shards": shards})
    lab.fill(study, lambda cell: {"test_acc": 0.7 + 0.01 * cell.seed})
    view = make_view(make_table(study, lab.root))
    shown = [row[0].paper for _, row in view.sections[0].rows]
    assert shown == (["paper 77.91", "paper 84.15 (+6.24)"] if beside else ["", ""])
    assert not any("not ours" in note for note in view.footnotes)


def test_every_table_says_where_it_stands_and_what_it_cannot_say():
    for name, table in PAPER.items():
        assert table.source.lower().replace(" ", "") == name
        assert table.caveat


def test_an_unknown_table_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"study\.paper is 'table1'; name one of table2, table3"):
        published("table1")
