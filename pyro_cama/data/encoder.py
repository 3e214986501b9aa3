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
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama._messages import listed, one_of, shown
from pyro_cama.data.batch import Batch
from pyro_cama.data.class_moments import moment_shapes
from pyro_cama.data.column_statistics import statistic_shapes
from pyro_cama.data.columns import levels_of, read_column, read_sites, text_of
from pyro_cama.data.encoder_fit import EncoderFit, sorted_sites
from pyro_cama.data.far_entries import Far
from pyro_cama.data.row_numbers import rows_text, sizes_text
from pyro_cama.data.tables import Columns, Table, read_table
from pyro_cama.data.unknown_levels import note_unknown, takes_unknown
from pyro_cama.data.values import decode_values, encode_values, recorded, standardised
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node
from pyro_cama.graph.schema import Level

_logger = logging.getLogger("pyro_cama")
_NOTES = 5  # columns in one note


class TableEncoder:
    """Tables of one causal graph to tensors and back; what that takes is learnt by :meth:`fit`.

    A table is a pandas DataFrame, a mapping of column name to array, list, tensor or Series, or a torch
    Dataset that yields such mappings a row. It holds the target and its Markov blanket (``graph.order``), and
    the scope column if the manipulation has one. Columns that are no nodes are ignored, which is logged once.
    Series are read by position, not by index. A vector is a (rows, dim) array or a column of equal-length
    lists, an image a (rows, *shape) array of floats in [0, 1] or of uint8, or a column of paths of image files
    (:mod:`pyro_cama.data.image_files` says which). None, NaN and pd.NA are missing entries. A level is matched
    exactly or else by its text: 1, 1.0, "1" and "1.0" are one level unless the graph has several of them, and "01" is
    one only where all levels are numbers. Sites are told apart by their text, "01" from 1. A scope column
    that is a node too may hold new levels after the fit: the node's entry is then missing.

    Float tensors have torch's default dtype. The caller's data are never changed.

    Attributes:
        graph: the causal graph.
        statistics: node to float64 tensors. Continuous: ``mean`` and ``sd`` on
            the node's scale and its ``unit`` (:mod:`pyro_cama.data.scales`), () or (dim,). Count: ``mean``,
            and ``log_mean`` and ``log_sd`` of log(1 + x), () or (dim,). Discrete: ``frequencies``, (levels,).
            Image: ``mean`` and ``sd`` of all pixels, (). The sd of a constant is 1. Of numbers also ``low`` and
            ``high``: entries beyond stand far from all others (:mod:`pyro_cama.data.far_entries`), and have no part
            in the other statistics; and ``least`` and ``most``, the range of the rest. Empty before :meth:`fit`.
        by_class: node to what its training rows were like in every class (:mod:`pyro_cama.data.class_moments`): of
            numbers and levels, but for the target's.
        far: node to the entries of the training table that do so; not stored.
        sites: known values of the scope column, those of the training table sorted by their text; empty if
            there is no scope column.
    """

    graph: CausalGraph
    statistics: dict[str, dict[str, Tensor]]
    by_class: dict[str, dict[str, Tensor]]
    sites: tuple[Level, ...]
    far: dict[str, list[Far]]

    def __init__(self, graph: CausalGraph) -> None:
        self.graph = graph
        self.statistics = {}
        self.by_class = {}
        self.sites = ()
        self.far = {}
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
        fitting = EncoderFit(self.graph, self.scope)
        fitting.add(self.columns_of(data, self.graph.order))
        self.learn(fitting)
        return self

    def learn(self, fitting: EncoderFit) -> None:
        """Takes over what all parts of a training table together say; logs what it seems to have lost.

        Raises:
            DataError: a column without any entry, or a target with a single class.
        """
        self.statistics, self.sites, self.far = fitting.statistics(), fitting.sites(), fitting.far()
        self.by_class = fitting.by_class(self.statistics)
        if notes := fitting.notes():
            more = f"; and {len(notes) - _NOTES} more columns" if len(notes) > _NOTES else ""
            _logger.warning("%s%s", "; ".join(notes[:_NOTES]), more)

    def encode(
        self, data: Table, target: Literal["require", "use", "ignore"] = "use", new_sites: bool = False
    ) -> Batch:
        """Encodes the rows of a table as tensors.

        An unknown level is an error, but inside :func:`pyro_cama.data.unknown_levels.reading_unknown`.

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
        table = self.columns_of(data, wanted)
        if target == "use" and label not in table.columns:
            wanted = [name for name in wanted if name != label]
        values, observed = {}, {}
        for name in wanted:
            node = self.graph.nodes[name]
            column = table.column(name, self.graph)
            lenient = takes_unknown() and name not in (label, self.scope)
            raw, present = read_column(node, column, unknown_is_missing=lenient or name == self.scope)
            if lenient and node.levels:
                note_unknown(name, column, present)
            if name == label and target == "require" and not present.all():
                raise DataError(
                    f"target column {name!r}: found no label in {rows_text(~present)}; "
                    "label these rows, or leave them out"
                )
            values[name] = encode_values(node, raw, present, self.statistics[name])
            if not present.all():
                observed[name] = torch.from_numpy(present)
        site = None
        if self.scope is not None:
            codes, found = read_sites(self.scope, table.column(self.scope, self.graph))
            sites = self._with_new(found) if new_sites else self.sites
            index = {text_of(value): i for i, value in enumerate(sites)}
            site = torch.from_numpy(np.array([*(index.get(text_of(v), -1) for v in found), -1])[codes])
        return Batch(values, observed, site, table.rows)

    def without_far(self, batch: Batch) -> Batch:
        """Returns encoded rows in which entries that stand far from the training table's others are missing."""
        masks = {}
        for name, value in batch.values.items():
            node = self.graph.nodes[name]
            if not node.is_number:
                continue
            statistics = self.statistics[name]
            bounds = np.stack([statistics["low"], statistics["high"]])
            if node.type == "continuous":
                bounds = standardised(bounds, statistics)
            low, high = torch.from_numpy(bounds).to(value)
            far = ((value < low) | (value > high)).reshape(batch.rows, -1).any(1)
            if far.any():
                masks[name] = far
        return self.with_missing(batch, masks)

    def with_missing(self, batch: Batch, masks: Mapping[str, Tensor]) -> Batch:
        """Returns encoded rows in which some entries of numbers are missing, filled in as :meth:`encode` does.

        Args:
            masks: of nodes, which of their entries, bool ``(rows,)``.
        """
        values, observed = dict(batch.values), dict(batch.observed)
        for name, gone in masks.items():
            node, statistics = self.graph.nodes[name], self.statistics[name]
            filled = statistics["mean"].round() if node.type == "count" else torch.zeros(node.event_shape)
            values[name] = values[name].clone()
            values[name][gone] = filled.to(values[name])
            observed[name] = observed.get(name, torch.ones_like(gone)) & ~gone
        return Batch(values, observed, batch.site, batch.rows)

    def encode_value(self, name: str, value: Any) -> Tensor:
        """Encodes one value of a node, in raw units or a level, as :meth:`encode` would, without the rows.

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
        return encode_values(node, raw, present, self.statistics[name])[0]

    def with_sites(self, data: Table) -> TableEncoder:
        """Returns a copy that also knows the sites of ``data``, appended after the known ones, whose indices stay.

        Without a scope column, a plain copy.

        Raises:
            DataError: the scope column is missing from ``data``.
            RuntimeError: the encoder has not been fitted.
        """
        self._require_fitted()
        other = copy.copy(self)
        if self.scope is not None:
            column = self.columns_of(data, ()).column(self.scope, self.graph)
            other.sites = self._with_new(read_sites(self.scope, column)[1])
        return other

    def decode(self, name: str, values: Tensor) -> NDArray[Any]:
        """Decodes values of a node to raw units or level names.

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
            return decode_values(node, values)
        shape = node.event_shape
        if values.dim() < len(shape) or values.shape[values.dim() - len(shape) :] != shape:
            raise DataError(f"node {name!r}: found shape {tuple(values.shape)}; expected (..., {sizes_text(shape)})")
        if node.is_image:
            return np.array(values.to(torch.get_default_dtype()).numpy())
        array = np.array(values.double().numpy())
        if node.type == "count":
            return array
        return recorded(array, self.statistics[name])

    def labels(self, codes: Tensor | NDArray[Any]) -> NDArray[Any]:
        """Decodes codes of the target (any shape) to the labels that the graph names.

        The array has the labels' own type, or object if they mix types. Needs no :meth:`fit`.

        Raises:
            DataError: a code that is no level.
        """
        return decode_values(self.graph.nodes[self.graph.target], torch.as_tensor(codes).detach().cpu())

    def state(self) -> dict[str, Any]:
        """Returns what :meth:`fit` has learnt, as plain lists, numbers and texts for JSON; nothing is rounded."""
        nodes = [self.graph.nodes[name] for name in self.graph.order]
        return {
            "levels": {node.name: list(levels_of(node)) for node in nodes if node.levels},
            "statistics": _listed(self.statistics),
            "by_class": _listed(self.by_class),
            "sites": list(self.sites),
        }

    @classmethod
    def from_state(cls, graph: CausalGraph, state: Mapping[str, Any]) -> Self:
        """Returns the encoder of this graph that :meth:`state` has described.

        Raises:
            DataError: the state is damaged, or of another graph.
        """
        encoder = cls(graph)
        try:
            for name in graph.order:
                levels = levels_of(graph.nodes[name])
                if levels and (found := state["levels"][name]) != list(levels):
                    raise DataError(f"stored levels of {name!r}: found {shown(found)}; expected {shown([*levels])}")
            classes = graph.nodes[graph.target].classes
            for name in graph.order if state["statistics"] else ():
                node, stored = graph.nodes[name], state["statistics"][name]
                encoder.statistics[name] = _numbers(name, stored, statistic_shapes(node))
                if name != graph.target and (shapes := moment_shapes(node, classes)):
                    encoder.by_class[name] = _numbers(name, state["by_class"][name], shapes)
            encoder.sites = tuple(state["sites"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the stored encoding is damaged or of another graph: {error!r}") from error
        return encoder

    @property
    def scope(self) -> str | None:
        """The name of the scope column, None if there is none."""
        return self.graph.site_column

    def _node(self, name: str) -> Node:
        if name not in self.graph.order:
            raise DataError(f"found {name!r}; {one_of(name, self.graph.order)}")
        return self.graph.nodes[name]

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError("the encoder knows no training table yet: call fit first")

    def columns_of(self, data: Table, names: Iterable[str]) -> Columns:
        """Returns the named columns and the scope column; those that are no nodes are noted, once."""
        table = read_table(data, {*names} if self.scope is None else {*names, self.scope})
        unknown = [name for name in table.names if name not in self.graph.nodes and name != self.scope]
        if unknown and not self._noted:
            self._noted = True
            _logger.warning("columns that are no nodes of the graph are ignored: %s", listed(unknown))
        return table

    def _with_new(self, found: Iterable[Level]) -> tuple[Level, ...]:
        """The known sites, then the new ones among ``found``."""
        known = {text_of(site) for site in self.sites}
        return (*self.sites, *sorted_sites(site for site in found if text_of(site) not in known))


def _listed(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Any]]:
    return {name: {key: value.tolist() for key, value in entries.items()} for name, entries in tensors.items()}


def _numbers(name: str, stored: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The stored numbers of a node as tensors, float64."""
    found = {}
    for key, shape in shapes.items():
        value = torch.tensor(stored[key], dtype=torch.float64)
        if value.shape != shape or not value.isfinite().all():
            raise DataError(f"stored {key} of {name!r}: expected finite numbers of shape {shape}")
        found[key] = value
    return found
