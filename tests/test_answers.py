"""The bits beside a record: read back as they were written, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitexp.bits import read_answers, write_answers
from vitexp.record import RunRecord

RIGHT = [bool(one) for one in np.random.default_rng(0).integers(0, 2, 21)]


@pytest.fixture
def record(tmp_path):
    answers = write_answers(tmp_path, "fewshot_5/draw-0", RIGHT, "order")
    return RunRecord(study="s", cell="c", seed=0, fingerprint="f", status="finished", config={}, answers=answers)


def test_the_bits_are_those_of_numpy_and_come_back(record, tmp_path):
    entry = record.answers["fewshot_5/draw-0"]
    assert (tmp_path / entry["file"]).read_bytes() == np.packbits(RIGHT).tobytes()
    assert (entry["images"], entry["right"], entry["order"]) == (21, sum(RIGHT), "order")
    assert read_answers(tmp_path, record, "fewshot_5/draw-0") == RIGHT


@pytest.mark.parametrize("count", [0, 8])
def test_any_number_of_images(tmp_path, record, count):
    record = replace(record, answers=write_answers(tmp_path, "test_acc", [True] * count, "order"))
    assert read_answers(tmp_path, record, "test_acc") == [True] * count


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path, entry: path.write_bytes(path.read_bytes()[:-1]), "is damaged"),
        (lambda path, entry: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]), "is damaged"),
        (lambda path, entry: path.unlink(), "cannot be read"),
        (lambda path, entry: entry.update(file="../other.bits"), "outside its folder"),
        (lambda path, entry: entry.update(images=100), "is damaged"),
        (lambda path, entry: entry.update(images="many"), "entry of fewshot_5/draw-0"),
        (lambda path, entry: entry.update(right=3), "is damaged"),
    ],
)
def test_a_damaged_file_is_one_sentence(record, tmp_path, harm, message):
    entry = record.answers["fewshot_5/draw-0"]
    harm(Path(tmp_path / entry["file"]), entry)
    with pytest.raises(ValueError, match=message):
        read_answers(tmp_path, record, "fewshot_5/draw-0")
    with pytest.raises(ValueError, match="has no answers of val_acc; it has fewshot_5/draw-0"):
        read_answers(tmp_path, record, "val_acc")
