import pytest

from vitexp.report.view import make_view, short_verdict
from vitexp.study.table import make_table


def test_every_cell_shows_mean_difference_verdict_and_the_paper_s_figure(filled):
    table = make_table(filled.study, filled.root)
    entry = table.at("fewshot_5", (("model.pos_embed", "2d"),), (("model.pos_at", "shared"),))
    row = next(row for label, row in make_view(table).sections[1].rows if label == "2-D")
    cell = row[2]
    half = 100 * (entry.interval.high - entry.interval.mean)
    difference = entry.judgement
    assert cell.mean == f"{100 * entry.interval.mean:.2f} ± {half:.2f}"
    assert cell.difference == (
        f"{100 * difference.mean:+.2f} ± {100 * (difference.high - difference.mean):.2f}".replace("-", "−")
    )
    assert (cell.verdict, cell.paper, cell.baseline) == ("equivalent", "paper 64.02 (−0.18)", False)


@pytest.mark.parametrize(
    ("verdict", "short"),
    [
        ("equivalent within 0.01", "equivalent"),
        ("better, but equivalent within 0.01", "better, yet equivalent"),
        ("worse", "worse"),
    ],
)
def test_a_cell_leaves_the_margin_to_the_footnote(verdict, short):
    assert short_verdict(verdict) == short
