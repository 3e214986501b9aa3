"""Mechanisms: the identity at theta = 0, densities by the change of variables, inverses; NN_pM that feeds them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_cama import CAMA, GraphError, build
from pyro_cama.counts import GammaPoisson, Poisson
from pyro_cama.graph.nodes import Node
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.mechanisms.affine import Affine
from pyro_cama.mechanisms.base import Mechanism, Readings
from pyro_cama.mechanisms.concat import Concat
from pyro_cama.mechanisms.confusion import Confusion
from pyro_cama.mechanisms.rate import Rate
from pyro_cama.model.causes import Causes
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.plates import as_batch
from tests.helpers.precision import in_double

REAL = Node("x", "continuous")
COUNT = Node("x", "count")
BINARY = Node("x", "binary", levels=(0, 1))


def levelled(levels: int) -> Node:
    return Node("x", "categorical", levels=tuple(range(levels)))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with in_double():
        yield


def gain(raw: Tensor) -> Tensor:
    """exp(g), where g follows its number up to a limit of 20."""
    return (20.0 * torch.tanh(raw / 20.0)).exp()


def signed_gain(theta: Tensor) -> Tensor:
    """The slope of an affine mechanism."""
    return gain(theta[..., 0]) * (1 - 2 * (theta[..., 3] > 1).double())


some = st.floats(-3.0, 3.0)
pair = st.tuples(some, some).map(torch.tensor)
switch = st.sampled_from([0.0, 2.0])  # r of an affine theta: as it was, reversed
silent = st.tuples(some, some, st.sampled_from([0.0, -0.0]), switch).map(torch.tensor)  # no noise
noisy = st.tuples(some, some, some, switch).map(torch.tensor)
values = st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=6).map(torch.tensor)
counts = st.lists(st.integers(0, 500), min_size=1, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64))


@st.composite
def confusions(draw: st.DrawFn) -> tuple[int, Tensor]:
    levels = draw(st.integers(2, 5))
    theta = draw(st.lists(some, min_size=levels**2, max_size=levels**2))
    return levels, torch.tensor(theta)


# the identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_and_rate_at_zero_change_no_bit(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    x = torch.randn(100)
    normal = dist.Normal(torch.randn(100), torch.rand(100) + 0.1)
    student = dist.StudentT(torch.rand(100) + 2, torch.randn(100), torch.rand(100) + 0.1)
    for zero in (torch.zeros(4), -torch.zeros(4), torch.zeros(100, 4)):
        assert torch.equal(Affine().push(x, zero), x)
        assert torch.equal(Affine().invert(x, zero, None), x)
        for real in (normal, student, dist.Laplace(torch.randn(100), torch.rand(100) + 0.1)):
            assert torch.equal(Affine().transform(real, zero).log_prob(x), real.log_prob(x))
    tight = dist.Normal(torch.randn(100), torch.full((100,), 1e-2))
    assert torch.equal(Affine().transform(tight, torch.zeros(4)).scale, tight.scale)
    n, zero = torch.randint(0, 40, (100,)).to(dtype), torch.zeros(1)
    assert torch.equal(Rate().push(n, zero), n)
    assert torch.equal(Rate().invert(n, zero, None), n)
    poisson = Poisson(torch.rand(100) * 9 + 0.1)
    for whole in (poisson, GammaPoisson(torch.rand(100) + 0.1, torch.rand(100) + 0.1)):
        assert torch.equal(Rate().transform(whole, zero).log_prob(n), whole.log_prob(n))


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_confusion_at_zero_is_the_identity(levels: int) -> None:
    zero, frequencies = torch.zeros(levels**2), torch.softmax(torch.randn(levels), 0)
    codes = torch.randint(levels, (60,))
    one_hot = torch.nn.functional.one_hot(codes, levels).double()
    assert torch.equal(Confusion().matrix(zero), torch.eye(levels))
    assert torch.equal(Confusion().push(codes, zero), codes)
    assert torch.equal(Confusion().invert(codes, zero, frequencies), one_hot)
    assert torch.equal(Confusion().invert(codes, zero, None), one_hot)
    clean = dist.Categorical(logits=2 * torch.randn(60, levels))
    found = Confusion().transform(clean, zero).log_prob(codes)
    torch.testing.assert_close(found, clean.log_prob(codes), atol=1e-12, rtol=0)


def test_confusion_of_a_binary_child_at_zero_is_the_identity() -> None:
    zero, x = torch.zeros(4), torch.tensor([0.0, 1.0, 1.0])
    assert torch.equal(Confusion().push(x, zero), x)
    assert torch.equal(Confusion().invert(x, zero, torch.tensor([0.3, 0.7])), x)
    clean = dist.Bernoulli(logits=torch.tensor([-9.0, 0.3, 9.0]))
    torch.testing.assert_close(Confusion().transform(clean, zero).log_prob(x), clean.log_prob(x), atol=1e-12, rtol=0)


def test_confusion_undoes_nothing_at_zero_for_a_level_never_seen_in_training() -> None:
    frequencies = torch.tensor([0.6, 0.4, 0.0])
    found = Confusion().invert(torch.tensor([0, 2]), torch.zeros(9), frequencies)
    assert torch.equal(found, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert torch.equal(Confusion().invert(torch.ones(1), torch.zeros(4), torch.tensor([1.0, 0.0])), torch.ones(1))


def test_concat_leaves_values_and_densities_alone() -> None:
    x, d = torch.randn(5), dist.Normal(0.0, 1.0)
    assert Concat().size(REAL) == 0
    assert Concat().transform(d, torch.zeros(0)) is d
    assert Concat().invert(x, torch.zeros(0), None) is x


def test_confusion_is_not_flat_at_zero() -> None:
    """Also where a number is negative zero: the slope of |theta| must not vanish there."""
    for start in (torch.zeros(9), -torch.zeros(9)):
        slopes = torch.autograd.functional.jacobian(Confusion().matrix, start).flatten(0, 1)
        off = [i * 3 + j for i, j in itertools.permutations(range(3), 2)]
        assert torch.equal(slopes[off][:, off], torch.eye(6) / 2)
    theta = torch.zeros(4, requires_grad=True)
    seen = Confusion().transform(dist.Bernoulli(probs=torch.tensor(0.2)), theta).log_prob(torch.tensor(1.0))
    (slope,) = torch.autograd.grad(seen, theta)
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.8 / 0.2, -1.0, 0.0]))


# densities -----------------------------------------------------------------------------------------------------------


@given(silent, values)
def test_affine_density_is_the_change_of_variables(theta: Tensor, x: Tensor) -> None:
    loc, scale = torch.tensor(0.4), torch.tensor(1.3)
    map_ = dist.transforms.AffineTransform(theta[1], signed_gain(theta))
    student = dist.StudentT(torch.tensor(3.0), loc, scale)
    for clean in (dist.Normal(loc, scale), student, dist.Laplace(loc, scale)):
        exact = dist.TransformedDistribution(clean, [map_]).log_prob(x)
        torch.testing.assert_close(Affine().transform(clean, theta).log_prob(x), exact, atol=1e-9, rtol=1e-9)
        by_hand = clean.log_prob(Affine().invert(x, theta, None)) - gain(theta[0]).log()
        torch.testing.assert_close(by_hand, exact, atol=1e-9, rtol=1e-9)


@given(noisy, values)
def test_noise_adds_its_variance_to_a_normal(theta: Tensor, x: Tensor) -> None:
    slope, offset, loc, scale = signed_gain(theta), theta[1], torch.tensor(0.4), torch.tensor(1.3)
    variance = slope.square() * scale.square() + theta[2].abs()
    exact = -0.5 * ((x - slope * loc - offset).square() / variance + variance.log() + math.log(2 * math.pi))
    found = Affine().transform(dist.Normal(loc, scale), theta).log_prob(x)
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("theta", [(0.5, -0.3, 0.7, 0.0), (-0.4, 0.2, -1.5, 2.0)])
def test_noise_is_a_convolution(theta: tuple[float, ...]) -> None:
    """p(x) is the integral of p(x~) N(x; slope x~ + b, |s|) over x~."""
    values, x = torch.tensor(theta), torch.linspace(-4.0, 4.0, 9)
    clean = torch.linspace(-12.0, 12.0, 4001)
    d = dist.Normal(torch.tensor(0.4), torch.tensor(1.3))
    around = dist.Normal(signed_gain(values) * clean + values[1], values[2].abs().sqrt())
    exact = torch.trapezoid((d.log_prob(clean) + around.log_prob(x[:, None])).exp(), clean)
    torch.testing.assert_close(Affine().transform(d, values).log_prob(x).exp(), exact, atol=1e-9, rtol=0)


def test_noise_widens_student_t_and_leaves_others_as_they_are() -> None:
    theta, x = torch.tensor([0.2, 0.5, -0.8, 2.0]), torch.linspace(-3.0, 3.0, 7)
    df, loc, scale = torch.tensor(3.0), torch.tensor(0.4), torch.tensor(1.3)
    slope = signed_gain(theta)
    wide = dist.StudentT(df, slope * loc + 0.5, (slope.square() * scale.square() + 0.8).sqrt())
    found = Affine().transform(dist.StudentT(df, loc, scale), theta)
    torch.testing.assert_close(found.log_prob(x), wide.log_prob(x))
    laplace = dist.Laplace(loc, scale)
    quiet = theta * torch.tensor([1.0, 1.0, 0.0, 1.0])
    noisy, silent = (Affine().transform(laplace, value).log_prob(x) for value in (theta, quiet))
    assert torch.equal(noisy, silent)


def test_two_noisy_transforms_compose() -> None:
    """Needed where ``composes`` is set: the first one's noise goes through the second one's gain."""
    first, second = torch.tensor([0.3, -0.5, 0.4, 2.0]), torch.tensor([-0.2, 0.6, -0.9, 2.0])
    clean = dist.Normal(torch.tensor(0.4), torch.tensor(1.3))
    found = Affine().transform(Affine().transform(clean, first), second)
    torch.testing.assert_close(found.loc, gain(second[0]) * (gain(first[0]) * 0.4 + 0.5) + 0.6)
    one = (2 * gain(first[0]).log()).exp() * 1.3**2 + 0.4
    torch.testing.assert_close(found.variance, gain(second[0]).square() * one + 0.9)


@pytest.mark.parametrize("start", [0.0, -0.0])
def test_noise_is_not_flat_at_zero(start: float) -> None:
    x, scale = torch.tensor([0.4, 1.0, 5.0]), 1.3
    theta = torch.tensor([0.0, 0.0, start, 0.0]).repeat(3, 1).requires_grad_(True)
    for clean in (dist.Normal(0.4, scale), dist.StudentT(1e9, 0.4, scale)):
        (slope,) = torch.autograd.grad(Affine().transform(clean, theta).log_prob(x).sum(), theta)
        z = (x - 0.4) / scale
        torch.testing.assert_close(slope[:, 2], (z.square() - 1) / (2 * scale**2), atol=1e-6, rtol=0)
        assert (slope[:, 2] != 0).all()
        assert not slope[:, 3].any()  # no gradient finds a reversal


@pytest.mark.parametrize("raw", [-1.0, 0.7])
def test_rate_scales_the_mean_and_keeps_the_family(raw: float) -> None:
    n, theta = torch.arange(0.0, 400.0), torch.tensor([raw])
    for clean in (dist.Poisson(torch.tensor(3.0)), dist.GammaPoisson(torch.tensor(2.0), torch.tensor(0.8))):
        d = Rate().transform(clean, theta)
        probs = d.log_prob(n).exp()
        torch.testing.assert_close(probs.sum(), torch.ones(()), atol=1e-9, rtol=0)
        torch.testing.assert_close((n * probs).sum(), gain(theta[0]) * clean.mean, atol=1e-8, rtol=0)
    with pytest.raises(GraphError, match=r"rate needs a Poisson or negative-binomial likelihood, found Normal"):
        Rate().transform(dist.Normal(0.0, 1.0), theta)


@given(confusions(), st.randoms(use_true_random=False))
def test_confusion_likelihood_sums_over_the_clean_level(case: tuple[int, Tensor], rng: Any) -> None:
    levels, theta = case
    matrix = Confusion().matrix(theta)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(levels))
    clean = torch.softmax(torch.tensor([rng.gauss(0, 2) for _ in range(levels)]), 0)
    codes = torch.arange(levels)
    exact = torch.stack([sum((clean[i] * matrix[i, j] for i in range(levels)), torch.zeros(())) for j in range(levels)])
    found = Confusion().transform(dist.Categorical(probs=clean), theta)
    torch.testing.assert_close(found.log_prob(codes).exp(), exact, atol=1e-6, rtol=1e-6)
    if levels == 2:
        binary = Confusion().transform(dist.Bernoulli(probs=clean[1]), theta)
        torch.testing.assert_close(binary.log_prob(codes.double()).exp(), exact, atol=1e-6, rtol=1e-6)


def test_confusion_matrix_by_hand() -> None:
    """1 on the diagonal and exp(|theta|) - 1 off it, then rows that sum to one; |theta| is limited to 6."""
    small = 6 * math.tanh(0.5 / 6)
    off = math.expm1(small)
    found = Confusion().matrix(torch.tensor([9.0, 0.5, -0.5, -9.0]))
    row = torch.tensor([1.0, off]) / (1 + off)
    torch.testing.assert_close(found, torch.stack([row, row.flip(0)]))
    assert Confusion().matrix(torch.full((4,), 1e6)).isfinite().all()


@given(st.integers(2, 40), st.floats(0.1, 1.0))
def test_a_theta_confuses_as_much_among_many_levels(levels: int, size: float) -> None:
    """The share of readings that are wrong, all numbers of theta alike, hardly depends on how many levels there are."""
    wrong = 1 - Confusion().matrix(torch.full((levels**2,), size)).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(wrong, torch.full((levels,), 1 - math.exp(-size)), atol=0.01, rtol=0.02)


# inverses ------------------------------------------------------------------------------------------------------------


@given(silent, values)
def test_affine_undoes_itself(theta: Tensor, x: Tensor) -> None:
    pushed = Affine().push(x, theta)
    torch.testing.assert_close(pushed, signed_gain(theta) * x + theta[1])
    torch.testing.assert_close(Affine().invert(pushed, theta, None), x, atol=1e-10, rtol=1e-10)


@given(silent, values)
def test_push_has_the_density_that_transform_gives(theta: Tensor, x: Tensor) -> None:
    clean = dist.Normal(torch.tensor(0.4), torch.tensor(1.3))
    moved = Affine().transform(clean, theta).log_prob(Affine().push(x, theta))
    torch.testing.assert_close(moved, clean.log_prob(x) - gain(theta[0]).log(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("theta", [(0.3, -0.5, 0.6, 0.0), (0.3, -0.5, -0.6, 2.0)])
def test_push_draws_the_noise(theta: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    values, x = torch.tensor(theta), torch.randn(20_000)
    noise = Affine().push(x, values) - signed_gain(values) * x + 0.5
    assert abs(float(noise.mean())) < 4 * (0.6 / 20_000) ** 0.5
    assert abs(float(noise.var()) - 0.6) < 4 * 0.6 * (2 / 20_000) ** 0.5
    assert abs(float((noise * x).mean())) < 4 * (0.6 / 20_000) ** 0.5


@given(some, counts)
def test_rate_undoes_itself_up_to_rounding(raw: float, n: Tensor) -> None:
    theta = torch.tensor([raw])
    pushed = Rate().push(n, theta)
    assert torch.equal(pushed, pushed.round())
    assert ((Rate().invert(pushed, theta, None) - n).abs() <= 0.5 / gain(theta[0]) + 1e-9).all()


@pytest.mark.parametrize("mechanism", [Affine(), Rate()])
def test_no_theta_overflows(mechanism: Mechanism) -> None:
    x, theta = torch.ones(1), torch.full((4,), 1e4)
    for value in (theta, -theta):
        assert mechanism.push(x, value).isfinite().all()
        assert mechanism.invert(x, value, None).isfinite().all()


@given(confusions(), st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5))
def test_confusion_inverse_is_the_posterior_of_the_clean_level(case: tuple[int, Tensor], raw: list[float]) -> None:
    levels, theta = case
    prior = torch.tensor(raw[:levels]) / sum(raw[:levels])
    matrix = Confusion().matrix(theta)
    assume(float((prior @ matrix).min()) > 1e-6)
    for frequencies, known in ((prior, prior), (None, torch.full((levels,), 1 / levels))):
        found = Confusion().invert(torch.arange(levels), theta, frequencies)
        for seen in range(levels):
            exact = torch.stack([known[i] * matrix[i, seen] for i in range(levels)])
            torch.testing.assert_close(found[seen], exact / exact.sum(), atol=1e-9, rtol=1e-9)
        if levels == 2:
            binary = Confusion().invert(torch.tensor([0.0, 1.0]), theta, frequencies)
            torch.testing.assert_close(binary, found[:, 1])


def test_theta_of_samples_meets_values_of_rows() -> None:
    theta, codes = torch.randn(3, 1, 9), torch.tensor([0, 2])
    found = Confusion().invert(codes, theta, None)
    assert found.shape == (3, 2, 3)
    torch.testing.assert_close(found[1, 1], Confusion().invert(codes[1:], theta[1, 0], None)[0])
    probs = Confusion().transform(dist.Categorical(probs=torch.rand(2, 3)), theta).probs
    assert probs.shape == (3, 2, 3)


# simulated interventions and starts ----------------------------------------------------------------------------------


def test_confusion_pushes_with_the_matrix() -> None:
    theta = torch.tensor([0.0, 0.8, 0.3, 1.1, 0.0, 0.1, 0.2, 0.0, 0.0])
    matrix = Confusion().matrix(theta)
    torch.manual_seed(0)
    for level in range(3):
        pushed = Confusion().push(torch.full((20_000,), level), theta)
        assert pushed.dtype == torch.long
        share = torch.bincount(pushed, minlength=3) / 20_000
        assert ((share - matrix[level]).abs() <= 4 * (matrix[level] * (1 - matrix[level]) / 20_000).sqrt()).all()
    assert Confusion().push(torch.ones(5), torch.ones(4)).dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("mechanism", "node"), [(Affine(), REAL), (Rate(), COUNT), (Confusion(), BINARY), (Confusion(), levelled(3))]
)
def test_simulated_theta(mechanism: Mechanism, node: Node) -> None:
    torch.manual_seed(0)
    theta = mechanism.simulate((400, 2), node, 1.0)
    assert theta.shape == (400, 2, mechanism.size(node))
    assert not mechanism.simulate((50,), node, 0.0).any()
    untouched = (theta == 0).all(-1).double().mean()
    assert 0.35 < untouched < 0.65  # half of the components stay as they are
    torch.manual_seed(1)
    small = mechanism.simulate((400, 2), node, 0.1)
    torch.manual_seed(1)
    torch.testing.assert_close(small * 10, mechanism.simulate((400, 2), node, 1.0))


@given(pair)
def test_affine_starts_at_the_moments(moments: Tensor) -> None:
    theta = torch.cat([moments, torch.zeros(2)])  # neither noise nor a reversed scale is in two moments
    clean = torch.randn(200, generator=torch.Generator().manual_seed(0))
    statistics = {"mean": clean.mean(), "sd": clean.std()}
    start = Affine().guess_from_moments(Affine().push(clean, theta), statistics)
    assert start is not None
    torch.testing.assert_close(start, theta, atol=1e-6, rtol=1e-6)


@given(noisy, some)
def test_the_reversed_scale_keeps_the_mean_and_reverses_back(theta: Tensor, mean: float) -> None:
    statistics = {"mean": torch.tensor(mean), "sd": torch.ones(())}
    before = theta.clone()
    turned = Affine().alternatives(theta, statistics)[0]
    assert torch.equal(theta, before)
    torch.testing.assert_close(signed_gain(turned), -signed_gain(theta))
    assert torch.equal(turned[[0, 2]], theta[[0, 2]])
    means = [signed_gain(value) * mean + value[1] for value in (theta, turned)]
    torch.testing.assert_close(means[0], means[1], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(Affine().alternatives(turned, statistics)[0], theta, atol=1e-10, rtol=1e-10)


@given(noisy, some, st.floats(0.1, 3.0))
def test_a_wider_spread_may_be_noise(theta: Tensor, mean: float, sd: float) -> None:
    """The other alternative: mean and variance of the readings as they are, the gain 1."""
    found = Affine().alternatives(theta, {"mean": torch.tensor(mean), "sd": torch.tensor(sd)})
    assert len(found) == (2 if gain(theta[0]) > 1 else 1)
    for other in found[1:]:
        torch.testing.assert_close(signed_gain(other), signed_gain(theta).sign())
        moments = [(signed_gain(t) * mean + t[1], signed_gain(t).square() * sd**2 + t[2].abs()) for t in (theta, other)]
        torch.testing.assert_close(moments[0], moments[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("levels", "number"), [(2, 1), (3, 5), (4, 23)])
def test_few_levels_may_be_recoded_in_every_way(levels: int, number: int) -> None:
    found = recodings(torch.zeros(levels**2), None)
    assert len(set(found)) == len(found) == number
    assert all(sorted(code) == list(range(levels)) != list(code) for code in found)
    assert tuple(range(levels))[::-1] in found


def recodings(theta: Tensor, readings: Readings | None) -> list[tuple[int, ...]]:
    """What every level is recorded as, by the alternatives."""
    found = [Confusion().matrix(other) for other in Confusion().alternatives(theta, {}, readings)]
    assert all((matrix.max(-1).values > 0.95).all() for matrix in found)
    return [tuple(matrix.argmax(-1).tolist()) for matrix in found]


@pytest.mark.parametrize("levels", [6, 30, 300])
@pytest.mark.parametrize("moved", [(0, 2), (0, 1, 2, 3)])
def test_of_many_levels_those_are_recoded_that_the_readings_ask_for(levels: int, moved: tuple[int, ...]) -> None:
    """Levels of equal frequencies that the class tells apart: frequencies alone would show nothing."""
    generator = torch.Generator().manual_seed(levels)
    rows, likely = 200, torch.full((2, levels), 0.2 / levels)
    likely[0, [0, 1]] += 0.4
    likely[1, [2, 3]] += 0.4  # classes 0 and 1 are as many, so levels 0 to 3 are as frequent
    y = torch.arange(rows) % 2
    x = torch.multinomial(likely[y], 1, generator=generator)[:, 0]
    to = torch.arange(levels)
    to[list(moved)] = torch.tensor([*moved[1:], moved[0]])
    clean = dist.Categorical(probs=likely[y].expand(3, rows, levels))
    readings = Readings(to[x], clean, -clean.log_prob(to[x]) - math.log(3))
    assert len(recodings(torch.zeros(levels**2), readings)) <= 3
    others = Confusion().alternatives(torch.zeros(levels**2), {}, readings)
    gains = [float(readings.log_evidence(Confusion().transform(clean, theta)).sum()) for theta in others]
    assert max(gains) >= float(readings.log_evidence(recorded(clean, to)).sum()) - 1e-6 > 20


def recorded(clean: dist.Categorical, to: Tensor) -> dist.Categorical:
    """Levels of which 97 % of those that move are recorded as others."""
    moves = torch.nn.functional.one_hot(to, len(to)).double()
    stays = torch.eye(len(to))
    sure = 0.97 * (to != torch.arange(len(to)))[:, None]
    return dist.Categorical(probs=clean.probs @ (sure * moves + (1 - sure) * stays))


def test_a_theta_that_rows_share_is_not_copied_to_every_row() -> None:
    """Nor in the gradient: with 1,000 levels and 500 rows that would take gigabytes."""
    levels, draws, rows = 40, 6, 50
    theta = (0.1 * torch.rand(1, levels**2)).requires_grad_(True)
    x, clean = torch.arange(rows) % levels, torch.softmax(torch.randn(draws, rows, 1, levels), -1)
    with Largest() as made:
        moved = Confusion().transform(dist.Categorical(probs=clean), theta)
        back = Confusion().invert(x[:, None], theta, torch.full((levels,), 1 / levels))
        (moved.log_prob(x[:, None]).sum() + back.square().sum() + moved.probs.square().sum()).backward()
    assert made.numbers <= draws * rows * levels  # of a copy a row it would be rows * levels ** 2
    assert draws < levels


class Largest(TorchDispatchMode):
    """Counts the numbers of the largest tensor that is written inside; views and expanded ones cost nothing."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().size() > 0:
                self.numbers = max(self.numbers, tensor.untyped_storage().size() // tensor.element_size())
        return out


def test_other_mechanisms_have_no_alternatives() -> None:
    assert Rate().alternatives(torch.zeros(1), {"mean": torch.ones(())}) == ()
    assert Shift(1.0).alternatives(torch.zeros(2), {}) == ()


def test_rate_starts_at_the_ratio_of_means() -> None:
    start = Rate().guess_from_moments(torch.tensor([2.0, 6.0]), {"mean": torch.tensor([2.0])})
    assert start is not None
    torch.testing.assert_close(gain(start), torch.tensor([2.0]))


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 10.0, 1e3, 1e6])
def test_starts_reach_any_unit(factor: float) -> None:
    clean = torch.randn(200, generator=torch.Generator().manual_seed(0))
    start = Affine().guess_from_moments(factor * clean, {"mean": clean.mean(), "sd": clean.std()})
    assert start is not None
    assert float(signed_gain(start)) == pytest.approx(factor, rel=1e-5)
    counts = Rate().guess_from_moments(factor * torch.full((9,), 1e5), {"mean": torch.tensor([1e5])})
    assert counts is not None
    assert float(gain(counts)) == pytest.approx(factor, rel=1e-5) or factor == 1e-6  # 0.1: less than a count


