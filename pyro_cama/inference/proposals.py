"""What more computing buys at prediction: better proposals for every row's own m and z than the guide's.

A large manipulation is an inference problem: q(m | x) may be narrow about a wrong m.  A widened proposal reaches
further, and gradient steps on log p(x, m) move each row's m before anything is drawn.  A row that the guide has never
seen the like of, an attacked image above all, has a wrong q(z | x, y) for the right class: gradient steps on
log p(x, y, z, m) find the z that explains the row best under every class (analysis by synthesis; Schott et al. 2019,
*Towards the first adversarially robust neural network model on MNIST*).  The importance weights of eq. 6 then hold for
the proposals, whatever they are.

Where the model itself is wrong about such rows, a better search finds better explanations of the wrong classes.  A
power of p(x | y, z, m) below 1 lets a row say less than the model believes it does (Miller and Dunson 2019, *Robust
Bayesian inference via coarsening*).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.bounds import importance_bound, marginal
from pyro_cama.inference.chunks import draws_shared
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import class_values, joined


def proposals(
    pair: ModelGuidePair, batch: Batch, do: dict[str, Tensor] | None, options: PredictionOptions
) -> dict[str, TorchDistribution]:
    """Returns by latent what to draw it from in the guide's place; nothing where the options ask for no better.

    Args:
        do: an intervention on m, which then needs no proposal.
        options: with :func:`m_proposal` and :func:`z_proposal`; m stays at the mean of its proposal while z is moved.
    """
    graph, power, found = pair.graph, options.power, {}
    if graph.m is not None and not do and (options.widen != 1 or options.refine):
        found[graph.m.name] = m_proposal(
            pair, batch, widen=options.widen, refine=options.refine, power=power, regime=options.regime
        )
    if options.refine_z:
        assert graph.z is not None
        with torch.no_grad():
            m = _means_of_m(pair, batch, do, found)
        found[graph.z.name] = z_proposal(pair, batch, m, steps=options.refine_z, power=power)
    return found


def weights_within(
    pair: ModelGuidePair, batch: Batch, do: dict[str, Tensor] | None, draws: int, options: PredictionOptions
) -> LogWeights:
    """Returns the log-weights of every class, from ``draws`` of the proposals that the options ask for.

    Differentiable in the batch's values, the proposals held fixed: where a latent has been moved to a maximum, the
    derivative of the maximum is just that (the envelope theorem).
    """
    still = replace(batch, values={name: value.detach() for name, value in batch.values.items()})
    better = proposals(pair, still, do, options)
    asked: dict[str, Any] = {
        "classes": True,
        "proposals": better,
        "power": options.power,
        "regime": options.regime,
    }
    if draws_shared(pair, do):
        asked["m_samples"] = options.m_samples
    return log_weights(pair.model, pair.guide, batch, do=do, samples=draws, **asked)


def _means_of_m(
    pair: ModelGuidePair, batch: Batch, do: dict[str, Tensor] | None, found: Mapping[str, Any]
) -> dict[str, Tensor]:
    """m of every manipulation by name: as given, or the mean of what it would be drawn from."""
    means = dict(do or {})
    asked = [m.name for m in pair.graph.manipulations if m.name not in {*means, *found}]
    for m, posterior in zip(pair.graph.manipulations, pair.guide.m_dists(batch, asked), strict=True):
        if m.name in found:
            means[m.name] = found[m.name].mean
        elif posterior is not None:
            means[m.name] = _moments(posterior, "refine_z needs", f"q({m.name} | x)")[0]
    return means


def m_proposal(
    pair: ModelGuidePair,
    batch: Batch,
    *,
    widen: float,
    refine: int,
    power: float = 1.0,
    lr: float = 0.1,
    regime: Regime = "interventional",
) -> TorchDistribution:
    """Finds a normal proposal for the m of every row, batch shape ``(rows,)``.

    Args:
        widen: factor on the scale of q(m | x).
        refine: Adam steps of every row's own m, from q's mean up log sum_y p(x, y, m), one draw of z held fixed.
        power: of the children's densities.
        regime: whether p(m | y) has a part in that.

    Raises:
        NotImplementedError: q(m | x) has no mean and variance (a custom guide's); names what was asked for.
    """
    assert pair.graph.m is not None
    name, observed = pair.graph.m.name, regime == "observational" and pair.graph.m.goes_with_class
    with torch.no_grad():
        loc, scale = _moments(pair.guide.m_dist(batch), "widen and refine need", f"q({name} | x)")

    def joint(m: Tensor) -> Tensor:
        weights = log_weights(pair.model, pair.guide, batch, do={name: m}, samples=1, classes=True, power=power)
        if observed:
            given = pair.model.m_given(class_values(pair.graph, m)).log_prob(m)  # (classes, rows)
            return marginal(importance_bound(weights) + given)
        return marginal(importance_bound(weights)) + pair.model.m_dist().log_prob(m)

    return dist.Normal(_gradient_ascent(pair, joint, loc, refine, lr), widen * scale).to_event(1)


def z_proposal(
    pair: ModelGuidePair, batch: Batch, m: dict[str, Tensor], *, steps: int, power: float = 1.0, lr: float = 0.1
) -> TorchDistribution:
    """Finds a normal proposal for the z of every row under every class, batch shape ``(classes, rows)``.

    Its scale is that of q(z | x, y) and its mean ``steps`` Adam steps away from that of q, up log p(x, y, z | m).

    Args:
        m: of every manipulation by name: ``(dim,)``, ``(rows, dim)`` or of every site, ``(sites, dim)``.
        power: of the children's densities.

    Raises:
        NotImplementedError: q(z | x, y) has no mean and variance (a custom guide's).
    """
    graph, classes = pair.graph, len(pair.classes)
    assert graph.z is not None
    name = graph.z.name
    with torch.no_grad():
        value = None if graph.m is None else joined(graph.m, m, batch.site)
        q = pair.guide.z_dist(batch, pair.guide.target_value(batch, classes=True), value)
        shape = (classes, batch.rows, graph.z.dim)
        loc, scale = (moment.expand(shape) for moment in _moments(q, "refine_z needs", f"q({name} | x, y)"))

    def joint(z: Tensor) -> Tensor:
        here: TorchDistribution = dist.Delta(z, event_dim=1)
        scoring: dict[str, Any] = {"classes": True, "proposals": {name: here}, "power": power}
        return log_weights(pair.model, pair.guide, batch, do=m, **scoring).w[0]

    return dist.Normal(_gradient_ascent(pair, joint, loc, steps, lr), scale).to_event(1)


def _moments(q: Any, who: str, what: str) -> tuple[Tensor, Tensor]:
    """Mean and scale."""
    try:
        return q.mean, q.variance.sqrt()
    except NotImplementedError:
        raise NotImplementedError(
            f"predict: {who} the mean and variance of {what}, and the {type(q).__name__} of this guide has none"
        ) from None


def _gradient_ascent(
    pair: ModelGuidePair, joint: Callable[[Tensor], Tensor], start: Tensor, steps: int, lr: float
) -> Tensor:
    """Where ``joint`` was highest in ``steps`` steps from ``start``; every latent for itself, ``(..., dim)``."""
    if not steps:
        return start
    value = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([value], lr=lr, maximize=True)
    best, reached = start.detach().clone(), torch.full_like(start[..., 0], -torch.inf)
    for step in range(steps + 1):
        # noise is common, also of a guide without common noise; the hooks hide this graph from an attack's checkpoint,
        # which would run again in every step (what is packed must not hold its own graph: it would never be freed)
        with torch.enable_grad(), pair.seeded(), saved_tensors_hooks(Tensor.detach, Tensor.detach):
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
