"""Whether columns of new rows stand under one another's names, by the moments of the training rows.

A gain and an offset of each bring an exchanged column near the readings that its name had in training, and the evidence
gained is large; but what the column told of the class is then read as what another told.  So an exchange that by itself
makes all columns as they were in training is the simpler explanation, if an adaptation explains the rows no better as
they are than put right: moments of a few columns may agree by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyro_cama._messages import first_of
from pyro_cama.adaptation.class_mix import mix_alone_explains, moments_of, moved_components, places_of
from pyro_cama.adaptation.new_rows import NewRows
from pyro_cama.adaptation.objective import log_train
from pyro_cama.data.batch import Batch
from pyro_cama.data.scales import slope
from pyro_cama.data.values import encode_values
from pyro_cama.errors import DataError
from pyro_cama.model.pair import ModelGuidePair

UNLIKE = 1e6  # standard errors, of readings that no column of that name can have
SHOWN = 4  # columns in a message


def exchanged_columns(pair: ModelGuidePair, batch: Batch) -> dict[str, str]:
    """Returns whose readings stand under each name, where an exchange alone explains the new rows; else nothing.

    Numbers are exchanged with numbers of their type, in raw units; vectors and images with nothing.

    Args:
        batch: encoded new rows; no label is looked at.
    """
    moved = {name for site in places_of(batch) for name, _ in moved_components(pair, batch, site)}
    names = [name for name in pair.moved_children if name in moved and not pair.graph.nodes[name].dim]
    if len(names) < 2:
        return {}
    from scipy.optimize import linear_sum_assignment

    # which name each column's readings suit best
    apart = np.array([[_apart(pair, batch, under, name) for name in names] for under in names])
    exchanged = {names[i]: names[j] for i, j in zip(*linear_sum_assignment(apart), strict=True) if i != j}
    if not exchanged or any(_read_as(pair, batch, *pair_of) is None for pair_of in exchanged.items()):
        return {}
    return exchanged if mix_alone_explains(pair, _put_right(pair, batch, exchanged)) else {}


def put_right(pair: ModelGuidePair, new: NewRows, exchanged: Mapping[str, str]) -> NewRows:
    """Returns new rows with every column under the name whose readings it holds."""
    batch, compared, counted = (_put_right(pair, rows, exchanged) for rows in (new.batch, new.compared, new.counted))
    return replace(new, batch=batch, compared=compared, counted=counted)


def log_slope(pair: ModelGuidePair, batch: Batch, names: Iterable[str]) -> Tensor:
    """Returns log of the density of columns as they are recorded over that as they are encoded, ``(rows,)``, float64.

    The evidence of rows whose columns stand under other names is comparable in the recorded units alone.
    """
    total = torch.zeros(batch.rows, dtype=torch.float64)
    for name in names:
        if pair.graph.nodes[name].type == "continuous":
            statistics = pair.encoder.statistics[name]
            raw = pair.encoder.decode(name, batch.values[name])
            own = torch.from_numpy(slope(raw, statistics["unit"].numpy()) / statistics["sd"].numpy()).log()
            known = batch.observed.get(name)
            total += own if known is None else own.where(known.cpu(), 0.0)
    return total


def exchange_text(exchanged: Mapping[str, str]) -> str:
    """Says whose readings stand under which names.

    >>> exchange_text({"pulse": "pressure", "pressure": "pulse"})
    "readings of 'pressure' stand under 'pulse', of 'pulse' under 'pressure'"
    """
    verbs = [" stand", *[""] * (len(exchanged) - 1)]
    pairs = zip(exchanged.items(), verbs, strict=True)
    return f"readings {first_of([f'of {name!r}{verb} under {under!r}' for (under, name), verb in pairs], SHOWN)}"


def _apart(pair: ModelGuidePair, batch: Batch, under: str, name: str) -> float:
    """How far the readings under one name are from those of another in training, in standard errors."""
    values = _read_as(pair, batch, under, name)
    if values is None:
        return UNLIKE
    mix = torch.softmax(log_train(pair), 0).double().cpu().numpy()
    known = batch.observed.get(under)
    readings = values if known is None else values[known]
    return min(UNLIKE, sum(moment.apart(mix) for moment in moments_of(pair, name, readings.cpu())))


def _read_as(pair: ModelGuidePair, batch: Batch, under: str, name: str) -> Tensor | None:
    """The readings under one name as the column of another would have encoded them; None of another type."""
    node, values = pair.graph.nodes[name], batch.values[under]
    if node.type != pair.graph.nodes[under].type:
        return None
    raw = pair.encoder.decode(under, values)
    try:
        read = encode_values(node, raw, np.ones(len(raw), dtype=bool), pair.encoder.statistics[name])
    except DataError:
        return None
    return read.to(values)


def _put_right(pair: ModelGuidePair, batch: Batch, exchanged: Mapping[str, str]) -> Batch:
    """The rows with every column under the name whose readings it holds."""
    values, observed = dict(batch.values), dict(batch.observed)
    for under, name in exchanged.items():
        read = _read_as(pair, batch, under, name)
        assert read is not None
        values[name] = read
        observed[name] = batch.observed.get(under, torch.ones_like(read, dtype=torch.bool))
    return replace(batch, values=values, observed=observed)
