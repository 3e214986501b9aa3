"""Several manipulations, each by its name: what one is made of them all, and what each keeps to itself."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

import pyro_cama
from pyro_cama import CAMA, CausalGraph, GraphError
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.mechanisms.affine import Affine
from pyro_cama.mechanisms.composed import Composed
from pyro_cama.report.page import report
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import rows_of, small

COLUMNS = ("a", "b", "c", "d")
SPEC: dict[str, Any] = {
    "target": "y",
    "nodes": {"y": "binary", **dict.fromkeys(COLUMNS, "continuous")},
    "edges": [f"y -> {name}" for name in COLUMNS],
    "latents": {
        "z": {"dim": 2},
        "calibration": {"manipulation": True, "dim": 3, "scope": "site"},
        "knock": {"manipulation": True, "dim": 1, "children": ["a", "b", "c"]},
        "m": None,
    },
}


def spec(**scopes: str) -> dict[str, Any]:
    found = copy.deepcopy(SPEC)
    for name, scope in scopes.items():
        found["latents"][name]["scope"] = scope
    return found


def shaken(cama: CAMA) -> CAMA:
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return cama


def table(rows: int, seed: int = 0, *, gain: float = 1.0, offset: float = 0.0, knock: float = 0.0) -> pd.DataFrame:
    """Rows of two classes; readings of b and d may have moved, and in every row a, b and c together."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    x = 2.5 * y[:, None] * [1, -1, 1, -1] + rng.normal(0, 1, (rows, 4))
    x = x * [1, gain, 1, gain] + [0, offset, 0, offset]
    x += knock * rng.normal(size=(rows, 1)) * [1, 1, 1, 0]
    return pd.DataFrame(x, columns=list(COLUMNS)).assign(y=y)


@pytest.fixture(scope="module")
def fitted() -> CAMA:
    graph = spec(calibration="dataset")
    graph["latents"]["calibration"]["children"] = ["b", "d"]
    return pyro_cama.build(graph, device="cpu").fit(table(400), max_epochs=60, progress=False)


# the graph -----------------------------------------------------------------------------------------------------------


def test_a_graph_knows_each_and_all_together() -> None:
    graph = CausalGraph(SPEC)
    assert [m.name for m in graph.manipulations] == ["calibration", "knock"]
    assert graph.m is not None
    assert (graph.m.dim, graph.m.children, graph.m.per_row) == (4, COLUMNS, True)
    assert graph.m.slices == {"calibration": slice(0, 3), "knock": slice(3, 4)}
    assert graph.site_column == "site"
    assert "p(calibration) p(knock)" in graph.factorisation()
    assert "p(d | y, z, calibration)" in graph.factorisation()
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph
    assert "knock" in repr(graph)


def test_of_one_manipulation_all_together_are_itself() -> None:
    graph = CausalGraph({**SPEC, "latents": {"drift": {"manipulation": True}}})
    assert graph.m is graph.manipulations[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"knock": {"scope": "dataset"}},
            "found scope 'dataset', and 'site' of 'calibration'; expected one shared scope",
        ),
        ({"knock": {"affects": "measurement"}}, "found 'measurement' of 'a', and 'quantity' in 'calibration'"),
        ({"knock": {"mechanism": "concat"}}, "found mechanism 'concat' in a graph of several manipulations"),
        (
            {"calibration": {"groups": {"s": ["a", "b"]}}, "knock": {"scope": "site", "groups": {"s": ["a", "c"]}}},
            "groups: found 's', as in 'calibration'; expected another name",
        ),
    ],
)
def test_manipulations_that_do_not_fit_each_other(changes: dict[str, Any], message: str) -> None:
    faulty = copy.deepcopy(SPEC)
    for name, keys in changes.items():
        faulty["latents"][name] |= keys
    with pytest.raises(GraphError, match=message):
        CausalGraph(faulty)


def test_of_several_none_goes_with_the_class() -> None:
    faulty = {**SPEC, "edges": [*SPEC["edges"], "y -> knock"]}
    with pytest.raises(GraphError, match="found 'calibration', 'knock', and a cause that one of them shares with 'y'"):
        CausalGraph(faulty)


def test_mechanisms_that_cannot_follow_another() -> None:
    discrete = {**SPEC, "nodes": {**SPEC["nodes"], "a": "binary"}}
    with pytest.raises(GraphError, match="'confusion', which cannot follow another mechanism; expected 'a' among the"):
        pyro_cama.build(discrete)
    with pytest.raises(GraphError, match="found 'a', on which 'calibration', 'knock' act"):
        pyro_cama.build(SPEC, mechanisms={"a": Affine()})


# mechanisms one after another ----------------------------------------------------------------------------------------


