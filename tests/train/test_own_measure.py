"""An evaluator and an augmentation of the user's own by import path: their numbers, and every way of being wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional import calibration_error

from vitexp import cli, metrics
from vitexp.data.module import ShardData
from vitexp.record import read_record, read_records
from vitexp.tools.network import open_network

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=20", "--trainer.max_epochs=1"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
MEASURED = ["--run.evaluators=[ideas:Ece]", "--run.options.Ece.bins=10"]

pytestmark = pytest.mark.usefixtures("ideas")


def test_an_evaluator_measures_all_test_images_and_the_record_says_what(door, digits, capsys, forget):
    assert door("fit", *TINY, *MEASURED, "--run.dir=run") == 0
    record, data = read_record("run"), ShardData(shards=str(digits))
    network = open_network("run/checkpoints/last.ckpt").network
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.eval_loader("test")]
    with torch.no_grad():
        logits, labels = (
            torch.cat(rows) for rows in zip(*((network(b.images), b.labels) for b in batches), strict=True)
        )
    known = calibration_error(logits.softmax(-1), labels, "multiclass", n_bins=10, num_classes=10)
    assert record.metrics["test_ece"] == pytest.approx(float(known), abs=1e-6)
    assert record.parts["run.evaluators.Ece"]["metrics"] == {
        "ece": {"label": "calibration error", "better": "lower", "unit": "share"}
    }
    assert record.config["run"]["sources"] == {"Ece": record.parts["run.evaluators.Ece"]["source"]}
    assert metrics.better("test_ece") == "lower"
    forget()
    assert metrics.find("test_ece") is None
    read_record("run")
    assert (metrics.label("test_ece"), metrics.is_share("test_ece")) == ("calibration error", True)
    assert "ideas" not in sys.modules
    capsys.readouterr()
    assert door("test", *TINY, *MEASURED, "--run.dir=run") == 0
    assert f"calibration error {100 * float(known):.2f} %" in capsys.readouterr().out


DRAWS = """
import random
import numpy
import torch
class Ece:
    better = None
    def __init__(self):
        self.seen = 0
    def measure(self, logits, labels):
        assert len(labels.unique()) == 10, "as scikit-learn's AUC needs it"
        self.seen += len(labels)
        return self.seen + numpy.random.rand() + random.random() + torch.rand(()).item()
