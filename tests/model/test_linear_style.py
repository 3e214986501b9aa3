"""A linear style, summed out: exact densities and posteriors (float64), whichever way they are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA, GraphError, Likelihood, Mechanism
from pyro_cama.data.batch import Batch
from pyro_cama.inference.log_weights import causes_known, is_exact, log_weights
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.linear_style import sums_out
from tests.helpers import random_graphs
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import small

CLOSE = {"atol": 1e-8, "rtol": 1e-8}


def graph(scope: str = "dataset", loadings: str = "class", affects: str = "quantity", **style: Any) -> dict[str, Any]:
    """Parents, co-parents, an edge among children, a vector, a child the style does not cause, one that m does not."""
    return {
        "target": "y",
        "nodes": {
            "y": {"type": "categorical", "levels": ["p", "q", "r"]},
            "a": "continuous", "c": "continuous", "x": "continuous", "w": "continuous",
            "v": {"type": "continuous", "dim": 2}, "k": "count",
        },
        "edges": ["a -> y", "y -> x", "y -> w", "y -> v", "y -> k", "c -> w", "x -> w", "c -> k"],
        "latents": {
            "z": {"dim": 2, "effect": "linear", "loadings": loadings, "children": ["x", "w", "v"], **style},
            "m": {"scope": scope, "children": ["x", "v", "k"], "affects": affects},
        },
    }  # fmt: skip


def jittered(spec: dict[str, Any]) -> CAMA:
    cama = small(spec, sites=3 if spec["latents"]["m"]["scope"] == "site" else 0)
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return cama


def rows_of(cama: CAMA, rows: int, missing: Sequence[str] = ()) -> Batch:
    """Rows drawn from the model, in some of which some nodes are missing."""
    batch = random_graphs.rows_of(cama, rows)
    return replace(batch, observed={name: torch.arange(rows) % 3 != i % 3 for i, name in enumerate(missing)})


def reversed_and_noisy(cama: CAMA) -> None:
    """Lets NN_pM turn the scales of half of the columns round, and add noise to all."""
    last: Any = cama.manipulation.network[-1]
    with torch.no_grad():
        last.weight[2::4] *= 3.0
        last.weight[3::8] *= 30.0


@pytest.mark.parametrize("loadings", ["class", "shared"])
@pytest.mark.parametrize("affects", ["quantity", "measurement"])
@pytest.mark.parametrize("scope", ["row", "dataset", "site"])
@pytest.mark.parametrize("do", [None, {"m": 0.0}])
@pytest.mark.parametrize("classes", [True, False])
def test_any_draw_of_z_has_the_closed_forms_weight(
    scope: str, loadings: str, affects: str, do: Any, classes: bool
) -> None:
    with in_double():
        torch.manual_seed(0)
        cama = jittered(graph(scope, loadings, affects))
        reversed_and_noisy(cama)
        batch = rows_of(cama, 7, missing=["k", "v"])
        m = cama.graph.require_m()
        if do is None and m.per_row:  # the same draw of m either way
            do = {"m": torch.randn(7, m.dim)}
        elif do is None:
            do = {"m": torch.randn(3, m.dim) if scope == "site" else torch.randn(m.dim)}
        exact = log_weights(cama.model, cama.guide, batch, do=do, samples=4, classes=classes)
        drawn = log_weights(cama.model, cama.guide, batch, do=do, samples=4, classes=classes, trace=True)
        grouped = log_weights(cama.model, cama.guide, batch, do=do, samples=4, classes=classes, trace=False)
    assert is_exact(cama.model, cama.guide)
    assert causes_known(cama.model, batch, classes)
    assert float(drawn.w.detach().std(0).max()) < 1e-8  # the draws differ, the weights do not
    for other in (drawn, grouped):
        torch.testing.assert_close(exact.w, other.w, **CLOSE)
    torch.testing.assert_close(exact.context.expand_as(exact.w), drawn.context.expand_as(exact.w), **CLOSE)


@pytest.mark.parametrize("loadings", ["class", "shared"])
def test_it_is_the_normal_distribution_of_the_textbook(loadings: str) -> None:
    with in_double():
        torch.manual_seed(1)
        spec = graph("dataset", loadings)
        spec["edges"] = ["a -> y", "y -> x", "y -> w", "y -> v", "y -> k", "c -> w", "c -> k"]
        cama = jittered(spec)
        batch = rows_of(cama, 5)
        exact = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, classes=True).w[0]
        rest = torch.zeros(())
        expected = torch.zeros(3, 5)
        causes = cama.model.causes(batch, None, None, samples=1, classes=True)
        for y in range(3):
            mean, scale, factors, x = [], [], [], []
            for group in cama.model.groups:
                if not group.linear_z:
                    score = cama.model.group_log_prob(group, causes, batch, True)
                    inside = group.nodes[0] in ("y", "k")
                    rest = rest + (score.expand(3, 5)[y] if inside else 0.0)
                    continue
                d = causes.distributions(group)
                mean.append(d.mean.expand(3, 5, -1)[y])
                scale.append(d.stddev.expand(3, 5, -1)[y])
                factors.append(cama.model.loadings(group).of_class(torch.tensor(y)))
                x.append(group.stack(batch.values))
            loadings_y, diagonal = torch.cat(factors), torch.cat(scale, -1).square()
            covariance = loadings_y @ loadings_y.T + torch.diag_embed(diagonal)
            expected[y] = dist.MultivariateNormal(torch.cat(mean, -1), covariance).log_prob(torch.cat(x, -1)) + rest
            rest = torch.zeros(())
            q = cama.guide.z_dist(batch, torch.full((5,), y), torch.zeros(cama.graph.require_m().dim))
            precision = torch.eye(2) + (loadings_y.T / diagonal.unsqueeze(-2)) @ loadings_y
            moment = ((torch.cat(x, -1) - torch.cat(mean, -1)) / diagonal) @ loadings_y
            torch.testing.assert_close(q.mean, torch.linalg.solve(precision, moment), **CLOSE)
            torch.testing.assert_close(q.covariance_matrix, torch.linalg.inv(precision).expand(5, 2, 2), **CLOSE)
    torch.testing.assert_close(exact, expected, **CLOSE)


def test_a_missing_cause_is_drawn_and_the_rest_still_bounds_the_evidence() -> None:
    with in_double():
        torch.manual_seed(2)
        cama = jittered(graph())
        batch = rows_of(cama, 6, missing=["c", "x"])
        assert not causes_known(cama.model, batch, True)
        weights = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=3, classes=True)
        traced = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=3, classes=True, trace=True)
    assert torch.isfinite(weights.w).all()
    assert weights.w.shape == traced.w.shape == (3, 3, 6)


def test_without_a_label_the_posterior_is_of_the_most_probable_class() -> None:
    with in_double():
        torch.manual_seed(3)
        cama = jittered(graph())
        batch = rows_of(cama, 20)
        zero = torch.zeros(cama.graph.require_m().dim)
        every = cama.guide.z_dist(batch, torch.arange(3)[:, None], zero).mean
        found = cama.guide.z_dist(batch.without("y"), None, zero).mean
        assert found.shape == (20, 2)
        assert ((found - every).norm(dim=-1).min(0).values < 1e-8).all()


class _Shift(Mechanism):
    types = ("continuous",)

    def size(self, node: Any) -> int:
        return 1

    def transform(self, clean: Any, theta: Tensor) -> Any:
        return dist.Normal(clean.loc + theta[..., 0], clean.scale)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x - theta[..., 0]


class _Laplace(Likelihood):
    types = ("continuous",)

    def size(self, node: Any) -> int:
        return 2

    def distribution(self, params: Tensor) -> Any:
        return dist.Laplace(params[..., 0], params[..., 1].exp())


@pytest.mark.parametrize(
    ("change", "options", "effect", "children"),
    [
        ({}, {}, "linear", ("x", "w", "v")),
        ({"children": ["x", "w", "v", "k"]}, {}, "linear", ("x", "w", "v")),  # all of them: as if none were named
        ({"children": ["x", "k"]}, {}, "deep", ("x", "k")),
        ({}, {"likelihoods": {"w": _Laplace()}}, "deep", ("x", "w", "v")),
        ({}, {"mechanisms": {"x": _Shift()}}, "deep", ("x", "w", "v")),
    ],
)
def test_auto_is_linear_where_the_style_can_be_summed_out(
    change: dict[str, Any], options: dict[str, Any], effect: str, children: tuple[str, ...]
) -> None:
    cama = pyro_cama.build(graph(**{"effect": "auto", **change}), device="cpu", hidden=4, **options)
    z = cama.graph.z
    assert z is not None
    assert (z.effect, set(z.children)) == (effect, set(children))
    assert sums_out(cama.model.groups) == (effect == "linear")
    assert cama.copy().graph == cama.graph


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ({"effect": "deep", "loadings": "class"}, "loadings, of which a deep effect has none"),
        ({"effect": "linear", "children": ["k"]}, "no continuous child of likelihood normal among"),
        ({"effect": "lineal"}, "did you mean 'linear'"),
    ],
)
def test_styles_that_cannot_be_are_refused(style: dict[str, Any], said: str) -> None:
    spec = graph()
    spec["latents"]["z"] = {"dim": 2, **style}
    with pytest.raises(GraphError, match=said):
        pyro_cama.build(spec)


def test_a_linear_style_on_a_count_is_sampled_from_what_the_normal_children_say() -> None:
    with in_double():
        torch.manual_seed(4)
        cama = jittered(graph(children=["x", "w", "v", "k"]))
        batch = rows_of(cama, 6)
        assert not is_exact(cama.model, cama.guide)
        many = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=1000, classes=True).w
        evidence = torch.logsumexp(many, 0) - torch.log(torch.tensor(1000.0))
        # of z drawn from its prior the same evidence, to Monte Carlo error
        prior = {"z": dist.Normal(torch.zeros(2), 1.0).to_event(1)}
        plain = log_weights(
            cama.model, cama.guide, batch, do={"m": 0.0}, samples=20_000, classes=True, proposals=prior
        ).w
        other = torch.logsumexp(plain, 0) - torch.log(torch.tensor(20_000.0))
    assert float((evidence - other).detach().abs().median()) < 0.25


def test_a_guide_that_overrides_its_proposal_is_asked_for_draws() -> None:
    class Wide(CAMAGuide):
        def z_dist(self, batch: Any, y: Tensor | None, m: Tensor | None) -> Any:
            loc, scale = self.z_params(batch, y, m)
            return dist.StudentT(4.0, loc, scale).to_event(1)

    with in_double():
        torch.manual_seed(5)
        cama = pyro_cama.build(graph(), device="cpu", hidden=4, guide=Wide)
        batch = rows_of(cama, 6)
        assert not is_exact(cama.model, cama.guide)
        weights = log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, samples=3, classes=True)
    assert float(weights.w.detach().std(0).max()) > 1e-3


def test_a_linear_style_has_no_encoder() -> None:
    cama = pyro_cama.build(graph(), device="cpu", hidden=4)
    with pytest.raises(NotImplementedError, match="effect: deep"):
        cama.guide.encode(rows_of(cama, 3), None, None)
    assert not any("encoder" in name for name, _ in cama.guide.named_parameters())
