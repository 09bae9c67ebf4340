"""Records that are read together share their equal parts, and are refused as those that are read alone."""

import json

import pytest

from vitexp.record import RunRecord, read_record, read_records, write_record


def written(root, seed, **model):
    config = {"seed_everything": seed, "model": {"lr": 0.1, **model}, "trainer": {"max_epochs": 3}}
    curves = {"val_acc": [(10, 0.5), (20, float("nan"))]}
    given = {"study": "s", "cell": "c", "seed": seed, "fingerprint": "f", "status": "finished", "data": {"name": "x"}}
    record = RunRecord(**given, config=config, curves=curves, versions={"torch": "2"})
    write_record(record, root / str(seed))
    return record


def test_equal_parts_are_one_object_and_every_record_is_what_was_written(tmp_path):
    for seed in range(3):
        written(tmp_path, seed)
    (one, other, _), damaged = read_records(tmp_path)
    assert damaged == []
    assert one.config["model"] is other.config["model"]
    assert (one.data is other.data, one.versions is other.versions, one.config is other.config) == (True, True, False)
    assert (one.config["seed_everything"], other.config["seed_everything"]) == (0, 1)
    assert repr(one) == repr(read_record(tmp_path / "0"))
    assert read_record(tmp_path / "0").config["model"] is not one.config["model"]


def test_values_of_other_types_are_not_taken_for_equal(tmp_path):
    for seed, value in enumerate((1, 1.0, True, "1", [1], [1.0], -0.0, 0.0)):
        written(tmp_path, seed, window=value)
    records, _ = read_records(tmp_path)
    assert [repr(record.config["model"]["window"]) for record in records] == [
        "1", "1.0", "True", "'1'", "[1]", "[1.0]", "-0.0", "0.0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("config", "model"), 5, "config.model is 5, which is not a mapping"),
        (("config", "model", "lr"), "\ud800", "surrogates not allowed"),
        (("versions", "torch"), 2, "versions.torch is 2, which is not text"),
        (("curves", "val_acc"), [[1, 2, 3]], "curves.val_acc is [1, 2, 3], which is not a pair"),
        (("curves", "val_acc"), [[True, 1.0]], "curves.val_acc is True, which is not a whole number"),
        (("data", "classes"), 2.5, "data.classes is 2.5, which is not a whole number"),
    ],
)
def test_what_is_wrong_is_named_for_each_record_that_has_it(tmp_path, place, value, why):
    for seed in range(3):
        written(tmp_path, seed)
    for seed in (1, 2):
        path = tmp_path / str(seed) / "record.json"
        stored = json.loads(path.read_text())
        *blocks, last = place
        part = stored
        for block in blocks:
            part = part[block]
        part[last] = value
        path.write_text(json.dumps(stored))
    records, damaged = read_records(tmp_path)
    assert [record.seed for record in records] == [0]
    sentences = zip("12", damaged, strict=True)
    assert all(f"{tmp_path / seed / 'record.json'} is not a run record" in text for seed, text in sentences)
    assert all(why in text for text in damaged)
