"""Shard sets for the tests of data: real ones from the digits, and hand-made tars, sound and broken."""

import gzip
import http.server
import io
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.data.shards.write import Layout, make

Members = Iterable[tuple[str, bytes]]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in 8 training and 2 test shards of up to 200 images."""
    return make("digits", tmp_path_factory.mktemp("sets") / "digits", layout=Layout(shard_images=200))


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """A PNG of any size, told apart by its value."""

    def encode(value: int = 0, height: int = 4, width: int = 4) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.full((height, width, 3), value % 256, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., Path]:
    """Writes members into a tar; a member may also be a ready-made TarInfo without data."""

    def write(
        path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=form) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name) if isinstance(name, str) else name
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture(scope="session")
def make_set(write_tar: Callable[..., Path], png: Callable[..., bytes]) -> Callable[..., Path]:
    """A shard set by the labels of its shards: `make_set(folder, train=[[0, 1], [1]], test=[[0]])`."""

    def build(folder: Path, classes: int | None = None, **splits: list[list[int]]) -> Path:
        for split, shards in splits.items():
            for number, labels in enumerate(shards):
                members = []
                for place, label in enumerate(labels):
                    key = f"{split}{number:03d}x{place:04d}"
                    members += [(f"{key}.png", png(label)), (f"{key}.cls", str(label).encode())]
                write_tar(folder / f"toy-{split}-{number:06d}.tar", members)
        if classes is not None:
            (folder / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
        return folder

    return build


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `faults` names what happens to the next requests for a file, in turn."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.asked, self.faults = folder, Counter(), {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        faults = self.server.faults.get(name, [])
        fault = faults.pop(0) if faults else None
        path = self.server.folder / name
        if fault == "refuse" or fault == 503:
            return self.send_error(503)
        if not path.is_file() or fault == 404:
            return self.send_error(404)
        if fault == 403:
            return self.send_error(403)
        data = path.read_bytes()
        if fault in ("header", "body"):
            return self.trickle(b"X: " if fault == "header" else b"\r\n")
        if fault == "elsewhere":
            self.send_response(302)
            self.send_header("Location", f"/{name}")
            return self.end_headers()
        self.send_response(200)
        if fault == "packed":
            self.send_header("Content-Encoding", "gzip")
            data = gzip.compress(data)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return self.send(data, fault)

    def trickle(self, start: bytes) -> None:
        """A byte now and then, without end."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + start)
        while True:
            self.wfile.write(b"a")
            time.sleep(0.05)

    def send(self, data: bytes, fault: str | None) -> None:
        if fault == "stall":
            self.wfile.write(data[:10])
            self.wfile.flush()
            time.sleep(1.2)
        elif fault == "drip":
            for byte in data[:40]:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        elif fault == "cut":
            self.wfile.write(data[: len(data) // 2])
        elif fault == "change":
            self.wfile.write(bytes([data[0] ^ 1]) + data[1:])
        else:
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    found = Server(folder)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join(timeout=10)
