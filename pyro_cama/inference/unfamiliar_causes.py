"""Causes of new rows that no training row had: what the model says of their effects there is a guess.

The model is p(y, children | causes): it knows nothing of ages 12 to 18 if it was fitted to adults, and an adaptation
takes what is wrong there for a change of the readings.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from pyro_cama._messages import caller_level, first_of, listed
from pyro_cama.data.batch import Batch
from pyro_cama.data.columns import levels_of
from pyro_cama.model.pair import ModelGuidePair

MARGIN = 0.05  # of the training range, beyond either of its ends
SHARE = 0.1  # of the rows, from which on causes are told of


@dataclass
class _Count:
    """Entries of a cause: how many there are, how many of them are unfamiliar, and the range or levels of these."""

    rows: int = 0
    outside: int = 0
    least: float = np.inf
    most: float = -np.inf
    levels: tuple[object, ...] = ()


class UnfamiliarCauses:
    """Counts entries of parents and co-parents outside of what the training rows had, in parts of a table.

    Args:
        pair: fitted.
    """

    def __init__(self, pair: ModelGuidePair) -> None:
        self._pair = pair
        blanket, nodes = pair.graph.blanket, pair.graph.nodes
        self._names = [name for name in (*blanket.parents, *blanket.coparents) if not nodes[name].is_image]
        self._found: dict[str, _Count] = {}

    def add(self, batch: Batch) -> None:
        """Takes in encoded rows."""
        for name in self._names:
            known = batch.observed.get(name)
            values = batch.values[name] if known is None else batch.values[name][known]
            if not len(values):
                continue
            if self._pair.graph.nodes[name].is_number:
                self._add_numbers(name, self._pair.encoder.decode(name, values).reshape(len(values), -1))
            else:
                self._add_levels(name, values.long().cpu().numpy())

    def warn(self, where: str, remedy: str) -> None:
        """Warns of what a tenth of the rows or more are: which causes, where, and what was expected.

        Args:
            where: the method that has read the rows.
            remedy: what to do about it.
        """
        said = [self._text(name, one) for name, one in self._found.items() if one.outside >= SHARE * one.rows > 0]
        if not said:
            return
        warnings.warn(
            f"{where}: found causes that no training row had: {first_of(said, mark='; ')}. What the "
            f"model says of their effects is a guess there: {remedy}",
            UserWarning,
            stacklevel=caller_level(),
        )

    def _add_numbers(self, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        statistics = self._pair.encoder.statistics[name]
        least, most = (statistics[key].reshape(-1).numpy() for key in ("least", "most"))
        with np.errstate(over="ignore"):
            margin = MARGIN * (most - least)
            outside = (values < least - margin) | (values > most + margin)
        for i, beyond in enumerate(outside.T):
            key = f"{name}[{i}]" if self._pair.graph.nodes[name].dim else name
            count = self._found.setdefault(key, _Count())
            count.rows += len(values)
            if beyond.any():
                count.outside += int(beyond.sum())
                count.least = min(count.least, float(values[beyond, i].min()))
                count.most = max(count.most, float(values[beyond, i].max()))

    def _add_levels(self, name: str, codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        seen = self._pair.encoder.statistics[name]["frequencies"].numpy() > 0
        levels = levels_of(self._pair.graph.nodes[name])
        outside = ~seen[codes]
        count = self._found.setdefault(name, _Count())
        count.rows += len(codes)
        count.outside += int(outside.sum())
        count.levels = tuple(dict.fromkeys([*count.levels, *(levels[code] for code in np.unique(codes[outside]))]))

    def _text(self, name: str, one: _Count) -> str:
        rows = f"in {one.outside} of {one.rows} rows"
        if one.levels:
            return f"{name!r} is {listed(one.levels)} {rows}"
        node, _, place = name.partition("[") if name not in self._pair.graph.nodes else (name, "", "")
        at = int(place[:-1]) if place else 0
        least, most = (float(self._pair.encoder.statistics[node][key].reshape(-1)[at]) for key in ("least", "most"))
        return f"{name!r} from {one.least:.4g} to {one.most:.4g} {rows}, trained on {least:.4g} to {most:.4g}"
