"""The optimisation of a loss that draws nothing, over all rows at once: L-BFGS, best weights kept.

An epoch is one step of L-BFGS (Liu and Nocedal 1989), line search and all: some passes over the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.handlers.contexts import fast
from pyro_cama.training.stages import History, Stage

EVERY = 5  # epochs between two validations
MEMORY = 20  # steps whose curvature is remembered
LEAST = 1e-4  # nats a row that count as better


def minimise(
    stage: Stage, parameters: Sequence[Tensor], rows: Any, *, patience: int = 30, progress: bool = True
) -> History:
    """Minimises a stage's loss over ``parameters``, and leaves the best validated ones.

    Args:
        stage: whose loss is a function of the rows alone, without draws; its learning rate has no part.
        parameters: that move.
        rows: what the loss reads.
        patience: epochs without a better validation loss that end it; where nothing is validated, the end of progress.
        progress: shows a bar.

    Raises:
        FloatingPointError: the loss is NaN or infinite from the first.
    """
    history, best, best_loss, since = History(), [p.detach().clone() for p in parameters], math.inf, 0
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=EVERY, history_size=MEMORY, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )
    state: dict[str, Any] = optimiser.state[parameters[0]]

    def closure() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = stage.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with fast(), tqdm(total=stage.epochs, desc=stage.title, disable=not progress, leave=False) as bar:
        while True:
            done = int(state.get("n_iter", 0))
            found = _validated(stage, rows)
            if not history.rows and not math.isfinite(found["loss"]):
                raise FloatingPointError(f"{stage.title}: the loss is {found['loss']:g} at the start")
            watched = found.get("validation_loss", found["loss"])
            history.rows.append({"epoch": float(done)} | found)
            bar.update(min(done, stage.epochs) - bar.n)
            bar.set_postfix({"loss": f"{watched:.3f}"}, refresh=False)
            since += EVERY
            if watched < best_loss - LEAST:
                best, best_loss, since = [p.detach().clone() for p in parameters], watched, 0
                history.best_epoch = done
            if done >= stage.epochs or since >= patience or not math.isfinite(watched):
                break
            optimiser.param_groups[0]["max_iter"] = min(EVERY, stage.epochs - done)
            optimiser.step(closure)
            if int(state["n_iter"]) == done:  # nowhere to go
                break
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    return history


def _validated(stage: Stage, rows: Any) -> dict[str, float]:
    """The loss of the rows, and beside it what validation says."""
    with torch.no_grad():
        found = {"loss": float(stage.loss(rows))}
        if stage.validate is not None:
            found |= {f"validation_{name}": value for name, value in stage.validate().items()}
    return found
