"""Manipulations of images in batches, every row by an amount of its own.

For evaluation, augmentation and simulated interventions. Shifts are those of Zhang, Zhang and Li (2020); noises, blur,
brightness, contrast and fog follow Hendrycks and Dietterich (2019, *Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations*), stripe, dotted_line and zigzag Mu and Gilmer (2019, *MNIST-C: A Robustness Benchmark
for Computer Vision*), all in spirit: equations, units and drawings are our own, see ``KINDS``.

>>> images = torch.rand(5, 1, 28, 28)
>>> both = manipulate_all(images, {"rotation": 20, "gaussian_noise": 0.1}, seed=0)
>>> rotated = manipulate(images, "rotation", 20, seed=0)
>>> torch.equal(both, manipulate(rotated, "gaussian_noise", 0.1, seed=0))
True
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor

from pyro_cama._arguments import expect, number
from pyro_cama._messages import one_of as nearest
from pyro_cama.handlers.torch_contexts import outside
from pyro_cama.image_manipulations.geometry import (
    horizontal_shift,
    resampled,
    rotation,
    scaling,
    shear,
    unless_zero,
    vertical_shift,
)
from pyro_cama.image_manipulations.pixels import (
    blur,
    brightness,
    contrast,
    dotted_line,
    fog,
    gaussian_noise,
    impulse_noise,
    inversion,
    occlusion,
    shot_noise,
    stripe,
    zigzag,
)

Function: TypeAlias = Callable[[Tensor, Tensor, Generator], Tensor]
Matrix: TypeAlias = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Kind:
    """A manipulation: a ``function`` of pixels, or the ``matrix`` of one that moves them.

    Args:
        unit: of severity and amount, in words.
        typical: a severity that is plain to see on digits of 28 x 28 pixels; a choice, not measured.
        limit: the largest severity; an amount's largest absolute value.
        signed: True: a row's amount is uniform on ±severity. False: every row's amount is the severity.
        function: from images ``(rows, C, H, W)``, amounts ``(rows, 1, 1, 1)`` of their dtype and a generator on the
            CPU to images, which the caller clamps.
        matrix: from amounts ``(rows,)``, height and width to ``(rows, 3, 3)``, all float64 on the CPU. It takes
            (x, y, 1) of a pixel of the result to that of the point it shows: x to the right, y down, in pixels from the
            centre of the image.
    """

    unit: str
    typical: float
    limit: float
    signed: bool = False
    function: Function | None = None
    matrix: Matrix | None = None

    def __post_init__(self) -> None:
        fits = (self.function is None) != (self.matrix is None)
        expect("Kind", "function", self.function, fits, "either a function or a matrix")

    @property
    def spatial(self) -> bool:
        """Whether it moves pixels."""
        return self.matrix is not None


@outside()
def manipulate(
    images: Tensor,
    kind: str,
    severity: float | None = None,
    *,
    amount: float | Tensor | None = None,
    seed: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Manipulates every row in its own random way, or by exactly ``amount``.

    A row of amount 0, thus every row at severity 0, keeps each bit. All that is random is drawn on the CPU, whatever
    the images' device and dtype: a seed means the same amounts, places and noise everywhere. Kinds under one seed
    draw independently.

    Args:
        images: ``(rows, C, H, W)``, floats in [0, 1]. Left as they are.
        kind: one of ``KINDS``, which has the units.
        severity: a number from 0 to the kind's limit. None is its typical one.
        amount: instead of a severity; one for all rows or ``(rows,)``, used as it is (in float64: in float32, 3 / 28
            of 28 pixels is not quite 3). Negative ones only where the kind is signed.
        seed: a whole number, at least 0.
        generator: instead of a seed, which is drawn from it; on the CPU. Without both, torch's global generator.

    Returns:
        A new tensor in [0, 1] of the images' shape, dtype and device. Half precision is computed in single precision.

    Raises:
        ValueError: an argument is none of these; the message says what was found and what was expected.

    >>> images = torch.rand(3, 1, 8, 8)
    >>> torch.equal(manipulate(images, "rotation", amount=90), images.rot90(1, (2, 3)))
    True
    >>> manipulate(images, "rotate", 90)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: manipulate(kind='rotate'): expected one of 'vertical_shift', ...; did you mean 'rotation'?
    """
    where = "manipulate"
    _expect_images(where, images)
    _expect_kind(where, kind)
    root = _root(where, seed, generator)
    if amount is None:
        severity = KINDS[kind].typical if severity is None else severity
        _expect_severity(where, kind, severity)
        amounts = _drawn(kind, severity, len(images), root)
    else:
        expect(where, "severity", severity, severity is None, "None where an amount is given: leave one of them out")
        amounts = _exact(where, kind, amount, len(images))
    return _applied(images, {kind: amounts}, root)


