"""Per-row log-weights, and everything that is a reduction of them: the one place where ``do`` is applied.

    w_k(y; do) = log p(x, y, z_k, m_k | a, c) - log q(z_k, m_k | x, y, a, c)

for one row, one class, one sample; with ``do(m=m0)`` m leaves both sums.  A shared m (scope dataset or column) stays
out of ``w``: its own ratio is counted once per dataset or site, outside the sum over classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama.data import Batch
from pyro_cama.guide import CAMAGuide
from pyro_cama.model import CAMAModel, Data, as_batch
from pyro_cama.noise import draw

Do = Mapping[str, Any]


@dataclass(frozen=True)
class LogWeights:
    """The log-weights of a batch.

    Attributes:
        w: ``(samples, classes, rows)``; one "class" where the rows' own labels were used.
        shared: log p(m_k) - log q(m_k) of a shared m, ``(samples, sites)``; None in scope row and under ``do``.
        context: log p(a, c) of every row, broadcastable to ``(samples, classes, rows)``; not part of ``w``, but
            where it varies with the draws (what a missing value, or a clean one, causes), ``w`` holds the deviations.
    """

    w: Tensor
    shared: Tensor | None
    context: Tensor


def intervene(program: Callable[..., Any], do: Do | None) -> Callable[..., Any]:
    """The program under ``do``, the intervened latent gone from its trace: no prior term, no gradient to its guide."""
    if not do:
        return program
    return poutine.block(poutine.do(program, data=dict(do)), hide=list(do))


def log_weights(
    model: CAMAModel,
    guide: CAMAGuide,
    data: Data,
    *,
    do: Do | None = None,
    samples: int = 1,
    classes: bool = False,
    trace: bool | None = None,
    proposals: Mapping[str, TorchDistribution] | None = None,
    power: float = 1.0,
) -> LogWeights:
    """The log-weights of every sample, class and row.

    Args:
        do: values of the manipulation latent, ``(dim,)`` or ``(rows, dim)``, for model and guide alike.
        classes: weigh every class of the target instead of the rows' labels.
        proposals: by latent, what draws it in the guide's place: m in scope row, batch shape ``(rows,)``, and z, with
            one that broadcasts to ``(samples, classes, rows)``.
        power: of the children's densities, p(x | y, z, m, a, c)^power: below 1 for a model that is wrong in detail
            (Miller and Dunson 2019, *Robust Bayesian inference via coarsening*).
        trace: True goes through Pyro's traces, False scores groups of nodes whole; None takes the quick way wherever
            no subclass has changed what a site is.  Both give the same numbers.
    """
    batch = as_batch(data, None)
    do = {name: _value(model, value) for name, value in (do or {}).items()}
    if trace is None:
        trace = not is_grouped(model, guide) or any(model.graph.m is None or n != model.graph.m.name for n in do)
    way = _traced if trace else _grouped
    return way(model, guide, batch, do, samples, classes, proposals or {}, power)


def is_grouped(model: CAMAModel, guide: CAMAGuide) -> bool:
    """Whether groups may be scored whole: no subclass overrides a site of the model, or the guide's program."""
    ours = all(getattr(type(model), n) is getattr(CAMAModel, n) for n in ("forward", "node_dist", "z_dist", "m_dist"))
    return ours and type(guide).forward is CAMAGuide.forward


def _value(model: CAMAModel, value: Tensor | float) -> Tensor:
    given = torch.as_tensor(value, dtype=model.like.dtype, device=model.like.device)
    if model.graph.m is not None and given.dim() == 0:
        given = given.expand(model.graph.m.dim)
    return given


class _Proposed(Messenger):
    """Draws sites from other distributions."""

    def __init__(self, proposals: Mapping[str, TorchDistribution]) -> None:
        super().__init__()
        self.proposals = proposals

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.proposals:
            msg["fn"] = self.proposals[msg["name"]].expand(msg["fn"].batch_shape)


