"""Double precision, where single would hide an error or show one that is none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
