import subprocess
import sys

import pytest

from vitexp import metrics
from vitexp.axes import calls_in

KNOWN = "known are val_acc, val_loss, .*test_acc, test_loss, .*fewshot_N"


@pytest.mark.parametrize(
    ("name", "unit", "better", "label"),
    [
        ("test_acc", "share", "higher", "top-1 accuracy"),
        ("val_acc", "share", "higher", "top-1 accuracy on the validation slice"),
        ("limited_val_acc", "share", "higher", "top-1 accuracy on the validation slice, over a part of its images"),
        ("test_loss", "nats", "lower", "loss on the test split"),
        ("train_loss", "nats", "lower", "loss in training"),
        ("val_colour_acc", "share", "higher", "colours of masked patches that were right on the validation slice"),
        ("fewshot_5", "share", "higher", "5-shot linear accuracy"),
        ("fewshot_5_images", "images", None, "images that a 5-shot probe was fitted on"),
        ("limited_test_images", "images", None, "images measured, over a part of its images"),
        ("best_step", "steps", None, "step of the best validation"),
    ],
)
def test_a_name_in_a_record_is_derived_from_its_parts(name, unit, better, label):
    row = metrics.find(name)
    assert (row.unit, row.better, metrics.label(name)) == (unit, better, label)
    assert metrics.is_accuracy(name) == (unit == "share")


@pytest.mark.parametrize("name", ["test_f1", "acc", "train_acc", "test_error", "fewshot_0", "val_", "x_acc"])
def test_an_unknown_metric_has_no_direction_and_is_its_own_label(name):
    assert metrics.find(name) is None
    assert not metrics.is_judged(name)
    assert not metrics.is_share(name)
    assert "_" not in metrics.label(name)
    with pytest.raises(ValueError, match=f"study.select is {name}, which is not a known metric; {KNOWN}"):
        metrics.better(name, "study.select")


def test_a_count_is_known_but_neither_better_nor_worse():
    with pytest.raises(ValueError, match="best_step, which is a number of steps, which has no better or worse; known"):
        metrics.better("best_step")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test_acc", "test"),
        ("limited_test_loss", "test"),
        ("fewshot_10", "test"),
        ("best_step", None),
        ("test_f1", "test"),
    ],
)
def test_the_split_is_read_from_the_name_even_of_an_unknown_metric(name, split):
    assert metrics.split_of(name) == split


@pytest.mark.parametrize(
    ("name", "goal", "sentence"),
    [
        ("val_acc", "minimize", "metric.goal is minimize, but higher is better for val_acc; write goal: maximize"),
        ("val_loss", "maximize", "metric.goal is maximize, but lower is better for val_loss; write goal: minimize"),
        ("val_acc", None, "metric.goal is missing, so W&B would minimize val_acc; write goal: maximize"),
        ("val_f1", "maximize", f"metric.name is val_f1, which is not a known metric; {KNOWN}"),
    ],
)
def test_a_goal_against_the_direction_is_refused(name, goal, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.check_goal(name, goal)


def test_a_goal_that_agrees_is_accepted():
    metrics.check_goal("val_acc", "maximize")
    metrics.check_goal("val_loss", None)


def test_rows_beside_code_are_read_without_running_it():
    source = 'import absent\n\n@metric("ece", unit="share", better="lower", label="calibration")\ndef f(n): ...\n'
    (call,) = calls_in(source, "m", "metric")
    assert metrics.Row(*call.arguments, **call.keywords) == metrics.Row("ece", "share", "lower", "calibration")
    assert call.line == 3


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('metric(NAME, unit="share", better="lower", label="x")', "line 1 of .*: write the arguments of metric"),
        (
            'metric("acc", unit="share", better="lower", label="x")',
            "line 1 of .*: metric 'acc' is taken or not",
        ),
        (
            'metric("ece", unit="share", better="down", label="x")',
            "line 1 of .*: metric 'ece' has unit",
        ),
        ('metric("ece", better="lower")', "line 1 of .*: .*missing"),
    ],
)
def test_a_row_that_is_not_one_names_its_line(monkeypatch, row, sentence):
    monkeypatch.setattr(metrics, "literal_calls", lambda *where: calls_in(row, "vitexp.eval.metrics", where[-1]))
    metrics.of_logits.cache_clear()
    try:
        with pytest.raises(ValueError, match=sentence):
            metrics.find("val_ece")
    finally:
        metrics.of_logits.cache_clear()


def test_the_table_is_read_without_torch_or_numpy():
    code = "import sys; from vitexp import metrics; metrics.known(); print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
