import json

import pytest
import yaml

from vitexp import cli
from vitexp.data.module import ShardData
from vitexp.train.command import _BUILT
from vitexp.train.parser import Parser, joined, sentence

KNOWN = ["model.pos_embed", "model.pos_at", "model.pool", "data.train_images", "data.batch_size", "trainer.max_epochs"]


def test_a_wrong_word_is_answered_with_the_allowed_ones():
    message = (
        "Parser key \"model.pos_embed\":\n  Expected a typing.Literal['none', '1d', '2d', 'relative']. Got value: 3d"
    )
    assert sentence(message, KNOWN) == "--model.pos_embed is '3d'; allowed: none, 1d, 2d, relative"


def test_a_whole_number_stays_one_whatever_order_a_library_has_given_the_types():
    parser = Parser()
    parser.add_argument("--limit", type=float | int | None)
    parser.read_whole_numbers_first()
    found = [parser.parse_args([f"--limit={text}"]).limit for text in ("1", "1.0", "0.5", "null")]
    assert [repr(value) for value in found] == ["1", "1.0", "0.5", "None"]


def test_a_misspelt_flag_is_answered_with_the_nearest():
    told = sentence("unrecognized arguments: --model.pos-embed=2d", KNOWN)
    assert told.startswith("--model.pos-embed is no flag; did you mean --model.pos_embed")


def test_an_unknown_flag_is_answered_with_its_group():
    assert "allowed here: --data.train_images, --data.batch_size" in sentence(
        "unrecognized arguments: --data.zzz 3", KNOWN
    )


@pytest.mark.parametrize("extra", ["--_wandb={}", "--_wandb=x"])
def test_the_word_of_a_resumed_sweep_run_is_taken_out(extra):
    words = ["fit", extra, "--model.arch=micro/2", "--model.pool=gap", "--trainer.max_epochs=1"]
    assert cli.plan(words)["config"]["model"]["pool"] == "gap"


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


@pytest.mark.parametrize("config", ["model:\n  lr: 1.0e-3\n", "model.lr: 1e-3\n", "study.baseline: {a.b: 1}"])
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


@pytest.fixture(scope="module")
def parser():
    """The parser of `vitexp fit`, which every test here asks for one more wrong value."""
    import vitexp.preload  # noqa: F401

    return _BUILT["fit", ShardData][0]


def refused(parser, *words):
    with pytest.raises((ValueError, OSError)) as caught:
        parser.parse_args(["fit", *words])
    return str(caught.value)


ANYTHING_GOES = (
    "trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.max_time", "trainer.val_check_interval",
    "trainer.gradient_clip_algorithm", "trainer.profiler", "trainer.default_root_dir", "trainer.model_registry",
    "model.arch", "data.shards", "run.root", "run.dir", "run.project", "run.init", "study.name", "study.title",
    "study.select", "study.paper", "study.x", "ckpt_path", "data.auto_augment",
)  # fmt: skip
"""Text is right for the parser; what it must be is checked where it is used."""


