"""A change of the class mix alone is no drift: what the training rows of every class were like says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, build, datasets
from pyro_cama.adaptation.class_mix import Moment, _nearest_mix, mix_alone_explains
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph

SPEC = {
    "target": "y",
    "nodes": {
        "y": {"type": "categorical", "levels": ["a", "b"]},
        "u": "continuous",
        "v": "continuous",
        "n": "count",
        "k": {"type": "categorical", "levels": ["p", "q", "r"]},
    },
    "edges": ["y -> u", "y -> v", "y -> n", "y -> k"],
    "latents": {"z": {"dim": 1}, "m": {"scope": "dataset"}},
}


def rows(n: int, share: float, seed: int) -> pd.DataFrame:
    """Rows of which a share is of class b; a third of ``v`` is missing."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    v = np.where(rng.random(n) < 1 / 3, np.nan, rng.normal(2 * y, 1 + y))
    k = np.where(rng.random(n) < 0.7, np.where(y, "q", "p"), "r")
    return pd.DataFrame(
        {"y": np.where(y, "b", "a"), "u": rng.normal(y, 1), "v": v, "n": rng.poisson(3 + 4 * y), "k": k}
    )


@pytest.fixture(scope="module")
def cama() -> CAMA:
    model = build(CausalGraph(SPEC), device="cpu", seed=0)
    return model.fit(rows(800, 0.5, 0), max_epochs=1, progress=False)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 0.8, 1.0])
def test_every_mix_is_explained_by_a_mix(cama: CAMA, share: float) -> None:
    found = [mix_alone_explains(cama, cama.encode(rows(300, share, seed), "ignore")) for seed in range(1, 9)]
    assert sum(found) >= 7  # at a level of .01, and of training rows that are a sample too


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("column", ["u", "v", "n", "k"])
def test_a_moved_column_is_not(cama: CAMA, share: float, column: str) -> None:
    moved = rows(300, share, 1)
    if column == "k":
        moved["k"] = moved["k"].map({"p": "q", "q": "p", "r": "r"}) if share == 1.0 else "r"
    else:
        moved[column] = 2 * moved[column] + 3
    assert not mix_alone_explains(cama, cama.encode(moved, "ignore"))


def test_what_is_reversed_is_explained_by_another_mix_alone(cama: CAMA) -> None:
    expected = torch.tensor([0.5, 0.5])
    for share, explained in ((0.5, False), (0.95, True)):
        batch = cama.encode(rows(300, share, 1), "ignore")
        assert mix_alone_explains(cama, batch)
        assert mix_alone_explains(cama, batch, other_than=expected) is explained


def test_sites_are_judged_by_themselves() -> None:
    spec = SPEC | {"latents": {"z": {"dim": 1}, "m": {"scope": "site"}}}
    train = rows(800, 0.5, 0).assign(site="here")
    model = build(CausalGraph(spec), device="cpu", seed=0).fit(train, max_epochs=1, progress=False)
    one, two = rows(300, 0.1, 1).assign(site="one"), rows(300, 0.9, 2).assign(site="two")
    base = model.copy(model.encoder_with_sites(pd.concat([one, two])))
    assert mix_alone_explains(base, base.encode(pd.concat([one, two]), "ignore"))
    up, down = one.assign(u=one["u"] + 2), two.assign(u=two["u"] - 2)  # the mean of both is as before
    assert not mix_alone_explains(base, base.encode(pd.concat([up, down]), "ignore"))


def test_moments_by_class_are_those_of_the_rows_and_survive_storage(cama: CAMA) -> None:
    train = rows(800, 0.5, 0)
    by_class = cama.encoder.by_class
    values = cama.encode(train).values
    for c, level in enumerate(["a", "b"]):
        of = torch.tensor((train["y"] == level).tolist())
        u = values["u"][of].double().clamp(-4, 4)
        for key, power in (("mean", 1), ("square", 2), ("fourth", 4)):
            assert float(by_class["u"][key][c]) == pytest.approx(float((u**power).mean()), rel=1e-5)
        assert float(by_class["u"]["rows"][c]) == int(of.sum())
        shares = train.loc[of.numpy(), "k"].value_counts(normalize=True)
        assert by_class["k"]["frequencies"][c].tolist() == pytest.approx([shares.get(k, 0.0) for k in "pqr"])
    state = cama.encoder.state()
    again = TableEncoder.from_state(cama.graph, state).by_class
    assert {n: {k: v.tolist() for k, v in own.items()} for n, own in again.items()} == state["by_class"]
    state["by_class"]["u"]["mean"] = [0.0]
    with pytest.raises(DataError, match="stored mean of 'u'"):
        TableEncoder.from_state(cama.graph, state)