def _traced(
    model: CAMAModel,
    guide: CAMAGuide,
    batch: Batch,
    do: Do,
    samples: int,
    classes: bool,
    proposals: Mapping[str, TorchDistribution],
    power: float,
) -> LogWeights:
    # a plate of one costs every site another expansion
    arguments = {"samples": samples if samples > 1 or classes else None, "classes": classes}
    drawn: Callable[..., Any] = intervene(guide, do)
    if proposals:
        drawn = _Proposed(proposals)(drawn)
    guide_trace = poutine.trace(drawn).get_trace(batch, **arguments)
    model_trace = poutine.trace(poutine.replay(intervene(model, do), guide_trace)).get_trace(batch, **arguments)
    check_sites(model, guide_trace, do)
    graph = model.graph
    log_p, log_q = _site_log_probs(model_trace), _site_log_probs(guide_trace)
    shared = None
    if graph.m is not None and graph.m.scope != "row" and graph.m.name in log_p:
        shared = (log_p.pop(graph.m.name) - log_q.pop(graph.m.name)).reshape(samples, -1)
    context_nodes = {n for n in graph.order if n != graph.target and n not in graph.blanket.children}
    zero = torch.zeros((), dtype=model.like.dtype, device=model.like.device)
    context = sum((log_p.pop(n) for n in context_nodes if n in log_p), zero)
    if power != 1:
        log_p |= {n: power * log_p[n] for n in graph.blanket.children}
    w = sum(log_p.values(), zero) - sum(log_q.values(), zero)
    return _weights(_full(w, model, batch, samples, classes), shared, context)


