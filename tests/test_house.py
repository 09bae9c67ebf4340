"""The house keeps its own rules: sizes, every YAML through the real parser, every axis value reachable from one."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from vitexp import axes, cli, verbs
from vitexp.data.shards.write import Layout, make
from vitexp.data.sources import drawn, shapes
from vitexp.record import flatten
from vitexp.study.spec import read_study

ROOT = Path(__file__).parent.parent
SOURCES = sorted(ROOT.glob("src/**/*.py"))
EXPERIMENTS = sorted(ROOT.glob("experiments/*.yaml"))
SWEEPS = sorted(ROOT.glob("sweeps/*.yaml"))
LONGEST_FILE = 350
LONGEST_FUNCTION = 50


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch, tmp_path):
    """Paths in the YAMLs are relative to the repository; what a plan writes is not left there."""
    for name in ("experiments", "recipes", "sweeps"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Shards of noise in place of Fashion-MNIST: as many classes, and images enough for the plans of the YAMLs; and
    the drawn sets beside them, which are larger by themselves.
    """
    folder, draw = tmp_path_factory.mktemp("stand-in"), np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 5000), ("test", 10)):
        arrays[f"x_{split}"] = draw.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(folder / "noise.npz", **arrays)
    assert cli.main(["shards", "make", str(folder / "noise.npz"), str(folder / "shards"), "--no-check"]) == 0
    for name in drawn.SETS:
        make(f"{name}@train=1000,test=10", folder / name, layout=Layout(check=False))
    return folder / "shards"


@pytest.fixture
def _shards_made(stand_in, tmp_path):
    """The data that a YAML asks its reader to make first."""
    (tmp_path / "shards").mkdir()
    for name in ("fashion-mnist", "mnist", "cifar10", "cifar100", "imagenet", "jft300m", *shapes.SETS):
        (tmp_path / "shards" / name).symlink_to(stand_in)
    for name in drawn.SETS:
        (tmp_path / "shards" / name).symlink_to(stand_in.parent / name)
    for name in ("pretrain_tiny", "masked_tiny"):  # a plan asks whose content it is, and no more
        (tmp_path / "runs" / name / "last" / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "last" / "checkpoints" / "last.ckpt").write_text(name)


def trial(path):
    """The paper's warm-ups are longer than any run on stand-ins, unless that is a trial."""
    return ["--trainer.fast_dev_run=true"] if path.stem.endswith(("_paper", "plain_vit")) else []


def too_long(path):
    """A file, or the functions in it, with more lines than there may be."""
    text = path.read_text()
    if text.count("\n") > LONGEST_FILE:
        yield path.name
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno - node.lineno >= LONGEST_FUNCTION
        ):
            yield f"{path.name}: {node.name}"


def test_files_and_functions_stay_short():
    assert SOURCES
    assert [name for path in SOURCES for name in too_long(path)] == []


def test_what_imports_torchvision_comes_after_its_missing_operators():
    """Each module can be imported by itself where a CPU build of torch stands beside the ordinary torchvision."""
    heavy = re.compile(r"^(from|import) (lightning|torchmetrics|timm)\b", re.MULTILINE)
    for path in SOURCES:
        text = path.read_text()
        if (first := heavy.search(text)) and "starter" not in path.parts:
            before = text[: first.start()] + (path.parent / "__init__.py").read_text()
            assert "import torch_ops" in before, path


def test_there_is_no_attic():
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")]


HEAVY = ["torch", "lightning", "timm", "wandb", "numpy", "scipy", "matplotlib", "rich", "yaml", "PIL", "sklearn"]
PARSED = [verb for verb in verbs.VERBS if not verb.own_parser]
VERBS = ["", *(verb.name for verb in PARSED)]
VERBS += [f"{verb.name} {below.name}" for verb in PARSED for below in verb.verbs]
HELP = f"""
import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))
from vitexp import cli, verbs
for verb in {VERBS!r}:
    try:
        cli.main([*verb.split(), "--help"])
    except SystemExit as ended:
        assert not ended.code, verb
"""