@given(noisy)
def test_a_step_is_felt_by_what_the_gain_leaves_of_it(theta: Tensor) -> None:
    theta[2] = theta[2].abs()
    felt = Affine().felt(theta)
    assert felt.shape == theta.shape
    assert Affine().felt(torch.zeros(4)).tolist() == [1.0] * 4
    step = torch.tensor([0.0, 0.1, 0.0, 0.0]) * felt
    clean = [Affine().pull_back(torch.ones(()), value).x for value in (theta, theta + step)]
    torch.testing.assert_close(clean[0] - clean[1], 0.1 * signed_gain(theta).sign(), rtol=1e-6, atol=1e-6)
    step = torch.tensor([0.0, 0.0, 0.1, 0.0]) * felt
    noise = [Affine().pull_back(torch.ones(()), value).variance for value in (theta, theta + step)]
    torch.testing.assert_close(noise[1] - noise[0], torch.tensor(0.1), rtol=1e-6, atol=1e-6)


def test_readings_that_do_not_move_tell_nothing_of_a_gain() -> None:
    start = Affine().guess_from_moments(torch.full((9,), 7.0), {"mean": torch.zeros(()), "sd": torch.ones(())})
    assert start is not None
    assert float(signed_gain(start)) == 1
    assert float(start[1]) == 7


