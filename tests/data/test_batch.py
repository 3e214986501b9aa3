"""Batches: selected, moved, without a node, joined."""

import pandas as pd
import pytest
import torch

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.errors import DataError
from tests.helpers.tables import assert_same, graph_of, labels, site_list


def test_select() -> None:
    batch = Batch(
        {"x": torch.arange(4.0)},
        {"x": torch.tensor([True, True, False, True])},
        torch.tensor([0, 1, 0, -1]),
        4,
    )
    for index in (torch.tensor([3, 0]), torch.tensor([3, 0], dtype=torch.int32)):
        part = batch.select(index)
        assert part.rows == 2
        assert part.values["x"].tolist() == [3, 0]
        assert part.observed["x"].tolist() == [True, True]
        assert site_list(part) == [-1, 0]
    part = batch.select(torch.tensor([False, True, True, False]))
    assert part.rows == 2
    assert part.values["x"].tolist() == [1, 2]
    assert batch.select(torch.tensor([], dtype=torch.long)).rows == 0


def test_to() -> None:
    batch = Batch(
        {"x": torch.ones(2), "c": torch.tensor([0, 1])},
        {"x": torch.tensor([True, False])},
        torch.tensor([0, 1]),
        2,
    )
    moved = batch.to("cpu", torch.float64)
    assert moved.values["x"].dtype == torch.float64
    assert moved.values["c"].dtype == torch.int64
    assert moved.observed["x"].dtype == torch.bool
    assert moved.site is not None
    assert moved.site.dtype == torch.int64
    assert_same(batch.to(), batch)
    meta = batch.to("meta")
    assert {value.device.type for value in (*meta.values.values(), *meta.observed.values())} == {"meta"}


def test_without() -> None:
    batch = Batch({"x": torch.ones(2), "y": torch.ones(2)}, {"y": torch.tensor([True, False])}, torch.tensor([0, 1]), 2)
    left = batch.without("y", "never")
    assert left.values.keys() == {"x"}
    assert left.observed == {}
    assert left.rows == 2
    assert left.site is batch.site
    assert batch.values.keys() == {"x", "y"}


def test_concatenate() -> None:
    graph = graph_of(scope="clinic", x="continuous", v={"type": "continuous", "dim": 2})
    table = pd.DataFrame(
        {
            "y": labels(4),
            "x": [1, 2, None, 4],
            "v": [[1, 2], [3, 4], None, [0, 0]],
            "clinic": ["N", "S", "S", None],
        }
    )
    encoder = TableEncoder(graph).fit(table)
    parts = [encoder.encode(table[:2]), encoder.encode(table[2:])]
    assert parts[0].observed == {}
    assert_same(Batch.concatenate(parts), encoder.encode(table))
    assert_same(Batch.concatenate(iter(parts[:1])), parts[0])
    with pytest.raises(DataError, match="no batches"):
        Batch.concatenate([])
    with pytest.raises(DataError, match="found 'y' in some batches only; expected the same nodes in all"):
        Batch.concatenate([parts[0], parts[1].without("y")])
    with pytest.raises(DataError, match="found sites in some batches only"):
        Batch.concatenate([parts[0], Batch(parts[1].values, {}, None, 2)])