def test_the_first_is_nearest_to_the_clean_child() -> None:
    with in_double():
        one, other = Affine(), Affine(shared=False)
        both = Composed([one, other], Node("x", "continuous"))
        theta = torch.cat([0.3 * torch.randn(5, 4), 0.3 * torch.randn(5, 2)], -1)
        clean = dist.Normal(torch.randn(5), torch.rand(5) + 0.5)
        expected = other.transform(one.transform(clean, theta[:, :4]), theta[:, 4:])
        found = both.transform(clean, theta)
        x = torch.randn(5)
        torch.testing.assert_close(found.log_prob(x), expected.log_prob(x))
        torch.testing.assert_close(
            both.invert(x, theta, None), one.invert(other.invert(x, theta[:, 4:], None), theta[:, :4], None)
        )
        pulled, line = both.pull_back(x, theta), both.line(theta)
        density = dist.Normal(clean.loc, (clean.scale**2 + pulled.variance).sqrt()).log_prob(pulled.x)
        torch.testing.assert_close(density + pulled.log_slope, expected.log_prob(x))
        torch.testing.assert_close(line.slope * x + line.offset, pulled.x)
        torch.testing.assert_close(line.variance, pulled.variance)
        torch.testing.assert_close(line.log_slope, pulled.log_slope)


def test_every_manipulation_has_numbers_of_its_own() -> None:
    cama = shaken(small(spec(calibration="dataset")))
    calibration, knock = (cama.manipulation.of_latents([name]) for name in ("calibration", "knock"))
    assert not (calibration & knock).any()
    assert (calibration | knock).all()
    assert (int(calibration.sum()), int(knock.sum())) == (4 * 4, 3 * 2)
    rest = torch.zeros(4)
    for at, own in ((slice(0, 3), calibration), (slice(3, 4), knock)):
        m = rest.clone()
        m[at] = 1.0
        theta = cama.manipulation(m)
        assert theta[own].all()
        assert not theta[~own].any()


# sites, do ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calibration", "knock"),
    [("dataset", "dataset"), ("site", "site"), ("row", "row"), ("dataset", "row"), ("site", "row"), ("row", "site")],
)
def test_traced_and_grouped_agree_whatever_is_given(calibration: str, knock: str) -> None:
    with in_double():
        cama = shaken(small(spec(calibration=calibration, knock=knock), sites=3))
        batch = rows_of(cama, 5)
        nodes = poutine.trace(cama.guide).get_trace(batch).nodes
        assert {"calibration", "knock", "z"} <= set(nodes)
        for do in ({}, {"knock": 0.0}, {"calibration": torch.randn(3)}, {"calibration": 0.4, "knock": 1.0}):
            found = []
            for trace in (False, True):
                with common_noise(3):
                    found.append(
                        log_weights(cama.model, cama.guide, batch, do=do, samples=3, classes=True, trace=trace)
                    )
            torch.testing.assert_close(found[0].w, found[1].w, rtol=1e-8, atol=1e-8)
            assert (found[0].shared is None) == (found[1].shared is None)
            if found[0].shared is not None:
                torch.testing.assert_close(found[0].shared, found[1].shared, rtol=1e-8, atol=1e-8)


def test_do_of_one_leaves_the_other() -> None:
    cama = shaken(small(spec(calibration="dataset")))
    batch = rows_of(cama, 6)
    by_hand = {"calibration": cama.guide.m_dist(None, cama.graph.manipulations[0]).sample()}
    both = log_weights(cama.model, cama.guide, batch, do={**by_hand, "knock": 0.0}, classes=True)
    assert both.shared is None
    one = log_weights(cama.model, cama.guide, batch, do={"knock": 0.0}, classes=True)
    assert one.shared is not None
    assert one.shared.shape == (1, 1)
    assert not torch.equal(one.w, both.w)


def test_do_of_no_manipulation(fitted: CAMA) -> None:
    with pytest.raises(ValueError, match=r"do: \['m'\] is not a manipulation latent; expected 'calibration', 'knock'"):
        fitted.predict_proba(table(5), do={"m": 0.0})


# fit, adapt, explain ------------------------------------------------------------------------------------------------