def test_every_flag_refuses_a_wrong_value_in_one_short_sentence_that_names_it(parser):
    flags = [name for name in dict.fromkeys(parser.flags()) if name not in ("help", "print_config", "version", "c")]
    assert len(flags) > 80
    for name in flags:
        if name.rstrip("+") in ANYTHING_GOES or name.endswith((".help", "+")):
            continue
        told = refused(parser, f"--{name}=@wrong")
        assert f"--{name}" in told
        assert len(told) < 300
        assert not any(word in told for word in ("Union", "ubtypes", "typing", "<class", "NoneType", "\n", "\x1b")), (
            told
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.lr=abc"], "--model.lr is 'abc'; a number is needed"),
        (["--model.lr="], "--model.lr is ''; a number is needed"),
        (["--model.lr"], "--model.lr needs a value"),
        (["--trainer.max_epochs=1e1"], "--trainer.max_epochs is '1e1'; a whole number or null is needed"),
        (["--data.batch_size=64.0"], "--data.batch_size is '64.0'; a whole number is needed"),
        (["--run.shots=5"], "--run.shots is '5'; a list such as [a, b] is needed"),
        (
            ["--config={model: {lrr: 1}}"],
            "--model.lrr is no flag; did you mean --model.lr, --model.",
        ),
        (
            ["--config={modell: {lr: 1}}"],
            "--modell.lr is no flag; did you mean --model.lr, --model.",
        ),
        (["--config={1: 2}"], "--config: the config has the key 1, which is not text; give names of flags"),
        (["--config={model: {lr: 1, lr: 2}}"], "--config: line 1: the key 'lr' is given twice; take one out"),
        (["--model=@x"], "--model: '@x' is no mapping of flags; set the flags below it one by one"),
        (["--trainer.callbacks+=EarlyStopping"], "--trainer.callbacks: monitor is required"),
        (
            ["--trainer.callbacks=[{class_path: torch.nn.Linear}]"],
            "--trainer.callbacks: torch.nn.Linear is no Callback",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.nope=1"],
            "--trainer.callbacks: it has no option nope",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=x"],
            "--trainer.callbacks: its patience is 'x'; a whole number is needed",
        ),
        (
            ["--trainer.logger=nope.mod.Cls"],
            "--trainer.logger: nope.mod.Cls cannot be used (No module named 'nope')",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_needed(parser, words, told):
    assert refused(parser, *words).startswith(told)


def test_the_help_shows_no_object_of_python(parser):
    text = " ".join(parser._subcommands_action.choices["fit"].format_help().split())
    assert "order of the images and of augmentation. (type: int, default: 0)" in text
    assert " at 0x" not in text


@pytest.mark.parametrize("given", ["true", "-1", "1.5", "4294967296", "x"])
def test_a_seed_is_a_whole_number_on_the_command_line_and_in_a_config(parser, given):
    told = f"'{given.title() if given == 'true' else given}' is no seed; a whole number from 0 to 4294967295 is needed"
    assert refused(parser, f"--seed_everything={given}").lower() == f"--seed_everything: {told}".lower()
    assert told in refused(parser, f"--config={{seed_everything: {given}}}")
    seed = parser.parse_args(["fit", "--seed_everything=4294967295"]).fit.seed_everything
    assert (seed, type(seed)) == (4294967295, int)  # a class of its own would make checkpoints unreadable


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"model: " + b"[" * 3000, "--config file: line 1: lists and mappings nest more than 50 deep"),
        (
            b"seed_everything: 1\nseed_everything: 2\n",
            "line 2: the key 'seed_everything' is given twice",
        ),
        (b"model:\n\tlr: 1\n", "--config file: line 2: found character that cannot start any token"),
        (b"\xff\xfe\x00", "file is not UTF-8 text"),
        (b"", "the config is empty; give a mapping"),
        (b"[1, 2]", "the config holds [1, 2]; give a mapping"),
        (None, "is no file"),
    ],
    ids=["deep", "twice", "tab", "binary", "empty", "list", "folder"],
)
def test_a_config_that_is_none_is_one_sentence(parser, content, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.mkdir() if content is None else path.write_bytes(content)
    message = refused(parser, "--config=file")
    assert told in message
    assert len(message) < 300
    assert "\n" not in message


def test_yaml_of_the_usual_kinds_is_read(parser, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfbase: &base {lr: 1e-3, pool: gap}\n".replace(b"base: ", b"model: "))
    assert parser.parse_args(["fit", f"--config={path}"]).fit.model.lr == 0.001
    merged = "arm: {}\nmodel:\n  <<: {lr: 1e-3, pool: gap}\n  pool: map\n"
    assert parser.parse_args(["fit", f"--config={merged}"]).fit.model.pool == "map"


def test_a_class_is_never_imported_for_a_group_that_has_one_already(parser, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("open('sprung', 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in (
        ["--model=trap.Trap"],
        ["--model.class_path=trap.Trap"],
        ["--config={data: {class_path: trap.Trap}}"],
        ["--config={optimizer: {class_path: trap.Trap}}"],
    ):
        refused(parser, *words)
        assert not (tmp_path / "sprung").exists()
