"""What can be said of new rows before anything adapts to them: readings that stand still, unfamiliar causes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from pyro_cama._messages import caller_level, first_of
from pyro_cama.data.batch import Batch
from pyro_cama.inference.unfamiliar_causes import UnfamiliarCauses
from pyro_cama.model.pair import ModelGuidePair

FEWEST = 10  # equal readings that are no chance


def warn_of_doubtful(pair: ModelGuidePair, batch: Batch) -> None:
    """Warns of what makes an adaptation to encoded new rows doubtful: what was found, where, and what to do.

    Of rows too few for a comparison the adaptation's reason tells.
    """
    if still := [f"{name!r} ({value:g}, {rows} rows{at})" for name, value, rows, at in _standing_still(pair, batch)]:
        warnings.warn(
            f"adapt: found one value in all new rows of {first_of(still)}; in training they varied. Does an "
            "instrument stand still? Set its readings to NaN, here and where you predict: they tell nothing of a row",
            UserWarning,
            stacklevel=caller_level(),
        )
    causes = UnfamiliarCauses(pair)
    causes.add(batch)
    causes.warn("adapt", "an adaptation may take it for a change; leave such rows out, or fit to rows that cover them")


def _standing_still(pair: ModelGuidePair, batch: Batch) -> Iterator[tuple[str, float, int, str]]:
    """Yields continuous children of m that have one value in all new rows of a site, and had several in training.

    Beside each that value, the rows that have it, and where that is.
    """
    everywhere = torch.ones(batch.rows, dtype=torch.bool, device=pair.device)
    places = {"": everywhere}
    if batch.site is not None:
        column, sites = pair.graph.site_column, pair.encoder.sites
        places = {f" of {column} {sites[site]!r}": batch.site == site for site in batch.known_sites}
    for name in pair.moved_children:
        node, statistics = pair.graph.nodes[name], pair.encoder.statistics[name]
        if node.type != "continuous" or node.dim or bool(statistics["least"] == statistics["most"]):
            continue
        for at, rows in places.items():
            values = batch.values[name][rows & batch.observed.get(name, everywhere)]
            if len(values) >= FEWEST and bool((values == values[0]).all()):
                yield name, float(pair.encoder.decode(name, values[:1])[0]), len(values), at