def test_starts_survive_constant_and_single_values() -> None:
    for x in (torch.zeros(5), torch.tensor([3.0])):
        start = Affine().guess_from_moments(x, {"mean": torch.tensor(0.0), "sd": torch.tensor(1.0)})
        assert start is not None
        assert start.isfinite().all()
    start = Rate().guess_from_moments(torch.zeros(4), {"mean": torch.zeros(1)})
    assert start is not None
    assert start.isfinite().all()


# NN_pM ---------------------------------------------------------------------------------------------------------------

TYPES: dict[str, Any] = {
    "x": "continuous",
    "v": {"type": "continuous", "dim": 3},
    "n": "count",
    "b": "binary",
    "k": {"type": "categorical", "levels": ["p", "q", "r"]},
}


def make(m: dict[str, Any] | None = None, **options: Any) -> CAMA:
    spec = {"target": "y", "nodes": {"y": "binary", **TYPES}, "edges": [f"y -> {name}" for name in TYPES]}
    return build({**spec, "latents": {"m": m or {}}}, **{"hidden": 8, "layers": 2, **options})


def shaken(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 2.0)


@pytest.mark.parametrize("mechanism", [{}, {"x": "concat", "k": "concat"}])
@pytest.mark.parametrize("scope", ["row", "dataset", "clinic"])
def test_theta_is_zero_at_zero_whatever_the_weights(scope: str, mechanism: dict[str, str]) -> None:
    manipulation = make({"dim": 2, "scope": scope, "mechanism": mechanism}).manipulation
    for _ in range(5):
        shaken(manipulation)
        assert not manipulation(torch.zeros(2)).any()
        torch.testing.assert_close(manipulation(torch.zeros(6, 2)), torch.zeros(6, manipulation._features.stop))
        away = manipulation(torch.ones(2))
        assert (away != 0).all()
        if mechanism:
            assert manipulation.features(away).shape == (8,)


