"""One thread at a time: what belongs to the process and to no thread is changed under one lock.

Such are Pyro's stack of handlers and its settings, the global generators of torch and numpy, standard output, and the
filters of warnings.  Who runs Pyro, or draws, in other threads beside calls of this package holds the lock too::

    with exclusive():
        svi.step(batch)
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class _Call(threading.local):
    """Whether this thread is in a call that holds the lock from end to end."""

    is_on = False


_lock = threading.RLock()
_nothing = nullcontext()
call = _Call()


def exclusive() -> AbstractContextManager[Any]:
    """Returns the lock: it lets one thread in at a time, who is in may enter again, and others wait.

    Within a call that holds it from end to end nothing is entered that an interrupt could keep from being left.
    """
    return _nothing if call.is_on else _lock


def _forget_holder() -> None:
    """Gives a forked process a lock of its own: who held its parent's may not exist in it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_holder)
