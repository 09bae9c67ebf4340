"""How many seeds a study takes, from a pilot, and what that costs."""

import json
import math

import pytest

from vitexp import cli, stats
from vitexp.stats.planning import seeds_for_effect
from vitexp.study.plan import make_plan, pilot_seeds


@pytest.fixture
def pilot(lab, filled):
    """Three seeds of the position study, whose runs tell their cost."""
    study = lab.positions(seeds=3)
    lab.fill(study, filled.metrics_of, train_seconds=8.0, train_flops=2e9)
    return study


def test_a_plan_is_that_of_its_comparisons_at_their_share_of_the_error(lab, pilot):
    from vitexp.study.table import make_table

    plan = make_plan(pilot, lab.root, effect=0.005)
    assert (plan.effect, plan.margin, plan.arms, plan.seconds, plan.train_flops) == (0.005, 0.01, 8, 8.0, 2e9)
    level = 1 - 0.95 ** (1 / 14)
    entries = [one for held in make_table(pilot, lab.root).entries.values() for one in held if one.judgement]
    expected = [seeds_for_effect(one.judgement, 0.005, level).seeds for one in entries]
    assert [row.for_effect.seeds for row in plan.rows] == expected
    still_open = [n for n, one in zip(expected, entries, strict=True) if one.judgement.verdict == stats.NO_DIFFERENCE]
    assert len(still_open) == len(plan.open)
    assert plan.seeds("for_effect") == max(still_open, default=None)


def test_a_smaller_effect_takes_more_seeds_in_the_square(lab, pilot):
    fine, coarse = (make_plan(pilot, lab.root, effect=size).rows[1].for_effect for size in (0.0005, 0.001))
    assert 3 < fine.seeds / coarse.seeds < 4.5
    assert fine.low < fine.seeds < fine.high


