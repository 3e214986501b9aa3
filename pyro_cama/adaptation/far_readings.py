"""New readings that stand far from all others, such as -999 or a slip of the pen: one must not decide an adaptation.

What the training rows' own bounds are (:mod:`pyro_cama.data.far_entries`) says nothing here: a drift may move every
reading beyond them.  So the new rows are compared with one another, those of each site by themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyro_cama._messages import caller_level
from pyro_cama.data.batch import Batch
from pyro_cama.data.far_entries import Far, Spread, far_text
from pyro_cama.data.values import recorded
from pyro_cama.model.pair import ModelGuidePair


def without_far_readings(pair: ModelGuidePair, batch: Batch) -> Batch:
    """Returns new rows in which readings that stand far from all others are missing; a warning names them."""
    masks: dict[str, Tensor] = {}
    found: dict[str, list[Far]] = {}
    for name in batch.values:
        if not pair.graph.nodes[name].is_number:
            continue
        values = batch.values[name].reshape(batch.rows, -1)
        for places, far in _far(pair, batch, name):
            some = values[places][:, far.component or 0]
            beyond = some > far.bound if far.value > far.bound else some < far.bound
            mask = masks.setdefault(name, torch.zeros(batch.rows, dtype=torch.bool, device=values.device))
            mask[places] |= beyond
            found.setdefault(name, []).append(_raw(pair, name, far))
    if not masks:
        return batch
    warnings.warn(
        f"adapt: found entries far from all others of the new rows, which adapting takes for missing: "
        f"{far_text(found)} of the {batch.rows} looked at. Do they stand for missing values? Set them to NaN; "
        "predictions of these rows do count them",
        UserWarning,
        stacklevel=caller_level(),
    )
    return pair.encoder.with_missing(batch, masks)


def _far(pair: ModelGuidePair, batch: Batch, name: str) -> Iterator[tuple[Tensor, Far]]:
    """Yields what stands far in a node's readings, in encoded units, beside the rows that it was compared with."""
    known = batch.observed.get(name)
    rows = torch.arange(batch.rows, device=batch.values[name].device)
    rows = rows if known is None else rows[known]
    sites = [rows] if batch.site is None else [rows[batch.site[rows] == site] for site in batch.site[rows].unique()]
    for own in sites:
        if len(own) > 1:
            spread = Spread()
            spread.add(batch.values[name][own].double().cpu().numpy(), own.cpu().numpy())
            for far in spread.far(pair.graph.nodes[name].type == "count"):
                yield own, far


def _raw(pair: ModelGuidePair, name: str, far: Far) -> Far:
    """The same with its value in raw units."""
    if pair.graph.nodes[name].type == "count":
        return far
    own = {key: value.reshape(-1)[far.component or 0] for key, value in pair.encoder.statistics[name].items()}
    return replace(far, value=float(recorded(np.asarray(far.value), own)))