@pytest.mark.parametrize(("scope", "affine"), [("row", 2), ("dataset", 4)])
def test_theta_is_dealt_out_to_every_component(scope: str, affine: int) -> None:
    manipulation = make({"scope": scope}).manipulation
    theta = torch.arange(float(manipulation.size))
    parts = {name: manipulation.theta(theta, g)[g.component(name)] for g in manipulation.groups for name in g.nodes}
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    assert shapes == {"x": (affine,), "v": (3, affine), "n": (1,), "b": (4,), "k": (9,)}
    assert sorted(torch.cat([part.flatten() for part in parts.values()]).tolist()) == theta.tolist()
    assert manipulation.theta(theta.expand(7, 4, -1), manipulation.groups[0]).shape[:2] == (7, 4)


@pytest.mark.parametrize(("scope", "points"), [("row", 1), ("row", 5), ("dataset", 1), ("clinic", 3)])
@pytest.mark.parametrize("concat", [False, True])
def test_aim_hits_its_targets(scope: str, points: int, concat: bool) -> None:
    mechanism = {"x": "concat"} if concat else {}
    manipulation = make({"dim": 3, "scope": scope, "mechanism": mechanism}).manipulation
    m = torch.nn.functional.normalize(torch.randn(points, 3), dim=-1)
    features = manipulation(m)[:, manipulation.size :]
    wanted = torch.randn(points, manipulation.size)
    manipulation.solve_for(m, wanted)
    torch.testing.assert_close(manipulation(m)[:, : manipulation.size], wanted, atol=1e-8, rtol=0)
    torch.testing.assert_close(manipulation(m)[:, manipulation.size :], features)
    assert not manipulation(torch.zeros(3)).any()


