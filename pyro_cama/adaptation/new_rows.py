"""TODO adaptation.new_rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.adaptation.objective import log_train
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import DataSource, open_stream
from pyro_cama.data.sampling import with_sites
from pyro_cama.errors import DataError
from pyro_cama.inference.class_prior import prior_log_ratio
from pyro_cama.model.pair import ModelGuidePair, PairT


def fixed_log_ratio(pair: ModelGuidePair, class_prior: Any) -> Tensor:
    """log of the given class proportions over the training ones, ``(classes,)``; zeros for "train" and "estimate"."""
    train = log_train(pair)
    if isinstance(class_prior, str) and class_prior in ("train", "estimate"):
        return torch.zeros_like(train)
    found = prior_log_ratio(pair, class_prior, train[:, None])
    assert found is not None
    return found


def pair_with_sites(pair: PairT, new_data: DataSource) -> PairT:
    """The model with a place for sites it has not met; a plain copy in the other scopes."""
    m = pair.graph.m
    assert m is not None
    if m.scope in ("row", "dataset"):
        return pair.copy()
    stream = open_stream(new_data, pair.graph)
    encoder = pair.encoder.with_sites(new_data) if stream is None else with_sites(stream, pair.encoder)  # type: ignore[arg-type]
    if encoder.sites == pair.encoder.sites:
        return pair.copy()
    return pair.copy(encoder)


def expect_readings(pair: ModelGuidePair, new: Batch) -> None:
    """Refuses rows whose evidence cannot depend on m: log p of nothing is 0, any gain an error of Monte Carlo.

    Raises:
        DataError: of what m manipulates, and of all that this causes, nothing was measured; or no row is of a site.
    """
    graph = pair.graph
    assert graph.m is not None
    placed = torch.ones(new.rows, dtype=torch.bool) if new.site is None else (new.site >= 0).cpu()
    if not placed.any():
        raise DataError(
            f"adapt: found no {graph.m.scope!r} in the new rows ({new.rows} looked at); expected some, since it says "
            "which rows share a manipulation"
        )
    reached = {name for name in graph.m.children if graph.m.affects[name] == "quantity"}
    for name in graph.order:  # causes first; a missing child is drawn manipulated, and its effects tell of it
        if reached & set(graph.parents_of(name)):
            reached.add(name)
    reached |= set(graph.m.children)
    if all(name in new.observed and not bool(new.observed[name].cpu()[placed].any()) for name in reached):
        raise DataError(
            f"adapt: found no reading of {listed(graph.m.children)} in the new rows ({new.rows} looked at); expected "
            "some to learn the manipulation from: adapt to rows that were measured"
        )


def hold_out(rows: int, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers to adapt to and to compare on: all of them where folds follow, else apart."""
    if folds > 1 or rows < 4:
        return torch.arange(rows), torch.arange(rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[(kept := min(500, math.ceil(rows / 5))) :], order[:kept]


def split_folds(rows: int, folds: int, seed: int) -> list[Tensor]:
    """Row numbers in random parts; one part of all rows where there are too few to hold any out."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return list(order.chunk(folds)) if rows >= 2 * folds else [order]
