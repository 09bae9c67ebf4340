from vitexp import torch_ops  # noqa: F401  (before timm)
