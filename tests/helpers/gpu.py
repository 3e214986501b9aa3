"""Tests that need a GPU: ``pytest -m gpu`` takes them alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

_SKIPPED = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is False")


def needs_gpu(test: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a test."""
    return pytest.mark.gpu(_SKIPPED(test))


DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _SKIPPED])]
"""For ``pytest.mark.parametrize``."""
