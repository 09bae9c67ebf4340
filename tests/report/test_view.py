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


def test_the_setting_says_what_a_reviewer_asks_for(lab):
    settings = {"study.name": "s", "study.metrics": ["test_acc", "fewshot_5"]}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]})
    config = {"model.optimizer": "adamw", "model.lr": 0.003, "data.batch_size": 64, "run.shot_seeds": 3}
    lab.fill(
        study, lambda cell: {"test_acc": 0.9 + 0.01 * cell.seed, "fewshot_5": 0.5}, config=config, train_flops=2.72e11,
        code={"commit": "10d4270" + "0" * 33, "dirty": True}, device={"type": "cpu", "name": "AMD", "threads": 1},
        data={"name": "digits", "test_images": 359, "shards_fingerprint": "e0462d8972f937c6"},
    )  # fmt: skip
    assert make_view(make_table(study, lab.root)).footnotes[0] == (
        "Setting: n = 3 seeds; 359 test images; SD over seeds 1.00 (top-1 accuracy); optimizer AdamW; learning rate "
        "0.003; batch size 64; linear probe with L2 penalty 1024, 3 draws of the images; 0.272 TFLOP a run; "
        "commit 10d4270+; data digits e0462d8972f937c6; device cpu AMD."
    )


def test_intervals_of_levels_are_cut_at_all_images_and_those_of_differences_are_not(lab):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]},
    )
    values = {"cls": (0.5, 0.6, 0.7), "gap": (0.97, 0.98, 1.0)}
    lab.fill(study, lambda cell: {"test_acc": values[cell.overrides["model.pool"]][cell.seed]})
    view, table = make_view(make_table(study, lab.root)), make_table(study, lab.root)
    base, gap = table.entries["test_acc"]
    # mean 0.98333, SD 0.015275, t(2) 4.30265: half of the interval is 0.037946
    assert gap.interval.low == pytest.approx(0.945387, abs=1e-6)
    assert gap.interval.high == 1
    assert view.sections[0].rows[1][1][0].mean == "98.33 (94.54 to 100.00)"
    assert any("are cut, and given by their ends" in note for note in view.footnotes)
    assert gap.judgement.high > 0.4
    assert base.interval.high - base.interval.mean == pytest.approx(base.interval.mean - base.interval.low)