@outside()
def manipulate_all(
    images: Tensor,
    severities: Mapping[str, float],
    *,
    seed: int | None = None,
    generator: Generator | None = None,
    one_of: bool = False,
) -> Tensor:
    """Manipulates every row in all of several ways, in their order, or in one of them.

    All of them are what :func:`manipulate` gives when called for one after the other with the same seed, but that
    spatial ones which follow each other share one resampling: it blurs once, and what leaves the frame may come back.

    Args:
        images: as for :func:`manipulate`, and so are ``seed`` and ``generator``.
        severities: kind to severity, at least one.
        seed: see above.
        generator: see above.
        one_of: a row gets one of the kinds, each as likely as the others.

    Returns:
        See :func:`manipulate`.

    Raises:
        ValueError: see :func:`manipulate`.

    >>> images = torch.rand(100, 1, 8, 8)
    >>> mixed = manipulate_all(images, {"inversion": 1, "rotation": 0}, seed=0, one_of=True)
    >>> inverted, same = ((mixed == expected).flatten(1).all(1) for expected in (1 - images, images))
    >>> bool((inverted ^ same).all()), 30 < int(inverted.sum()) < 70
    (True, True)
    """
    where = "manipulate_all"
    _expect_images(where, images)
    expect_kinds(severities, where)
    root = _root(where, seed, generator)
    if not one_of:
        return _applied(images, {k: _drawn(k, s, len(images), root) for k, s in severities.items()}, root)
    choice = torch.randint(len(severities), (len(images),), generator=_stream(root, "one of"))
    result = images.clone()
    for i, (kind, severity) in enumerate(severities.items()):
        at = (choice == i).nonzero().squeeze(1).to(images.device)
        result[at] = _applied(images[at], {kind: _drawn(kind, severity, len(at), root)}, root)
    return result


def expect_kinds(severities: Mapping[str, float], where: str = "manipulate_all") -> None:
    """Refuses severities by kind that do not fit, before there are images.

    Raises:
        ValueError: no mapping, an empty one, an unknown kind or a severity out of range; begins with ``where``.

    >>> expect_kinds({"rotation": -20}, "fit")
    Traceback (most recent call last):
    ValueError: fit(severity of rotation=-20): expected a number from 0 to 360 (degrees, counter-clockwise if positive)
    """
    fits = isinstance(severities, Mapping) and len(severities) > 0
    expect(where, "severities", severities, fits, "a mapping of at least one kind to severity, as {'rotation': 20}")
    for kind, severity in severities.items():
        _expect_kind(where, kind)
        _expect_severity(where, kind, severity)


def _applied(images: Tensor, amounts: Mapping[str, Tensor], root: int) -> Tensor:
    """The kinds in order, matrices multiplied until a function needs the pixels."""
    if not len(images):
        return images.clone()
    height, width = images.shape[-2:]
    result = images.to(torch.promote_types(images.dtype, torch.float32))
    identity = torch.eye(3, dtype=torch.float64).expand(len(images), 3, 3)
    matrix = identity
    for name, amount in amounts.items():
        kind = KINDS[name]
        if kind.matrix is not None:
            matrix = matrix @ kind.matrix(amount, height, width)
        else:
            assert kind.function is not None
            result, matrix = resampled(result, matrix), identity
            changed = kind.function(result, amount.to(result).reshape(-1, 1, 1, 1), _stream(root, name))
            result = unless_zero(amount == 0, result, changed)
    return resampled(result, matrix).to(images.dtype, copy=True)


def _root(where: str, seed: int | None, generator: Generator | None) -> int:
    """The number on which all draws of a call depend."""
    if seed is not None:
        fits = isinstance(seed, Integral) and seed >= 0
        expect(where, "seed", seed, fits, "a whole number of at least 0, or None")
        expect(where, "generator", generator, generator is None, "None where a seed is given: leave one of them out")
        return int(seed)
    fits = generator is None or (isinstance(generator, Generator) and generator.device.type == "cpu")
    expect(where, "generator", generator, fits, "a torch.Generator on the CPU, for images on any device, or None")
    return int(torch.randint(2**63 - 1, (), generator=generator))


