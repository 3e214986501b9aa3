"""Checks of arguments: their errors name the call, the argument, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import inf
from numbers import Integral, Real
from typing import Any, TypeGuard, cast


def expect(where: str, name: str, value: object, fits: bool, expected: str) -> None:
    """Refuses an argument.

    Raises:
        ValueError: ``fits`` is False; names the call, the argument, what was found and what was expected.

    >>> expect("fit", "lr", -1, False, "a finite number above 0")
    Traceback (most recent call last):
    ValueError: fit(lr=-1): expected a finite number above 0
    """
    if not fits:
        raise ValueError(f"{where}({name}={value!r}): expected {expected}")


def expect_whole(where: str, name: str, value: object, least: int = 1) -> None:
    """Refuses an argument that is no whole number, Python's or numpy's, of at least ``least``.

    Raises:
        ValueError: names the call, the argument, what was found and what was expected.

    >>> expect_whole("fit", "samples", 0)
    Traceback (most recent call last):
    ValueError: fit(samples=0): expected a whole number of at least 1
    """
    expect(where, name, value, whole(value, least), f"a whole number of at least {least}")


def expect_options(where: str, options: Mapping[str, Any], of: type) -> None:
    """Refuses options by a name that no field of a dataclass has.

    Raises:
        ValueError: names the call, the option and the fields.
    """
    known = [field.name for field in fields(of)]
    for name, value in options.items():
        expect(where, name, value, name in known, f"some of {', '.join(known)}")


def whole(value: object, least: float = -inf) -> bool:
    """Returns whether it is a whole number, Python's or numpy's, of at least ``least``.

    >>> whole(2, 1), whole(0, 1), whole(2.0), whole(True)
    (True, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def number(value: object) -> TypeGuard[float]:
    """Returns whether it is a finite number, Python's or numpy's.

    >>> number(2), number(0.5), number("2"), number(float("nan")), number(True)
    (True, True, False, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and -inf < cast(float, value) < inf
