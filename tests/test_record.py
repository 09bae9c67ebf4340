import json

import pytest

from vitexp import record
from vitexp.record import RunRecord


def make(**changes):
    return RunRecord(
        **{"study": "s", "cell": "c", "seed": 0, "fingerprint": "f", "status": "finished", "config": {"a": 1}} | changes
    )


def test_a_record_reads_back_as_it_was_written(tmp_path):
    written = make(metrics={"test_acc": 0.5, "loss": float("nan")}, curves={"train_loss": [(1, 2.5), (2, 1.5)]})
    record.write_record(written, tmp_path)
    read = record.read_record(tmp_path)
    assert read.curves == written.curves
    assert read.metrics["test_acc"] == 0.5
    assert read.metrics["loss"] != read.metrics["loss"]
    json.loads((tmp_path / "record.json").read_text(), parse_constant=lambda word: pytest.fail(f"not JSON: {word}"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"study": 1}', '{"study":"s","cell":"c","seed":0,"fingerprint":"f","status":"done","config":{}}'],
)
def test_a_damaged_record_is_refused_by_name(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=r"record\.json is not a run record"):
        record.read_record(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    record.write_atomically(path, "old")
    monkeypatch.setattr(record.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        record.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


BASE = {
    "seed_everything": 0,
    "model": {"lr": 0.1, "arch": "micro/2"},
    "data": {"train_images": 100, "workers": 0},
    "run": {"root": "runs"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"train_images": 100, "workers": 4}},
        {"data": {"train_images": 100, "workers": 0, "shards": "moved"}},
        {"run": {"root": "elsewhere"}},
        {"trainer": {"devices": 8}},
        {"trainer": {"logger": [True]}},
    ],
)
def test_what_cannot_change_the_result_keeps_the_fingerprint(change):
    assert record.fingerprint({**BASE, **change}) == record.fingerprint(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"train_images": 101}},
        {"seed_everything": 1},
        {"model": {"lr": 0.2, "arch": "micro/2"}},
        {"trainer": {"precision": "bf16-mixed"}},
    ],
)
def test_what_can_change_the_result_changes_the_fingerprint(change):
    assert record.fingerprint({**BASE, **change}) != record.fingerprint(BASE)


def test_an_option_that_came_later_keeps_old_fingerprints_at_what_runs_did_before():
    def with_gelu(word):
        return record.fingerprint({**BASE, "model": {**BASE["model"], "gelu": word}})

    assert with_gelu("tanh") == record.fingerprint(BASE) != with_gelu("exact")


def test_a_record_without_a_format_is_one_of_the_first(tmp_path):
    path = record.write_record(make(), tmp_path)
    assert record.read_record(path).format == 2
    stored = json.loads(path.read_text())
    del stored["format"]
    path.write_text(json.dumps(stored))
    assert record.read_record(path).format == 1


def test_a_first_record_of_a_run_with_callbacks_is_not_taken_for_the_plain_one(tmp_path):
    stopped = {**BASE, "trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]}}
    for config in (BASE, stopped):
        path = record.write_record(make(config=config, fingerprint=record.fingerprint(BASE), format=1), tmp_path)
        assert record.read_record(path).fingerprint == record.fingerprint(config)


def test_the_cell_is_the_same_for_every_seed():
    assert record.cell_fingerprint({**BASE, "seed_everything": 7}) == record.cell_fingerprint(BASE)


def test_flatten_keeps_lists_and_empty_mappings():
    assert record.flatten({"a": {"b": [1, {"c": 2}], "d": {}}, "e": None}) == {
        "a.b": [1, {"c": 2}],
        "a.d": {},
        "e": None,
    }


def test_records_are_found_in_the_order_of_their_paths(tmp_path):
    for seed in (2, 0, 1):
        record.write_record(make(seed=seed), record.run_directory(tmp_path, "s", "c", seed))
    assert [found.seed for found in record.find_records(tmp_path)] == [0, 1, 2]
