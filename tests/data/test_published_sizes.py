"""Data that know a published size alone count as real shards do, refuse the same options, and cannot be trained on."""

import re
from pathlib import Path

import pytest

from vitexp import cli
from vitexp.data.module import ShardData
from vitexp.data.shards import write
from vitexp.data.sources.published_sizes import SIZES, PublishedData, Size

ROOT = Path(__file__).parents[2]
COUNTS = ("train_count", "val_count", "test_count", "steps_per_epoch", "classes", "size")
WORDS = ["fit", "--model.arch=micro/4", "--trainer.max_epochs=1", "--run.wandb=off", "--data.shards=shards/cifar10"]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The real shards of a set, and its published size under another name."""
    monkeypatch.chdir(tmp_path)
    write.make("digits", tmp_path / "shards" / "digits")
    real = ShardData(shards="shards/digits", val_fraction=0.0)
    monkeypatch.setitem(SIZES, "known", Size(real.train_count, real.test_count, real.classes, real.size))


@pytest.mark.parametrize(
    "options",
    [{}, {"val_fraction": 0.15, "batch_size": 7}, {"train_images": 100}, {"train_fraction": 0.3, "image_size": 16}],
)
def test_counts_are_those_of_the_real_set(options, digits):
    real = ShardData(shards="shards/digits", **options)
    stand_in = PublishedData(shards="./shards/known/", **options)
    assert {name: getattr(stand_in, name) for name in COUNTS} == {name: getattr(real, name) for name in COUNTS}
    assert real.describe().keys() == stand_in.describe().keys()
    assert stand_in.describe()["shards_fingerprint"] == "published size of known"
    assert stand_in.opened.published.startswith("./shards/known/ is not here: costed from its published size (")


@pytest.mark.parametrize(
    "options",
    [{"val_fraction": 1.0}, {"train_images": 10**6}, {"train_images": 3}, {"train_fraction": 2.0}, {"image_size": 0}],
)
def test_what_the_real_set_refuses_is_refused(options, digits):
    with pytest.raises(ValueError, match=r"^data\.|^a training subset of 3 images") as real:
        ShardData(shards="shards/digits", **options).setup("fit")
    with pytest.raises(ValueError, match=f"^{re.escape(str(real.value))}$"):
        PublishedData(shards="shards/known", **options).setup("fit")


def test_the_size_of_pictures_must_be_given_where_they_have_none_in_common(digits):
    with pytest.raises(ValueError, match=r"imagenet are not all squares of one size; set data\.image_size"):
        PublishedData(shards="shards/imagenet").setup("fit")


def test_shards_that_are_there_are_used_and_a_size_alone_trains_nothing(digits):
    real = PublishedData(shards="shards/digits")
    assert not real.opened.published
    assert real.describe() == ShardData(shards="shards/digits").describe()
    with pytest.raises(ValueError, match="there are no images to train on or to measure"):
        PublishedData(shards="shards/known").train_dataloader()


def test_an_estimate_skips_the_check_of_shots_and_changes_no_later_plan(digits):
    words = [*WORDS, "--run.shots=[5]", "--data.train_images=20"]
    assert cli.estimate(words)["images_seen"] == 20
    with pytest.raises(ValueError, match="there is no directory shards/cifar10"):
        cli.plan(words)
    here = [*WORDS, "--data.shards=shards/digits"]
    assert cli.estimate(here) == cli.plan(here) | {"published": ""}


@pytest.fixture
def without_data(tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SIZED = "is not here: costed from its published size"


@pytest.mark.parametrize(
    ("stem", "known"),
    [
        ("attention_paper", f"jft300m {SIZED} (303,000,000 training images, 18,291 classes)"),
        ("finetune_paper", f"cifar100 {SIZED} (50,000 training images, 100 classes)"),
    ],
)
def test_without_the_data_quick_lint_costs_a_study_by_published_sizes(stem, known, without_data, capsys):
    path = ROOT / "sweeps" / f"{stem}.yaml"
    assert cli.main(["sweep", "lint", "--quick", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"note: shards/{known}"
    total = re.search(r"^all together: .* steps, (\S+) TFLOP$", "\n".join(lines), re.M)
    said = re.search(r"^# Cost: ([\d,.]+\d) exaFLOP", path.read_text(), re.M)
    assert float(total[1]) / 1e6 == pytest.approx(float(said[1].replace(",", "")), rel=0.02)
    assert [one.name for one in without_data.iterdir()] == ["experiments"], "nothing is written"


def test_without_the_data_everything_but_quick_lint_says_what_to_make(without_data, capsys):
    for verb in (["sweep", "lint"], ["sweep"]):
        assert cli.main([*verb, str(ROOT / "sweeps" / "attention_paper.yaml")]) == cli.BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert "there is no directory shards/jft300m; make one with `vitexp shards make SOURCE shards/jft300m`" in line
    for estimate, told in (
        (True, "the costs are known only of sets named imagenet, imagenet21k,"),
        (False, "make one"),
    ):
        words = ["fit", "--config", "experiments/pretrain_jft_paper.yaml", "--data.shards=shards/other"]
        with pytest.raises(ValueError, match=f"there is no directory shards/other.*{told}"):
            (cli.estimate if estimate else cli.plan)(words)