def test_a_class_without_training_rows_has_the_moments_of_all() -> None:
    nodes = SPEC["nodes"] | {"y": {"type": "categorical", "levels": ["a", "b", "c"]}}  # type: ignore[operator]
    encoder = TableEncoder(CausalGraph(SPEC | {"nodes": nodes})).fit(rows(100, 0.5, 0))
    for own in encoder.by_class.values():
        assert own["rows"][2] == 1
        assert all(value.isfinite().all() for value in own.values())


def test_one_class_alone_is_not_adapted_to_and_with_a_drift_it_is() -> None:
    graph, table = datasets.graph("breast_cancer"), datasets.load("breast_cancer")
    train, later = table.iloc[::2], table.iloc[1::2]
    model = build(graph, device="cpu", seed=0).fit(train, progress=False)
    for level in ("malignant", "benign"):
        alone = later[later["diagnosis"] == level]
        adapted = model.adapt(alone.drop(columns="diagnosis"), progress=False)
        assert adapted.adaptation is not None
        assert adapted.score(alone) >= model.score(alone) - 0.01
        assert adapted.score(later) >= model.score(later) - 0.01
        drift = alone.assign(**{"mean radius": 1000 * alone["mean radius"], "mean texture": alone["mean texture"] + 9})
        mended = model.adapt(drift.drop(columns="diagnosis"), progress=False)
        assert mended.adaptation is not None
        kept = mended.adaptation.accepted
        assert mended.score(drift) >= (model.score(alone) - 0.05 if kept else model.score(drift))
        assert kept or level == "malignant"  # moving what goes with size explains larger tumours nearly as well


def test_the_nearest_mix_of_many_classes_is_found_beside_a_column_that_stands_still() -> None:
    """What is known to the last digit outweighs all else, which a solver must not take for all that there is."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(60, 10))
    truth = np.zeros(10)
    truth[[1, 4]] = 0.9, 0.1
    moments = [
        Moment((f"x{i}", 0), 1, float(own @ truth), 1e-4, own, np.full(10, 1e-4)) for i, own in enumerate(classes)
    ]
    moments.append(Moment(("still", 0), 1, 0.3, 1e-14, np.full(10, 0.3), np.full(10, 1e-14)))
    np.testing.assert_allclose(_nearest_mix(moments), truth, atol=1e-3)


def test_a_drift_that_leaves_every_column_as_it_was_is_adapted_to() -> None:
    """Two of six sensors read half of it and noise: means and squares are as in training, and so is the mix."""
    names = [f"x{i}" for i in range(6)]
    spec = {
        "target": "y",
        "nodes": {"y": "binary", **dict.fromkeys(names, "continuous")},
        "edges": [f"y -> {name}" for name in names],
        "latents": {"z": {"dim": 2, "effect": "linear"}, "m": {"scope": "dataset"}},
    }
    rng = np.random.default_rng(0)

    def sensed(n: int) -> pd.DataFrame:
        y = rng.integers(0, 2, n)
        x = 3.0 * y[:, None] + 0.7 * rng.normal(size=(n, 6)) + 0.7 * rng.normal(size=(n, 1))
        return pd.DataFrame(x, columns=names).assign(y=y)

    model = build(CausalGraph(spec), device="cpu", seed=0).fit(sensed(600), progress=False)
    new, spread = sensed(400), (9 / 4 + 2 * 0.49) ** 0.5
    moved = {name: 1.5 + 0.4 * (new[name] - 1.5) + 0.84**0.5 * spread * rng.normal(size=400) for name in names[:2]}
    drowned = new.assign(**moved)
    batch = model.encode(drowned, "ignore")
    assert mix_alone_explains(model, batch)
    assert not mix_alone_explains(model, batch, other_than=torch.tensor([0.5, 0.5]))
    adapted = model.adapt(drowned.drop(columns="y"), progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.accepted
    assert adapted.score(drowned) > model.score(drowned) + 0.02
    same = model.adapt(sensed(400).drop(columns="y"), progress=False)
    assert same.adaptation is not None
    assert not same.adaptation.accepted
