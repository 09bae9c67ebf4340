import numpy as np
import pytest

from vitexp.data.info import class_notes


@pytest.mark.parametrize(
    ("counts", "notes"),
    [
        ({"train": [5, 5, 5], "test": [1, 1, 1]}, []),
        (
            {"train": [0, 5, 5], "test": [0, 1, 1]},
            ["1 of 3 classes (a) has no image in any split; do the labels count"],
        ),
        ({"train": [5, 0, 0], "test": [2, 0, 0]}, ["2 of 3 classes (b, c) have no image in any", "of one class, a"]),
        ({"train": [5, 5, 0], "test": [1, 2, 9]}, ["1 of 3 classes (c) has no training image, but 9 in test: never"]),
        ({"train": [5, 5, 5], "val": [1, 0, 1]}, ["1 of 3 classes (b) has no image in val"]),
        ({"train": [1, 1, 1]}, ["every class has a single training image; are the labels"]),
    ],
)
def test_what_is_odd_about_the_classes(counts, notes) -> None:
    found = class_notes(["a", "b", "c"], {split: np.array(each) for split, each in counts.items()})
    assert len(found) == len(notes)
    assert all(start in note for start, note in zip(notes, found, strict=True))


def test_many_classes_are_shown_by_a_few() -> None:
    (note,) = class_notes([str(i) for i in range(2000)], {"train": np.array([0] * 1990 + [2] * 10)})
    assert note.startswith("1,990 of 2,000 classes (0, 1, 2, 3, 4, ...) have no image")