def _stream(root: int, name: str) -> Generator:
    """Random numbers for one purpose, independent of those for others."""
    state = np.random.SeedSequence([root, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def _drawn(kind: str, severity: float, rows: int, root: int) -> Tensor:
    """Amounts, ``(rows,)``."""
    if not KINDS[kind].signed:
        return torch.full((rows,), float(severity), dtype=torch.float64)
    uniform = torch.rand(rows, dtype=torch.float64, generator=_stream(root, f"amount of {kind}"))
    return float(severity) * (2.0 * uniform - 1.0)


def _exact(where: str, kind: str, amount: float | Tensor, rows: int) -> Tensor:
    """The caller's amounts, ``(rows,)``."""
    fits = isinstance(amount, Tensor | Real)
    expect(where, "amount", amount, fits, f"a number or a tensor ({rows},)")
    amounts = torch.as_tensor(amount, dtype=torch.float64, device="cpu").detach()
    expect(where, "amount.shape", tuple(amounts.shape), amounts.shape in ((), (rows,)), f"() or ({rows},), one a row")
    most = KINDS[kind].limit
    least = -most if KINDS[kind].signed else 0.0
    wrong = amounts[~((amounts >= least) & (amounts <= most))][:1].tolist()
    expect(where, "amount", wrong, not wrong, f"from {least:g} to {most:g} for {kind!r} ({KINDS[kind].unit})")
    return amounts.expand(rows)


def _expect_images(where: str, images: Tensor) -> None:
    expect(where, "type(images)", type(images).__name__, isinstance(images, Tensor), "Tensor")
    remedy = "floats in [0, 1]: of bytes, images.float() / 255"
    expect(where, "images.dtype", images.dtype, images.is_floating_point(), remedy)
    shape = tuple(images.shape)
    remedy = "(rows, channels, height, width): images[:, None] adds the one channel of grey images"
    expect(where, "images.shape", shape, len(shape) == 4 and min(shape[1:]) >= 1, remedy)
    if len(images):
        low, high = torch.stack(images.aminmax()).tolist()
        found = f"from {low:g} to {high:g}"
        expect(where, "images", found, low >= 0 and high <= 1, "numbers in [0, 1], none missing: rescale or clamp them")


def _expect_kind(where: str, kind: str) -> None:
    known = isinstance(kind, str) and kind in KINDS
    expect(where, "kind", kind, known, nearest(kind, KINDS).removeprefix("expected "))


def _expect_severity(where: str, kind: str, severity: float) -> None:
    most, unit = KINDS[kind].limit, KINDS[kind].unit
    fits = number(severity) and 0 <= severity <= most
    expect(where, f"severity of {kind}", severity, fits, f"a number from 0 to {most:g} ({unit})")


KINDS: dict[str, Kind] = {
    "vertical_shift": Kind("heights of the image, down if positive", 0.2, 1, signed=True, matrix=vertical_shift),
    "horizontal_shift": Kind("widths of the image, right if positive", 0.2, 1, signed=True, matrix=horizontal_shift),
    "rotation": Kind("degrees, counter-clockwise if positive", 45, 360, signed=True, matrix=rotation),
    "scale": Kind("logarithm of the factor, larger if positive", 0.5, 5, signed=True, matrix=scaling),
    "shear": Kind("degrees, upright lines lean right if positive", 40, 85, signed=True, matrix=shear),
    "brightness": Kind("what is added to each value", 0.5, 1, signed=True, function=brightness),
    "contrast": Kind("logarithm of the gain of values about 0.5", 1.5, 10, signed=True, function=contrast),
    "inversion": Kind("weight of 1 - x", 1, 1, function=inversion),
    "gaussian_noise": Kind("standard deviation", 0.4, 10, function=gaussian_noise),
    "shot_noise": Kind("standard deviation s of white: s² Poisson(x / s²)", 0.5, 10, function=shot_noise),
    "impulse_noise": Kind("share of pixels that turn black or white", 0.2, 1, function=impulse_noise),
    "blur": Kind("standard deviation of a Gaussian in pixels", 1.5, 1000, function=blur),
    "stripe": Kind("weight of 1 - x in a straight band, a quarter of a side wide", 1, 1, function=stripe),
    "dotted_line": Kind("opacity of white dots in a straight line", 1, 1, function=dotted_line),
    "zigzag": Kind("opacity of a white zigzag line", 1, 1, function=zigzag),
    "occlusion": Kind("side of a black square, in shorter sides of the image", 0.4, 1, function=occlusion),
    "fog": Kind("weight of a smooth random field with values from 0 to 1", 0.6, 1, function=fog),
}
"""All kinds by name. The spatial ones interpolate bilinearly, and zeros come in from outside."""
