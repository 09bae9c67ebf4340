import re

import pytest

from vitexp.cli import main


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["table"], {"table.md", "table.csv", "table.tex"}),
        (["table", "--figure"], {"table.md", "table.csv", "table.tex", "dots.png", "dots.svg"}),
    ],
)
def test_each_command_writes_its_files_and_names_them(filled, tmp_path, capsys, words, files):
    places = ["--root", str(filled.root), "--results", str(tmp_path)]
    assert main([*words, str(filled.study.path), *places]) == 0
    assert {path.name for path in (tmp_path / "pos").iterdir()} == files
    printed = capsys.readouterr().out.replace("\n", "")
    assert all(name in printed.partition("Written: ")[2] for name in files)


def test_where_reaches_the_records(filled, tmp_path, capsys):
    where = ["--where", "trainer.max_epochs=99"]
    assert main(["table", str(filled.study.path), "--root", str(filled.root), *where]) == 2
    assert "none of the 40 runs" in capsys.readouterr().err
    assert main(["table", str(filled.study.path), "--root", str(filled.root), "--where", "word"]) == 2
    assert "write key=value" in capsys.readouterr().err


def test_a_study_without_sizes_has_no_curve(filled, tmp_path, capsys):
    assert main(["curve", str(filled.study.path), "--root", str(filled.root), "--results", str(tmp_path)]) == 2
    assert "does not vary data.train_images or data.train_fraction" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_of_the_studies_that_are_named_or_of_all_below_the_root(filled, tmp_path, capsys):
    out = ["--out", str(tmp_path / "page")]
    assert main(["report", "--root", str(filled.root), *out]) == 0
    assert capsys.readouterr().out == f"Written: {tmp_path / 'page' / 'report.html'}\n"
    assert (tmp_path / "page" / "report.html").read_text().count("<section") == 1
    assert main(["report", str(filled.study.path), str(filled.root / "pos"), "--root", str(filled.root), *out]) == 0
    assert (tmp_path / "page" / "report.html").read_text().count("<section") == 2


@pytest.mark.parametrize("named", [True, False])
def test_a_study_without_finished_runs_has_no_report(filled, tmp_path, capsys, named):
    study = [str(filled.study.path)] if named else []
    assert main(["report", *study, "--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert re.fullmatch(r"vitexp: [^\n]*holds no (finished )?run[^\n]*\n", capsys.readouterr().err)
    assert not (tmp_path / "report.html").exists()
