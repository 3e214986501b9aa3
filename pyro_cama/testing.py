"""Checks of what a mechanism and a likelihood have to hold, for classes of your own.

:func:`check_mechanism` and :func:`check_likelihood` raise an AssertionError that says what does not hold and by how
much; call them in a test, once for each type of node that the class serves.  They need no test framework.  All is
computed in float64 on the CPU, from a fixed seed, and torch's generator and default dtype are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import Likelihood, likelihood_of
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.networks.resampling import pixel_grid

_LEAD = (2, 3, 4)  # samples, classes, rows
_THETAS = 20
_TIGHT = 1e-8
_EXTREME = 1e4


def check_mechanism(mechanism: Mechanism, node: Node, likelihood: Likelihood | None = None) -> None:
    """Raises AssertionError unless a mechanism holds what training and adaptation rely on.

    - At theta = 0 it changes no bit of values (of pixels up to 20 units in the last place) nor of densities (of levels
      up to 1e-12, of pixels up to 1e-9).
    - ``invert`` undoes ``push``; where ``push`` is random, it draws from the distribution that ``transform`` gives.  Of
      levels, ``invert`` is the clean level's posterior; an image of 16 x 16 pixels or more comes back in its middle.
    - ``transform`` is the density by the change of variables where ``push`` is not random; densities integrate to 1,
      probabilities of levels and counts sum to 1.
    - theta of samples and rows broadcasts against distributions of samples, classes and rows, and values of rows.
    - Numbers of theta as large as 10,000 overflow nothing: values, log-densities and their gradients are finite.
    - ``simulate``, ``guess_from_moments``, ``alternatives``, ``prior_scale`` and ``describe`` return what they have to.
    - It can be compared and hashed, as nodes of equal mechanisms are computed together.

    Errors that the mechanism's own methods raise are passed on.

    Args:
        mechanism: an object of the class.
        node: a node that it serves; images should have at least 16 x 16 pixels.
        likelihood: of the node before the manipulation; the default is that of :func:`pyro_cama.build`.

    Raises:
        AssertionError: what does not hold, and by how much.

    Example:
        >>> from pyro_cama import Node
        >>> from pyro_cama.mechanisms import Affine
        >>> check_mechanism(Affine(), Node("voltage", "continuous"))
    """
    with _in_float64():
        _Mechanism(mechanism, node, likelihood or likelihood_of(node)).check()


def check_likelihood(likelihood: Likelihood, node: Node) -> None:
    """Raises AssertionError unless a likelihood holds what model and guide rely on.

    - ``size``, ``constants`` and ``bias`` agree.
    - ``distribution`` has the batch shape of its numbers and scalar events, and can be sampled; samples have finite
      log-probabilities; they are levels' codes or whole numbers where the node's type asks for them.
    - Densities integrate to 1, probabilities sum to 1 (of pixels this is not looked at: grey values have no support).
    - ``joined`` is the same distribution as ``distribution``.
    - Numbers as large as 10,000 overflow nothing: log-probabilities and their gradients are finite.
    - It can be compared and hashed, as nodes of equal likelihoods are computed together.

    Errors that the likelihood's own methods raise are passed on.

    Args:
        likelihood: an object of the class.
        node: a node that it serves.

    Raises:
        AssertionError: what does not hold, and by how much.

    Example:
        >>> from pyro_cama import Node
        >>> from pyro_cama.likelihoods import Poisson
        >>> check_likelihood(Poisson(), Node("visits", "count"))
    """
    with _in_float64():
        _Likelihood(likelihood, node).check()


class _Likelihood:
    """The checks of one likelihood, which share its numbers."""

    def __init__(self, likelihood: Likelihood, node: Node) -> None:
        self.likelihood = likelihood
        self.node = node
        self.name = type(likelihood).__name__

    def check(self) -> None:
        """Runs all checks."""
        _expect_serves(self.name, self.likelihood.types, self.node)
        _expect_hashable(self.name, self.likelihood)
        self.numbers()
        self.distribution()
        self.normalisation()
        self.joined()
        self.extremes()

    def params(self, *lead: int) -> Tensor:
        """Draws numbers about the bias, ``(*lead, size)``."""
        return self.likelihood.bias(self.node).double() + 0.5 * torch.randn(*lead, self.likelihood.size(self.node))

    def numbers(self) -> None:
        """Checks that size, constants and bias agree."""
        size, constants = self.likelihood.size(self.node), self.likelihood.constants
        whole = isinstance(size, int) and size > 0
        _expect(whole, f"{self.name}.size: found {size!r}; expected a whole number above 0")
        _expect(
            0 <= constants < size,
            f"{self.name}.constants: found {constants} of {size} numbers; expected some that depend on the causes",
        )
        bias = self.likelihood.bias(self.node)
        _expect_shape(f"{self.name}.bias", bias, (size,))
        _expect_finite(f"{self.name}.bias", bias)

    def distribution(self) -> None:
        """Checks shapes of the distribution and its samples, and that these have finite log-probabilities."""
        found = self.likelihood.distribution(self.params(*_LEAD))
        _expect(
            tuple(found.batch_shape) == _LEAD and tuple(found.event_shape) == (),
            f"{self.name}.distribution of numbers {(*_LEAD, self.likelihood.size(self.node))}: found batch shape "
            f"{tuple(found.batch_shape)} and event shape {tuple(found.event_shape)}; expected {_LEAD} and ()",
        )
        x = found.sample(torch.Size([5]))
        _expect_shape(f"a sample of {self.name}", x, (5, *_LEAD))
        _expect_values(f"a sample of {self.name}", x, self.node)
        _expect_shape(f"{self.name}'s log_prob", found.log_prob(x), (5, *_LEAD))
        _expect_finite(f"{self.name}'s log_prob of its samples", found.log_prob(x))

    def normalisation(self) -> None:
        """Checks that the total probability is 1."""
        if self.node.type != "image":
            _expect_normalised(f"{self.name}.distribution", self.likelihood.distribution(self.params(3)), self.node)

    def joined(self) -> None:
        """Compares what is joined with the distribution of numbers side by side."""
        constants = self.likelihood.constants
        if not constants:
            return
        free, other = self.params(*_LEAD)[..., :-constants], self.params(_LEAD[-1])[..., -constants:]
        whole = self.likelihood.distribution(torch.cat([free, other.expand(*_LEAD, constants)], -1))
        x = whole.sample()
        found = self.likelihood.joined(free, other)
        _expect_close(
            f"{self.name}.joined: log_prob beside distribution's", found.log_prob(x), whole.log_prob(x), _TIGHT
        )

    def extremes(self) -> None:
        """Checks that very large numbers overflow nothing."""
        size = self.likelihood.size(self.node)
        x = self.likelihood.distribution(self.params(1)).sample()
        for sign in (torch.ones(size), -torch.ones(size), torch.randn(8, size).sign()):
            params = (_EXTREME * sign).requires_grad_(True)
            _expect_smooth(f"{self.name}'s log_prob", lambda p: self.likelihood.distribution(p).log_prob(x), params)


class _Mechanism:
    """The checks of one mechanism, which share values, distributions and thetas."""

    def __init__(self, mechanism: Mechanism, node: Node, likelihood: Likelihood) -> None:
        self.mechanism = mechanism
        self.node = node
        self.likelihood = likelihood
        self.name = type(mechanism).__name__
        self.pushes = type(mechanism).push is not Mechanism.push

    def check(self) -> None:
        """Runs all checks."""
        _expect_serves(self.name, self.mechanism.types, self.node)
        _expect_hashable(self.name, self.mechanism)
        self.numbers()
        self.identity()
        if not self.mechanism.size(self.node):
            return
        for theta in self.kinds_of_thetas():
            self.inverse(theta)
            self.density(theta)
        self.broadcasting()
        self.extremes()
        self.simulation()
        self.guess()
        self.words()

    # what the checks are made on

    @property
    def image(self) -> bool:
        """Whether the node is an image."""
        return self.node.type == "image"

    @property
    def discrete(self) -> bool:
        """Whether the node has levels."""
        return self.node.type in ("categorical", "binary")

    @property
    def levels(self) -> int:
        """The number of levels."""
        return self.node.classes or 2

    @property
    def event(self) -> tuple[int, ...]:
        """What of the batch shape belongs to one component: an image is one."""
        return self.node.event_shape if self.image else ()

    def clean(self, *lead: int) -> TorchDistribution:
        """Draws a distribution before the manipulation, batch shape ``(*lead, *event)``."""
        shape = (*lead, *self.event, self.likelihood.size(self.node))
        params = self.likelihood.bias(self.node).double() + 0.5 * torch.randn(shape)
        return self.likelihood.distribution(params)

    def values(self, rows: int) -> Tensor:
        """Clean values, ``(rows, *event)``, the usual ones of a standardised column."""
        if self.image:
            return _blobs(rows, self.event)
        if self.discrete:
            codes = torch.arange(rows) % self.levels
            return codes if self.node.type == "categorical" else codes.double()
        return torch.linspace(-2, 2, rows) if self.node.type == "continuous" else torch.arange(rows).double()

    def thetas(self, *lead: int) -> Tensor:
        """Draws usual thetas, ``(*lead, size)``: of the prior's scale, switches left at rest."""
        scale = self.mechanism.prior_scale(self.node).double()
        return torch.randn(*lead, len(scale)) * scale.where(scale.isfinite(), 0.0)

    def kinds_of_thetas(self) -> list[Tensor]:
        """Draws ``(n, size)`` of usual thetas and, where it has them, of simulated ones: these may be without noise."""
        simulated = [self.mechanism.simulate((_THETAS,), self.node, 1.0).double()] if self.mechanism.simulates else []
        return [self.thetas(_THETAS), *simulated]

    @property
    def frequencies(self) -> Tensor | None:
        """Frequencies of the levels in the training rows, ``(levels,)``; None where there are none."""
        return torch.softmax(torch.linspace(-0.5, 0.5, self.levels), 0) if self.discrete else None

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Statistics of the training rows, as a mechanism is given them."""
        frequencies = self.frequencies
        if frequencies is not None:
            return {"frequencies": frequencies}
        mean, sd = (0.3, 0.2) if self.image else (0.0, 1.0) if self.node.type == "continuous" else (3.0, 2.0)
        return {"mean": torch.tensor(mean), "sd": torch.tensor(sd)}

    # the checks

    def numbers(self) -> None:
        """Checks size and prior scale."""
        size = self.mechanism.size(self.node)
        _expect(isinstance(size, int) and size >= 0, f"{self.name}.size: found {size!r}; expected a whole number")
        scale = self.mechanism.prior_scale(self.node)
        _expect_shape(f"{self.name}.prior_scale", scale, (size,))
        _expect(bool((scale > 0).all()), f"{self.name}.prior_scale: found {scale.tolist()}; expected numbers above 0")

    def identity(self) -> None:
        """Checks that theta = 0 changes nothing."""
        x, clean, size = self.values(8), self.clean(8), self.mechanism.size(self.node)
        seen = clean.sample()
        exact = 20 * torch.finfo(torch.float64).eps if self.image else 0.0
        for zero in (torch.zeros(size), -torch.zeros(size), torch.zeros(8, size)):
            if self.pushes:
                _expect_close(f"{self.name}.push at theta = 0", self.mechanism.push(x, zero), x, exact)
            back = self.mechanism.invert(x, zero, self.frequencies)
            same = x
            if self.node.type == "categorical" and size:
                same = torch.nn.functional.one_hot(x, self.levels).double()
            _expect_close(f"{self.name}.invert at theta = 0", back, same, exact)
            found, expected = self.mechanism.transform(clean, zero).log_prob(seen), clean.log_prob(seen)
            loose = 1e-12 if self.discrete else 1e-9 if self.image else 0.0
            _expect_close(f"{self.name}.transform at theta = 0: log_prob", found, expected, loose)

    def inverse(self, theta: Tensor) -> None:
        """Checks that what is pushed comes back or, where that is random, has the right distribution."""
        if self.discrete:
            self._posterior(theta)
            return
        if not self.pushes:
            return
        if self.image:
            self._comes_back(_blobs(_THETAS, self.event), theta)
            return
        x = self.values(30).expand(_THETAS, 30)
        pushed = self.mechanism.push(x, theta[:, None])
        if not torch.equal(self.mechanism.push(x, theta[:, None]), pushed):
            self._draws(theta)
            return
        back = self.mechanism.invert(pushed, theta[:, None], None)
        if self.node.type == "continuous":
            _expect_close(f"{self.name}: invert(push(x)) beside x", back, x, _TIGHT)
        else:
            _expect_values(f"{self.name}.push", pushed, self.node)
            again = self.mechanism.push(back, theta[:, None])
            _expect_close(f"{self.name}: push(invert(push(x))) beside push(x)", again, pushed, 0.0)

    def density(self, theta: Tensor) -> None:
        """Checks transform's density."""
        if self.image:
            found = self.mechanism.transform(self.clean(_THETAS), theta)
            _expect_shape(f"{self.name}.transform's mean", found.mean, (_THETAS, *self.event))
            _expect_finite(f"{self.name}.transform: log_prob", found.log_prob(_blobs(_THETAS, self.event)))
            return
        clean = self.clean(_THETAS)
        moved = self.mechanism.transform(clean, theta)
        _expect_normalised(f"{self.name}.transform", moved, self.node)
        if self.node.type != "continuous":
            return
        self._change_of_variables(moved, clean, theta, (theta,))
        if self.mechanism.composes:
            second = theta.flip(0)
            self._change_of_variables(self.mechanism.transform(moved, second), clean, theta, (second, theta))

    def broadcasting(self) -> None:
        """Checks shapes under samples, classes and rows, and that a row's clean value is its own."""
        samples, _, rows = _LEAD
        theta, x, clean = self.thetas(samples, 1, rows), self.values(rows), self.clean(*_LEAD)
        found = self.mechanism.transform(clean, theta)
        shape = (*_LEAD, *self.event)
        _expect(
            tuple(found.batch_shape) == shape,
            f"{self.name}.transform of {shape} by theta {tuple(theta.shape)}: found batch shape "
            f"{tuple(found.batch_shape)}; expected {shape}",
        )
        back = self.mechanism.invert(x, theta, self.frequencies)
        last = (self.levels,) if self.node.type == "categorical" else ()
        lead = (samples, 1, rows, *self.event)
        _expect_shape(f"{self.name}.invert of {tuple(x.shape)} by theta {tuple(theta.shape)}", back, (*lead, *last))
        for s in range(samples):
            for r in range(rows):
                one = self.mechanism.invert(x[r], theta[s, 0, r], self.frequencies)
                _expect_close(f"{self.name}.invert of all rows beside one", back[s, 0, r], one, _TIGHT)
        if self.pushes:
            pushed = self.mechanism.push(x.expand(samples, 1, rows, *self.event), theta)
            _expect_shape(f"{self.name}.push", pushed, lead)

    def extremes(self) -> None:
        """Checks that very large numbers overflow nothing."""
        size, x = self.mechanism.size(self.node), self.values(2)[1:]
        clean = self.clean(1)
        for sign in (torch.ones(1, size), -torch.ones(1, size), torch.randn(8, size).sign()):
            theta = _EXTREME * sign
            actions: dict[str, Callable[[Tensor], Tensor]] = {
                "transform's log_prob": lambda t: self.mechanism.transform(clean, t).log_prob(x),
                "invert": lambda t: self.mechanism.invert(x.expand(len(t), *x.shape[1:]), t, self.frequencies),
            }
            for name, action in actions.items():
                _expect_smooth(f"{self.name}: {name}", action, theta.clone().requires_grad_(True))
            if self.pushes:
                _expect_finite(
                    f"{self.name}.push at theta of {_EXTREME:g}",
                    self.mechanism.push(x.expand(len(theta), *x.shape[1:]), theta).double(),
                )

    def simulation(self) -> None:
        """Checks simulated thetas, and what they do to values."""
        if not self.mechanism.simulates:
            return
        size = self.mechanism.size(self.node)
        theta = self.mechanism.simulate((3, 2), self.node, 1.0)
        _expect_shape(f"{self.name}.simulate((3, 2), node, 1.0)", theta, (3, 2, size))
        _expect_finite(f"{self.name}.simulate", theta)
        still = self.mechanism.simulate((50,), self.node, 0.0)
        _expect(not still.any(), f"{self.name}.simulate at scale 0: found {float(still.abs().max()):g}; expected zeros")
        x = self.values(6)
        pushed = self.mechanism.push(x, self.mechanism.simulate((6,), self.node, 1.0).double())
        _expect_shape(f"{self.name}.push", pushed, tuple(x.shape))
        _expect(pushed.dtype == x.dtype, f"{self.name}.push of {x.dtype}: found {pushed.dtype}; expected the same")
        _expect_values(f"{self.name}.push", pushed, self.node)

    def guess(self) -> None:
        """Checks first guesses and alternatives."""
        size, x = self.mechanism.size(self.node), self.values(12)
        x = x.flatten() if self.image else x
        for name, values in (("usual", x), ("constant", x[-1:].expand(5))):
            found = self.mechanism.guess_from_moments(values, self.statistics)
            if found is not None:
                _expect_shape(f"{self.name}.guess_from_moments of {name} values", found, (size,))
                _expect_finite(f"{self.name}.guess_from_moments of {name} values", found)
            elif self.mechanism.guesses and name == "usual":
                raise AssertionError(
                    f"{self.name} declares guesses = True: guess_from_moments of usual values found None"
                )
        for theta in (torch.zeros(size), self.thetas(1)[0]):
            for other in self.mechanism.alternatives(theta, self.statistics):
                _expect_shape(f"{self.name}.alternatives: one of them", other, (size,))
                _expect_finite(f"{self.name}.alternatives", other)

    def words(self) -> None:
        """Checks what a theta is said to do."""
        size = self.mechanism.size(self.node)
        for theta in (torch.zeros(size), *self.thetas(5)):
            found = self.mechanism.describe(theta, self.node, self.statistics)
            _expect("change" in found, f"{self.name}.describe: found {sorted(found)}; expected a number named 'change'")
            bad = [name for name, value in found.items() if not isfinite(value)]
            _expect(not bad, f"{self.name}.describe: found {bad} not finite; expected numbers")
            change, at, more = found["change"], "", " or more"
            if not theta.any():
                at, more = " at theta = 0", ""
            _expect(
                change == 0 or (change > 0 and bool(more)),
                f"{self.name}.describe{at}: found a change of {change:g}; expected 0{more}",
            )

    # parts of checks

    def _change_of_variables(
        self, moved: TorchDistribution, clean: TorchDistribution, theta: Tensor, undone: tuple[Tensor, ...]
    ) -> None:
        """Compares log p(x) with log p(T^-1(x)) + log |d T^-1(x) / dx|, where T is not random."""
        if self.pushes:
            x = self.values(_THETAS)
            if not torch.equal(self.mechanism.push(x, theta), self.mechanism.push(x, theta)):
                return
        x = moved.sample().detach().requires_grad_(True)
        back = x
        for own in undone:
            back = self.mechanism.invert(back, own, None)
        (slope,) = torch.autograd.grad(back.sum(), x)
        expected = clean.log_prob(back) + slope.abs().log()
        hint = "" if self.pushes else " (a T that is random needs a push)"
        twice = " applied twice" if len(undone) > 1 else ""
        what = f"{self.name}.transform{twice}: log_prob beside the change of variables by invert{hint}"
        _expect_close(what, moved.log_prob(x), expected, 1e-6)

    def _draws(self, theta: Tensor) -> None:
        """Compares what a random push draws with the distribution: shares below its quantiles."""
        draws = 4000
        clean = self.clean(len(theta))
        pushed = self.mechanism.push(clean.sample(torch.Size([draws])), theta)
        expected = self.mechanism.transform(clean, theta).sample(torch.Size([draws]))
        for q in (0.1, 0.5, 0.9):
            share = (pushed <= expected.quantile(q, 0)).double().mean(0)
            _expect_close(f"{self.name}: share of pushed values below transform's quantile {q}", share, q, 0.06)

    def _posterior(self, theta: Tensor) -> None:
        """Compares ``invert`` with Bayes' rule by the channel p(x | x~) that ``transform`` tells, and push's draws."""
        prior, levels = self.frequencies, self.levels
        assert prior is not None
        codes = torch.arange(levels)
        x = codes if self.node.type == "categorical" else codes.double()
        sure = torch.eye(levels).mul(1 - 2e-9).add(1e-9)
        logits = sure.log() if self.node.type == "categorical" else torch.logit(sure[:, 1:])
        clean = self.likelihood.distribution(logits.expand(_THETAS, *logits.shape))
        moved = self.mechanism.transform(clean, theta[:, None])
        channel = torch.stack([moved.log_prob(x[j]).exp() for j in range(levels)], -1)  # (thetas, clean, seen)
        joint = channel * prior[:, None]
        expected = (joint / joint.sum(-2, keepdim=True)).mT  # (thetas, seen, clean)
        back = self.mechanism.invert(x, theta[:, None], prior)
        _expect_close(
            f"{self.name}.invert beside the posterior of the clean level",
            back,
            expected if self.node.type == "categorical" else expected[..., 1],
            1e-4,
        )
        if self.pushes:
            draws = 4000
            pushed = self.mechanism.push(x.expand(draws, _THETAS, levels), theta[:, None])
            _expect_values(f"{self.name}.push", pushed, self.node)
            share = torch.stack([(pushed == x[j]).double().mean(0) for j in range(levels)], -1)
            _expect_close(
                f"{self.name}: shares of pushed levels beside transform's probabilities", share, channel, 0.06
            )

    def _comes_back(self, x: Tensor, theta: Tensor) -> None:
        """Compares an image with what comes back, in its middle: interpolated twice, edges may be lost."""
        height, width = self.event[-2:]
        theta = 0.4 * theta
        pushed = self.mechanism.push(x, theta)
        back = self.mechanism.invert(pushed, theta, None)
        _expect_shape(f"{self.name}.push", pushed, tuple(x.shape))
        _expect_shape(f"{self.name}.invert", back, tuple(x.shape))
        if min(height, width) < 16:
            return
        middle = (..., slice(height // 3, -(height // 3)), slice(width // 3, -(width // 3)))
        gap = (back - x)[middle].abs().mean()
        away = (pushed - x)[middle].abs().mean()
        _expect(
            bool(gap <= 0.5 * away),
            f"{self.name}: invert(push(image)) beside the image: found a difference of {float(gap):.3g} in its middle, "
            f"where push made one of {float(away):.3g}; expected at most half of that",
        )


@contextmanager
def _in_float64() -> Iterator[None]:
    """Inside, float64 is the default and the generator begins at a fixed seed; after it both are as they were."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _blobs(rows: int, shape: tuple[int, ...]) -> Tensor:
    """Draws images of three wide blobs in the middle of each channel, ``(rows, *shape)``, in [0, 1]."""
    at = pixel_grid(torch.zeros(shape))
    centres = 0.4 * torch.rand(rows, shape[0], 3, 2) - 0.2
    distance = (at - centres[..., None, None, :]).square().sum(-1)
    return (-distance / (2 * 0.2**2)).exp().sum(2) / 3


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _expect_serves(name: str, types: tuple[str, ...], node: Node) -> None:
    _expect(node.type in types, f"{name} serves {', '.join(types)}: found a node of type {node.type}")


def _expect_hashable(name: str, thing: object) -> None:
    try:
        hash(thing)
    except TypeError as error:
        raise AssertionError(f"{name}: {error}; expected attributes that can be hashed (numbers, tuples)") from error
    _expect(thing == thing, f"{name} is not equal to itself")  # by its own __eq__


def _expect_shape(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    _expect(tuple(found.shape) == shape, f"{what}: found shape {tuple(found.shape)}; expected {shape}")


def _expect_finite(what: str, found: Tensor) -> None:
    bad = int((~found.isfinite()).sum())
    _expect(not bad, f"{what}: found {bad} of {found.numel()} numbers infinite or NaN; expected finite ones")


def _expect_close(what: str, found: Tensor, expected: Tensor | float, tolerance: float) -> None:
    """Compares to a tolerance on ``|found - expected| / max(1, |expected|)``; 0: to the last bit."""
    expected = torch.as_tensor(expected)
    if expected.dim():
        _expect_shape(what, found, tuple(expected.shape))
    gap = float(((found.detach() - expected.detach()).abs() / expected.detach().abs().clamp_min(1)).max())
    allowed = "the same to the last bit" if tolerance == 0 else f"at most {tolerance:.3g}"
    _expect(gap <= tolerance, f"{what}: found a difference of {gap:.3g}; expected {allowed}")


def _expect_smooth(what: str, action: Callable[[Tensor], Tensor], numbers: Tensor) -> None:
    """Raises unless what comes of numbers, and its gradient by them, is finite."""
    at = f"{what} at numbers of {float(numbers.detach().abs().max()):g}"
    found = action(numbers)
    _expect_finite(at, found)
    if found.requires_grad:
        (slope,) = torch.autograd.grad(found.sum(), numbers, allow_unused=True)
        if slope is not None:
            _expect_finite(f"the gradient of {at}", slope)


def _expect_values(what: str, x: Tensor, node: Node) -> None:
    """Raises unless values are what a node of this type may take."""
    if node.type == "categorical":
        _expect(not x.is_floating_point(), f"{what}: found {x.dtype}; expected the levels' codes, whole numbers")
    if node.type in ("categorical", "binary"):
        known = range(node.classes or 2)
        _expect(
            set(x.unique().tolist()) <= set(known), f"{what}: found {x.unique().tolist()}; expected some of {[*known]}"
        )
    elif node.type == "count":
        whole = bool(((x >= 0) & (x == x.round())).all())
        _expect(whole, f"{what}: found {float(x.min()):g} to {float(x.max()):g}; expected whole numbers of at least 0")
    else:
        _expect_finite(what, x)


def _expect_normalised(what: str, found: TorchDistribution, node: Node) -> None:
    """Raises unless a density integrates to 1, or probabilities sum to 1; of a batch ``(n,)``."""
    if node.type == "continuous":
        u = torch.linspace(-14.0, 14.0, 40_001)[:, None]  # x = sinh(u): fine in the middle, and the far tails
        total = torch.trapezoid(found.log_prob(u.sinh()).exp() * u.cosh(), u, dim=0)
    elif node.type == "count":
        total = found.log_prob(torch.arange(20_000.0)[:, None]).exp().sum(0)
    else:
        codes = torch.arange(node.classes or 2)[:, None]
        total = found.log_prob(codes if node.type == "categorical" else codes.double()).exp().sum(0)
    _expect_close(f"{what}: total probability", total, 1.0, 1e-3)
