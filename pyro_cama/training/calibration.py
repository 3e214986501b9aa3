"""The end of a fit: what manipulation the training rows themselves seem to ask for, so that adaptation ignores it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_cama.data.batch import Batch
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.bounds import importance_bound, marginal
from pyro_cama.inference.do import clean_do
from pyro_cama.inference.exact import solves_exactly, summed_evidence, units_of
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stacked_lbfgs import minimise_stacked, rooted, unrooted
from pyro_cama.training.stages import Stage

NUMBERS = 2**20  # in the largest tensor


def calibrate(
    model: CAMAModel, guide: CAMAGuide, clean: Batch, *, steps: int = 150, seed: int = 0, progress: bool = True
) -> None:
    """Fits the manipulation that the clean rows themselves ask for, and keeps it as ``Manipulation.calibration``.

    See :meth:`pyro_cama.model.manipulation.Manipulation.calibrated` for why.  Nothing else changes; predictions never
    see it.

    Args:
        model, guide: as fitted; a graph with m.
        clean: training rows; their labels have no part (eq. 7).
        steps: of Adam, over 512 rows each.
        seed: of draws and minibatches.
        progress: shows a bar.
    """
    manipulation = model.manipulation
    if not any(g.mechanism.composes for g in manipulation.groups):
        return
    if solves_exactly(model, guide, clean):
        _solve(model, clean, seed)
        return
    zero = clean_do(model.graph)

    def loss(batch: Batch) -> Tensor:
        weights = log_weights(model, guide, batch, do=zero, samples=4, classes=True)
        return -marginal(importance_bound(weights)).mean()

    modules = nn.ModuleList([model, guide])
    frozen = {name: p.requires_grad for name, p in modules.named_parameters()}
    modules.requires_grad_(False)
    manipulation.calibration.data.zero_()
    manipulation.calibration.requires_grad_(True)
    with manipulation.calibrated():
        optimise(
            [Stage(loss, max(1, steps // 10), 2e-2, title="calibrate")], modules, [manipulation.calibration],
            Shuffled(clean.rows, row_selector(clean), 512, seed, steps=10), anneal=True, seed=seed, progress=progress,
        )  # fmt: skip
    manipulation.calibration.requires_grad_(False)
    for name, parameter in modules.named_parameters():
        parameter.requires_grad_(frozen[name])


def _solve(model: CAMAModel, clean: Batch, seed: int, *, steps: int = 60) -> None:
    """The same where theta can be solved for, on as many of the rows as a few tensors hold."""
    manipulation = model.manipulation
    most = max(256, NUMBERS // model.numbers_per_row)
    if clean.rows > most:
        order = torch.randperm(clean.rows, generator=torch.Generator().manual_seed(seed))
        clean = clean.select(order[:most].to(model.like.device))

    even, one = manipulation.even(), torch.ones(1, 1, dtype=torch.float64, device=model.like.device)
    evidence, trained = summed_evidence(model, clean, one.expand(1, clean.rows)), torch.zeros_like(one)

    units = units_of(model, clean)

    def theta_of(x: Tensor) -> Tensor:
        return unrooted(x * units, even)

    def loss(x: Tensor) -> Tensor:
        return -evidence(theta_of(x)[:, None], trained) / clean.rows

    start = rooted(torch.zeros_like(units)[None].to(one), even) / units
    with fast():
        manipulation.calibration[: manipulation.size] = theta_of(minimise_stacked(loss, start, steps=steps))[0]
