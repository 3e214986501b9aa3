"""Per-row log-weights, of which every bound and every prediction is a reduction: the one place where ``do`` is applied.

    w_k(y; do) = log p(x, y, z_k, m_k | a, c) - log q(z_k, m_k | x, y, a, c)

for one row, one class, one sample; with ``do(m=m0)`` m leaves both sums.  A shared m (scope dataset or column) stays
out of ``w``: its own ratio is counted once per dataset or site, outside the sum over classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import draw_site
from pyro_cama.handlers.interventions import Do, Proposed, Regime, cut_from_class, intervene
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide, shared_first
from pyro_cama.model.linear_style import sums_out
from pyro_cama.model.plates import EncodedRows, as_batch, joined


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


def log_weights(
    model: CAMAModel,
    guide: CAMAGuide,
    data: EncodedRows,
    *,
    do: Do | None = None,
    samples: int = 1,
    classes: bool = False,
    trace: bool | None = None,
    proposals: Mapping[str, TorchDistribution] | None = None,
    power: float = 1.0,
    m_samples: int | None = None,
    regime: Regime = "interventional",
    paired: bool = False,
) -> LogWeights:
    """Returns the log-weights of every sample, class and row.

    Args:
        do: values of manipulation latents by name, ``(dim,)`` or ``(rows, dim)``, for model and guide alike; those that
            are not given are drawn.
        regime: of an m that goes with the class: "observational" weighs it by p(m | y), as it came about where nobody
            intervened; "interventional" cuts that edge, and p(m) tells nothing of the class.
        classes: weigh every class of the target instead of the rows' labels.
        proposals: by latent, what draws it in the guide's place: m in scope row, batch shape ``(rows,)``, and z, with
            one that broadcasts to ``(samples, classes, rows)``.
        power: of the children's densities, p(x | y, z, m, a, c)^power: below 1 for a model that is wrong in detail
            (Miller and Dunson 2019, *Robust Bayesian inference via coarsening*).
        m_samples: draws of a shared m, each for ``samples / m_samples`` samples, see :func:`draw_in_runs`; None draws
            m for every sample.
        paired: one noise of z for all classes of a row and sample, where z is normal: what the classes have in common
            then cancels in p(y | x), as it does in predictions.
        trace: True goes through Pyro's traces, False scores groups of nodes whole; None takes the quick way wherever
            no subclass has changed what a site is.  Both give the same numbers.  The quick way draws no linear style
            where :func:`is_exact` holds: every draw would give the same weight.
    """
    batch = as_batch(data, None)
    do = {name: _value(model, name, value) for name, value in (do or {}).items()}
    if trace is None:
        trace = not is_grouped(model, guide) or bool(do.keys() - {m.name for m in model.graph.manipulations})
    given = Request(do, samples, classes, proposals or {}, power, _run(model, samples, m_samples), regime, paired)
    if trace:
        return traced_draws(model, guide, batch, given)[0]
    exact = not given.proposals and power == 1 and is_exact(model, guide) and causes_known(model, batch, classes)
    return _collapsed(model, guide, batch, given) if exact else _grouped(model, guide, batch, given)


@dataclass(frozen=True)
class Request:
    """What is asked of a batch; all but ``run`` are the arguments of :func:`log_weights`.

    Attributes:
        run: samples that share a draw of m.
    """

    do: Do
    samples: int = 1
    classes: bool = False
    proposals: Mapping[str, TorchDistribution] = field(default_factory=dict)
    power: float = 1.0
    run: int = 1
    regime: Regime = "interventional"
    paired: bool = False


def goes_with_class(model: CAMAModel, given: Request) -> bool:
    """Returns whether m is weighed by p(m | y), and not by p(m)."""
    m = model.graph.m
    return given.regime == "observational" and m is not None and m.goes_with_class and m.name not in given.do


def _run(model: CAMAModel, samples: int, m_samples: int | None) -> int:
    """How many samples share a draw of m."""
    if m_samples is None or model.graph.m is None or model.graph.m.per_row:
        return 1
    if samples % m_samples:
        raise ValueError(f"log_weights: expected samples, {samples}, to be a multiple of m_samples, {m_samples}")
    return samples // m_samples


class _Runs(Messenger):
    """Draws a site by :func:`draw_in_runs`."""

    def __init__(self, site: str, run: int) -> None:
        super().__init__()
        self.site, self.run = site, run

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["value"], msg["done"] = draw_in_runs(msg["fn"], self.site, self.run), True


class _Pairs(Messenger):
    """Draws a site by :func:`draw_paired`."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["value"], msg["done"] = draw_paired(msg["fn"], self.site), True


def draw_paired(q: TorchDistribution, name: str) -> Tensor:
    """Draws a site, batch shape ``(samples, classes, rows)``, of a normal with one noise for all classes."""
    base = getattr(q, "base_dist", None)
    if type(base) is not dist.Normal or len(q.batch_shape) != 3:
        return draw_site(q, name)
    samples, _, rows = q.batch_shape
    noise = torch.randn(samples, 1, rows, *q.event_shape, dtype=base.loc.dtype, device=base.loc.device)
    value: Tensor = base.loc + base.scale * noise
    return value


