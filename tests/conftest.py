"""Shared by all tests: one thread, fixed seeds, image data where there are any."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch and matplotlib are imported; examples run as subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import signal

import hypothesis
import pyro
import pytest
import torch

from tests.helpers.precision import in_double

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that red means a change; --hypothesis-profile=explore looks further.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seed torch, numpy and random, and leave no parameter of one test to the next."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision in a test; a file whose tests all need it says ``pytestmark = pytest.mark.usefixtures``."""
    with in_double():
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with MNIST and CIFAR."""
    folder = os.environ.get("PYRO_CAMA_DATA")
    if not folder:
        pytest.skip("needs image data: set PYRO_CAMA_DATA to the folder that holds them")
    assert Path(folder).is_dir(), f"PYRO_CAMA_DATA is no folder: {folder}"
    return Path(folder)
