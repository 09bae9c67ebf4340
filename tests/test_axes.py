"""The table of axis words as read from the source, against what the network's files register when imported."""

import importlib
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from vitexp import axes
from vitexp.nn import table
from vitexp.nn.config import ViTConfig
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Position


def test_the_rows_read_are_the_rows_registered():
    for row in axes.rows():
        importlib.import_module(row.module)
    assert len({(row.axis, row.word) for row in axes.rows()}) == len(axes.rows())
    read = {(row.axis, row.word): row[:4] for row in axes.rows()}
    assert read == {key: row[:4] for key, row in table.REGISTERED.items()}


def test_the_words_of_each_option_are_the_table_in_its_order():
    hints = get_type_hints(ViTConfig)
    for axis in axes.labels():
        assert axes.words_of(hints[axis]) == axes.values(axis)
        assert (axes.OwnPart in get_args(hints[axis])) == (axis in axes.SLOTS)
    assert axes.values("pos_embed")[:6] == ("none", "1d", "2d", "relative", "sincos2d", "rope")
    assert axes.values("stem")[:2] == ("auto", "patch")


def test_reading_the_table_does_not_import_torch():
    code = "import sys; from vitexp import axes; assert axes.values('pool'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_word_imports_the_module_that_defines_it(monkeypatch):
    """So that a part in a file of its own needs no import elsewhere."""
    row = next(row for row in axes.of("pos_embed") if row.word == "rope")
    monkeypatch.delitem(table._PARTS, ("pos_embed", "rope"))
    imported = []
    monkeypatch.setattr(table.importlib, "import_module", imported.append)
    with pytest.raises(KeyError):
        POSITIONS["rope"]
    assert imported == [row.module] == ["vitexp.nn.pos_embed"]


def test_an_unknown_word_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="pos_embed 'spiral' is unknown; allowed are none, 1d, 2d, relative"):
        POSITIONS["spiral"]
    assert "spiral" not in POSITIONS


@pytest.mark.parametrize(
    "row",
    [
        'part("pool", WORD, label="a", about="b")',
        'part("pool", "x", label=f"{1}", about="b")',
        'part("pool", "x", label="a")',
        'part("pool", label="a", about="b")',
        'part("pool", "x", title="a", about="b")',
    ],
)
def test_a_row_that_is_not_written_out_is_refused(row):
    with pytest.raises(
        ValueError,
        match=r"line 2 of mine: (part\(\) needs an axis|write the arguments of part)",
    ):
        list(map(axes.as_row, axes.calls_in(f"# a file\n{row}\n", "mine", "part")))


def test_a_bias_is_seen_by_its_method():
    assert {word for word in ("none", "1d", "relative", "rope") if POSITIONS[word].has_bias()} == {"relative"}
    assert not Position.has_bias()
