"""A data set of the Hugging Face library, saved to disk and read back."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from vitexp.data.sources.named import open_source


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install vitexp\[hub\]"):
        open_source("hf:somebody/something")


def test_a_saved_data_set_keeps_its_bytes_labels_and_names(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")

    def picture(shade):
        buffer = io.BytesIO()
        Image.new("RGB", (6, 5), (shade, 0, 0)).save(buffer, "JPEG")
        return buffer.getvalue()

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ape", "bee"])})
    rows = {
        split: {"image": [{"bytes": picture(start + i), "path": None} for i in range(4)], "label": labels}
        for split, start, labels in (
            ("train", 0, [0, 1, 0, 1]),
            ("validation", 50, [1, 1, 0, 0]),
            ("test", 90, [-1] * 4),
        )
    }
    tables = {split: datasets.Dataset.from_dict(columns, features=features) for split, columns in rows.items()}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "animals"))
    source = open_source(f"hf:{tmp_path / 'animals'}")
    assert (source.name, source.classes, set(source.splits)) == ("animals", ("ape", "bee"), {"train", "val"})
    np.testing.assert_array_equal(source.splits["val"].labels, [1, 1, 0, 0])
    assert [source.splits["train"].read(i) for i in range(4)] == [picture(i) for i in range(4)]
    assert source.notes == ["split test left out: no labels"]
