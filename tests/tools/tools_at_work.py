"""What the tests of inspect and robustness do alike: run the command, and read what it wrote."""

import csv

from vitexp import cli
from vitexp.record import read_records
from vitexp.robust import with_tests


def look(*words, out, what=()):
    chosen = ["--what", *what.split()] if what else []
    return cli.main(["inspect", "own.safetensors", *chosen, "--out", str(out), *words])


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def numbers(path, column):
    return [float(row[column]) for row in table(path)]


def robustness(capsys, *words):
    status = cli.main(["robustness", *map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def runs(home):
    return [with_tests(record, []) for record in read_records(home / "runs")[0]]


def refused(capsys, *words):
    status, out, err = robustness(capsys, *words)
    assert status == 2
    assert out == ""
    assert "networks" not in err.partition("vitexp: ")[0]  # nothing was measured
    return err.splitlines()[-1]
