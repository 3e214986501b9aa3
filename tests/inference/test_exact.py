"""Log-weights and their reductions against exact answers: normals given the class, and tables small enough to sum."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise, draw_site
from pyro_cama.inference.bounds import class_log_probs, importance_bound, marginal, mean_bound, shared_term
from pyro_cama.inference.elbo import JointELBO
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.likelihoods import MIN_SCALE
from pyro_cama.mechanisms.affine import Affine
from tests.helpers.networks import networks

CHILDREN = ("x1", "x2", "x3")
MEAN = torch.tensor([[-1.0, 0.2, 0.9], [0.5, -0.6, 0.3], [0.0, 0.8, -0.7]], dtype=torch.float64)  # child, class
BY_C = torch.tensor([0.7, -0.4, 0.0], dtype=torch.float64)
BY_X1 = torch.tensor([0.0, 0.0, 0.6], dtype=torch.float64)
BY_Z = torch.tensor([0.8, -0.5, 0.4], dtype=torch.float64)
SD = torch.tensor([0.6, 0.9, 0.5], dtype=torch.float64)
BY_A = torch.tensor([0.9, -0.3, -0.5], dtype=torch.float64)
BIAS_Y = torch.tensor([0.1, 0.4, -0.2], dtype=torch.float64)
C_MEAN, C_SD = 0.3, 0.8


pytestmark = pytest.mark.usefixtures("double")


@dataclass
class World:
    """a -> y; y and c -> x1, x2; y and x1 -> x3; one z, one m with x = ±exp(g) x~ + b + noise: the true densities.

    ``gain``, ``offset``, ``noise`` and ``reverse`` are the slopes of g, b, s and r in m.  Under ``measurement`` x3
    reads the clean x1, and there must be no noise.
    """

    gain: Tensor
    offset: Tensor
    noise: Tensor = field(default_factory=lambda: torch.zeros(3))
    reverse: Tensor = field(default_factory=lambda: torch.zeros(3))
    affects: str = "quantity"
    scope: str = "row"

    def spec(self) -> dict[str, Any]:
        return {
            "target": "y",
            "nodes": {
                "a": "continuous",
                "c": "continuous",
                "y": {"type": "categorical", "levels": ["p", "q", "r"]},
                **dict.fromkeys(CHILDREN, "continuous"),
            },
            "edges": ["a -> y -> x1 -> x3", "c -> x1", "c -> x2", "y -> x2", "y -> x3"],
            "latents": {
                "z": {"dim": 1, "effect": "deep"},
                "m": {"dim": 1, "scope": self.scope, "affects": self.affects},
            },
        }

    def gains(self, m: Tensor | float) -> tuple[Tensor, Tensor]:
        sign = 1.0 - 2.0 * (self.reverse * m > 1).double()
        return sign * (20.0 * torch.tanh(self.gain * m / 20.0)).exp(), self.offset * m

    def normal(self, y: int, c: Tensor, m: float, c_known: bool = True) -> tuple[Tensor, Tensor]:
        """Mean ``(rows, 3)`` and covariance of x given y, c and m; c integrated out unless known."""
        gain, offset = self.gains(m)
        scale, read = torch.diag(gain), torch.zeros(3, 3)
        read[:, 0] = BY_X1
        clean = MEAN[:, y] + BY_C * (c[:, None] if c_known else C_MEAN)
        noise = torch.outer(BY_Z, BY_Z) + torch.diag(SD**2)
        if not c_known:
            noise = noise + C_SD**2 * torch.outer(BY_C, BY_C)
        if self.affects == "measurement":
            solve = scale @ torch.linalg.inv(torch.eye(3) - read)
            mean = clean @ solve.T + offset
        else:
            solve = torch.linalg.inv(torch.eye(3) - scale @ read)
            mean = (gain * clean + offset) @ solve.T
            noise = scale @ noise @ scale + torch.diag((self.noise * m).abs())
        return mean.expand(len(c), 3), solve @ noise @ solve.T

    def log_joint(self, values: dict[str, Tensor], m: float, observed: tuple[str, ...] = ()) -> Tensor:
        """log p(y, x | a, c, m) of every class, ``(classes, rows)``; only of ``observed`` children, and c, if given."""
        observed = observed or ("c", *CHILDREN)
        keep = [i for i, name in enumerate(CHILDREN) if name in observed]
        x = torch.stack([values[CHILDREN[i]] for i in keep], -1)
        rows = []
        for y in range(3):
            mean, cov = self.normal(y, values["c"], m, "c" in observed)
            d = torch.distributions.MultivariateNormal(mean[:, keep], cov[keep][:, keep])
            rows.append(d.log_prob(x))
        prior = torch.log_softmax(values["a"][:, None] * BY_A + BIAS_Y, -1)
        return torch.stack(rows) + prior.T

    def draw(self, rows: int, m: float, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(rows, generator=generator)
        c = C_MEAN + C_SD * torch.randn(rows, generator=generator)
        prior = torch.softmax(a[:, None] * BY_A + BIAS_Y, -1)
        y = torch.multinomial(prior, 1, generator=generator)[:, 0]
        x = torch.empty(rows, 3)
        for k in range(3):
            mean, cov = self.normal(k, c, m)
            sample = mean + torch.randn(rows, 3, generator=generator) @ torch.linalg.cholesky(cov).T
            x[y == k] = sample[y == k]
        values = {"a": a, "c": c, "y": y, **{name: x[:, i] for i, name in enumerate(CHILDREN)}}
        return Batch(values, {}, None, rows)

    def build(self, sites: int = 0) -> CAMA:
        """The package's model of this world, every parameter of it set to the truth."""
        cama = build(self.spec(), layers=0, seed=1, mechanisms=dict.fromkeys(CHILDREN, Affine()))  # also in scope row
        with torch.no_grad():
            set_factor(cama, "a", [0.0], 1.0, {})
            set_factor(cama, "c", [C_MEAN], C_SD, {})
            set_factor(cama, "y", BIAS_Y, None, {"a": BY_A[:, None]})
            for i, name in enumerate(CHILDREN):
                others = {"x1": BY_X1[i].reshape(1, 1)} if name == "x3" else {"c": BY_C[i].reshape(1, 1)}
                sources = {"y": MEAN[i][None], "z": BY_Z[i].reshape(1, 1), **others}
                set_factor(cama, name, [0.0], float(SD[i]), sources)
            manipulation = cama.manipulation
            theta = torch.stack([self.gain, self.offset, self.noise, self.reverse], -1)
            last: Any = manipulation.network[-1]
            last.bias.normal_()  # theta(m) - theta(0): it must not matter
            last.weight.zero_()
            for group in manipulation.groups:
                for name in group.nodes:
                    at = group.component(name)
                    manipulation.theta(last.weight.T, group)[0, at] = theta[CHILDREN.index(name)]
        return cama

    def exact_guide(self, cama: CAMA, m: float = 0.0, shift: float = 0.0, widen: float = 1.0) -> None:
        """Sets q(z | .) to the posterior given do(m); shifted by some of its sds, and widened.

        Under ``quantity`` x3 reads the recorded x1, so the map from clean values to z depends on m.
        """
        precision = 1.0 + (BY_Z**2 / SD**2).sum()
        pull = BY_Z / SD**2 / precision
        gain, offset = self.gains(m) if self.affects == "quantity" else (torch.ones(3), torch.zeros(3))
        by_value = {name: pull[i] for i, name in enumerate(CHILDREN)}
        by_value["x1"] = by_value["x1"] - gain[0] * (pull * BY_X1).sum()
        by_value["c"] = -(pull * BY_C).sum()
        by_value["a"] = torch.zeros(())
        read = [name for name in cama.graph.order if name != "y"]
        encoder = networks(cama.guide)["encoder"]
        sd = precision**-0.5
        with torch.no_grad():
            for name in ("values", "missing flags", "target"):
                encoder.projections[name].weight.zero_()
            encoder.projections["values"].weight[0] = torch.stack([by_value[name] for name in read])
            encoder.projections["target"].weight[0] = -(pull[:, None] * MEAN).sum(0)
            encoder.bias[0] = -(pull * BY_X1).sum() * offset[0] + shift * sd
            encoder.bias[1] = inverse_softplus(float(sd) * widen - 1e-3)


def inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))


def set_factor(cama: CAMA, name: str, bias: Any, sd: float | None, sources: dict[str, Tensor]) -> None:
    """Sets p(name | its causes): linear in the sources, ``(outputs, width)`` each."""
    model = cama.model
    group = model.group_of[name]
    index = model.groups.index(group)
    networks: Any = model.networks
    merge, at = networks["merges"][index], group.component(name)
    rows = slice(None) if len(bias) > 1 else slice(at, at + 1)  # type: ignore[operator]
    merge.bias[rows] = torch.as_tensor(bias)
    assert set(merge.projections) == set(sources)
    for source, weight in sources.items():
        merge.projections[source].weight[rows] = weight
    if sd is not None:
        networks["constants"][index][at, 0] = inverse_softplus(sd - MIN_SCALE)


def weights_of(cama: CAMA, batch: Batch, **options: Any) -> LogWeights:
    torch.manual_seed(5)
    with torch.no_grad():
        return log_weights(cama.model, cama.guide, batch, **options)


def worlds(**changes: Any) -> World:
    gain, offset = torch.tensor([0.5, -0.3, 0.4]), torch.tensor([0.9, 0.6, -0.8])
    return World(**{"gain": gain, "offset": offset, **changes})


def offset_world(**changes: Any) -> World:
    """m adds only, so that p(x | y) and the posterior of m stay normal."""
    return worlds(gain=torch.zeros(3), offset=torch.tensor([0.5, 0.3, -0.4]), **changes)


