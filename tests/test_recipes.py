"""Each named recipe goes with any experiment, and says where it comes from."""

from pathlib import Path

import pytest
import yaml

from vitexp import cli
from vitexp.record import flatten

ROOT = Path(__file__).parent.parent
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch, tmp_path):
    for name in ("experiments", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


def words(path, *more):
    return ["fit", "--config", "experiments/pos_ablation.yaml", "--config", f"recipes/{path.name}", *more]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_overrules_the_experiment_before_it_and_leaves_the_rest(path, capsys):
    assert {path.stem for path in RECIPES} >= {"augreg_medium1", "deit", "better_plain_vit", "vit_lite"}
    with pytest.raises(SystemExit) as ended:
        cli.main(words(path, "--print_config"))
    assert ended.value.code == 0
    shown = flatten(yaml.safe_load(capsys.readouterr().out))
    asked = flatten(yaml.safe_load(path.read_text()))
    assert {key: shown[key] for key in asked} == asked
    assert {key.partition(".")[0] for key in asked} == {"model", "data"}
    assert (shown["model.arch"], shown["data.batch_size"]) == ("micro/2", 64)
    plan = flatten(cli.plan(words(path, "--trainer.max_epochs=30"))["config"])
    warmup = {"model.warmup_steps", "model.warmup_epochs"}  # resolved to steps
    assert {key: plan[key] for key in asked.keys() - warmup} == {key: asked[key] for key in asked.keys() - warmup}
    assert 0 < plan["model.warmup_steps"] < 30 * 21
    header = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert all(word in header for word in ("vitexp fit --config ", "Source: ", "Differs from it: "))


def test_the_richest_recipe_trains(capsys):
    assert cli.main(words(ROOT / "recipes/deit.yaml", "--trainer.fast_dev_run=true", "--data.image_size=16")) == 0
    assert "a trial" in capsys.readouterr().out
