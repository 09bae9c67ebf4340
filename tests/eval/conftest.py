"""What the tests of certificates share: a file with a part of the user's own."""

import sys
from pathlib import Path

import pytest

from vitexp import axes, own
from vitexp.nn.vit import ViTConfig, resolve

SMALL = {"arch": "micro/2", "image_size": 8, "classes": 10}


@pytest.fixture
def ideas(tmp_path, monkeypatch):
    """Writes the file of a position of the user's own, and gives the config that names it."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)

    def write(source):
        Path("planted.py").write_text(source)
        return resolve(ViTConfig(**SMALL, pos_embed="planted:Mine"))

    yield write
    sys.path[:] = path
    sys.modules.pop("planted", None)
    own.load.cache_clear()
    own._LOADED.clear()
    axes._LABELS.clear()
