import pytest

from vitexp.record import RunRecord
from vitexp.study.trained import cut_short, stopped_at, why_untrained

ASKED = {"trainer": {"max_epochs": 4}}
NEAR = {"learning": {"train_loss_start": 2.4, "train_loss_end": 2.29}}
TUNED = {"run": {"init": "weights.npz"}}
SIGMOID = {"model": {"loss": "sigmoid"}}


MASKED = {"model": {"objective": "masked_mean"}}


def smoothed(share, loss="softmax"):
    return {"model": {"label_smoothing": share, "loss": loss}}


def make(**changes):
    given = {"study": "s", "cell": "c", "seed": 0, "fingerprint": "f", "status": "finished", "config": ASKED}
    return RunRecord(**given | {"data": {"classes": 10, "test_images": 360}} | changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 0}, "it took no step"),
        ({"learning": {"train_loss_start": 2.3, "train_loss_end": 2.4}}, "training loss 2.3 at the start, 2.4 at"),
        (
            {"learning": {"train_loss_start": 2.3, "train_loss_end": float("nan")}},
            "training loss 2.3 at the start, nan",
        ),
        ({"metrics": {"test_acc": 0.05}}, ""),  # a choice by the test split would be a choice of the result
        ({"metrics": {"val_acc": 0.35}, "learning": {"chance_acc": 0.4}}, "validation accuracy 35.0 %, a guess"),
        (
            {"learning": {"train_loss_start": 2.4, "train_loss_end": 2.29}},
            "training loss 2.29 at the end, and guessing",
        ),
        ({**NEAR, "metrics": {"val_acc": 0.3}, "data": {"classes": 10, "val_images": 100}}, ""),
        ({**NEAR, "metrics": {"val_acc": 0.2}, "data": {"classes": 10, "val_images": 100}}, "training loss 2.29 at"),
        ({"learning": {"train_loss_start": 3.4, "train_loss_end": 3.24}, "config": SIGMOID}, "training loss 3.24 at"),
        ({"learning": {"train_loss_start": 3.4, "train_loss_end": 3.1}, "config": SIGMOID}, ""),
        ({**NEAR, "config": {"model": {"objective": "masked_mean"}}}, ""),
        # nine images of ten are of one class: the network has learned that, and nothing of the images
        (
            {"learning": {"train_loss_start": 0.9, "train_loss_end": 0.49, "chance_loss": 0.4966}},
            "training loss 0.49 at",
        ),
        ({"learning": {"train_loss_start": 0.9, "train_loss_end": 0.40, "chance_loss": 0.4966}}, ""),
        ({"learning": {"train_loss_start": 0.01, "train_loss_end": 0.02}, "config": TUNED}, ""),
        ({"learning": {"train_loss_start": 0.01, "train_loss_end": 0.02}}, "training loss 0.01 at the start, 0.02 at"),
        ({"learning": {"train_loss_start": 2.3, "train_loss_end": 2.4}, "config": TUNED}, "training loss 2.3 at"),
        # smoothed labels leave little to learn: at 0.9 from 2.303 to 2.266, with sigmoids at 0.38 from 6.746 to 6.641
        ({"learning": {"train_loss_start": 2.31, "train_loss_end": 2.28}, "config": smoothed(0.9)}, ""),
        (
            {"learning": {"train_loss_start": 2.31, "train_loss_end": 2.3024}, "config": smoothed(0.9)},
            "training loss 2.3",
        ),
        (
            {
                "learning": {"train_loss_start": 7.2, "train_loss_end": 6.70, "chance_loss": 6.7464},
                "config": smoothed(0.38, "sigmoid"),
            },
            "",
        ),
        ({"learning": {"train_loss_start": 5.0, "train_loss_end": 5.1}, "config": TUNED | MASKED}, ""),
        (
            {"learning": {"train_loss_start": 5.0, "train_loss_end": 8.0}, "config": TUNED | MASKED},
            "training loss 5 at",
        ),
        ({"learning": {"train_loss_start": 5.0, "train_loss_end": 5.1}, "config": MASKED}, "training loss 5 at"),
        ({"curves": {"train_loss": [(21, 2.31), (42, 2.32)]}}, "training loss 2.31 at the start, 2.32 at the end"),
        ({"metrics": {"test_acc": 0.35}, "learning": {"train_loss_start": 2.3, "train_loss_end": 1.7}}, ""),
        ({"metrics": {"test_acc": 0.1}, "data": {}}, ""),
    ],
)
def test_a_run_that_did_not_train_is_known_by_its_record(changes, why):
    found = why_untrained(make(**changes))
    assert found.startswith(why) if why else not found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 42, "epochs": 2.0}, "stopped at 42 steps, in epoch 2 of 4"),
        ({"steps": 84, "epochs": 3.99}, ""),
        ({"steps": 42, "epochs": 2.0, "format": 2}, ""),
        ({"steps": 42, "config": {"trainer": {"max_steps": 84, "max_epochs": None}}}, "stopped at 42 of 84 steps"),
        ({"steps": 84, "epochs": 2.0, "config": {"trainer": {"max_steps": 84, "max_epochs": 4}}}, ""),
        ({"steps": 42, "config": {"trainer": {"max_steps": -1, "max_epochs": None}}}, ""),
        ({}, ""),
    ],
)
def test_a_finished_record_of_format_1_that_ended_early_is_seen(changes, why):
    assert cut_short(make(**{"format": 1, **changes})) == why


def test_a_stopped_run_says_how_far_it_came():
    stopped = make(status="stopped", steps=84, planned_steps=210, reason="EarlyStopping")
    assert stopped_at(stopped) == "stopped at 84 of 210 steps: EarlyStopping"
