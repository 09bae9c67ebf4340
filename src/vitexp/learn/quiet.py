"""Keeps Lightning from talking about itself, so that what a run prints is about the run."""

import logging
import os
import warnings

from lightning.pytorch.utilities.warnings import PossibleUserWarning


def quieten() -> None:
    """Leaves out what Lightning says about itself: advice on workers, on its other products, on the seed."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter is intended.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message="The dirpath has changed from.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    for name in (
        "pytorch.utilities.rank_zero",
        "fabric.utilities.seed",
        "pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
