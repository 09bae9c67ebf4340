"""Imported once by the process from which the runs of a study are forked: libraries, and the parser of `vitexp fit`."""

from vitexp import torch_ops  # noqa: F401  (before the three libraries that import torchvision)
from vitexp.cli import groups
from vitexp.train.command import TrainingCommand

TrainingCommand.prepare("fit", groups())