def undone(manipulation: Manipulation, values: dict[str, Tensor], theta: Tensor) -> dict[str, Tensor]:
    clean: dict[str, Tensor] = {}
    for group in manipulation.groups:
        found = manipulation.undo(values, theta, group)
        if isinstance(found, Tensor):
            found = {name: found[..., group.component(name)] for name in group.nodes}
        clean |= found
    return clean


def test_undo_is_the_inverse_of_every_child() -> None:
    cama = make()
    manipulation: Manipulation = cama.manipulation
    shaken(manipulation.network[-1])
    theta = manipulation(0.1 * torch.randn(4))
    values = {
        "x": torch.randn(6),
        "v": torch.randn(6, 3),
        "n": torch.arange(6.0),
        "b": torch.tensor([0.0, 1.0] * 3),
        "k": torch.tensor([0, 1, 2] * 2),
    }
    frequencies = {"b": torch.tensor([0.9, 0.1]), "k": torch.tensor([0.2, 0.3, 0.5])}
    manipulation.inputs.set_statistics({name: {"frequencies": f} for name, f in frequencies.items()})
    clean = undone(manipulation, values, theta)
    for group in manipulation.groups:
        assert group.mechanism is not None
        for name in group.nodes:
            part = manipulation.theta(theta, group)[group.component(name)]
            exact = group.mechanism.invert(values[name], part, frequencies.get(name))
            torch.testing.assert_close(clean[name], exact)
            assert not torch.equal(clean[name], values[name])


