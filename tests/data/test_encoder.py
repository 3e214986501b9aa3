"""Tables to tensors and back: values, missing entries, the target, what is forgotten and what is noted, state."""

import copy
import io
import json
import logging
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.sampling import survey
from pyro_cama.data.streams import FrameStream
from pyro_cama.data.tables import Table
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.patches import no_entry_by_entry
from tests.helpers.tables import ALL_TYPES, all_types_table, assert_same, encoded, graph_of, labels

NAMES = ["x", "type", "keys", "a.b", "with space", "class", "ünïcode", "__init__", "1"]


# Values


def test_every_type_is_encoded_as_promised() -> None:
    table = all_types_table()
    batch = TableEncoder(graph_of(**ALL_TYPES)).fit(table).encode(table)
    kinds = {name: (value.dtype, tuple(value.shape)) for name, value in batch.values.items()}
    assert kinds == {
        "y": (torch.int64, (6,)),
        "x": (torch.float32, (6,)),
        "v": (torch.float32, (6, 2)),
        "n": (torch.float32, (6,)),
        "w": (torch.float32, (6, 3)),
        "b": (torch.float32, (6,)),
        "c": (torch.int64, (6,)),
        "i": (torch.float32, (6, 1, 2, 2)),
    }
    assert batch.rows == 6
    assert batch.observed == {}
    assert batch.site is None
    assert batch.values["y"].tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.values["n"].tolist() == table["n"].tolist()
    assert batch.values["b"].tolist() == [float(level == "yes") for level in table["b"]]
    assert batch.values["c"].tolist() == [level - 1 for level in table["c"]]
    for name in ("x", "v"):
        expected = (table[name] - table[name].mean(0)) / table[name].std(0)
        np.testing.assert_allclose(batch.values[name].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(batch.values["i"].numpy(), table["i"].astype(np.float32))


def test_statistics_are_those_of_the_training_rows() -> None:
    table = all_types_table()
    statistics = TableEncoder(graph_of(**ALL_TYPES)).fit(table).statistics
    pixels = table["i"].astype(np.float32).astype(float)
    expected = {
        "y": {"frequencies": [0.5, 0.5]},
        "x": {"mean": table["x"].mean(), "sd": table["x"].std(), "unit": 0.0},
        "v": {"mean": table["v"].mean(0), "sd": table["v"].std(0), "unit": np.zeros(2)},
        "n": {
            "mean": table["n"].mean(),
            "log_mean": np.log1p(table["n"]).mean(),
            "log_sd": np.log1p(table["n"]).std(),
        },
        "w": {
            "mean": table["w"].mean(0),
            "log_mean": np.log1p(table["w"]).mean(0),
            "log_sd": np.log1p(table["w"]).std(0),
        },
        "b": {"frequencies": [np.mean(table["b"] == level) for level in ("no", "yes")]},
        "c": {"frequencies": [np.mean(table["c"] == level) for level in (1, 2, 3)]},
        "i": {"mean": pixels.mean(), "sd": pixels.std()},
    }
    for name in ("x", "v", "n", "w"):
        size = np.full(np.shape(expected[name]["mean"]), np.finfo(float).max)  # nothing stands far from the others
        expected[name] |= {"low": -size, "high": size, "least": table[name].min(0), "most": table[name].max(0)}
    assert {name: set(entries) for name, entries in statistics.items()} == {
        name: set(entries) for name, entries in expected.items()
    }
    for name, entries in expected.items():
        for key, value in entries.items():
            assert statistics[name][key].dtype == torch.float64
            assert statistics[name][key].shape == np.shape(value)
            np.testing.assert_allclose(statistics[name][key].numpy(), value, rtol=1e-12)


def test_moments_of_many_images_are_those_of_all_their_pixels() -> None:
    """They are gathered a thousand images at a time."""
    images = np.linspace(0, 1, 2500)[:, None, None, None] ** 2 * np.ones((1, 2, 2))
    graph = graph_of(y={"type": "binary"}, i={"type": "image", "shape": [1, 2, 2]})
    found = TableEncoder(graph).fit({"y": np.arange(2500) % 2, "i": images}).statistics["i"]
    assert found["mean"].item() == pytest.approx(images.mean(), rel=1e-6)
    assert found["sd"].item() == pytest.approx(images.std(), rel=1e-6)


def test_new_rows_are_encoded_with_the_training_rows_statistics() -> None:
    encoder, _ = encoded([0.0, 2.0])
    assert encoder.encode({"x": [3.0]}).values["x"].tolist() == [2.0]


def test_a_constant_column_of_the_training_table_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "pyro_cama"):
        encoded([2.5] * 6 + [None])
    assert (
        "column 'x': found 2.5 in all of its 6 entries, which tells nothing: leave it out of the graph" in caplog.text
    )


