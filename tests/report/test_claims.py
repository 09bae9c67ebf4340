import csv
import io
import json
import math
import re

import pytest

from vitexp.cli import main
from vitexp.record import read_record
from vitexp.study.claims.claims import CLAIMS, OUT_OF_REACH


def shown(capsys, *words):
    status = main(["claims", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def claims_report(filled, tmp_path, capsys):
    status, out, _ = shown(capsys, str(filled.study.path), "--root", str(filled.root), "--results", str(tmp_path))
    assert status == 0
    return out, tmp_path


def test_the_terminal_says_each_claim_with_its_numbers_within_100_columns(claims_report):
    out, _ = claims_report
    text = " ".join(out.replace("\u00a0", " ").split())
    assert all(claim.sentence in text for claim in CLAIMS)
    assert all(one.sentence in text for one in OUT_OF_REACH)
    assert "SUPPORTS pos · digits · at the stem · top-1 accuracy, n = 5 seeds" in text
    assert re.search(r"none − 1-D −1\.94 ± 0\.\d\d n 5, p < 0\.001", text)
    assert "paper −2.82" in text
    assert "within ±1 point" in text
    assert "20 runs in " in text
    assert text.count("no study of ours touches it yet") == 10
    assert max(map(len, out.splitlines())) <= 100 or "Written" in max(out.splitlines(), key=len)


def test_the_files_hold_the_same_lines(claims_report, filled):
    _, folder = claims_report
    assert {path.name for path in folder.iterdir()} == {"claims.md", "claims.csv", "claims.json"}
    told = json.loads((folder / "claims.json").read_text())
    lines = [line for claim in told["claims"] for line in claim["lines"]]
    rows = list(csv.DictReader(io.StringIO((folder / "claims.csv").read_text())))
    measured = [row for row in rows if row["metric"]]
    assert [row["contrast_verdict"] != "" for row in measured] == [True] * sum(len(line["contrasts"]) for line in lines)
    for line in lines:
        numbers = [contrast["difference"] for contrast in line["contrasts"]]
        place = [row for row in measured if row["setting"] == " · ".join(line["setting"])]
        for number in numbers:
            assert str(number) in {row["difference"] for row in place}
    assert all((folder / "claims.md").read_text().count(f"**{claim.sentence}**") == 1 for claim in CLAIMS)


def test_every_line_names_the_record_of_every_run_behind_it(claims_report, filled):
    _, folder = claims_report
    told = json.loads((folder / "claims.json").read_text())
    line = told["claims"][0]["lines"][0]
    fingerprints = {
        record.fingerprint
        for record in filled.records
        if record.config["model"]["pos_at"] == "stem"
    }  # fmt: skip
    assert {record["fingerprint"] for record in line["records"]} == fingerprints
    assert len(fingerprints) == 20
    read = [read_record(record["path"]).fingerprint for record in line["records"]]
    assert read == [record["fingerprint"] for record in line["records"]]


def test_a_folder_needs_no_sweep_file(filled, tmp_path, capsys):
    status, out, _ = shown(capsys, str(filled.root), "--results", str(tmp_path))
    assert status == 0
    assert "none − 1-D" in out
    assert "nothing can be shown to be alike" in " ".join(out.split())  # these records carry no study block


def test_nothing_to_read_is_one_sentence_and_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["runs"], ["sweeps/absent.yaml"]):
        status, out, err = shown(capsys, *words)
        assert (status, out) == (2, "")
        assert "holds no run" in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_study_is_left_out_with_its_reason(lab, tmp_path, capsys):
    study = lab.positions()
    lab.run(study.cells()[0], {}, status="failed", reason="the loss is NaN")
    status, _, err = shown(capsys, "--root", str(lab.root), "--results", str(tmp_path / "results"))
    assert status == 2
    assert "holds no finished run" in err


NOISE = {"none": [2, -1, 0, 1, -2], "1d": [0, 1, -2, 1, 0]}


@pytest.mark.parametrize(
    ("none", "margin", "verdict", "told"),
    [
        (0.80, 0.02, "SUPPORTS", ""),
        (0.895, 0.02, "SUPPORTS", "though by less than 2 points"),
        (0.95, 0.02, "DIFFERS FROM THE PAPER HERE", "the opposite is shown"),
        (0.9, 0.02, "DIFFERS FROM THE PAPER HERE", "shown to be alike within ±2 points"),
        (0.95, None, "DIFFERS FROM THE PAPER HERE", "the opposite is shown"),
        (0.9, None, "CANNOT DECIDE", "no difference is shown; differences are shown with 80 % probability from 0."),
    ],
)
def test_each_verdict_says_why(lab, tmp_path, capsys, none, margin, verdict, told):
    settings = {"study.name": "s", "study.metrics": ["test_acc"], **({"study.margin": margin} if margin else {})}
    study = lab.study(settings, {"model.pos_embed": ["none", "1d"], "seed_everything": [0, 1, 2, 3, 4]})
    for cell in study.cells():
        kind = cell.overrides["model.pos_embed"]
        lab.run(cell, {"test_acc": {"none": none, "1d": 0.9}[kind] + 0.001 * NOISE[kind][cell.seed]}, study="s")
    _, out, _ = shown(capsys, str(study.path), "--root", str(lab.root), "--results", str(tmp_path))
    text = " ".join(out.split())
    assert f"{verdict} s · digits" in text
    assert told in text
    assert ("under another protocol: digits" in text) == verdict.startswith("DIFFERS")
    assert "no arm 2-D or relative here" in text


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (0.9, "within ±2 points"),
        (
            0.8,
            "tuned on top-1 accuracy on the validation slice: class token: learning rate 0.003 (of 15 runs)",
        ),
        (0.879, "a difference is shown, which may still lie within ±2 points"),
    ],
)
def test_likeness_is_told_with_its_margin_and_the_chosen_rates(lab, tmp_path, capsys, gap, told):
    settings = {"study.name": "s", "study.margin": 0.02, "study.tune": ["model.lr"]}
    swept = {"model.pool": ["cls", "gap"], "model.lr": [0.001, 0.003, 0.01], "seed_everything": [0, 1, 2, 3, 4]}
    study = lab.study(settings, swept)
    for cell in study.cells():
        pool, best = cell.overrides["model.pool"], cell.overrides["model.lr"] == 0.003
        noise = 0.001 * NOISE["1d" if pool == "cls" else "none"][cell.seed]
        value = {"cls": 0.9, "gap": gap}[pool] + noise
        lab.run(cell, {"test_acc": value, "val_acc": value - 0.1 * (not best)}, study="s")
    _, out, _ = shown(capsys, str(study.path), "--root", str(lab.root), "--results", str(tmp_path))
    assert told in " ".join(out.split())