def draw_in_runs(q: TorchDistribution, name: str, run: int) -> Tensor:
    """Draws a site as :func:`draw_site` does, but every draw stands for ``run`` samples, one after the other.

    A normal's second half of draws are the first half's mirror images, an odd one the mean: a few draws of m then agree
    with q in the mean, and what is linear in m comes out exactly (antithetic variates; Hammersley and Morton 1956).
    """
    value = draw_site(q, name)
    if run == 1:
        return value
    value = value[::run]
    half, odd = divmod(len(value), 2)
    if type(getattr(q, "base_dist", None)) is dist.Normal:
        value = torch.cat([value[:half], q.mean[:odd], 2 * q.mean[:half] - value[:half]])
    return value.repeat_interleave(run, 0)


_SITES = ("forward", "node_dist", "z_dist", "m_dist", "m_given")


def is_grouped(model: CAMAModel, guide: CAMAGuide) -> bool:
    """Returns whether groups may be scored whole: no subclass overrides a site of the model, or the guide's program."""
    ours = all(getattr(type(model), n) is getattr(CAMAModel, n) for n in _SITES)
    return ours and type(guide).forward is CAMAGuide.forward


def is_exact(model: CAMAModel, guide: CAMAGuide) -> bool:
    """Returns whether the guide's z is the model's own posterior, so that a weight does not depend on its draw."""
    return is_grouped(model, guide) and type(guide).z_dist is CAMAGuide.z_dist and sums_out(model.groups)


def causes_known(model: CAMAModel, batch: Batch, classes: bool) -> bool:
    """Returns whether no cause of another node is missing in any row: one that is has to be drawn."""
    graph = model.graph
    causes = [name for name in graph.order if model.effects(name) and not (classes and name == graph.target)]
    return all(name in batch.values and name not in batch.observed for name in causes)


def _value(model: CAMAModel, name: str, value: Tensor | float) -> Tensor:
    given = torch.as_tensor(value, dtype=model.like.dtype, device=model.like.device)
    latent = next((m for m in model.graph.manipulations if m.name == name), None)
    return given.expand(latent.dim) if latent is not None and given.dim() == 0 else given


def traced_draws(
    model: CAMAModel, guide: CAMAGuide, batch: Batch, given: Request
) -> tuple[LogWeights, dict[str, Tensor]]:
    """Returns the log-weights through Pyro's traces, and the value of every site they belong to, by name.

    A site with missing entries has those that were drawn, where it causes anything.
    """
    graph, samples, classes = model.graph, given.samples, given.classes
    # a plate of one costs every site another expansion
    arguments = {"samples": samples if samples > 1 or classes else None, "classes": classes}
    drawn: Callable[..., Any] = intervene(guide, given.do)
    if given.proposals:
        drawn = Proposed(given.proposals)(drawn)
    if given.run > 1:
        for latent in graph.manipulations:
            drawn = _Runs(latent.name, given.run)(drawn)
    if given.paired and graph.z is not None:
        drawn = _Pairs(graph.z.name)(drawn)
    guide_trace = poutine.trace(drawn).get_trace(batch, **arguments)
    program: Callable[..., Any] = model
    if graph.m is not None and graph.m.goes_with_class and given.regime == "interventional":
        program = cut_from_class(model, graph.m.name, model.m_dist())
    replayed = poutine.replay(intervene(program, given.do), guide_trace)
    model_trace = poutine.trace(replayed).get_trace(batch, **arguments)
    check_sites(model, guide_trace, given.do)
    log_p, log_q = _site_log_probs(model_trace), _site_log_probs(guide_trace)
    values: dict[str, Any] = {name: model_trace.nodes[name]["value"] for name in log_p}
    shared = None
    for latent in graph.manipulations:
        if not latent.per_row and latent.name in log_p:
            own = (log_p.pop(latent.name) - log_q.pop(latent.name)).reshape(samples, -1)
            shared = own if shared is None else shared + own
    context_nodes = {n for n in graph.order if n != graph.target and n not in graph.blanket.children}
    zero = torch.zeros((), dtype=model.like.dtype, device=model.like.device)
    context = sum((log_p.pop(n) for n in context_nodes if n in log_p), zero)
    if given.power != 1:
        log_p |= {n: given.power * log_p[n] for n in graph.blanket.children}
    w = sum(log_p.values(), zero) - sum(log_q.values(), zero)
    return _weights(_full(w, model, batch, samples, classes), shared, context), values


