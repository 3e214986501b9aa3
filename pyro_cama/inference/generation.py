"""Rows that the model draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import pandas as pd
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama._arguments import expect_whole
from pyro_cama._messages import shown
from pyro_cama.data.batch import Batch
from pyro_cama.data.columns import text_of
from pyro_cama.handlers.common_noise import SeededSites
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import Do, intervene
from pyro_cama.inference.do import UserDo, encode_do
from pyro_cama.inference.world import draw_m, draw_sites
from pyro_cama.likelihoods import GreyBernoulli
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


def sample(pair: ModelGuidePair, n: int, do: Literal["auto"] | UserDo, *, seed: int) -> pd.DataFrame:
    """Returns rows drawn from the model, in raw units; see :meth:`pyro_cama.CAMA.sample`."""
    expect_whole("sample", "n", n)
    expect_whole("sample", "seed", seed, 0)
    auto = isinstance(do, str) and do == "auto"
    if not (auto or do is None or isinstance(do, Mapping)):
        raise ValueError(f"sample(do=...): expected 'auto', None or a mapping of node or latent, found {shown(do)}")
    named: Mapping[str, Any] = {} if auto or do is None else do  # type: ignore[assignment]
    m = pair.graph.m
    latents = {latent.name for latent in pair.graph.manipulations}
    of_m = {name: value for name, value in named.items() if name in latents}
    nodes: dict[str, Any] = {
        name: _encode_value(pair, name, value, n) for name, value in named.items() if name not in of_m
    }
    given = encode_do(pair, of_m, n)
    calibrated = pair.manipulation.calibrated() if m else nullcontext()
    with torch.no_grad(), fast(), pair.seeded(seed), calibrated, SeededSites(seed):
        site = draw_sites(pair, n)
        if m and do is not None:
            given = draw_m(pair, n) | (given or {})
        program = intervene(pair.model, given)
        if nodes:
            program = poutine.do(program, data=nodes)
        start = Batch(values={}, observed={}, site=site, rows=n)
        if site is not None and pair.graph.site_column in pair.graph.order:
            start = _placed(pair, program, start, nodes)
        values = program(start)
    return _frame_of(pair, values, start.site, n)


def _placed(pair: ModelGuidePair, program: Callable[..., Any], start: Batch, nodes: Mapping[str, Tensor]) -> Batch:
    """Rows whose sites are the drawn values of a node: it and what causes it, for the rest to be drawn given these."""
    name = pair.graph.site_column
    assert name is not None
    nowhere = torch.full((start.rows,), -1, device=pair.device)
    drawn = program(Batch(values={}, observed={}, site=nowhere, rows=start.rows))
    causes = {name}
    for node in reversed(pair.graph.order):
        if node in causes:
            causes |= set(pair.graph.parents_of(node))
    codes = drawn[name].expand(start.rows)
    numbers = {text_of(site): i for i, site in enumerate(pair.encoder.sites)}
    site = torch.tensor([numbers.get(text_of(level), -1) for level in pair.encoder.decode(name, codes)])
    values = {cause: drawn[cause] for cause in causes if cause not in nodes}
    return Batch(values=values, observed={}, site=site.to(pair.device), rows=start.rows)


def _frame_of(pair: ModelGuidePair, values: Mapping[str, Tensor], site: Tensor | None, rows: int) -> pd.DataFrame:
    """Raw units; with the scope column, which need not be a node."""
    frame: dict[str, Any] = {}
    for name in pair.graph.order:
        shape = pair.graph.nodes[name].event_shape
        decoded = pair.encoder.decode(name, values[name].expand(rows, *shape))
        frame[name] = list(decoded) if shape else decoded
    if site is not None and (column := str(pair.graph.site_column)) not in frame:
        frame[column] = [pair.encoder.sites[i] for i in site.tolist()]
    return pd.DataFrame(frame)


def _encode_value(pair: ModelGuidePair, name: str, value: Any, rows: int) -> Tensor:
    if name not in pair.graph.order:
        raise ValueError(f"do: {name!r} is neither a manipulation nor a node of {list(pair.graph.order)}")
    encoded = pair.encoder.encode_value(name, value).to(pair.device)
    return encoded.expand(rows, *encoded.shape)
