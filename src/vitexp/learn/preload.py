"""Imports everything a training run needs, once, in the process from which a study's runs are forked."""

from vitexp import torch_ops  # noqa: F401  (before the three libraries that import torchvision)
from vitexp.learn import command, session  # noqa: F401
