"""The options of `vitexp sweep`; what it runs is tested where that lives."""

import json
import os
import sys

import pytest
import yaml

from vitexp import cli
from vitexp.data.shards import write

SWEEP = "sweeps/pos_embed.yaml"


@pytest.fixture
def refused(capsys):
    """Runs the command; gives the one sentence with which it refuses."""

    def run(*words):
        assert cli.main(["sweep", *words]) == cli.BAD_INPUT
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        return line

    return run


@pytest.mark.parametrize("option", ["--ray-address=auto", "--cpus-per-run=2", "--gpus-per-run=0.5"])
def test_what_is_meant_for_a_cluster_is_refused_without_one(refused, option):
    assert refused(SWEEP, option) == f"vitexp: {option.split('=')[0]} has no effect on this machine; add --engine ray"


@pytest.mark.parametrize("share", ["-1", "half", "inf", "nan"])
def test_a_share_is_a_number(refused, share):
    assert f"{share!r} is no number of at least 0, such as 0.5" in refused(SWEEP, f"--gpus-per-run={share}")


def test_without_ray_there_is_one_sentence(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused(SWEEP, "--engine=ray") == 'vitexp: --engine ray needs Ray: pip install "vitexp[ray]"'


def test_ray_is_told_to_report_nothing(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    refused(SWEEP, "--engine=ray")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    "words",
    [
        ["lint", "{}", "--quick"],
        ["lint", "--quick", "{}"],
        ["--quick", "lint", "{}"],
        ["lint", "--root", "elsewhere", "{}", "--quick"],
        ["--workers=2", "{}", "--retry"],
    ],
)
def test_flags_may_stand_before_between_and_after_the_file(refused, words, tmp_path):
    absent = f"{tmp_path / 'absent.yaml'}"
    assert f"vitexp: {absent} cannot be read" in refused(*(absent if word == "{}" else word for word in words))


def test_an_unknown_flag_between_the_arguments_is_named(refused):
    assert "unrecognized arguments: --fast" in refused("lint", "--fast", SWEEP)


def test_lint_and_sweep_refuse_early_termination_alike(tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        'command: [vitexp, fit, --config, "${args_json_file}"]\nmethod: grid\nearly_terminate: {type: hyperband}\n'
        "parameters: {seed_everything: {values: [0]}, study.name: {value: s}}\n"
    )
    said = []
    for words in (["sweep", str(path)], ["sweep", "lint", str(path)]):
        assert cli.main(words) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "only `wandb agent` runs this as it says; take it out to check or run it here" in said[0]


@pytest.fixture
def lint(tmp_path, monkeypatch, capsys):
    """Lints a sweep over real digits with --json; gives the exit status and the document."""
    monkeypatch.chdir(tmp_path)
    write.make("digits", tmp_path / "shards" / "digits", workers=1)
    words = ["--data.shards=shards/digits", "--model.arch=micro/4", "--data.batch_size=100", "--run.shots=[]"]

    def run(parameters, **settings):
        given = {"study.name": {"value": "s"}, **parameters}
        command = ["vitexp", "fit", *words, "--trainer.max_steps=3", "--config", "${args_json_file}"]
        sweep = {"method": "grid", "command": command, "parameters": given, **settings}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        status = cli.main(["sweep", "lint", "--json", "sweep.yaml"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_lint_as_json_is_one_document_with_findings_cells_and_totals(lint):
    arms = {"model.pos_embed": {"values": ["none", "1d"]}, "study.baseline": {"value": {"model.pos_embed": "none"}}}
    status, found = lint({**arms, "run.project": {"values": ["a", "b"]}})
    assert status == 2
    assert next(iter(found.items())) == ("schema", "vitexp.lint/1")
    assert len(found["findings"]["error"]) == 2
    assert all("cells are one and the same run" in text for text in found["findings"]["error"])
    assert any("the study has 1 seed (0)" in text for text in found["findings"]["note"])
    assert [cell["overrides"]["model.pos_embed"] for cell in found["cells"]] == ["none", "none", "1d", "1d"]
    none, _, table, _ = found["cells"]
    assert table["parameters"] - none["parameters"] == (2 * 2 + 1) * 64, "a vector for each patch and the class token"
    assert {(cell["steps"], cell["images_seen"]) for cell in found["cells"]} == {(3, 300)}
    flops = sum(cell["train_flops"] for cell in found["cells"])
    assert found["total"] == {"runs": 4, "steps": 12, "train_flops": flops}
    starts = [line.partition(":")[0] for line in found["starts"]]
    assert starts == [f"start of model.pos_embed=1d run.project={name}" for name in "ab"]


def test_lint_as_json_of_a_search_adds_nothing_up(lint):
    rate = {"model.lr": {"min": 0.001, "max": 0.1, "distribution": "log_uniform_values"}}
    status, found = lint(rate, method="bayes", metric={"name": "val_acc", "goal": "maximize"}, run_cap=3)
    assert (status, len(found["cells"])) == (0, 3)
    assert found["total"] == {"runs": 3, "steps": None, "train_flops": None}
    assert "no ground for comparing arms" in found["findings"]["note"][0]


def test_json_of_a_sweep_that_trains_is_refused(refused):
    assert refused(SWEEP, "--json").startswith("vitexp: --json is for `vitexp sweep lint FILE`")