"""


def test_what_an_evaluator_draws_and_keeps_is_the_same_each_time_and_nothing_of_the_images_it_was_tried_on(door, ideas):
    ideas.write_text(DRAWS)
    for run in "ab":
        assert door("fit", *TINY, MEASURED[0], f"--run.dir={run}") == 0
    here, again = (read_record(run).metrics["test_ece"] for run in "ab")
    assert here == again
    assert 359 < here < 362  # the test images of digits, and three draws


def test_runs_without_them_keep_their_fingerprint():
    before = {"model": {"arch": "micro/4"}, "data": {"batch_size": 8}, "run": {"test": True}, "seed_everything": 0}
    more = {"data": {"options": {}, "sources": {}}, "run": {"options": {}, "sources": {}, "evaluators": []}}
    after = {name: of | more.get(name, {}) if isinstance(of, dict) else of for name, of in before.items()}
    from vitexp.record import fingerprint

    assert fingerprint(after) == fingerprint(before)


def test_each_edit_and_option_of_them_is_another_run(digits, ideas, forget):
    start = ["fit", f"--data.shards={digits}", *TINY, *MEASURED, "--data.auto_augment=ideas:Speckle"]
    found = [cli.plan([*start, f"--data.options.auto_augment.share={share}"])["fingerprint"] for share in (0.1, 0.2)]
    found.append(cli.plan([*start[:-2], "--run.options.Ece.bins=5", start[-1]])["fingerprint"])
    assert cli.plan(start)["fingerprint"] == found[0], "0.1 is the default"
    ideas.write_text(EXAMPLE + "\n")
    forget()
    found.append(cli.plan(start)["fingerprint"])
    assert len(set(found)) == 4


def epoch(digits, workers, size=16, **options):
    data = ShardData(shards=str(digits), train_images=60, batch_size=size, workers=workers, augment="flip", **options)
    loader = data.train_dataloader()
    found = {int(s): image.numpy() for batch in loader for s, image in zip(batch.samples, batch.images, strict=True)}
    loader.close()
    return found


def test_an_image_is_augmented_alike_in_any_batch_and_worker_and_as_written(digits):
    how = {"auto_augment": "ideas:Speckle", "options": {"auto_augment": {"share": 0.5}}}
    here, there, plain = epoch(digits, 0, **how), epoch(digits, 2, size=7, **how), epoch(digits, 0)
    assert here.keys() == there.keys() == plain.keys()
    assert all(np.array_equal(here[sample], there[sample]) for sample in here)
    grey = np.mean([(here[sample] != plain[sample]).any(-1 if here[sample].shape[-1] == 3 else 0) for sample in here])
    assert 0.4 < grey < 0.6
    assert len({image.tobytes() for image in here.values()}) == len(here)


SPECK = "class Speckle:\n    def __init__(self): self.seen = 0\n    def __call__(self, image, generator):\n        "
ECE = "class Ece:\n    better = 'lower'\n    def measure(self, logits, labels):\n        "
WRONG = [
    ("augment", SPECK + "return image[1:]", r"gives uint8 \(7, 8, 3\) and must give uint8 \(8, 8, 3\)"),
    ("augment", SPECK + "return image / 255", r"gives float64 \(8, 8, 3\) and must give uint8"),
    ("augment", SPECK + "pass", "gives a NoneType and must give uint8"),
    ("augment", SPECK + "self.seen += 1; return image + self.seen", r"gives float|when other images come before it"),
    ("augment", SPECK + "return 1 / 0", "auto_augment ideas:Speckle fails: ZeroDivisionError"),
    ("augment", "class Speckle: pass", "has no method __call__"),
    ("augment", "class Ece: pass", "has no class Speckle"),
    ("measure", ECE + "return logits", r"gives shape \(20, 10\) as ece, and must give a number"),
    ("measure", ECE + "import time; return time.perf_counter_ns()", "gives another test_ece when it is asked again"),
    ("measure", ECE + "return {'mce': 1.0}", "gives mce, and declares ece as better"),
    ("measure", ECE + "return 'low'", "must give a number"),
    ("measure", ECE + "return 1 / 0", "evaluators ideas:Ece fails: ZeroDivisionError"),
    ("measure", ECE.replace("'lower'", "'less'") + "return 1", "must say which direction of ece is better, and says"),
    ("measure", ECE.replace("'lower'", "{'loss': 'lower'}") + "return 1", "gives 'loss', which is taken"),
    ("measure", ECE.replace("better", "unit") + "return 1", "must say which direction|has unit"),
    ("measure", "class Ece: pass", "has no method measure: write measure"),
]
GIVEN = {"augment": ["--data.auto_augment=ideas:Speckle"], "measure": ["--run.evaluators=[ideas:Ece]"]}


@pytest.mark.parametrize(("what", "source", "said"), WRONG)
def test_a_part_that_cannot_be_is_refused_in_one_sentence_before_training(door, ideas, capsys, what, source, said):
    ideas.write_text(source)
    assert door("fit", *TINY, *GIVEN[what]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=said):  # as a pattern
        raise AssertionError(error)
    assert not list(Path("runs").rglob("record.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*MEASURED, "--run.test=false"], "run.evaluators has no effect with run.test false"),
        ([MEASURED[1]], "run.options.Ece has no effect: it is for a part of your own"),
        ([MEASURED[0], "--run.options.Ece.bin=3"], "run.options.Ece.bin is no option of ideas:Ece, which has only bin"),
        (["--run.evaluators=[ece]"], "run.evaluators has 'ece'; give a list of classes of your own"),
        (["--run.evaluators=[ideas:Ece,ideas:Ece]"], "give classes of different names, each once"),
        (["--data.options.auto_augment.share=1"], "data.options.auto_augment has no effect with auto_augment none"),
        (["--data.auto_augment=nowhere:Speckle"], "there is no nowhere.py in"),
    ],
)
def test_options_without_effect_are_refused(door, capsys, words, said):
    assert door("fit", *TINY, *words) == cli.BAD_INPUT
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [MEASURED[:1], ["--data.auto_augment=ideas:Speckle"]])
def test_what_a_server_sends_imports_nothing(door, ideas, monkeypatch, capsys, words):
    ideas.write_text("open('imported', 'w').close()\n" + EXAMPLE)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert door("fit", *TINY, *words) == cli.BAD_INPUT
    assert "give --allow-import if you trust it" in capsys.readouterr().err
    assert not Path("imported").exists()


SWEEP = """
program: vitexp
method: grid
parameters:
  study.name: {{value: mine}}
  study.baseline: {{value: {{model.pos_embed: 1d, model.optimizer: adamw, data.auto_augment: none}}}}
  study.metrics: {{value: [test_acc, test_ece]}}
  data.shards: {{value: {digits}}}
  data.train_images: {{value: 100}}
  data.batch_size: {{value: 20}}
  model.arch: {{value: micro/4}}
  trainer.max_epochs: {{value: 3}}
  trainer.enable_progress_bar: {{value: false}}
  run.shots: {{value: []}}
  run.evaluators: {{value: ['ideas:Ece']}}
  run.options.Ece.bins: {{value: 10}}
  arm:
    values:
    - {{model.pos_embed: 1d, model.optimizer: adamw, data.auto_augment: none}}
    - {{model.pos_embed: 'ideas:Alibi2D', model.options.pos_embed.slope: 2, model.optimizer: adamw,
       data.auto_augment: none}}
    - {{model.pos_embed: 1d, model.optimizer: 'ideas:SignSgd', model.options.optimizer.momentum: 0.5,
       data.auto_augment: none}}
    - {{model.pos_embed: 1d, model.optimizer: adamw, data.auto_augment: 'ideas:Speckle',
       data.options.auto_augment.share: 0.2}}
  seed_everything: {{values: [0, 1, 2]}}
command: ["${{env}}", "vitexp", "fit", "--config", "${{args_json_file}}"]
"""


def test_options_and_sources_of_own_parts_belong_to_the_factor_of_their_axis_in_lint_too(digits, capsys, forget):
    Path("sweep.yaml").write_text(SWEEP.format(digits=digits))
    assert cli.main(["sweep", "lint", "sweep.yaml"]) == 0
    assert "12 cells parse; 0 errors" in capsys.readouterr().out


@pytest.mark.slow
def test_own_parts_go_from_a_file_to_a_table_with_error_bars(digits, capsys, forget):
    Path("sweep.yaml").write_text(SWEEP.format(digits=digits))
    assert cli.main(["sweep", "sweep.yaml", "--workers=1"]) == 0
    records, damaged = read_records("runs")
    assert [record.status for record in records] == ["finished"] * 12
    assert not damaged
    Path("ideas.py").unlink()
    forget()
    capsys.readouterr()
    assert cli.main(["table", "sweep.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "not compared" not in shown
    for words in ("2-D ALiBi", "signSGD", "Speckle", "Calibration error", "±"):
        assert words in shown
    assert "ideas" not in sys.modules
    rows = Path("results/mine/table.csv").read_text()
    assert "test_ece" in rows
