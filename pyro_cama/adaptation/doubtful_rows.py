"""What can be said of new rows before anything adapts to them: readings that stand still, unfamiliar causes."""

from __future__ import annotations

import warnings

from pyro_cama._messages import caller_level
from pyro_cama.data.batch import Batch
from pyro_cama.inference.unfamiliar_causes import UnfamiliarCauses
from pyro_cama.model.pair import ModelGuidePair

FEWEST = 10  # equal readings that are no chance


def warn_of_doubtful(pair: ModelGuidePair, batch: Batch) -> None:
    """Warns of what makes an adaptation to encoded new rows doubtful: what was found, where, and what to do.

    Of rows too few for a comparison the adaptation's reason tells.
    """
    if still := [f"{name!r} ({value:g}, {rows} rows)" for name, (value, rows) in _standing_still(pair, batch).items()]:
        more = f", ... ({len(still)} in all)" if len(still) > 8 else ""
        warnings.warn(
            f"adapt: found one value in all new rows of {', '.join(still[:8])}{more}; in training they varied. Does an "
            "instrument stand still? Set its readings to NaN, here and where you predict: they tell nothing of a row",
            UserWarning,
            stacklevel=caller_level(),
        )
    causes = UnfamiliarCauses(pair)
    causes.add(batch)
    causes.warn("adapt", "an adaptation may take it for a change; leave such rows out, or fit to rows that cover them")


def _standing_still(pair: ModelGuidePair, batch: Batch) -> dict[str, tuple[float, int]]:
    """Returns continuous children of m that have one value in all new rows, and had several in training."""
    found = {}
    for name in pair.moved_children:
        node, statistics = pair.graph.nodes[name], pair.encoder.statistics[name]
        if node.type != "continuous" or node.dim or bool(statistics["least"] == statistics["most"]):
            continue
        known = batch.observed.get(name)
        values = batch.values[name] if known is None else batch.values[name][known]
        if len(values) >= FEWEST and bool((values == values[0]).all()):
            found[name] = (float(pair.encoder.decode(name, values[:1])[0]), len(values))
    return found
