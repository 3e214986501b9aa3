"""Draws, and the common random numbers of prediction: every row and class sees the same noise.

Under :func:`common_noise` a row's result is deterministic and does not depend on the rows beside it, and classes are
compared with the noise held fixed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pyro import distributions as dist
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_cama.handlers.distributions import draw
from pyro_cama.handlers.threads import exclusive


class NoCommonNoise(NotImplementedError):
    """A distribution that cannot be driven by common noise; its rows are then drawn one by one from one seed."""


class _Noise:
    def __init__(self, seed: int, strict: bool) -> None:
        self.seed = seed
        self.strict = strict
        self.drawn: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, name: str, kind: str, shape: torch.Size, like: Tensor) -> Tensor:
        """Noise of the given shape, the same at every call with the same name, kind and shape."""
        key = (name, kind, tuple(shape))
        if key not in self.drawn:
            generator = torch.Generator().manual_seed(seed_of_site(self.seed, name))
            source = torch.randn if kind == "normal" else torch.rand
            self.drawn[key] = source(shape, generator=generator, dtype=torch.float64)
        return self.drawn[key].to(like)


def seed_of_site(seed: int, name: str) -> int:
    """Returns a seed for one site."""
    return (seed * 1_000_003 + zlib.crc32(name.encode())) % 2**63


class SeededSites(Messenger):
    """Inside, every site is drawn from a seed of its own: what one draws, and how often, changes no other."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["is_observed"] or msg["done"]):
            torch.manual_seed(seed_of_site(self.seed, msg["name"]))


_current: ContextVar[_Noise | None] = ContextVar("pyro_cama_noise", default=None)


@contextmanager
def common_noise(seed: int, *, strict: bool = False) -> Iterator[None]:
    """Makes :func:`draw_site` use noise inside that is a function of seed, site name and sample index alone.

    Args:
        strict: raise :class:`NoCommonNoise` for a distribution without a known map from noise to values; else it is
            drawn from the seed, the same at every call, but not the same for every row.
    """
    token = _current.set(_Noise(seed, strict))
    try:
        with exclusive(), _CommonNoiseMessenger():
            yield
    finally:
        _current.reset(token)


def draw_site(d: TorchDistribution, name: str) -> Tensor:
    """Draws a site, reparameterised where it can be; under :func:`common_noise` with samples at batch dimension -3.

    Raises:
        NoCommonNoise: under strict common noise, for a distribution that has no known map from noise to values.
    """
    noise = _current.get()
    if noise is None:
        return draw(d)
    try:
        return _push(d, name, noise)
    except NoCommonNoise:
        if noise.strict:
            raise
    with exclusive(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed_of_site(noise.seed, name))
        return draw(d)


_Wrapped = (dist.Independent, torch.distributions.Independent, dist.MaskedDistribution, ZukoToPyro)


