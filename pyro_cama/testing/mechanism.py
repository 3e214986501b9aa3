"""The contract of a mechanism, as a check."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, log

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import Likelihood, likelihood_of
from pyro_cama.mechanisms.base import Mechanism, Readings
from pyro_cama.networks.resampling import pixel_grid
from pyro_cama.testing.expectations import (
    expect_close,
    expect_finite,
    expect_hashable,
    expect_holds,
    expect_normalised,
    expect_serves,
    expect_shape,
    expect_smooth,
    expect_values,
    in_float64,
)

_LEAD = (2, 3, 4)  # samples, classes, rows
_THETAS = 20
_TIGHT = 1e-8
_EXTREME = 1e4
_ALTERNATIVES = 64


def check_mechanism(mechanism: Mechanism, node: Node, likelihood: Likelihood | None = None) -> None:
    """Raises AssertionError unless a mechanism holds what training and adaptation rely on.

    - At theta = 0 it changes no bit of values (of pixels up to 20 units in the last place) nor of densities (of levels
      up to 1e-12, of pixels up to 1e-9).
    - ``invert`` undoes ``push``; where ``push`` is random, it draws from the distribution that ``transform`` gives.  Of
      levels, ``invert`` is the clean level's posterior; an image of 16 x 16 pixels or more comes back in its middle,
      or nearer to what it was where ``push`` is random.
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
    with in_float64():
        _MechanismChecks(mechanism, node, likelihood or likelihood_of(node)).check()


