"""The loss of :func:`pyro_cama.training.objective.fit_loss` over labelled rows, all at once, where classes differ in
their means alone.

The rows are laid out once (:mod:`pyro_cama.inference.discriminant`), and what an epoch takes of them is a product with
as many numbers a row as there are classes and dimensions of the style.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.inference.discriminant import Rows, classes_of, differ_in_means, scored, styled
from pyro_cama.mechanisms.base import Line
from pyro_cama.model.generative_model import CAMAModel


def can_sum(model: CAMAModel, batch: Batch) -> bool:
    """Returns whether the loss of these rows, under do(m=0), is a function of such products."""
    return model.graph.target not in batch.observed and differ_in_means(model, batch, moved=False)


class SummedLoss:
    """The loss of some rows.

    Args:
        model: under do(m=0).
        batch: rows of which :func:`can_sum` holds.
        conditional_weight: of log p(y | x).
    """

    def __init__(self, model: CAMAModel, batch: Batch, conditional_weight: float) -> None:
        self.model, self.batch, self.weight, self.rows = model, batch, conditional_weight, batch.rows
        x = torch.cat([group.stack(batch.values) for group in styled(model)], -1).double().mT.contiguous()
        self.laid = Rows.of(x[None], x.new_ones(1, 1, batch.rows))
        nothing = x.new_zeros(1, 1, len(x))
        self.lines = Line(nothing + 1, nothing, nothing, nothing)
        self.rest = None if model.graph.m is None else x.new_zeros(model.graph.m.dim).to(model.like)
        self.y = batch.values[model.graph.target].long()

    def __call__(self) -> Tensor:
        """Returns the mean over the rows."""
        return self._loss(*self._scored())

    def validated(self) -> dict[str, float]:
        """Returns the loss and the accuracy."""
        with torch.no_grad():
            shared, joint = self._scored()
            right = int((joint.argmax(0) == self.y).sum())
            return {"loss": float(self._loss(shared, joint)), "accuracy": right / self.rows}

    def _scored(self) -> tuple[Tensor, Tensor]:
        """What all classes have in common, summed over rows, and the rest of log p(x, y), ``(classes, rows)``."""
        causes = self.model.causes(self.batch, None, self.rest, samples=1, classes=True)
        shared, apart = scored(self.laid, classes_of(self.model, causes), self.lines)
        rest, context = self.model.log_prob_given(causes, self.batch, classes=True, style=False)
        return shared.sum() + context.expand(self.rows).sum(), apart[0, 0] + rest.reshape(self.model.classes, -1)

    def _loss(self, shared: Tensor, joint: Tensor) -> Tensor:
        error = F.cross_entropy(joint.mT, self.y, reduction="sum")
        of_label = shared + joint.gather(0, self.y[None]).sum()
        return (self.weight * error - of_label) / self.rows
