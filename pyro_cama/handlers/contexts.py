"""Contexts to run Pyro programs in: without its overhead, with a seed, one thread at a time, on one core."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import wraps
from traceback import clear_frames
from typing import NamedTuple, ParamSpec, Self, TypeVar

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from torch import Tensor

from pyro_cama.handlers.threads import call, exclusive
from pyro_cama.handlers.torch_contexts import expect_default_dtype, outside

P = ParamSpec("P")
R = TypeVar("R")
SETTINGS = ("module_local_params", "validate_distributions_pyro", "validate_distributions_torch", "validate_infer",
            "validate_poutine")  # fmt: skip


@contextmanager
def fast() -> Iterator[None]:
    """Runs Pyro without its parameter store and validation, which nothing in this package reads."""
    with exclusive(), pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Makes draws inside a function of the seed, and leaves the caller's random state as it was."""
    with exclusive(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_core() -> Iterator[None]:
    """Runs torch's operators on one core, and gives the caller's number of them back.

    Others would start and end for every operator, and wait for one another, for longer than a small one takes.
    """
    with exclusive():
        before = torch.get_num_threads()
        if before == 1:
            yield
            return
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(before)


class _Found(NamedTuple):
    """Pyro's handlers, dimensions of plates and settings as a thread found them; its gradients, cores and generator."""

    thread: int
    handlers: tuple[Messenger, ...]
    plates: tuple[str | None, ...]
    settings: dict[str, bool]
    gradients: bool
    cores: int
    random: Tensor

    @classmethod
    def now(cls) -> Self:
        settings = {name: pyro.settings.get(name) for name in SETTINGS}
        handlers, plates = tuple(_PYRO_STACK), tuple(_DIM_ALLOCATOR._stack)
        gradients, cores = torch.is_grad_enabled(), torch.get_num_threads()
        return cls(threading.get_ident(), handlers, plates, settings, gradients, cores, torch.get_rng_state())

    def put_back(self) -> None:
        _PYRO_STACK[:] = self.handlers
        _DIM_ALLOCATOR._stack[:] = self.plates
        pyro.settings.set(**self.settings)
        torch.set_grad_enabled(self.gradients)
        if torch.get_num_threads() != self.cores:
            torch.set_num_threads(self.cores)


_found: _Found | None = None  # by the outermost call that is on


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function run in one thread at a time, and leave Pyro's handlers and settings as they were.

    Contexts do so too, but for an interrupt that strikes while one is being entered or left.  The caller's contexts of
    torch do not reach inside, see :func:`~pyro_cama.handlers.torch_contexts.outside`.
    """

    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            expect_default_dtype()
            with outside():
                return function(*args, **kwargs)
        except KeyboardInterrupt as stop:
            clear_frames(stop.__traceback__)  # contexts that it kept from being left are left now, and not later
            raise

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        global _found
        with exclusive():
            outer, within, found = _found, call.is_on, _Found.now()
            try:
                _found, call.is_on = outer or found, True
                return copy_context().run(whole, *args, **kwargs)
            except KeyboardInterrupt:
                torch.set_rng_state(found.random)  # it may have struck where a context put that back
                raise
            finally:
                _found, call.is_on = outer, within
                try:
                    found.put_back()
                except KeyboardInterrupt:
                    found.put_back()
                    raise

    return alone


def _leave_others_call() -> None:
    """Takes a forked process out of a call that another thread of its parent was in."""
    global _found
    if _found is not None and _found.thread != threading.get_ident():
        _found.put_back()
        _found = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_others_call)
