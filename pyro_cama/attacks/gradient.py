"""Adversarial attacks on any classifier that torch can differentiate, and on the tables of a CAMA.

:func:`fgsm` (Goodfellow et al. 2015, *Explaining and Harnessing Adversarial Examples*; under l2 the fast gradient
method), :func:`pgd` (Madry et al. 2018, *Towards Deep Learning Models Resistant to Adversarial Attacks*), both over an
expectation where the classifier is stochastic (Athalye et al. 2018, *Obfuscated Gradients Give a False Sense of
Security*).  Untargeted: they raise the cross-entropy with the labels.

    part = AttackableTable(pair, test)
    adversarial = pgd(part.logits, part.x, part.y, eps=0.5, mask=part.mask)
    pair.score(part.table(adversarial))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama._arguments import expect, expect_whole
from pyro_cama.handlers.threads import exclusive

Logits = Callable[[Tensor], Tensor]
Norm = Literal["linf", "l2"]
Bounds = tuple[float | Tensor, float | Tensor]


@torch.inference_mode(False)
def fgsm(
    logits: Logits,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    mask: Tensor | None = None,
    bounds: Bounds | None = None,
    draws: int = 1,
    seed: int = 0,
) -> Tensor:
    """Takes one step of length eps up the gradient (linf: its sign), from x.

    Arguments, errors and what is left untouched are those of :func:`pgd`.

    Returns:
        x, perturbed: a new tensor of its shape, dtype and device.

    >>> weights = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    >>> x, y = torch.tensor([[1.0, 0.5]]), torch.tensor([0])
    >>> fgsm(lambda x: x @ weights, x, y, eps=0.25).tolist()
    [[0.75, 0.25]]
    >>> fgsm(lambda x: x @ weights, x, y, eps=0.25, mask=torch.tensor([True, False])).tolist()
    [[0.75, 0.5]]
    """
    ball, y = _checked("fgsm", x, y, eps, norm, mask, bounds, draws)
    if not ball.x.numel():
        return ball.x
    with _seeded(seed):
        _, gradient = _ascent("fgsm", logits, ball.x, y, draws)
    return ball.step(ball.x, gradient, ball.eps)


@torch.inference_mode(False)
def pgd(
    logits: Logits,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    mask: Tensor | None = None,
    bounds: Bounds | None = None,
    starts: int = 1,
    draws: int = 1,
    seed: int = 0,
    keep: Literal["worst", "last"] = "worst",
) -> Tensor:
    """Ascends the gradient of the cross-entropy, projected to within eps of x.

    A row's result does not depend on the rows beside it, as long as its logits do not (put a network with batch
    normalisation into eval mode).  Parameters, their gradients and the global random state are left as they were.

    Args:
        logits: from ``(rows, ...)`` to logits or log-probabilities ``(rows, classes)``; may be stochastic.
        x: ``(rows, ...)``, floats in any unit.  Entries that are not finite are left as they are.
        y: class codes, ``(rows,)``.
        eps: how far an entry (linf) or a row (l2, Euclidean) may move, in the unit of x.  Under linf also a tensor
            that broadcasts to one row: an eps of each feature.
        norm: "linf" or "l2".
        steps: of the ascent, at least 1.
        step_size: length of a step, a number or (linf) as eps; None is ``2.5 * eps / steps``, as Madry et al. have it.
        mask: bool, broadcastable to x: where False, x stays bitwise as it is and counts in no norm.
        bounds: low and high, numbers or tensors broadcastable to x.  An entry that is outside moves no further out.
        starts: ascents; the first begins at x, the others at random points of the ball, the same offsets for every row.
        draws: evaluations over which loss and gradient are averaged, for stochastic logits.
        seed: of the starts, and of what the logits draw from torch's global generators.
        keep: "worst" keeps each row's iterate of the highest loss over all steps and starts, x itself included: never
            a lower loss than at x, where the logits are deterministic; else a lucky draw may pass for a high loss,
            unless ``draws`` are many.  "last" keeps the worst of the starts' last iterates.

    Returns:
        x, perturbed: a new tensor of its shape, dtype and device.  Where the gradient is not finite it counts as 0.

    Raises:
        ValueError: an argument out of range, shapes that do not fit, or logits that are not a differentiable function
            of x.

    >>> weights = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    >>> x, y = torch.tensor([[1.0, 0.5]]), torch.tensor([0])
    >>> adversarial = pgd(lambda x: x @ weights, x, y, eps=1.0, norm="l2", starts=3)
    >>> (adversarial - x).norm().item() <= 1.0 + 1e-6, (adversarial @ weights).argmax(1).item()
    (True, 1)
    """
    ball, y = _checked("pgd", x, y, eps, norm, mask, bounds, draws)
    for name, value in (("steps", steps), ("starts", starts)):
        expect_whole("pgd", name, value)
    expect("pgd", "keep", keep, keep in ("worst", "last"), "'worst' or 'last'")
    size = 2.5 * ball.eps / steps if step_size is None else ball.length("pgd", "step_size", step_size)
    if not ball.x.numel():
        return ball.x
    generator = torch.Generator("cpu").manual_seed(seed)
    highest: Tensor | None = None
    kept = ball.x
    with _seeded(seed):
        for start in range(starts):
            z = ball.random(generator) if start else ball.x
            for step in range(steps + 1):
                loss, gradient = _ascent("pgd", logits, z, y, draws, step < steps)
                if keep == "worst" or step == steps:
                    better = torch.ones_like(y, dtype=torch.bool) if highest is None else loss > highest
                    kept = torch.where(ball.per_row(better), z, kept)
                    highest = loss if highest is None else torch.maximum(loss, highest)
                if step < steps:
                    z = ball.step(z, gradient, size)
    return kept


class _Ball:
    """What an attack may reach: the ball about x, within the bounds, in the entries that are allowed."""

    def __init__(
        self,
        where: str,
        x: Tensor,
        eps: float | Tensor,
        norm: Norm,
        mask: Tensor | None,
        bounds: Bounds | None,
    ) -> None:
        expect(where, "norm", norm, norm in ("linf", "l2"), "'linf' or 'l2'")
        expect(where, "x.dtype", x.dtype, x.is_floating_point(), "floats")
        expect(where, "x.shape", tuple(x.shape), x.dim() >= 1, "(rows, ...)")
        self.x = x.detach().clone()
        self.norm = norm
        self.eps = self.length(where, "eps", eps)
        if mask is not None:
            expect_tensor(where, "mask", mask)
        allowed = x.new_ones((), dtype=torch.bool) if mask is None else mask.to(x.device)
        expect(where, "mask.dtype", allowed.dtype, allowed.dtype == torch.bool, "torch.bool")
        _expect_broadcast(where, "mask", allowed, x.shape)
        self.allowed = allowed & self.x.isfinite() & (self.eps > 0)
        try:
            low, high = (-torch.inf, torch.inf) if bounds is None else bounds
        except (TypeError, ValueError):
            raise ValueError(f"{where}(bounds={bounds!r}): expected a pair, (low, high)") from None
        low, high = self.like(where, "bounds", low), self.like(where, "bounds", high)
        for bound in (low, high):
            _expect_broadcast(where, "bounds", bound, x.shape)
        pairs = torch.stack(torch.broadcast_tensors(low, high), -1).reshape(-1, 2)
        wrong = pairs[~(pairs[:, 0] <= pairs[:, 1])][:1].tolist()
        expect(where, "bounds", wrong, not wrong, "low at most high")
        self.low, self.high = torch.minimum(low, self.x), torch.maximum(high, self.x)

    def length(self, where: str, name: str, value: float | Tensor) -> Tensor:
        """Returns a number, or a tensor that broadcasts to one row, as a tensor."""
        length = self.like(where, name, value)
        if self.norm == "l2":
            expect(where, f"{name}.shape", tuple(length.shape), length.dim() == 0, "a number under norm='l2'")
        _expect_broadcast(where, name, length, self.x.shape[1:], "one row of x")
        wrong = length[~(length.isfinite() & (length >= 0))][:1].tolist()
        expect(where, name, wrong, not wrong, "finite, at least 0")
        return length

    def like(self, where: str, name: str, value: float | Tensor) -> Tensor:
        """Returns a number or tensor on x's device, in its dtype."""
        try:
            return torch.as_tensor(value, dtype=self.x.dtype, device=self.x.device).detach()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{where}({name}={value!r}): expected a number or a tensor") from None

    def step(self, z: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Takes a step up the gradient from z, and back to what may be reached."""
        gradient = gradient.where(self.allowed, 0.0)
        return self.project(z + size * (gradient.sign() if self.norm == "linf" else self.unit(gradient)))

    def random(self, generator: torch.Generator) -> Tensor:
        """Draws a point uniformly from the ball, its offset in units of eps the same for every row."""
        event = self.x.shape[1:]
        if self.norm == "linf":
            offset = 2.0 * torch.rand(event, generator=generator, dtype=torch.float64, device="cpu").to(self.x) - 1.0
            return self.project(self.x + self.eps * offset)
        normal = torch.randn(event, generator=generator, dtype=torch.float64, device="cpu").to(self.x)
        direction = self.unit(normal.where(self.allowed, 0.0))
        share = torch.rand((), generator=generator, dtype=torch.float64, device="cpu").to(self.x)
        entries = self.per_row(self.allowed.reshape(len(self.x), -1).sum(1)).clamp_min(1)
        return self.project(self.x + self.eps * share ** (1.0 / entries) * direction)

    def project(self, z: Tensor) -> Tensor:
        """Returns the nearest point that may be reached: in the ball, then in the bounds, which hold x."""
        offset = (z - self.x).where(self.allowed, 0.0)
        if self.norm == "linf":
            offset = offset.clamp(-self.eps, self.eps)
        else:
            length = torch.linalg.vector_norm(offset.reshape(len(offset), -1), dim=1)
            offset = offset * (self.eps / self.per_row(length)).clamp_max(1.0)
        return (self.x + offset).clamp(self.low, self.high).where(self.allowed, self.x)

    def unit(self, v: Tensor) -> Tensor:
        """Scales every row to length 1, zeros left alone; its largest entry first, so that no square overflows."""
        tiny = torch.finfo(v.dtype).tiny
        flat = v.reshape(len(v), -1)
        flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(tiny)
        return (flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(tiny)).reshape(v.shape)

    def per_row(self, values: Tensor) -> Tensor:
        """Reshapes ``(rows,)`` so that it broadcasts against x."""
        return values.reshape(-1, *[1] * (self.x.dim() - 1))


def _checked(
    where: str,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    norm: Norm,
    mask: Tensor | None,
    bounds: Bounds | None,
    draws: int,
) -> tuple[_Ball, Tensor]:
    for name, value in (("x", x), ("y", y)):
        expect_tensor(where, name, value)
    ball = _Ball(where, x, eps, norm, mask, bounds)
    integers = not y.is_floating_point() and not y.is_complex() and y.dtype != torch.bool
    expect(where, "y.dtype", y.dtype, integers, "integer class codes")
    expect(where, "y.shape", tuple(y.shape), y.shape == x.shape[:1], f"({len(x)},), a code for every row of x")
    expect_whole(where, "draws", draws)
    return ball, y.to(x.device, torch.long, copy=True)  # not one that was made in inference mode


def expect_tensor(where: str, name: str, value: object) -> None:
    """Raises a ValueError where an argument is no tensor."""
    expect(where, f"type({name})", type(value).__name__, isinstance(value, Tensor), "Tensor")


def _expect_broadcast(where: str, name: str, value: Tensor, shape: torch.Size, to: str = "x") -> None:
    try:
        fits = torch.broadcast_shapes(value.shape, shape) == shape
    except RuntimeError:
        fits = False
    expect(where, f"{name}.shape", tuple(value.shape), fits, f"a shape that broadcasts to {tuple(shape)}, {to}")


def _ascent(
    where: str, logits: Logits, z: Tensor, y: Tensor, draws: int, with_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns the means over draws of every row's cross-entropy, -inf if it is no number, and its gradient in z."""
    loss, gradient = z.new_zeros(len(z)), torch.zeros_like(z)
    for _ in range(draws):
        with torch.set_grad_enabled(with_gradient):
            point = z.detach().requires_grad_(with_gradient)
            out = logits(point)
            fits = out.dim() == 2 and len(out) == len(z)
            expect(where, "logits(x).shape", tuple(out.shape), fits, f"({len(z)}, classes)")
            wrong = y[(y < 0) | (y >= out.shape[1])][:1].tolist()
            expect(where, "y", wrong, not wrong, f"codes from 0 to {out.shape[1] - 1}")
            each = F.cross_entropy(out, y, reduction="none")
            slope = torch.autograd.grad(each.sum(), point, allow_unused=True)[0] if each.requires_grad else None
            if with_gradient and slope is None:
                raise ValueError(f"{where}(logits): its output has no gradient in x; expected a torch function of x")
        loss = loss + each.detach().to(loss)
        if slope is not None:
            gradient = gradient + slope.where(slope.isfinite(), 0.0)
    return (loss / draws).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf), gradient / draws


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes the draws inside a function of the seed, and leaves the caller's random state as it was."""
    devices = range(torch.cuda.device_count())
    # logits that are computed again for their gradient enter the lock again: in this thread, not in one of autograd's
    with exclusive(), torch.autograd.set_multithreading_enabled(False), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
