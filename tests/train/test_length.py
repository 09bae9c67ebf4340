"""How long a run is, against Lightning's own count in tests/train/test_trainer_flags.py, and by hand here."""

from types import SimpleNamespace

import pytest

from vitexp.train.trainer_flags import Limits

DATA = SimpleNamespace(steps_per_epoch=7, batch_size=10, train_count=65)


@pytest.mark.parametrize(
    ("limits", "steps", "images"),
    [
        (Limits(3, -1), 21, 3 * 65),
        (Limits(3, 10), 10, 65 + 30),
        (Limits(None, 10), 10, 65 + 30),
        (Limits(-1, 10), 10, 65 + 30),
        (Limits(3, 100), 21, 3 * 65),
        (Limits(3, -1, 2), 12, 3 * 65),
        (Limits(3, 5, 2), 5, 65 + 20),
        (Limits(2, -1, 1, 5), 10, 100),
        (Limits(2, -1, 1, 0.5), 6, 60),
        (Limits(2, -1, 2, 5), 6, 100),
        (Limits(2, -1, 1, 1.0), 14, 130),
        (Limits(2, -1, 1, 99), 14, 130),
    ],
)
def test_the_length_of_a_run(limits, steps, images):
    assert limits.steps(DATA) == steps
    assert limits.images(DATA, steps) == images


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(-1, -1), "no end"),
        (Limits(0, -1), r"trainer\.max_epochs is 0"),
        (Limits(3, 0), r"trainer\.max_steps is 0"),
        (Limits(3, -1, 1, 0), r"trainer\.limit_train_batches is 0"),
        (Limits(3, -1, 1, 0.1), r"trainer\.limit_train_batches is 0\.1"),
    ],
)
def test_a_run_without_an_end_or_a_step_is_refused(limits, said):
    with pytest.raises(ValueError, match=said):
        limits.steps(DATA)
