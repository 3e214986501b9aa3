"""The generated networks inside a model or a guide, for tests that set or watch their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def networks(program: nn.Module) -> Any:
    """Returns the networks of ``cama.model`` or ``cama.guide``, by part."""
    return program.get_submodule("networks")


@contextmanager
def calls(module: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What goes into a module and what comes out of it, in all calls inside."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    try:
        yield seen
    finally:
        hook.remove()
