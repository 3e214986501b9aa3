"""What Lightning runs: the module whose loss is a stage's, the minibatches as it takes them, checkpoints.

Imported where an optimisation begins, since Lightning takes seconds to import.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.data.minibatches import Minibatches
from pyro_cama.handlers.contexts import fast, seeded
from pyro_cama.training.stages import History, Stage

CLIP = 100.0  # of the gradients' norm: what no healthy step reaches


class Training(LightningModule):
    """An optimisation in stages; see :func:`pyro_cama.training.optimise.optimise` for its arguments.

    Noise is a function of seed, epoch, step and process, and all that an epoch leaves behind is in the state dict, so a
    run that goes on from a checkpoint ends in the very weights of one that was never stopped.

    Attributes:
        history: of the epochs so far.
        epochs: at most so many in all: what a Trainer's ``max_epochs`` should be.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        modules: nn.Module,
        parameters: Sequence[Tensor],
        *,
        weight_decay: float = 0.0,
        patience: int = 30,
        anneal: bool = False,
        seed: int = 0,
        progress: bool | tqdm[Any] = True,
        automatic: bool = True,
        after: Callable[[History], None] | None = None,
        undo: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = automatic
        self.modules_ = modules
        held = {id(p) for p in modules.parameters()}
        # ddp averages the gradients of what is registered
        self.others = nn.ParameterList([p for p in parameters if id(p) not in held])
        self.moving, self.stages = list(parameters), [stage for stage in stages if stage.epochs]
        self.after, self._undo, self.undone = after, undo, False
        self.weight_decay, self.patience, self.anneal, self.seed = weight_decay, patience, anneal, seed
        self.epochs = sum(stage.epochs for stage in self.stages)
        self.history = History()
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.at, self.began = 0, 0  # the stage, and the epoch it began in
        self.total, self.steps = 0.0, 0  # of the epoch's losses
        self.owns_bar = isinstance(progress, bool)
        own = tqdm(total=self.epochs, disable=not progress, leave=False) if isinstance(progress, bool) else progress
        self.bar: tqdm[Any] = own
        self._shown = 0.0

    # state -----------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Returns what the weights and Adam's state do not hold: plain numbers, texts and tensors."""
        return {
            **vars(self.history), "best": self.best, "at": self.at, "began": self.began,
            "total": float(self.total), "steps": self.steps,
        }  # fmt: skip

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`get_extra_state` gave."""
        self.history = History(list(state["rows"]), state["best_epoch"], state["asleep"])
        self.best, self.at, self.began = state["best"], state["at"], state["began"]
        self.total, self.steps = state["total"], state["steps"]

    @property
    def stage(self) -> Stage:
        """The stage that is on; the last one when all are done."""
        return self.stages[min(self.at, len(self.stages) - 1)]

    def finish(self) -> History:
        """Puts the weights back to the best, does what is left of a fit, and returns the history.

        Raises:
            FloatingPointError: a weight is NaN or infinite; the model is as it was before.
            RuntimeError: the fit failed or was stopped before.
        """
        self._expect_whole()
        self._take_best()
        self.close()
        if not all(bool(p.isfinite().all()) for p in self.moving):  # the last step's doing, which no loss has seen
            self.undo()
            raise self._diverged("a weight became NaN or infinite in the last epoch")
        if self.after is not None:
            self.after(self.history)
        return self.history

    def undo(self) -> None:
        """Puts the model back as it was before :meth:`pyro_cama.CAMA.lightning`: the fit failed or was stopped."""
        self.close()
        if self._undo is not None and not self.undone:
            self._undo()
            self.undone = True

    def _expect_whole(self) -> None:
        if self.undone:
            raise RuntimeError(
                "this fit failed or was stopped, and the model is as it was before it; call lightning() again for a "
                "new module (and give the Trainer ckpt_path=, to go on from a checkpoint of its own)"
            )

    def _take_best(self) -> None:
        if self.best is not None:
            self.modules_.load_state_dict(self.best[1])

    def close(self) -> None:
        """Takes the progress bar away, if it is the module's own."""
        if self.owns_bar:
            self.bar.close()

    # steps -----------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam, fused where nothing has to come between gradients and step."""
        mixed = isinstance(self.trainer.precision_plugin, MixedPrecision)
        return torch.optim.Adam(self.moving, lr=self.stage.lr, weight_decay=self.weight_decay, fused=not mixed)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips as the Trainer was told, else to a norm that no healthy step reaches."""
        self.clip_gradients(optimizer, gradient_clip_val or CLIP, gradient_clip_algorithm or "norm")

    def transfer_batch_to_device(self, batch: list[Any], device: torch.device, dataloader_idx: int) -> list[Any]:
        """Moves minibatches to the device; those in memory are there already."""
        return batch if device.type == "cpu" else [part.to(device) for part in batch]

    def on_train_start(self) -> None:
        """Sets the bar to the epochs done, and stops a run that had finished before."""
        self._expect_whole()
        self.bar.set_description(self.stage.title, refresh=False)
        if self.owns_bar:
            self.bar.update(self.current_epoch - self.bar.n)
        self.trainer.should_stop = self.at >= len(self.stages)

    def on_train_epoch_start(self) -> None:
        """Sets the learning rate of the epoch."""
        self.total, self.steps = 0.0, 0
        if self.anneal or self.stage.anneal:
            done = (self.current_epoch - self.began) / self.stage.epochs
            self._set_lr(self.stage.lr * 0.5 * (1 + math.cos(math.pi * done)))

    def training_step(self, block: list[Any], index: int) -> Tensor | None:
        """Returns one minibatch's loss for Lightning to minimise; or takes a step of its own for each of a block's."""
        with seeded(_seed(self.seed, self.current_epoch, index, self.global_rank), self.device), fast():
            if self.automatic_optimization:
                (batch,) = block
                value = self.stage.loss(batch)
                self._count(value)
                return value
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            for batch in block:
                optimizer.zero_grad(set_to_none=True)
                value = self.stage.loss(batch)
                value.backward()
                torch.nn.utils.clip_grad_norm_(self.moving, CLIP)
                optimizer.step()
                self._count(value)
        return None

    def _count(self, value: Tensor) -> None:
        self.total = self.total + value.detach()  # type: ignore[assignment]  # no waiting for the device in every step
        self.steps += 1
        if time.monotonic() - self._shown > 0.5:  # an epoch of images takes minutes
            self.bar.set_postfix_str(f"step {self.steps}, loss={float(self.total) / self.steps:.4g}")
            self._shown = time.monotonic()

    # epochs ----------------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        """Validates, keeps the best weights, and goes on to the next stage when this one is over."""
        loss, stage, history = float(self.total) / max(self.steps, 1), self.stage, self.history
        done = self.current_epoch + 1 - history.asleep
        if self.trainer.world_size > 1:
            loss = float(self.trainer.strategy.reduce(torch.tensor(loss, device=self.device), reduce_op="mean"))
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss} in epoch {done}")
        figures = {"epoch": float(done), "loss": loss}
        if stage.validate is not None:
            with torch.no_grad(), fast():
                found = stage.validate()
            figures |= {f"validation_{k}": v for k, v in found.items()}
            if self.best is None or found["loss"] < self.best[0] or math.isnan(self.best[0]):
                self.best = (found["loss"], {k: v.clone() for k, v in self.modules_.state_dict().items()})
                history.best_epoch = done
        else:
            history.best_epoch = done
        if stage.asleep:
            history.asleep, history.best_epoch = history.asleep + 1, 0
        else:
            history.rows.append(figures)
        self.log_dict({k: v for k, v in figures.items() if k != "epoch"})
        self.bar.update()
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items() if k != "epoch"}, refresh=False)
        impatient = not stage.asleep and done - history.best_epoch >= self.patience
        if impatient or self.current_epoch + 1 - self.began >= stage.epochs:
            self._next_stage()

    def _diverged(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"{self.stage.title}: {what}; try a smaller lr (now {self.stage.lr:g}) or look for extreme values in the "
            "data"
        )

    def _next_stage(self) -> None:
        self.at, self.began = self.at + 1, self.current_epoch + 1
        if self.at >= len(self.stages):
            self.trainer.should_stop = True
            return
        self._take_best()
        self.best = None
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.state.clear()
        self._set_lr(self.stage.lr)
        self.bar.set_description(self.stage.title, refresh=False)

    def _set_lr(self, lr: float) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.param_groups[0]["lr"] = lr


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class TrainingData(LightningDataModule):
    """Minibatches in the blocks that :meth:`Training.training_step` takes; each process gets its own rows of them."""

    def __init__(self, minibatches: Minibatches, per_step: int = 1, undo: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.minibatches, self.per_step, self.undo = minibatches, per_step, undo

    def on_exception(self, exception: BaseException) -> None:
        """Puts the model back as it was, after callbacks have saved what they keep of a fit that failed."""
        if self.undo is not None:
            self.undo()

    def train_dataloader(self) -> _Blocks:
        """Returns the blocks of one epoch; after a stop in its midst, the rest of it."""
        assert self.trainer is not None
        return _Blocks(self.minibatches, self.per_step, self.trainer)


class _Blocks:
    def __init__(self, minibatches: Minibatches, per_step: int, trainer: Trainer) -> None:
        self.minibatches, self.per_step, self.trainer = minibatches, per_step, trainer

    def __len__(self) -> int:
        return math.ceil(len(self.minibatches) / self.per_step)

    def __iter__(self) -> Iterator[list[Any]]:
        trainer = self.trainer
        done = (
            trainer.fit_loop.epoch_loop.batch_progress.current.ready
        )  # of this epoch, where it was stopped in its midst
        block: list[Any] = []
        for i, part in enumerate(
            self.minibatches.epoch(trainer.current_epoch, trainer.global_rank, trainer.world_size), 1
        ):
            block.append(part)
            if len(block) == self.per_step or i == len(self.minibatches):
                if done > 0:
                    done -= 1
                else:
                    yield block
                block = []
