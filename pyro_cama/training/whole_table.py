"""The optimisation of a loss that draws nothing, over all rows at once: L-BFGS, best weights kept.

An epoch is one step of L-BFGS (Liu and Nocedal 1989), line search and all: a pass over the rows, seldom more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.handlers.contexts import fast
from pyro_cama.training.stacked_lbfgs import minimise_stacked
from pyro_cama.training.stages import History, Stage

EVERY = 5  # epochs between two validations
LEAST = 1e-4  # nats a row that count as better
TOLERANCE = 1e-6


class Part(Protocol):
    """Some of the rows, as a stage's loss reads them: a :class:`pyro_cama.data.batch.Batch`, or what is made of one."""

    @property
    def rows(self) -> int:
        """How many there are."""


def minimise(
    stage: Stage, parts: Sequence[Part], parameters: Sequence[Tensor], *, patience: int = 30, progress: bool = True
) -> History:
    """Minimises a stage's loss over ``parameters``, and leaves the best validated ones.

    Args:
        stage: whose loss is a mean over rows, without draws; its learning rate has no part.
        parts: the rows, in parts whose tensors fit in memory.
        parameters: that move.
        patience: epochs without a better validation loss that end it; where nothing is validated, the end of progress.
        progress: shows a bar.

    Raises:
        FloatingPointError: the loss is NaN or infinite from the first.
    """
    with fast(), tqdm(total=stage.epochs, desc=stage.title, disable=not progress, leave=False) as bar:
        watched = _Watched(stage, parameters, parts, patience)
        watched.look()

        def each(x: Tensor, value: Tensor) -> bool:
            _set(parameters, x[0])
            bar.update()
            over = watched.step(float(value))
            bar.set_postfix({"loss": f"{watched.loss:.3f}"}, refresh=False)
            return over

        start = torch.cat([parameter.detach().flatten() for parameter in parameters])[None].double()
        found = minimise_stacked(
            watched.differentiated, start, steps=stage.epochs, tolerance=TOLERANCE, memory=20, each=each
        )
        _set(parameters, found[0])
        return watched.end()


class _Watched:
    """A loss as L-BFGS reads it, and the best weights so far."""

    def __init__(self, stage: Stage, parameters: Sequence[Tensor], parts: Sequence[Part], patience: int) -> None:
        self.stage, self.parameters, self.parts, self.patience = stage, parameters, parts, patience
        self.rows = sum(part.rows for part in parts)
        self.history, self.epoch, self.value = History(), 0, cast(float | None, None)
        self.loss, self.best_loss, self.best = math.inf, math.inf, self._weights()

    def differentiated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss and its gradient at weights ``(1, n)``."""
        _set(self.parameters, x[0])
        total, gradient = x.new_zeros(1), torch.zeros_like(x)
        for part in self.parts:
            value = self.stage.loss(part) * (part.rows / self.rows)
            found = torch.autograd.grad(value, list(self.parameters), allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)]
            total, gradient = total + value.detach(), gradient + torch.cat([g.flatten() for g in filled])
        return total, gradient

    def step(self, value: float) -> bool:
        """Counts an epoch of this loss, and looks at every fifth; returns whether patience is at its end."""
        self.epoch += 1
        self.value = value
        if self.epoch % EVERY == 0:
            self.look()
        return self.epoch - self.history.best_epoch >= self.patience

    def look(self) -> None:
        """Validates the weights as they are, and keeps them if they are the best.

        Raises:
            FloatingPointError: the loss of the first is not finite.
        """
        with torch.no_grad():
            if self.value is None:
                self.value = sum(float(self.stage.loss(part)) * part.rows for part in self.parts) / self.rows
            found = {"loss": self.value}
            if self.stage.validate is not None:
                found |= {f"validation_{name}": value for name, value in self.stage.validate().items()}
        self.loss = found.get("validation_loss", found["loss"])
        if not self.history.rows and not math.isfinite(self.loss):
            raise FloatingPointError(
                f"{self.stage.title}: the loss is {self.loss:g} at the start; look for extreme values in the data"
            )
        self.history.rows.append({"epoch": float(self.epoch)} | found)
        if self.loss < self.best_loss - LEAST:
            self.best_loss, self.best, self.history.best_epoch = self.loss, self._weights(), self.epoch

    def end(self) -> History:
        """Looks at the last weights, and puts back the best."""
        if self.history.rows[-1]["epoch"] != self.epoch:
            self.look()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.best, strict=True):
                parameter.copy_(value)
        return self.history

    def _weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]


@torch.no_grad()
def _set(parameters: Sequence[Tensor], flat: Tensor) -> None:
    """Gives the parameters the numbers of a vector, one after the other."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, flat.detach().split(sizes), strict=True):
        parameter.copy_(part.reshape(parameter.shape))
