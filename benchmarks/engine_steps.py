"""What Lightning adds to a step: epochs of the engine beside a bare loop over the same minibatches and loss."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import images
import tabular
import torch
from measure import Row, interleaved, quartiles
from torch import nn

from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.handlers.contexts import fast
from pyro_cama.training.objective import fit_loss
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Loss, Stage


def overhead(quick: bool) -> list[Row]:
    """The image model's steps one by one, a small table's in blocks of 64 and one by one."""
    sizes = images.SMALL if quick else images.SIZES
    pictures, few = images.model_of(**sizes, device="cpu"), 2 if quick else 10
    found = [_row("image training step", pictures, images.batch_of(1024, sizes["side"]), 128, 1, few, goal=1.1)]
    table = tabular.model_of(8, 64)
    rows = tabular.batch_of(table, 4096)
    name = "tabular training step, 8 children"
    found.append(_row(f"{name}, 64 a Lightning step", table, rows, 64, 64, few))
    return [*found, _row(f"{name}, one a Lightning step", table, rows, 64, 1, few)]


def _row(
    name: str, cama: CAMA, rows: Batch, batch_size: int, per_step: int, rounds: int, goal: float | None = None
) -> Row:
    loss = fit_loss(cama.model, cama.guide, None, mixing=0.5, interventions=None, conditional_weight=0.0, samples=1)
    steps = 8 if cama.model.has_images else 256
    modules = nn.ModuleList([cama.model, cama.guide])
    moving = [p for n, p in modules.named_parameters() if "manipulation" not in n and ".m." not in n]
    source = Shuffled(rows.rows, row_selector(rows), batch_size, steps=steps)

    def engine(epochs: int) -> None:
        optimise([Stage(loss, epochs, 1e-4)], modules, moving, source, progress=False, per_step=per_step)

    def bare(epochs: int) -> None:
        with fast():
            _loop(loss, moving, source, epochs)

    # a Trainer takes a moment to begin, which a fit pays once: the second epoch is what an epoch costs
    contenders: dict[str, Any] = {
        f"{kind} {epochs}": lambda run=run, epochs=epochs: run(epochs)
        for kind, run in (("engine", engine), ("bare", bare))
        for epochs in (1, 3)
    }
    times = interleaved(contenders, max(rounds, 4), warm=1, clock=time.process_time)
    cost = {
        kind: [(a - b) / 2 for a, b in zip(times.of[f"{kind} 3"], times.of[f"{kind} 1"], strict=True)]
        for kind in ("engine", "bare")
    }
    low, middle, high = quartiles([a / b for a, b in zip(cost["engine"], cost["bare"], strict=True)])
    said = f"bare step {1e3 * median(cost['bare']) / steps:.3g} ms"
    return Row(f"{name}, engine over a bare loop", middle, "x", goal, spread=(low, high), profile=said)


def _loop(loss: Loss, moving: list[nn.Parameter], source: Shuffled, epochs: int) -> None:
    optimizer = torch.optim.Adam(moving, lr=1e-4, fused=True)
    for epoch in range(epochs):
        for batch in source.epoch(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(moving, 100.0)
            optimizer.step()