@pytest.fixture(scope="module")
def helps():
    """What each verb says of itself in a process where nothing heavy can be imported."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(VERBS, done.stdout.split("usage: vitexp")[1:], strict=True))


def test_help_needs_nothing_heavy(helps):
    assert all(text.split()[: len(verb.split())] == verb.split() for verb, text in helps.items())


def test_the_first_help_names_every_verb(helps):
    first = {line.split()[0] for line in helps[""].splitlines() if line.startswith("    ")}
    assert {verb.name for verb in verbs.VERBS} <= first


def test_every_verb_leads_to_a_function():
    for runs in [below for verb in verbs.VERBS for below in verb.verbs or [verb]]:
        assert callable(cli.function(runs)), runs.run


@pytest.mark.parametrize("verb", sorted(verb.name for verb in verbs.TRAINING))
def test_training_verbs_explain_every_axis(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for axis in ("pos_embed", "pos_at", "pool", "attention", "resnet", "gelu", "head", "block", "norm", "mlp"):
        words = ",".join([*axes.values(axis), *([axes.PATH] if axis in axes.SLOTS else [])])
        assert f"--model.{axis} {{{words}}}" in shown
        assert all(" ".join(row.about.split()) in shown for row in axes.of(axis))
    for key in (
        "--model.window",
        "--model.pos_std",
        "--model.stem",
        "--data.train_images",
        "--study.margin",
        "--run.root",
    ):
        assert key in shown
    assert "Peak learning rate" in shown


@pytest.mark.usefixtures("_shards_made")
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_parses(path):
    plan = cli.plan(["fit", "--config", f"experiments/{path.name}", *trial(path)])
    assert plan["steps"] > 0
    assert plan["study"] == path.stem


def test_every_yaml_says_its_command_and_cost():
    headers = {
        path.name: [line for line in path.read_text().splitlines() if line.startswith("#")]
        for path in EXPERIMENTS + SWEEPS
    }
    assert headers
    words = ("vitexp ", "Cost:")
    assert [name for name, lines in headers.items() if not all(word in "".join(lines) for word in words)] == []


def telling(cells):
    """Cells that between them have every combination of words and every number, each number once at least."""
    seen, chosen = set(), []
    for cell in cells:
        values = {key: value for key, value in cell.overrides.items() if key != "seed_everything"}
        numbers = {(key, value) for key, value in values.items() if isinstance(value, int | float)}
        words = tuple((key, str(value)) for key, value in values.items() if not isinstance(value, int | float))
        if not {words, *numbers} <= seen:
            chosen.append(cell)
        seen |= {words, *numbers}
    return chosen


def test_telling_cells_have_every_number_and_every_combination_of_words():
    cells = read_study(SWEEPS[0].parent / "fashion_pos_embed.yaml").cells()
    found = [(cell.overrides["model.pos_embed"], cell.overrides["model.lr"]) for cell in telling(cells)]
    assert {kind for kind, _ in found} == {"none", "1d", "2d", "relative"}
    assert {rate for _, rate in found} == {1.5e-3, 3.0e-3, 6.0e-3, 1.2e-2}
    assert len(found) == 7


@pytest.mark.usefixtures("_shards_made")
@pytest.mark.parametrize("path", [path for path in SWEEPS if not trial(path)], ids=lambda path: path.stem)
def test_every_arm_of_every_study_parses(path, tmp_path):
    """Those of the paper's size: train/test_paper_scale.py."""
    study = read_study(f"sweeps/{path.name}")
    assert study.name == path.stem
    for cell in telling(study.cells()):
        file = tmp_path / "cell.json"
        file.write_text(cell.args_json)
        plan = cli.plan(study.argv(cell, file))
        assert plan["study"] == study.name
        resolved = flatten(plan["config"])
        asked = {key: value for key, value in cell.overrides.items() if key in resolved and key != "model.arch"}
        assert {key: resolved[key] for key in asked} == asked


def test_every_axis_value_is_named_in_some_yaml():
    """Of those that are published here: a value that somebody is trying out needs no study yet."""
    words = {
        "pos_embed": {"none", "1d", "2d", "relative", "sincos2d", "rope"},
        "pos_at": {"stem", "every", "shared"},
        "pos_join": {"add", "concat", "multiply"},
        "pool": {"cls", "gap", "map", "seqpool", "class_attention"},
        "attention": {"full", "local", "axial", "strided", "fixed"},
        "stem": {"resnet50"},
        "resnet": {"preact", "postact", "axial"},
    }
    used = {axis: set() for axis in words}
    for path in EXPERIMENTS + SWEEPS:
        for key, value in _pairs(yaml.safe_load(path.read_text())):
            if key.removeprefix("model.") in used:
                used[key.removeprefix("model.")].add(value)
    assert {axis: words[axis] - used[axis] for axis in words} == {axis: set() for axis in words}
    assert all(words[axis] <= set(axes.values(axis)) for axis in words)


def _pairs(node):
    """Every key with every plain value below it."""
    if isinstance(node, dict):
        for key, value in node.items():
            for leaf in _leaves(value):
                yield str(key), leaf
            yield from _pairs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pairs(value)


def _leaves(node):
    if isinstance(node, dict):
        return [leaf for key in ("value", "values") for leaf in _leaves(node.get(key))]
    return [leaf for value in node for leaf in _leaves(value)] if isinstance(node, list) else [node]