@pytest.mark.parametrize("constant", [0.1, 0.0, -7.0, 1e300, 1e-310])
def test_a_constant_column_has_deviation_one(constant: float) -> None:
    encoder, batch = encoded([constant] * 7)
    assert encoder.statistics["x"]["sd"] == 1
    assert batch.values["x"].tolist() == [0.0] * 7


def test_a_column_constant_but_for_rounding_has_deviation_one() -> None:
    encoder, batch = encoded([0.3, 0.1 + 0.2])
    assert encoder.statistics["x"]["sd"] == 1
    assert batch.values["x"].abs().max() < 1e-12


def test_one_constant_component_leaves_the_others_alone() -> None:
    encoder, _ = encoded(np.array([[1.0, 5.0], [3.0, 5.0]]), {"type": "continuous", "dim": 2})
    assert encoder.statistics["x"]["sd"].tolist() == [1, 1]
    assert encoder.statistics["x"]["mean"].tolist() == [2, 5]


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_huge_and_tiny_units_do_not_overflow(scale: float) -> None:
    _, batch = encoded(np.array([-1.0, 0.0, 1.0]) * scale)
    np.testing.assert_allclose(batch.values["x"], np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-6)


def test_the_default_dtype_decides(double: None) -> None:
    table = all_types_table()
    batch = TableEncoder(graph_of(**ALL_TYPES)).fit(table).encode(table)
    assert {value.dtype for value in batch.values.values()} == {torch.float64, torch.int64}
    np.testing.assert_array_equal(batch.values["i"].numpy(), table["i"])


@pytest.mark.parametrize("kind", [pd.DataFrame, dict])
def test_any_column_name_works(kind: Any) -> None:
    graph = graph_of(**dict.fromkeys(NAMES, "continuous"))
    table = kind({"y": ["a", "b"]} | {name: [float(i), i + 2.0] for i, name in enumerate(NAMES)})
    batch = TableEncoder(graph).fit(table).encode(table)
    for name in NAMES:
        assert batch.values[name].tolist() == [-1, 1]


def test_column_names_need_not_be_text() -> None:
    graph = graph_of(**{"0": "continuous"})
    table = pd.DataFrame({"y": ["a", "b"], 0: [1.0, 3.0]})
    assert TableEncoder(graph).fit(table).encode(table).values["0"].tolist() == [-1, 1]


def test_only_the_target_and_its_blanket_are_read() -> None:
    graph = CausalGraph(
        {
            "target": "y",
            "nodes": {"far": "continuous", "p": "continuous", "y": "binary", "x": "continuous"},
            "edges": ["far -> p -> y -> x"],
        }
    )
    table = {"y": [0, 1], "p": [1.0, 2.0], "x": [1.0, 2.0], "far": ["no", "number"]}
    assert set(TableEncoder(graph).fit(table).encode(table).values) == {"p", "y", "x"}


