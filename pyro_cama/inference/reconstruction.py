"""Rows as they would have been under another intervention: m, y and z inferred, then m set, and effects follow causes.

What a child's effects read of it is its own reading carried over: the inferred m undone, moved with what its own causes
do to it, the new m applied.  Its noise stays its own (abduction, action, prediction; Pearl 2009, *Causality*, 7.1).
"""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama._arguments import expect_whole
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.distributions import mean_of
from pyro_cama.inference.chunks import row_chunks
from pyro_cama.inference.do import UserDo, clean_do, do_at_means, do_of_rows, encode_do
from pyro_cama.inference.log_weights import Request, traced_draws
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.groups import MovedGroup
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import joined

GivenDo = dict[str, Tensor] | None


def reconstruct(pair: ModelGuidePair, data: Table, do: Literal["clean"] | UserDo, *, samples: int) -> pd.DataFrame:
    """Returns the children as they would have been under ``do``; see :meth:`pyro_cama.CAMA.reconstruct`."""
    expect_whole("reconstruct", "samples", samples)
    batch = pair.encode(data, target="ignore")
    seen = do_at_means(pair, encode_do(pair, "auto"))
    given = encode_do(pair, clean_do(pair.graph) if isinstance(do, str) and do == "clean" else do, batch.rows)
    with torch.no_grad(), fast(), pair.seeded(), common_noise(pair.settings.seed):
        frames = [
            _part(pair, batch.select(rows), do_of_rows(pair, seen, rows), do_of_rows(pair, given, rows), samples)
            for rows in row_chunks(pair, batch, samples)
        ]
    found = pd.concat(frames, ignore_index=True)
    return found.set_index(data.index) if isinstance(data, pd.DataFrame) else found


@torch.no_grad()
def undone_readings(pair: ModelGuidePair, batch: Batch) -> dict[str, Tensor]:
    """Returns readings with m's mechanism undone, at the mean of what is known of m, by child; encoded.

    Of discrete children probabilities, ``(rows, levels)``, or that of 1.  Noise that m adds is in them shrunk, and all
    else that makes readings differ is as it was; what the model expects of a child is :func:`reconstruct`'s.
    """
    causes, m = Causes(pair.model, batch), pair.graph.m
    causes.values.update(batch.values)
    if m is not None:
        known = encode_do(pair, "auto") or {}
        inferred = [latent.name for latent in m.each if latent.name not in known]
        for latent, q in zip(m.each, pair.guide.m_dists(batch, inferred), strict=True):
            if q is not None:
                known[latent.name] = mean_of(q, f"q({latent.name})")
        causes.set_m(joined(m, known, batch.site))
    return {name: causes.undone(name) for name in pair.graph.blanket.children if name in batch.values}


def _part(pair: ModelGuidePair, batch: Batch, seen: GivenDo, given: GivenDo, samples: int) -> pd.DataFrame:
    """The children of a part of the rows."""
    graph, model = pair.graph, pair.model
    weights, drawn = traced_draws(model, pair.guide, batch, Request(seen or {}, samples, classes=True))
    # mixed over samples as well as classes: the weights are each draw's share of the posterior
    share = torch.softmax(weights.w.flatten(0, 1), 0)
    of_m = {**drawn, **(seen or {})}
    causes = _causes(model, batch, drawn, of_m, samples)
    if given:
        before = causes
        causes = _causes(model, batch, drawn, of_m | given, samples)
        _carry_over(model, before, causes)
    frame: dict[str, Any] = {}
    for name in graph.blanket.children:
        node = graph.nodes[name]
        mean = _mean(node, model.node_dist(name, causes))
        event = len(node.event_shape) + (node.type == "categorical")
        mean = mean.expand(samples, len(pair.classes), batch.rows, *mean.shape[mean.dim() - event :]).flatten(0, 1)
        mixed = (share.reshape(*share.shape, *[1] * event) * mean).sum(0)
        if node.type == "categorical":
            mixed = mixed.argmax(-1)
        elif node.type == "binary":
            mixed = (mixed > 0.5).to(mixed)
        decoded = pair.encoder.decode(name, mixed)
        frame[name] = decoded if decoded.ndim == 1 else list(decoded)
    return pd.DataFrame(frame)


def _causes(model: CAMAModel, batch: Batch, drawn: dict[str, Tensor], of_m: dict[str, Tensor], samples: int) -> Causes:
    """Causes at the draws that the weights belong to, and at an m."""
    graph = model.graph
    causes = Causes(model, batch, drawn[graph.z.name] if graph.z else None, samples)
    causes.values.update({name: drawn[name] for name in graph.order})
    if graph.m is not None:
        causes.set_m(joined(graph.m, of_m, batch.site))
    return causes


def _carry_over(model: CAMAModel, before: Causes, after: Causes) -> None:
    """Sets what effects read in ``after``, whose m is another one, causes first."""
    graph = model.graph
    m, other = graph.require_m(), set[str]()
    for name in graph.order:
        if name == graph.target or not model.effects(name):
            continue
        node, group = graph.nodes[name], model.group_of[name]
        in_merge = isinstance(group, MovedGroup) and group.mechanism.in_merge
        follows = in_merge or bool(other & set(graph.parents_of(name)))
        if not (follows or name in m.children):
            continue
        clean = before.undone(name)
        if follows:
            clean = _followed(node, clean, before.distribution(name), after.distribution(name))
        after.values[name] = clean
        if after.theta is not None and isinstance(group, MovedGroup) and group.theta_size:
            point = after.measured(_point(node, clean, model.like), group, group.component(name))
            after.values[name] = _mean(node, point)
        after.clean[name] = clean
        if follows or m.affects[name] == "quantity":
            other.add(name)


def _followed(node: Node, clean: Tensor, before: TorchDistribution, after: TorchDistribution) -> Tensor:
    """A clean value under other causes: as many scales from its location as it was; of what has none, the mean."""
    if node.type != "continuous":
        return _mean(node, after)
    if hasattr(before, "loc") and hasattr(before, "scale"):
        followed: Tensor = after.loc + (clean - before.loc) / before.scale * after.scale
        return followed
    return clean + _mean(node, after) - _mean(node, before)


def _mean(node: Node, d: TorchDistribution) -> Tensor:
    """The mean of a node's distribution, of levels their probabilities."""
    probs: Tensor | None = d.probs if node.type == "categorical" else None
    return mean_of(d, f"node {node.name!r}") if probs is None else probs


def _point(node: Node, value: Tensor, like: Tensor) -> TorchDistribution:
    """A distribution of a node's kind with the value as its mean, for a mechanism to move."""
    if node.type == "categorical":
        return dist.Categorical(probs=value if value.is_floating_point() else F.one_hot(value, node.classes).to(like))
    if node.type == "binary":
        return dist.Bernoulli(probs=value)
    if node.type == "count":
        return dist.Poisson(value)
    return dist.Normal(value, torch.ones_like(value))
