import os
from pathlib import Path

import pytest

from vitexp.study.run import machine, processes
from vitexp.study.run.processes import LocalEngine


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-8f")
    assert machine.visible_gpus() == ["2", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.visible_gpus() == []


def test_the_callers_own_environment_stays_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    processes.preload(["vitexp.record"], threads=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "shares"),
    [
        ({2, 3}, 2, 1, [[2], [3]]),
        ({0, 1, 4, 5, 6}, 2, 2, [[0, 1], [4, 5, 6]]),
        ({0, 1}, 1, 1, [[0, 1]]),
        ({0, 1}, 2, 2, [[], []]),  # four threads on two cores: the system shares them out better
    ],
)
def test_workers_share_out_the_cores_that_there_are(monkeypatch, cores, workers, threads, shares):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    assert machine.core_shares(workers, threads) == shares


def note_cores(argv, log):
    Path(argv[0]).write_text(" ".join(map(str, sorted(os.sched_getaffinity(0)))))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")
def test_each_worker_runs_on_cores_of_its_own(tmp_path):
    cores = machine.available_cores()
    engine = LocalEngine(note_cores, workers=len(cores))
    try:
        for number in range(len(cores)):
            folder = tmp_path / str(number)
            folder.mkdir()
            engine.start([str(folder / "cores")], str(folder), "f" * 12)
        while engine.running:
            assert set(engine.wait(60.0).values()) <= {0}
    finally:
        engine.close()
    noted = [(tmp_path / str(number) / "cores").read_text() for number in range(len(cores))]
    assert noted == [str(core) for core in cores]
    assert machine.available_cores() == cores


def refuse(argv):
    print("usage")
    raise [SystemExit(2), KeyError("x"), ValueError("given, allowed")][int(argv[0])]


@pytest.mark.parametrize(("kind", "sentence"), [("0", "usage"), ("1", "KeyError: 'x'"), ("2", "given, allowed")])
def test_whatever_a_parser_raises_becomes_a_sentence(kind, sentence, capfd):
    assert processes.parse_cell(refuse, [kind]) == sentence
    assert capfd.readouterr() == ("", "")