@pytest.mark.usefixtures("double")
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 6), "rows")
    reals = st.floats(-1e6, 1e6)

    def column(entry: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(entry, min_size=rows, max_size=rows))

    scalars = st.text(max_size=3) | st.integers(-9, 9) | st.floats(-9, 9)
    levels = data.draw(st.lists(scalars, min_size=2, max_size=4, unique_by=lambda level: (str(level), level)))
    levels = list({str(level): level for level in levels}.values())
    if len(levels) < 2 or len(set(levels)) < len(levels):
        levels = ["a", 1]
    graph = graph_of(**ALL_TYPES | {"c": {"type": "categorical", "levels": levels}})
    table = {
        "y": [*"ab", *column(st.sampled_from("ab"))][:rows],
        "x": column(reals),
        "v": column(st.tuples(reals, reals)),
        "n": column(st.integers(0, 10**6)),
        "w": column(st.lists(st.integers(0, 9), min_size=3, max_size=3)),
        "b": column(st.sampled_from(["no", "yes"])),
        "c": column(st.sampled_from(levels)),
        "i": np.array(column(st.lists(st.floats(0, 1), min_size=4, max_size=4))).reshape(rows, 1, 2, 2),
    }
    original = copy.deepcopy(table)
    encoder = TableEncoder(graph).fit(table)
    batch = encoder.encode(table, target="require")
    for name in graph.order:
        back = encoder.decode(name, batch.values[name])
        if name in ("x", "v"):
            np.testing.assert_allclose(back, np.array(table[name]), rtol=1e-9, atol=1e-9)
        elif name == "c":
            assert back.tolist() == table["c"]
        else:
            np.testing.assert_array_equal(back, np.array(table[name]))
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state())))
    assert_same(restored.encode(table), batch)
    for name, value in original.items():
        np.testing.assert_array_equal(np.asarray(table[name], dtype=object), np.asarray(value, dtype=object))


# Missing entries


def test_missing_entries_are_filled_in_and_marked() -> None:
    table = all_types_table(5) | {
        "x": [1.0, None, 3.0, 1.0, 3.0],
        "v": [[1.0, 2.0], [np.nan, 7.0], None, [3.0, 6.0], [3.0, 6.0]],
        "n": [1, 4, 4, pd.NA, 4],
        "w": [None, [1, 2, 3], [3, 4, 5], [3, 4, 5], [1, np.nan, 1]],
        "b": ["yes", "yes", "no", np.nan, "yes"],
        "c": [3, None, 3, 1, 2],
    }
    table["i"] = table["i"] * 0 + 0.25
    table["i"][0, 0, 0, 0] = np.nan
    table["y"] = ["a", "b", "b", None, "a"]
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    assert {name: mask.tolist() for name, mask in batch.observed.items()} == {
        "x": [True, False, True, True, True],
        "v": [True, False, False, True, True],
        "n": [True, True, True, False, True],
        "w": [False, True, True, True, False],
        "b": [True, True, True, False, True],
        "c": [True, False, True, True, True],
        "i": [False, True, True, True, True],
        "y": [True, True, True, False, True],
    }
    filled = {name: value[~batch.observed[name]].tolist() for name, value in batch.values.items()}
    assert filled == {
        "x": [0],
        "v": [[0, 0], [0, 0]],
        "n": [3],
        "w": [[2, 3, 4], [2, 3, 4]],
        "b": [1],
        "c": [2],
        "i": [[[[0.25, 0.25], [0.25, 0.25]]]],
        "y": [0],
    }
    assert encoder.statistics["x"]["mean"] == 2
    assert encoder.statistics["c"]["frequencies"].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, Decimal("NaN")])
def test_a_new_column_may_be_missing_as_a_whole(nothing: Any) -> None:
    table = all_types_table(2) | {"b": ["no", "yes"], "c": [1, 2]}
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode({name: [nothing] * 2 for name in table})
    assert {name: mask.tolist() for name, mask in batch.observed.items()} == {name: [False, False] for name in table}
    frame = pd.DataFrame({name: [nothing] * 2 for name in table})
    assert encoder.encode(frame).observed.keys() == table.keys()
    assert all(value.isfinite().all() for value in batch.values.values())


def test_a_column_without_entries_cannot_be_learnt_from() -> None:
    with pytest.raises(DataError, match=r"column 'x': found no entry in 2 rows; expected some to learn from"):
        encoded([None, np.nan])
    with pytest.raises(DataError, match="column 'x': found no entry in 2 rows"):
        encoded([[1, None], None], {"type": "continuous", "dim": 2})


# The target


