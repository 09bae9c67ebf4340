"""Which numbers of changed images may stand beside each other: the same classes, images and settings."""

import csv
import re
import shutil

import numpy as np
import pytest
from tools_at_work import robustness

from vitexp import cli
from vitexp.bits import write_answers
from vitexp.data.module import ShardData
from vitexp.data.shards import write
from vitexp.record import read_records
from vitexp.report.robustness import write_robustness
from vitexp.robust import FILE, write_tests
from vitexp.study.spec import as_study


def test_classes_are_those_of_the_network_by_their_names(home, capsys):
    """The digits with their classes in another order, of which the names say so."""
    shown = ShardData(shards="digits", batch_size=2000, image_size=8, val_fraction=0.0)
    arrays = {}
    for split in ("train", "test"):
        batch = next(iter(shown.eval_loader(split)))
        arrays |= {f"x_{split}": batch.images.permute(0, 2, 3, 1).numpy(), f"y_{split}": 9 - batch.labels.numpy()}
    np.savez(home / "turned.npz", **arrays)
    write.make(str(home / "turned.npz"), home / "turned", workers=1)
    for place in ("turned", "again"):
        if place == "again":
            shutil.copytree(home / "turned", home / "again")
            (home / "again" / "classes.txt").write_text("\n".join(str(9 - k) for k in range(10)) + "\n")
            assert cli.main(["shards", "index", "again"]) in (0, None)
    folder = next(home.rglob("record.json")).parent
    shutil.copy(folder / "checkpoints" / "last.ckpt", "alone.ckpt")

    def accuracy(words):
        status, out, err = robustness(capsys, *words.split())
        assert status == 0, err
        found = re.findall(r"([\d.]+) %  (.*)", out)
        return {"shown" if text.startswith("images of") else text: float(share) for share, text in found}

    expected = accuracy(f"{folder} --test shuffle attacks --shift-data ./again")
    assert accuracy("alone.ckpt --data ./again --test shuffle attacks --shift-data digits") == expected
    assert expected["shown"] == expected["images as they are"] > 20
    assert accuracy(f"{folder} --test shuffle --shift-data ./turned")["shown"] < 20
    (home / "turned" / "classes.txt").write_text((home / "again" / "classes.txt").read_text())
    assert cli.main(["shards", "index", "turned"]) in (0, None)
    assert accuracy(f"{folder} --test shuffle --shift-data ./turned")["shown"] == expected["shown"]


def test_what_was_measured_on_other_images_is_named_and_not_compared(home, capsys):
    """Of a family of corruptions and of a single test, from run to run and from arm to arm."""
    robustness(capsys, "rob.yaml", "--test", "shuffle", "corruptions_ours", "--images", "50")
    folders = sorted(path.parent for path in home.rglob("record.json") if "none" in str(path))
    for folder in folders[:1]:
        (folder / FILE).unlink()
        robustness(capsys, folder, "--test", "shuffle", "corruptions_ours", "--images", "20")
    robustness(capsys, "rob.yaml", "--test", "drop", "--images", "20", "--ratios", "50")
    write_robustness(as_study(home / "rob.yaml"), home / "runs", home / "results")
    text = (home / "results" / "rob" / "robustness.md").read_text()
    assert "mean over seeds that were measured on different images" in text
    assert "NOT every network saw the same changed images" in text
    with (home / "results" / "rob" / "robustness.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["baseline"] == "False"}
    names = ("ours_contrast", "ours_contrast_1", "shuffle_2x2")
    assert {rows[f"robust/{name}"]["difference"] for name in names} == {""}
    assert rows["robust/drop_50"]["difference"]


def test_mean_corruption_error_is_that_of_a_hand(home, capsys):
    """Errors of two families: none 0.4 and 0.6 (seeds 0 and 1) and 0.2, 0.2; the baseline 0.2, 0.2 and 0.1, 0.3."""
    wrong = {
        "contrast": {("none", 0): 4, ("none", 1): 6, ("1d", 0): 2, ("1d", 1): 2},
        "fog": {("none", 0): 2, ("none", 1): 2, ("1d", 0): 1, ("1d", 1): 3},
        "snow": {("none", 0): 2, ("none", 1): 2, ("1d", 0): 0, ("1d", 1): 0},
    }
    for run in read_records(home / "runs")[0]:
        tests = {}
        for family, errors in wrong.items():
            for level in range(1, 6):
                name = f"ours_{family}_{level}"
                kept = errors[run.config["model"]["pos_embed"], run.seed] * level
                right = [place >= kept for place in range(30)]  # errors grow from severity to severity
                answers = write_answers(run.directory, f"robust/{name}", right, "order")[f"robust/{name}"]
                tests[name] = {"accuracy": sum(right) / 30, "key": "", "settings": {}, "answers": answers}
        write_tests(run.directory, run, tests)
    write_robustness(as_study(home / "rob.yaml"), home / "runs", home / "results")
    text = (home / "results" / "rob" / "robustness.md").read_text()
    section = text[text.index("Mean corruption error over 2 families (without 1 in which it makes no error)") :]
    means = [float(found) for found in re.findall(r"\| ([\d.]+) ± ", section)]
    # none: (4 / 2 + 2 / 2) / 2 and (6 / 2 + 2 / 2) / 2; 1-D: (2 / 2 + 1 / 2) / 2 and (2 / 2 + 3 / 2) / 2
    assert sorted(means) == [100.0, 175.0]
    halves = [float(found) for found in re.findall(r" ± ([\d.]+)", section)][:2]
    assert sorted(halves) == pytest.approx([12.706 * 25, 12.706 * 25], abs=0.1)  # Student's quantile, one degree


def test_arms_that_were_changed_otherwise_are_not_compared(home):
    """Each salience is that of another network: the tests have one name, and are not one test."""
    for run in read_records(home / "runs")[0]:
        answers = write_answers(run.directory, "robust/salient_50", [True] * 20 + [False] * 10, "order")
        of = run.config["model"]["pos_embed"]
        entry = {"accuracy": 2 / 3, "key": "", "settings": {"salience": of}, "answers": answers["robust/salient_50"]}
        write_tests(run.directory, run, {"salient_50": entry})
    write_robustness(as_study(home / "rob.yaml"), home / "runs", home / "results")
    text = (home / "results" / "rob" / "robustness.md").read_text()
    assert "NOT every network saw the same changed images" in text
    assert "changed by salience" in text
    with (home / "results" / "rob" / "robustness.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "robust/salient_50"]
    assert [row["p"] for row in rows] == ["", ""]
