import os

import pytest

from vitexp.study.run import processes


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-8f")
    assert processes.visible_gpus() == ["2", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert processes.visible_gpus() == []


def test_the_callers_own_environment_stays_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    processes.preload(["vitexp.record"], threads=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def refuse(argv):
    print("usage")
    raise [SystemExit(2), KeyError("x"), ValueError("given, allowed")][int(argv[0])]


@pytest.mark.parametrize(("kind", "sentence"), [("0", "usage"), ("1", "KeyError: 'x'"), ("2", "given, allowed")])
def test_whatever_a_parser_raises_becomes_a_sentence(kind, sentence, capfd):
    assert processes.parse_cell(refuse, [kind]) == sentence
    assert capfd.readouterr() == ("", "")