def test_what_becomes_of_the_target() -> None:
    encoder = TableEncoder(graph_of(x="continuous")).fit({"y": ["a", "b"], "x": [1, 3]})
    assert encoder.encode({"x": [1]}).values.keys() == {"x"}
    assert encoder.encode({"x": [1], "y": [None]}).observed["y"].tolist() == [False]
    assert encoder.encode({"x": [1], "y": ["?"]}, target="ignore").values.keys() == {"x"}
    assert encoder.encode({"x": [1], "y": ["b"] * 3}, target="ignore").rows == 1
    assert encoder.encode({"x": [1], "y": ["b"]}, target="require").values["y"].tolist() == [1]
    with pytest.raises(DataError, match=r"target column 'y': found none, but 'Y'; expected one: rename it, or add"):
        encoder.encode({"x": [1], "Y": ["b"]}, target="require")
    with pytest.raises(DataError, match=r"target column 'y': found no label in rows 0, 2 \(counted from 0\)"):
        encoder.encode({"x": [1, 2, 3], "y": [None, "b", None]}, target="require")
    with pytest.raises(DataError, match="unknown levels in row 0"):
        encoder.encode({"x": [1], "y": ["?"]})
    with pytest.raises(DataError, match=r"found target='required'; .*did you mean 'require'"):
        encoder.encode({"x": [1]}, target="required")  # type: ignore[arg-type]


def test_training_needs_labels_of_two_classes() -> None:
    encoder = TableEncoder(graph_of(x="continuous"))
    with pytest.raises(DataError, match=r"target column 'y': found none; expected one: add the column"):
        encoder.fit({"x": [1, 2]})
    with pytest.raises(DataError, match=r"target column 'y': found one class, 'b'; expected rows of at least two"):
        encoder.fit({"x": [1, 2, 3], "y": ["b", "b", None]})
    assert not encoder.fitted
    assert encoder.fit({"x": [1, 2, 3], "y": ["b", "a", None]}).fitted


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        (["a", "bcd"], "U"),
        ([0, 1], "i"),
        ([False, True], "b"),
        ([0.5, 1.5], "f"),
        (["a", 1], "O"),
        ([1, 2.5], "O"),
    ],
)
def test_labels_are_the_graphs(levels: list[Any], kind: str) -> None:
    graph = graph_of(y={"type": "binary", "levels": levels}, x="continuous")
    encoder = TableEncoder(graph)
    for codes in (torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]]), np.array([[1, 0]])):
        found = encoder.labels(codes)
        assert found.dtype.kind == kind
        assert found.tolist() == [[levels[1], levels[0]]]
    assert encoder.labels(torch.tensor([], dtype=torch.long)).shape == (0,)


def test_labels_that_numpy_would_alter_stay_as_they_are() -> None:
    graph = graph_of(y={"type": "binary", "levels": ["a\0", "b"]}, x="continuous")
    assert TableEncoder(graph).labels(np.array([0])).tolist() == ["a\0"]


def test_a_missing_column_names_the_nearest_that_is_no_node() -> None:
    graph = graph_of(radius="continuous", radius_2="continuous")
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "radius": [1, 2], "radius_2": [1, 2]})
    with pytest.raises(DataError, match=r"^column 'radius': found none, but 'Radius_mm'; expected one: rename it, or"):
        encoder.encode({"radius_2": [1], "Radius_mm": [1]})
    with pytest.raises(DataError, match=r"^column 'radius': found none; expected one: add the column"):
        encoder.encode({"radius_2": [1]})


def test_an_encoder_that_is_not_fitted_says_so() -> None:
    encoder = TableEncoder(graph_of(x="continuous"))
    assert not encoder.fitted
    for call in (encoder.encode, encoder.with_sites):
        with pytest.raises(RuntimeError, match="call fit first"):
            call({"x": [1]})
    with pytest.raises(RuntimeError, match="call fit first"):
        encoder.encode_value("x", 1)
    with pytest.raises(RuntimeError, match="call fit first"):
        encoder.decode("x", torch.zeros(1))


