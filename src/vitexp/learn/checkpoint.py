"""Checkpoints that are whole or not there."""

import io
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from vitexp.record import write_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own writer goes by way of the system's temporary folder; on another file system its last move is a copy,
    and a disk that fills up in the middle leaves half a checkpoint in place of the good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Writes a local checkpoint atomically; a URL is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(path, buffer.getbuffer())