def _push(d: Any, name: str, noise: _Noise, event_dim: int = 0) -> Tensor:
    """A draw of ``d``; ``event_dim`` of its last dimensions at least are one event, each with noise of its own."""
    base = d
    while isinstance(base, _Wrapped):
        base = base.dist if isinstance(base, ZukoToPyro) else base.base_dist
    shape, event_dim = d.batch_shape + d.event_shape, max(event_dim, len(d.event_shape))
    batch, event = shape[: len(shape) - event_dim], shape[len(shape) - event_dim :]
    shared = torch.Size([batch[0] if len(batch) >= 3 else 1, *[1] * max(len(batch) - 1, 0), *event])
    if len(batch) < 3:
        shared = torch.Size([*[1] * len(batch), *event])
    if isinstance(base, torch.distributions.Normal):
        value: Tensor = base.loc + base.scale * noise(name, "normal", shared, base.loc)
        return value.expand(batch + event)
    if isinstance(base, torch.distributions.MultivariateNormal):
        eps = noise(name, "normal", shared, base.loc)
        return base.loc + (base._unbroadcasted_scale_tril @ eps.unsqueeze(-1)).squeeze(-1)
    if isinstance(base, torch.distributions.LowRankMultivariateNormal):
        rank = base._unbroadcasted_cov_factor.shape[-1]
        factor = noise(f"{name} factor", "normal", torch.Size([*shared[:-1], rank]), base.loc)
        eps = noise(name, "normal", shared, base.loc) * base._unbroadcasted_cov_diag.sqrt()
        return base.loc + (base._unbroadcasted_cov_factor @ factor.unsqueeze(-1)).squeeze(-1) + eps
    if isinstance(base, torch.distributions.Bernoulli):
        return (noise(name, "uniform", shared, base.probs) < base.probs).to(base.probs).expand(batch + event)
    if isinstance(base, torch.distributions.Categorical):
        cdf = base.probs.cumsum(-1)[..., :-1]
        return (noise(name, "uniform", shared, cdf).unsqueeze(-1) > cdf).sum(-1).expand(batch)
    if isinstance(base, dist.Delta):
        return base.v.expand(batch + event)
    if isinstance(base, torch.distributions.TransformedDistribution):
        value = _push(base.base_dist, name, noise, event_dim)
        for transform in base.transforms:
            value = transform(value)
        return value
    if isinstance(base, torch.distributions.StudentT):
        half = base.df / 2
        share = _gamma_quantile(noise(f"{name} scale", "uniform", shared, half), half) / half
        value = base.loc + base.scale * noise(name, "normal", shared, base.loc) / share.sqrt()
        return value.expand(batch + event)
    if isinstance(base, torch.distributions.Gamma):
        value = _gamma_quantile(noise(name, "uniform", shared, base.rate), base.concentration) / base.rate
        return value.expand(batch + event)
    if isinstance(base, dist.GammaPoisson):
        rate = _gamma_quantile(noise(f"{name} rate", "uniform", shared, base.rate), base.concentration) / base.rate
        return _poisson_quantile(noise(name, "uniform", shared, rate), rate).expand(batch + event)
    if isinstance(base, torch.distributions.Poisson):
        return _poisson_quantile(noise(name, "uniform", shared, base.rate), base.rate).expand(batch + event)
    if hasattr(base, "transform") and hasattr(base, "base"):  # a flow of zuko's, which maps values to noise
        value = base.transform.inv(_push(base.base, name, noise, event_dim))
        return value
    try:
        like = next(getattr(base, parameter) for parameter in base.arg_constraints)
        uniform = noise(name, "uniform", shared, like)
        tiny = torch.finfo(uniform.dtype).eps
        return base.icdf(uniform.clamp(tiny, 1 - tiny)).expand(batch + event)
    except (NotImplementedError, StopIteration):
        raise NoCommonNoise(f"site {name!r}: {type(base).__name__} has no common noise") from None


@torch.no_grad()
def _gamma_quantile(uniform: Tensor, concentration: Tensor) -> Tensor:
    """Of the unit-rate gamma, by bisection on the log scale: torch has its distribution function alone."""
    p, a = torch.broadcast_tensors(uniform.double(), concentration.double())
    low, high = torch.full_like(a, -700.0), (a + 40.0 * a.sqrt() + 60.0).log()
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.gammainc(a, middle.exp()) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high.exp().to(uniform).clamp_min(torch.finfo(uniform.dtype).tiny)


@torch.no_grad()
def _poisson_quantile(uniform: Tensor, rate: Tensor) -> Tensor:
    """The least count whose distribution function reaches the uniform."""
    p, rate = torch.broadcast_tensors(uniform.double(), rate.double())
    low, high = torch.full_like(rate, -1.0), (rate + 40.0 * rate.sqrt() + 60.0).ceil()
    for _ in range(int(high.max().log2()) + 2 if high.numel() else 0):
        middle = ((low + high) / 2).floor().clamp_min(0.0)
        below = torch.special.gammaincc(middle + 1.0, rate) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high.to(uniform)


class _CommonNoiseMessenger(Messenger):
    """Drives the unobserved sites of a Pyro program by the current common noise."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["done"] or msg["is_observed"] or msg["value"] is not None or type(msg["fn"]).__name__ == "_Subsample":
            return
        msg["value"] = draw_site(msg["fn"], msg["name"])
        msg["done"] = True
