"""Tables in raw units to tensors, and back.

A :class:`TableEncoder` learns from the training table how each column of a causal graph becomes a tensor:
means and deviations, frequencies of levels, the sites of a scope column. With these it turns any later table
into a :class:`Batch`, and tensors back into raw units. Missing entries are filled in *and* marked.

>>> import pandas as pd
>>> from pyro_cama.graph import CausalGraph
>>> graph = CausalGraph({
...     "target": "ill",
...     "nodes": {"ill": {"type": "categorical", "levels": ["no", "yes"]}, "pain": "continuous"},
...     "edges": ["ill -> pain"],
... })
>>> table = pd.DataFrame({"ill": ["no", "yes", None], "pain": [2.0, None, 6.0]})
>>> encoder = TableEncoder(graph).fit(table)
>>> batch = encoder.encode(table)
>>> batch.values["pain"].tolist(), batch.observed["pain"].tolist()
([-1.0, 0.0, 1.0], [True, False, True])
>>> encoder.decode("pain", batch.values["pain"]).tolist()
[2.0, 4.0, 6.0]
>>> encoder.labels(batch.values["ill"][:2]).tolist()
['no', 'yes']
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.columns import (
    Columns,
    Mask,
    Table,
    levels_of,
    read_column,
    read_sites,
    read_table,
    rows_text,
    sizes_text,
    text_of,
)
from pyro_cama.errors import DataError
from pyro_cama.graph import CausalGraph, Level, Node
from pyro_cama.moments import Summary, statistic_shapes
from pyro_cama.schema import listed, one_of, shown

__all__ = ["Batch", "Table", "TableEncoder"]

_logger = logging.getLogger("pyro_cama")


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of encoded values.

    Attributes:
        values: node to tensor. Continuous: float, standardised, (rows,) or (rows, dim). Count: float, raw,
            same shapes. Binary: float 0 or 1, (rows,). Categorical: long codes, (rows,). Image: float in
            [0, 1], (rows, *shape). A missing entry holds a filled-in value: 0 (the training mean) if
            continuous, the rounded mean if count, the most frequent level if discrete, the mean intensity if
            image.
        observed: node to bool (rows,), False where the entry is missing. A node not listed is fully observed.
            A vector or an image with any NaN is missing as a whole.
        site: long (rows,), index into :attr:`TableEncoder.sites`, -1 for a missing site or one not seen at
            fit. None unless the manipulation's scope is a column.
        rows: number of rows.
    """

    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    site: Tensor | None
    rows: int

    def select(self, index: Tensor) -> Batch:
        """The rows at ``index``: long (any number,), or bool (rows,).

        >>> batch = Batch({"x": torch.tensor([1.0, 2.0, 3.0])}, {}, None, 3)
        >>> batch.select(torch.tensor([2, 0])).values["x"].tolist()
        [3.0, 1.0]
        >>> batch.select(torch.tensor([True, False, True])).rows
        2
        """
        rows = int(index.sum()) if index.dtype == torch.bool else len(index)
        return self._mapped(lambda value: value[index], rows)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """The same rows on ``device``; ``dtype`` is for the float values only."""
        return self._mapped(
            lambda value: value.to(device=device, dtype=dtype if value.is_floating_point() else None),
            self.rows,
        )

    def without(self, *names: str) -> Batch:
        """The same rows without these nodes; a name that is not here is no error."""
        values = {name: value for name, value in self.values.items() if name not in names}
        observed = {name: mask for name, mask in self.observed.items() if name not in names}
        return Batch(values, observed, self.site, self.rows)

    @staticmethod
    def concatenate(batches: Iterable[Batch]) -> Batch:
        """The rows of all batches, in order. A mask that only some of them hold is filled up with True.

        Raises:
            DataError: no batches, or batches that differ in their nodes or in having sites.

        >>> one, two = Batch({"x": torch.ones(1)}, {}, None, 1), Batch({"x": torch.zeros(2)}, {}, None, 2)
        >>> Batch.concatenate([one, two]).values["x"].tolist()
        [1.0, 0.0, 0.0]
        """
        batches = list(batches)
        if not batches:
            raise DataError("found no batches to concatenate; expected at least one")
        for other in batches[1:]:
            if differing := sorted(batches[0].values.keys() ^ other.values.keys()):
                raise DataError(f"found {listed(differing)} in some batches only; expected the same nodes in all")
            if (batches[0].site is None) != (other.site is None):
                raise DataError("found sites in some batches only; expected them in all or in none")

        def mask(batch: Batch, name: str) -> Tensor:
            if name in batch.observed:
                return batch.observed[name]
            return torch.ones(batch.rows, dtype=torch.bool, device=batch.values[name].device)

        masked = [name for name in batches[0].values if any(name in batch.observed for batch in batches)]
        sites = [batch.site for batch in batches if batch.site is not None]
        return Batch(
            {name: torch.cat([batch.values[name] for batch in batches]) for name in batches[0].values},
            {name: torch.cat([mask(batch, name) for batch in batches]) for name in masked},
            torch.cat(sites) if sites else None,
            sum(batch.rows for batch in batches),
        )

    def _mapped(self, change: Callable[[Tensor], Tensor], rows: int) -> Batch:
        return Batch(
            {name: change(value) for name, value in self.values.items()},
            {name: change(mask) for name, mask in self.observed.items()},
            None if self.site is None else change(self.site),
            rows,
        )


