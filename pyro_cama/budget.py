"""What more computing buys at prediction, scope ``row``: a better proposal for every row's own m than q(m | x).

A large manipulation is an inference problem: q(m | x) may be narrow about a wrong m.  A widened proposal reaches
further, and gradient steps on log p(x, m) move each row's m before anything is drawn; the importance weights
p(m) / q(m | x) of eq. 6 then hold for the proposal, whatever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.data import Batch
from pyro_cama.elbo import importance_bound, log_weights, marginal

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


def proposal(cama: CAMA, batch: Batch, *, widen: float, refine: int, lr: float = 0.1) -> TorchDistribution:
    """A normal proposal for the m of every row, batch shape ``(rows,)``.

    Args:
        widen: factor on the scale of q(m | x).
        refine: Adam steps of every row's own m, from q's mean up log sum_y p(x, y, m), one draw of z held fixed.

    Raises:
        NotImplementedError: q(m | x) has no mean and variance (a custom guide's).
    """
    with torch.no_grad():
        q: Any = cama.guide.m_dist(batch)
        loc, scale = q.mean, q.variance.sqrt()
    if refine:
        loc = _refined(cama, batch, loc, refine, lr)
    return dist.Normal(loc, widen * scale).to_event(1)


def _refined(cama: CAMA, batch: Batch, start: Tensor, steps: int, lr: float) -> Tensor:
    """m of every row after ``steps`` steps, the best one met; rows do not see one another."""
    assert cama.graph.m is not None
    name, prior = cama.graph.m.name, cama.model.m_dist()
    m = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([m], lr=lr, maximize=True)
    best, reached = start.detach().clone(), torch.full_like(start[:, 0], -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad(), cama._seeded():  # the draw of z, also of a guide without common noise
            weights = log_weights(cama.model, cama.guide, batch, do={name: m}, samples=1, classes=True)
            joint = marginal(importance_bound(weights)) + prior.log_prob(m)
            total = joint.sum()
        with torch.no_grad():
            better = joint > reached
            best = torch.where(better[:, None], m, best)
            reached = torch.where(better, joint, reached)
        if step < steps:
            (m.grad,) = torch.autograd.grad(total, [m])
            optimizer.step()
    return best
