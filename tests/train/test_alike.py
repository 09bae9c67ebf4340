"""The short way of planning a study's cells: what the whole parser says of each, and nothing else."""

import json

import pytest

from vitexp import cli
from vitexp.study.run.processes import parse_cell
from vitexp.study.spec import read_study
from vitexp.train.alike import Kinds

QUIET = ["--run.wandb=off", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def kinds():
    """The short way, and how many command lines went through the whole parser."""
    parsed = []

    def plan(given):
        parsed.append(given)
        return cli.planned(given)

    made = Kinds(plan)
    return (lambda given: made.facts(given)[1]), parsed


def written(folder, number, content, *words):
    path = folder / f"{number}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    configs = ["--config", "experiments/pos_ablation.yaml", "--config", str(path)]
    return ["fit", *configs, f"--run.root={folder}", *QUIET, *words]


@pytest.mark.parametrize(
    ("sweep", "whole"), [("pos_embed", 1), ("pooling", 1), ("hybrid", 1), ("datasize", 5), ("attention", None)]
)
def test_every_cell_of_a_study_is_planned_as_by_the_whole_parser(sweep, whole, kinds, tmp_path):
    facts, parsed = kinds
    study = read_study(f"sweeps/{sweep}.yaml")
    for cell in study.cells():
        (tmp_path / "cell.json").write_text(cell.args_json)
        argv = [*study.argv(cell, tmp_path / "cell.json"), f"--run.root={tmp_path}", *QUIET]
        assert facts(argv) == cli.plan(argv), cell.label
    assert whole in (None, len(parsed))  # otherwise nothing was compared


GOOD = {"seed_everything": 0, "model": {"pos_embed": "1d", "lr": 0.001}}
WRONG = [
    {"seed_everything": -1, "model": {"pos_embed": "1d", "lr": 0.001}},
    {"seed_everything": 2**32, "model": {"pos_embed": "1d", "lr": 0.001}},
    {"seed_everything": True, "model": {"pos_embed": "1d", "lr": 0.001}},
    {"seed_everything": 1.5, "model": {"pos_embed": "1d", "lr": 0.001}},
    {"seed_everything": 0, "model": {"pos_embed": "3d", "lr": 0.001}},
    {"seed_everything": 0, "model": {"pos_embed": "1d", "lr": -0.5}},
    {"seed_everything": 0, "model": {"pos_embed": "1d", "lr": "fast"}},
    {"seed_everything": 0, "model": {"pos_embed": "1d", "lrr": 0.001}},
    '{"seed_everything": 0, "model": {"pos_embed": "1d", "lr": NaN}}',
    '{"seed_everything": 0, "seed_everything": 1, "model": {"pos_embed": "1d", "lr": 0.001}}',
    '{"seed_everything": 0, "model": {"pos_embed": "1d", "lr": 0.001}, "model.lr": 0.002}',
    '{"seed_everything": 0, "model": ',
]


def test_wrong_values_are_refused_in_the_words_of_the_whole_parser(kinds, tmp_path):
    facts, _ = kinds
    facts(written(tmp_path, "good", GOOD))
    for number, content in enumerate(WRONG):
        argv = written(tmp_path, number, content)
        said = parse_cell(facts, argv)
        assert isinstance(said, str)
        assert said == parse_cell(cli.plan, argv), content
    for arch, pos_at in (("micro/3", "stem"), ("nonsense", "stem"), ("micro/2", "every")):  # refused by checks
        model = {"arch": arch, "pos_embed": "none", "pos_at": pos_at}
        first = written(tmp_path, "first", {"model": {"arch": "micro/2", "pos_embed": "1d", "pos_at": "stem"}})
        facts(first)
        argv = written(tmp_path, "second", {"model": model})
        assert parse_cell(facts, argv) == parse_cell(cli.plan, argv), model


@pytest.mark.parametrize("word", ["--model.lr=0.5", "--seed_everything=7", "--model.pos_embed=2d"])
def test_a_word_that_overrules_the_file_still_does(word, kinds, tmp_path):
    for number, other in enumerate([GOOD, {"seed_everything": 3, "model": {"pos_embed": "none", "lr": 0.5}}]):
        argv = written(tmp_path, number, other, word)
        assert kinds[0](argv) == cli.plan(argv)