def _site_log_probs(trace: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample":
            log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            found[name] = scale_and_mask(log_prob, 1.0, site["mask"])
    return found


def check_sites(model: CAMAModel, guide_trace: Any, do: Do) -> None:
    """Says which site a custom guide lacks or has too many of.

    Raises:
        ValueError: the guide's sites are not the model's latents.
    """
    latents = {latent.name for latent in (model.graph.z, model.graph.m) if latent is not None} - set(do)
    found = {
        n for n, s in guide_trace.nodes.items() if s["type"] == "sample" and type(s["fn"]).__name__ != "_Subsample"
    }
    for name in sorted(latents - found):
        raise ValueError(f"the guide has no site {name!r}: the model samples {sorted(latents)}, found {sorted(found)}")
    for name in sorted(found - latents):
        raise ValueError(f"the guide samples {name!r}, which the model has not: expected {sorted(latents)}")


def _grouped(
    model: CAMAModel,
    guide: CAMAGuide,
    batch: Batch,
    do: Do,
    samples: int,
    classes: bool,
    proposals: Mapping[str, TorchDistribution],
    power: float,
) -> LogWeights:
    graph = model.graph
    zero = torch.zeros((), dtype=model.like.dtype, device=model.like.device)
    ratio, shared = zero, None
    m: Tensor | None = None
    if graph.m is not None:
        if graph.m.name in do:
            m = torch.as_tensor(do[graph.m.name])
        else:
            q = proposals.get(graph.m.name) or guide.m_dist(batch)
            sites = q.batch_shape[-1] if q.batch_shape else 1
            q = q.expand((samples, 1, sites))
            m = draw(q, graph.m.name)
            m_ratio = _ratio(model.m_dist, q, m)
            if graph.m.scope == "row":
                ratio = ratio + m_ratio
            else:
                shared = m_ratio.reshape(samples, -1)
    z: Tensor | None = None
    if graph.z is not None:
        width = model.classes if classes else 1
        q = proposals.get(graph.z.name) or guide.z_dist(batch, guide.target_value(batch, classes), m)
        single = samples == width == 1 and len(q.batch_shape) < 2  # dimensions of one cost a view in every operation
        q = q.expand((batch.rows,) if single else (samples, width, batch.rows))
        z = draw(q, graph.z.name)
        ratio = ratio + _ratio(model.z_dist, q, z)
    likelihood, context = model.log_prob(batch, z, m, samples=samples, classes=classes, power=power)
    return _weights(_full(likelihood + ratio, model, batch, samples, classes), shared, context)


def _ratio(prior: Callable[[], TorchDistribution], q: TorchDistribution, value: Tensor) -> Tensor:
    """log p - log q of a reparameterised draw from q, p standard normal; a normal q's in closed form.

    With value = loc + scale * eps, log q is eps's density less log scale: gradients through value and loc cancel.
    """
    normal = getattr(q, "base_dist", None)
    if type(normal) is not dist.Normal or len(q.event_shape) != 1:
        return prior().log_prob(value) - q.log_prob(value)
    with torch.no_grad():
        squared = ((value - normal.loc) / normal.scale).square_()
    return (0.5 * (squared - value.square()) + normal.scale.log()).sum(-1)


def _weights(w: Tensor, shared: Tensor | None, context: Tensor) -> LogWeights:
    """Moves the deviations of log p(a, c) into the weights: a draw that explains a and c better counts for more."""
    if context.dim() > 1:
        context = context.expand_as(w)
        first = context[:1, :1]  # exact zeros where nothing varies
        deviation = context - first
        deviation = deviation - (torch.logsumexp(deviation, (0, 1)) - math.log(w.shape[0] * w.shape[1]))
        w, context = w + deviation, context - deviation
    return LogWeights(w, shared, context)


def _full(w: Tensor, model: CAMAModel, batch: Batch, samples: int, classes: bool) -> Tensor:
    return w.expand(samples, model.classes if classes else 1, batch.rows)


def shared_draw(model: CAMAModel, guide: CAMAGuide) -> tuple[Tensor, Tensor]:
    """One reparameterised draw of a shared m, for ``do`` of all its rows, and its ratio.

    Returns:
        m, ``(dim,)`` or ``(sites, dim)``; log p(m) - log q(m), ``(1, sites)``.
    """
    q = guide.m_dist(None)
    m = q.rsample()
    return m, (model.m_dist().log_prob(m) - q.log_prob(m)).reshape(1, -1)


def shared_mean(guide: CAMAGuide) -> Tensor:
    """The mean of a shared m's posterior, ``(dim,)`` or ``(sites, dim)``."""
    mean: Tensor = guide.m_dist(None).mean
    return mean


# reductions ---------------------------------------------------------------------------------------------------------


def mean_bound(weights: LogWeights) -> Tensor:
    """mean_k w_k: the ELBO of eqs. 3 and 4, ``(classes, rows)``."""
    return weights.w.mean(0)


def importance_bound(weights: LogWeights) -> Tensor:
    """logsumexp_k w_k - log K: tightens with K, in expectation, ``(classes, rows)``."""
    return torch.logsumexp(weights.w, 0) - math.log(weights.w.shape[0])


def context_of(weights: LogWeights) -> Tensor:
    """log p(a, c) of every row, mean over draws, ``(rows,)``."""
    return weights.context.expand_as(weights.w).mean((0, 1))


def marginal(bound: Tensor, log_prior_ratio: Tensor | None = None) -> Tensor:
    """logsumexp over classes of a ``(classes, rows)`` bound: eq. 7, ``(rows,)``.

    Args:
        log_prior_ratio: ``(classes,)``, log of new over old class proportions.
    """
    if log_prior_ratio is not None:
        bound = bound + log_prior_ratio[:, None]
    return torch.logsumexp(bound, 0)


def shared_term(weights: LogWeights, site: Tensor | None, counts: Tensor | None) -> Tensor:
    """A shared m's part of every row's bound, mean over samples: ``(rows,)``, zero in scope row and under ``do``.

    Args:
        site: of every row, where the scope is a column.
        counts: rows of every site (or of the dataset) in the whole data, ``(sites,)``; None takes this batch's.
    """
    rows = weights.w.shape[-1]
    if weights.shared is None:
        return weights.w.new_zeros(rows)
    per_site = weights.shared.mean(0)
    index = torch.zeros(rows, dtype=torch.long, device=per_site.device) if site is None else site
    known = index >= 0
    index = index.clamp_min(0)
    if counts is None:
        counts = torch.bincount(index[known], minlength=len(per_site))
    return (per_site / counts.clamp_min(1).to(per_site))[index] * known


def class_log_probs(weights: LogWeights, *, m_samples: int = 1, log_prior_ratio: Tensor | None = None) -> Tensor:
    """log p(y | x, a, c), eq. 6, ``(classes, rows)``.

    Under a shared m the samples come as ``m_samples`` draws of m times the draws of z given each; q(m) is already the
    posterior given all rows, so p(y | x, m_k) is averaged over it with no ratio.
    """
    w = weights.w
    if log_prior_ratio is not None:
        w = w + log_prior_ratio[:, None]
    if weights.shared is None:
        return torch.log_softmax(torch.logsumexp(w, 0), 0)
    given_m = w.unflatten(0, (m_samples, -1))
    each = torch.log_softmax(torch.logsumexp(given_m, 1), 1)
    return torch.logsumexp(each, 0) - math.log(m_samples)


# Pyro's interface ---------------------------------------------------------------------------------------------------


class _RowELBO(ELBO):
    """Sums a per-row bound over the rows of a batch; differentiable, through Pyro's traces."""

    classes = False

    def __init__(self, *, samples: int = 1, do: Do | None = None, rows: int | Tensor | None = None) -> None:
        """
        Args:
            samples: draws of the latents.
            do: an intervention on the manipulation latent, e.g. ``{"m": 0.0}``.
            rows: of the whole data, where batches are parts of it and m is shared; of every site, ``(sites,)``, where
                its scope is a column.
        """
        super().__init__(num_particles=samples)  # type: ignore[no-untyped-call]
        self.do = do
        self.rows = rows

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        """Pyro's ELBO wants one of every subclass; the weights here come of traces with plates of their own."""
        return get_importance_trace("flat", float("inf"), model, guide, args, kwargs)

    def bound(self, weights: LogWeights, model: CAMAModel) -> Tensor:
        """``(rows,)``."""
        return mean_bound(weights)[0]

    def intervention(self, model: CAMAModel) -> Do | None:
        """What ``do`` sets."""
        return self.do

    def differentiable_loss(self, model: CAMAModel, guide: CAMAGuide, data: Data) -> Tensor:
        batch = as_batch(data, None)
        do = self.intervention(model)
        weights = log_weights(model, guide, batch, do=do, samples=self.num_particles, classes=self.classes, trace=True)
        counts = None
        if self.rows is not None and weights.shared is not None:
            counts = torch.as_tensor(self.rows, device=weights.w.device).reshape(-1)
            sites = weights.shared.shape[-1]
            if len(counts) != sites:
                raise ValueError(f"rows: expected a number for each of {sites} sites, found {self.rows}")
        rows = self.bound(weights, model) + shared_term(weights, batch.site, counts)
        return -(rows + context_of(weights)).sum()

    def loss(self, model: CAMAModel, guide: CAMAGuide, data: Data) -> float:
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, data))

    def loss_and_grads(self, model: CAMAModel, guide: CAMAGuide, data: Data) -> float:
        loss = self.differentiable_loss(model, guide, data)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())


class InterventionELBO(_RowELBO):
    """Eq. 3, for clean labelled rows: do(m=0), or do(m=m0) for a known manipulation.

    Example::

        svi = pyro.infer.SVI(cama.model, cama.guide, pyro.optim.Adam({"lr": 3e-3}), loss=InterventionELBO())
        svi.step(cama.encode(frame))
    """

    def intervention(self, model: CAMAModel) -> Do | None:  # noqa: D102
        return {model.graph.m.name: 0.0} if self.do is None and model.graph.m is not None else self.do


class JointELBO(_RowELBO):
    """Eq. 4, for labelled rows under an unknown manipulation."""


class MarginalELBO(_RowELBO):
    """Eq. 7, for rows without labels: logsumexp over the classes."""

    classes = True

    def bound(self, weights: LogWeights, model: CAMAModel) -> Tensor:  # noqa: D102
        return marginal(mean_bound(weights))
