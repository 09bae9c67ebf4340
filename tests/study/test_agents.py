"""The next look of a study as a sweep file for W&B agents: the same cells, whoever trains them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vitexp import cli
from vitexp.study.run.runner import hand_to_agents, run_until_decided
from vitexp.study.run.until import write_for_agents
from vitexp.study.spec import read_study
from vitexp.study.table import make_table

CLEAR, BASE, HARD = 0.7, 0.5, 0.509


@pytest.fixture
def hand_out(planned, trainer, tmp_path):
    """The cells that are written for agents; none where no file is."""

    def start(made=planned):
        path = tmp_path / "next.yaml"
        path.unlink(missing_ok=True)
        assert hand_to_agents(made, 15, path, trainer.parse, tmp_path, 1, ["--run.root", str(tmp_path)]) == 0
        return read_study(path).cells() if path.exists() else []

    return start


@pytest.fixture
def serve(trainer, tmp_path, monkeypatch):
    """What an agent does with a cell."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(cell):
        file = tmp_path / "cell.json"
        file.write_text(json.dumps(cell.overrides | {"study.name": "s"}))
        argv = ["fit", "--config", str(file), "--run.root", str(tmp_path)]
        Path(trainer.parse(argv)["run_directory"]).mkdir(parents=True, exist_ok=True)
        trainer.train(argv, "")

    return run


def counts(made, root):
    return {arm.factors["model.level"]: sorted(arm.runs) for arm in make_table(made, root).arms}


def test_agents_serve_the_looks_of_the_plan_until_it_is_decided(hand_out, serve, planned, trainer, tmp_path, capsys):
    first = hand_out()
    assert len(first) == 9
    for cell in first[:4]:
        serve(cell)
    again = hand_out()  # the rest of the same look first
    assert [cell.overrides for cell in again] == [cell.overrides for cell in (*first[4:], *first[:4])]
    for cell in again[:5]:
        serve(cell)
    second = hand_out()
    assert len(second) == 13
    due = {(cell.overrides["model.level"], cell.seed) for cell in second[:4]}
    assert due == {(level, seed) for level in (BASE, HARD) for seed in (3, 4)}
    for cell in second[:4]:
        serve(cell)
    assert hand_out() == []
    assert "1 of 2 comparisons are decided, with 13 of 15 runs" in capsys.readouterr().out
    assert counts(planned, tmp_path) == {CLEAR: [0, 1, 2], BASE: [0, 1, 2, 3, 4], HARD: [0, 1, 2, 3, 4]}
    more = {"extra": ["--run.root", str(tmp_path)], "preload": ["vitexp.record"], "workers": 2}
    outcome = run_until_decided(planned, 15, parse=trainer.parse, train=trainer.train, root=tmp_path, **more)
    assert outcome.started == 0  # the runner takes them for its own


def test_the_real_parser_makes_the_same_runs_of_the_file(tmp_path, capsys):
    sweep = yaml.safe_load(Path("sweeps/pos_embed.yaml").read_text())
    sweep["parameters"]["seed_everything"] = {"values": [0, 1, 2]}
    sweep["parameters"]["model"]["values"] = sweep["parameters"]["model"]["values"][:2]
    sweep["parameters"]["study.baseline"] = {"value": {"model.pos_embed": "none"}}
    file, following = tmp_path / "mine.yaml", tmp_path / "next.yaml"
    file.write_text(yaml.safe_dump(sweep))
    words = ["sweep", str(file), "--until-decided", "--agents", str(following), "--root", str(tmp_path)]
    assert cli.main(words) == 0
    assert "6 of 6 cells have no finished run" in capsys.readouterr().out
    assert cli.main(["sweep", "lint", str(following), "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    planned = json.loads((tmp_path / "pos_embed" / "study.json").read_text())
    assert [cell["fingerprint"] for cell in found["cells"]] == [cell["fingerprint"] for cell in planned["cells"]]
    assert not list(tmp_path.rglob("record.json"))


def test_a_command_that_hands_values_on_as_text_is_refused(tmp_path, planned):
    made = replace(planned, command=("vitexp", "fit", "${args}"))
    with pytest.raises(ValueError, match=r"sweep\.yaml: agents take these cells from a file"):
        write_for_agents(made, made.cells(), tmp_path / "next.yaml")
    assert not (tmp_path / "next.yaml").exists()


def test_agents_without_a_plan_are_refused(capsys):
    assert cli.main(["sweep", "sweeps/pos_embed.yaml", "--agents", "next.yaml"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == "vitexp: --agents has no effect alone; add --until-decided\n"
