"""Tables of every kind of column, graphs for them, and data sets that are no tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.graph.causal_graph import CausalGraph


def graph_of(scope: str = "row", **nodes: Any) -> CausalGraph:
    """The target y, "a" or "b" unless given, as the cause of all other nodes."""
    nodes = {"y": {"type": "categorical", "levels": ["a", "b"]}} | nodes
    return CausalGraph(
        {
            "target": "y",
            "nodes": nodes,
            "edges": [["y", name] for name in nodes if name not in ("y", "site")],
            "latents": {"m": {"scope": scope}},
        }
    )


def labels(rows: int) -> list[str]:
    return ["ab"[i % 2] for i in range(rows)]


def encoded(column: Any, node: Any = "continuous") -> tuple[TableEncoder, Batch]:
    """The column ``x`` as training table and as new rows."""
    table = {"y": labels(len(column)), "x": column}
    encoder = TableEncoder(graph_of(x=node)).fit(table)
    return encoder, encoder.encode(table)


ALL_TYPES: dict[str, Any] = {
    "x": "continuous",
    "v": {"type": "continuous", "dim": 2},
    "n": "count",
    "w": {"type": "count", "dim": 3},
    "b": {"type": "binary", "levels": ["no", "yes"]},
    "c": {"type": "categorical", "levels": [1, 2, 3]},
    "i": {"type": "image", "shape": [1, 2, 2]},
}


def all_types_table(rows: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "y": labels(rows),
        "x": rng.normal(5, 3, rows),
        "v": rng.normal([1, -2], [3, 4], (rows, 2)),
        "n": rng.poisson(4, rows),
        "w": rng.poisson(4, (rows, 3)),
        "b": rng.choice(["no", "yes"], rows),
        "c": rng.choice([1, 2, 3], rows),
        "i": rng.random((rows, 1, 2, 2)),
    }


def assert_same(one: Batch, two: Batch) -> None:
    assert one.rows == two.rows
    assert one.values.keys() == two.values.keys()
    assert one.observed.keys() == two.observed.keys()
    for name in one.values:
        assert torch.equal(one.values[name], two.values[name])
    for name in one.observed:
        assert torch.equal(one.observed[name], two.observed[name])
    assert (one.site is None) == (two.site is None)
    assert one.site is None or two.site is None or torch.equal(one.site, two.site)


class Rows(Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class SizedRows(Rows):
    def __len__(self) -> int:
        return len(self.rows)


class Stream(IterableDataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def fitting(node: Any) -> Any:
    """Two entries that fit."""
    spec = {"type": node} if isinstance(node, str) else node
    if spec["type"] in ("binary", "categorical"):
        return spec.get("levels", [0, 1])
    return np.zeros((2, *spec.get("shape", [spec["dim"]] if "dim" in spec else [])))


def site_list(batch: Batch) -> list[int]:
    assert batch.site is not None
    return [int(site) for site in batch.site]