# what a child's effects see of it ------------------------------------------------------------------------------------


def chain(kind: Any, affects: str) -> CAMA:
    """x1 is manipulated and causes x2, which is not."""
    return build(
        {
            "target": "y",
            "nodes": {"y": "binary", "x1": kind, "x2": "continuous"},
            "edges": ["y -> x1 -> x2", "y -> x2"],
            "latents": {"z": None, "m": {"dim": 2, "children": ["x1"], "affects": affects}},
        },
        hidden=6,
        layers=1,
    )


def mean_of_x2(cama: CAMA, x1: Tensor, m: Tensor) -> Tensor:
    causes = Causes(cama.model, as_batch({"x1": x1}, None))
    causes.set_m(m)
    causes.values |= {"x1": x1, "y": torch.ones(len(x1))}
    found: Tensor = cama.model.node_dist("x2", causes).mean
    return found


@pytest.mark.parametrize("kind", ["continuous", {"type": "continuous", "dim": 2}, "count"])
def test_effects_read_the_quantity_or_undo_the_measurement(kind: Any) -> None:
    shape = (5, 2) if isinstance(kind, dict) else (5,)
    recorded = torch.randint(0, 9, shape).double() if kind == "count" else torch.randn(shape)
    m, zero = torch.tensor([0.6, -0.4]), torch.zeros(2)
    cama = chain(kind, "quantity")
    torch.testing.assert_close(mean_of_x2(cama, recorded, m), mean_of_x2(cama, recorded, zero))
    cama = chain(kind, "measurement")
    manipulation = cama.manipulation
    clean = undone(manipulation, {"x1": recorded}, manipulation(m))["x1"]
    torch.testing.assert_close(mean_of_x2(cama, recorded, m), mean_of_x2(cama, clean, zero))
    assert not torch.allclose(mean_of_x2(cama, recorded, m), mean_of_x2(cama, recorded, zero))


