"""The optimisation loop, Lightning's: minibatches of row numbers into a loss, early stopping, best weights kept."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

Loss = Callable[[Tensor], Tensor]


@dataclass
class History:
    """What one optimisation did.

    Attributes:
        rows: one dict an epoch: ``epoch``, ``loss`` and what validation reported.
        best_epoch: whose weights were kept.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0

    def followed_by(self, other: History) -> History:
        """Both one after the other, epochs counted on."""
        n = len(self.rows)
        later = [row | {"epoch": row["epoch"] + n} for row in other.rows]
        return History([*self.rows, *later], n + other.best_epoch)


def optimise(
    loss: Loss,
    modules: nn.Module,
    parameters: Sequence[Tensor],
    rows: int,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    max_epochs: int,
    steps: int | None = None,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.0,
    patience: int = 30,
    anneal: bool = False,
    seed: int = 0,
    progress: bool | tqdm[Any] = True,
    title: str = "fit",
    trainer_kwargs: dict[str, Any] | None = None,
) -> History:
    """Minimises ``loss`` of row numbers over ``parameters`` with Adam, and keeps the best validated weights.

    Args:
        loss: from row numbers, ``(batch,)``, to a scalar.
        modules: holds the parameters; its weights are put back to the best.
        validate: returns figures of which ``loss`` is watched (lower is better); None keeps the last weights.
        progress: a bar of its own, none, or the caller's, which is moved on by ``max_epochs``.
        steps: gradient steps an epoch; None is one pass over the rows.
        anneal: lets the learning rate fall to zero along a half cosine.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the best weights so far are put back first.
    """
    from lightning.pytorch import Trainer

    task = _task(loss, modules, parameters, validate, lr, weight_decay, patience, max_epochs, anneal, progress, title)
    blocks = _Blocks(rows, batch_size, steps, seed)
    with _quiet(), pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        trainer = Trainer(
            **{
                "max_epochs": max_epochs,
                "accelerator": "cpu" if next(modules.parameters()).device.type == "cpu" else "auto",
                "devices": 1,
                "logger": False,
                "enable_checkpointing": False,
                "enable_model_summary": False,
                "enable_progress_bar": False,
                "num_sanity_val_steps": 0,
                **(trainer_kwargs or {}),
            }
        )
        trainer.fit(task, blocks)
    task.finish()
    history: History = task.history
    return history


class _Blocks:
    """One block of minibatches an epoch: small tables would pay the trainer's cost per step more than the step's."""

    def __init__(self, rows: int, batch_size: int, steps: int | None, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows), seed
        self.steps = steps or max(1, math.ceil(rows / self.batch_size))
        self.epoch = 0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        order: list[Tensor] = []
        while sum(map(len, order)) < self.steps * self.batch_size:
            order.append(torch.randperm(self.rows, generator=generator))
        flat = torch.cat(order)
        if self.steps == math.ceil(self.rows / self.batch_size):
            flat = order[0]  # one pass: every row once, the last batch may be short
        yield list(flat[: self.steps * self.batch_size].split(self.batch_size))


def _task(
    loss: Loss,
    modules: nn.Module,
    parameters: Sequence[Tensor],
    validate: Callable[[], dict[str, float]] | None,
    lr: float,
    weight_decay: float,
    patience: int,
    max_epochs: int,
    anneal: bool,
    progress: bool | tqdm[Any],
    title: str,
) -> Any:
    from lightning.pytorch import LightningModule

    class Optimisation(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.modules_ = modules
            self.history = History()
            self.best: tuple[float, dict[str, Tensor]] | None = None
            self.owns_bar = isinstance(progress, bool)
            self.bar = (
                tqdm(total=max_epochs, desc=title, disable=not progress, leave=False)
                if isinstance(progress, bool)
                else progress
            )
            self.bar.set_description(title, refresh=False)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)

        def training_step(self, block: list[Tensor], index: int) -> None:
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            total, shown = 0.0, time.monotonic()
            if anneal:
                optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * self.current_epoch / max_epochs))
            for i, rows in enumerate(block, 1):
                optimizer.zero_grad(set_to_none=True)
                value = loss(rows)
                value.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 100.0)
                optimizer.step()
                total += float(value.detach())
                if time.monotonic() - shown > 0.5:  # an epoch of images takes minutes
                    self.bar.set_postfix_str(f"step {i} of {len(block)}, loss={total / i:.4g}")
                    shown = time.monotonic()
            self.epoch_loss = total / len(block)
            if not math.isfinite(self.epoch_loss):
                self.finish()
                raise FloatingPointError(
                    f"{title}: the loss became {self.epoch_loss} in epoch {self.current_epoch}; try a smaller lr "
                    f"(now {lr:g}) or look for extreme values in the data"
                )

        def on_train_epoch_end(self) -> None:
            figures = {"epoch": float(self.current_epoch), "loss": self.epoch_loss}
            if validate is not None:
                with torch.no_grad():
                    found = validate()
                figures.update({f"validation_{k}": v for k, v in found.items()})
                watched = found["loss"]
                if self.best is None or watched < self.best[0]:
                    self.best = (watched, {k: v.clone() for k, v in modules.state_dict().items()})
                    self.history.best_epoch = self.current_epoch
                elif self.current_epoch - self.history.best_epoch >= patience:
                    self.trainer.should_stop = True
            else:
                self.history.best_epoch = self.current_epoch
            self.history.rows.append(figures)
            self.bar.update()
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items() if k != "epoch"}, refresh=False)

        def finish(self) -> None:
            if self.owns_bar:
                self.bar.close()
            if self.best is not None:
                modules.load_state_dict(self.best[1])

    return Optimisation()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's start-up messages, which speak of hardware and workers, are not our user's concern."""
    loggers = [
        logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            for part in ("does not have many workers", "log_every_n_steps", "returned `None`", "litlogger", "treespec"):
                warnings.filterwarnings("ignore", message=f".*{part}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
