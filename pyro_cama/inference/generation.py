"""Rows that the model draws, and rows as they would have been under another intervention."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import pandas as pd
import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama._arguments import expect_whole
from pyro_cama._messages import shown
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import Do, intervene
from pyro_cama.inference.chunks import row_chunks
from pyro_cama.inference.do import UserDo, clean_do, do_of_rows, encode_do
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import GreyBernoulli
from pyro_cama.model.generative_model import Causes
from pyro_cama.model.pair import ModelGuidePair


class _Greys(Messenger):
    """Inside, a Bernoulli image is its mean: no grey image looks like a draw of black and white pixels."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(getattr(msg["fn"], "base_dist", None), GreyBernoulli):
            msg["value"], msg["done"] = msg["fn"].mean, True


def ancestral_sample(
    pair: ModelGuidePair, do: Do | None, rows: int, site: Tensor | None = None, *, greys: bool = True
) -> Batch:
    """Draws rows from the model under ``do``, labels among them.

    Args:
        do: an intervention on m; None draws it too.
        rows: how many.
        site: of every row, where a column is m's scope.
        greys: a Bernoulli image is its mean, and no draw of black and white pixels.
    """
    nothing = Batch(values={}, observed={}, site=site, rows=rows)
    with torch.no_grad(), fast(), _Greys() if greys else nullcontext():
        drawn = intervene(pair.model, do)(nothing)
    values = {name: value.expand(rows, *pair.graph.nodes[name].event_shape) for name, value in drawn.items()}
    return Batch(values=values, observed={}, site=site, rows=rows)


def sample(pair: ModelGuidePair, n: int, do: UserDo, *, seed: int) -> pd.DataFrame:
    """Returns rows drawn from the model, in raw units; see :meth:`pyro_cama.CAMA.sample`."""
    expect_whole("sample", "n", n)
    expect_whole("sample", "seed", seed, 0)
    m = pair.graph.m
    given: dict[str, Any] = {}
    if do is not None and not isinstance(do, Mapping):
        raise ValueError(f"sample(do=...): expected a mapping of node or latent to value, found {shown(do)}")
    for name, value in (do or {}).items():
        if m and name == m.name:
            given |= encode_do(pair, {name: value}, n) or {}
        else:
            given[name] = _encode_value(pair, name, value)
    program = intervene(pair.model, {k: v for k, v in given.items() if m and k == m.name})
    nodes = {k: v for k, v in given.items() if not (m and k == m.name)}
    if nodes:
        program = poutine.do(program, data=nodes)
    with torch.no_grad(), pair.seeded(seed), pyro.validation_enabled(False):
        values = program(rows=n)
    frame = {}
    for name in pair.graph.order:
        node = pair.graph.nodes[name]
        decoded = pair.encoder.decode(name, values[name].expand(n, *node.event_shape))
        frame[name] = list(decoded) if node.event_shape else decoded
    return pd.DataFrame(frame)


def _encode_value(pair: ModelGuidePair, name: str, value: Any) -> Tensor:
    if name not in pair.graph.order:
        raise ValueError(f"do: {name!r} is neither the manipulation latent nor a node of {list(pair.graph.order)}")
    return pair.encoder.encode_value(name, value).to(pair.device)


def reconstruct(pair: ModelGuidePair, data: Table, do: Literal["clean"] | UserDo, *, samples: int) -> pd.DataFrame:
    """Returns the children as they would have been under ``do``; see :meth:`pyro_cama.CAMA.reconstruct`."""
    expect_whole("reconstruct", "samples", samples)
    batch = pair.encode(data, target="ignore")
    seen = encode_do(pair, "auto")
    given = encode_do(pair, clean_do(pair.graph) if isinstance(do, str) and do == "clean" else do, batch.rows)
    frames = [
        _reconstructed(pair, batch.select(rows), do_of_rows(pair, seen, rows), do_of_rows(pair, given, rows), samples)
        for rows in row_chunks(pair, batch, samples)
    ]
    return pd.concat(frames, ignore_index=True)


def _reconstructed(pair: ModelGuidePair, batch: Batch, seen: UserDo, given: UserDo, samples: int) -> pd.DataFrame:
    """The children of a part of the rows."""
    m = pair.graph.m
    with torch.no_grad(), fast(), common_noise(pair.settings.seed):
        weights = log_weights(pair.model, pair.guide, batch, do=seen, samples=samples, classes=True)
        # mixed over samples as well as classes: the weights are each draw's share of the posterior
        share = torch.softmax(weights.w.flatten(0, 1), 0)
        guide = poutine.trace(intervene(pair.guide, seen)).get_trace(batch, samples=samples, classes=True)
        z = guide.nodes[pair.graph.z.name]["value"] if pair.graph.z else None
        causes = Causes(pair.model, batch, z, samples)
        if m is not None:
            inferred: dict[str, Any] = {m.name: guide.nodes[m.name]["value"]} if m.name in guide.nodes else {}
            causes.set_m({**inferred, **(seen or {}), **(given or {})}[m.name])
        causes.values.update(batch.values)
        causes.values[pair.graph.target] = pair.guide.target_value(batch, True)  # type: ignore[assignment]
        frame: dict[str, Any] = {}
        for name in pair.graph.blanket.children:
            node = pair.graph.nodes[name]
            d = pair.model.node_dist(name, causes)
            mean = d.probs if node.type == "categorical" else d.mean
            mean = mean.expand(samples, len(pair.classes), batch.rows, *mean.shape[d.batch_shape.__len__() :])
            flat = mean.flatten(0, 1)
            mixed = (share.reshape(*share.shape, *[1] * (flat.dim() - 2)) * flat).sum(0)
            if node.type == "categorical":
                mixed = mixed.argmax(-1)
            elif node.type == "binary":
                mixed = (mixed > 0.5).to(mixed)
            decoded = pair.encoder.decode(name, mixed)
            frame[name] = decoded if decoded.ndim == 1 else list(decoded)
            if name not in batch.values:
                causes.values[name] = mixed
    return pd.DataFrame(frame)