def test_only_what_is_named_moves(fitted: CAMA) -> None:
    new = table(300, 1, gain=2.0, offset=3.0)
    adapted = fitted.adapt(new.drop(columns="y"), only=["calibration"], progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.manipulations == ("calibration",)
    assert adapted.adaptation.accepted, str(adapted.adaptation)
    assert adapted.trained == {"calibration"}
    assert adapted.score(new) > fitted.score(new) + 0.03
    before, after = fitted.guide.posteriors["knock"].state_dict(), adapted.guide.posteriors["knock"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = adapted.explain_shift()
    moved = found.table[found.table["moved"]]
    assert {*moved["column"]} == {"b", "d"}
    assert {*moved["manipulation"]} == {"calibration"}
    gains = found.parameters.query("manipulation == 'calibration' and parameter == 'gain'")
    assert gains["estimate"].between(1.6, 2.4).all()
    # the new world without its calibration is the old one; do of the one leaves the other at rest
    rebuilt = adapted.reconstruct(new.drop(columns="y"), do={"calibration": 0.0})
    assert abs(rebuilt["d"].mean() + 1.25) < 0.3
    assert np.allclose(adapted.predict_proba(new, do={"calibration": 0.0, "knock": 0.0}), fitted.predict_proba(new))


def test_what_rows_share_moves_first_then_what_is_their_own(fitted: CAMA, tmp_path: Any) -> None:
    new = table(300, 1, gain=2.0, offset=3.0).drop(columns="y")
    adapted = fitted.adapt(new, keep="always", steps=20, progress=False)
    assert adapted.adaptation is not None
    chain = [one.manipulations for one in (adapted.adaptation, *adapted.adaptation.earlier)]
    assert chain == [("knock",), ("calibration",)]
    assert adapted.trained == {"calibration", "knock"}
    assert "'calibration': kept" in str(adapted.adaptation)
    assert {*adapted.explain_shift().table["manipulation"]} == {"calibration", "knock"}
    assert not adapted.explain_shift().refused
    page = report(adapted, new, tmp_path / "report.html", before=fitted).read_text()
    assert "The adaptation of &#39;knock&#39;" in page
    assert "The adaptation of &#39;calibration&#39; was kept" in page
    calibrated = fitted.adapt(new, only=["calibration"], keep="always", progress=False)
    assert len(adapted.modes) == len(calibrated.modes) > 0  # of the calibration; the knocks have one
    of_knock = adapted.manipulation_parameters(["knock"])
    assert all(torch.equal(mode[name], value) for mode in adapted.modes for name, value in of_knock.items())
    loaded = pyro_cama.load(adapted.save(tmp_path / "model"), device="cpu")
    assert loaded.trained == adapted.trained
    assert np.array_equal(loaded.predict_proba(new), adapted.predict_proba(new))
    drawn = adapted.sample(400)
    assert drawn["d"].mean() == pytest.approx(new["d"].mean(), abs=0.6)


def test_what_is_a_rows_own_and_trained_serves_in_a_new_world() -> None:
    knocked = table(400, 2, knock=2.0)
    cama = pyro_cama.build(spec(calibration="dataset"), device="cpu")
    cama.fit(table(400), None, interventions={"knock": 1.0}, max_epochs=30, progress=False)
    assert cama.trained == {"knock"}
    new = table(300, 1, gain=2.0, offset=3.0, knock=2.0).drop(columns="y")
    adapted = cama.adapt(new, keep="always", steps=20, progress=False)
    assert adapted.adaptation is not None
    assert [one.manipulations for one in adapted.adaptation.together] == [("calibration",)]
    assert adapted.trained == {"calibration", "knock"}
    named = cama.adapt(knocked.drop(columns="y"), only="knock", keep="always", steps=10, progress=False)
    assert named.adaptation is not None
    assert named.adaptation.manipulations == ("knock",)


@pytest.mark.parametrize("only", ["drift", [], ["knock", "drift"]])
def test_unknown_names_are_refused(fitted: CAMA, only: Any) -> None:
    with pytest.raises(ValueError, match=r"adapt\(only=...\): found .*; expected some of 'calibration', 'knock'"):
        fitted.adapt(table(20), only=only, progress=False)


def test_interventions_by_the_name_of_a_manipulation() -> None:
    graph = spec(calibration="dataset")
    cama = pyro_cama.build(graph, device="cpu").fit(
        table(200), interventions={"knock": 0.5}, max_epochs=2, progress=False
    )
    assert cama.trained == {"knock"}
    with pytest.raises(ValueError, match="'calibration' has scope 'dataset', whose posterior is found by adapt"):
        cama.fit(table(50), interventions={"calibration": 0.5}, progress=False)
    with pytest.raises(ValueError, match="found 'a' and 'knock', which acts on it; expected one of them"):
        cama.fit(table(50), interventions={"knock": 0.5, "a": 1.0}, progress=False)


def test_the_summary_names_each(fitted: CAMA) -> None:
    text = fitted.summary()
    assert "manipulable by calibration: b (affine), d (affine); scope dataset" in text
    assert "manipulable by knock: a (affine), b (affine), c (affine); scope row" in text


def test_a_batch_without_sites_is_read(fitted: CAMA) -> None:
    rows = fitted.encode(table(10))
    assert isinstance(rows, Batch)
    assert fitted.predict_proba(rows).shape == (10, 2)
