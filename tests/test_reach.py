import socket
import threading
import time

from vitexp import reach
from vitexp.reach import unreachable


def bound():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_somebody_who_listens_is_reachable():
    listener, url = bound()
    with listener:
        listener.listen()
        assert unreachable(url) is None


def test_nobody_is_not_and_it_takes_a_few_seconds_to_say_so(monkeypatch):
    monkeypatch.setattr(reach, "ATTEMPTS", 2)
    listener, url = bound()
    with listener:
        start = time.monotonic()
        assert unreachable(url) == f"{url} cannot be reached (Connection refused)"
        assert 1 <= time.monotonic() - start < 2


def test_a_server_that_restarts_is_waited_for():
    listener, url = bound()
    with listener:
        later = threading.Timer(0.5, listener.listen)
        later.start()
        assert unreachable(url) is None
        later.join()


def test_a_proxy_decides_for_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert unreachable("http://server.invalid") is None
