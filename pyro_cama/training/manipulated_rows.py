"""Labelled rows under unknown manipulations, the second part of eq. 5: read, and dealt out to minibatches."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pyro_cama._messages import listed
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import DataSource
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.bounds import sites_at_rest
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.posteriors import SharedPosterior


def read_manipulated(pair: ModelGuidePair, data: DataSource, clean: Batch) -> Batch:
    """Reads manipulated rows; where a column is m's scope their sites get a place in the pair's guide.

    Args:
        pair: whose encoder knows the clean rows.
        data: see :meth:`pyro_cama.CAMA.fit`.
        clean: the clean rows, or a sample of them.

    Raises:
        DataError: the rows do not fit the graph, have no labels or no site, or are of a site of clean rows.
    """
    standing = _sites_at_rest(pair, clean)
    encoder = pair.encoder_with_sites(data)
    if encoder is not pair.encoder:
        pair.take_encoder(encoder)
    rows = pair.read(data, "use")
    require_target(pair, rows)
    if rows.site is not None:
        scope = pair.graph.site_column
        if placeless := int((rows.site < 0).sum()):
            raise DataError(
                f"fit(manipulated=...): column {scope!r}: found no entry in {placeless} of {rows.rows} rows; expected "
                "one in each, since it says which rows share a manipulation"
            )
        both = [encoder.sites[i] for i in sorted(standing & {*rows.site.unique().tolist()})]
        if both:
            raise DataError(
                f"fit(manipulated=...): column {scope!r}: found {listed(both)} among the clean rows too; a site "
                "has one manipulation, and that of clean rows is none: give the manipulated rows a name of their own"
            )
    return rows


def manipulated_alone(graph: CausalGraph, data: DataSource | None, interventions: Mapping[str, object]) -> DataSource:
    """Returns the manipulated rows of a fit without clean ones, which is of eq. 4 alone.

    Raises:
        ValueError: there are none, or the graph's manipulation needs clean rows beside them.
    """
    if data is None:
        raise ValueError("fit(None): found neither clean nor manipulated rows; expected one of them")
    if not all(m.per_row for m in graph.manipulations):
        raise ValueError(
            f"fit(None, manipulated): found scope {graph.require_m().scope!r}; expected 'row', or clean rows too: a "
            "manipulation that all rows share cannot be told from what the children are like without it"
        )
    if interventions:
        raise ValueError(
            "fit(None, manipulated, interventions=...): found no clean rows to intervene on; leave interventions out"
        )
    return data


def _sites_at_rest(pair: ModelGuidePair, clean: Batch) -> set[int]:
    """Numbers of the sites where nothing is manipulated: those of the clean rows."""
    if clean.site is None:
        return set()
    resting = torch.nonzero(sites_at_rest(pair.guide)).flatten()
    return {*resting.tolist(), *clean.site.unique().tolist()}


def leave_at_rest(pair: ModelGuidePair, clean: Batch) -> None:
    """Sets q(m) at the sites of clean rows to the mean 0, by which predictions know that nothing is manipulated."""
    for m in pair.graph.manipulations if clean.site is not None else ():
        posterior = pair.guide.posterior_of(m.name)
        if isinstance(posterior, SharedPosterior):
            with torch.no_grad():
                posterior.loc[clean.rows_per_site(len(posterior.loc)) > 0] = 0.0


def require_target(pair: ModelGuidePair, batch: Batch) -> None:
    """Checks that rows have the target's column.

    Raises:
        DataError: they have not.
    """
    if pair.graph.target not in batch.values:
        raise DataError(f"column {pair.graph.target!r} (the target) is missing: fit needs labels")


def with_clean(manipulated: Batch, clean: Batch) -> Batch:
    """Returns as many rows as a clean minibatch has, drawn from both: for an amortised q(m | x) has to know both.

    Clean rows are manipulations of size 0; a q(m | x) that never sees one takes every row for manipulated.
    """
    return Batch.concatenate(list(halves(manipulated, clean)))


def halves(manipulated: Batch, clean: Batch) -> tuple[Batch, Batch]:
    """Returns half as many manipulated rows as a clean minibatch has, drawn, and half of the clean ones."""
    half = clean.rows // 2
    drawn = torch.randint(manipulated.rows, (clean.rows - half,), device=next(iter(clean.values.values())).device)
    kept = torch.arange(half, device=drawn.device) * 2  # spread: held-out rows may be sorted by class
    return manipulated.select(drawn), clean.select(kept)