class _MechanismChecks:
    """The checks of one mechanism, which share values, distributions and thetas."""

    def __init__(self, mechanism: Mechanism, node: Node, likelihood: Likelihood) -> None:
        self.mechanism = mechanism
        self.node = node
        self.likelihood = likelihood
        self.name = type(mechanism).__name__
        self.pushes = type(mechanism).push is not Mechanism.push

    def check(self) -> None:
        """Runs all checks."""
        expect_serves(self.name, self.mechanism.types, self.node)
        expect_hashable(self.name, self.mechanism)
        self.numbers()
        self.identity()
        if not self.mechanism.size(self.node):
            return
        for theta in self.kinds_of_thetas():
            self.inverse(theta)
            self.density(theta)
            self.pull_back(theta)
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
        params = self.likelihood.start(self.node, {}).double() + 0.5 * torch.randn(shape)
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

    def readings(self, theta: Tensor) -> Readings:
        """Values of a component as theta's world measures them, beside four draws of equal weight."""
        x, clean = self.values(_THETAS), self.clean(4, _THETAS)
        return Readings(x, clean, -self.mechanism.transform(clean, theta).log_prob(x) - log(4))

    # the checks

    def numbers(self) -> None:
        """Checks size and prior scale."""
        size = self.mechanism.size(self.node)
        expect_holds(isinstance(size, int) and size >= 0, f"{self.name}.size: found {size!r}; expected a whole number")
        scale = self.mechanism.prior_scale(self.node)
        expect_shape(f"{self.name}.prior_scale", scale, (size,))
        expect_holds(
            bool((scale > 0).all()), f"{self.name}.prior_scale: found {scale.tolist()}; expected numbers above 0"
        )

    def identity(self) -> None:
        """Checks that theta = 0 changes nothing."""
        x, clean, size = self.values(8), self.clean(8), self.mechanism.size(self.node)
        seen = clean.sample()
        exact = 20 * torch.finfo(torch.float64).eps if self.image else 0.0
        for zero in (torch.zeros(size), -torch.zeros(size), torch.zeros(8, size)):
            if self.pushes:
                expect_close(f"{self.name}.push at theta = 0", self.mechanism.push(x, zero), x, exact)
            back = self.mechanism.invert(x, zero, self.frequencies)
            same = x
            if self.node.type == "categorical" and size:
                same = torch.nn.functional.one_hot(x, self.levels).double()
            expect_close(f"{self.name}.invert at theta = 0", back, same, exact)
            found, expected = self.mechanism.transform(clean, zero).log_prob(seen), clean.log_prob(seen)
            loose = 1e-12 if self.discrete else 1e-9 if self.image else 0.0
            expect_close(f"{self.name}.transform at theta = 0: log_prob", found, expected, loose)

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
        if self._draws_anew(x, theta[:, None]):
            self._draws(theta)
            return
        back = self.mechanism.invert(pushed, theta[:, None], None)
        if self.node.type == "continuous":
            expect_close(f"{self.name}: invert(push(x)) beside x", back, x, _TIGHT)
        else:
            expect_values(f"{self.name}.push", pushed, self.node)
            again = self.mechanism.push(back, theta[:, None])
            expect_close(f"{self.name}: push(invert(push(x))) beside push(x)", again, pushed, 0.0)

    def density(self, theta: Tensor) -> None:
        """Checks transform's density."""
        if self.image:
            found = self.mechanism.transform(self.clean(_THETAS), theta)
            expect_shape(f"{self.name}.transform's mean", found.mean, (_THETAS, *self.event))
            expect_finite(f"{self.name}.transform: log_prob", found.log_prob(_blobs(_THETAS, self.event)))
            return
        clean = self.clean(_THETAS)
        moved = self.mechanism.transform(clean, theta)
        expect_normalised(f"{self.name}.transform", moved, self.node)
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
        expect_holds(
            tuple(found.batch_shape) == shape,
            f"{self.name}.transform of {shape} by theta {tuple(theta.shape)}: found batch shape "
            f"{tuple(found.batch_shape)}; expected {shape}",
        )
        back = self.mechanism.invert(x, theta, self.frequencies)
        last = (self.levels,) if self.node.type == "categorical" else ()
        lead = (samples, 1, rows, *self.event)
        expect_shape(f"{self.name}.invert of {tuple(x.shape)} by theta {tuple(theta.shape)}", back, (*lead, *last))
        for s in range(samples):
            for r in range(rows):
                one = self.mechanism.invert(x[r], theta[s, 0, r], self.frequencies)
                expect_close(f"{self.name}.invert of all rows beside one", back[s, 0, r], one, _TIGHT)
        if self.pushes:
            pushed = self.mechanism.push(x.expand(samples, 1, rows, *self.event), theta)
            expect_shape(f"{self.name}.push", pushed, lead)

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
                expect_smooth(f"{self.name}: {name}", action, theta.clone().requires_grad_(True))
            if self.pushes:
                expect_finite(
                    f"{self.name}.push at theta of {_EXTREME:g}",
                    self.mechanism.push(x.expand(len(theta), *x.shape[1:]), theta).double(),
                )

    def simulation(self) -> None:
        """Checks simulated thetas, and what they do to values."""
        if not self.mechanism.simulates:
            return
        size = self.mechanism.size(self.node)
        theta = self.mechanism.simulate((3, 2), self.node, 1.0)
        expect_shape(f"{self.name}.simulate((3, 2), node, 1.0)", theta, (3, 2, size))
        expect_finite(f"{self.name}.simulate", theta)
        still = self.mechanism.simulate((50,), self.node, 0.0)
        expect_holds(
            not still.any(), f"{self.name}.simulate at scale 0: found {float(still.abs().max()):g}; expected zeros"
        )
        x = self.values(6)
        pushed = self.mechanism.push(x, self.mechanism.simulate((6,), self.node, 1.0).double())
        expect_shape(f"{self.name}.push", pushed, tuple(x.shape))
        expect_holds(pushed.dtype == x.dtype, f"{self.name}.push of {x.dtype}: found {pushed.dtype}; expected the same")
        expect_values(f"{self.name}.push", pushed, self.node)

    def pull_back(self, theta: Tensor) -> None:
        """Checks that readings on the clean scale have the density of the transformed normal, and even numbers."""
        even = self.mechanism.even(self.node)
        expect_shape(f"{self.name}.even", even, (self.mechanism.size(self.node),))
        if not self.mechanism.pulls_back:
            return
        clean = dist.Normal(torch.randn(len(theta)).double(), torch.rand(len(theta)).double() + 0.5)
        x = self.mechanism.transform(clean, theta).sample()
        turned = torch.where(even, -theta, theta)
        if self.mechanism.linear:
            line, told = self.mechanism.line(theta), self.mechanism.pull_back(x, theta)
            named = {"x": line.slope * x + line.offset, "log_slope": line.log_slope, "variance": line.variance}
            for name, value in named.items():
                expect_close(f"{self.name}.line, linear = True: {name} of pull_back", value, getattr(told, name), 1e-8)
            expect_close(f"{self.name}.line: log of |slope|", line.slope.abs().log(), line.log_slope, 1e-8)
        for name, asked in (("theta", theta), ("theta, the signs of its even numbers turned", turned)):
            found = self.mechanism.pull_back(x, theta)
            widened = dist.Normal(clean.loc, (clean.scale.square() + found.variance).sqrt())
            expect_close(
                f"{self.name}.pull_back: log density of a normal's readings by {name}",
                widened.log_prob(found.x) + found.log_slope,
                self.mechanism.transform(clean, asked).log_prob(x),
                1e-8,
            )

    def guess(self) -> None:
        """Checks first guesses and alternatives."""
        size, x = self.mechanism.size(self.node), self.values(12)
        x = x.flatten() if self.image else x
        for name, values in (("usual", x), ("constant", x[-1:].expand(5))):
            found = self.mechanism.guess_from_moments(values, self.statistics)
            if found is not None:
                expect_shape(f"{self.name}.guess_from_moments of {name} values", found, (size,))
                expect_finite(f"{self.name}.guess_from_moments of {name} values", found)
            elif self.mechanism.guesses and name == "usual":
                raise AssertionError(
                    f"{self.name} declares guesses = True: guess_from_moments of usual values found None"
                )
        for theta in (torch.zeros(size), self.thetas(1)[0]):
            for readings in (None,) if self.image else (None, self.readings(theta)):
                for number, other in enumerate(self.mechanism.alternatives(theta, self.statistics, readings), 1):
                    expect_shape(f"{self.name}.alternatives: one of them", other, (size,))
                    expect_finite(f"{self.name}.alternatives", other)
                    expect_holds(
                        number <= _ALTERNATIVES,
                        f"{self.name}.alternatives: found more than {_ALTERNATIVES}; expected the few that suit the "
                        "readings best, since each is scored",
                    )

    def words(self) -> None:
        """Checks what a theta is said to do."""
        size = self.mechanism.size(self.node)
        for theta in (torch.zeros(size), *self.thetas(5)):
            found = self.mechanism.describe(theta, self.node, self.statistics)
            expect_holds(
                "change" in found, f"{self.name}.describe: found {sorted(found)}; expected a number named 'change'"
            )
            bad = [name for name, value in found.items() if not isfinite(value)]
            expect_holds(not bad, f"{self.name}.describe: found {bad} not finite; expected numbers")
            for name, value in found.items():
                low, high = self.mechanism.range_of(name)
                expect_holds(
                    low <= value <= high or name == "change",
                    f"{self.name}.describe: found {name!r} at {value:g}; expected {low:g} to {high:g}, its range_of",
                )
            change, at, more = found["change"], "", " or more"
            if not theta.any():
                at, more = " at theta = 0", ""
            expect_holds(
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
            if self._draws_anew(x, theta):
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
        expect_close(what, moved.log_prob(x), expected, 1e-6)

    def _draws_anew(self, x: Tensor, theta: Tensor) -> bool:
        """Whether push is random: the same values come out otherwise when it is called again."""
        return not torch.equal(self.mechanism.push(x, theta), self.mechanism.push(x, theta))

    def _draws(self, theta: Tensor) -> None:
        """Compares what a random push draws with the distribution: shares below its quantiles."""
        draws = 4000
        clean = self.clean(len(theta))
        pushed = self.mechanism.push(clean.sample(torch.Size([draws])), theta)
        expected = self.mechanism.transform(clean, theta).sample(torch.Size([draws]))
        for q in (0.1, 0.5, 0.9):
            share = (pushed <= expected.quantile(q, 0)).double().mean(0)
            expect_close(f"{self.name}: share of pushed values below transform's quantile {q}", share, q, 0.06)

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
        expect_close(
            f"{self.name}.invert beside the posterior of the clean level",
            back,
            expected if self.node.type == "categorical" else expected[..., 1],
            1e-4,
        )
        if self.pushes:
            draws = 4000
            pushed = self.mechanism.push(x.expand(draws, _THETAS, levels), theta[:, None])
            expect_values(f"{self.name}.push", pushed, self.node)
            share = torch.stack([(pushed == x[j]).double().mean(0) for j in range(levels)], -1)
            expect_close(f"{self.name}: shares of pushed levels beside transform's probabilities", share, channel, 0.06)

    def _comes_back(self, x: Tensor, theta: Tensor) -> None:
        """Compares an image with what comes back, in its middle: interpolated twice, edges may be lost."""
        height, width = self.event[-2:]
        theta = 0.4 * theta
        pushed = self.mechanism.push(x, theta)
        back = self.mechanism.invert(pushed, theta, None)
        expect_shape(f"{self.name}.push", pushed, tuple(x.shape))
        expect_shape(f"{self.name}.invert", back, tuple(x.shape))
        if min(height, width) < 16:
            return
        middle = (..., slice(height // 3, -(height // 3)), slice(width // 3, -(width // 3)))
        gap = (back - x)[middle].abs().mean()
        away = (pushed - x)[middle].abs().mean()
        draws = self._draws_anew(x, theta)  # is estimated, not undone
        most, said = (1.0, "no more") if draws else (0.5, "at most half of that")
        expect_holds(
            bool(gap <= most * away),
            f"{self.name}: invert(push(image)) beside the image: found a difference of {float(gap):.3g} in its middle, "
            f"where push made one of {float(away):.3g}; expected {said}",
        )


def _blobs(rows: int, shape: tuple[int, ...]) -> Tensor:
    """Draws images of three wide blobs in the middle of each channel, ``(rows, *shape)``, in [0, 1]."""
    at = pixel_grid(torch.zeros(shape))
    centres = 0.4 * torch.rand(rows, shape[0], 3, 2) - 0.2
    distance = (at - centres[..., None, None, :]).square().sum(-1)
    return (-distance / (2 * 0.2**2)).exp().sum(2) / 3
