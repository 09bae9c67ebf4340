import numpy as np
import pytest

from vitexp.data import opened
from vitexp.data.opened import SubsetOptions, select
from vitexp.data.shards.index import open_shards

OPTIONS = [
    SubsetOptions(0.1, None, None, 0),
    SubsetOptions(0.1, 100, None, 1),
    SubsetOptions(0.2, None, 0.5, 0),
    SubsetOptions(None, None, None, 0),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_kept_for_large_sets_is_what_is_worked_out(tmp_path, make_set, options, monkeypatch) -> None:
    index = open_shards(make_set(tmp_path, train=[[i % 7 for i in range(100)] for _ in range(3)]))
    small = select(index, options)
    monkeypatch.setattr(opened, "LARGE_IMAGES", 10)
    first = select(index, options)
    monkeypatch.setattr(opened, "_work_out", lambda *_: pytest.fail("worked out twice"))
    again = select(index, options)
    for found in (first, again):
        assert np.array_equal(found.train, small.train)
        assert np.array_equal(found.val, small.val)
        assert found.fingerprint == small.fingerprint
    assert isinstance(again.train, np.memmap)


def test_other_optionses_and_other_content_are_kept_apart(tmp_path, make_set, monkeypatch) -> None:
    monkeypatch.setattr(opened, "LARGE_IMAGES", 10)
    index = open_shards(make_set(tmp_path, train=[[i % 7 for i in range(200)]]))
    assert len({select(index, options).fingerprint for options in OPTIONS}) == len(OPTIONS)
    other = open_shards(make_set(tmp_path / "other", train=[[i % 6 for i in range(200)]]))
    (tmp_path / ".cache").rename(tmp_path / "other" / ".cache")
    assert select(other, OPTIONS[0]).fingerprint != select(index, OPTIONS[0]).fingerprint


def test_what_was_left_half_done_is_done_again(tmp_path, make_set, monkeypatch) -> None:
    monkeypatch.setattr(opened, "LARGE_IMAGES", 10)
    index = open_shards(make_set(tmp_path, train=[[i % 7 for i in range(100)]]))
    found = np.array(select(index, OPTIONS[0]).train)
    for path in (tmp_path / ".cache").glob("*.fingerprint"):
        path.unlink()
    for path in (tmp_path / ".cache").glob("*.train.npy"):
        path.write_bytes(b"half")
    assert np.array_equal(select(index, OPTIONS[0]).train, found)
