import json

import pytest
import yaml

from vitexp import cli
from vitexp.learn.parser import joined, plain_words, sentence

KNOWN = ["model.pos_embed", "model.pos_at", "model.pool", "data.train_images", "data.batch_size", "trainer.max_epochs"]


def test_a_wrong_word_is_answered_with_the_allowed_ones():
    message = (
        "Parser key \"model.pos_embed\":\n  Expected a typing.Literal['none', '1d', '2d', 'relative']. Got value: 3d"
    )
    assert sentence(message, KNOWN) == "--model.pos_embed is '3d'; allowed: none, 1d, 2d, relative"


def test_a_misspelt_flag_is_answered_with_the_nearest():
    told = sentence("unrecognized arguments: --model.pos-embed=2d", KNOWN)
    assert told.startswith("--model.pos-embed is no flag; did you mean --model.pos_embed")


def test_an_unknown_flag_is_answered_with_its_group():
    assert "allowed here: --data.train_images, --data.batch_size" in sentence(
        "unrecognized arguments: --data.zzz 3", KNOWN
    )


@pytest.mark.parametrize("extra", ["--_wandb={}", "--_wandb=x"])
def test_the_word_of_a_resumed_sweep_run_is_taken_out(extra):
    assert plain_words(["fit", extra, "--model.pool=gap"]) == (["fit", "--model.pool=gap"], [extra])


BLOCK = {"model": {"pos_embed": "2d"}}


@pytest.mark.parametrize("cell", [{"model.lr": 0.5} | BLOCK, BLOCK | {"model.lr": 0.5}], ids=["before", "behind"])
@pytest.mark.parametrize("spelt", [json.dumps, yaml.safe_dump])
def test_a_dotted_name_keeps_its_value_beside_a_block_of_its_group(cell, spelt, tmp_path):
    path = tmp_path / "cell"
    path.write_text(spelt(cell, **({"sort_keys": False} if spelt is yaml.safe_dump else {})))
    planned = cli.plan(["fit", "--model.arch=micro/2", "--trainer.max_epochs=1", "--config", str(path)])
    assert {key: planned["config"]["model"][key] for key in ("lr", "pos_embed")} == {"lr": 0.5, "pos_embed": "2d"}


@pytest.mark.parametrize(
    "config",
    [{"model.lr": 0.5, "model": {"lr": 0.5}}, {"trainer.logger.name": "x", "trainer": {"logger": True}}],
    ids=["both", "below a value"],
)
def test_a_value_given_in_both_ways_is_refused(config):
    (dotted,) = (key for key in config if "." in key)
    with pytest.raises(ValueError, match=rf"the config sets {dotted} twice, as a dotted name and inside its block"):
        joined(json.dumps(config))


@pytest.mark.parametrize(
    "config", ["model:\n  lr: 1.0e-3\n", "model.lr: 1e-3\n", "a: [", "word", "study.baseline: {a.b: 1}"]
)
def test_any_other_config_stays_as_it_is(config):
    assert joined(config) == config


def test_an_arm_is_taken_apart():
    config = {"arm": {"model.arch": "L/16", "trainer.max_epochs": 14}, "model": {"dropout": 0.0}, "data.workers": 2}
    wanted = {"model": {"dropout": 0.0, "arch": "L/16"}, "trainer.max_epochs": 14, "data.workers": 2}
    assert json.loads(joined(json.dumps(config))) == wanted


@pytest.mark.parametrize("config", [{"arm": "B/16"}, {"arm": {"model.lr": 1}, "model.lr": 2}])
def test_an_arm_that_is_none_or_is_contradicted_is_refused(config):
    with pytest.raises(
        ValueError, match=r"the config's arm is .*; give a mapping of dotted keys that stand nowhere else"
    ):
        joined(json.dumps(config))
    with pytest.raises(ValueError, match=r"the config sets model\.lr twice"):
        joined(json.dumps({"arm": {"model.lr": 1}, "model": {"lr": 2}}))
