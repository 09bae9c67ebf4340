import json

import pytest

from vitexp import record
from vitexp.nn.pos_embed import TABLE_STD
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


NESTED = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metrics": None}, "metrics is None, which is not a mapping"),
        ({"metrics": {"test_acc": "0.5"}}, "metrics.test_acc is '0.5', which is not a number"),
        ({"metrics": {"test_acc": True}}, "metrics.test_acc is True"),
        ({"metrics": {"test_acc": 10**400}}, "metrics.test_acc is beyond any floating-point number"),
        ({"curves": 7}, "curves is 7"),
        ({"curves": {"val_acc": [[1]]}}, "curves.val_acc"),
        ({"config": [1]}, "config is"),
        ({"config": {"model": None}}, "config.model is None"),
        ({"seed": "x"}, "seed is 'x', which is not a whole number"),
        ({"seed": 1, "config": {"seed_everything": 0}}, "seed is 1, but the config says seed_everything 0"),
        ({"data": 3}, "data is 3"),
        ({"data": {"train_images": "many"}}, "data.train_images is 'many'"),
        ({"answers": {"test_acc": 5}}, "answers.test_acc is 5"),
        ({"versions": {"torch": 2}}, "versions.torch is 2"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"reason": ["a"]}, "reason is"),
        ({"status": "done"}, "status 'done' is none of"),
        ({"cell": "\ud800"}, "surrogates not allowed"),
        ({"fingerprint": None}, "fingerprint is None"),
    ],
)
def test_a_record_of_another_shape_is_refused_by_the_field(tmp_path, change, why):
    stored = {**vars(make()), **change}
    (tmp_path / "record.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"record\.json is not a run record") as refused:
        record.read_record(tmp_path)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"study": 1}', b"\xff\x00\x01", NESTED.encode(), b'{"config": %s}' % NESTED.encode(),
     json.dumps({**vars(make()), "config": {"a": json.loads("[" * 60 + "]" * 60)}}).encode()],
)  # fmt: skip
def test_damaged_records_are_named_beside_the_sound_ones(tmp_path, content):
    record.write_record(make(), tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_bytes(content)
    (tmp_path / "c" / "record.json").mkdir(parents=True)
    records, damaged = record.read_records(tmp_path)
    assert [found.fingerprint for found in records] == ["f"]
    assert [str(tmp_path / name) in text for name, text in zip("ac", damaged, strict=True)] == [True, True]


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


def test_where_tables_start_anyway_is_the_same_run_whether_stated_or_not():
    def started(word, *std):
        model = {**BASE["model"], "pos_embed": word, **dict(zip(["pos_std"], std, strict=False))}
        return record.fingerprint({**BASE, "model": model})

    for word in ("1d", "2d"):
        assert started(word, TABLE_STD) == started(word, None) == started(word) != started(word, 0.5)
    assert started("relative", None) == started("relative") != started("relative", TABLE_STD)


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


@pytest.mark.parametrize("key", ["limit_train_batches", "limit_val_batches", "val_check_interval"])
def test_one_batch_is_not_all_of_them(key):
    one, all_of_them = (record.fingerprint({**BASE, "trainer": {key: value}}) for value in (1, 1.0))
    assert one != all_of_them


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
    assert [found.seed for found in record.read_records(tmp_path)[0]] == [0, 1, 2]
