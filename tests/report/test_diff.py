import hashlib
from dataclasses import replace

import numpy as np
import pytest

from vitexp import cli
from vitexp.record import RunRecord, fingerprint, write_record

CONFIG = {"model": {"arch": "micro/2", "lr": 0.001}, "data": {"workers": 0}, "seed_everything": 0}


def make(config=CONFIG, **changes):
    given = {"study": "s", "cell": "c", "seed": 0, "status": "finished", "config": config, "steps": 84,
             "metrics": {"test_acc": 0.9, "val_loss": 0.5}, "code": {"commit": "a" * 40, "source": "b" * 16},
             "versions": {"torch": "2.11"}, "data": {"name": "digits", "train_images": 1294}}  # fmt: skip
    return RunRecord(fingerprint=fingerprint(config), **given | changes)


def answers(folder, right, order="o" * 16):
    """Writes answers beside a record, and gives what the record says of them."""
    content = np.packbits(right).tobytes()
    (folder / "answers").mkdir(parents=True)
    (folder / "answers" / "test_acc.bits").write_bytes(content)
    facts = {"file": "answers/test_acc.bits", "images": len(right), "right": sum(right), "order": order}
    return {"test_acc": facts | {"sha256": hashlib.sha256(content).hexdigest()}}


@pytest.fixture
def shown(tmp_path, capsys):
    def show(a, b):
        for name, record in (("a", a), ("b", b)):
            write_record(record, tmp_path / name)
        assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "b" / "record.json")]) == 0
        return " ".join(capsys.readouterr().out.split())

    return show


def test_one_batch_and_all_of_them_are_two_settings(shown):
    one, all_of_them = (make({**CONFIG, "trainer": {"limit_val_batches": value}}) for value in (1, 1.0))
    assert "1 setting that counts differs (trainer.limit_val_batches)" in shown(one, all_of_them)


def test_a_run_and_itself_do_not_differ(shown):
    text = shown(make(), make())
    assert f"same fingerprint {make().fingerprint}; no setting differs" in text
    assert "No difference in config, code, data, versions, device, learning, length and cost." in text
    assert "test_acc (%) 90.00 90.00 0.00" in text


def test_neutral_settings_are_said_to_be_that(shown):
    text = shown(make(), make({**CONFIG, "data": {"workers": 4}}))
    assert "same fingerprint" in text
    assert "only neutral settings differ, which change no number (1)" in text
    assert "data.workers (neutral) 0 4" in text


def test_everything_that_differs_has_its_line(shown):
    other = make(
        {**CONFIG, "model": {"arch": "micro/2", "lr": 0.002}}, metrics={"test_acc": 0.875, "fewshot_5": 0.7},
        versions={"torch": "2.12"}, code={"commit": "a" * 40, "source": "c" * 16}, steps=42, status="stopped",
        reason="EarlyStopping", data={"name": "digits", "train_images": 1000},
    )  # fmt: skip
    text = shown(make(), other)
    assert "different configs: 1 setting that counts differs (model.lr)" in text
    for line in ("model.lr 0.001 0.002", "torch 2.11 2.12", f"source {'b' * 16} {'c' * 16}", "steps 84 42",
                 "train_images 1,294 1,000", "test_acc (%) 90.00 87.50 −2.50", "fewshot_5 (%) – 70.00",
                 "stopped (EarlyStopping) · fingerprint"):  # fmt: skip
        assert line in text


def test_same_fingerprint_of_different_configs_is_said(shown):
    other = replace(make({**CONFIG, "model": {"lr": 0.002}}), fingerprint=make().fingerprint)
    assert "yet the records give the same fingerprint" in shown(make(), other)


@pytest.mark.parametrize(
    ("order", "spoil", "told"),
    [
        ("o" * 16, b"", "test_acc: of 10 images both right 5, only A 2, only B 1, neither 2."),
        ("p" * 16, b"", "the runs measured other images, or in another order"),
        ("o" * 16, b"\x00\x00", "it is not what was written with the record"),
    ],
)
def test_images_are_compared_one_by_one_where_both_runs_kept_the_same_order(shown, tmp_path, order, spoil, told):
    a = make(answers=answers(tmp_path / "a", [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]))
    b = make(answers=answers(tmp_path / "b", [1, 1, 1, 1, 1, 0, 0, 1, 0, 0], order))
    if spoil:
        (tmp_path / "b" / "answers" / "test_acc.bits").write_bytes(spoil)
    assert told in shown(a, b)


def test_answers_outside_the_run_are_not_read(shown, tmp_path):
    facts = answers(tmp_path / "a", [1, 0])
    (tmp_path / "secret").write_bytes(b"\x80")
    other = {"test_acc": {**facts["test_acc"], "file": "../secret"}}
    assert "lie outside its folder" in shown(make(answers=facts), make(answers=other))


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path, capsys):
    assert cli.main(["diff", str(tmp_path), str(tmp_path)]) == 2
    assert "holds no record.json; give the folder of a run" in capsys.readouterr().err
