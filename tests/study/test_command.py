"""The options of `vitexp sweep`; what it runs is tested where that lives."""

import os
import sys

import pytest

from vitexp import cli

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
