"""Checkpoints as Lightning writes and reads them: now and then, whole or not at all, and nothing in them is run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from pyro_cama._files import replacing


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


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints written whole or not at all, and read without running anything that is in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint beside its place, then moves it there."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads tensors, numbers and texts, and refuses anything else."""
        return super().load_checkpoint(path, map_location, weights_only=True)
