"""Words of messages: what was found and what was expected, cut short; and the caller's line that a warning names."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence


def shown(value: object) -> str:
    """Returns the repr of what was found, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def listed(names: Iterable[object]) -> str:
    """Returns the names in quotes, the first eight of them, and how many there are if more."""
    return first_of([repr(name) for name in names])


def first_of(texts: Sequence[str], most: int = 8, mark: str = ", ") -> str:
    """Returns the first of the texts, and how many there are if more.

    >>> first_of(["a", "b", "c"], 2)
    'a, b, ... (3 in all)'
    """
    more = f"{mark}... ({len(texts)} in all)" if len(texts) > most else ""
    return mark.join(texts[:most]) + more


def one_of(name: object, names: Iterable[str]) -> str:
    """Returns "expected ..." for a name that is not among ``names``, with the nearest of them if one is near.

    >>> one_of("Ages", ["age", "smoker"])
    "expected one of 'age', 'smoker'; did you mean 'age'?"
    """
    names = list(names)
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f"expected one of {listed(names)}" + (f"; did you mean {folded[near[0]]!r}?" if near else "")


def quoting(value: object) -> str:
    """Returns what to do about a value that should be text and is not."""
    if isinstance(value, bool):
        return "expected text: YAML reads unquoted yes, no, on, off, true and false as booleans, so quote it"
    return f"expected text: quote it, as in {str(value)!r}"


def caller_level() -> int:
    """Returns the ``stacklevel`` at which a warning names the first line outside this package and torch's wrappers."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("pyro_cama", "torch"):
        level, frame = level + 1, frame.f_back
    return level
