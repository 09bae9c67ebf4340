"""What is wired to what: which split each number comes from, and whether each option reaches the run."""

import inspect
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from vitexp import axes, cli
from vitexp.data.augmentation import Augmentation
from vitexp.data.module import ShardData
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.record import read_record
from vitexp.train.answers import read_features
from vitexp.train.command import TrainingCommand
from vitexp.train.config import ClassifyConfig, RunConfig
from vitexp.train.module import Classifier

TINY = [
    "--model.arch=micro/4", "--model.lr=0.003", "--data.batch_size=8", "--trainer.max_epochs=3", "--run.shots=[2]",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.wandb=off",
]  # fmt: skip
WEIGHTS = "weights"


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Fits on shards; gives every number of the record, each curve and the weights by name."""
    monkeypatch.chdir(tmp_path)

    def run(shards, *words):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        status = cli.main(["fit", *TINY, f"--data.shards={shards}", f"--run.dir={folder}", *words])
        assert status == 0
        record = read_record(folder)
        curves = {f"curve of {name}": points for name, points in record.curves.items()}
        return record.metrics | curves | weights(folder / "checkpoints" / "last.ckpt")

    return run


def weights(path):
    if not path.is_file():
        return {}
    state = torch.load(path, weights_only=True)["state_dict"]
    return {WEIGHTS: {name: value.tolist() for name, value in state.items()}}


def changed(one, other):
    """The names of what differs between two outcomes."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


VAL = {"val_acc", "val_loss", "curve of val_acc", "curve of val_loss"}
TEST = {"test_acc", "test_loss", "fewshot_2"}


def test_each_number_comes_from_its_own_split(outcome, colours):
    """Wrong labels in one split change what is measured on that split, and nothing else."""
    right = outcome(colours())
    assert min(right["val_acc"], right["test_acc"], right["fewshot_2"]) > 0.9
    assert changed(right, outcome(colours("test"))) == TEST
    assert changed(right, outcome(colours("val"))) == VAL
    assert changed(right, outcome(colours("train"))) == {*VAL, *TEST, "curve of train_loss", WEIGHTS}


def test_the_verbs_measure_their_own_split(outcome, colours, tmp_path):
    """Also from a checkpoint that is given, on shards whose other split is mislabelled."""
    right = outcome(colours())
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    for verb, wrong, name in (("validate", "test", "val_acc"), ("test", "val", "test_acc")):
        words = [verb, *TINY, f"--data.shards={colours(wrong)}", f"--ckpt_path={checkpoint}", f"--run.dir={tmp_path}"]
        measured = TrainingCommand(words, cli.groups()).trainer.callback_metrics
        assert {key: float(value) for key, value in measured.items()} == pytest.approx(
            {key: right[key] for key in (name, name.replace("acc", "loss"))}
        )


def test_fewshot_draws_from_train_and_measures_on_test(outcome, colours, tmp_path, capsys):
    outcome(colours())
    checkpoint = next(tmp_path.rglob("last.ckpt"))

    def accuracy(wrong):
        assert cli.main(["fewshot", str(checkpoint), f"--data={colours(wrong)}", "--shots=2", "--csv=shots.csv"]) == 0
        draws = Path("shots.csv").read_text().splitlines()[1:]
        return [float(draw.split(",")[-1]) for draw in draws]

    assert accuracy(None) == accuracy("val") == [1.0] * 3
    assert accuracy("test") == [0.0] * 3
    assert 0.0 < sum(accuracy("train")) < 3.0


def test_gradients_and_dropout_are_for_training_alone(outcome, colours, monkeypatch):
    """Every image that goes through the network, in whichever mode, over training, measuring and probing; and each
    step of training draws a dropout of its own."""
    seen, draws, encode = Counter(), [], ViT.encode

    def watched(network, images):
        seen[network.training, torch.is_grad_enabled()] += len(images)
        draws.extend([torch.rand(1).item()] * network.training)
        return encode(network, images)

    monkeypatch.setattr(ViT, "encode", watched)
    outcome(colours(), "--model.dropout=0.1")
    assert seen.keys() == {(True, True), (False, False)}
    assert seen[True, True] == 3 * 24
    assert len(set(draws)) == len(draws) == 9


