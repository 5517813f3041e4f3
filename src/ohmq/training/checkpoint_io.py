"""Writing of checkpoints: a run that is killed at any moment leaves the old one or the new one, never a part."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from ohmq.utils.atomic_write import write_atomically

__all__ = ["AtomicCheckpoints"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written beside their place and then renamed.

    Lightning's own way writes them to the folder for temporary files. If that is on another file system, they are then
    copied over the old ones, and a kill meanwhile leaves a part.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: content.
            path: of the file.
            storage_options: must be None.

        Raises:
            OutputWriteError: disk full, no permission, and the like; an older checkpoint is kept.
        """
        if storage_options is not None:
            raise TypeError("storage_options are for other kinds of storage")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue(), force=True)
