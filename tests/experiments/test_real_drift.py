"""The board of real drift: peers, CAMA on a pair, mixes of classes, and what is said of them (experiments/support)."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import real_drift
import sklearn

from pyro_cama import CausalGraph
from support import board, mixes
from support.drift_pairs import Pair
from support.experiment import Row, line_of
from support.peers import OF_EXTRA, PEERS, Source, package, quantiles, shifted_proportions, standardised

GRAPH = CausalGraph(
    {
        "target": "ill",
        "nodes": {
            "ill": {"type": "categorical", "levels": ["no", "yes"]},
            "age": "continuous",
            "size": "continuous",
            "width": "continuous",
            "colour": {"type": "categorical", "levels": ["red", "green"]},
        },
        "edges": ["ill -> size", "ill -> width", "ill -> colour", "age -> width"],
        "latents": {"z": {"dim": 1, "effect": "auto"}, "m": {"manipulation": True, "scope": "dataset"}},
    }
)


def rows(count: int, seed: int, gain: float = 1.0, offset: float = 0.0) -> pd.DataFrame:
    """Two classes in two numbers and a colour, some values missing; a recalibration of the numbers."""
    rng = np.random.default_rng(seed)
    y, age = rng.integers(0, 2, count), rng.normal(50, 10, count)
    size, width = (3.0 * y + rng.normal(size=count) for _ in range(2))
    frame = pd.DataFrame(
        {
            "ill": np.where(y == 1, "yes", "no"),
            "age": age,
            "size": gain * size + offset,
            "width": gain * (width + 0.02 * age) + offset,
            "colour": np.where(rng.random(count) < 0.3 + 0.4 * y, "red", "green"),
        }
    )
    return frame.assign(size=frame["size"].where(rng.random(count) > 0.1))[list(GRAPH.order)]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair("made up", rows(150, 0), rows(120, 1, gain=0.5, offset=4.0), GRAPH, "none")


@pytest.fixture(scope="module")
def source(pair: Pair) -> Source:
    return Source(pair, max_epochs=10)


def test_rows_as_numbers(pair: Pair) -> None:
    constant = replace(pair, train=pair.train.assign(age=50.0))
    for given, columns in ((pair, ["age", "size", "width", "colour", "colour"]), (constant, None)):
        source = Source(given)
        assert not np.isnan(source.x).any()
        assert list(source.columns) == (columns or ["size", "width", "colour", "colour"])
    source = Source(pair)
    place = list(source.columns).index("size")
    missing = pair.new["size"].isna().to_numpy()
    assert set(source.filled(pair.new)[missing, place]) == {pair.train["size"].median()}
    assert set(source.filled(pair.new, pair.new)[missing, place]) == {pair.new["size"].median()}
    dead = pair.new.assign(size=np.nan)
    assert set(source.filled(dead, dead)[:, place]) == {pair.train["size"].median()}


@pytest.mark.parametrize("columns", [standardised, quantiles])
def test_columns_by_their_batch_forget_gain_and_offset(columns: object) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert callable(columns)
    np.testing.assert_allclose(columns(3 * x + 2, 3 * x + 2), columns(x, x), atol=1e-9)


def test_proportions_by_em_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(20_000) < 0.9
    x = 2.0 * y + rng.normal(size=len(y))
    odds = np.exp(2 * x - 2)  # of classes in equal shares
    proba = np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)
    np.testing.assert_allclose(shifted_proportions(proba, np.array([0.5, 0.5])), [0.1, 0.9], atol=0.01)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_labels_rows_it_did_not_see(name: str, pair: Pair, source: Source) -> None:
    needs = {"skada": "skada", "condo": "condo", "combat": "neuroCombat"}
    if name in OF_EXTRA:
        pytest.importorskip(needs[name.split("_")[0]], reason="of the extra peers", exc_type=ImportError)
    if name == "skada_dann":
        pytest.importorskip("skorch", reason="of the extra peers")
    adapt, score = board.halves(pair, 0)[0]
    adapt = adapt.drop(columns="ill")
    labels = PEERS[name](source, 0, adapt, score)
    again = PEERS[name](source, 0, adapt, score.assign(ill="no"))
    np.testing.assert_array_equal(labels, again, err_msg="labels are not looked at, and nothing is left to chance")
    right = (labels == score["ill"].to_numpy(str)).mean()
    undoes = {"net_adapted", "logistic_standardised", "logistic_quantiles", "boosting_quantiles", "condo", "combat"}
    assert right > (0.85 if name in undoes | {"skada_coral", "skada_linear_ot"} else 0.3)


def test_skada_leaves_scikit_learn_as_it_was() -> None:
    pytest.importorskip("skada", exc_type=ImportError)
    before = sklearn.get_config()
    with package("skada"):
        assert sklearn.get_config()["enable_metadata_routing"]
    assert sklearn.get_config() == before


@pytest.mark.parametrize(("name", "module"), [("skada_coral", "skada"), ("condo", "condo"), ("combat", "neuroCombat")])
def test_a_peer_without_its_package(
    name: str, module: str, pair: Pair, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}, which is not installed: pip install '.\[peers\]'"):
        PEERS[name](source, 0, pair.new, pair.new)


def test_a_pair_on_the_board(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board.drift_pairs, "pair", lambda name, data_dir: pair)
    found = board.run_cama("made up", 0, size="smoke")
    found += board.run_peers(
        "made up", [0, 1, 2, 3], methods=["net", "logistic", "logistic_standardised"], size="smoke"
    )
    lines = [(line_of(r), r["seed"]) for r in found if r["metric"] == "accuracy"]
    assert sorted(line for line, _ in lines if line not in board.CAMA) == [
        *(["logistic"] * 4), *(["logistic_standardised"] * 4), *(["net"] * 3)
    ]  # fmt: skip
    assert [line for line, _ in lines[:3]] == list(board.CAMA)
    noted = {r["metric"] for r in found if line_of(r) == "cama_adapted"}
    assert noted >= {"accepted", "gain", "recovery", "agreement", "seconds", "reason", "proportions"}
    text = board.report(found)
    assert "2 adaptations of 1 pairs" in text
    assert "logistic_standardised" in text
    assert {r.get("line", line_of(r)) for r in board.drawn(found)} == {
        "cama", "cama_adapted", "logistic", "logistic_standardised", "best_peer"
    }  # fmt: skip


def a_row(pair: str, line: str, value: float, metric: str = "accuracy", setting: str = "half 0") -> Row:
    method = line if line == "cama_always" else line.removesuffix("_adapted")
    adapted = "" if line in ("cama", "logistic") else pair
    return {"trained_on": pair, "tested_on": pair, "method": method, "adapted_on": adapted, "seed": 0, "metric": metric,
            "value": value, "setting": setting}  # fmt: skip


def test_rates_of_the_guard() -> None:
    found = []
    for name, kept, before, after in (("hurt", 1, 0.9, 0.5), ("missed", 0, 0.5, 0.9), ("won", 1, 0.5, 0.9)):
        found += [
            a_row(name, line, value, "accuracy_of_half")
            for line, value in (("cama", before), ("cama_adapted", after if kept else before), ("cama_always", after))
        ]
        found.append(a_row(name, "cama_adapted", kept, "accepted"))
    text = board.rates(found)
    assert "3 adaptations of 3 pairs: 2 kept, of which 1 lost more than 2%; 1 refused, of which 1 would have" in text
    assert "in the mean: 1 (hurt); that would have won 5% more if always kept: 1 (missed)" in text


def test_rows_of_other_methods_stay() -> None:
    old = [
        a_row("a", "cama", 0.1),
        a_row("a", "cama_always", 0.1),
        a_row("a", "logistic", 0.2),
        a_row("b", "cama", 0.3),
    ]
    new = [a_row("a", "cama", 0.4)]
    assert {(r["trained_on"], line_of(r), r["value"]) for r in real_drift.merged(old, new)} == {
        ("a", "logistic", 0.2), ("b", "cama", 0.3), ("a", "cama", 0.4)
    }  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_mix_has_its_share_and_as_many_rows_as_there_are(share: float) -> None:
    frame = rows(400, 0)
    mixed, moved = mixes.Mix("ill", "yes", share).apply(frame, frame, [], seed=0)
    assert moved == []
    assert (mixed["ill"] == "yes").mean() == pytest.approx(share, abs=0.005)
    ill = (frame["ill"] == "yes").sum()
    assert len(mixed) == pytest.approx(
        {0.0: 400 - ill, 0.05: (400 - ill) / 0.95, 0.5: 2 * min(ill, 400 - ill), 1.0: ill}[share], abs=1
    )


def test_cases_of_mixes() -> None:
    assert [str(case) for case in mixes.cases("y", ["a", "b"])][:3] == ["a alone", "b alone", "5% a"]
    assert len(mixes.cases("y", ["a", "b", "c"])) == 3 + 3 + len(mixes.SHARES)
