"""What the checks of mechanisms and likelihoods expect of numbers: shapes, finiteness, agreement, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.threads import exclusive


@contextmanager
def in_float64() -> Iterator[None]:
    """Inside, float64 is the default and the generator begins at a fixed seed; after it both are as they were."""
    with exclusive(), torch.random.fork_rng(devices=[]):
        before = torch.get_default_dtype()
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def expect_holds(holds: bool, message: str) -> None:
    """Raises AssertionError with the message unless a condition holds."""
    if not holds:
        raise AssertionError(message)


def expect_serves(name: str, types: tuple[str, ...], node: Node) -> None:
    """Raises unless a node is of one of the types that a class serves."""
    expect_holds(node.type in types, f"{name} serves {', '.join(types)}: found a node of type {node.type}")


def expect_hashable(name: str, thing: object) -> None:
    """Raises unless an object can be compared with itself and hashed."""
    try:
        hash(thing)
    except TypeError as error:
        raise AssertionError(f"{name}: {error}; expected attributes that can be hashed (numbers, tuples)") from error
    expect_holds(thing == thing, f"{name} is not equal to itself")  # by its own __eq__


def expect_shape(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    """Raises unless a tensor has a shape."""
    expect_holds(tuple(found.shape) == shape, f"{what}: found shape {tuple(found.shape)}; expected {shape}")


def expect_finite(what: str, found: Tensor) -> None:
    """Raises unless all numbers of a tensor are finite."""
    bad = int((~found.isfinite()).sum())
    expect_holds(not bad, f"{what}: found {bad} of {found.numel()} numbers infinite or NaN; expected finite ones")


def expect_close(what: str, found: Tensor, expected: Tensor | float, tolerance: float) -> None:
    """Compares to a tolerance on ``|found - expected| / max(1, |expected|)``; 0: to the last bit."""
    expected = torch.as_tensor(expected)
    if expected.dim():
        expect_shape(what, found, tuple(expected.shape))
    gap = float(((found.detach() - expected.detach()).abs() / expected.detach().abs().clamp_min(1)).max())
    allowed = "the same to the last bit" if tolerance == 0 else f"at most {tolerance:.3g}"
    expect_holds(gap <= tolerance, f"{what}: found a difference of {gap:.3g}; expected {allowed}")


def expect_smooth(what: str, action: Callable[[Tensor], Tensor], numbers: Tensor) -> None:
    """Raises unless what comes of numbers, and its gradient by them, is finite."""
    at = f"{what} at numbers of {float(numbers.detach().abs().max()):g}"
    found = action(numbers)
    expect_finite(at, found)
    if found.requires_grad:
        (slope,) = torch.autograd.grad(found.sum(), numbers, allow_unused=True)
        if slope is not None:
            expect_finite(f"the gradient of {at}", slope)


def expect_values(what: str, x: Tensor, node: Node) -> None:
    """Raises unless values are what a node of this type may take."""
    if node.type == "categorical":
        expect_holds(not x.is_floating_point(), f"{what}: found {x.dtype}; expected the levels' codes, whole numbers")
    if node.type in ("categorical", "binary"):
        known = range(node.classes or 2)
        codes = x.unique().tolist()
        expect_holds(set(codes) <= set(known), f"{what}: found {codes}; expected some of {[*known]}")
    elif node.type == "count":
        whole = bool(((x >= 0) & (x == x.round())).all())
        expect_holds(
            whole, f"{what}: found {float(x.min()):g} to {float(x.max()):g}; expected whole numbers of at least 0"
        )
    else:
        expect_finite(what, x)


def expect_normalised(what: str, found: TorchDistribution, node: Node) -> None:
    """Raises unless a density integrates to 1, or probabilities sum to 1; of a batch ``(n,)``."""
    if node.type == "continuous":
        u = torch.linspace(-14.0, 14.0, 200_001)[:, None]  # x = sinh(u): fine in the middle, far tails; jumps need many
        total = torch.trapezoid(found.log_prob(u.sinh()).exp() * u.cosh(), u, dim=0)
    elif node.type == "count":
        total = found.log_prob(torch.arange(20_000.0)[:, None]).exp().sum(0)
    else:
        codes = torch.arange(node.classes or 2)[:, None]
        total = found.log_prob(codes if node.type == "categorical" else codes.double()).exp().sum(0)
    expect_close(f"{what}: total probability", total, 1.0, 1e-3)
