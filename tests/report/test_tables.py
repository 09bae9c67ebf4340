import io
import re

import pytest
from rich.console import Console

from vitexp.report.tables import TerminalTable, print_written, write_table
from vitexp.report.view import make_view
from vitexp.study.table import make_table


def text_of(renderable, width=118):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def shown(filled, width=118):
    return text_of(TerminalTable(make_view(make_table(filled.study, filled.root))), width)


def test_the_layout_is_that_of_table_8(filled):
    text = shown(filled)
    assert re.search(r"position +\n +embedding +at the stem +every layer +every layer, shared", text)
    rows = re.findall(r"^ (none|1-D|2-D|relative) ", text, flags=re.MULTILINE)
    assert rows == ["none", "1-D", "2-D", "relative"] * 2
    assert re.search(r"^ none +\d\d\.\d\d ± \d\.\d\d +– +– +$", text, flags=re.MULTILINE)


def test_n_stands_in_every_headline(filled):
    headlines = [line for line in shown(filled).splitlines() if "mean ±" in line]
    assert headlines == [
        "Top-1 accuracy, %: mean ± 95 % interval, n = 5 seeds",
        "5-shot linear accuracy, %: mean ± 95 % interval, n = 5 seeds",
    ]
    assert "8 arms · 40 of 40 runs finished · seeds 0–4" in shown(filled)


def test_the_footnotes_say_what_is_compared_and_what_the_paper_measured(filled):
    text = " ".join(shown(filled).split())
    assert "◆ is the baseline: 1-D, at the stem." in text
    assert "Beside each mean: the difference to it, paired by seed, with its interval" in text
    assert "The intervals of the 14 comparisons hold together in 95 % of cases" in text
    assert "Equivalent (TOST): the whole interval lies within ±1 point." in text
    assert "Minimum detectable effect at 80 % power: top-1 accuracy 0." in text
    assert "Paper: Table 8, ImageNet 5-shot linear accuracy of ViT-B/16" in text
    assert "compare the differences, not the levels" in text


@pytest.mark.parametrize("width", [100, 118])
def test_nothing_is_cut_off_at_the_widths_of_terminals(filled, width):
    text = shown(filled, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"paper \d\d\.\d\d", text)) == 8


def test_verdicts_move_beneath_their_differences_where_it_is_narrow(filled):
    assert re.search(r"−1\.94 ± 0\.\d\d  worse", shown(filled, 118))
    narrow = shown(filled, 90).splitlines()
    line = next(index for index, text in enumerate(narrow) if "−1.94 ± 0." in text)
    assert "worse" not in narrow[line]
    assert "worse" in narrow[line + 1]


def test_missing_arms_and_uneven_seeds_are_visible(lab):
    study = lab.positions(**{"study.name": "gaps"})
    for cell in study.cells():
        kind, at = cell.overrides["model.pos_embed"], cell.overrides["model.pos_at"]
        if kind != "relative" and not (at == "every" and cell.seed > 1):
            lab.run(cell, {"test_acc": 0.9 + 0.01 * cell.seed, "fewshot_5": 0.8 + 0.001 * cell.seed**2}, study="gaps")
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert "n = 0–5 seeds" in text
    assert "· 29 of 40 runs finished ·" in text
    assert "29 of 40 runs are finished" in " ".join(text.split())
    assert re.search(r"relative +no finished run", text)
    assert re.search(r"± \d+\.\d\d  n = 2", text)
    assert "not enough evidence" in " ".join(text.split())


def test_a_difference_over_fewer_seeds_than_its_mean_says_so(lab, filled):
    study = lab.positions(**{"study.name": "few"})
    for cell in study.cells():
        if not (cell.overrides["model.pos_embed"] == "1d" and cell.seed < 2):
            lab.run(cell, filled.metrics_of(cell), study="few")
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert re.search(r"none +\d\d\.\d\d ± \d\.\d\d  n = 5", text)
    assert re.search(r"−\d\.\d\d ± \d\.\d\d \(n = 3\)", text)


def test_a_baseline_that_leaves_factors_open_is_one_for_each_of_their_values(lab):
    swept = {"model.pool": ["cls", "gap"], "data.train_images": [64, 1024], "seed_everything": [0, 1, 2]}
    study = lab.study({"study.name": "s", "study.baseline": {"model.pool": "cls"}, "study.rows": ["model.pool"]}, swept)
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert "◆ is the baseline: class token at equal training images." in " ".join(text.split())
    assert len(re.findall(r"◆ class token, (64|1,024) training images", text)) == 2


