"""What a reader must know stands above the numbers, in every form in which they are given out."""

import csv
import json
import re
from html import unescape

import pytest

from vitexp import cli
from vitexp.report.draw_curve import draw_curve
from vitexp.report.draw_dots import draw_dots
from vitexp.study.curve import make_curve
from vitexp.study.table import make_table

CAUTIONS = ("did not train: train_images=100 pos_embed=none (1 of 3 runs, 33 %", "steps taken: 84 ", "left out: ")


def plain(text):
    """A text without line breaks and without the marks of any form of output."""
    return re.sub(r"\s+", " ", re.sub(r"[\\{}]", "", unescape(text)))


@pytest.fixture(scope="module")
def spoilt(make_lab, tmp_path_factory):
    lab = make_lab(tmp_path_factory.mktemp("spoilt"))
    swept = {"data.train_images": [100, 200], "model.pos_embed": ["none", "1d"], "seed_everything": [0, 1, 2]}
    study = lab.study({"study.name": "s", "study.baseline": {"model.pos_embed": "1d"}}, swept)
    for cell in study.cells():
        size, seed = cell.overrides["data.train_images"], cell.seed
        odd = (size, cell.overrides["model.pos_embed"], seed) == (100, "none", 1)
        metrics = {"test_acc": 0.1 if odd else 0.9 + 0.01 * seed, "val_acc": 0.9}
        losses = {"train_loss_start": 2.31, "train_loss_end": 2.32 if odd else 0.4}
        config = {"study": {"name": "s"}}
        lab.run(cell, metrics, study="s", steps=42 if odd else 84, config=config, learning=losses)
    (lab.root / "s" / "broken" / "seed-0").mkdir(parents=True)
    (lab.root / "s" / "broken" / "seed-0" / "record.json").write_text("{")
    return study, lab


@pytest.mark.parametrize("verb", ["table", "curve", "report", "claims"])
def test_every_form_of_output_carries_the_cautions(spoilt, tmp_path, capsys, verb):
    study, lab = spoilt
    out = ["--out", str(tmp_path)] if verb == "report" else []
    assert cli.main([verb, str(study.path), "--root", str(lab.root), "--results", str(tmp_path), *out]) == 0
    texts = {"terminal": capsys.readouterr().out} if verb != "report" else {}
    kinds = (".md", ".csv", ".tex", ".html")
    texts |= {path.name: path.read_text() for path in tmp_path.rglob("*") if path.suffix in kinds}
    assert len(texts) == {"table": 4, "curve": 3, "report": 1, "claims": 3}[verb]
    for name, text in texts.items():
        assert [name for caution in CAUTIONS if caution not in plain(text)] == []


def test_cautions_stand_above_the_numbers_and_in_every_line_of_a_csv(spoilt, tmp_path, capsys):
    study, lab = spoilt
    cli.main(["table", str(study.path), "--root", str(lab.root), "--results", str(tmp_path)])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    assert shown.index("Caution: did not train") < shown.index("Top-1 accuracy")
    lines = list(csv.DictReader((tmp_path / "s" / "table.csv").read_text().splitlines()))
    assert len(lines) == 4
    assert all("Caution: did not train" in line["notes"] for line in lines)


def test_the_verdicts_as_json_carries_them_too(spoilt, tmp_path):
    study, lab = spoilt
    cli.main(["claims", str(study.path), "--root", str(lab.root), "--results", str(tmp_path)])
    claims = json.loads((tmp_path / "claims.json").read_text())["claims"]
    notes = [note for claim in claims for line in claim["lines"] for note in line["notes"]]
    assert any("did not train" in note for note in notes)


@pytest.mark.parametrize(("make", "draw"), [(make_table, draw_dots), (make_curve, draw_curve)])
def test_pictures_say_it_in_their_captions(spoilt, make, draw):
    study, lab = spoilt
    texts = " ".join(text.get_text() for text in draw(make(study, lab.root)).texts)
    assert all(caution in plain(texts) for caution in CAUTIONS)
