"""Monotone: any increasing recalibration of a continuous child (a mechanism of the library, not of the paper).

A gain and an offset say how an instrument's line has moved; here the line is bent besides, so that it may read too high
at one end and too low at the other.  The log of the bend's slope is a line between knots, which makes the bend smooth,
its inverse and density closed forms, and theta = 0 the identity to the last bit.  (Splines of Pyro's keep their slopes
a thousandth off 0 and look knots up with a tolerance, so that they are the identity nowhere.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.data.scales import off_scale
from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Clean, Line, Mechanism, Readings, bounded

KNOTS = (0.75, 1.5, 2.5)  # training deviations from the mean, on either side, where the slope may turn
SIZE = 2 * len(KNOTS)
SCALE = 0.5  # of the log slope at a knot
LIMIT = 4.0  # of a log slope
SMALL = 1e-4  # below which a quotient is taken for its series
FEWEST = 50  # readings whose quantiles say more than their moments
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)  # of a standard normal's mean
POINTS = {"at -2 sd": -2.0, "at -1 sd": -1.0, "at the mean": 0.0, "at +1 sd": 1.0, "at +2 sd": 2.0}


class Monotone(Mechanism):
    """A continuous child: x = ±exp(g) B(x~ + noise) + b, B increasing, in training deviations.

    theta is the line's, (g, b, s, r) of ``affine``, then the log of the slope of B at :data:`KNOTS`, above and below.
    At the mean B is 0 and its slope 1; beyond the last knot it is a line.

    Args:
        straight: gain, offset and noise: a mechanism that is ``linear``.
    """

    types = ("continuous",)
    composes = True
    guesses = True
    simulates = True
    pulls_back = True

    def __init__(self, straight: Mechanism) -> None:
        self.straight = straight

    def size(self, node: Node) -> int:
        return self.straight.size(node) + SIZE

    def prior_scale(self, node: Node) -> Tensor:
        return torch.cat([self.straight.prior_scale(node), torch.full((SIZE,), SCALE)])

    def even(self, node: Node) -> Tensor:
        return torch.cat([self.straight.even(node), torch.zeros(SIZE, dtype=torch.bool)])

    def felt(self, theta: Tensor) -> Tensor:
        own, bend = theta[..., :-SIZE], theta[..., -SIZE:]
        return torch.cat([self.straight.felt(own), torch.ones_like(bend)], -1)

    def of_scope(self, scope: str) -> Monotone:
        return Monotone(self.straight.of_scope(scope))

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        line, bend = self._parts(theta)
        return _Bent(_widened(clean, line.variance), [_Bend(line, bend)])

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        found = self.pull_back(x, theta)
        return found.x / (1 + found.variance)  # what of it is not noise, x~ being standardised

    def pull_back(self, x: Tensor, theta: Tensor) -> Clean:
        line, bend = self._parts(theta)
        clean, log_slope = _straightened(line.slope * x + line.offset, bend)
        return Clean(clean, line.log_slope - log_slope, line.variance)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        line, bend = self._parts(theta)
        noisy = x + torch.randn_like(x) * line.variance.sqrt()
        return (_bent(noisy, bend)[0] - line.offset) / line.slope

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        line = self.straight.simulate(shape, node, scale)
        return torch.cat([line, 0.3 * scale * torch.randn(*shape, SIZE) * line.any(-1, keepdim=True)], -1)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        """Guesses from quantiles, as if readings were normal; from moments where rows are few or stand still."""
        found = _at_quantiles((x - x.mean()).double()) if len(x) >= FEWEST else None
        if found is None:
            line = self.straight.guess_from_moments(x, statistics)
            return None if line is None else torch.cat([line, line.new_zeros(SIZE)])
        middle, gain, bend = found
        two = x.mean() + middle + gain * statistics["sd"] * torch.tensor([-1.0, 1.0]).to(x) / 2**0.5
        line = self.straight.guess_from_moments(two, statistics)
        return None if line is None else torch.cat([line, bend.to(line)])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the line's alternatives, the bend as it is."""
        own, bend = theta[:-SIZE], theta[-SIZE:]
        return tuple(torch.cat([other, bend]) for other in self.straight.alternatives(own, statistics))

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Describes the change by what usual readings have become: those at the mean and one or two deviations off."""
        line, bend = self._parts(theta.double())
        noise = float(line.variance / line.slope.square())

        def read(x: Tensor) -> Tensor:
            return (_bent(x, bend)[0] - line.offset) / line.slope

        usual = torch.tensor(NODES)
        squared = (read(usual) - usual).square() @ (torch.tensor(WEIGHTS) / WEIGHTS.sum())
        mean, sd, unit = (np.asarray(float(statistics.get(key, 0.0))) for key in ("mean", "sd", "unit"))
        found = read(torch.tensor(list(POINTS.values()), dtype=torch.float64)).numpy()
        now = dict(zip(POINTS, off_scale(mean + sd * found, unit).tolist(), strict=True))
        spread = math.sqrt(noise)
        return {
            "change": math.sqrt(float(squared) + noise),  # root mean square of x - x~, training rows
            **now,
            "noise": spread if spread >= self.noticeable else 0.0,  # of training deviations; a little says nothing
        }

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 as the least of a noise."""
        return (0.0 if parameter in ("change", "noise") else -math.inf), math.inf

    def _parts(self, theta: Tensor) -> tuple[Line, Tensor]:
        """The line, and the numbers of the bend."""
        return self.straight.line(theta[..., :-SIZE]), theta[..., -SIZE:]


