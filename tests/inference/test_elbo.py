"""Log-weights: the intervened m is gone from traces and gradients, both ways of computing agree, SVI trains."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.interventions import intervene
from pyro_cama.inference.bounds import class_log_probs, marginal, mean_bound, shared_term
from pyro_cama.inference.do import clean_do
from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.inference.log_weights import LogWeights, is_grouped, log_weights
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from tests.helpers.gradients import both_ways
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import rows_of, small, specs

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
}
SCOPES = ("row", "dataset", "clinic")


def mixed(scope: str = "row", mechanism: dict[str, str] | None = None, **options: Any) -> CAMA:
    m = {"dim": 2, "scope": scope, "mechanism": mechanism or {}}
    return small({**MIXED, "latents": {"z": {"dim": 2, "effect": "deep"}, "m": m}}, sites=2, **options)


# do(m) ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mechanism", [{}, {"x1": "concat", "x4": "concat"}])
@pytest.mark.parametrize("trace", [True, False])
def test_no_gradient_reaches_q_of_m_under_do(scope: str, mechanism: dict[str, str], trace: bool) -> None:
    cama = mixed(scope, mechanism)
    batch = rows_of(cama, 6)

    def gradients(do: dict[str, Any] | None) -> dict[str, float]:
        cama.modules.zero_grad()
        weights = log_weights(cama.model, cama.guide, batch, do=do, samples=3, classes=True, trace=trace)
        total = weights.w.sum() + (0.0 if weights.shared is None else weights.shared.sum())
        total.backward()
        found = cama.manipulation_parameters()
        return {name: 0.0 if p.grad is None else float(p.grad.abs().sum()) for name, p in found.items()}

    clean = gradients({"m": 0.0})
    assert clean
    assert not any(clean.values())  # nor does any reach NN_pM: at m = 0 every mechanism is the identity
    known = gradients({"m": [0.3, -0.5]})
    assert not any(value for name, value in known.items() if name.startswith("NN_qM"))
    assert known["NN_pM.m.0.weight"] > 0
    free = gradients(None)
    assert all(value > 0 for name, value in free.items() if name.startswith("NN_qM") and name.endswith("weight"))
    assert all(value > 0 for name, value in free.items() if "loc" in name or "scale" in name)


@pytest.mark.parametrize("scope", SCOPES)
def test_no_m_in_either_trace_under_do(scope: str) -> None:
    cama = mixed(scope)
    batch = rows_of(cama, 4)
    for program in (cama.model, cama.guide):
        assert "m" in poutine.trace(program).get_trace(batch).nodes
        trace = poutine.trace(intervene(program, {"m": torch.zeros(2)})).get_trace(batch)
        assert not any(name.startswith("m") for name in trace.nodes)
        assert "z" in trace.nodes


def test_intervening_on_nothing_is_the_program_itself() -> None:
    cama = mixed()
    assert intervene(cama.model, None) is cama.model
    assert intervene(cama.model, {}) is cama.model


@pytest.mark.parametrize("trace", [True, False])
def test_under_do_the_prior_and_posterior_of_m_leave_the_weights(trace: bool) -> None:
    """Whatever q(m | x) is, the weights under do(m) stay as they are."""
    cama = mixed()
    batch = rows_of(cama, 4)

    def weights() -> LogWeights:
        pyro.set_rng_seed(0)
        return log_weights(cama.model, cama.guide, batch, do={"m": [0.3, -0.5]}, samples=3, trace=trace)

    before = weights()
    assert before.shared is None
    with torch.no_grad():
        for name, parameter in cama.manipulation_parameters().items():
            if name.startswith("NN_qM"):
                parameter.normal_()
    assert torch.equal(weights().w, before.w)


# two ways to the same numbers ----------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(specs(max_nodes=8), st.randoms(use_true_random=False))
def test_traced_and_grouped_agree_on_any_graph(spec: dict[str, Any], rng: Any) -> None:
    with in_double():
        torch.manual_seed(rng.randrange(1000))
        cama = small(spec, sites=3)
        assert is_grouped(cama.model, cama.guide)
        with torch.no_grad():
            for parameter in cama.modules.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        missing = rng.random() < 0.6
        batch = rows_of(cama, 4, lambda: missing and rng.random() < 0.4)
        classes = rng.random() < 0.5
        do = {}
        for m in cama.graph.manipulations:  # of several, one may be given and the other drawn
            if rng.random() < 0.6:
                do[m.name] = rng.choice([0.0, torch.randn(m.dim), torch.randn(4, m.dim) if m.scope == "row" else 0.4])
        options = {"do": do, "samples": 3, "classes": classes}
        both_ways(cama, batch, lambda: common_noise(3), **options)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("do", [None, 0.0, [0.5, -1.0]])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("affects", ["quantity", "measurement"])
def test_traced_and_grouped_agree(scope: str, classes: bool, do: Any, missing: bool, affects: str) -> None:
    with in_double():
        spec = copy.deepcopy(MIXED)
        spec["nodes"]["c2"] = {"type": "categorical", "levels": ["u", "v"]}
        spec["edges"] += ["c2 -> x2", "a -> c2", "x4 -> x2"]
        spec["latents"] = {"m": {"dim": 2, "scope": scope, "affects": affects, "mechanism": {"x3": "concat"}}}
        cama = small(spec, sites=2)
        batch = rows_of(cama, 5)
        if missing:
            observed = {n: torch.rand(5) < 0.5 for n in ("a", "c", "x1", "x3", "y")}
            batch = Batch(batch.values, observed, batch.site, 5)
        given_ = None if do is None else {"m": do}
        both_ways(cama, batch, lambda: common_noise(0), do=given_, samples=3, classes=classes)


def test_fills_of_nodes_whose_names_are_anagrams_are_independent() -> None:
    """Missing values of c12 and c21 that moved together would be a wrong prior of the pair."""
    nodes = {"y": "binary", "c12": "continuous", "c21": "continuous", "x": "continuous"}
    spec = {"target": "y", "nodes": nodes, "edges": ["y -> x", "c12 -> x", "c21 -> x"]}
    cama = small({**spec, "latents": {"m": None}})
    batch = Batch({}, {}, None, 1)
    with common_noise(0), torch.no_grad():
        values = cama.model(batch, samples=4000)
    pair = torch.stack([values["c12"].flatten(), values["c21"].flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.08


@pytest.mark.parametrize("trace", [True, False])
def test_shapes(trace: bool) -> None:
    for scope in SCOPES:
        cama = mixed(scope)
        batch = rows_of(cama, 4)
        for classes, width in ((False, 1), (True, 3)):
            for do in (None, {"m": 0.0}):
                weights = log_weights(cama.model, cama.guide, batch, do=do, samples=5, classes=classes, trace=trace)
                assert weights.w.shape == (5, width, 4)
                assert weights.context.expand(5, width, 4).isfinite().all()
                sites = {"dataset": 1, "clinic": 2}.get(scope)
                shared = None if sites is None or do else (5, sites)
                assert (None if weights.shared is None else weights.shared.shape) == shared
                assert mean_bound(weights).shape == (width, 4)
                assert shared_term(weights, batch.site, None).shape == (4,)
                if classes:
                    probabilities = class_log_probs(weights).exp()
                    torch.testing.assert_close(probabilities.sum(0), torch.ones(4))


@pytest.mark.parametrize("trace", [True, False])
def test_sites_never_adapted_to_are_read_with_m_zero(trace: bool) -> None:
    cama = mixed("clinic")
    batch = rows_of(cama, 4)
    with torch.no_grad():
        cama.manipulation_parameters()["NN_qM.m.loc"].add_(1.0)
        batch = Batch(batch.values, {}, torch.tensor([0, -1, 1, -1]), 4)
        pyro.set_rng_seed(0)
        free = log_weights(cama.model, cama.guide, batch, do={"m": torch.randn(2, 2)}, samples=3, trace=trace).w
        pyro.set_rng_seed(0)
        torch.randn(2, 2)
        zero = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=3, trace=trace).w
    unknown = torch.tensor([1, 3])
    torch.testing.assert_close(free[..., unknown], zero[..., unknown])
    assert (free[..., [0, 2]] != zero[..., [0, 2]]).all()


# reductions ----------------------------------------------------------------------------------------------------------


def test_shared_term_counts_every_site_once() -> None:
    shared = torch.tensor([[-1.0, -4.0], [-3.0, -8.0]])
    weights = LogWeights(torch.zeros(2, 1, 5), shared, torch.zeros(()))
    site = torch.tensor([0, 1, 1, -1, 1])
    assert shared_term(weights, site, None).tolist() == [-2.0, -2.0, -2.0, 0.0, -2.0]
    # of a minibatch of data with 10 and 30 rows a site
    found = shared_term(weights, site, torch.tensor([10, 30]))
    torch.testing.assert_close(found, torch.tensor([-0.2, -0.2, -0.2, 0.0, -0.2]))
    dataset = LogWeights(torch.zeros(2, 1, 5), shared[:, :1], torch.zeros(()))
    assert shared_term(dataset, None, None).tolist() == pytest.approx([-0.4] * 5)
    assert shared_term(LogWeights(torch.zeros(2, 1, 5), None, torch.zeros(())), site, None).tolist() == [0.0] * 5


def test_losses_are_the_reductions_of_the_weights() -> None:
    cama = mixed("clinic")
    batch = rows_of(cama, 5)
    for loss, do, classes in (
        (InterventionELBO(samples=3), {"m": 0.0}, False),
        (InterventionELBO(samples=3, do={"m": 0.5}), {"m": 0.5}, False),
        (JointELBO(samples=3), None, False),
        (MarginalELBO(samples=3), None, True),
        (MarginalELBO(samples=3, do={"m": 0.0}), {"m": 0.0}, True),
    ):
        pyro.set_rng_seed(0)
        found = loss.loss(cama.model, cama.guide, batch)
        pyro.set_rng_seed(0)
        weights = log_weights(cama.model, cama.guide, batch, do=do, samples=3, classes=classes, trace=True)
        bound = marginal(mean_bound(weights)) if classes else mean_bound(weights)[0]
        total = bound + shared_term(weights, batch.site, None) + weights.context.expand_as(weights.w).mean((0, 1))
        assert found == pytest.approx(-float(total.detach().sum()), rel=1e-5)


def test_one_loss_object_serves_models_whose_latents_differ_in_name() -> None:
    loss = InterventionELBO()
    other = small({**MIXED, "latents": {"drift": {"manipulation": True}, "m": None}})
    none = small({**MIXED, "latents": {"m": None}})
    for cama in (mixed(), other, none):
        batch = rows_of(cama, 3)
        pyro.set_rng_seed(0)
        found = loss.loss(cama.model, cama.guide, batch)
        pyro.set_rng_seed(0)
        do = clean_do(cama.graph)
        assert found == JointELBO(do=do).loss(cama.model, cama.guide, batch)


# SVI -----------------------------------------------------------------------------------------------------------------


def frame(rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    return pd.DataFrame(
        {
            "a": rng.normal(0, 1, rows) + y,
            "c": rng.choice(["u", "v", "w"], rows),
            "y": np.array(["p", "q", "r"])[y],
            "x1": 5 * y + rng.normal(0, 1, rows),
            "x2": list(rng.normal(0, 1, (rows, 2)) - 2 * y[:, None]),
            "x3": rng.poisson(2 + 3 * y),
            "x4": (y + rng.integers(0, 2, rows) > 1).astype(int),
            "clinic": rng.choice(["north", "south"], rows),
        }
    )


def ready(scope: str = "row") -> tuple[CAMA, Batch]:
    cama = small({**MIXED, "latents": {"z": {"dim": 2, "effect": "deep"}, "m": {"dim": 2, "scope": scope}}}, hidden=8)
    cama.take_encoder(TableEncoder(cama.graph).fit(frame()))
    return cama, cama.encode(frame())


def state(cama: CAMA) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in cama.modules.named_parameters()}


def moved(before: dict[str, Tensor], cama: CAMA) -> set[str]:
    return {name for name, value in state(cama).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("kind", [InterventionELBO, JointELBO, MarginalELBO])
@pytest.mark.parametrize("scope", SCOPES)
def test_svi_trains(kind: type, scope: str) -> None:
    cama, batch = ready(scope)
    if kind is MarginalELBO:
        batch = batch.without("y")
    before = state(cama)
    svi = SVI(cama.model, cama.guide, pyro.optim.Adam({"lr": 0.02}), loss=kind(samples=2))
    first = svi.evaluate_loss(batch)
    losses = [svi.step(batch) for _ in range(40)]
    assert np.isfinite(losses).all()
    last = svi.evaluate_loss(batch)
    assert first - last > 0.5 * batch.rows  # half a nat a row, many times the noise of the estimate
    # every part is trained, but under do(m=0) neither NN_pM nor NN_qM
    names = {id(p): name for name, p in cama.modules.named_parameters()}
    adapts = {names[id(p)] for p in cama.manipulation_parameters().values()}
    changed = moved(before, cama)
    assert bool(changed & adapts) == (kind is not InterventionELBO)
    for part in ("merges", "features", "encoder"):
        assert any(part in name for name in changed)


def test_two_models_trained_by_svi_in_one_process_stay_independent() -> None:
    (one, batch), (two, _) = ready(), ready()
    assert {n: v.tolist() for n, v in state(one).items()} == {n: v.tolist() for n, v in state(two).items()}
    steps = {}
    for cama in (one, two):
        optimiser = pyro.optim.Adam({"lr": 0.01})
        steps[id(cama)] = SVI(cama.model, cama.guide, optimiser, loss=JointELBO())
    before_one, before_two = state(one), state(two)
    steps[id(one)].step(batch)
    assert moved(before_one, one)
    assert not moved(before_two, two)
    before_one = state(one)
    for _ in range(3):
        steps[id(two)].step(batch)
    assert not moved(before_one, one)
    assert len(moved(before_two, two)) == len(moved(state(ready()[0]), one))  # trains as much as the first did
    before_two = state(two)
    steps[id(one)].step(batch)
    assert moved(before_one, one)
    assert not moved(before_two, two)


def test_elbo_as_a_module_for_torchs_optimisers() -> None:
    cama, batch = ready()
    with pyro.settings.context(module_local_params=True):
        loss = InterventionELBO(samples=2)(cama.model, cama.guide)
        optimiser = torch.optim.Adam(loss.parameters(), lr=0.02)
        found = []
        for _ in range(30):
            optimiser.zero_grad()
            value = loss(batch)
            value.backward()
            optimiser.step()
            found.append(float(value.detach()))
    assert found[0] - found[-1] > 0.5 * batch.rows


def test_minibatches_of_a_shared_m_share_its_divergence() -> None:
    cama, batch = ready("dataset")
    part = batch.select(torch.arange(20))

    def loss(rows: int | None) -> float:
        pyro.set_rng_seed(0)
        return JointELBO(samples=4, rows=rows).loss(cama.model, cama.guide, part)

    pyro.set_rng_seed(0)
    weights = log_weights(cama.model, cama.guide, part, samples=4, trace=True)
    assert weights.shared is not None
    ratio = float(weights.shared.detach().mean())
    assert loss(None) - loss(80) == pytest.approx(-ratio * (1 - 20 / 80), rel=1e-3, abs=1e-3)


def test_minibatches_of_several_sites_take_the_rows_of_each() -> None:
    cama = mixed("clinic")
    batch = rows_of(cama, 6)
    batch = Batch(batch.values, {}, torch.tensor([0, 0, 1, 1, 1, 1]), 6)
    pyro.set_rng_seed(0)
    weights = log_weights(cama.model, cama.guide, batch, samples=4, trace=True)
    assert weights.shared is not None
    per_site = weights.shared.detach().mean(0)

    def loss(rows: Any) -> float:
        pyro.set_rng_seed(0)
        return JointELBO(samples=4, rows=rows).loss(cama.model, cama.guide, batch)

    exact = float(per_site[0] * (1 - 2 / 10) + per_site[1] * (1 - 4 / 16))
    assert loss(torch.tensor([10, 16])) - loss(None) == pytest.approx(exact, rel=1e-3, abs=1e-4)
    with pytest.raises(ValueError, match=r"rows: expected a number for each of 2 sites, found 26"):
        loss(26)


def test_a_row_keeps_its_prediction_beside_rows_that_lack_values() -> None:
    """Also where a draw of the missing value is wanted of a distribution that torch cannot invert."""
    spec = copy.deepcopy(MIXED)
    spec["nodes"]["a"] = "count"
    spec["nodes"]["c2"] = {"type": "continuous", "likelihood": "student_t"}
    spec["edges"] += ["c2 -> x1"]
    cama = small({**spec, "latents": {"z": {"effect": "deep"}, "m": {"scope": "row"}}}, hidden=8)
    table = frame(30).assign(a=np.arange(30.0), c2=np.linspace(-1, 1, 30))
    cama.take_encoder(TableEncoder(cama.graph).fit(table))
    table.loc[::3, ["a", "c2", "x1"]] = np.nan
    whole = cama.predict_proba(table, samples=8)
    alone = np.concatenate([cama.predict_proba(table.iloc[[row]], samples=8) for row in range(6)])
    np.testing.assert_allclose(whole[:6], alone, atol=1e-5)
    assert cama.elbo(table).isfinite().all()
    assert cama.reconstruct(table).notna().all(axis=None)


# custom guides -------------------------------------------------------------------------------------------------------


class Silent(CAMAGuide):
    """Forgets z."""

    def forward(self, data: Any = None, **options: Any) -> None:
        with poutine.block(hide=["z"]):
            super().forward(data, **options)


class Misnamed(CAMAGuide):
    """Samples one site too many."""

    def forward(self, data: Any = None, **options: Any) -> None:
        super().forward(data, **options)
        pyro.sample("zz", dist.Normal(0.0, 1.0))


class NoM(CAMAGuide):
    """Has no m."""

    def forward(self, data: Any = None, **options: Any) -> None:
        with poutine.block(hide=["m"]):
            super().forward(data, **options)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Silent, r"the guide has no site 'z': the model samples \['m', 'z'\], found \['m'\]"),
        (NoM, r"the guide has no site 'm': the model samples \['m', 'z'\], found \['z'\]"),
        (Misnamed, r"the guide samples 'zz', which the model has not: expected \['m', 'z'\]"),
    ],
)
def test_a_guide_whose_sites_do_not_match_is_told_which(guide: type[CAMAGuide], message: str) -> None:
    cama = mixed(guide=guide)
    batch = rows_of(cama, 3)
    assert not is_grouped(cama.model, cama.guide)
    with pytest.raises(ValueError, match=message):
        log_weights(cama.model, cama.guide, batch)
    svi = SVI(cama.model, cama.guide, pyro.optim.Adam({"lr": 0.01}), loss=JointELBO())
    with pytest.raises(ValueError, match=message):
        svi.step(batch)


def test_a_guide_without_m_serves_under_do() -> None:
    cama = mixed(guide=NoM)
    weights = log_weights(cama.model, cama.guide, rows_of(cama, 3), do={"m": 0.0})
    assert weights.w.isfinite().all()


class Wide(CAMAGuide):
    """Overrides the posterior of z alone."""

    def z_dist(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> Any:
        loc, scale = self.z_params(batch, y, m)
        return dist.StudentT(5.0, loc, 2 * scale).to_event(1)


class Noisy(CAMAModel):
    """Overrides one factor of the model."""

    def node_dist(self, name: str, causes: Any) -> Any:
        d = super().node_dist(name, causes)
        return dist.Laplace(d.loc, d.scale) if name == "x1" else d


def test_overridden_parts_are_used() -> None:
    with in_double():
        cama = mixed(guide=Wide)
        assert is_grouped(cama.model, cama.guide)
        both_ways(cama, rows_of(cama, 3), lambda: _seeded(0), samples=1)
    cama = mixed(guide=Wide)
    batch = rows_of(cama, 3)
    trace = poutine.trace(cama.guide).get_trace(batch)
    assert type(trace.nodes["z"]["fn"].base_dist).__name__ == "StudentT"
    changed = mixed(model=Noisy)
    assert not is_grouped(changed.model, changed.guide)
    changed.modules.load_state_dict(mixed().modules.state_dict())
    found = []
    for cama in (changed, mixed()):
        pyro.set_rng_seed(0)
        found.append(log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=2).w)
    assert (found[0] != found[1]).all()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    pyro.set_rng_seed(seed)
    yield


def test_the_two_ways_differ_for_a_model_that_overrides_a_factor() -> None:
    """So log_weights must not take the grouped one by itself."""
    cama = mixed(model=Noisy)
    batch = rows_of(cama, 3)
    found = {}
    for trace in (True, False, None):
        pyro.set_rng_seed(0)
        found[trace] = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=2, trace=trace).w
    assert torch.equal(found[None], found[True])
    assert not torch.allclose(found[True], found[False])


def test_do_on_a_node_is_an_intervention_on_the_model_alone() -> None:
    """Its effects read the value given; the guide sees the data as they are."""
    cama = build({**MIXED, "latents": {"z": None, "m": None}}, hidden=4, layers=1)
    batch = rows_of(cama, 4)
    found = log_weights(cama.model, cama.guide, batch, do={"a": torch.tensor(2.0)}).w
    instead = Batch({**batch.values, "a": torch.full((4,), 2.0)}, {}, None, 4)
    torch.testing.assert_close(found, log_weights(cama.model, cama.guide, instead).w)
