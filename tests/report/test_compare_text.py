"""`vitexp compare` on the command line: sentences, exit statuses, and one JSON document."""

import json

import numpy as np
import pytest

from vitexp.cli import main

NOISE = np.array([0.010, -0.004, 0.003, -0.012, 0.005, -0.002])
LEVELS = {"base": 0.9, "better": 0.95, "worse": 0.85, "alike": 0.9005, "near": 0.9105}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_lab):
    """An arm for each level: its folder."""
    lab, found = make_lab(tmp_path_factory.mktemp("arms")), {}
    for index, (name, level) in enumerate(LEVELS.items()):
        swept = {"model.dropout": [index / 10], "seed_everything": list(range(6))}
        for cell in lab.study({"study.name": "s"}, swept).cells():
            noise = NOISE if name == "base" else NOISE[::-1]
            record = lab.run(cell, {"test_acc": level + float(noise[cell.seed])}, study="s")
        found[name] = str(lab.root / "s" / record.cell)
    return found


def run(capsys, *words):
    status = main(["compare", *words])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "margin", "status", "words"),
    [
        ("better", None, 0, "Better: top-1 accuracy +5.00 points, 95 % interval +4."),
        ("worse", None, 20, "Worse: top-1 accuracy −5.00 points, 95 % interval −5."),
        ("alike", "0.02", 10, "Equivalent within 2 points: top-1 accuracy +0.05 points"),
        ("alike", None, 30, "Undecided: top-1 accuracy +0.05 points"),
        ("near", "0.04", 0, "Better, and equivalent within 4 points: top-1 accuracy +1.05 points"),
    ],
)
def test_the_exit_status_is_the_verdict(folders, capsys, name, margin, status, words):
    more = ["--margin", margin] if margin else []
    found, out, err = run(capsys, folders["base"], folders[name], *more)
    assert (found, err) == (status, "")
    assert words in out
    assert "They differ in model.dropout (0.0 →" in out
    assert "give --ledger FILE" in " ".join(out.split())


def test_an_undecided_one_says_what_to_run(folders, capsys):
    _, out, _ = run(capsys, folders["base"], folders["alike"], "--margin", "0.005")
    text = " ".join(out.split())
    assert "The interval holds zero and leaves the margin." in text
    assert f"of {folders['alike']} and seeds 6" in text
    assert "in common show 0.5 points with 80 % power" in text


def test_no_study_shows_a_difference_of_nearly_nothing(folders, capsys):
    _, out, _ = run(capsys, folders["base"], folders["alike"], "--margin", "0.00001")
    assert "No study of a sensible size shows 0.001 points" in " ".join(out.split())


def test_the_ledger_is_said(folders, capsys, tmp_path):
    words = [folders["base"], folders["better"], "--ledger", str(tmp_path / "l.json"), "--candidates", "200"]
    status, out, _ = run(capsys, *words)
    text = " ".join(out.split())
    assert status == 0
    assert "99.9875 % interval" in text
    assert "Candidate 1 of its campaign, look 1: judged at 0.00013" in text


KEYS = {
    "schema", "verdict", "status", "equivalent", "sentence", "why", "metric", "margin", "about", "level", "base",
    "candidate", "differs", "difference", "to_run", "needed", "ledger", "cautions",
}  # fmt: skip


def test_the_document_is_all_that_is_printed(folders, capsys, tmp_path):
    ledger = str(tmp_path / "l.json")
    words = [folders["base"], folders["alike"], "--margin", "0.005", "--images", "these", "--json", "--ledger", ledger]
    status, out, err = run(capsys, *words)
    found = json.loads(out)
    assert (status, err, found["status"], found["verdict"]) == (30, "", 30, "undecided")
    assert (found["schema"], set(found)) == ("vitexp.compare/1", KEYS)
    assert (found["about"], found["metric"], found["margin"]) == ("these", "test_acc", 0.005)
    assert found["base"]["values"]["0"] == pytest.approx(0.91)
    assert found["difference"]["mean"] == pytest.approx(0.0005)
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert found["ledger"]["place"] == found["ledger"]["look"] == 1
    assert found["level"] == found["ledger"]["level"] == 2 * found["ledger"]["next_level"]
    assert len(found["to_run"]["base"]) == found["needed"]["seeds"] - 6
    assert found["differs"] == {"model.dropout": [0.0, pytest.approx(0.3)]}


def test_an_error_prints_one_sentence_and_no_document(folders, capsys):
    status, out, err = run(capsys, folders["base"], folders["base"], "--json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert run(capsys, folders["base"], folders["alike"], "--candidates", "0")[0] == 2
