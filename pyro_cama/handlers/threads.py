"""One thread at a time: what belongs to the process and to no thread is changed under one lock.

Such are Pyro's stack of handlers and its settings, the global generators of torch and numpy, standard output, and the
filters of warnings.  Who runs Pyro, or draws, in other threads beside calls of this package holds the lock too::

    with exclusive():
        svi.step(batch)
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager

_lock = threading.RLock()


def exclusive() -> AbstractContextManager[bool]:
    """Returns the lock: it lets one thread in at a time, who is in may enter again, and others wait."""
    return _lock


def _forget_holder() -> None:
    """Gives a forked process a lock of its own: who held its parent's may not exist in it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_holder)