def test_the_terminal_says_runs_and_cost(lab, pilot, capsys):
    assert cli.main(["plan", str(pilot.path), "--root", str(lab.root), "--effect", "0.002"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    seeds = make_plan(pilot, lab.root, effect=0.002).seeds("for_effect")
    assert f"Every comparison to show 0.2 points: {8 * seeds:,} runs (8 arms, {seeds} seeds)" in text
    assert "5 % over all 14 comparisons" in text
    assert "worse (pilot)" in text


def test_json_is_one_document(lab, pilot, capsys):
    assert cli.main(["plan", str(pilot.path), "--root", str(lab.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "vitexp.plan/1"
    assert len(document["comparisons"]) == 14
    assert {"arm", "metric", "pilot", "verdict", "for_effect", "for_margin", "images"} == document["comparisons"][
        0
    ].keys()


@pytest.mark.parametrize(
    ("settings", "fill", "sentence"),
    [
        ({}, {"seeds": 2}, r"are no pilot \(not enough evidence\): a plan takes 3 seeds"),
        ({"study.baseline": {}}, {"seeds": 3}, "has no study.baseline, so nothing is compared"),
    ],
)
def test_what_is_no_pilot_is_refused(lab, filled, settings, fill, sentence):
    study = lab.positions(**fill, **settings)
    lab.fill(study, filled.metrics_of)
    with pytest.raises(ValueError, match=sentence):
        make_plan(study, lab.root)


def test_a_pilot_in_which_nothing_trained_the_same_is_refused(lab, filled):
    study = lab.positions(seeds=3)
    lost = {"train_loss_start": 2.3, "train_loss_end": 2.31}
    for cell in study.cells():
        lab.run(cell, filled.metrics_of(cell), learning=lost if cell.seed == 1 else {})
    with pytest.raises(ValueError, match=r"are no pilot \(unstable\)"):
        make_plan(study, lab.root)


def test_an_arm_that_is_not_planned_is_named(lab, filled, capsys):
    study = lab.positions(seeds=3)
    lost = {"train_loss_start": 2.3, "train_loss_end": 2.31}
    for cell in study.cells():
        unstable = cell.seed == 1 and cell.overrides["model.pos_embed"] == "2d"
        lab.run(cell, filled.metrics_of(cell), learning=lost if unstable else {})
    plan = make_plan(study, lab.root)
    assert plan.left_out
    assert all("pos_embed=2d" in text and "(unstable)" in text for text in plan.left_out)
    assert cli.main(["plan", str(study.path), "--root", str(lab.root)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not planned: pos_at=stem pos_embed=2d (unstable)" in said
    assert "The pilot decides all." not in said
    assert "did not train" in said


def test_a_pilot_takes_the_first_seeds_of_the_study(lab):
    study = lab.positions(seeds=5)
    assert pilot_seeds(study, 3) == [0, 1, 2]
    for count in (2, 6):
        with pytest.raises(ValueError, match=rf"--pilot {count}: a pilot takes 3 seeds or more, and .* lists 5"):
            pilot_seeds(study, count)


CSV = "arm,seed,test_acc,fewshot_5\n" + "".join(
    f"{arm},{seed},{level + 0.001 * ((7 * seed + len(arm)) % 5)},{level - 0.1 + 0.001 * seed}\n"
    for arm, level in (("mine", 0.9), ("theirs", 0.85), ("base", 0.8))
    for seed in range(5)
)


def test_other_people_s_numbers_make_a_table_and_a_plan(tmp_path, capsys):
    path = tmp_path / "theirs.csv"
    path.write_text(CSV)
    options = ["--results", str(tmp_path / "results"), "--baseline", "base", "--margin", "0.01"]
    assert cli.main(["table", str(path), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["margin"], document["comparisons"]) == ("vitexp.table/1", 0.01, 4)
    rows = {(row["csv.arm"], row["metric"]): row for row in document["rows"]}
    assert rows["base", "test_acc"]["baseline"]
    assert rows["mine", "test_acc"]["verdict"] == "better"
    assert rows["mine", "test_acc"]["mean"] == pytest.approx(math.fsum(rows["mine", "test_acc"]["values"].values()) / 5)
    assert cli.main(["table", str(path), *options]) == 0
    assert "for these test images alone" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["plan", str(path), "--baseline", "base"]) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "needs a header arm,seed,METRIC"),
        ("arm,test_acc\na,0.5\n", "needs a header arm,seed,METRIC"),
        ("arm,seed\na,0\n", "needs a header arm,seed,METRIC"),
        ("arm,seed,test_acc\na,zero,0.5\n", "line 2: arm is 'a' and seed 'zero'; give a name and a whole number"),
        ("arm,seed,test_acc\na,0,high\n", "line 2: test_acc is 'high', which is no finite number"),
        ("arm,seed,test_acc\na,0,nan\n", "line 2: test_acc is 'nan', which is no finite number"),
        ("arm,seed,test_acc\na,0,0.5\na,0,0.6\n", "has two lines of the same arm and seed"),
        ("arm,seed,test_acc\na,0,0,85\n", "line 2: it has more fields than the header; write decimals with a point"),
        ("arm,seed,test_acc,test_acc\na,0,0.5,0.6\n", "has two columns test_acc"),
        ("arm,seed,test_acc\n0.001,0,0.5\n1e-3,0,0.6\n", "arms '0.001' and '1e-3' are one number"),
        ("arm,seed,test_acc\na,0,80.5\n", "line 2: test_acc is 80.5, and a share lies in 0 to 1; write 80 % as 0.8"),
    ],
)
def test_a_csv_file_that_is_no_table_of_runs_is_refused(tmp_path, capsys, text, sentence):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    assert cli.main(["table", str(path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["a,0,0.5", "a,1,0.6", "b,0,0.7", "b,1,0.8"], "not enough evidence"),
        (["a,0,0.5", "a,1,0.6", "b,2,0.7", "b,3,0.8"], "no seed in common with the baseline in test_acc"),
        (["a,0,0.5", "a,1,0.5", "a,2,0.5", "b,0,0.7", "b,1,0.7", "b,2,0.7"], "no spread"),
    ],
)
def test_a_csv_file_that_is_no_pilot_is_refused_and_cannot_be_trained(tmp_path, capsys, lines, why):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["arm, seed, test_acc", *(line.replace(",", ", ") for line in lines)]))
    assert cli.main(["plan", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"are no pilot ({why}): a plan takes 3 seeds" in said
    assert "--pilot" not in said


def test_losses_are_not_planned_in_points(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(CSV.replace("test_acc,fewshot_5", "test_loss,test_acc"))
    assert cli.main(["plan", str(path), "--json"]) == 0
    assert {row["metric"] for row in json.loads(capsys.readouterr().out)["comparisons"]} == {"test_acc"}
    path.write_text(CSV.replace("test_acc,fewshot_5", "test_loss,val_loss"))
    assert cli.main(["plan", str(path)]) == 2
    assert "are no pilot (no accuracy is primary)" in capsys.readouterr().err


def test_a_margin_of_accuracies_is_not_said_of_losses(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(CSV.replace("test_acc,fewshot_5", "test_loss,val_loss"))
    assert cli.main(["table", str(path), "--results", str(tmp_path / "results"), "--margin", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "95 % interval" in text
    assert "Equivalent" not in text


def test_each_csv_file_has_a_folder_of_its_own(tmp_path):
    for stem in ("a run", "b"):
        (tmp_path / f"{stem}.csv").write_text(CSV)
        assert cli.main(["table", str(tmp_path / f"{stem}.csv"), "--results", str(tmp_path / "results")]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["csv-a_run", "csv-b"]


def test_the_pilot_is_judged_by_the_margin_that_is_planned(lab, pilot):
    wide, narrow = (make_plan(pilot, lab.root, margin=margin) for margin in (0.3, 0.0001))
    assert [row.verdict for row in wide.rows if "equivalent within 0.3" not in row.verdict] == []
    assert [row.verdict for row in narrow.rows if "equivalent" in row.verdict] == []
    assert len(narrow.open) > len(wide.open) == 0


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [({"effect": 3.0}, "--effect is 3"), ({"effect": 0.0}, "--effect is 0"), ({"margin": 2.0}, "--margin is 2")],
)
def test_a_size_in_per_cent_is_refused(lab, pilot, sizes, refused):
    with pytest.raises(ValueError, match=f"{refused}; give a difference in accuracy between 0 and 1, such as 0.01"):
        make_plan(pilot, lab.root, **sizes)


def test_seeds_without_end_are_not_blamed_on_images_that_nobody_knows(lab, pilot, capsys):
    assert cli.main(["plan", str(pilot.path), "--root", str(lab.root), "--effect", "0.000001"]) == 0
    text = capsys.readouterr().out
    assert "over 10,000 seeds" in text
    assert "images" not in text


def test_the_options_of_a_csv_file_are_not_for_a_study(lab, pilot, capsys):
    assert cli.main(["table", str(pilot.path), "--root", str(lab.root), "--margin", "0.1"]) == 2
    assert "--margin is for a CSV file; a study names its study.margin" in capsys.readouterr().err