def test_effects_of_a_confused_level_see_its_posterior() -> None:
    cama = chain({"type": "categorical", "levels": ["p", "q", "r"]}, "measurement")
    cama.model.networks["inputs"].set_statistics({"x1": {"frequencies": torch.tensor([0.5, 0.3, 0.2])}})
    manipulation, m = cama.manipulation, torch.tensor([0.6, -0.4])
    codes = torch.tensor([0, 1, 2])
    soft = Confusion().invert(codes, manipulation(m), torch.tensor([0.5, 0.3, 0.2]))
    quantity = chain_like(cama)
    torch.testing.assert_close(mean_of_x2(cama, codes, m), mean_of_x2(quantity, soft, m))
    torch.testing.assert_close(mean_of_x2(cama, codes, torch.zeros(2)), mean_of_x2(quantity, codes, m))
    assert not torch.allclose(mean_of_x2(cama, codes, m), mean_of_x2(quantity, codes, m))


def chain_like(cama: CAMA) -> CAMA:
    """The same weights under ``quantity``."""
    twin = chain({"type": "categorical", "levels": ["p", "q", "r"]}, "quantity")
    twin.modules.load_state_dict(cama.modules.state_dict())
    return twin


# a user's own --------------------------------------------------------------------------------------------------------


class Shift(Mechanism):
    """x = x~ + s * theta."""

    types = ("continuous",)

    def __init__(self, step: float) -> None:
        self.step = step

    def size(self, node: Node) -> int:
        return 1

    def transform(self, clean: Any, theta: Tensor) -> Any:
        return dist.Normal(clean.loc + self.step * theta[..., 0], clean.scale)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x - self.step * theta[..., 0]


class Drift(Shift):
    """Also simulates, and guesses."""

    guesses = True
    simulates = True

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        return x + self.step * theta[..., 0]

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return scale * torch.randn(*shape, 1)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        return ((x.mean() - statistics["mean"]) / self.step).reshape(1)


def table(rows: int = 40) -> pd.DataFrame:
    y = torch.arange(rows) % 2
    return pd.DataFrame({"y": y, "u": torch.randn(rows) + y, "w": torch.randn(rows) - y})


def own(scope: str = "dataset", **mechanisms: Mechanism) -> CAMA:
    spec = {
        "target": "y",
        "nodes": {"y": "binary", "u": "continuous", "w": "continuous"},
        "edges": ["y -> u", "y -> w"],
        "latents": {"m": {"scope": scope}},
    }
    return build(spec, hidden=8, layers=1, mechanisms=mechanisms)


def test_a_users_mechanism_acts_on_its_child_alone() -> None:
    cama = own(u=Shift(2.0))
    groups = {name: group for group in cama.manipulation.groups for name in group.nodes}
    assert isinstance(groups["u"].mechanism, Shift)
    assert isinstance(groups["w"].mechanism, Affine)
    data = {"y": torch.tensor([0.0, 1.0]), "u": torch.randn(2), "w": torch.randn(2)}
    m = torch.randn(4)
    manipulation = cama.manipulation
    theta = manipulation(m)
    u, w = (manipulation.theta(theta, groups[name])[groups[name].component(name)] for name in "uw")
    w[2:] = torch.tensor([0.0, 2.0])  # a view of theta: no noise, and reversed
    with torch.no_grad():
        manipulation.solve_for(m[None], theta[None])
    shift, g, b = 2.0 * u[0], w[0], w[1]
    back = {**data, "u": data["u"] - shift, "w": (data["w"] - b) / -gain(g)}
    for trace in (True, False):
        torch.manual_seed(0)
        moved = log_weights(cama.model, cama.guide, data, do={"m": m}, samples=3, classes=True, trace=trace).w
        torch.manual_seed(0)
        clean = log_weights(cama.model, cama.guide, back, do={"m": 0.0}, samples=3, classes=True, trace=trace).w
        torch.testing.assert_close(moved, clean - gain(g).log())


def test_equal_mechanisms_share_a_group_and_others_do_not() -> None:
    assert len(own(u=Shift(2.0), w=Shift(2.0)).model.groups) == 2
    assert len(own(u=Shift(2.0), w=Shift(1.0)).model.groups) == 3
    assert len(own(u=Shift(2.0), w=Drift(2.0)).model.groups) == 3
    assert hash(Shift(2.0)) == hash(Shift(2.0))
    assert Shift(2.0) != Shift(1.0)


def test_a_forgotten_method_or_declaration_is_an_error() -> None:
    """When the class is defined, or when abc refuses to make an object of it."""

    class Half(Mechanism):
        types = ("continuous",)

        def size(self, node: Node) -> int:
            return 1

    with pytest.raises(TypeError, match=r"abstract class Half .*invert.*transform"):
        Half()  # type: ignore[abstract]
    body: dict[str, Any] = {"push": Drift.push, "simulate": Drift.simulate}
    with pytest.raises(
        TypeError, match=r"Own defines simulate and does not declare it; set simulates = True in the cl"
    ):
        type("Own", (Shift,), body)
    with pytest.raises(
        TypeError, match=r"Own declares simulates = True and has no push; define push, or leave simulates"
    ):
        type("Own", (Shift,), {"simulates": True, "simulate": Drift.simulate})
    with pytest.raises(TypeError, match=r"Own declares simulates = True and has no simulate and no push; define simul"):
        type("Own", (Shift,), {"simulates": True})
    with pytest.raises(TypeError, match=r"Own defines guess_from_moments and does not declare it; set guesses = True"):
        type("Own", (Shift,), {"guess_from_moments": Drift.guess_from_moments})
    with pytest.raises(
        TypeError, match=r"Own declares guesses = True and has no guess_from_moments; define guess_from"
    ):
        type("Own", (Shift,), {"guesses": True})
    methods = {name: vars(Shift)[name] for name in ("size", "transform", "invert")}
    with pytest.raises(
        TypeError, match=r"Own: found types = \(\); expected a tuple of the node types that it serves, some"
    ):
        type("Own", (Mechanism,), methods)
    for wrong in ("continuous", ("continous",)):
        with pytest.raises(
            TypeError, match=r"Own: found types = .*conti.*; expected a tuple .* some of continuous, cat"
        ):
            type("Own", (Mechanism,), {**methods, "types": wrong})


