"""What cannot be measured after the last step is refused before the first, by `fit` and by the plan of a study."""

import re
from pathlib import Path

import pytest

from vitexp import cli

TINY = ["--model.arch=micro/4", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--run.wandb=off"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--data.train_images=30", "--run.shots=[1,5]"],
            "run.shots asks for 5 images of each class, but class 0 has 3 of the 30 training images; "
            "give --run.shots [1], more images, or --run.fewer_shots true",
        ),
        (["--run.shots=[0]"], "run.shots is [0]; give different numbers of images a class, each at least 1"),
        (["--run.shots=[5,5]"], "run.shots is [5, 5]; give different numbers"),
        (["--run.shot_seeds=0"], "run.shot_seeds is 0; at least 1 draw is needed"),
        (["--run.checkpoint_steps=-1"], "run.checkpoint_steps is -1; give 0 or more steps"),
        (["--run.checkpoint_minutes=0"], "run.checkpoint_minutes is 0.0; give more than 0"),
        (["--run.checkpoint_minutes=.inf"], "run.checkpoint_minutes is inf; give more than 0"),
        (["--study.name=../../x"], "study.name is '../../x', which is no directory name"),
        (["--study.name=a\x1b[31m"], "study.name is 'a\\x1b[31m', which is no directory name"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_step(door, digits, capsys, words, told):
    words = [*TINY, *words]
    with pytest.raises(ValueError, match=re.escape(told)):
        cli.plan(["fit", f"--data.shards={digits}", *words])
    assert door("fit", *words) == cli.BAD_INPUT
    assert told in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_what_can_be_measured_is_planned(digits):
    words = ["--data.train_images=30", "--run.shots=[3]"]
    assert cli.plan(["fit", f"--data.shards={digits}", *TINY, *words])["steps"] == 1
    assert cli.plan(["fit", f"--data.shards={digits}", *TINY, "--data.train_images=10", "--run.shots=[]"])["steps"] == 1
