"""What is asked of a distribution beside a density: draws as ``pyro.sample`` makes them, and a mean."""

from __future__ import annotations

from typing import Any

from torch import Size, Tensor


def draw(d: Any, shape: Size | tuple[int, ...] = ()) -> Tensor:
    """Draws as ``pyro.sample`` does: by a call, which is all that some distributions of Pyro's have (zuko's flows).

    Args:
        shape: of draws, before the batch's.

    Raises:
        NotImplementedError: it cannot draw; says which.
    """
    try:
        value: Tensor = d(Size(shape))
    except NotImplementedError as error:
        raise NotImplementedError(str(error) or f"{type(d).__name__} cannot be drawn from") from error
    return value


def mean_of(d: Any, what: str) -> Tensor:
    """Returns the mean.

    Args:
        what: the distribution's part, as ``"q(m)"``.

    Raises:
        NotImplementedError: it has none; says what needs one.
    """
    try:
        mean: Tensor = d.mean
    except NotImplementedError as error:
        kind = type(d).__name__
        raise NotImplementedError(
            f"this needs the mean of {what}, and the {kind} given for it has none: give a subclass of it a property "
            "mean, or take another distribution"
        ) from error
    return mean