def test_a_fit_that_fails_changes_nothing() -> None:
    encoder, batch = encoded([1.0, 3.0])
    with pytest.raises(DataError):
        encoder.fit({"y": ["a", "b"], "x": [5.0, np.inf]})
    assert_same(encoder.encode({"y": ["a", "b"], "x": [1.0, 3.0]}), batch)


def notes(caplog: pytest.LogCaptureFixture, data: Any, graph: CausalGraph, parts: bool) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        if parts:
            survey(FrameStream(data, 7), graph, validation=0, seed=0, progress=False)
        else:
            TableEncoder(graph).fit(data)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("parts", [False, True])
def test_levels_that_no_row_has_and_missing_labels_are_said(parts: bool, caplog: pytest.LogCaptureFixture) -> None:
    graph = graph_of(
        y={"type": "categorical", "levels": ["None", "mild", "ill"]}, k={"type": "categorical", "levels": [1, 2, 3]}
    )
    rows = pd.DataFrame({"y": ["None", "mild", "ill", "ill"] * 5, "k": [1, 2, 3, 1] * 5})
    assert notes(caplog, rows, graph, parts) == []
    read = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    assert notes(caplog, read, graph, parts) == [
        "column 'y': found no row of 'None', of the graph's levels; 5 of 20 entries are missing: pandas.read_csv takes "
        "'None' for missing, unless keep_default_na=False"
    ]
    assert notes(caplog, rows.assign(k=1), graph, parts) == ["column 'k': found no row of 2, 3, of the graph's levels"]
    many = graph_of(**{f"k{i}": {"type": "categorical", "levels": [1, 2, 3]} for i in range(8)})
    (said,) = notes(caplog, {"y": ["a", "b"]} | {name: [1, 2] for name in many.order[1:]}, many, False)
    assert said.count("found no row of 3") == 5
    assert said.endswith("; and 3 more columns")
    half = rows.assign(y=rows["y"].where(rows.index >= 10))
    assert notes(caplog, half, graph, parts) == ["target column 'y': 10 of 20 entries are missing"]
    assert notes(caplog, rows.assign(y=rows["y"].where(rows.index >= 9)), graph, parts) == []


def test_columns_that_are_no_nodes_are_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"y": ["a", "b"], "x": [1, 2], "id": [1, 2], "clinic": [1, 2]})
    encoder = TableEncoder(graph_of(scope="clinic", x="continuous"))
    with caplog.at_level(logging.WARNING, logger="pyro_cama"):
        encoder.fit(table)
        encoder.encode(table)
        encoder.with_sites(table).encode(table.assign(more=1))
    assert [record.getMessage() for record in caplog.records] == [
        "columns that are no nodes of the graph are ignored: 'id'"
    ]
    assert caplog.records[0].name == "pyro_cama"


def test_nothing_is_noted_without_cause(caplog: pytest.LogCaptureFixture) -> None:
    encoded([1, 2])
    assert not caplog.records


# Back to raw units


def test_decode_takes_any_leading_shape() -> None:
    table = all_types_table()
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    for name, value in batch.values.items():
        twice = torch.stack([value, value]).unsqueeze(1).requires_grad_(value.is_floating_point())
        found, expected = encoder.decode(name, twice), np.asarray(table[name])
        assert found.shape == (2, 1, *value.shape)
        if expected.dtype.kind == "U":
            assert found[1, 0].tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(found[1, 0], expected, rtol=1e-5)
        assert encoder.decode(name, value[0]).shape == value.shape[1:]


def test_decode_says_what_is_wrong() -> None:
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(all_types_table())
    with pytest.raises(DataError, match=r"found 'X'; expected one of .*; did you mean 'x'\?"):
        encoder.decode("X", torch.zeros(1))
    with pytest.raises(DataError, match=r"node 'v': found shape \(2, 3\); expected \(\.\.\., 2\)"):
        encoder.decode("v", torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"node 'i': found shape \(2, 2\); expected \(\.\.\., 1, 2, 2\)"):
        encoder.decode("i", torch.zeros(2, 2))
    with pytest.raises(DataError, match="node 'c': found codes -1 to 3; expected 0 to 2"):
        encoder.decode("c", torch.tensor([3, -1]))
    with pytest.raises(DataError, match="node 'y': found codes 0 to 2; expected 0 to 1"):
        encoder.labels(torch.tensor([0, 2]))