def test_an_ability_may_be_taken_back() -> None:
    class Silent(Drift):
        simulates = guesses = False

    assert not Silent(1.0).simulates
    assert not Silent(1.0).guesses


# in words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [(0.0, 0.0, 0.0, 0.0), (0.3, -0.5, 0.0, 0.0), (0.3, -0.5, -0.64, 2.0)])
def test_affine_in_raw_units(theta: tuple[float, ...]) -> None:
    values, mean, sd = torch.tensor(theta), 40.0, 5.0
    found = Affine().describe(values, REAL, {"mean": torch.tensor(mean), "sd": torch.tensor(sd)})
    assert set(found) == {"change", "gain", "offset", "shift at the mean", "noise"}
    raw = mean + sd * torch.randn(1000)
    quiet = values * torch.tensor([1.0, 1.0, 0.0, 1.0])
    moved = mean + sd * Affine().push((raw - mean) / sd, quiet)
    torch.testing.assert_close(found["gain"] * raw + found["offset"], moved)
    assert found["gain"] == pytest.approx(float(signed_gain(values)))
    assert found["gain"] * mean + found["offset"] - mean == pytest.approx(found["shift at the mean"])
    assert found["noise"] == pytest.approx(sd * abs(theta[2]) ** 0.5)
    usual = torch.randn(400_000)
    apart = (Affine().push(usual, values) - usual).square().mean().sqrt()
    assert found["change"] == pytest.approx(float(apart), rel=0.01)


@pytest.mark.parametrize("raw", [0.0, 0.7, -1.2])
def test_rate_in_words(raw: float) -> None:
    found = Rate().describe(torch.tensor([raw]), COUNT, {"mean": torch.tensor(3.0)})
    factor = float(gain(torch.tensor(raw)))
    assert found == {"change": pytest.approx(abs(factor - 1)), "gain": pytest.approx(factor)}


def test_confusion_in_words() -> None:
    node = Node("x", "categorical", levels=("p", "q", "r"))
    theta = torch.tensor([0.0, 0.8, 0.3, 1.1, 0.0, 0.1, 0.2, 0.0, 0.0])
    matrix, frequencies = Confusion().matrix(theta), torch.tensor([0.5, 0.3, 0.2])
    found = Confusion().describe(theta, node, {"frequencies": frequencies})
    torch.manual_seed(0)
    clean = torch.multinomial(frequencies, 100_000, replacement=True)
    share = float((Confusion().push(clean, theta) != clean).double().mean())
    assert found.pop("change") == pytest.approx(share, abs=0.01)
    pairs = [f"{node.levels[i]} -> {node.levels[j]}" for i, j in itertools.permutations(range(3), 2)]
    assert list(found) == pairs
    exact = [float(matrix[i, j]) for i, j in itertools.permutations(range(3), 2)]
    assert list(found.values()) == pytest.approx(exact)
    binary = Confusion().describe(torch.zeros(4), BINARY, {"frequencies": torch.tensor([0.3, 0.7])})
    assert binary == {"change": 0.0, "0 -> 1": 0.0, "1 -> 0": 0.0}


def test_a_users_mechanism_in_words() -> None:
    class Two(Shift):
        def size(self, node: Node) -> int:
            return 2

        def prior_scale(self, node: Node) -> Tensor:
            return torch.tensor([1.0, 0.5])

    assert Two(1.0).describe(torch.tensor([3.0, -2.0]), REAL, {}) == {"change": 5.0, "theta 0": 3.0, "theta 1": -2.0}
    assert Shift(1.0).describe(torch.zeros(1), REAL, {}) == {"change": 0.0, "theta 0": 0.0}


def test_simulated_interventions_need_push_and_simulate() -> None:
    options: dict[str, Any] = {"max_epochs": 1, "progress": False}
    with pytest.raises(NotImplementedError, match=r"Shift cannot simulate interventions: override push and simulate"):
        own("row", u=Shift(2.0), w=Shift(2.0)).fit(table(), interventions=1.0, **options)
    cama = own("row", u=Drift(2.0), w=Drift(2.0)).fit(table(), interventions=1.0, **options)
    assert cama.m_trained


def test_mechanisms_that_do_not_fit_are_errors() -> None:
    with pytest.raises(GraphError, match=r"child 'n': Shift serves continuous, found type count"):
        make(mechanisms={"n": Shift(1.0)})
    with pytest.raises(GraphError, match=r"child 'k': Rate serves count, found type categorical"):
        make({"mechanism": {"k": "rate"}})
    with pytest.raises(GraphError, match=r"unknown mechanism 'afine', .* did you mean 'affine'\?"):
        make({"mechanism": {"x": "afine"}})
    with pytest.raises(
        GraphError, match=r"mechanisms given for \['n'\], on which no manipulation acts; expected some of \['x'\]"
    ):
        make({"children": ["x"]}, mechanisms={"n": Rate(), "x": Affine()})
