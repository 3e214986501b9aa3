"""The generated model and guide: any graph, one site per node, the graph's own edges, plates as documented."""

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from torch import Tensor

from pyro_cama import CAMA, CausalGraph, build
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.model.generative_model import CAMAModel
from tests.helpers.random_graphs import rows_of, small, specs


def latents(graph: CausalGraph) -> list[str]:
    return [latent.name for latent in graph.latents]


def sites(trace: Any) -> dict[str, Any]:
    """The sample sites of a trace, plates left out."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    }


def edges_of(program: Any) -> dict[str, set[str]]:
    """What every site depends on, itself left out, as Pyro finds it."""
    found = get_dependencies(program)["prior_dependencies"]
    return {name: {cause for cause in causes if cause != name} for name, causes in found.items()}


# any graph -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(specs(), st.randoms(use_true_random=False))
def test_any_graph_gives_a_model_of_its_own_edges(spec: dict[str, Any], rng: Any) -> None:
    torch.manual_seed(rng.randrange(1000))
    cama = small(spec, sites=3, seed=rng.randrange(1000))
    graph = cama.graph

    # a prior sample: a value for every node, in its encoding
    drawn = cama.model()
    assert list(drawn) == list(graph.order)
    for name, value in drawn.items():
        node = graph.nodes[name]
        assert value.shape == ((1,) if node.dim is None else (1, node.dim))
        assert value.isfinite().all()
        assert value.dtype == (torch.long if node.type == "categorical" else torch.get_default_dtype())
        if node.levels:
            assert 0 <= value.min() <= value.max() < node.classes

    # one step of every bound through Pyro's traces, some values missing
    batch = rows_of(cama, 4, lambda: rng.random() < 0.3)
    kind = rng.choice([InterventionELBO, JointELBO, MarginalELBO])
    if kind is MarginalELBO:
        batch = batch.without(graph.target)
    cama.modules.zero_grad()
    loss = kind(samples=2).loss_and_grads(cama.model, cama.guide, batch)
    assert np.isfinite(loss)
    slopes = {n: p.grad for n, p in cama.modules.named_parameters() if p.grad is not None}
    assert all(slope.isfinite().all() for slope in slopes.values())
    readings = [
        name for name in batch.values if name != graph.target
    ]  # labels alone may be as frequent as p(y) has them
    if any(batch.observed[name].any() if name in batch.observed else True for name in readings):  # else it is constant
        assert any(slope.any() for name, slope in slopes.items() if "merges" in name)

    # the edges among the target and its blanket, and the latents' own
    found = edges_of(cama.model)
    assert set(found) == {*graph.order, *latents(graph)}
    for name in graph.order:
        assert found[name] - set(latents(graph)) == set(graph.parents_of(name)), name
        if graph.z is not None:
            assert (graph.z.name in found[name]) == (name in graph.z.children)
        for m in graph.manipulations:
            assert m.name in found[name] or name not in m.children
    for name in latents(graph):
        assert not found[name]


def test_m_reaches_the_effects_of_an_undone_measurement_alone() -> None:
    spec = {
        "target": "y",
        "nodes": {"y": "binary", "x1": "continuous", "x2": "continuous", "x3": "continuous"},
        "edges": ["y -> x1 -> x2", "y -> x2", "y -> x3"],
    }
    for affects, expected in (("quantity", {"x1"}), ("measurement", {"x1", "x2"})):
        cama = build({**spec, "latents": {"m": {"children": ["x1"], "affects": affects}}}, hidden=4)
        assert {name for name, causes in edges_of(cama.model).items() if "m" in causes} == expected


# sites and plates ----------------------------------------------------------------------------------------------------

MIXED: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "a": "continuous",
        "c": {"type": "categorical", "levels": ["u", "v", "w"]},
        "y": {"type": "categorical", "levels": ["p", "q", "r"]},
        "x1": "continuous",
        "x2": {"type": "continuous", "dim": 2},
        "x3": "count",
        "x4": "binary",
    },
    "edges": ["a -> y -> x1 -> x2", "y -> x2", "y -> x3", "y -> x4", "c -> x1", "c -> x4", "a -> x3"],
    "latents": {"z": {"dim": 3, "effect": "deep"}},
}
SCOPES = ("row", "dataset", "clinic")
ROWS, SAMPLES, CLASSES, SITES = 4, 5, 3, 2


def mixed(scope: str = "row", **m: Any) -> CAMA:
    return small(
        {**MIXED, "latents": {"z": {"dim": 3, "effect": "deep"}, "m": {"dim": 2, "scope": scope, **m}}}, sites=SITES
    )


def shape_of_m(scope: str, samples: bool) -> tuple[int, ...]:
    own = {"row": (ROWS,), "dataset": (1,), "clinic": (SITES,)}[scope]
    if samples:
        return (SAMPLES, 1, *own)
    return () if scope == "dataset" else own


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("samples", [False, True])
def test_plates(scope: str, classes: bool, samples: bool) -> None:
    cama = mixed(scope)
    batch = rows_of(cama, ROWS)
    options: dict[str, Any] = {"samples": SAMPLES if samples else None, "classes": classes}
    wanted = {"rows": (-1, ROWS)}
    wanted |= {"samples": (-3, SAMPLES)} if samples else {}
    wanted |= {"classes": (-2, CLASSES)} if classes else {}
    lead = (SAMPLES, CLASSES if classes else 1) if samples else (CLASSES,) if classes else ()
    guide = poutine.trace(cama.guide).get_trace(batch, **options)
    model = poutine.trace(poutine.replay(cama.model, guide)).get_trace(batch, **options)
    assert set(sites(guide)) == {"z", "m"}
    assert set(sites(model)) == {"z", "m", *cama.graph.order}
    for trace in (guide, model):
        for name, site in sites(trace).items():
            frames = {frame.name: (frame.dim, frame.size) for frame in site["cond_indep_stack"]}
            event = {"z": (3,), "m": (2,), "x2": (2,)}.get(name, ())
            assert site["fn"].event_shape == event, name
            assert site["is_observed"] == (name in cama.graph.order)
            if name == "m":
                own = {"row": {"rows": (-1, ROWS)}, "clinic": {"sites": (-1, SITES)}}.get(scope, {})
                assert frames == ({"samples": (-3, SAMPLES)} if samples else {}) | own
                assert site["value"].shape == (*shape_of_m(scope, samples), 2)
                continue
            assert frames == wanted, name
            assert site["fn"].batch_shape == (*lead, ROWS), name
            if name == "z":
                assert site["value"].shape == (*lead, ROWS, 3)
    assert model.log_prob_sum().isfinite()
    weights = model.nodes["y"]["fn"].log_prob(model.nodes["y"]["value"])
    assert weights.shape == (*lead, ROWS)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_prior_sample_has_the_shapes_asked_for(scope: str) -> None:
    cama = mixed(scope)
    batch = Batch({}, {}, torch.tensor([0, 1, -1, 0]) if scope == "clinic" else None, ROWS)
    for options, lead in (({}, ()), ({"samples": SAMPLES}, (SAMPLES, 1))):
        values = cama.model(batch, **options)
        assert {name: value.shape for name, value in values.items()} == {
            name: (*lead, ROWS, *((2,) if name == "x2" else ())) for name in cama.graph.order
        }
    assert cama.model(rows=7)["x2"].shape == (7, 2)
    assert cama.model({"a": torch.zeros(6)})["x1"].shape == (6,)


def test_given_values_are_observed_and_the_rest_is_drawn() -> None:
    cama = mixed()
    given_ = {"a": torch.randn(6), "x2": torch.randn(6, 2)}
    trace = poutine.trace(cama.model).get_trace(given_)
    for name, site in sites(trace).items():
        assert site["is_observed"] == (name in given_)
    assert trace.nodes["_RETURN"]["value"]["a"] is given_["a"]


def test_plates_give_way_to_nodes_of_their_names() -> None:
    spec = {
        "target": "rows",
        "nodes": {
            "rows": "binary",
            "samples": "continuous",
            "classes": "continuous",
            "sites": "count",
            "rows_": "count",
        },
        "edges": [["rows", name] for name in ("samples", "classes", "sites", "rows_")],
        "latents": {"m": {"scope": "samples_"}},
    }
    cama = small(spec, sites=2)
    batch = rows_of(cama, 3)
    trace = poutine.trace(cama.model).get_trace(batch, samples=2, classes=True)
    assert {frame.name for frame in trace.nodes["sites"]["cond_indep_stack"]} == {"rows__", "samples_", "classes_"}
    assert {frame.name for frame in trace.nodes["m"]["cond_indep_stack"]} == {"sites_", "samples_"}
    assert np.isfinite(JointELBO(samples=2).loss(cama.model, cama.guide, batch))


# do on the model -----------------------------------------------------------------------------------------------------

INTERVENED: dict[str, Any] = {
    "a": 3.0, "c": 2, "y": 1, "x1": -4.0, "x2": [5.0, -5.0], "x3": 60.0, "x4": 1.0,
    "z": [9.0, 9.0, -9.0], "m": [3.0, 3.0],
}  # fmt: skip


@pytest.mark.parametrize("name", INTERVENED)
def test_do_changes_descendants_alone(name: str) -> None:
    cama = mixed(affects="quantity")
    with torch.no_grad():  # effects too strong to be missed
        for parameter in cama.model.networks["merges"].parameters():
            parameter.normal_(0.0, 1.0)
    graph = cama.graph
    whole = nx.DiGraph(graph.edges)
    whole.add_edges_from(("z", child) for child in graph.blanket.children)
    whole.add_edges_from(("m", child) for child in graph.blanket.children)
    value = torch.as_tensor(INTERVENED[name])
    pyro.set_rng_seed(1)
    before = cama.model(rows=300)
    pyro.set_rng_seed(1)
    after = poutine.do(cama.model, data={name: value})(rows=300)
    for node in graph.order:
        if node == name:
            assert torch.equal(after[node].expand_as(before[node]), value.expand_as(before[node]).to(before[node]))
        else:
            changed = not torch.equal(after[node], before[node])
            assert changed == (node in nx.descendants(whole, name)), node


@pytest.mark.parametrize("name", ["a", "c", "y", "x1"])
def test_do_on_an_observed_node_changes_the_densities_of_its_effects_alone(name: str) -> None:
    cama = mixed()
    batch = rows_of(cama, ROWS)
    guide = poutine.trace(cama.guide).get_trace(batch, samples=2)
    value = torch.as_tensor(INTERVENED[name])
    before = poutine.trace(poutine.replay(cama.model, guide)).get_trace(batch, samples=2)
    after = poutine.trace(poutine.do(poutine.replay(cama.model, guide), data={name: value})).get_trace(batch, samples=2)
    assert list(sites(before)) == list(sites(after))
    before.compute_log_prob()
    after.compute_log_prob()
    effects = {node for node in cama.graph.order if name in cama.graph.parents_of(node)}
    for node in cama.graph.order:
        changed = not torch.equal(before.nodes[node]["log_prob"], after.nodes[node]["log_prob"])
        assert changed == (node in effects), node


# sample --------------------------------------------------------------------------------------------------------------


def table(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    frame = {
        "a": rng.normal(50, 9, rows),
        "c": rng.choice(["u", "v", "w"], rows),
        "y": np.array(["p", "q", "r"])[y],
        "x1": 100 + 5 * y + rng.normal(0, 1, rows),
        "x2": list(rng.normal(0, 1, (rows, 2)) + y[:, None]),
        "x3": rng.poisson(3 + y),
        "x4": rng.integers(0, 2, rows),
        "clinic": rng.choice(["north", "south"], rows),
    }
    return pd.DataFrame(frame)


@pytest.mark.parametrize("scope", SCOPES)
def test_sample_gives_rows_in_raw_units(scope: str) -> None:
    cama = mixed(scope)
    cama.take_encoder(TableEncoder(cama.graph).fit(table()))
    frame = cama.sample(30)
    assert list(frame) == [*cama.graph.order, *(["clinic"] if scope == "clinic" else [])]
    assert len(frame) == 30
    assert set(frame["y"]) <= {"p", "q", "r"}
    assert set(frame["c"]) <= {"u", "v", "w"}
    assert set(frame["x4"]) <= {0, 1}
    assert np.stack(frame["x2"]).shape == (30, 2)
    assert (frame["x3"] >= 0).all()
    assert (frame["x3"] % 1 == 0).all()
    assert abs(frame["x1"].mean() - 105) < 15
    pd.testing.assert_frame_equal(frame, cama.sample(30))
    assert not frame["x1"].equals(cama.sample(30, seed=1)["x1"])
    # interventions in raw units, by node or latent, several at once
    changed = cama.sample(30, do={"y": "q", "x1": 90.0, "x2": [1.0, 2.0], "m": 0.0})
    assert set(changed["y"]) == {"q"}
    np.testing.assert_allclose(changed["x1"], 90.0, rtol=1e-6)
    np.testing.assert_allclose(np.stack(changed["x2"]), [[1.0, 2.0]] * 30, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(changed["a"], frame["a"])
    np.testing.assert_array_equal(cama.sample(30, do={"x3": 4})["x1"], frame["x1"])
    moved = cama.sample(30, do={"m": 3.0})
    for name in ("a", "c", "y"):
        np.testing.assert_array_equal(moved[name], frame[name])
    assert not np.allclose(moved["x1"], cama.sample(30, do={"m": 0.0})["x1"])
    with pytest.raises(ValueError, match=r"do: 'x9' is neither a manipulation nor a node"):
        cama.sample(3, do={"x9": 1.0})


# subclasses ----------------------------------------------------------------------------------------------------------


def test_a_node_takes_another_distribution_by_subclass() -> None:
    class Heavy(CAMAModel):
        def node_dist(self, name: str, causes: Any) -> Any:
            d = super().node_dist(name, causes)
            return pyro.distributions.StudentT(3.0, d.loc, d.scale) if name == "x1" else d

    cama = small(MIXED, model=Heavy)
    batch = rows_of(cama, ROWS)
    trace = poutine.trace(cama.model).get_trace(batch)
    assert type(trace.nodes["x1"]["fn"]).__name__ == "StudentT"
    assert np.isfinite(JointELBO().loss(cama.model, cama.guide, batch))


def test_networks_by_name_of_a_cause() -> None:
    made: list[tuple[int, int]] = []

    def factory(inputs: int, outputs: int) -> torch.nn.Module:
        made.append((inputs, outputs))
        return torch.nn.Linear(inputs, outputs)

    cama = small(MIXED, networks={"c": factory, "y": factory})
    assert made == [(3, 4), (3, 4)]
    assert np.isfinite(JointELBO().loss(cama.model, cama.guide, rows_of(cama, ROWS)))


def test_children_of_one_kind_are_computed_together() -> None:
    nodes = {"y": "binary", **{f"x{i}": "continuous" for i in range(20)}, "v": {"type": "continuous", "dim": 3}}
    cama = build({"target": "y", "nodes": nodes, "edges": [["y", name] for name in nodes if name != "y"]}, hidden=4)
    assert [len(group.nodes) for group in cama.model.groups] == [1, 21]
    assert cama.model.groups[1].width == 23
    values: dict[str, Tensor] = {name: torch.randn(5) for name in nodes}
    values["v"] = torch.randn(5, 3)
    stacked = cama.model.groups[1].stack(values)
    for name in cama.model.groups[1].nodes:
        assert torch.equal(stacked[..., cama.model.groups[1].component(name)], values[name])


def test_statistics_of_the_training_rows_reach_the_networks() -> None:
    cama = mixed()
    encoder = TableEncoder(cama.graph).fit(table())
    cama.take_encoder(encoder)
    inputs: Any = cama.model.networks["inputs"]
    n = torch.tensor([0.0, 4.0])
    statistics = encoder.statistics["x3"]
    exact = (torch.log1p(n) - statistics["log_mean"]) / statistics["log_sd"]
    torch.testing.assert_close(inputs("x3", n)[:, 0], exact, check_dtype=False)
    torch.testing.assert_close(inputs.frequencies("c"), encoder.statistics["c"]["frequencies"], check_dtype=False)
    assert inputs("c", torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert inputs("x4", torch.tensor([0.0, 1.0])).tolist() == [[-1.0], [1.0]]
    assert list(itertools.accumulate(inputs.width(name) for name in cama.graph.order))[-1] == 12
