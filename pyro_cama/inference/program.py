"""The model as a structural program, and rows in it as they were inferred: for counterfactuals, as ChiRho asks them.

Abduction is done here, action and prediction (Pearl 2009, *Causality*, 7.1) are handlers of ChiRho's: y, z and m of
rows are drawn from their posterior, a reading is a function of its causes and of its own noise, and all of it is
conditioned on so that worlds may split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama._arguments import expect_whole
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import intervene
from pyro_cama.handlers.structural import Structural
from pyro_cama.inference.bounds import sites_at_rest
from pyro_cama.inference.class_posterior import class_posterior
from pyro_cama.inference.do import encode_do
from pyro_cama.model.pair import ModelGuidePair

Program = Callable[..., dict[str, Tensor]]


def as_program(pair: ModelGuidePair, data: Table | Batch | None, *, samples: int, seed: int | None) -> Program:
    """Returns the model as a structural program, see :meth:`pyro_cama.CAMA.as_program`."""
    if data is None:

        def program(data: Any = None, **options: Any) -> dict[str, Tensor]:
            with Structural():
                values: dict[str, Tensor] = pair.model(data, **options)
            return values

        return program
    expect_whole("as_program", "samples", samples)
    try:
        from chirho.observational.handlers import condition
    except ImportError as error:
        raise ImportError("as_program(rows) conditions by ChiRho; run: pip install 'pyro_cama[interop]'") from error
    batch = pair.encode(data)
    with torch.no_grad(), fast(), pair.seeded(seed):
        known = _inferred(pair, batch, samples)
    nothing = Batch({}, {}, batch.site, batch.rows)

    def given() -> dict[str, Tensor]:
        with Structural():
            values: dict[str, Tensor] = pair.model(nothing, samples=samples)
        return values

    conditioned: Program = condition(given, data=known)
    return conditioned


def _inferred(pair: ModelGuidePair, batch: Batch, samples: int) -> dict[str, Tensor]:
    """Every node and latent of the rows, ``(samples, 1, rows, ...)``: as measured, else drawn given what was."""
    graph, target = pair.graph, pair.graph.target
    labels = _labels(pair, batch, samples)
    values = {**batch.values, target: labels}
    observed = {name: known for name, known in batch.observed.items() if name != target}
    labelled = Batch(values, observed, batch.site, batch.rows)
    at_rest = encode_do(pair, "auto", batch.rows) or {}
    guided = poutine.trace(intervene(pair.guide, at_rest)).get_trace(labelled, samples=samples)
    found: dict[str, Any] = {latent.name: guided.nodes[latent.name]["value"] for latent in graph.latents
             if latent.name not in at_rest}  # fmt: skip
    found |= {name: value.expand(samples, 1, 1, -1) for name, value in at_rest.items()}
    for latent in graph.manipulations:
        if latent.site_column is not None and latent.name not in at_rest:  # of sites of clean rows
            found[latent.name] = found[latent.name].masked_fill(sites_at_rest(pair.guide)[:, None], 0.0)
    whole = {name: value for name, value in labelled.values.items() if name not in observed}
    parts = {name: (labelled.values[name], known) for name, known in observed.items()}
    with poutine.condition(data={**found, **whole}), _Filled(parts):
        drawn = pair.model(Batch({}, {}, batch.site, batch.rows), samples=samples)
    return found | {name: value.expand(samples, 1, batch.rows, *graph.nodes[name].event_shape)
                    for name, value in drawn.items()}  # fmt: skip


def _labels(pair: ModelGuidePair, batch: Batch, samples: int) -> Tensor:
    """Labels as they are known, else drawn from p(y | x, a, c), encoded, ``(samples, 1, rows)``."""
    target = pair.graph.target
    given = batch.values.get(target)
    known = torch.ones(batch.rows, dtype=torch.bool) if given is not None else torch.zeros(batch.rows, dtype=torch.bool)
    known = batch.observed.get(target, known).to(pair.device)
    if bool(known.all()):
        assert given is not None
        return given.expand(samples, 1, batch.rows)
    p = class_posterior(pair, batch.without(target), "auto", "train")
    told = torch.as_tensor(p, device=pair.device).nan_to_num(1.0)  # of rows without probabilities any class
    drawn = torch.distributions.Categorical(probs=told).sample((samples, 1))
    if given is None:
        return drawn.to(pair.model.like) if pair.graph.nodes[target].type == "binary" else drawn
    return torch.where(known, given, drawn.to(given))


class _Filled(Messenger):
    """Gives sites their known entries, and draws the others."""

    def __init__(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.parts = parts

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.parts:
            value, known = self.parts[msg["name"]]
            mask = known.reshape(*known.shape, *[1] * msg["fn"].event_dim)
            msg["value"], msg["done"] = torch.where(mask, value, msg["fn"].sample().to(value)), True
