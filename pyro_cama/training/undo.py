"""What a fit that fails or is stopped puts back: a model is trained to the end, or as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_cama.model.pair import ModelGuidePair

Undo = Callable[[], None]


def undo_of_weights(modules: nn.Module, parameters: Sequence[Tensor] = ()) -> Undo:
    """Returns a function that puts modules back as they are now: weights, buffers, which are frozen, device.

    Args:
        modules: whose tensors are copied, on their device.
        parameters: other tensors to put back, too.
    """
    device = next(modules.parameters()).device
    state = {name: value.clone() for name, value in modules.state_dict().items()}
    flags = [(p, p.requires_grad, p.grad) for p in modules.parameters()]
    modes = [(module, module.training) for module in modules.modules()]
    held = {id(p) for p in modules.parameters()}
    others = [(p, p.detach().clone()) for p in parameters if id(p) not in held]

    def undo() -> None:
        modules.to(device)  # Lightning leaves them on the CPU
        modules.load_state_dict(state)
        for parameter, requires_grad, grad in flags:
            parameter.requires_grad_(requires_grad).grad = grad
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for tensor, value in others:
                tensor.copy_(value)

    return undo


def undo_of_pair(pair: ModelGuidePair) -> Undo:
    """Returns a function that puts a pair back as it is now: its modules, what it knows of the data, its sites."""
    held = pair.model, pair.guide, pair.modules, pair.encoder
    adapted = pair.trained, pair.overlaid, pair.modes, pair.usual_evidence
    undo_weights = undo_of_weights(pair.modules)

    def undo() -> None:
        pair.model, pair.guide, pair.modules, pair.encoder = held
        pair.trained, pair.overlaid, pair.modes, pair.usual_evidence = adapted
        undo_weights()

    return undo


@contextmanager
def undone_on_error(undo: Undo) -> Iterator[None]:
    """Calls ``undo`` if anything is raised inside, Ctrl-C too."""
    try:
        yield
    except BaseException:
        undo()
        raise