def test_compute_at_equal_accuracy_is_told_as_a_factor(lab, tmp_path, capsys):
    networks = {"S/32": (1.0, 0.6), "S/16": (4.0, 0.7), "R26x1": (2.0, 0.6), "R50x1": (8.0, 0.7)}
    settings = {"study.name": "c", "study.metrics": ["test_acc"], "study.margin": 0.02}
    study = lab.study(settings, {"model.arch": list(networks), "seed_everything": [0, 1, 2]})
    for cell in study.cells():
        cost, value = networks[cell.overrides["model.arch"]]
        value += 0.001 * cell.seed * list(networks).index(cell.overrides["model.arch"])
        lab.run(cell, {"test_acc": value}, study="c", train_flops=cost * 1e12)
    status, out, _ = shown(capsys, str(study.path), "--root", str(lab.root), "--results", str(tmp_path))
    text = " ".join(out.replace("\u00a0", " ").split())
    assert status == 0
    (row,) = [row for row in csv.DictReader(io.StringIO((tmp_path / "claims.csv").read_text()))
              if row["claim"] == "compute saving"]  # fmt: skip
    factor, low, high = (float(row[name]) for name in ("factor", "factor_low", "factor_high"))
    assert math.log(factor) == pytest.approx(float(row["difference"]))
    assert low < factor < high
    assert f"ViT beside ResNet {factor:.2f} times less compute (95 % interval {low:.2f} to {high:.2f}) n 3, p" in text
    assert "the tests are on its logarithm" in text
