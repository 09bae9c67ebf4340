"""One file from a server on loopback that can be told to fail."""

import dataclasses
import hashlib
import os
import socket
from pathlib import Path

import pytest

from vitexp.data.module import ShardData
from vitexp.data.read import fetch as fetching
from vitexp.data.read.fetch import Missing, Patience, fetch

QUICK = Patience(attempts=3, slow_attempts=3, first_wait_seconds=0.01, silence_seconds=0.6, least_bytes_per_second=1e4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(fetching, "PATIENCE", QUICK)


@pytest.mark.parametrize(
    "faults", [["stall"], ["drip"], ["cut"], ["change"], [503, "refuse"], ["cut", "stall"], ["header"], ["body"]]
)
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
        ("stall", "no byte came for 0.6 seconds"),
        ("drip", "only .* bytes came"),
        ("header", "no whole answer came in 0.6 seconds"),
        ("body", "only .* bytes came"),
        ("cut", "broke off before its end"),
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
    assert server.asked["x.tar"] <= 3  # a request that hangs may not have been counted yet
    assert list((tmp_path / "there").iterdir()) == []


def test_slow_servers_are_given_up_sooner_and_all_have_a_deadline(server, tmp_path, monkeypatch) -> None:
    (server.folder / "x").write_bytes(b"x" * 40)
    server.faults["x"] = ["header", "body", 503, "header"]
    monkeypatch.setattr(fetching, "PATIENCE", dataclasses.replace(QUICK, slow_attempts=2, attempts=9))
    with pytest.raises(ValueError, match="in 2 attempts"):
        fetch(f"{server.url}/x", tmp_path / "x")
    fast_enough = dataclasses.replace(QUICK, least_bytes_per_second=0.0, deadline_seconds=0.3)
    monkeypatch.setattr(fetching, "PATIENCE", fast_enough)
    server.faults["x"] = ["body"] * 9
    with pytest.raises(ValueError, match="in 3 attempts"):
        fetch(f"{server.url}/x", tmp_path / "x")


def test_redirects_are_followed_and_what_is_packed_on_the_way_is_unpacked(server, tmp_path) -> None:
    content = os.urandom(100) * 30
    for name in ("x.tar", "x.gz"):
        (server.folder / name).write_bytes(content)
    server.faults |= {"x.tar": ["elsewhere", "elsewhere", "packed"], "x.gz": ["elsewhere"]}
    came = []
    for name in ("x.tar", "x.gz"):
        fetch(f"{server.url}/{name}", tmp_path / "x", hashlib.md5(content).hexdigest(), report=came.append)
        assert (tmp_path / "x").read_bytes() == content
    assert sum(came) == 2 * len(content)
    server.faults["x.tar"] = ["elsewhere"] * 99
    with pytest.raises(ValueError, match=r"x\.tar could not be fetched in 3 attempts"):
        fetch(f"{server.url}/x.tar", tmp_path / "x")


def test_a_server_that_is_not_there_fails_by_name(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=rf"http://127\.0\.0\.1:{port}/x could not be fetched in 3 attempts"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x")


def test_waits_double_from_one_attempt_to_the_next(server, tmp_path, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    monkeypatch.setattr(fetching, "PATIENCE", Patience(attempts=5, first_wait_seconds=0.5))
    server.faults["x"] = [503] * 5
    with pytest.raises(ValueError, match="in 5 attempts"):
        fetch(f"{server.url}/x", tmp_path / "x")
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
