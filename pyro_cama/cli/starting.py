"""The start of a command: torch and Pyro take seconds to import, and who waits is told so."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SAID = "loading torch and Pyro ..."


def shows_progress() -> bool:
    """Returns whether somebody watches, for whom a bar is shown."""
    return sys.stderr.isatty()


@contextmanager
def starting() -> Iterator[None]:
    """Imports inside, and says so on a terminal where it will take long; the line goes again.

    The first time the garbage collector rests meanwhile, and leaves what was imported alone from then on: it is there
    until the process ends, and looking for garbage in it, again and again and once more at the end, is a third of what
    a command takes to start.
    """
    first = "pyro" not in sys.modules
    says = first and shows_progress()
    collects = gc.isenabled()
    if says:
        print(_SAID, end="", file=sys.stderr, flush=True)
    gc.disable()
    try:
        yield
        if first:
            gc.freeze()
    finally:
        if collects:
            gc.enable()
        if says:
            print("\r" + " " * len(_SAID), end="\r", file=sys.stderr, flush=True)