# eqs. 3 and 6: do(m) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("affects", ["quantity", "measurement"])
@pytest.mark.parametrize(("m", "reverse"), [(0.0, 0.0), (0.8, 0.0), (0.8, 2.0)])
def test_exact_guide_makes_every_weight_the_evidence(m: float, reverse: float, affects: str, trace: bool) -> None:
    world = worlds(affects=affects, reverse=torch.tensor([reverse, 0.0, reverse]))
    cama = world.build()
    world.exact_guide(cama, m)
    batch = world.draw(6, m)
    weights = weights_of(cama, batch, do={"m": m}, samples=3, classes=True, trace=trace)
    exact = world.log_joint(batch.values, m)
    torch.testing.assert_close(weights.w, exact.expand(3, 3, 6), atol=1e-8, rtol=0)
    posterior = torch.log_softmax(exact, 0)
    torch.testing.assert_close(class_log_probs(weights), posterior, atol=1e-8, rtol=0)
    own = weights_of(cama, batch, do={"m": m}, samples=2, trace=trace)
    of_label = exact.gather(0, batch.values["y"][None])
    torch.testing.assert_close(own.w, of_label.expand(2, 1, 6), atol=1e-8, rtol=0)
    context = torch.distributions.Normal(0.0, 1.0).log_prob(batch.values["a"])
    context = context + torch.distributions.Normal(C_MEAN, C_SD).log_prob(batch.values["c"])
    torch.testing.assert_close(own.context.expand(2, 1, 6)[0, 0], context, atol=1e-8, rtol=0)


@pytest.mark.parametrize("trace", [True, False])
def test_do_takes_a_value_for_every_row(trace: bool) -> None:
    world = worlds(affects="measurement")
    cama = world.build()
    world.exact_guide(cama)
    batch = world.draw(4, 0.5)
    m = torch.tensor([[0.0], [0.5], [-1.0], [0.2]])
    weights = weights_of(cama, batch, do={"m": m}, samples=2, classes=True, trace=trace)
    exact = torch.stack([world.log_joint(batch.values, float(m[i]))[:, i] for i in range(4)], 1)
    torch.testing.assert_close(weights.w, exact.expand(2, 3, 4), atol=1e-8, rtol=0)


