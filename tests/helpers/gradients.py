"""Gradients of a model's parameters, and those of the traced and the grouped log-weights side by side."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_cama import CAMA, Batch
from pyro_cama.inference.log_weights import log_weights


def slopes(cama: CAMA) -> dict[str, Tensor]:
    """Gradients by name; zero where there is none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in cama.modules.named_parameters()
    }


def both_ways(cama: CAMA, batch: Batch, noise: Callable[[], Any], **options: Any) -> None:
    """Compares values and all gradients of the traced and the grouped way, under the same noise."""
    found = []
    for trace in (True, False):
        cama.modules.zero_grad()
        with noise():
            weights = log_weights(cama.model, cama.guide, batch, trace=trace, **options)
        context = weights.context.expand_as(weights.w)
        parts = [weights.w, context, *([] if weights.shared is None else [weights.shared])]
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for part in parts:
            total = total + (part * torch.rand(part.shape, generator=generator, dtype=part.dtype)).sum()
        total.backward()
        found.append(([part.detach() for part in parts], slopes(cama)))
    (traced, traced_slopes), (grouped, grouped_slopes) = found
    assert len(traced) == len(grouped)
    for one, other in zip(traced, grouped, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)
    for name, slope in traced_slopes.items():
        torch.testing.assert_close(slope, grouped_slopes[name], atol=1e-8, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    assert any(slope.any() for slope in traced_slopes.values())