def test_single_values_are_encoded_as_rows_are() -> None:
    table = all_types_table() | {"b": ["no", "yes"] * 3}
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    for name, column in table.items():
        value = encoder.encode_value(name, column[1])
        assert value.dtype == batch.values[name].dtype
        assert torch.equal(value, batch.values[name][1])
    assert encoder.encode_value("v", [1, 2]).shape == (2,)
    assert encoder.encode_value("x", torch.tensor(1.0)).shape == ()
    with pytest.raises(DataError, match=r"found 'X'; expected one of .*; did you mean 'x'\?"):
        encoder.encode_value("X", 1.0)
    with pytest.raises(DataError, match=r"node 'x': found the missing value nan; expected a value"):
        encoder.encode_value("x", float("nan"))
    with pytest.raises(DataError, match="column 'b': found unknown levels in row 0"):
        encoder.encode_value("b", "maybe")
    with pytest.raises(DataError, match=r"column 'v': found 1\.0 in row 0"):
        encoder.encode_value("v", 1.0)


# State


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=5), st.lists(st.text(), min_size=1))
def test_the_state_survives_json_exactly(numbers: list[float], sites: list[str]) -> None:
    graph = graph_of(scope="clinic", x="continuous", b={"type": "binary", "levels": [False, True]})
    rows = len(numbers)
    table = {
        "y": labels(rows),
        "x": numbers,
        "b": [bool(i % 3) for i in range(rows)],
        "clinic": [sites[i % len(sites)] for i in range(rows)],
    }
    encoder = TableEncoder(graph).fit(table)
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state(), allow_nan=False)))
    assert restored.fitted
    assert restored.state() == encoder.state()
    assert restored.sites == encoder.sites
    for name, entries in encoder.statistics.items():
        for key, value in entries.items():
            assert restored.statistics[name][key].dtype == torch.float64
            assert torch.equal(restored.statistics[name][key], value)


def test_the_state_of_an_encoder_that_is_not_fitted() -> None:
    graph = graph_of(x="continuous")
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(TableEncoder(graph).state())))
    assert not restored.fitted


def test_a_state_that_is_damaged_or_of_another_graph() -> None:
    graph = graph_of(x={"type": "continuous", "dim": 2})
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [[1, 2], [3, 4]]})
    state = encoder.state()

    def changed(change: dict[str, Any]) -> dict[str, Any]:
        other = copy.deepcopy(state)
        other["statistics"]["x"] |= change
        return other

    damaged: list[Any] = [
        {},
        [],
        {key: value for key, value in state.items() if key != "sites"},
        state | {"statistics": {"y": state["statistics"]["y"]}},
        changed({"sd": "?"}),
        changed({"sd": None}),
        changed({"sd": [1.0]}),
        changed({"mean": [1.0, float("nan")]}),
    ]
    for other in damaged:
        with pytest.raises(DataError, match="stored"):
            TableEncoder.from_state(graph, other)
    with pytest.raises(DataError, match=r"stored levels of 'y': found \['a', 'b'\]; expected \['b', 'a'\]"):
        TableEncoder.from_state(graph_of(y={"type": "binary", "levels": ["b", "a"]}, x="continuous"), state)


# Scale


def test_a_big_table_is_encoded_column_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry of a numeric or text column is touched in Python: what would do so is switched off."""
    no_entry_by_entry(monkeypatch)
    rng = np.random.default_rng(0)
    rows = 20_000
    table: Table = pd.DataFrame(
        {
            "y": rng.choice(["a", "b"], rows),
            "x": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "n": pd.array(rng.poisson(3, rows), dtype="Int64"),
            "c": pd.Series(rng.choice([1, 2, 3], rows), dtype=object),
            "b": pd.Categorical(rng.choice(["no", "yes"], rows)),
        }
    )
    nodes = {name: node for name, node in ALL_TYPES.items() if name in "xncb"}
    assert TableEncoder(graph_of(**nodes)).fit(table).encode(table).rows == rows