@pytest.mark.parametrize("affects", ["quantity", "measurement"])
@pytest.mark.parametrize("m", [0.0, 0.8])
def test_posterior_of_the_class_with_an_imperfect_guide(m: float, affects: str) -> None:
    world = worlds(affects=affects)
    cama = world.build()
    world.exact_guide(cama, shift=0.2, widen=1.3)
    batch = world.draw(5, m)
    weights = weights_of(cama, batch, do={"m": m}, samples=100_000, classes=True)
    exact = torch.softmax(world.log_joint(batch.values, m), 0)
    torch.testing.assert_close(class_log_probs(weights).exp(), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("noise", [0.5, -0.5])
def test_noise_of_a_mechanism_is_in_the_evidence(noise: float) -> None:
    """The guide does not know of the noise, so importance weights have to make up for that."""
    world, m = worlds(noise=torch.tensor([noise, 0.0, noise])), 0.8
    cama = world.build()
    world.exact_guide(cama, m, widen=1.2)
    batch = world.draw(5, m)
    bound = importance_bound(weights_of(cama, batch, do={"m": m}, samples=100_000, classes=True))
    torch.testing.assert_close(bound, world.log_joint(batch.values, m), atol=2e-2, rtol=0)
    assert (bound - worlds().log_joint(batch.values, m)).abs().max() > 0.2


def test_a_guide_set_wrong_is_seen() -> None:
    """The equality above is one that a wrong guide breaks."""
    world = worlds()
    cama = world.build()
    world.exact_guide(cama, shift=0.2)
    batch = world.draw(6, 0.0)
    weights = weights_of(cama, batch, do={"m": 0.0}, samples=3, classes=True)
    assert (weights.w - world.log_joint(batch.values, 0.0)).abs().min() > 1e-6


# bounds --------------------------------------------------------------------------------------------------------------

SHIFT, WIDEN = 0.7, 1.5


def repeats(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first dimension, and its standard error."""
    return values.mean(0), values.std(0) / len(values) ** 0.5


def blocks(weights: LogWeights, samples: int) -> LogWeights:
    """The same draws as independent estimates of ``samples`` each, one behind the other in the rows."""
    w = weights.w.unflatten(0, (-1, samples)).movedim(0, -2).flatten(-2)
    return LogWeights(w, None, torch.zeros(()))


def imperfect(m: float) -> tuple[World, CAMA, Batch]:
    world = worlds()
    cama = world.build()
    world.exact_guide(cama, m, SHIFT, WIDEN)
    return world, cama, world.draw(4, m)


@pytest.mark.parametrize("m", [0.0, 0.8])
def test_the_elbo_is_the_evidence_less_the_guides_divergence(m: float) -> None:
    world, cama, batch = imperfect(m)
    weights = weights_of(cama, batch, do={"m": m}, samples=40_000, classes=True)
    mean, se = repeats(weights.w)
    assert torch.equal(mean, mean_bound(weights))
    exact = world.log_joint(batch.values, m)
    divergence = (WIDEN**2 + SHIFT**2 - 1) / 2 - math.log(WIDEN)  # KL(q || p(z | x, y)), both normal
    assert (mean < exact).all()
    assert ((mean - (exact - divergence)).abs() < 4.5 * se).all()


def test_importance_bound_tightens_with_samples_and_stays_below() -> None:
    world, cama, batch = imperfect(0.8)
    exact = world.log_joint(batch.values, 0.8)
    found = []
    for k in (1, 3, 10, 30):
        weights = weights_of(cama, batch, do={"m": 0.8}, samples=6000 * k, classes=True)
        found.append(repeats(importance_bound(blocks(weights, k)).unflatten(-1, (6000, -1)).movedim(-2, 0)))
    for (low, low_se), (high, high_se) in itertools.pairwise(found):
        assert (high - low > 3 * (low_se + high_se)).all()
    mean, se = found[-1]
    assert (mean < exact + 3 * se).all()
    assert (exact - mean < 0.03).all()
    elbo = mean_bound(weights_of(cama, batch, do={"m": 0.8}, samples=6000, classes=True))
    torch.testing.assert_close(found[0][0], elbo, atol=1e-12, rtol=0)  # one sample: the ELBO


@pytest.mark.parametrize("m", [0.0, 0.8])
def test_marginal_elbo_is_below_the_evidence_of_the_children(m: float) -> None:
    world, cama, batch = imperfect(m)
    exact = torch.logsumexp(world.log_joint(batch.values, m), 0)
    weights = blocks(weights_of(cama, batch, do={"m": m}, samples=2000 * 8, classes=True), 8)
    loose, loose_se = repeats(marginal(mean_bound(weights)).unflatten(-1, (2000, -1)))
    tight, tight_se = repeats(marginal(importance_bound(weights)).unflatten(-1, (2000, -1)))
    assert (loose < exact - 3 * loose_se).all()
    assert (tight < exact + 3 * tight_se).all()
    assert (tight > loose + 3 * (loose_se + tight_se)).all()
    world.exact_guide(cama, m)
    equal = marginal(mean_bound(weights_of(cama, batch, do={"m": m}, classes=True)))
    torch.testing.assert_close(equal, exact, atol=1e-8, rtol=0)


def test_class_proportions_replace_the_prior() -> None:
    world = worlds()
    cama = world.build()
    world.exact_guide(cama)
    batch = world.draw(6, 0.0)
    ratio = torch.tensor([0.5, -1.0, 0.2])
    weights = weights_of(cama, batch, do={"m": 0.0}, samples=2, classes=True)
    exact = world.log_joint(batch.values, 0.0) + ratio[:, None]
    found = class_log_probs(weights, log_prior_ratio=ratio)
    torch.testing.assert_close(found, torch.log_softmax(exact, 0), atol=1e-8, rtol=0)
    evidence = marginal(mean_bound(weights), ratio)
    torch.testing.assert_close(evidence, torch.logsumexp(exact, 0), atol=1e-8, rtol=0)


# eq. 4: m inferred ---------------------------------------------------------------------------------------------------

GRID = torch.linspace(-8.0, 8.0, 401, dtype=torch.float64)


def over_m(log_p: Tensor) -> Tensor:
    """log of the integral over m ~ N(0, 1) of exp(log_p), the grid first; exact to rounding for smooth densities."""
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(GRID)
    step = math.log(float(GRID[1] - GRID[0]))
    return torch.logsumexp(log_p + log_prior.reshape(-1, *[1] * (log_p.dim() - 1)) + step, 0)


def on_grid(world: World, batch: Batch) -> Tensor:
    """log p(y, x | a, c, m), ``(grid, classes, rows)``."""
    return torch.stack([world.log_joint(batch.values, float(m)) for m in GRID])


def set_row_posterior(cama: CAMA, loc: float, scale: float) -> None:
    last: Any = cama.guide.m_posterior.network[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([loc, inverse_softplus(scale - 1e-3)]))


def test_quadrature_agrees_with_the_normal_it_integrates() -> None:
    world = offset_world()
    batch = world.draw(5, 0.7)
    x = torch.stack([batch.values[name] for name in CHILDREN], -1)
    prior = torch.log_softmax(batch.values["a"][:, None] * BY_A + BIAS_Y, -1)
    for y in range(3):
        mean, cov = world.normal(y, batch.values["c"], 0.0)
        shift = world.normal(y, batch.values["c"], 1.0)[0][0] - mean[0]
        d = torch.distributions.MultivariateNormal(mean, cov + torch.outer(shift, shift))
        exact = d.log_prob(x) + prior[:, y]
        torch.testing.assert_close(over_m(on_grid(world, batch))[y], exact, atol=1e-9, rtol=0)


@pytest.mark.parametrize("affects", ["quantity", "measurement"])
def test_joint_elbo_of_rows_is_below_the_evidence_and_reaches_it(affects: str) -> None:
    gain = torch.tensor([0.2, 0.0, -0.1]) if affects == "measurement" else torch.zeros(3)
    world = offset_world(affects=affects)
    world.gain = gain
    cama = world.build()
    world.exact_guide(cama)
    set_row_posterior(cama, 0.1, 0.95)
    batch = world.draw(4, 0.7)
    exact = over_m(on_grid(world, batch))
    weights = weights_of(cama, batch, do=None, samples=100_000, classes=True)
    mean, se = repeats(weights.w)
    assert (mean < exact - 3 * se).all()
    torch.testing.assert_close(importance_bound(weights), exact, atol=1e-2, rtol=0)
    posterior = torch.softmax(exact, 0)
    torch.testing.assert_close(class_log_probs(weights).exp(), posterior, atol=2e-3, rtol=0)


@pytest.mark.parametrize("trace", [True, False])
def test_exact_posterior_of_a_shared_m_makes_the_evidence_of_the_dataset(trace: bool) -> None:
    world = offset_world(scope="dataset", affects="measurement")
    cama = world.build()
    world.exact_guide(cama)
    batch = world.draw(7, 0.7)
    rows = on_grid(world, batch).gather(1, batch.values["y"].expand(len(GRID), 1, 7))[:, 0]
    evidence = over_m(rows.sum(1))
    share = torch.softmax(rows.sum(1) - GRID**2 / 2, 0)
    loc = (share * GRID).sum()
    scale = (share * (GRID - loc) ** 2).sum().sqrt()
    q: Any = cama.guide.m_posterior
    with torch.no_grad():
        q.loc.fill_(float(loc))
        q.raw_scale.fill_(inverse_softplus(float(scale) - 1e-7))
    weights = weights_of(cama, batch, samples=3, trace=trace)
    assert weights.shared is not None
    assert weights.shared.shape == (3, 1)
    total = weights.w.sum((1, 2)) + weights.shared[:, 0]
    torch.testing.assert_close(total, evidence.expand(3), atol=1e-8, rtol=0)
    # the same in the rows' own reductions, whole and from a minibatch of known size
    bound = (mean_bound(weights)[0] + shared_term(weights, None, None)).sum()
    torch.testing.assert_close(bound, evidence, atol=1e-8, rtol=0)
    part = LogWeights(weights.w[..., :2], weights.shared, weights.context)
    share_of_two = shared_term(part, None, torch.tensor([7])).sum()
    torch.testing.assert_close(share_of_two, weights.shared.mean() * 2 / 7, atol=1e-12, rtol=0)
    loss = JointELBO(samples=2).loss(cama.model, cama.guide, batch)
    context = weights.context.expand(3, 1, 7)[0, 0].sum()
    assert loss == pytest.approx(-float(evidence + context), abs=1e-8)


def test_prediction_averages_over_a_shared_m() -> None:
    """p(y | x, m_k) averaged over q(m), which is the posterior given all rows already: no ratio of m."""
    world = offset_world(scope="dataset", affects="measurement")
    cama = world.build()
    world.exact_guide(cama)
    q: Any = cama.guide.m_posterior
    with torch.no_grad():
        q.loc.fill_(0.4)
        q.raw_scale.fill_(inverse_softplus(0.5 - 1e-7))
    batch = world.draw(4, 0.7)
    given_m = torch.softmax(on_grid(world, batch), 1)
    weight = torch.softmax(-(((GRID - 0.4) / 0.5) ** 2) / 2, 0)
    exact = (weight[:, None, None] * given_m).sum(0)
    weights = weights_of(cama, batch, samples=60_000, classes=True)
    found = class_log_probs(weights, m_samples=60_000).exp()
    torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)


# missing values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [True, False])
def test_every_draw_of_a_shared_m_has_draws_of_z_of_its_own(trace: bool) -> None:
    """Eq. 6 under a broad q(m): the mean over draws of m of p(y | x, m), as do(m) gives it with the same noise."""
    world = worlds(scope="dataset")
    cama = world.build()
    world.exact_guide(cama, 0.4, shift=0.3, widen=1.5)
    with torch.no_grad():
        cama.guide.m_posterior.loc.fill_(0.4)  # type: ignore[union-attr, operator]
        cama.guide.m_posterior.raw_scale.fill_(1.0)  # type: ignore[union-attr, operator]
    batch = world.draw(6, 0.7)
    with torch.no_grad(), common_noise(3):
        every: dict[str, Any] = {"samples": 12, "classes": True}
        weights = log_weights(cama.model, cama.guide, batch, **every, m_samples=3, trace=trace)
        q: Any = cama.guide.m_dist(None)
        given = []
        drawn = draw_site(q.expand((12, 1, 1)), "m")[:, 0, 0]
        # the last one mirrors the first, and the odd one is the mean
        for k, m in enumerate([drawn[0], torch.full_like(drawn[0], 0.4), 2 * 0.4 - drawn[0]]):
            w = log_weights(cama.model, cama.guide, batch, **every, do={"m": m}).w[4 * k : 4 * k + 4]
            given.append(torch.softmax(torch.logsumexp(w, 0), 0))
    found = class_log_probs(weights, m_samples=3).exp()
    torch.testing.assert_close(found, torch.stack(given).mean(0), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"expected samples, 12, to be a multiple of m_samples, 5"):
        log_weights(cama.model, cama.guide, batch, **every, m_samples=5, trace=trace)


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("missing", [("x2",), ("x3",), ("x1",), ("c",), ("c", "x1"), ("x1", "x2", "x3")])
def test_missing_values_are_integrated_out(missing: tuple[str, ...], trace: bool) -> None:
    world = worlds()
    cama = world.build()
    world.exact_guide(cama, widen=1.8)
    full = world.draw(3, 0.8)
    known = torch.tensor([True, False, False])
    values = {n: torch.where(known, v, torch.zeros_like(v)) if n in missing else v for n, v in full.values.items()}
    batch = Batch(values, dict.fromkeys(missing, known), None, 3)
    observed = tuple(name for name in ("c", *CHILDREN) if name not in missing)
    whole = world.log_joint(full.values, 0.8)
    if any(name in CHILDREN for name in observed):
        part = world.log_joint(full.values, 0.8, observed)
    else:
        part = torch.log_softmax(full.values["a"][:, None] * BY_A + BIAS_Y, -1).T
    exact = torch.where(known, whole, part)
    weights = weights_of(cama, batch, do={"m": 0.8}, samples=100_000, classes=True, trace=trace)
    torch.testing.assert_close(importance_bound(weights), exact, atol=2e-2, rtol=0)
    torch.testing.assert_close(class_log_probs(weights).exp(), torch.softmax(exact, 0), atol=4e-3, rtol=0)


def binary_table(seed: int) -> tuple[CAMA, Batch]:
    """A random graph of six binary nodes without latents; every row of its table.

    v0 causes v1, both cause the target, and the effects are strong.
    """
    rng = np.random.default_rng(seed)
    names = [f"v{i}" for i in range(6)]
    target = names[int(rng.integers(2, 4))]
    fixed = {("v0", "v1"), ("v0", target), ("v1", target), (target, "v5")}
    edges = [[*pair] for pair in itertools.combinations(names, 2) if pair in fixed or rng.random() < 0.5]
    spec = {
        "target": target,
        "nodes": dict.fromkeys(names, "binary"),
        "edges": edges,
        "latents": {"z": None, "m": None},
    }
    cama = build(spec, layers=0, seed=seed)
    with torch.no_grad():
        torch.manual_seed(seed)
        networks: Any = cama.model.networks
        for parameter in networks["merges"].parameters():
            parameter.normal_(0.0, 1.5)
    order = cama.graph.order
    table = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(order))))
    return cama, Batch({name: table[:, i] for i, name in enumerate(order)}, {}, None, len(table))


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_missing_causes_are_inferred_from_all_that_they_cause(seed: int, trace: bool) -> None:
    """A missing parent is also known by another parent that it causes, a missing child by a co-parent."""
    cama, table = binary_table(seed)
    order, target = cama.graph.order, cama.graph.target
    full = weights_of(cama, table, trace=trace)
    log_p = (full.w + full.context).flatten()
    torch.testing.assert_close(log_p.exp().sum(), torch.ones(()), atol=1e-9, rtol=0)
    rng = np.random.default_rng(seed)
    inputs = [name for name in order if name != target]
    missing = ["v0", *(name for name in inputs if name != "v0" and rng.random() < 0.3)]
    row = table.select(torch.from_numpy(rng.integers(0, table.rows, 1)))
    match = torch.stack([table.values[n] == row.values[n] for n in inputs if n not in missing]).all(0)
    of_class = [log_p[match & (table.values[target] == y)] for y in (0.0, 1.0)]
    exact = torch.softmax(torch.stack([torch.logsumexp(part, 0) for part in of_class]), 0)
    batch = Batch(row.values, dict.fromkeys(missing, torch.tensor([False])), None, 1)
    weights = weights_of(cama, batch, samples=40_000, classes=True, trace=trace)
    torch.testing.assert_close(class_log_probs(weights).exp()[:, 0], exact, atol=1e-2, rtol=0)
