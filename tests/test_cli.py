"""The command line: exit statuses, error sentences, and what each verb needs."""

import errno
import runpy

import pytest

from vitexp import cli


def test_no_words_show_the_help(capsys):
    assert cli.main([]) == 0
    assert "usage: vitexp" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ValueError("no\x1b[31mfile"), OSError(errno.ENOENT, "absent", "no\x1b[31mfile")])
def test_a_sentence_sends_no_control_characters_to_the_terminal(error, capsys):
    def fail():
        raise error

    assert cli.guarded(fail) == cli.BAD_INPUT
    assert "no\ufffd[31mfile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fti"], "fit"),
        (["sweep"], "FILE"),
        (["sweep", "absent.yaml"], "absent.yaml"),
        (["sweep", "a.yaml", "--workers", "0"], "--workers"),
        (["sweep", "a.yaml", "b.yaml"], "one sweep file"),
        (["table", "absent.yaml"], "absent.yaml"),
        (["table", "x.yaml", "--where", "lr"], "write key=value"),
    ],
)
def test_bad_words_are_one_sentence_and_status_2(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("vitexp: ")
    assert told in error
    assert error.count("\n") == 1


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("a  broken\nsentence"), 2, "vitexp: a broken sentence\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2, "vitexp: runs/x: No space left on device\n"),
        (KeyboardInterrupt(), 130, "vitexp: interrupted\n"),
    ],
)
def test_what_a_person_can_mend_is_one_line(error, status, told, capsys):
    assert cli.guarded(raises(error)) == status
    assert capsys.readouterr().err == told


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(raises(ZeroDivisionError()))


def test_the_traceback_of_bad_input_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("VITEXP_TRACEBACK", "1")
    with pytest.raises(ValueError, match="whole story"):
        cli.guarded(raises(ValueError("whole story")))


def test_the_package_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vitexp", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("vitexp", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("vitexp ")
