"""Scales of columns: how they are chosen, and that everything comes back as it is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_cama.cama import build
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.encoder_fit import EncoderFit
from pyro_cama.data.scales import choose_unit, off_scale, on_scale, slope
from pyro_cama.errors import DataError, GraphError
from pyro_cama.graph.causal_graph import CausalGraph


def graph_of(scale: str | None = None, **keys: object) -> CausalGraph:
    x = {"type": "continuous", **({} if scale is None else {"scale": scale}), **keys}
    return CausalGraph({"target": "y", "nodes": {"y": "binary", "x": x}, "edges": ["y -> x"]})


def rows(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return y, rng.normal(y, 1.0), rng


def unit_of(x: np.ndarray, y: np.ndarray, scale: str = "auto") -> float:
    return choose_unit("x", scale, x, y)


@given(st.floats(-1e8, 1e8), st.floats(1e-6, 1e6))
def test_off_scale_undoes_on_scale(x: float, unit: float) -> None:
    raw = np.array([x])
    for u in (0.0, unit):
        found = off_scale(on_scale(raw, np.asarray(u)), np.asarray(u))
        assert found[0] == pytest.approx(x, rel=1e-9, abs=1e-9 * unit)


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e2))
def test_slope_is_the_derivative(x: float, unit: float) -> None:
    u, step = np.asarray(unit), 1e-4 * max(abs(x), unit)
    ends = on_scale(np.array([x - step, x + step]), u)
    assert slope(np.array([x]), u)[0] == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-4)


def test_normal_readings_stay_as_recorded() -> None:
    y, x, _ = rows()
    assert unit_of(x, y) == 0
    assert unit_of(1000 + 5 * x, y) == 0
    assert unit_of(50 + 5 * x, y) == 0  # positive, and no more skewed for it


def test_two_normal_classes_far_apart_are_not_taken_for_a_skewed_one() -> None:
    y, x, _ = rows()
    assert unit_of(np.where(y == 1, 100 + x, 1 + np.abs(x)), y) == 0


def test_lognormal_readings_take_a_logarithm_whatever_their_unit() -> None:
    y, x, _ = rows()
    for factor in (1e-6, 1.0, 1e6):
        raw = factor * np.exp(x)
        unit = unit_of(raw, y)
        assert 0 < unit <= np.quantile(raw, 0.1)
    assert unit_of(raw, y, "log") == raw.min() / 2
    assert unit_of(raw, y, "identity") == 0


def test_heavy_tails_of_both_signs_take_a_signed_one() -> None:
    y, x, _ = rows()
    raw = np.sinh(2 * x)
    assert unit_of(raw, y) > 0
    assert unit_of(raw, y, "signed_log") == unit_of(raw, y)
    with pytest.raises(DataError, match=r"column 'x': found \d+ readings of zero or below.*use signed_log"):
        unit_of(raw, y, "log")


@pytest.mark.parametrize("x", [np.zeros(50), np.full(50, 3.0), np.repeat([0.0, 5.0], 25), np.array([1.0]), np.zeros(0)])
@pytest.mark.parametrize("scale", ["auto", "signed_log"])
def test_constant_and_few_readings(x: np.ndarray, scale: str) -> None:
    assert np.isfinite(unit_of(x, np.repeat([0, 1], (len(x) + 1) // 2)[: len(x)], scale))


def test_a_table_is_encoded_on_its_scale_and_comes_back() -> None:
    y, x, _ = rows()
    table = {"y": y, "x": np.exp(x)}
    encoder = TableEncoder(graph_of()).fit(table)
    values = encoder.encode(table).values["x"]
    assert encoder.statistics["x"]["unit"] > 0
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(encoder.decode("x", values), table["x"], rtol=1e-4)
    assert float(encoder.encode_value("x", 2.0)) == pytest.approx(float(encoder.encode({"x": [2.0]}).values["x"]))
    # a gain is an offset, and zero and negative readings have a place
    moved = encoder.encode({"x": 10 * table["x"]}).values["x"] - values
    assert float(moved.std()) < 0.05 * float(moved.mean())
    assert encoder.encode({"x": [0.0, -1.0]}).values["x"].isfinite().all()
    again = TableEncoder.from_state(encoder.graph, encoder.state())
    assert torch.equal(again.encode(table).values["x"], values)


def test_components_of_a_vector_have_scales_of_their_own() -> None:
    y, x, rng = rows()
    table = {"y": y, "x": np.stack([x, np.exp(x), np.exp(3 * rng.normal(y, 1))], 1)}
    unit = TableEncoder(graph_of(dim=3)).fit(table).statistics["x"]["unit"]
    assert unit[0] == 0
    assert (unit[1:] > 0).all()


def test_the_scale_is_the_same_in_whatever_parts_a_table_comes() -> None:
    y, x, _ = rows(20_000)
    table = {"y": y, "x": np.exp(x)}
    graph = graph_of()
    encoder = TableEncoder(graph)
    found = []
    for size in (20_000, 7_000, 999):
        fitting = EncoderFit(graph, None)
        for start in range(0, 20_000, size):
            part = {name: value[start : start + size] for name, value in table.items()}
            fitting.add(encoder.columns_of(part, graph.order))
        found.append(fitting.statistics()["x"])
    for other in found[1:]:
        assert {k: v.tolist() for k, v in other.items()} == {k: v.tolist() for k, v in found[0].items()}


def test_what_a_graph_says_of_scales() -> None:
    assert graph_of().nodes["x"].scale == "auto"
    graph = graph_of("log")
    assert graph.nodes["x"].scale == "log"
    assert CausalGraph(graph.to_dict()) == graph
    assert "scale" not in graph_of("auto").to_dict()["nodes"]["x"]
    with pytest.raises(GraphError, match=r"node 'x': scale: found 'lgo'; .*did you mean 'log'"):
        graph_of("lgo")
    with pytest.raises(GraphError, match=r"found key 'scale'; expected, for type count"):
        CausalGraph({"target": "y", "nodes": {"y": "binary", "x": {"type": "count", "scale": "log"}}, "edges": []})


def test_the_summary_says_which_columns_are_read_on_a_logarithmic_scale() -> None:
    y, x, _ = rows(60)
    model = build(graph_of(dim=2), device="cpu")
    assert "log scale" not in model.summary()
    model.fit({"y": y, "x": np.stack([x, np.exp(2 * x)], 1)}, max_epochs=1, progress=False)
    assert "log scale   x[1]\n" in model.summary()
