"""Drifts of columns that a report follows: offsets in standard deviations, or gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_cama._messages import listed, shown
from pyro_cama.data.columns import read_column
from pyro_cama.graph.causal_graph import CausalGraph

AMOUNTS = {"offset": np.linspace(0.0, 3.0, 7), "gain": 2.0 ** np.linspace(-1.0, 1.0, 7)}


@dataclass(frozen=True)
class Drift:
    """What happens to columns along a curve: ``offset`` adds standard deviations, ``gain`` multiplies readings.

    >>> graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "a b": "continuous"}, "edges": [["y", "a b"]]})
    >>> Drift.parse("a b offset", graph)
    Drift(columns=('a b',), kind='offset')
    """

    columns: tuple[str, ...]
    kind: str

    @classmethod
    def parse(cls, text: str, graph: CausalGraph) -> Drift:
        """Reads columns, with commas between them, and the kind, as in ``"fever, age offset"``.

        Raises:
            ValueError: an unknown kind, or a column that holds no numbers.
        """
        names, _, kind = text.strip().rpartition(" ")
        names = names.strip()
        if kind not in AMOUNTS or not names:
            raise ValueError(
                f"drift {text!r}: expected columns, then {' or '.join(AMOUNTS)}, as in 'fever, age offset'"
            )
        columns = (names,) if names in graph.nodes else tuple(name.strip() for name in names.split(","))
        numbers = [name for name in graph.order if graph.nodes[name].is_number]
        unfit = [name for name in columns if name not in numbers]
        if unfit:
            raise ValueError(f"drift {text!r}: found {shown(unfit[0])}; expected some of {listed(numbers)}")
        return cls(columns, kind)

    def apply(self, table: Mapping[str, Any], graph: CausalGraph, amount: float) -> dict[str, Any]:
        """Returns the table with its columns moved; counts stay counts."""
        moved = dict(table)
        for name in self.columns:
            raw, present = read_column(graph.nodes[name], table[name])
            raw[~present] = np.nan
            raw = raw * amount if self.kind == "gain" else raw + amount * np.nanstd(raw, 0)
            moved[name] = np.round(raw).clip(0) if graph.nodes[name].type == "count" else raw
        return moved
