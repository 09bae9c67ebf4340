"""An optimizer and a loss of the user's own by import path: against plain torch, and every way of being wrong."""

from pathlib import Path

import pytest
import torch

from vitexp import cli
from vitexp.record import read_record
from vitexp.tools.network import open_network
from vitexp.train.config import ClassifyConfig
from vitexp.train.losses import image_losses
from vitexp.train.module import Classifier
from vitexp.train.optim import build_optimizer

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=20", "--trainer.max_epochs=1"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
MINE = ["--model.optimizer=ideas:SignSgd", "--model.loss=ideas:Focal"]

pytestmark = pytest.mark.usefixtures("ideas")


def config(**options):
    small = {"arch": "micro/4", "image_size": 8, "classes": 3}
    return Classifier(**small | options).config


def test_the_record_says_what_trained_and_a_network_is_read_without_it(door, ideas, capsys, forget):
    options = ["--model.options.optimizer.momentum=0.5", "--model.options.loss.gamma=1"]
    assert door("fit", *TINY, *MINE, *options, "--run.dir=run") == 0
    record = read_record("run")
    assert record.config["model"]["options"] == {"optimizer": {"momentum": 0.5}, "loss": {"gamma": 1.0}}
    assert {key: part["label"] for key, part in record.parts.items()} == {
        "model.optimizer": "signSGD",
        "model.loss": "focal loss",
    }
    assert record.parts["model.loss"]["source"] == record.config["model"]["sources"]["loss"]
    ideas.unlink()
    forget()
    assert open_network("run/checkpoints/last.ckpt").network.head.weight.abs().sum() > 0
    with pytest.raises(ValueError, match=r"needs optimizer ideas:SignSgd, the file ideas.py"):
        Classifier.load_from_checkpoint("run/checkpoints/last.ckpt")


def test_it_gets_groups_rates_and_options(ideas):
    asked = config(optimizer="ideas:SignSgd", layer_decay=0.5, lr=0.1, options={"optimizer": {"momentum": 0.5}})
    names = ["network.head.weight", "network.blocks.3.mlp.fc1.weight"]
    found = build_optimizer(asked, [(name, torch.nn.Parameter(torch.ones(2, 2))) for name in names])
    assert type(found).__name__ == "SignSgd"
    assert [group["lr"] for group in found.param_groups] == [0.1, 0.05]
    assert {group["momentum"] for group in found.param_groups} == {0.5}


def test_a_loss_is_the_one_written_also_as_a_function_and_mixed(ideas, forget):
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    sure = logits.softmax(-1)[range(5), labels]
    expected = -((1 - sure) ** 2) * sure.log()
    torch.testing.assert_close(image_losses(logits, labels, config(loss="ideas:Focal")), expected)
    power = "def power(logits, labels, to: int = 2):\n    return (-logits[range(len(labels)), labels]) ** to\n"
    ideas.write_text(power)
    forget()
    cubed = config(loss="ideas:power", options={"loss": {"to": 3}})
    torch.testing.assert_close(image_losses(logits, labels, cubed), -(logits[range(5), labels] ** 3))


def test_what_stands_there_by_default_is_what_stood_there_before():
    assert config().options == config().sources == {}
    assert (ClassifyConfig.optimizer, ClassifyConfig.loss) == ("adamw", "softmax")


LOSS = "import torch\nimport torch.nn.functional as F\ndef part(logits, labels): "
STEP = (
    "import torch\nclass part(torch.optim.Optimizer):\n    def __init__(self, params, lr):\n"
    "        super().__init__({}, {{'lr': lr}})\n    def step(self, closure=lambda: None):\n        {}\n"
)
UNRATED = STEP.replace("params, lr)", "params, rate=1)").replace("lr}}", "rate}}")
WRONG = [
    ("loss", LOSS + "return logits * labels[:, None]", r"loss ideas:part gives shape \(4, 10\) and must give shape"),
    ("loss", LOSS + "return F.cross_entropy(logits, labels)", r"gives shape \(\) and must give shape \(4,\)"),
    ("loss", LOSS + "return logits.sum(1) - logits.mean()", "of an image depends on the images beside it"),
    ("loss", LOSS + "return logits.sum(1) * 0", "does not change with the logits"),
    ("loss", LOSS + "return (logits.sum(1) - 99).log()", "is not finite"),
    ("loss", LOSS + "return nothing", "fails: NameError"),
    ("loss", LOSS + "return logits.sum(1) + torch.rand(1)", "of the same images is another when asked again"),
    ("loss", "part = 3", "has part of type int, which is no class or function"),
    ("loss", "class part:\n    def forward(self, a, b): pass", "has no method __call__: write __call__"),
    ("loss", "class part:\n    label = 'Softmax'\n    def __call__(self, a, b): pass", "'Softmax' like the built-in"),
    ("optimizer", "class part: pass", r"has no method step: derive the class from torch.optim.optimizer.Optimizer"),
    ("optimizer", STEP.format("params", "pass"), "calls the closure of step.. 0 times"),
    ("optimizer", STEP.replace("=lambda: None", "=None").format("params", "closure(); closure()"),
     "calls the closure of step.. 2 times, and must call it once"),
    ("optimizer", STEP.format("params", "closure()"), "leaves weights as they are in 8 steps"),
    ("optimizer", STEP.format("params", "closure(); self.param_groups[0]['params'][0].data *= 1e39"), "no finite numb"),
    ("optimizer", STEP.format("[one for group in params for one in group['params']]", "closure()"), "keep the groups"),
    ("optimizer", UNRATED.format("params", "closure()"), "constructor takes no lr"),
    ("optimizer", STEP.replace("=lambda: None", "").format("params", "closure()"), "fails: TypeError: .*'closure'"),
    ("optimizer", STEP.format("params", "return 1 / 0"), "fails: ZeroDivisionError"),
]  # fmt: skip


@pytest.mark.parametrize(("axis", "source", "said"), WRONG)
def test_a_part_that_cannot_be_is_refused_in_one_sentence_before_training(door, ideas, capsys, axis, source, said):
    ideas.write_text(source)
    assert door("fit", *TINY, f"--model.{axis}=ideas:part") == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=said):  # as a pattern
        raise AssertionError(error)
    assert not list(Path("runs").rglob("record.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([MINE[0], "--model.weight_decay=0.1"], "model.weight_decay 0.1 has no effect with optimizer ideas:SignSgd"),
        ([MINE[0], "--model.betas=[0.9,0.9]"], "model.betas has no effect with model.optimizer ideas:SignSgd"),
        ([MINE[0], "--model.options.optimizer.lr=1"], "optimizer.lr is no option of ideas:SignSgd, which has only mom"),
        ([MINE[1], "--model.label_smoothing=0.1"], "model.label_smoothing 0.1 has no effect with model.loss ideas:Foc"),
        (["--model.options.loss.gamma=1"], "model.options.loss has no effect with loss softmax"),
        ([MINE[1], "--model.options.loss.gamma=hard"], "model.options.loss.gamma is 'hard', which is not a number"),
    ],
)
def test_options_without_effect_are_refused(door, capsys, words, said):
    assert door("fit", *TINY, *words) == cli.BAD_INPUT
    assert said in capsys.readouterr().err
