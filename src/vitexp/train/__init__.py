"""Training: a config becomes a record."""

from vitexp import torch_ops  # noqa: F401  (before lightning, timm and torchmetrics)
