"""Checkpoints as Lightning writes and reads them: now and then, whole or not at all, and nothing in them is run."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger

from pyro_cama._files import naming, replacing
from pyro_cama.training.checkpoints import damaged


class PeriodicCheckpoint(Checkpoint):
    """Writes a checkpoint when the last one is old, and at the end of the fit; several processes after every epoch."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self.last = path, seconds, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Writes between blocks of minibatches; after the last one Lightning would take the epoch for ended."""
        if trainer.world_size == 1 and not trainer.is_last_batch and self._old():
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Writes after validation."""
        if trainer.world_size > 1 or trainer.should_stop or self._old():
            self._save(trainer)

    def _old(self) -> bool:
        return time.monotonic() - self.last >= self.seconds

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.last = time.monotonic()


_KEYS = ("state_dict", "optimizer_states", "loops", "callbacks", "epoch", "global_step")  # what Lightning takes up


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints written whole or not at all, and read without running anything that is in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint beside its place, then moves it there; an OSError names the place."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        held = io.BytesIO()
        torch.save(checkpoint, held)  # of a full disk torch itself would not say that it is full
        with replacing(Path(path)) as part:
            part.write_bytes(held.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads tensors, numbers and texts, and refuses anything else.

        Raises:
            ValueError: the file is damaged, or holds something else.
            OSError: it cannot be read.
        """
        try:
            with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
                if (bad := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"bad checksum of {bad}")
            found = super().load_checkpoint(path, map_location, weights_only=True)
            lacking = [key for key in _KEYS if key not in found]
        except OSError:
            raise
        except Exception as error:  # zip files, pickles, tensors: torch has no error of its own for them
            raise damaged(Path(path), str(error).split("\n")[0]) from error
        if lacking:
            raise damaged(Path(path), f"lacks {', '.join(lacking)}")
        return found


class NamingCSVLogger(CSVLogger):
    """Lightning's; an OSError names the file."""

    def save(self) -> None:
        """Writes what was logged since the last time."""
        with naming(Path(self.log_dir) / "metrics.csv"):
            super().save()
