"""The scope column: which sites there are, and which rows are theirs."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama.data.encoder import TableEncoder
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.tables import assert_same, encoded, graph_of, labels, site_list


def test_sites() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    table = {"y": labels(5), "x": range(5), "clinic": ["S", "N", None, "S", "E"]}
    encoder = TableEncoder(graph).fit(table)
    assert encoder.sites == ("E", "N", "S")
    site = encoder.encode(table).site
    assert site is not None
    assert site.dtype == torch.int64
    assert site.tolist() == [2, 1, -1, 2, 0]
    new = {"x": [1, 2, 3, 4], "clinic": ["W", "S", "A", np.nan]}
    wider = encoder.with_sites(new)
    assert encoder.sites == ("E", "N", "S")
    assert wider.sites == ("E", "N", "S", "A", "W")
    assert [site_list(e.encode(new)) for e in (encoder, wider)] == [[-1, 2, -1, -1], [4, 2, 3, -1]]
    assert_same(encoder.encode(new, new_sites=True), wider.encode(new))
    assert_same(wider.encode(table), encoder.encode(table))
    assert wider.with_sites(new).sites == wider.sites


def test_sites_are_told_apart_by_their_text() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    encoder = TableEncoder(graph).fit({"y": labels(4), "x": range(4), "clinic": [10.0, 9.0, np.nan, 10.0]})
    assert encoder.sites == (10, 9)
    assert json.dumps(encoder.sites) == "[10, 9]"
    for clinics in (
        [9, 10],
        ["9", "10"],
        np.array([9, 10], dtype=np.uint8),
        pd.Series([9, 10], dtype="category"),
    ):
        assert site_list(encoder.encode({"x": [0, 1], "clinic": clinics})) == [1, 0]
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0, 1], "clinic": np.array([0.1, 2], dtype=np.float32)})
    assert encoder.sites == (0.1, 2)
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state())))
    assert site_list(restored.encode({"x": [0, 1], "clinic": np.array([2, 0.1], dtype=np.float32)})) == [1, 0]


def test_a_scope_column_that_is_a_node_may_hold_new_sites() -> None:
    graph = CausalGraph(
        {
            "target": "y",
            "nodes": {
                "clinic": {"type": "categorical", "levels": ["N", "S"]},
                "y": {"type": "categorical", "levels": ["a", "b"]},
                "x": "continuous",
            },
            "edges": ["clinic -> y -> x"],
            "latents": {"m": {"scope": "clinic"}},
        }
    )
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "N"]})
    batch = encoder.encode({"x": [0, 1], "clinic": ["W", "S"]})
    assert batch.observed["clinic"].tolist() == [False, True]
    assert site_list(batch) == [-1, 1]
    with pytest.raises(DataError, match=r"column 'clinic': found unknown levels in row 1 \('W'\)"):
        encoder.fit({"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "W"]})


def test_a_scope_column_has_to_be_there() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    table = {"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "N"]}
    encoder = TableEncoder(graph)
    missing = "scope column 'clinic': found none, but 'clinics'; expected one: rename it, or add the column"
    for call in (encoder.fit, encoder.fit(table).encode, encoder.with_sites):
        with pytest.raises(DataError, match=re.escape(missing)):
            call({"y": ["a", "b"], "x": [0, 1], "clinics": ["S", "N"]})
    with pytest.raises(DataError, match="column 'clinic': found no entry in 2 rows"):
        encoder.fit(table | {"clinic": [None, None]})
    with pytest.raises(
        DataError, match=r"scope column 'clinic': found no text, finite number or boolean in row 1 \(inf\)"
    ):
        encoder.encode(table | {"clinic": [1.0, np.inf]})
    with pytest.raises(DataError, match="scope column 'clinic': found no text, finite number or boolean in rows 0"):
        encoder.encode(table | {"clinic": pd.to_datetime(["2020-01-01", "2020-01-01"])})
    with pytest.raises(DataError, match=r"scope column 'clinic': found entries of shape \(2\); expected one site"):
        encoder.encode(table | {"clinic": np.ones((2, 2))})


def test_without_a_scope_column_there_are_no_sites() -> None:
    encoder, batch = encoded([1, 2])
    assert encoder.sites == ()
    assert batch.site is None
    assert encoder.with_sites({"x": [1]}).sites == ()
