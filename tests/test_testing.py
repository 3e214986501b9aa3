"""check_mechanism and check_likelihood find every violation, say how large it is, and leave torch as it was."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import Likelihood, Mechanism, Node
from pyro_cama.likelihoods import Bernoulli, Categorical, NegativeBinomial, Normal, PixelNormal, Poisson, StudentT
from pyro_cama.mechanisms import Affine, Confusion, Field, Intensity, Rate
from pyro_cama.testing import check_likelihood, check_mechanism

REAL, COUNT = Node("x", "continuous"), Node("x", "count")
BINARY, LEVELS = Node("x", "binary", levels=(0, 1)), Node("x", "categorical", levels=(0, 1, 2))
IMAGE = Node("x", "image", shape=(1, 20, 20))


def changed(parent: Any, **body: Any) -> Any:
    """An object of a class that differs from its parent in what is given."""
    return type("Own", (parent,), body)()


def after(parent: Any, name: str, change: Callable[..., Any]) -> Any:
    """An object that changes what a method of its parent returns."""

    def method(self: Any, *args: Any) -> Any:
        return change(getattr(parent, name)(self, *args), *args)

    return changed(parent, **{name: method})


class Noisy(Affine):
    """Noise that ``transform`` knows nothing of."""

    def transform(self, clean: Any, theta: Tensor) -> Any:
        return super().transform(clean, theta * torch.tensor([1.0, 1.0, 0.0, 1.0]))


class Silent(Mechanism):
    """A theta that does nothing, of a class with a minimum of methods."""

    types = ("continuous",)

    def size(self, node: Node) -> int:
        return 1

    def transform(self, clean: Any, theta: Tensor) -> Any:
        return dist.Normal(clean.loc + theta[..., 0], clean.scale)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x - theta[..., 0]


def doubled_change(found: dict[str, float], *_: Any) -> dict[str, float]:
    return {**found, "change": found["change"] + 0.5}


def misses_change(found: dict[str, float], *_: Any) -> dict[str, float]:
    return {"gain": found["gain"]}


def overflows(x: Tensor, theta: Tensor) -> Tensor:
    return x * theta[..., 0].exp()


BROKEN: dict[str, tuple[Any, Node, str]] = {
    "type": (Affine(), COUNT, r"Affine serves continuous: found a node of type count"),
    "hash": (
        changed(Silent, __init__=lambda self: setattr(self, "parts", [1])),
        REAL,
        r"Own: unhashable .* expected attr",
    ),
    "equality": (
        changed(Silent, __eq__=lambda self, other: False, __hash__=lambda self: 0),
        REAL,
        r"not equal to itself",
    ),
    "size": (changed(Silent, size=lambda self, node: -1), REAL, r"Own.size: found -1; expected a whole number"),
    "prior scale": (
        changed(Silent, prior_scale=lambda *_: torch.ones(2)),
        REAL,
        r"scale: found shape \(2,\); expected \(1,\)",
    ),
    "no prior": (
        changed(Silent, prior_scale=lambda *_: torch.zeros(1)),
        REAL,
        r"scale: found \[0.0\]; expected numbers above",
    ),
    "push at rest": (
        after(Affine, "push", lambda x, *_: x + 1e-6),
        REAL,
        r"Own.push at theta = 0: found a difference of 1e-06; .* last bit",
    ),
    "invert at rest": (
        after(Affine, "invert", lambda x, *_: x * (1 + 1e-9)),
        REAL,
        r"Own.invert at theta = 0: found a diff",
    ),
    "codes for probabilities": (
        changed(Confusion, invert=lambda self, x, *_: x),
        LEVELS,
        r"Own.invert at theta = 0: found shape \(8,\); expected \(8, 3\)",
    ),
    "transform at rest": (
        changed(Silent, transform=lambda self, d, theta: dist.Normal(d.loc + theta[..., 0] + 0.1, d.scale)),
        REAL,
        r"Own.transform at theta = 0: log_prob: found a difference of 0\.\d+; expected the same to the last bit",
    ),
    "an inverse that is none": (
        after(Affine, "invert", lambda x, _, theta, __: x + theta[..., 1] ** 2),
        REAL,
        r"Own: invert\(push\(x\)\) beside x: found",
    ),
    "an inverse of counts that is none": (
        changed(Rate, invert=lambda self, x, *_: x),
        COUNT,
        r"Own: push\(invert\(push\(x\)\)\) beside push\(x\): found a diff",
    ),
    "counts that are not whole": (
        changed(Rate, push=lambda self, x, theta: x * theta[..., 0].exp()),
        COUNT,
        r"Own.push: found .* expected whole numbers",
    ),
    "an inverse of levels that is no posterior": (
        changed(Confusion, invert=lambda self, x, theta, f: Confusion.invert(self, x, theta, None)),
        LEVELS,
        r"Own.invert beside the posterior of the clean level: found a difference of",
    ),
    "pushed levels": (
        changed(Confusion, push=lambda self, x, theta: Confusion.push(self, x, 3 * theta)),
        BINARY,
        r"Own: shares of pushed levels beside transform's probabilities: found a difference of 0",
    ),
    "noise left out": (
        Noisy(),
        REAL,
        r"Noisy: share of pushed values below transform's quantile 0.[159]: found a difference",
    ),
    "an image that does not come back": (
        changed(Intensity, invert=lambda self, x, *_: x),
        IMAGE,
        r"Own: invert\(push\(image\)\) .* where push made one of",
    ),
    "density": (
        changed(
            Silent, transform=lambda self, d, theta: dist.Normal(d.loc + theta[..., 0], d.scale * theta[..., 0].exp())
        ),
        REAL,
        r"log_prob beside the change of variables by invert \(a T that is random needs a push\): found a difference of",
    ),
    "composition": (
        changed(
            Silent,
            composes=True,
            transform=lambda self, d, theta: dist.Normal(
                torch.where(d.loc.abs() > 1, d.loc, d.loc + theta[..., 0]), d.scale
            ),
        ),
        REAL,
        r"Own.transform.*: log_prob beside the change of variables",
    ),
    "probabilities of counts": (
        changed(Rate, transform=lambda self, d, theta: Unnormalised(d, theta)),
        COUNT,
        r"Own.transform: total probability: fou",
    ),
    "batch shape": (
        after(Silent, "transform", lambda d, *_: dist.Normal(d.loc[:, :1], d.scale[:, :1]) if d.loc.dim() > 2 else d),
        REAL,
        r"Own.transform of \(2, 3, 4\) by theta \(2, 1, 4, 1\): found batch shape \(2, 1, 4\); expected \(2, 3, 4\)",
    ),
    "rows apart": (
        after(
            Affine,
            "invert",
            lambda x, _, theta, __: x + (theta - theta.mean(-2, True) if theta.dim() > 2 else 0 * theta)[..., 1],
        ),
        REAL,
        r"Own.invert of all rows beside one: found a difference of",
    ),
    "overflow": (
        changed(
            Rate,
            push=lambda self, x, theta: torch.round(overflows(x, theta)),
            invert=lambda self, x, theta, _: overflows(x, -theta),
        ),
        COUNT,
        r"Own.push at theta of 10000: found 1 of 1 numbers infinite or NaN; expected finite ones",
    ),
    "shape of simulated": (
        after(Rate, "simulate", lambda theta, *_: theta.repeat_interleave(2, -1)),
        COUNT,
        r"Own.simulate\(\(3, 2\), .* shape \(3, 2, 2\)",
    ),
    "simulated at scale 0": (
        after(Rate, "simulate", lambda theta, *_: theta + 0.1),
        COUNT,
        r"simulate at scale 0: found 0.1; exp",
    ),
    "dtype": (
        after(Confusion, "push", lambda x, *_: x.double()),
        LEVELS,
        r"Own.push: found torch.float64; expected the levels'",
    ),
    "guess": (
        after(Rate, "guess_from_moments", lambda x, *_: x[0]),
        COUNT,
        r"of usual values: found shape \(\); expected \(1,",
    ),
    "no guess": (
        after(Rate, "guess_from_moments", lambda *_: None),
        COUNT,
        r"guesses = True: guess_from_moments of usual values fo",
    ),
    "guess of constants": (
        changed(Affine, guess_from_moments=lambda self, x, s: torch.tensor([1, 0, 0, 0]) * (s["sd"] / x.std()).log()),
        REAL,
        r"guess_from_moments of constant values: found \d of 4 numbers infinite or NaN",
    ),
    "alternatives": (
        changed(Rate, alternatives=lambda *_: (torch.zeros(2),)),
        COUNT,
        r"alternatives: one of them: found shape",
    ),
    "no change": (
        after(Rate, "describe", misses_change),
        COUNT,
        r"describe: found \['gain'\]; expected a number named 'change'",
    ),
    "change at rest": (
        after(Rate, "describe", doubled_change),
        COUNT,
        r"at theta = 0: found a change of 0.5; expected 0$",
    ),
    "negative change": (
        after(Rate, "describe", lambda d, *_: {"change": -d["change"]}),
        COUNT,
        r"change of -.*; expected 0 or",
    ),
    "NaN in words": (
        after(Rate, "describe", lambda d, *_: {**d, "gain": float("nan")}),
        COUNT,
        r"found \['gain'\] not finite",
    ),
}


class Unnormalised(dist.Poisson):
    """A Poisson whose probabilities grow with theta."""

    def __init__(self, clean: Any, theta: Tensor) -> None:
        super().__init__(clean.mean, validate_args=False)
        self.clean, self.theta = clean, theta

    def log_prob(self, value: Tensor) -> Tensor:
        found: Tensor = self.clean.log_prob(value) + self.theta[..., 0]
        return found


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mechanism_is_caught(name: str) -> None:
    mechanism, node, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_mechanism(mechanism, node)


class Skewed(Normal):
    """Says how its constants are joined, wrongly."""

    def joined(self, free: Tensor, constants: Tensor) -> Any:
        return dist.Normal(free.squeeze(-1), constants.squeeze(-1).exp())


BROKEN_LIKELIHOODS: dict[str, tuple[Any, Node, str]] = {
    "type": (Normal(), COUNT, r"Normal serves continuous: found a node of type count"),
    "hash": (changed(Poisson, __init__=lambda self: setattr(self, "parts", [1])), COUNT, r"Own: unhashable"),
    "size": (changed(Poisson, size=lambda *_: 0), COUNT, r"Own.size: found 0; expected a whole number above 0"),
    "constants": (
        changed(Poisson, constants=1),
        COUNT,
        r"constants: found 1 of 1 numbers; expected some that depend on",
    ),
    "start": (
        changed(Poisson, start=lambda *_: torch.zeros(2)),
        COUNT,
        r"Own.start: found shape \(2,\); expected \(1,\)",
    ),
    "infinite start": (
        changed(Poisson, start=lambda *_: torch.tensor([torch.inf])),
        COUNT,
        r"start: found 1 of 1 numbers inf",
    ),
    "start by the statistics": (
        changed(Poisson, start=lambda self, node, statistics: torch.zeros(2 if statistics else 1)),
        COUNT,
        r"Own.start: found shape \(2,\); expected \(1,\)",
    ),
    "batch shape": (
        changed(Poisson, distribution=lambda self, p: dist.Poisson(p.clamp(-15, 15).exp())),
        COUNT,
        r"found batch shape \(2, 3, 4, 1\) and event shape \(\); expected \(2, 3, 4\) and \(\)",
    ),
    "event shape": (
        changed(Categorical, distribution=lambda self, p: dist.OneHotCategorical(logits=p)),
        LEVELS,
        r"event shape \(3,\)",
    ),
    "codes": (
        changed(Poisson, types=("categorical",)),
        LEVELS,
        r"a sample of Own: found torch.float64; expected the levels' codes",
    ),
    "levels": (
        changed(Poisson, types=("binary",)),
        BINARY,
        r"a sample of Own: found \[.*2.0.*\]; expected some of \[0, 1\]",
    ),
    "whole numbers": (
        changed(StudentT, types=("count",)),
        COUNT,
        r"a sample of Own: found -.* expected whole numbers of at",
    ),
    "normalisation": (
        changed(Normal, types=("continuous",), joined=Likelihood.joined, distribution=lambda self, p: Heavier(p)),
        REAL,
        r"Own.distribution: total probability: found a difference of 1; expected at most 0.001",
    ),
    "joined": (
        Skewed(),
        REAL,
        r"Skewed.joined: log_prob beside distribution's: found a difference of .*; expected at most",
    ),
    "overflow": (
        changed(Poisson, distribution=lambda self, p: dist.Poisson(p.squeeze(-1).exp(), validate_args=False)),
        COUNT,
        r"Own's log_prob at numbers of 10000: found 1 of 1 numbers infinite or NaN; expected finite ones",
    ),
}


class Heavier(dist.Normal):
    """Twice the density of a normal."""

    def __init__(self, params: Tensor) -> None:
        super().__init__(params[..., 0], params[..., 1].exp(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        found: Tensor = super().log_prob(value)
        return found + torch.tensor(2.0).log()


@pytest.mark.parametrize("name", BROKEN_LIKELIHOODS)
def test_a_broken_likelihood_is_caught(name: str) -> None:
    likelihood, node, message = BROKEN_LIKELIHOODS[name]
    with pytest.raises(AssertionError, match=message):
        check_likelihood(likelihood, node)


def test_a_mechanism_for_one_likelihood_is_checked_with_it() -> None:
    class Laplace(Likelihood):
        types = ("continuous",)

        def size(self, node: Node) -> int:
            return 1

        def distribution(self, params: Tensor) -> Any:
            return dist.Laplace(params[..., 0], 1.0)

    class Shift(Silent):
        def transform(self, clean: Any, theta: Tensor) -> Any:
            assert isinstance(clean, dist.Laplace), "needs a Laplace likelihood"
            return dist.Laplace(clean.loc + theta[..., 0], clean.scale)

    check_likelihood(Laplace(), REAL)
    check_mechanism(Shift(), REAL, Laplace())
    with pytest.raises(AssertionError, match="needs a Laplace likelihood"):
        check_mechanism(Shift(), REAL)


@pytest.mark.parametrize(("mechanism", "node"), [(Affine(), REAL), (Field(), IMAGE)])
def test_torch_is_left_as_it_was(mechanism: Mechanism, node: Node) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    check_mechanism(mechanism, node)
    check_likelihood(Bernoulli(), BINARY)
    check_likelihood(NegativeBinomial(), COUNT)
    check_likelihood(PixelNormal(), IMAGE)
    with pytest.raises(AssertionError):
        check_likelihood(Bernoulli(), COUNT)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32


def test_a_vector_is_checked_as_its_components_are() -> None:
    check_mechanism(Affine(), Node("x", "continuous", dim=3))
    check_mechanism(Rate(), Node("x", "count", dim=2))
    check_likelihood(Normal(), Node("x", "continuous", dim=3))


def test_a_guess_may_be_none_unless_it_always_is() -> None:
    class Guesses(Silent):
        guesses = True

        def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
            return x.mean().reshape(1) if x.std() > 0 else None

    check_mechanism(Silent(), REAL)
    check_mechanism(Guesses(), REAL)
