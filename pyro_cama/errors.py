"""The two errors that a user can cause and repair."""

from __future__ import annotations


class GraphError(ValueError):
    """The causal graph, or what is asked of it, is at fault; the message says where and what to do."""


class DataError(ValueError):
    """The data do not fit the graph or the model; the message names the column, the rows and the remedy."""