def test_without_columns_every_arm_has_a_line_with_its_tuned_value(lab):
    settings = {"study.name": "pool", "study.tune": ["model.lr"], "study.baseline": {"model.pool": "cls"}}
    swept = {"model.pool": ["cls", "gap"], "model.lr": [0.001, 0.003], "seed_everything": [0, 1, 2]}
    study = lab.study({**settings, "study.rows": ["model.pool"], "study.paper": "figure9"}, swept)
    level = {"cls": 0.001, "gap": 0.003}

    def metrics(cell):
        best = level[cell.overrides["model.pool"]] == cell.overrides["model.lr"]
        value = 0.8 + 0.05 * best + 0.01 * cell.seed * (1 + (cell.overrides["model.pool"] == "gap"))
        return {"val_acc": value, "test_acc": value}

    lab.fill(study, metrics)
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert re.search(r"◆ class token +86\.00 ± 2\.48 +learning rate 0\.001", text)
    assert re.search(r"global average pooling +87\.00 ± 4\.97 +\+1\.00 ± 2\.48 +no difference shown +0\.\d{3}", text)
    assert "Each arm has the learning rate that is best for it by top-1 accuracy on the validation slice" in text
    tried = "validation slice, chosen from 6 runs over learning rate 0.001, 0.003; test numbers of the others were not"
    assert tried in " ".join(text.split())
    assert "Paper: Figure 9, drawn only" in text


def test_grids_that_differ_from_arm_to_arm_are_named_so(lab):
    settings = {"study.name": "pool", "study.tune": ["model.lr"], "study.rows": ["model.pool"]}
    pairs = [{"pool": pool, "lr": rate} for pool, rate in (("cls", 0.1), ("cls", 0.2), ("gap", 0.2), ("gap", 0.4))]
    study = lab.study(settings, {"model": pairs, "seed_everything": [0, 1, 2]})
    lab.fill(study, lambda cell: {"val_acc": 0.5 + 0.1 * cell.seed, "test_acc": 0.5 + 0.1 * cell.seed})
    text = " ".join(text_of(TerminalTable(make_view(make_table(study, lab.root)))).split())
    assert "chosen from 6 runs over learning rate 0.1, 0.2, 0.4 (not all in every arm); test" in text


def test_one_learning_rate_per_arm_is_not_called_a_choice(lab):
    settings = {"study.name": "fixed", "study.tune": ["model.lr"], "study.rows": ["model.pool"]}
    pairs = [{"pool": "cls", "lr": 0.003}, {"pool": "gap", "lr": 0.001}]
    study = lab.study(settings, {"model": pairs, "seed_everything": [0, 1, 2]})
    lab.fill(study, lambda cell: {"val_acc": 0.5 + 0.1 * cell.seed, "test_acc": 0.5 + 0.1 * cell.seed})
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert "Each arm has one learning rate, which goes with it: none was chosen from several." in text
    assert "that is best for it" not in text


@pytest.mark.parametrize(("table", "stands"), [("table8", True), ("table5", False)])
def test_footnotes_speak_of_nothing_that_is_not_there(lab, filled, table, stands):
    study = lab.positions(**{"study.paper": table})
    lab.fill(study, filled.metrics_of)
    text = " ".join(text_of(TerminalTable(make_view(make_table(study, lab.root)))).split())
    assert ("In brackets its difference to the same baseline" in text) == stands
    assert "mean over data sets" not in text


def test_equal_seeds_show_no_interval_and_the_footnote_says_why(lab):
    study = lab.study({"study.name": "s"}, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    text = text_of(TerminalTable(make_view(make_table(study, lab.root))))
    assert re.search(r"class token +90\.00 +\n", text)
    assert "No interval stands where all seeds gave the same value." in " ".join(text.split())


def test_the_files_lie_beside_each_other_and_the_last_line_says_where(filled, tmp_path, capsys):
    written = write_table(filled.study.path, filled.root, tmp_path / "results")
    assert [path.name for path in written.paths] == ["table.md", "table.csv", "table.tex"]
    assert all(path.parent == tmp_path / "results" / "pos" and path.stat().st_size for path in written.paths)
    print_written(written)
    last = capsys.readouterr().out.partition("Written: ")[2]
    assert str(written.paths[2]) in last.replace("\n", "")
