import typing
from pathlib import Path

import pytest

from vitexp.data.module import ShardData
from vitexp.report import labels
from vitexp.study.spec import read_study
from vitexp.train.config import ClassifyConfig, RunConfig

SWEEPS = sorted(Path(__file__).parents[2].glob("sweeps/*.yaml"))
# Where and how a run is kept and counted: nothing that a study compares.
NOT_COMPARED = {"run.wandb"}


def is_known(key, value):
    """Whether there are words for a value that is not a number."""
    named = isinstance(value, str) and key in labels.NAMES
    return named or isinstance(value, int | float) or value in labels.VALUES.get(key, {})


def choices():
    """Every option of the groups model, data and run that takes one of several words, with each word."""
    for group, owner in (("model", ClassifyConfig), ("data", ShardData.__init__), ("run", RunConfig)):
        for name, kind in typing.get_type_hints(owner).items():
            if typing.get_origin(kind) is typing.Literal and f"{group}.{name}" not in NOT_COMPARED:
                yield from ((f"{group}.{name}", word) for word in typing.get_args(kind))


def test_no_key_has_the_words_that_it_would_have_anyway():
    assert [key for key, words in labels.KEYS.items() if words == key.rpartition(".")[2].replace("_", " ")] == []


def test_one_comparison_is_no_comparisons():
    assert [labels.comparisons_text(count) for count in (1, 14)] == ["one comparison", "14 comparisons"]


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [(0.97624, "test_acc", "97.62"), (-0.0031, "fewshot_5", "−0.31"), (1.23456, "test_loss", "1.2346")],
)
def test_numbers_are_per_cent_for_accuracies_alone(value, metric, shown):
    assert labels.number(value, metric) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0031, "+0.31"), (-0.0031, "−0.31"), (0.0, "0.00"), (-0.00001, "0.00"), (0.00001, "0.00")]
)
def test_differences_carry_their_sign_unless_they_round_to_nothing(value, shown):
    assert labels.signed(value, "test_acc") == shown


def test_words_of_unknown_keys_and_values_are_themselves():
    assert labels.label_text((("model.pos_embed", "spiral"), ("model.mlp_ratio", 2), ("model.kind", "new"))) == (
        "position embedding spiral, mlp ratio 2, kind new"
    )
    assert labels.seeds_text([0, 1, 2, 3]) == "0–3"
    assert labels.seeds_text([0, 2]) == "0, 2"
    assert labels.points(0.01) == "1 point"
    assert labels.points(0.005) == "0.5 points"
    assert [labels.probability(p) for p in (None, 0.0004, 0.0404)] == ["–", "< 0.001", "0.040"]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ([("model.pos_embed", "none")], "none"),
        ([("model.pos_embed", "none"), ("model.pos_at", "stem")], "no position embedding"),
        ([("model.pos_embed", "none"), ("data.train_images", 64)], "no position embedding, 64 training images"),
        ([("model.pos_embed", "sincos2d"), ("model.pos_at", "shared")], "fixed 2-D sines, every layer, shared"),
        ([("model.arch", "w32d2m64h2/4")], "width 32, depth 2, MLP 64, heads 2, patch 4"),
        ([("model.arch", "R50+w32d2m64h2/16")], "R50 + width 32, depth 2, MLP 64, heads 2, patch 16"),
        ([("model.arch", "R26x1"), ("model.stem", "auto"), ("model.resnet", "postact")], "R26x1, post-activation"),
        ([("model.arch", "micro/4"), ("model.stem", "patch"), ("model.resnet", "preact")], "micro/4, patches"),
        ([("model.resnet", "preact")], "pre-activation"),
        ([("model.stem", "auto")], "as the name says"),
        ([("model.optimizer", "sgd"), ("model.schedule", "staircase")], "SGD, staircase decay"),
        ([("model.polyak", 0.9999)], "Polyak average 0.9999"),
        ([("trainer.max_epochs", 7)], "7 epochs"),
        ([("trainer.max_epochs", 1)], "1 epoch"),
        ([("data.train_images", None)], "all training images"),
        ([("data.augment", "none"), ("model.some_switch", True)], "no augmentation, some switch on"),
        ([("data.shards", "shards/shapes-what")], "shapes-what"),
        ([("data.shards", "digits")], "digits"),
        ([("run.init", "none")], "from scratch"),
        ([("run.init", "runs/pretrain_tiny/last/checkpoints/last.ckpt")], "from pretrain_tiny"),
        ([("run.init", "runs/pos/B-16-1d/seed-2/checkpoints/last.ckpt")], "from pos B-16-1d seed 2"),
        ([("run.init", "../files/ViT-B_16.npz")], "from ViT-B_16"),
        ([("run.init", "timm:vit_tiny_patch16_224")], "from timm's vit_tiny_patch16_224"),
    ],
)
def test_a_label_says_what_a_reader_must_know_and_no_more(label, shown):
    assert labels.label_text(tuple(label)) == shown


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_factor_of_every_study_has_words(path):
    study = read_study(path)
    for cell in study.cells():
        for key in study.factors:
            assert is_known(key, cell.overrides[key]), f"{key} {cell.overrides[key]} has no words"
    for metric in (*study.config.metrics, study.config.select):
        assert "_" not in labels.metric_label(metric)


def test_every_word_that_a_flag_takes_has_words():
    """From the table of axes, or a line in report/labels.py."""
    assert [(key, word) for key, word in sorted(set(choices())) if not is_known(key, word)] == []


def test_a_key_or_value_without_words_is_seen():
    assert not is_known("model.pos_embed", "spiral")
    assert not is_known("model.flavour", "new")
    assert is_known("model.lr", 0.1)
