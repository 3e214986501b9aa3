"""Contexts to run Pyro programs in: without its overhead, and with a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch


@contextmanager
def fast() -> Iterator[None]:
    """Runs Pyro without its parameter store and validation, which nothing in this package reads."""
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


class seeded:
    """Makes draws inside a function of the seed, and leaves the caller's random state as it was."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        self._seed = seed

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *raised: Any) -> None:
        self._fork.__exit__(*raised)