def _site_log_probs(trace: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample":
            log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            found[name] = scale_and_mask(log_prob, 1.0, site["mask"])
    return found


def check_sites(model: CAMAModel, guide_trace: Any, do: Do) -> None:
    """Refuses a custom guide that lacks a site or has too many.

    Raises:
        ValueError: the guide's sites are not the model's latents.
    """
    latents = {latent.name for latent in model.graph.latents} - set(do)
    found = {
        n for n, s in guide_trace.nodes.items() if s["type"] == "sample" and type(s["fn"]).__name__ != "_Subsample"
    }
    for name in sorted(latents - found):
        raise ValueError(f"the guide has no site {name!r}: the model samples {sorted(latents)}, found {sorted(found)}")
    for name in sorted(found - latents):
        raise ValueError(f"the guide samples {name!r}, which the model has not: expected {sorted(latents)}")


def _grouped(model: CAMAModel, guide: CAMAGuide, batch: Batch, given: Request) -> LogWeights:
    samples, classes = given.samples, given.classes
    z, m, ratio, shared = draw_latents(model, guide, batch, given)
    causes = model.causes(batch, z, m, samples=samples, classes=classes)
    likelihood, context = model.log_prob_given(causes, batch, classes=classes, power=given.power)
    if goes_with_class(model, given):
        assert m is not None
        ratio = ratio + model.m_given(causes.values[model.graph.target]).log_prob(m)
    return _weights(_full(likelihood + ratio, model, batch, samples, classes), shared, context)


def _collapsed(model: CAMAModel, guide: CAMAGuide, batch: Batch, given: Request) -> LogWeights:
    """Weights with the style summed out; a draw of m serves all the samples that share it."""
    samples, run = given.samples, given.run
    m, ratio, shared = draw_m(model, guide, batch, given)
    drawn = any(latent.name not in given.do for latent in model.graph.manipulations)
    if drawn and run > 1:
        assert m is not None
        m = m[::run]
    causes = model.causes(batch, None, m, samples=samples, classes=given.classes)
    likelihood, context = model.log_prob_given(causes, batch, classes=given.classes)
    if goes_with_class(model, given):
        assert m is not None
        ratio = ratio + model.m_given(causes.values[model.graph.target]).log_prob(m)
    w = likelihood + ratio
    if drawn and run > 1:
        w = w.repeat_interleave(run, 0)
        context = context.repeat_interleave(run, 0) if context.dim() > 2 and len(context) > 1 else context
    return _weights(_full(w, model, batch, samples, given.classes), shared, context)


class Latents(NamedTuple):
    """Draws of the latents from the guide, and log p - log q of them.

    Attributes:
        z: as drawn, ``(samples, classes, rows, dim)``, or fewer of the dimensions of one; None in a graph without.
        m: as drawn or given by ``do``; None in a graph without.
        ratio: of what every row has its own, broadcastable to ``(samples, classes, rows)``.
        shared: of a shared m, see :class:`LogWeights`.
    """

    z: Tensor | None
    m: Tensor | None
    ratio: Tensor
    shared: Tensor | None


def draw_latents(model: CAMAModel, guide: CAMAGuide, batch: Batch, given: Request) -> Latents:
    """Draws z and m from the guide without a trace."""
    samples, classes, proposals = given.samples, given.classes, given.proposals
    graph = model.graph
    m, ratio, shared = draw_m(model, guide, batch, given)
    z: Tensor | None = None
    if graph.z is not None:
        width = model.classes if classes else 1
        q = proposals.get(graph.z.name) or guide.z_dist(batch, guide.target_value(batch, classes), m)
        single = samples == width == 1 and len(q.batch_shape) < 2  # dimensions of one cost a view in every operation
        q = q.expand((batch.rows,) if single else (samples, width, batch.rows))
        z = draw_paired(q, graph.z.name) if given.paired else draw_site(q, graph.z.name)
        ratio = ratio + _ratio(model.z_dist(), q, z)
    return Latents(z, m, ratio, shared)


def draw_m(
    model: CAMAModel, guide: CAMAGuide, batch: Batch, given: Request
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Draws m from the guide, or takes what ``do`` gives: m, ratio and shared of :class:`Latents`."""
    graph, shared = model.graph, None
    ratio = torch.zeros((), dtype=model.like.dtype, device=model.like.device)
    if graph.m is None:
        return None, ratio, None
    values = {name: torch.as_tensor(value) for name, value in given.do.items()}
    for latent in shared_first(graph):
        name = latent.name
        if name in values:
            continue
        q = given.proposals.get(name) or guide.posterior(batch, latent, values)
        sites = q.batch_shape[-1] if q.batch_shape else 1
        q = q.expand((given.samples, 1, sites))
        values[name] = draw_in_runs(q, name, given.run)
        if latent.goes_with_class:  # p(m | y) is added where y is at hand
            own = -q.log_prob(values[name])
            own = own if goes_with_class(model, given) else own + model.prior(latent).log_prob(values[name])
        else:
            own = _ratio(model.prior(latent), q, values[name])
        if latent.per_row:
            ratio = ratio + own
        else:
            own = own.reshape(given.samples, -1)
            shared = own if shared is None else shared + own
    return joined(graph.m, values, batch.site), ratio, shared


def _ratio(prior: TorchDistribution, q: TorchDistribution, value: Tensor) -> Tensor:
    """log p - log q of a reparameterised draw from q, p standard normal; a normal q's in closed form.

    With value = loc + scale * eps, log q is eps's density less log scale: gradients through value and loc cancel.
    """
    normal = getattr(q, "base_dist", None)
    if type(normal) is not dist.Normal or len(q.event_shape) != 1:
        return prior.log_prob(value) - q.log_prob(value)
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