def test_each_seed_draws_its_own(colours):
    """The seed of the run draws order, augmentation and mixtures; `subset_seed` draws which images there are."""

    def drawn(**seeds):
        options = {"train_images": 12, "batch_size": 12, "augment": "crop_flip", "mix": "mixup"} | seeds
        (batch,) = ShardData(shards=str(colours()), **options).train_dataloader()
        order, pairs = batch.samples.tolist(), batch.recipe.share.tolist()
        return order, dict(zip(order, batch.images.tolist(), strict=True)), dict(zip(order, pairs, strict=True))

    order, images, shares = drawn()
    assert drawn() == (order, images, shares)
    other_order, other_images, other_shares = drawn(seed=1)
    assert sorted(order) == sorted(other_order)
    assert order != other_order
    assert sum(images[sample] != other_images[sample] for sample in order) > 6
    assert all(shares[sample] != other_shares[sample] for sample in order)
    subset, same_images, _ = drawn(subset_seed=1)
    assert set(subset) != set(order)
    assert all(same_images[sample] == images[sample] for sample in set(subset) & set(order))


def test_features_come_in_the_order_of_the_samples_with_their_labels(colours, monkeypatch):
    """Also where the batches come in another, as from several ranks."""
    data = ShardData(shards=str(colours()), batch_size=4)
    network = Classifier(arch="micro/4", image_size=8, classes=3).network.eval()
    features, labels = read_features(network, data, "train", "cpu")
    loader = data.eval_loader
    monkeypatch.setattr(data, "eval_loader", lambda *asked: reversed(list(loader(*asked))))
    again = read_features(network, data, "train", "cpu")
    assert torch.equal(again[1], labels)
    torch.testing.assert_close(again[0], features)


def test_a_run_takes_what_its_plan_says(colours, tmp_path):
    words = ["fit", *TINY, f"--data.shards={colours()}", f"--run.dir={tmp_path}", "--data.train_images=13"]
    plan = cli.plan(words)
    assert cli.main(words) == 0
    record = read_record(tmp_path)
    for fact in ("fingerprint", "cell", "seed", "study", "parameters", "steps", "images_seen", "train_flops"):
        assert getattr(record, fact) == plan[fact], fact
    assert (record.steps, record.images_seen, record.epochs) == (6, 39, 3)
    counts = {name: record.data[name] for name in ("train_images", "val_images", "test_images")}
    assert counts == {"train_images": 13, "val_images": 12, "test_images": 15}


def test_a_finished_run_is_not_taken_for_one_that_was_measured_on_other_images(colours, tmp_path, capsys):
    """Its folder and its fingerprint are the same: that one is about training."""
    words = ["fit", *TINY, f"--run.dir={tmp_path}"]
    plans = {wrong: cli.plan([*words, f"--data.shards={colours(wrong)}"]) for wrong in (None, "train", "val", "test")}
    assert len({plan["fingerprint"] for plan in plans.values()}) == 2
    assert cli.main([*words, f"--data.shards={colours()}"]) == 0
    kept = (tmp_path / "record.json").read_bytes()
    for wrong in ("val", "test"):
        assert plans[wrong]["measured_on"] != plans[None]["measured_on"]
        assert cli.main([*words, f"--data.shards={colours(wrong)}"]) == cli.BAD_INPUT
        assert f"holds this run with other {wrong} images or labels" in capsys.readouterr().err
    assert (tmp_path / "record.json").read_bytes() == kept
    assert cli.main([*words, f"--data.shards={colours()}"]) == 0
    assert "Finished already" in capsys.readouterr().out


