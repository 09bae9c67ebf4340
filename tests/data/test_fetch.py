"""One file from a server on loopback that can be told to fail."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from vitexp.data import fetch as fetching
from vitexp.data.fetch import Missing, Patience, fetch
from vitexp.data.module import ShardData

QUICK = Patience(attempts=3, first_wait_seconds=0.01, silence_seconds=0.6, least_bytes_per_second=1e4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(fetching, "Patience", lambda: QUICK)


@pytest.mark.parametrize("faults", [["stall"], ["drip"], ["cut"], ["change"], [503, "refuse"], ["cut", "stall"]])
def test_what_fails_is_tried_again(server, tmp_path, faults) -> None:
    content = os.urandom(3000)
    (server.folder / "x.tar").write_bytes(content)
    server.faults["x.tar"] = list(faults)
    fetch(f"{server.url}/x.tar", tmp_path / "x", hashlib.sha256(content).hexdigest())
    assert (tmp_path / "x").read_bytes() == content
    assert server.asked["x.tar"] == len(faults) + 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stall", "timed out"),
        ("drip", "only .* bytes came"),
        ("cut", "broke off 1500 bytes"),
        ("change", "checksum"),
        (503, "503"),
    ],
)
def test_what_goes_on_failing_fails_by_name_and_leaves_nothing(server, tmp_path, fault, reason) -> None:
    content = os.urandom(3000)
    (server.folder / "x.tar").write_bytes(content)
    server.faults["x.tar"] = [fault] * 9
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match=rf"{server.url}/x\.tar could not be fetched in 3 attempts \(.*{reason}"):
        fetch(f"{server.url}/x.tar", tmp_path / "there" / "x", hashlib.sha256(content).hexdigest())
    assert server.asked["x.tar"] == 3
    assert list((tmp_path / "there").iterdir()) == []


def test_a_server_that_is_not_there_fails_by_name(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=rf"http://127\.0\.0\.1:{port}/x could not be fetched in 3 attempts"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x")


def test_waits_double_from_one_attempt_to_the_next(server, tmp_path, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    server.faults["x"] = [503] * 5
    with pytest.raises(ValueError, match="in 5 attempts"):
        fetch(f"{server.url}/x", tmp_path / "x", patience=Patience(attempts=5, first_wait_seconds=0.5))
    assert [wait for wait in waits if wait in (0.5, 1, 2, 4)] == [0.5, 1, 2, 4]


def test_what_another_attempt_cannot_mend_is_told_at_once(server, tmp_path) -> None:
    with pytest.raises(Missing, match="there is nothing at"):
        fetch(f"{server.url}/gone", tmp_path / "x")
    with pytest.raises(Missing):
        fetch(f"file://{tmp_path}/gone", tmp_path / "x")
    (server.folder / "x").write_bytes(b"x")
    server.faults["x"] = [403]
    with pytest.raises(ValueError, match=r"may not be read .*access rights"):
        fetch(f"{server.url}/x", tmp_path / "x")
    assert server.asked == {"gone": 1, "x": 1}


def test_a_full_disk_is_told_at_once(server, tmp_path) -> None:
    (server.folder / "x").write_bytes(b"x" * 100_000)
    (tmp_path / f"x.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(ValueError, match="is full; free some space, or set VITEXP_CACHE"):
        fetch(f"{server.url}/x", tmp_path / "x")
    assert server.asked["x"] == 1


@pytest.mark.parametrize(
    "url", ["pipe:curl http://x/y", "pipe://curl", "ftp://x/y", "data:text/plain,x", "PIPE:ls", "s3:x"]
)
def test_other_schemes_are_never_opened(url, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is not opened \(no program is ever run for a URL\)"):
        ShardData(shards=url)


def test_s3_is_opened_through_fsspec_with_its_package() -> None:
    import importlib.util

    if importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed here: what its absence says cannot be seen")
    with pytest.raises(ValueError, match=r"s3://bucket/x needs another package: .*s3fs"):
        fetch("s3://bucket/x", Path("x"))
