"""A W&B server on 127.0.0.1 that the unmodified client accepts, and that fails on request."""

import base64
import gzip
import json
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from wandb_server.graphql import Executor, QueryError, parse
from wandb_server.schema import Schema
from wandb_server.state import State

KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What happens to requests whose path holds `where`: they wait, and are refused if there is a status."""

    status: int | None = None
    seconds: float = 0.0
    where: str = ""


class Server:
    """The server; its state outlives `stop`, so that `start` again is a server that comes back."""

    def __init__(self, **settings: float) -> None:
        self.state = State(**settings)
        self.fault = Fault()
        self.lock = threading.Lock()
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self._listener: _Listener | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        """Its address, also while it is down."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens, at the same port as before."""
        self._listener = _Listener(("127.0.0.1", self._port), self)
        self._port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections and cuts those that are open, as a killed process does."""
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener.cut()
        self._listener = None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], owner: Server) -> None:
        self.owner = owner
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error of the server."""

    def cut(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def dispatch(self) -> None:
        """Reads a request, suffers the fault, answers."""
        owner, body = self.server.owner, self.body()
        path = unquote(urlsplit(self.path).path)
        fault = owner.fault
        if fault.where in path:
            time.sleep(fault.seconds)
            if fault.status is not None:
                return self.reply(fault.status, {"error": f"fault {fault.status}"})
        try:
            with owner.lock:
                answer = self.answer(path, body)
        except QueryError as error:
            owner.unknown += [str(error)] if error.status == 400 else []
            return self.reply(error.status, {"errors": [{"message": str(error)}], "data": None})
        except Exception as error:
            owner.unknown.append(f"{self.command} {path}: {error!r}")
            return self.reply(500, {"errors": [{"message": repr(error)}]})
        return self.reply(200, answer)

    do_GET = do_POST = do_PUT = dispatch

    def answer(self, path: str, body: bytes) -> Any:
        owner, words = self.server.owner, path.strip("/").split("/")
        if words[:2] == ["storage", "artifact"] and self.command == "GET":
            return owner.state.artifacts[int(words[2])].files["/".join(words[3:])]
        if words[:2] == ["storage", "artifact"]:
            owner.state.artifacts[int(words[2])].files["/".join(words[3:])] = body
            return {}
        if words[0] == "storage":
            owner.state.run(words[1], words[2]).files["/".join(words[3:])] = body
            return {}
        if not self.key():
            raise QueryError("permission denied: no API key", 401)
        if path == "/graphql":
            return {"data": self.graphql(json.loads(body))}
        if words[0] == "artifactsV2":
            owner.requests.append("download")
            return next(filter(None, (one.content(words[-2]) for one in owner.state.artifacts)))
        if words[0] == "files" and words[-1] == "file_stream":
            owner.state.run(words[2], words[3]).stream(json.loads(body))
            return {"exitcode": None, "limits": {}, "stopped": False}
        raise QueryError(f"no such path: {path}", 404)

    def graphql(self, request: dict[str, Any]) -> Any:
        operations, fragments = parse(request["query"])
        named = request.get("operationName")
        operation = next(one for one in operations if named in (None, "", one.name))
        self.server.owner.requests.append(operation.name)
        root = Schema(self.server.owner.state, self.server.owner.url)
        return Executor(operation, fragments, request.get("variables") or {}).select(root, operation.selection)

    def key(self) -> str:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if kind.lower() == "basic" else value

    def body(self) -> bytes:
        data = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def reply(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
