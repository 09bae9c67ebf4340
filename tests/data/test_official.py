"""Official files are used when their checksum is theirs, and downloads end whole or not at all."""

import hashlib
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vitexp.data.read import fetch
from vitexp.data.sources import named
from vitexp.data.sources.named import Official, open_source

CONTENT = b"published bytes " * 1000


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT; `server.faults` are done first, one a request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            fault = server.faults.pop(0) if server.faults else None
            self.send_response(503 if fault == "refuse" else 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            body = {"cut": CONTENT[:500], "change": CONTENT[::-1]}.get(fault, CONTENT)
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.faults = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    file = {"a.bin": hashlib.md5(CONTENT).hexdigest()}
    few = Official(f"http://127.0.0.1:{server.server_port}/", {"plain": file})
    monkeypatch.setitem(named.OFFICIAL, "few", few)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("faults", [[], ["refuse"], ["cut", "change", "refuse"]])
def test_a_download_survives_a_bad_line(server, tmp_path, faults):
    server.faults[:] = faults
    form, paths = named.official_files("few", tmp_path / "new", True)
    assert (form, paths) == ("plain", [tmp_path / "new/a.bin"])
    assert paths[0].read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]


def test_a_download_that_never_comes_right_says_what_to_do(server, tmp_path):
    server.faults[:] = ["change"] * 10
    with pytest.raises(ValueError, match=r"could not be fetched in 6 attempts .*a\.bin there by hand"):
        named.official_files("few", tmp_path, True)
    assert not list(tmp_path.iterdir())
    assert len(server.faults) == 10 - fetch.Patience().attempts


def test_files_that_are_there_are_not_fetched(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    server.faults[:] = ["refuse"] * 10
    named.official_files("few", tmp_path, True)
    assert len(server.faults) == 10


def test_only_what_is_missing_is_fetched(server, tmp_path, monkeypatch):
    sums = named.OFFICIAL["few"].forms["plain"]
    monkeypatch.setitem(sums, "b.bin", sums["a.bin"])
    (tmp_path / "a.bin").write_bytes(CONTENT)
    before = (tmp_path / "a.bin").stat().st_mtime_ns
    named.official_files("few", tmp_path, True)
    assert (tmp_path / "a.bin").stat().st_mtime_ns == before
    assert (tmp_path / "b.bin").read_bytes() == CONTENT


def test_missing_and_altered_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"lacks the official files of mnist .*train-images-idx3-ubyte.gz.*--download"):
        open_source("mnist", tmp_path)
    for file in named.OFFICIAL["mnist"].forms["idx"]:
        (tmp_path / file).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz has md5 795f3202b17cb6bc3d4b771d8c6c9eaf"):
        open_source("mnist", tmp_path)


def test_a_pickle_is_not_touched_before_its_checksum_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "read_cifar", lambda *arguments: pytest.fail("read before checked"))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"evil")
    with pytest.raises(ValueError, match="it is not used"):
        open_source("cifar10", tmp_path)


def test_fashion_mnist_is_read(real_data):
    source = open_source("fashion-mnist", real_data / "fashion-mnist")
    train, test = source.splits["train"], source.splits["test"]
    assert (len(train), len(test), source.classes[9]) == (60_000, 10_000, "Ankle boot")
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert train.labels[:5].tolist() == [9, 0, 0, 3, 0]  # the first images anyone prints: a boot, a shirt, ...
    assert train.read(0).shape == (28, 28)
    mean = np.mean([train.read(i).mean() for i in range(60_000)]) / 255
    assert mean == pytest.approx(0.2860, abs=1e-4)  # the figure that everyone normalises with


def test_one_altered_file_of_four_is_enough(real_data, tmp_path):
    for path in (real_data / "fashion-mnist").glob("*.gz"):
        shutil.copy(path, tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.chmod(0o644)
    labels.write_bytes(labels.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="t10k-labels"):
        open_source("fashion-mnist", tmp_path)


def test_options_without_effect_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no effect on 'digits'"):
        open_source("digits", tmp_path)
    with pytest.raises(ValueError, match="no effect on"):
        open_source(str(tmp_path), download=True)
