"""The generated networks inside a model or a guide, for tests that set or watch their weights."""

from typing import Any

from torch import nn


def networks(program: nn.Module) -> Any:
    """Returns the networks of ``cama.model`` or ``cama.guide``, by part."""
    return program.get_submodule("networks")
