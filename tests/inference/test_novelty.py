"""The thresholds below which a row is unlike all that was seen, given what was measured of it."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, DataError, build
from pyro_cama.inference.novelty import USUAL, NoveltyThreshold, Scored, _bands, _masked, measured
from tests.helpers.tables import ALL_TYPES, all_types_table, graph_of


def complete(elbo: np.ndarray, columns: int = 2) -> Scored:
    return Scored(elbo, np.ones((len(elbo), columns), dtype=bool))


def threshold_of(seen: np.ndarray, held: np.ndarray) -> NoveltyThreshold:
    return NoveltyThreshold.of(("a", "b"), complete(seen), held, len(seen), int(held.sum()), 0.001)


def test_the_threshold_by_hand(tmp_path: Path) -> None:
    seen, rows = np.arange(3000.0), np.arange(3000)
    usual = threshold_of(seen, rows >= 1000)
    # the third smallest of 3000, lower than the second of the held-out ones, 1001
    assert usual.flag(complete(np.array([1.9, 2.1, np.nan, -np.inf]))).tolist() == [True, False, True, True]
    few = threshold_of(seen, np.isin(rows, [1, 5]))  # few held out: none of them is unusual
    assert few.flag(complete(np.array([0.9, 1.1]))).tolist() == [True, False]
    later = usual.after(complete(seen - 7.0))
    assert later.flag(complete(np.array([-5.1, -4.9]))).tolist() == [True, False]
    (tmp_path / USUAL).write_text(later.to_json())
    assert NoveltyThreshold.load(tmp_path) == later
    nothing = Scored(np.zeros(1), np.zeros((1, 2), dtype=bool))
    assert not usual.flag(nothing).any()
    (tmp_path / USUAL).write_text(json.dumps({"format": 1, "threshold": 0.0}))
    with pytest.raises(DataError, match=r"\(found format 1; this pyro_cama reads 3\); fit the model"):
        NoveltyThreshold.load(tmp_path)


def test_an_adaptation_at_one_site_moves_what_is_expected_there() -> None:
    names = np.array(["north", "south"], dtype=object)
    rng = np.random.default_rng(0)

    def at(site: str, shift: float = 0.0) -> Scored:
        return complete(rng.standard_normal(500) + shift)._replace(site=np.full(500, site, dtype=object))

    seen = rng.standard_normal(3000)
    usual = threshold_of(seen, np.arange(3000) >= 1000)
    moved = usual.after(at("south", 11.0)).after(at("west", -20.0))
    assert set(moved.shifts) == {"south", "west"}
    for site, shift in (("north", 0.0), ("south", 11.0), ("west", -20.0)):
        assert moved.flag(at(site, shift)).mean() < 0.01
    both = Scored(np.array([0.0, 0.0]), np.ones((2, 2), dtype=bool), names)
    assert moved.flag(both).tolist() == [False, True]  # 11 nats less than is usual there


def test_few_fresh_rows_are_flagged() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        held, fresh = rng.standard_normal(100), rng.standard_normal(500)
        overfitted = rng.standard_normal(900) + 4.0  # evidence of rows that were trained on
        usual = threshold_of(np.concatenate([overfitted, held]), np.arange(1000) >= 900)
        shares.append(usual.flag(complete(fresh)).mean())
    assert np.mean(shares) == pytest.approx(1 / 101, rel=0.2)


def test_bands_are_of_all_numbers_of_readings() -> None:
    for columns in range(1, 40):
        bands = _bands(columns)
        assert [n for least, most in bands for n in range(least, most + 1)] == [*range(1, columns + 1)]
        assert bands[-1] == (columns, columns)


def rows_of(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.46).astype(int)
    return pd.DataFrame({"y": y, **{f"x{i}": 0.75 * (2 * y - 1) + rng.normal(size=n) for i in range(4)}})


@functools.cache
def fitted() -> tuple[CAMA, NoveltyThreshold]:
    nodes = {"y": "binary", **{f"x{i}": "continuous" for i in range(4)}}
    graph = {"target": "y", "nodes": nodes, "edges": [["y", name] for name in nodes if name != "y"]}
    rows = rows_of(2000, 0)
    cama = build(graph, hidden=16, layers=1, device="cpu").fit(rows, max_epochs=8, lr=3e-3, progress=False)
    return cama, NoveltyThreshold.fit(cama, cama.encode(rows), np.arange(2000) < 300)


@pytest.mark.parametrize("present", [1, 2, 3, 4])
def test_an_odd_reading_is_flagged_whatever_else_was_measured(present: int) -> None:
    cama, usual = fitted()
    rows = rows_of(4000, 1).drop(columns="y")
    rows.iloc[:, present:] = np.nan
    odd = rows.assign(x0=rows["x0"] + 6 * rows["x0"].std())

    def flagged(frame: pd.DataFrame) -> float:
        return float(usual.flag(Scored.of(cama, cama.encode(frame, "ignore"))).mean())

    assert flagged(odd) > 0.97
    assert flagged(rows) < 0.006


def test_readings_that_lack_at_random_are_flagged_no_more_often_than_complete_rows() -> None:
    cama, usual = fitted()
    rows = rows_of(6000, 2).drop(columns="y")
    rows = rows.where(np.random.default_rng(0).random(rows.shape) < 0.6)
    assert usual.flag(Scored.of(cama, cama.encode(rows, "ignore"))).mean() < 0.004


def test_any_column_can_be_left_out() -> None:
    cama = build(graph_of("site", **ALL_TYPES), hidden=4, layers=1, device="cpu")
    table = all_types_table(8) | {"site": ["n", "s"] * 4, "x": [1.0, np.nan, 2, 3, 4, 5, 6, 7]}
    cama.fit(table, max_epochs=0, progress=False)
    batch = cama.encode(table, "ignore")
    assert measured(cama, batch).sum() == 8 * len(ALL_TYPES) - 1
    masked = _masked(cama, batch, 2, 3, np.random.default_rng(0))
    counts = measured(cama, masked).sum(1)
    assert set(counts) <= {2, 3}
    assert not measured(cama, masked)[1, 0]
    keep = measured(cama, masked)
    holes = {
        name: [table[name][i] if keep[i, j] else None for i in range(8)] for j, name in enumerate(cama.graph.order[1:])
    }
    again = cama.encode(holes | {"site": table["site"]}, "ignore")
    for name, value in again.values.items():
        assert torch.equal(value, masked.values[name]), name
    usual = NoveltyThreshold.fit(cama, batch, np.zeros(8, dtype=bool))
    assert usual.columns == cama.graph.order[1:]
    assert not usual.flag(Scored.of(cama, batch)).any()
