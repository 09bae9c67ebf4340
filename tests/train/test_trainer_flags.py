"""Every option of the trainer is honoured, neutral, or refused before anything trains."""

from pathlib import Path

import pytest

from vitexp.cli import groups
from vitexp.neutral import NEUTRAL, PARTS
from vitexp.record import read_record
from vitexp.train.command import TrainingCommand
from vitexp.train.module import Classifier
from vitexp.train.trainer_flags import HONOURED, REFUSED

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.enable_progress_bar=false", "--run.wandb=off"]
QUIET = ["--trainer.accelerator=cpu", "--run.dir=run", "--run.shots=[]", "--run.test=false"]


@pytest.fixture
def fit(door):
    return lambda *words: door("fit", *TINY, *QUIET, *words)


def test_every_option_of_the_parser_stands_in_one_class():
    """An option of a later release fails here until it is placed."""

    class Listed(TrainingCommand):
        def parse_arguments(self, parser, args):
            raise StopIteration(parser.flags())

    with pytest.raises(StopIteration) as stopped:
        Listed(["fit"], groups())
    flags = {flag.split(".")[1].removesuffix("+") for flag in stopped.value.value if flag.startswith("trainer.")}
    flags -= {"help"}
    neutral = {key.removeprefix("trainer.") for key in [*NEUTRAL, *PARTS] if key.startswith("trainer.")} - set(REFUSED)
    assert flags == set(HONOURED) | set(REFUSED) | neutral
    assert not set(HONOURED) & (set(REFUSED) | neutral)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.gradient_clip_val=0.5"], "model.clip_norm"),
        (["--trainer.gradient_clip_algorithm=value"], "model.clip_norm"),
        (["--trainer.overfit_batches=2"], "data.train_images"),
        (["--trainer.reload_dataloaders_every_n_epochs=1"], "order of the images"),
        (["--trainer.use_distributed_sampler=true"], "shared out"),
        (["--trainer.sync_batchnorm=true"], "statistics"),
        (["--trainer.barebones=true"], "leaves out"),
        (["--trainer.model_registry=mine"], "uploaded"),
        (["--trainer.accumulate_grad_batches=-1"], "accumulate_grad_batches is -1"),
        (["--trainer.max_epochs=0"], "untrained network"),
        (["--trainer.max_steps=0"], "untrained network"),
        (["--trainer.limit_train_batches=0"], "untrained network"),
        (["--trainer.min_epochs=3", "--trainer.max_epochs=2"], "min_epochs is 3, more than"),
        (["--trainer.min_steps=500"], "min_steps is 500, but the run has"),
        (["--trainer.limit_train_batches=1.5"], "limit_train_batches is 1.5"),
        (["--trainer.limit_val_batches=0.1"], "data.val_fraction 0"),
        (["--trainer.limit_val_batches=-1"], "limit_val_batches is -1"),
        (["--run.test=true", "--trainer.limit_test_batches=0.1"], "run.test false"),
        (["--seed_everything=true"], "--seed_everything"),
        (["--seed_everything=false"], "--seed_everything"),
        (["--seed_everything=-1"], "--seed_everything"),
        (["--trainer.callbacks+=LearningRateFinder"], "model.lr"),
        (["--trainer.callbacks+=BatchSizeFinder"], "data.batch_size"),
        (["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 2}"], "accumulate"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/acc"],
            "train_loss, val_acc, val_loss",
        ),
    ],
)
def test_what_is_refused_says_what_to_use_instead_before_anything_is_written(fit, capsys, words, said):
    assert fit("--trainer.max_epochs=1", *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vitexp:")]
    assert line.startswith("vitexp: ")
    assert said in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "steps", "images"),
    [
        (["--trainer.limit_train_batches=0.5"], 6, 1200),
        (["--trainer.limit_train_batches=5", "--trainer.accumulate_grad_batches=2"], 6, 2000),
        (["--trainer.accumulate_grad_batches=3", "--trainer.limit_val_batches=1.0"], 6, 2 * 1294),
    ],
)
def test_the_schedule_and_the_record_follow_the_length(fit, monkeypatch, words, steps, images):
    planned = []
    asked = Classifier.total_steps
    monkeypatch.setattr(Classifier, "total_steps", lambda module: planned.append(asked(module)) or planned[-1])
    assert fit("--trainer.max_epochs=2", *words) == 0
    record = read_record("run")
    assert planned == [steps]
    assert (record.status, record.steps, record.planned_steps, record.images_seen) == ("finished", steps, steps, images)
