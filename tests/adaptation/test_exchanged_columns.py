"""Columns under one another's names are no manipulation: an exchange that explains the rows is said, not adapted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from pyro_cama import CAMA, build, datasets
from pyro_cama.adaptation.exchanged_columns import exchanged_columns
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.streams import batch, model

SPEC = {
    "target": "y",
    "nodes": {
        "y": {"type": "categorical", "levels": ["a", "b"]},
        "u": "continuous",
        "v": "continuous",
        "w": "continuous",
        "n": "count",
        "o": "count",
    },
    "edges": ["y -> u", "y -> v", "y -> w", "y -> n", "y -> o"],
    "latents": {"z": {"dim": 1}, "m": {"scope": "dataset"}},
}


def rows(n: int, seed: int) -> pd.DataFrame:
    """Columns of scales of their own; a third of ``v`` is missing."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.5
    v = np.where(rng.random(n) < 1 / 3, np.nan, rng.normal(40 + 5 * y, 4))
    u, w = rng.normal(2 * y, 1), np.exp(rng.normal(y, 0.5))
    n_, o = rng.poisson(3 + 4 * y), rng.poisson(30 - 9 * y)
    return pd.DataFrame({"y": np.where(y, "b", "a"), "u": u, "v": v, "w": w, "n": n_, "o": o})


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return build(CausalGraph(SPEC), device="cpu", seed=0).fit(rows(800, 0), max_epochs=20, progress=False)


def under_names(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The readings of every name under the one before it, and of the first under the last."""
    held = [*names[1:], *names[:1]]
    return table.assign(**{name: table[held[i]] for i, name in enumerate(names)})


def found(cama: CAMA, table: pd.DataFrame) -> dict[str, str]:
    return exchanged_columns(cama, cama.encode(table, "ignore"))


@pytest.mark.parametrize("names", [("u", "v"), ("u", "w"), ("n", "o"), ("u", "v", "w")])
def test_an_exchange_is_found(cama: CAMA, names: tuple[str, ...]) -> None:
    expected = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    assert found(cama, under_names(rows(300, 1), names)) == expected


def test_a_manipulation_is_no_exchange(cama: CAMA) -> None:
    new, rng = rows(300, 1), np.random.default_rng(0)
    assert found(cama, new) == {}
    assert found(cama, new.assign(u=new["v"])) == {}  # a column twice
    for _ in range(10):
        moved = {name: new[name] * rng.uniform(0.5, 2) + new[name].std() * rng.normal() for name in "uvw"}
        assert found(cama, new.assign(**moved)) == {}
    exchanged = under_names(new, ("u", "v"))
    assert found(cama, exchanged.assign(w=3 * exchanged["w"])) == {}  # and something else has happened


def test_adapting_refuses_and_says_what_stands_where(cama: CAMA) -> None:
    new = under_names(rows(300, 1), ("u", "v")).drop(columns="y")
    adapted = cama.adapt(new, progress=False).adaptation
    assert adapted is not None
    assert not adapted.accepted
    assert "readings of 'v' stand under 'u', of 'u' under 'v'" in adapted.reason
    assert cama.adapt(new, progress=False, keep="always").adaptation.applied  # type: ignore[union-attr]


def test_a_drift_that_looks_like_an_exchange_is_adapted_to() -> None:
    """Two columns differ by 3.5 in every class, more or less, and one rises and the other falls by as much."""
    new = batch(102, "B")
    exchanged = {"x0": "x3", "x3": "x0"}
    assert exchanged_columns(model(), model().encode(new, "ignore")) == exchanged
    adapted = model().adapt(new, progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.accepted
    assert adapted.score(new) > model().score(new) + 0.05


def test_sites_are_read_together() -> None:
    spec = SPEC | {"latents": {"z": {"dim": 1}, "m": {"scope": "site"}}}
    train = rows(800, 0).assign(site="here")
    model = build(CausalGraph(spec), device="cpu", seed=0).fit(train, max_epochs=1, progress=False)
    one, two = (under_names(rows(300, seed), ("u", "v")) for seed in (1, 2))
    new = pd.concat([one.assign(site="one"), two.assign(site="two")])
    assert found(model.copy(model.encoder_with_sites(new)), new) == {"u": "v", "v": "u"}


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_every_column_of_a_real_table_one_place_further(name: str) -> None:
    graph, table = datasets.graph(name), datasets.load(name)
    model = build(graph, device="cpu", seed=0).fit(table.iloc[::2], max_epochs=1, progress=False)
    later, names = table.iloc[1::2], [*model.graph.manipulations[0].children]
    assert len(found(model, under_names(later, names))) == len(names)
    assert found(model, later) == {}