TRAINING = {
    "model.optimizer": "sgd",
    "model.lr": "0.01",
    "model.weight_decay": "0.5",
    "model.decay": "kernels",
    "model.betas": "[0.5,0.9]",
    "model.eps": "0.01",
    "model.layer_decay": "0.5",
    "model.warmup_epochs": "1",
    "model.min_lr": "0.002",
    "model.schedule": "constant",
    "model.warmup_steps": "2",
    "model.clip_norm": "0.01",
    "model.polyak": "0.9",
    "model.dropout": "0.3",
    "model.objective": "masked_pixels",
    "model.masked_share": "0.25",
    "model.loss": "sigmoid",
    "model.label_smoothing": "0.1",
    "model.arch": "micro/2",
    "data.batch_size": "12",
    "data.image_size": "4",
    "data.train_images": "12",
    "data.train_fraction": "0.5",
    "data.val_fraction": "0.5",
    "data.augment": "flip",
    "data.mix": "mixup",
    "data.crop_scale": "[0.3,0.4]",
    "data.crop_ratio": "[2,3]",
    "data.crop_padding": "3",
    "data.auto_augment": "rand-m9-n2",
    "data.color_jitter": "0.5",
    "data.random_erasing": "0.5",
    "data.repeats": "3",
    "data.mixup_alpha": "0.1",
    "data.cutmix_alpha": "0.1",
    "data.mix_prob": "0.5",
    "data.switch_prob": "0.1",
    "data.eval_view": "crop",
    "data.subset_seed": "1",
    "data.val_seed": "1",
    "seed_everything": "1",
    "run.init": "CHECKPOINT",
}
"""Options that change the loss on the test images, with a value to try."""

BESIDE = {
    "model.decay": ["--model.weight_decay=0.5"],
    "model.masked_share": ["--model.objective=masked_pixels"],
    "data.subset_seed": ["--data.train_images=12"],
    "data.crop_scale": ["--data.augment=inception"],
    "data.crop_ratio": ["--data.augment=inception"],
    "data.crop_padding": ["--data.augment=crop"],
    "data.repeats": ["--data.augment=crop"],
    "data.mixup_alpha": ["--data.mix=mixup"],
    "data.cutmix_alpha": ["--data.mix=cutmix"],
    "data.mix_prob": ["--data.mix=mixup"],
    "data.switch_prob": ["--data.mix=mixup_cutmix"],
}
"""What an option needs beside it to have an effect."""

NEUTRAL = {
    "data.workers": "1",
    "data.reader": "local",
    "run.root": "elsewhere",
    "run.project": "another",
    "run.checkpoint_steps": "2",
    "run.checkpoint_minutes": "1",
    "run.download": "true",
}
"""Options that change nothing that is measured."""

MEASURING = {"run.test": "false", "run.shots": "[1]", "run.keep": "best", "run.checkpoint": "false"}
ELSEWHERE = {
    "data.shards": "the tests above",
    "data.seed": "follows seed_everything; train/test_start.py",
    "run.dir": "every test here",
    "run.wandb": "train/test_loggers.py",
    "run.shot_seeds": "below",
    "run.fewer_shots": "train/test_measure.py",
    "run.compile": "train/test_compute.py",
    "run.matmul_precision": "train/test_compute.py",
    "run.threads": "train/test_compute.py",
    **dict.fromkeys(("run.evaluators", "run.options", "run.sources"), "train/test_own_measure.py"),
    **dict.fromkeys(("data.options", "data.sources"), "train/test_own_measure.py"),
}
NETWORK = {field.name for field in fields(ViTConfig)}
QUICK = ["--run.shots=[]", "--run.checkpoint=false", "--trainer.max_epochs=2"]


def test_every_option_is_tried():
    """A new option must be placed: in a table here, or in `test_every_axis_reaches_the_network`."""
    options = [f"model.{field.name}" for field in fields(ClassifyConfig) if field.name not in NETWORK]
    arguments = inspect.signature(ShardData.__init__).parameters.keys() - {"self", "augmentation"}
    options += [f"data.{name}" for name in [*arguments, *(field.name for field in fields(Augmentation))]]
    options += [f"run.{field.name}" for field in fields(RunConfig)]
    tried = [*TRAINING, *NEUTRAL, *MEASURING, *ELSEWHERE]
    assert sorted(tried) == sorted({*options, "seed_everything", "model.arch", "model.dropout"})


