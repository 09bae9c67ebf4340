import json

import pytest
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from vitexp.study import cells as agent

ARGUMENTS = {
    "model.lr": 0.0001,
    "model.flag": True,
    "model.off": False,
    "model.words": ["a", "b"],
    "model.name": "two words",
    "n": None,
}


@pytest.mark.parametrize("macro", ["args", "args_no_hyphens", "args_no_boolean_flags", "args_json"])
def test_macros_expand_as_the_client_expands_them(macro):
    theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in ARGUMENTS.items()}})
    assert agent.expand([f"${{{macro}}}"], None, ARGUMENTS, "cell.json") == theirs[macro]


def test_the_agents_default_command_and_its_file():
    words = agent.expand([*agent.DEFAULT_COMMAND, "--config", "${args_json_file}"], "train.py", {"a": 1}, "c.json")
    assert words == ["/usr/bin/env", "python", "train.py", "--a=1", "--config", "c.json"]


def test_an_environment_variable_expands_inside_a_word(monkeypatch):
    monkeypatch.setenv("BASE", "x")
    assert agent.expand(["experiments/${envvar:BASE}.yaml"], None, {}, "") == ["experiments/x.yaml"]
    monkeypatch.delenv("BASE")
    with pytest.raises(ValueError, match="environment variable BASE, which is not set"):
        agent.expand(["${envvar:BASE}"], None, {}, "")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("--config=${args_json_file}", "only expands as a whole word; split it in two"),
        ("${arguments}", r"\$\{arguments\}, which is none of \$\{env\}, "),
        ("${args_append_hydra}", "which is none of"),
    ],
)
def test_a_macro_that_an_agent_would_leave_or_drop_is_refused(item, message):
    with pytest.raises(ValueError, match=message):
        agent.expand([item], None, {}, "c.json")


@pytest.mark.parametrize(
    "head",
    [
        ["/usr/bin/env", "vitexp"],
        ["vitexp"],
        [".venv/bin/vitexp"],
        ["/usr/bin/env", "python", "-m", "vitexp"],
        ["/opt/bin/python3.11", "-m", "vitexp"],
        ["python", "src/vitexp/__main__.py"],
    ],
)
def test_every_way_to_start_vitexp_is_understood(head):
    assert agent.arguments_of_vitexp([*head, "fit", "--config", "a.yaml"]) == ["fit", "--config", "a.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/usr/bin/env", "python", "train.py", "--a=1"], "starts '/usr/bin/env python train.py', which is not vitexp"),
        (["bash", "-c", "vitexp fit"], "which is not vitexp"),
        (["python", "-m", "other", "fit"], "which is not vitexp"),
        ([], "which is not vitexp"),
        (["vitexp", "--a=1"], "runs 'vitexp --a=1'; a study runs `vitexp fit`"),
        (["vitexp", "sweep"], "a study runs `vitexp fit`"),
    ],
)
def test_any_other_program_is_refused_by_name(words, message):
    with pytest.raises(ValueError, match=message):
        agent.arguments_of_vitexp(words)


def test_the_advice_is_itself_accepted():
    words = agent.expand(json.loads(agent.ADVICE.removeprefix("command: ")), None, {}, "c.json")
    assert agent.arguments_of_vitexp(words) == ["fit", "--config", "experiments/NAME.yaml", "--config", "c.json"]
