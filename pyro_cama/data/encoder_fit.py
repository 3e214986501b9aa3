"""What a training table teaches an encoder, part by part: statistics of the columns, and sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama._number_texts import NO_NUMBER
from pyro_cama.data.batch import Batch
from pyro_cama.data.column_statistics import ColumnStatistics
from pyro_cama.data.columns import levels_of, read_column, read_sites, text_of
from pyro_cama.data.far_entries import Far
from pyro_cama.data.tables import Columns
from pyro_cama.data.values import encode_values
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.schema import Level


class EncoderFit:
    """Statistics and sites of a table that comes in parts.

    >>> from pyro_cama.data.encoder import TableEncoder
    >>> graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]})
    >>> encoder = TableEncoder(graph)
    >>> fitting = EncoderFit(graph, None)
    >>> for part in ({"y": [0], "x": [1.0]}, {"y": [1, 1], "x": [2.0, 3.0]}):
    ...     raw = fitting.add(encoder.columns_of(part, graph.order))
    >>> encoder.learn(fitting)
    >>> encoder.statistics["x"]["mean"].item()
    2.0
    """

    def __init__(self, graph: CausalGraph, scope: str | None) -> None:
        self.graph = graph
        self.scope = scope
        self.rows = 0
        self._columns = {
            name: ColumnStatistics(graph.nodes[name], graph.nodes[graph.target].classes) for name in graph.order
        }
        self._sites: dict[str, Level] = {}

    def add(self, table: Columns, keep: Sequence[int] | NDArray[np.int64] = ()) -> Batch:
        """Takes in a part of the training table.

        Returns:
            The part's rows ``keep``: raw values (a missing row's are arbitrary), all of their masks, and the sites
            numbered in order of appearance: what :meth:`encoded` encodes when all parts are there.

        Raises:
            DataError: what :meth:`TableEncoder.encode` raises.
        """
        values, observed, site = {}, {}, None
        kept = np.asarray(keep, dtype=np.int64)
        target = self.graph.target
        codes, labelled = read_column(self.graph.nodes[target], table.column(target, self.graph))
        labels = np.where(labelled, codes, -1)
        for name, summary in self._columns.items():
            column = (codes, labelled) if name == target else read_column(summary.node, table.column(name, self.graph))
            raw, present = column
            summary.add(raw[present], self.rows + np.flatnonzero(present), labels[present])
            values[name], observed[name] = torch.from_numpy(raw[kept]), torch.from_numpy(present[kept])
        if self.scope is not None:
            codes, found = read_sites(self.scope, table.column(self.scope, self.graph))
            for value in found:
                self._sites.setdefault(text_of(value), value)
            index = {text: i for i, text in enumerate(self._sites)}
            site = torch.from_numpy(np.array([*(index[text_of(value)] for value in found), -1])[codes[kept]])
        self.rows += table.rows
        return Batch(values, observed, site, len(kept))

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Returns the statistics of every node, as :attr:`TableEncoder.statistics` describes them.

        Raises:
            DataError: a column without any entry, or a target with a single class.
        """
        target, statistics = self.graph.target, {}
        for name, summary in self._columns.items():
            if not summary.rows:
                raise DataError(_empty(name, self.rows))
            statistics[name] = summary.statistics()
        seen = statistics[target]["frequencies"].nonzero().flatten().tolist()
        if len(seen) < 2:
            raise DataError(
                f"target column {target!r}: found one class, {levels_of(self.graph.nodes[target])[seen[0]]!r}; "
                "expected rows of at least two to learn from"
            )
        return statistics

    def by_class(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Returns what is known of every node but the target by class, as :attr:`TableEncoder.by_class` describes it.

        Args:
            statistics: what :meth:`statistics` gave.
        """
        names = [name for name in self._columns if name != self.graph.target]
        return {name: own for name in names if (own := self._columns[name].by_class(statistics[name]))}

    def notes(self) -> list[str]:
        """Returns in words what the table lacks: levels that no row has, half of the labels, more than one value."""
        said, target = [], self.graph.target
        for name in (target, *(name for name in self._columns if name != target)):
            summary = self._columns[name]
            missing = self.rows - summary.rows
            share = f"{missing} of {self.rows} entries are missing"
            unseen = [level for level, rows in zip(levels_of(summary.node), summary.counts, strict=True) if not rows]
            lost = [level for level in unseen if missing and str(level) in NO_NUMBER]
            if unseen:
                said.append(f"column {name!r}: found no row of {listed(unseen)}, of the graph's levels")
            if (value := summary.constant()) is not None:
                said.append(
                    f"column {name!r}: found {value:g} in all of its {summary.rows} entries, which tells nothing: "
                    "leave it out of the graph, or correct it"
                )
            if lost:
                said[-1] += f"; {share}: pandas.read_csv takes {listed(lost)} for missing, unless keep_default_na=False"
            elif name == target and 2 * missing >= self.rows:
                said.append(f"target column {name!r}: {share}")
        return said

    def far(self) -> dict[str, list[Far]]:
        """Returns what stands far from the other entries of a column, by node."""
        return {name: far for name, summary in self._columns.items() if (far := summary.far())}

    def sites(self) -> tuple[Level, ...]:
        """Returns the values of the scope column, sorted by their text; none where there is no such column.

        Raises:
            DataError: the scope column has no entry.
        """
        if self.scope is not None and not self._sites:
            raise DataError(_empty(self.scope, self.rows))
        return sorted_sites(self._sites.values())

    def encoded(self, raw: Batch, statistics: Mapping[str, Mapping[str, Tensor]]) -> Batch:
        """Returns rows that :meth:`add` has returned, as :meth:`TableEncoder.encode` gives them; uses up ``raw``.

        Args:
            statistics: what :meth:`statistics` gave when all parts were there.

        Raises:
            DataError: a value too far from the others for the float type.
        """
        masks = {name: mask.numpy() for name, mask in raw.observed.items()}
        values = {
            name: encode_values(self.graph.nodes[name], value.numpy(), masks[name], statistics[name])
            for name, value in raw.values.items()
        }
        site = raw.site
        if site is not None:
            index = {text_of(value): i for i, value in enumerate(self.sites())}
            site = torch.tensor([*(index[text] for text in self._sites), -1])[site]
        return Batch(values, {name: mask for name, mask in raw.observed.items() if not mask.all()}, site, raw.rows)


def sorted_sites(sites: Iterable[Level]) -> tuple[Level, ...]:
    """Returns sites in the order of their text."""
    return tuple(sorted(sites, key=text_of))


def _empty(name: str, rows: int) -> str:
    return f"column {name!r}: found no entry in {rows} rows; expected some to learn from"