class TableEncoder:
    """Tables of one causal graph to tensors and back; what that takes is learnt by :meth:`fit`.

    A table is a pandas DataFrame, a mapping of column name to array, list, tensor or Series, or a torch
    Dataset that yields such mappings a row. It holds the target and its Markov blanket (``graph.order``), and
    the scope column if the manipulation has one. Columns that are no nodes are ignored, which is logged once.
    Series are read by position, not by index. A vector is a (rows, dim) array or a column of equal-length
    lists, an image a (rows, *shape) array of floats in [0, 1] or of uint8, or a column of paths of image files
    (:mod:`pyro_cama.image_files` says which). None, NaN and pd.NA are missing entries. A level is matched
    exactly or else by its text: 1, 1.0 and "1" are one level. Sites are told apart by their text. A scope column
    that is a node too may hold new levels after the fit: the node's entry is then missing.

    Float tensors have torch's default dtype. The caller's data are never changed.

    Attributes:
        graph: the causal graph.
        statistics: node to float64 tensors. Continuous: ``mean`` and ``sd``, () or (dim,). Count: ``mean``,
            and ``log_mean`` and ``log_sd`` of log(1 + x), () or (dim,). Discrete: ``frequencies``, (levels,).
            Image: ``mean`` and ``sd`` of all pixels, (). The sd of a constant is 1. Empty before :meth:`fit`.
        sites: known values of the scope column, those of the training table sorted by their text; empty if
            there is no scope column.
    """

    graph: CausalGraph
    statistics: dict[str, dict[str, Tensor]]
    sites: tuple[Level, ...]

    def __init__(self, graph: CausalGraph) -> None:
        self.graph = graph
        self.statistics = {}
        self.sites = ()
        self._noted = False

    @property
    def fitted(self) -> bool:
        """Whether the encoder knows a training table."""
        return bool(self.statistics)

    def fit(self, data: Table) -> Self:
        """Learns means, deviations, frequencies and sites from the training table; returns self.

        Missing entries are left aside, missing labels too; the target column has to be there.

        Raises:
            DataError: what :meth:`encode` raises; also a column without any entry, a target with a single
                class, and, if the scope column is a node, a site that is not among its levels.
        """
        fitting = Fitting(self)
        fitting.add(data)
        fitting.finish()
        return self

    def encode(
        self, data: Table, target: Literal["require", "use", "ignore"] = "use", new_sites: bool = False
    ) -> Batch:
        """The table's rows as tensors.

        Args:
            data: the table, in raw units and level names.
            target: what to do about the labels. ``require``: all have to be there. ``use``: they are encoded
                if the column is there, and missing ones marked. ``ignore``: the column is not even looked at.
            new_sites: number sites not seen at fit as :meth:`with_sites` would, instead of -1.

        Raises:
            DataError: a missing column or label, no rows, columns of different lengths, a wrong shape, an
                infinite value, text in a numeric column, an unknown level, a negative or fractional count,
                intensities outside [0, 1]. The message names the column, the first offending rows (counted
                from 0) and the remedy.
            RuntimeError: the encoder has not been fitted.
        """
        self._require_fitted()
        if target not in ("require", "use", "ignore"):
            raise DataError(f"found target={target!r}; {one_of(target, ('require', 'use', 'ignore'))}")
        label = self.graph.target
        wanted = [name for name in self.graph.order if name != label or target != "ignore"]
        table = self._table(data, wanted)
        if target == "use" and label not in table.columns:
            wanted = [name for name in wanted if name != label]
        values, observed = {}, {}
        for name in wanted:
            node = self.graph.nodes[name]
            column = table.column(name, self.graph)
            raw, present = read_column(node, column, unknown_is_missing=name == self.scope)
            if name == label and target == "require" and not present.all():
                raise DataError(
                    f"target column {name!r}: found no label in {rows_text(~present)}; "
                    "label these rows, or leave them out"
                )
            values[name] = self._encoded(node, raw, present)
            if not present.all():
                observed[name] = torch.from_numpy(present)
        site = None
        if self.scope is not None:
            codes, found = read_sites(self.scope, table.column(self.scope, self.graph))
            sites = self._with_new(found) if new_sites else self.sites
            index = {text_of(value): i for i, value in enumerate(sites)}
            site = torch.from_numpy(np.array([*(index.get(text_of(v), -1) for v in found), -1])[codes])
        return Batch(values, observed, site, table.rows)

    def encode_value(self, name: str, value: Any) -> Tensor:
        """One value of a node, in raw units or as a level, as :meth:`encode` would give it, without the rows.

        Args:
            name: one of ``graph.order``.
            value: a scalar, or an array of the node's (dim,) or image shape.

        Raises:
            DataError: no such node, or a value that is missing or does not fit it.
            RuntimeError: the encoder has not been fitted.
        """
        self._require_fitted()
        node = self._node(name)
        raw, present = read_column(node, read_table({name: [value]}, {name}).column(name, self.graph))
        if not present.all():
            raise DataError(f"node {name!r}: found the missing value {shown(value)}; expected a value")
        return self._encoded(node, raw, present)[0]

    def with_sites(self, data: Table) -> TableEncoder:
        """A copy that also knows the sites of ``data``, appended after the known ones, whose indices stay.

        Without a scope column, a plain copy.

        Raises:
            DataError: the scope column is missing from ``data``.
            RuntimeError: the encoder has not been fitted.
        """
        self._require_fitted()
        other = copy.copy(self)
        if self.scope is not None:
            column = self._table(data, ()).column(self.scope, self.graph)
            other.sites = self._with_new(read_sites(self.scope, column)[1])
        return other

    def decode(self, name: str, values: Tensor) -> NDArray[Any]:
        """Encoded values of a node back in raw units or level names.

        Args:
            name: one of ``graph.order``.
            values: any leading shape, then (dim,) or the image's shape where the node has one.

        Returns:
            Array of the same shape: float64 (continuous, count), floats in [0, 1] (image), or levels
            (categorical, binary) of their own type, object if they mix types.

        Raises:
            DataError: no such node, a wrong trailing shape, or codes that are no level.
            RuntimeError: the encoder has not been fitted.
        """
        self._require_fitted()
        node, values = self._node(name), values.detach().cpu()
        if node.levels:
            return _decoded(node, values)
        shape = node.event_shape
        if values.dim() < len(shape) or values.shape[values.dim() - len(shape) :] != shape:
            raise DataError(f"node {name!r}: found shape {tuple(values.shape)}; expected (..., {sizes_text(shape)})")
        if node.type == "image":
            return np.array(values.to(torch.get_default_dtype()).numpy())
        array = np.array(values.double().numpy())
        if node.type == "count":
            return array
        statistics = self.statistics[name]
        return np.asarray(statistics["mean"].numpy() + statistics["sd"].numpy() * array)

    def labels(self, codes: Tensor | NDArray[Any]) -> NDArray[Any]:
        """Codes of the target (any shape) as the labels that the graph names.

        The array has the labels' own type, or object if they mix types. Needs no :meth:`fit`.

        Raises:
            DataError: a code that is no level.
        """
        return _decoded(self.graph.nodes[self.graph.target], torch.as_tensor(codes).detach().cpu())

    def state(self) -> dict[str, Any]:
        """What :meth:`fit` has learnt, as plain lists, numbers and texts for JSON; nothing is rounded."""
        nodes = [self.graph.nodes[name] for name in self.graph.order]
        return {
            "levels": {node.name: list(levels_of(node)) for node in nodes if node.levels},
            "statistics": {
                name: {key: value.tolist() for key, value in entries.items()}
                for name, entries in self.statistics.items()
            },
            "sites": list(self.sites),
        }

    @classmethod
    def from_state(cls, graph: CausalGraph, state: Mapping[str, Any]) -> Self:
        """The encoder of this graph that :meth:`state` has described.

        Raises:
            DataError: the state is damaged, or of another graph.
        """
        encoder = cls(graph)
        try:
            for name in graph.order:
                levels = levels_of(graph.nodes[name])
                if levels and (found := state["levels"][name]) != list(levels):
                    raise DataError(f"stored levels of {name!r}: found {shown(found)}; expected {shown([*levels])}")
            for name in graph.order if state["statistics"] else ():
                encoder.statistics[name] = entries = {}
                for key, shape in statistic_shapes(graph.nodes[name]).items():
                    value = torch.tensor(state["statistics"][name][key], dtype=torch.float64)
                    if value.shape != shape or not value.isfinite().all():
                        raise DataError(f"stored {key} of {name!r}: expected finite numbers of shape {shape}")
                    entries[key] = value
            encoder.sites = tuple(state["sites"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the stored encoding is damaged or of another graph: {error!r}") from error
        return encoder

    @property
    def scope(self) -> str | None:
        """The name of the scope column, None if there is none."""
        m = self.graph.m
        return None if m is None or m.scope in ("row", "dataset") else m.scope

    def _node(self, name: str) -> Node:
        if name not in self.graph.order:
            raise DataError(f"found {name!r}; {one_of(name, self.graph.order)}")
        return self.graph.nodes[name]

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError("the encoder knows no training table yet: call fit first")

    def _table(self, data: Table, names: Iterable[str]) -> Columns:
        """The named columns and the scope column; those that are no nodes are noted."""
        table = read_table(data, {*names} if self.scope is None else {*names, self.scope})
        unknown = [name for name in table.names if name not in self.graph.nodes and name != self.scope]
        if unknown and not self._noted:
            self._noted = True
            _logger.warning("columns that are no nodes of the graph are ignored: %s", listed(unknown))
        return table

    def _with_new(self, found: Iterable[Level]) -> tuple[Level, ...]:
        """The known sites, then the new ones among ``found``."""
        known = {text_of(site) for site in self.sites}
        return (*self.sites, *_sorted(site for site in found if text_of(site) not in known))

    def _encoded(self, node: Node, raw: NDArray[Any], present: Mask) -> Tensor:
        """Raw values (rows, ...) as the model reads them, missing rows filled in."""
        statistics, dtype = self.statistics[node.name], torch.get_default_dtype()
        if node.levels:
            codes = torch.from_numpy(np.where(present, raw, int(statistics["frequencies"].argmax())))
            return codes if node.type == "categorical" else codes.to(dtype)
        if node.type == "continuous":
            with np.errstate(over="ignore"):
                raw = (raw - statistics["mean"].numpy()) / statistics["sd"].numpy()
            raw[~present] = 0.0
        else:
            mean = statistics["mean"]
            raw[~present] = (mean.round() if node.type == "count" else mean).numpy()
        value = torch.from_numpy(raw).to(dtype)
        if not value.isfinite().all():
            bad = ~value.isfinite().reshape(len(raw), -1).all(-1).numpy()
            raise DataError(
                f"column {node.name!r}: found values too far from the training rows for {dtype} "
                f"in {rows_text(bad)}; check the unit, or set to NaN what is missing"
            )
        return value


class Fitting:
    """:meth:`TableEncoder.fit` in parts; the encoder learns with :meth:`finish`.

    >>> graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]})
    >>> encoder = TableEncoder(graph)
    >>> fitting = Fitting(encoder)
    >>> for part in ({"y": [0], "x": [1.0]}, {"y": [1, 1], "x": [2.0, 3.0]}):
    ...     raw = fitting.add(part)
    >>> fitting.finish()
    >>> encoder.statistics["x"]["mean"].item()
    2.0
    """

    def __init__(self, encoder: TableEncoder) -> None:
        self.encoder = encoder
        self.rows = 0
        self._summaries = {name: Summary(encoder.graph.nodes[name]) for name in encoder.graph.order}
        self._sites: dict[str, Level] = {}

    def add(self, data: Table, keep: Sequence[int] | NDArray[np.int64] = ()) -> Batch:
        """Takes in a part of the training table.

        Returns:
            The part's rows ``keep``: raw values (a missing row's are arbitrary), all of their masks, and the sites
            numbered in order of appearance: what :meth:`encoded` encodes after :meth:`finish`.

        Raises:
            DataError: what :meth:`TableEncoder.encode` raises.
        """
        encoder, graph = self.encoder, self.encoder.graph
        table = encoder._table(data, graph.order)
        values, observed, site = {}, {}, None
        kept = np.asarray(keep, dtype=np.int64)
        for name, summary in self._summaries.items():
            raw, present = read_column(summary.node, table.column(name, graph))
            summary.add(raw[present])
            values[name], observed[name] = torch.from_numpy(raw[kept]), torch.from_numpy(present[kept])
        if encoder.scope is not None:
            codes, found = read_sites(encoder.scope, table.column(encoder.scope, graph))
            for value in found:
                self._sites.setdefault(text_of(value), value)
            index = {text: i for i, text in enumerate(self._sites)}
            site = torch.from_numpy(np.array([*(index[text_of(value)] for value in found), -1])[codes[kept]])
        self.rows += table.rows
        return Batch(values, observed, site, len(kept))

    def finish(self) -> None:
        """Gives the encoder what all parts together say.

        Raises:
            DataError: a column without any entry, or a target with a single class.
        """
        graph = self.encoder.graph
        statistics = {}
        for name, summary in self._summaries.items():
            if not summary.rows:
                raise DataError(_empty(name, self.rows))
            statistics[name] = summary.statistics()
        seen = statistics[graph.target]["frequencies"].nonzero().flatten().tolist()
        if len(seen) < 2:
            raise DataError(
                f"target column {graph.target!r}: found one class, {levels_of(graph.nodes[graph.target])[seen[0]]!r}; "
                "expected rows of at least two to learn from"
            )
        if self.encoder.scope is not None and not self._sites:
            raise DataError(_empty(self.encoder.scope, self.rows))
        self.encoder.statistics, self.encoder.sites = statistics, _sorted(self._sites.values())

    def encoded(self, raw: Batch) -> Batch:
        """Rows that :meth:`add` has returned, as :meth:`TableEncoder.encode` gives them; ``raw`` is used up.

        Raises:
            DataError: a value too far from the others for the float type.
        """
        nodes = self.encoder.graph.nodes
        masks = {name: mask.numpy() for name, mask in raw.observed.items()}
        values = {name: self.encoder._encoded(nodes[name], v.numpy(), masks[name]) for name, v in raw.values.items()}
        site = raw.site
        if site is not None:
            index = {text_of(value): i for i, value in enumerate(self.encoder.sites)}
            site = torch.tensor([*(index[text] for text in self._sites), -1])[site]
        return Batch(values, {name: mask for name, mask in raw.observed.items() if not mask.all()}, site, raw.rows)


def _decoded(node: Node, values: Tensor) -> NDArray[Any]:
    """Codes as levels."""
    levels = levels_of(node)
    codes = values.round().long() if values.is_floating_point() else values.long()
    if codes.numel() and not 0 <= codes.min() <= codes.max() < len(levels):
        raise DataError(
            f"node {node.name!r}: found codes {int(codes.min())} to {int(codes.max())}; expected 0 to {len(levels) - 1}"
        )
    names: NDArray[Any] = np.empty(len(levels), dtype=object)
    names[:] = levels
    if len({type(level) for level in levels}) == 1:
        native = np.array(levels)
        if native.tolist() == list(levels):  # numpy cuts trailing zero characters, and widens huge integers
            names = native
    return np.asarray(names[codes.numpy()])


def _sorted(sites: Iterable[Level]) -> tuple[Level, ...]:
    return tuple(sorted(sites, key=text_of))


def _empty(name: str, rows: int) -> str:
    return f"column {name!r}: found no entry in {rows} rows; expected some to learn from"
