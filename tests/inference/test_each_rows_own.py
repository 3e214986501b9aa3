"""A row's probabilities are its own: whatever stands beside it, in whatever order, index or container."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama import CAMA, build
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.options import PredictionOptions
from tests.helpers.random_graphs import rows_of, small, specs

NODES: dict[str, Any] = {
    "y": {"type": "categorical", "levels": ["p", "q", "r"]},
    "a": "continuous",
    "n": "count",
    "b": "binary",
    "v": {"type": "continuous", "dim": 2},
    "k": {"type": "categorical", "levels": ["u", "v", "w"]},
}
EDGES = ["a -> y", "y -> n", "y -> b", "y -> v", "y -> k", "n -> k"]
SCOPES = ["row", "dataset", "site"]
FOLDER = tempfile.TemporaryDirectory()


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    return pd.DataFrame(
        {
            "y": np.array(list("pqr"))[y],
            "a": rng.normal(size=rows) + y,
            "n": rng.poisson(3 + y),
            "b": (rng.random(rows) < 0.2 + 0.3 * y) + 0,
            "v": list(rng.normal(size=(rows, 2)) + y[:, None]),
            "k": rng.choice(list("uvw"), rows),
            "site": rng.choice(["here", "there"], rows),
        }
    )


@functools.cache
def model(scope: str) -> CAMA:
    graph = {
        "target": "y",
        "nodes": NODES,
        "edges": EDGES,
        "latents": {"z": {"dim": 2}, "m": {"dim": 2, "scope": scope}},
    }
    cama = build(graph, hidden=8, layers=1, device="cpu").fit(table(90, 0), max_epochs=2, progress=False)
    return cama.adapt(table(40, 1), steps=5, restarts=1, folds=2, keep="always", progress=False)


@functools.cache
def expected(scope: str) -> np.ndarray:
    return model(scope).predict_proba(table(30, 2))


@pytest.mark.filterwarnings("ignore:rows of a site the model was never adapted to")
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_rows_in_any_order_of_any_graph(data: st.DataObject) -> None:
    cama = small(data.draw(specs(max_nodes=6)), sites=2, seed=data.draw(st.integers(0, 99)))
    batch = rows_of(cama, 12, missing=lambda: data.draw(st.booleans()))
    batch = batch.without(cama.graph.target)
    some = torch.tensor(data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=20)))
    options = PredictionOptions(samples=3, m_samples=2)
    whole, part = (class_log_posterior(cama, rows, None, options) for rows in (batch, batch.select(some)))
    torch.testing.assert_close(part, whole[:, some], rtol=1e-4, atol=1e-4, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(
    scope=st.sampled_from(SCOPES),
    some=st.lists(st.integers(0, 29), min_size=1, max_size=40),
    index=st.sampled_from(["range", "shuffled", "texts", "all the same", "dates", "levels"]),
    kind=st.sampled_from(["frame", "arrays", "lists", "tensors", "csv", "parquet"]),
)
def test_any_index_and_any_container(scope: str, some: list[int], index: str, kind: str) -> None:
    frame = table(30, 2).iloc[some].reset_index(drop=True)
    rows = len(frame)
    frame.index = {
        "range": pd.RangeIndex(5, 5 + rows),
        "shuffled": pd.Index(np.random.default_rng(rows).permutation(rows)),
        "texts": pd.Index([f"row {i}" for i in range(rows)]),
        "all the same": pd.Index(["one"] * rows),
        "dates": pd.date_range("2020-01-01", periods=rows),
        "levels": pd.MultiIndex.from_arrays([range(rows), ["b"] * rows]),
    }[index]
    np.testing.assert_allclose(
        model(scope).predict_proba(held(frame, kind)), expected(scope)[some], rtol=1e-4, atol=1e-6
    )


def held(frame: pd.DataFrame, kind: str) -> Any:
    """The rows in another container."""
    if kind == "frame":
        return frame
    if kind in ("csv", "parquet"):
        apart = frame.drop(columns="v").assign(**{f"v[{i}]": [entry[i] for entry in frame["v"]] for i in range(2)})
        path = Path(FOLDER.name) / f"rows.{kind}"
        apart.to_csv(path, index=False) if kind == "csv" else apart.to_parquet(path, index=False)
        return path
    columns: dict[str, Any] = {name: frame[name].tolist() for name in frame}
    if kind == "arrays":
        return {name: np.stack(frame["v"].to_list()) if name == "v" else np.array(c) for name, c in columns.items()}
    if kind == "tensors":
        return columns | {name: torch.tensor(np.array(columns[name])) for name in ("a", "n", "b", "v")}
    return columns
