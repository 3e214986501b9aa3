"""Entries far from all others: which are found, in whatever parts they come, and what standardises the others."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama.data.column_statistics import ColumnStatistics
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.far_entries import ENDS, LARGEST, SAMPLE
from pyro_cama.graph.nodes import Node
from tests.helpers.tables import graph_of, labels

REAL, COUNT = Node("x", "continuous", scale="identity"), Node("x", "count")


def column(values: Any, node: Node = REAL, parts: int = 1) -> ColumnStatistics:
    found = ColumnStatistics(node)
    values = np.asarray(values, float)
    rows = np.arange(len(values))
    for part, places in zip(np.array_split(values, parts), np.array_split(rows, parts), strict=True):
        found.add(part, places)
    return found


def normals(rows: int = 600, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(10, 1, rows)


def put(values: Any, rows: Any, value: float) -> Any:
    values = values.copy()
    values[rows] = value
    return values


@pytest.mark.parametrize("value", [-999, 1e3, 1e6, 1e30, -1e300])
def test_a_code_among_measurements_is_found_and_has_no_part_in_mean_and_sd(value: float) -> None:
    for rows in ([5], [5, 7, 100, 200, 300], range(5, 65)):
        found = column(put(normals(), rows, value))
        (far,) = found.far()
        assert (far.value, far.row, far.count, far.component) == (value, 5, len(rows), None)
        others = np.delete(normals(), rows)
        statistics = found.statistics()
        assert float(statistics["mean"]) == pytest.approx(others.mean(), rel=1e-12)
        assert float(statistics["sd"]) == pytest.approx(others.std(), rel=1e-12)
        low, high = float(statistics["low"]), float(statistics["high"])
        assert low < others.min() < others.max() < high
        assert (value < low) != (value > high)


def test_two_codes_on_two_sides_are_found() -> None:
    found = column(put(put(normals(), [3, 4], -999), [9], 9999))
    assert [(far.value, far.row, far.count) for far in found.far()] == [(-999, 3, 2), (9999, 9, 1)]
    assert float(found.statistics()["sd"]) == pytest.approx(np.delete(normals(), [3, 4, 9]).std())


RNG = np.random.default_rng(1)
SOUND = {
    "normal": normals(),
    "log-normal": np.exp(2 * RNG.normal(size=5000)),
    "Cauchy": RNG.standard_cauchy(20_000),
    "huge": 1e9 * normals(),
    "far from 0": 1e9 + normals(),
    "constant": np.ones(600),
    "constant but for one": put(np.zeros(600), 5, -999.0),
    "at rest or not": np.r_[RNG.normal(0, 0.01, 800), RNG.normal(5, 1, 200)],
    "a rare group": np.r_[RNG.normal(0, 0.01, 980), RNG.normal(5, 1, 20)],
    "a fifth the same": np.r_[np.zeros(200), 100 + RNG.normal(size=800)],
    "one": np.array([3.0]),
    "two": np.array([3.0, -999.0]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_elsewhere_mean_and_sd_are_those_of_all(kind: str) -> None:
    found = column(SOUND[kind])
    assert not found.far()
    statistics = found.statistics()
    assert float(statistics["mean"]) == pytest.approx(SOUND[kind].mean(), rel=1e-12)
    assert float(statistics["sd"]) == pytest.approx(SOUND[kind].std() or 1.0, rel=1e-9)
    assert (float(statistics["low"]), float(statistics["high"])) == (-LARGEST, LARGEST)


def test_counts_have_to_be_far_on_a_log_scale_too() -> None:
    few = np.random.default_rng(0).poisson(5, 600).astype(float)
    found = column(put(few, 7, 99999), COUNT)
    (far,) = found.far()
    assert (far.value, far.row) == (99999, 7)
    expected = column(np.delete(few, 7), COUNT).statistics()
    for key in ("mean", "log_mean", "log_sd"):
        torch.testing.assert_close(found.statistics()[key], expected[key])
    views = np.floor(np.exp(3 + 2 * np.random.default_rng(0).normal(size=5000)))
    assert not column(views, COUNT).far()


def test_of_a_vector_every_component_is_looked_at_by_itself() -> None:
    values = np.stack([normals(seed=seed) for seed in range(3)], -1)
    found = column(put(values, (5, 1), -999), Node("x", "continuous", dim=3))
    (far,) = found.far()
    assert (far.component, far.value, far.row) == (1, -999, 5)
    statistics = found.statistics()
    clean = column(values, Node("x", "continuous", dim=3)).statistics()
    assert statistics["sd"][[0, 2]].tolist() == clean["sd"][[0, 2]].tolist()
    assert float(statistics["sd"][1]) == pytest.approx(np.delete(values[:, 1], 5).std())


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(0, 100), st.sampled_from(["none", "one", "many"]))
def test_parts_change_nothing(parts: int, seed: int, which: str) -> None:
    values = normals(SAMPLE + 2000, seed)
    rows = {"none": [], "one": [700 + seed], "many": range(3, 3 + 2 * ENDS)}[which]
    whole, split = (column(put(values, rows, -999), parts=n) for n in (1, parts))
    assert whole.far() == split.far()
    assert [far.row for far in whole.far()] == [*rows][:1]
    for key, value in whole.statistics().items():
        torch.testing.assert_close(split.statistics()[key], value, rtol=1e-12, atol=1e-12)
    if rows:
        assert float(whole.statistics()["sd"]) == pytest.approx(np.delete(values, rows).std(), rel=0.03)


def test_rows_are_counted_with_those_that_miss_the_entry() -> None:
    x = put(normals(), 5, -999)
    x[:5] = np.nan
    encoder = TableEncoder(graph_of(x={"type": "continuous", "scale": "identity"})).fit({"y": labels(600), "x": x})
    assert [far.row for far in encoder.far["x"]] == [5]


def test_far_entries_come_back_exactly_and_count_as_missing_where_that_is_asked_for() -> None:
    table = {"y": labels(600), "x": put(normals(), 5, -999), "n": put(np.arange(600) % 7, 6, 10**6)}
    encoder = TableEncoder(graph_of(x={"type": "continuous", "scale": "identity"}, n="count")).fit(table)
    batch = encoder.encode(table)
    assert not batch.observed
    raw = encoder.decode("x", batch.values["x"])
    np.testing.assert_allclose(raw, table["x"], rtol=1e-6)
    assert torch.equal(encoder.encode({**table, "x": raw}).values["x"], batch.values["x"])
    trained = encoder.without_far(batch)
    assert (~trained.observed["x"]).nonzero().flatten().tolist() == [5]
    assert (~trained.observed["n"]).nonzero().flatten().tolist() == [6]
    assert float(trained.values["x"][5]) == 0
    assert float(trained.values["n"][6]) == float(encoder.statistics["n"]["mean"].round())
    assert float(batch.values["n"][6]) == 1e6
    again = TableEncoder.from_state(encoder.graph, encoder.state())
    torch.testing.assert_close(again.without_far(batch).observed, trained.observed)
