"""What more computing buys at prediction: better proposals for every row's own m and z than the guide's.

A large manipulation is an inference problem: q(m | x) may be narrow about a wrong m.  A widened proposal reaches
further, and gradient steps on log p(x, m) move each row's m before anything is drawn.  A row that the guide has never
seen the like of, an attacked image above all, has a wrong q(z | x, y) for the right class: gradient steps on
log p(x, y, z, m) find the z that explains the row best under every class (analysis by synthesis; Schott et al. 2019,
*Towards the first adversarially robust neural network model on MNIST*).  The importance weights of eq. 6 then hold for
the proposals, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.data import Batch
from pyro_cama.elbo import importance_bound, log_weights, marginal, shared_mean

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


def proposals(
    cama: CAMA, batch: Batch, do: dict[str, Tensor] | None, *, widen: float = 1.0, refine: int = 0, refine_z: int = 0
) -> dict[str, TorchDistribution]:
    """By latent, what to draw it from in the guide's place: nothing where the guide's own is as good as asked for.

    Args:
        do: an intervention on m, which then needs no proposal.
        widen, refine: see :func:`m_proposal`.
        refine_z: see :func:`z_proposal`; m stays at the mean of its own proposal meanwhile.
    """
    graph, found = cama.graph, {}
    if graph.m is not None and not do and (widen != 1 or refine):
        found[graph.m.name] = m_proposal(cama, batch, widen=widen, refine=refine)
    if refine_z:
        assert graph.z is not None
        m = None
        if graph.m is not None:
            with torch.no_grad():
                m = _mean_of_m(cama, batch, do, found.get(graph.m.name))
        found[graph.z.name] = z_proposal(cama, batch, m, steps=refine_z)
    return found


def _mean_of_m(cama: CAMA, batch: Batch, do: dict[str, Tensor] | None, proposal: Any) -> Tensor:
    assert cama.graph.m is not None
    if do:
        return do[cama.graph.m.name]
    if cama.graph.m.scope != "row":
        return shared_mean(cama.guide)
    if proposal is None:
        return _moments(cama.guide.m_dist(batch), "refine_z needs", f"q({cama.graph.m.name} | x)")[0]
    mean: Tensor = proposal.mean
    return mean


def m_proposal(cama: CAMA, batch: Batch, *, widen: float, refine: int, lr: float = 0.1) -> TorchDistribution:
    """A normal proposal for the m of every row, batch shape ``(rows,)``.

    Args:
        widen: factor on the scale of q(m | x).
        refine: Adam steps of every row's own m, from q's mean up log sum_y p(x, y, m), one draw of z held fixed.

    Raises:
        NotImplementedError: q(m | x) has no mean and variance (a custom guide's); names what was asked for.
    """
    assert cama.graph.m is not None
    name, prior = cama.graph.m.name, cama.model.m_dist()
    with torch.no_grad():
        loc, scale = _moments(cama.guide.m_dist(batch), "widen and refine need", f"q({name} | x)")

    def joint(m: Tensor) -> Tensor:
        weights = log_weights(cama.model, cama.guide, batch, do={name: m}, samples=1, classes=True)
        return marginal(importance_bound(weights)) + prior.log_prob(m)

    return dist.Normal(_climbed(cama, joint, loc, refine, lr), widen * scale).to_event(1)


def z_proposal(cama: CAMA, batch: Batch, m: Tensor | None, *, steps: int, lr: float = 0.1) -> TorchDistribution:
    """A normal proposal for the z of every row under every class, batch shape ``(classes, rows)``.

    Its scale is that of q(z | x, y) and its mean ``steps`` Adam steps away from that of q, up log p(x, y, z | m).

    Args:
        m: ``(dim,)``, ``(rows, dim)`` or of every site, ``(sites, dim)``; None where the graph has none.

    Raises:
        NotImplementedError: q(z | x, y) has no mean and variance (a custom guide's).
    """
    graph, classes = cama.graph, len(cama.classes)
    assert graph.z is not None
    name, do = graph.z.name, {graph.m.name: m} if graph.m is not None else None
    with torch.no_grad():
        q = cama.guide.z_dist(batch, cama.guide.target_value(batch, classes=True), m)
        shape = (classes, batch.rows, graph.z.dim)
        loc, scale = (moment.expand(shape) for moment in _moments(q, "refine_z needs", f"q({name} | x, y)"))

    def joint(z: Tensor) -> Tensor:
        here: TorchDistribution = dist.Delta(z, event_dim=1)
        weights = log_weights(cama.model, cama.guide, batch, do=do, samples=1, classes=True, proposals={name: here})
        return weights.w[0]

    return dist.Normal(_climbed(cama, joint, loc, steps, lr), scale).to_event(1)


def _moments(q: Any, who: str, what: str) -> tuple[Tensor, Tensor]:
    """Mean and scale."""
    try:
        return q.mean, q.variance.sqrt()
    except NotImplementedError:
        raise NotImplementedError(
            f"predict: {who} the mean and variance of {what}, and the {type(q).__name__} of this guide has none"
        ) from None


def _climbed(cama: CAMA, joint: Callable[[Tensor], Tensor], start: Tensor, steps: int, lr: float) -> Tensor:
    """Where ``joint`` was highest in ``steps`` steps from ``start``; every latent for itself, ``(..., dim)``."""
    if not steps:
        return start
    value = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([value], lr=lr, maximize=True)
    best, reached = start.detach().clone(), torch.full_like(start[..., 0], -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad(), cama._seeded():  # what is drawn, also by a guide without common noise
            found = joint(value)
            total = found.sum()
        with torch.no_grad():
            better = found > reached
            best = torch.where(better[..., None], value, best)
            reached = torch.where(better, found, reached)
        if step < steps:
            (value.grad,) = torch.autograd.grad(total, [value])
            optimizer.step()
    return best
