import socket

from vitexp import wandb_record
from vitexp.wandb_record import unreachable


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
    waits = []
    monkeypatch.setattr(wandb_record, "ATTEMPTS", 3)
    monkeypatch.setattr(wandb_record.time, "sleep", waits.append)
    listener, url = bound()
    with listener:
        assert unreachable(url) == f"{url} cannot be reached (Connection refused)"
    assert waits == [0.0, 1.0, 1.0]


def test_a_server_that_restarts_is_waited_for(monkeypatch):
    listener, url = bound()
    with listener:
        monkeypatch.setattr(wandb_record.time, "sleep", lambda seconds: seconds and listener.listen())
        assert unreachable(url) is None


def test_a_proxy_decides_for_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert unreachable("http://server.invalid") is None
