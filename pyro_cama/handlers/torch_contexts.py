"""What surrounds a call, and has no part in what it gives: contexts of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def outside() -> Iterator[None]:
    """Runs torch as if it were outside of the caller's inference mode, autocast and default device.

    Inference mode becomes no_grad, whose tensors can be trained on; where code names no device, it is the CPU.
    """
    with ExitStack() as contexts:
        if torch.is_inference_mode_enabled():
            contexts.enter_context(torch.inference_mode(False))
            contexts.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                contexts.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        yield


def expect_default_dtype() -> None:
    """Refuses a default dtype of torch that is too short for log-densities; it is all threads', and so left alone.

    Raises:
        ValueError: it is neither float32 nor float64.
    """
    if (dtype := torch.get_default_dtype()) not in (torch.float32, torch.float64):
        raise ValueError(
            f"found torch's default dtype {dtype}; expected float32 or float64: call "
            "torch.set_default_dtype(torch.float32) before (to train in less, fit(trainer_kwargs={'precision': ...}))"
        )