@pytest.fixture(scope="module")
def known():
    """What runs without an option gave, so that each is trained once."""
    return {}


@pytest.mark.parametrize("option", TRAINING)
def test_an_option_of_training_reaches_the_numbers(outcome, colours, known, option, tmp_path):
    shards = colours(splits=("train", "test")) if option in ("data.val_fraction", "data.val_seed") else colours()
    beside = tuple(BESIDE.get(option, ()))
    if (shards, beside) not in known:
        known[shards, beside] = outcome(shards, *QUICK, *beside)
    value = TRAINING[option]
    if value == "CHECKPOINT":
        outcome(shards, *QUICK, "--model.lr=0.02", "--run.checkpoint=true")
        value = next(tmp_path.rglob("last.ckpt"))
    different = changed(known[shards, beside], outcome(shards, *QUICK, *beside, f"--{option}={value}"))
    assert "test_loss" in different
    assert ("curve of train_loss" in different) == (option not in ("model.polyak", "data.eval_view"))


def test_options_of_measuring_change_their_own_numbers_and_neutral_ones_none(outcome, colours):
    """Few-shot accuracies differ with wrong labels in train, where the draws do."""
    shards = colours("train")
    plain = outcome(shards)
    assert changed(plain, outcome(shards, *(f"--{name}={value}" for name, value in NEUTRAL.items()))) == set()
    given = [f"--{name}={value}" for name, value in MEASURING.items()]
    shown = {"test_acc", "test_loss", "fewshot_1", "fewshot_2", "best_step", WEIGHTS}
    assert changed(plain, outcome(shards, *given)) >= shown
    assert changed(plain, outcome(shards, "--run.shot_seeds=1")) == {"fewshot_2"}


AXES = {
    "arch": {"arch": "micro/2"},
    "image_size": {"image_size": 12},
    "classes": {"classes": 4},
    "pos_at": {"pos_at": "every"},
    "pos_std": {"pos_std": 0.5},
    "stem": {"arch": "Ti/16", "image_size": 32, "stem": "resnet50"},
    "window": {"attention": "local", "window": 1},
    "head_bias": {"head_bias": -3.0},
    "dropout": {"dropout": 0.5},
    "registers": {"registers": 2},
    "qk_norm": {"qk_norm": True},
    "layer_scale": {"layer_scale": 0.1},
    "drop_path": {"drop_path": 0.5},
    "patch_dropout": {"patch_dropout": 0.5},
    "options": {"pos_embed": "my_ideas:Alibi2D", "options": {"pos_embed": {"slope": 2.0}}},
}
"""Choices of an axis, with what they need beside them; of the others every choice is tried."""


def choices_of(axis):
    others = [value for value in axes.words_of(axis.type) if value != axis.default]
    beside = {"relative2d": {"pool": "gap"}, "resnet": {"arch": "R14x0.5", "image_size": 32}}
    return (
        [AXES[axis.name]]
        if axis.name in AXES
        else [{axis.name: one} | beside.get(axis.name, beside.get(one, {})) for one in others]
    )


@pytest.mark.parametrize(
    "axis", [axis for axis in fields(ViTConfig) if axis.name != "sources"], ids=lambda axis: axis.name
)
def test_every_axis_reaches_the_network(axis, monkeypatch):
    """By its weights and by what it makes of an image, in training mode, with a head that is not zero."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")

    def made(**options):
        torch.manual_seed(0)
        network = Classifier(**{"arch": "micro/4", "image_size": 16, "classes": 3} | options).network.train()
        torch.manual_seed(0)
        nn.init.normal_(network.head.weight)
        torch.manual_seed(0)
        size = network.config.image_size
        features = network(torch.linspace(-1, 1, 6 * size * size).view(2, 3, size, size).sin())
        return {name: value.shape for name, value in network.state_dict().items()}, features.tolist()

    assert choices_of(axis)
    for choice in choices_of(axis):
        without = {name: value for name, value in choice.items() if name != axis.name}
        assert made(**choice) != made(**without), choice
