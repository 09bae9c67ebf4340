"""Imported once by the process from which the runs of a study are forked: libraries, and the parser of `vitexp fit`."""

import contextlib

from vitexp.cli import groups
from vitexp.train.command import TrainingCommand

with contextlib.suppress(ValueError):  # a parser is built before it can refuse a word
    TrainingCommand(["fit", "--no-such-flag"], groups())