class _Bend(dist.transforms.Transform):
    """x~ to (B(x~) - offset) / slope."""

    domain = codomain = dist.constraints.real
    bijective = True

    def __init__(self, line: Line, bend: Tensor) -> None:
        super().__init__()
        self.line, self.bend = line, bend

    @property
    def sign(self) -> Tensor:  # type: ignore[override]
        return self.line.slope.sign()

    def _call(self, x: Tensor) -> Tensor:
        return (_bent(x, self.bend)[0] - self.line.offset) / self.line.slope

    def _inverse(self, y: Tensor) -> Tensor:
        return _straightened(self.line.slope * y + self.line.offset, self.bend)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return _log_slope(x, self.bend) - self.line.log_slope

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return torch.broadcast_shapes(shape, self.line.slope.shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.broadcast_shapes(shape, self.line.slope.shape)


class _Bent(dist.TransformedDistribution):
    """A bent distribution, with a mean by quadrature where the base is normal, else that of the base, bent."""

    @property
    def mean(self) -> Tensor:
        base, bend = self.base_dist, self.transforms[0]
        if len(self.transforms) > 1 or not isinstance(base, dist.Normal):
            centre = base.mean
            for transform in self.transforms:
                centre = transform(centre)
            return centre
        weights = (WEIGHTS / WEIGHTS.sum()).tolist()
        parts = (w * bend(base.loc + base.scale * node) for w, node in zip(weights, NODES.tolist(), strict=True))
        mean: Tensor = sum(parts, torch.zeros_like(base.loc))
        return mean


def _widened(clean: TorchDistribution, variance: Tensor) -> TorchDistribution:
    """Returns a distribution with normal noise besides; of what is bent already to first order, at its centre."""
    if isinstance(clean, dist.Normal | dist.StudentT):
        scale = clean.scale * (1 + variance / clean.scale.square()).sqrt()  # exactly times 1 without noise
        loc = clean.loc.expand(scale.shape)
        return dist.Normal(loc, scale) if isinstance(clean, dist.Normal) else dist.StudentT(clean.df, loc, scale)
    if isinstance(clean, _Bent) and isinstance(clean.base_dist, dist.Normal | dist.StudentT):
        at, log_slope = clean.base_dist.loc, torch.zeros_like(variance)
        for transform in clean.transforms:
            at, before = transform(at), at
            log_slope = log_slope + transform.log_abs_det_jacobian(before, at)
        return _Bent(_widened(clean.base_dist, variance * (-2 * log_slope).exp()), clean.transforms)
    return clean


def _at_quantiles(x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns the median, the slope there and the numbers of a bend that gives a normal these quantiles."""
    at = torch.tensor([*(-k for k in reversed(KNOTS)), 0.0, *KNOTS], dtype=x.dtype, device=x.device)
    found = x.quantile(torch.special.ndtr(at))
    half = len(KNOTS)
    gain = (found[half + 1] - found[half - 1]) / (at[half + 1] - at[half - 1])
    steep = (found.diff() / at.diff() / gain).log()
    if not steep.isfinite().all():
        return None
    levels = torch.cat([steep[:1], (steep[1:] + steep[:-1]) / 2, steep[-1:]])
    levels = LIMIT * torch.atanh(levels.clamp(-0.75 * LIMIT, 0.75 * LIMIT) / LIMIT)
    return found[half], gain, torch.cat([levels[half + 1 :], levels[:half].flip(0)])


def _bent(x: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """Returns B(x) and the log of its slope: the integral of exp of a line between knots, from 0 on either side."""
    v = x.abs()
    above, log_slope = torch.zeros_like(v), torch.zeros_like(v)
    for start, width, level, turn in _segments(x, bend):
        part = (v - start).clamp(0, width)
        above = above + (level.exp() * part * _expm1_share(turn * part) - part)
        log_slope = log_slope + turn * part
    return x + torch.where(x < 0, -above, above), log_slope


def _log_slope(x: Tensor, bend: Tensor) -> Tensor:
    """Returns the log of B's slope at x."""
    v = x.abs()
    return sum((turn * (v - at).clamp(0, width) for at, width, _, turn in _segments(x, bend)), torch.zeros_like(v))


def _straightened(y: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x at which B(x) = y, and the log of B's slope there."""
    w = y.abs()
    above, log_slope, height = (torch.zeros_like(w) for _ in range(3))
    for _, width, level, turn in _segments(y, bend):
        slope, part = level.exp(), (w - height).clamp_min(0)
        if math.isfinite(width):
            rise = slope * width * _expm1_share(turn * width)
            part, height = torch.minimum(part, rise), height + rise
        run = part / slope
        run = run * _log1p_share((turn * run).clamp_min(-1 + 1e-7))
        above = above + (run - part)
        log_slope = log_slope + turn * run
    return y + torch.where(y < 0, -above, above), log_slope


def _segments(x: Tensor, bend: Tensor) -> list[tuple[float, float, Tensor, Tensor]]:
    """Where each segment on x's side begins, its width, and the log slope there and its own slope."""
    half = len(KNOTS)
    below, knots = x < 0, (0.0, *KNOTS)
    heights = bounded(bend, LIMIT)
    found, level = [], torch.zeros_like(heights[..., 0])
    for k, (start, stop) in enumerate(itertools.pairwise(knots)):
        height = torch.where(below, heights[..., half + k], heights[..., k])
        found.append((start, stop - start, level, (height - level) / (stop - start)))
        level = height
    return [*found, (knots[-1], math.inf, level, torch.zeros_like(level))]


def _expm1_share(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z, 1 at 0."""
    small = z.abs() < SMALL
    safe = torch.where(small, 1.0, z)
    return torch.where(small, 1 + z * (1 / 2 + z / 6), torch.expm1(safe) / safe)


def _log1p_share(z: Tensor) -> Tensor:
    """log(1 + z) / z, 1 at 0."""
    small = z.abs() < SMALL
    safe = torch.where(small, 1.0, z)
    return torch.where(small, 1 - z * (1 / 2 - z / 3), torch.log1p(safe) / safe)
