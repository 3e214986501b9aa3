"""The bounds of eqs. 3, 4 and 7 as losses of Pyro, for :class:`pyro.infer.SVI` and training loops of one's own."""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor

from pyro_cama.handlers.interventions import Do, Regime
from pyro_cama.inference.bounds import context_of, marginal, mean_bound, shared_term
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.plates import EncodedRows, as_batch


class _RowELBO(ELBO):
    """Sums a per-row bound over the rows of a batch; differentiable, through Pyro's traces."""

    classes = False
    regime: Regime = "interventional"

    def __init__(
        self,
        *,
        samples: int = 1,
        do: Do | None = None,
        rows: int | Tensor | None = None,
        regime: Regime | None = None,
    ) -> None:
        """
        Args:
            samples: draws of the latents.
            do: an intervention on the manipulation latent, e.g. ``{"m": 0.0}``.
            rows: of the whole data, where batches are parts of it and m is shared; of every site, ``(sites,)``, where
                its scope is a column.
            regime: of an m that goes with the class: eq. 4 is "observational", p(m | y) in it, and the others cut the
                edge unless this says otherwise.
        """
        super().__init__(num_particles=samples)  # type: ignore[no-untyped-call]
        self.do = do
        self.rows = rows
        self.regime = self.regime if regime is None else regime

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        """Traces guide and model: Pyro's ELBO wants this of every subclass, and the weights here never call it."""
        return get_importance_trace("flat", float("inf"), model, guide, args, kwargs)

    def bound(self, weights: LogWeights, model: CAMAModel) -> Tensor:
        """Reduces the weights to a bound of every row, ``(rows,)``."""
        return mean_bound(weights)[0]

    def intervention(self, model: CAMAModel) -> Do | None:
        """Returns what ``do`` sets."""
        return self.do

    def differentiable_loss(self, model: CAMAModel, guide: CAMAGuide, data: EncodedRows) -> Tensor:
        """Returns minus the sum of the rows' bounds, log p(a, c) with them."""
        batch = as_batch(data, None)
        do = self.intervention(model)
        asked: dict[str, Any] = {"samples": self.num_particles, "classes": self.classes, "regime": self.regime}
        weights = log_weights(model, guide, batch, do=do, trace=True, **asked)
        counts = None
        if self.rows is not None and weights.shared is not None:
            counts = torch.as_tensor(self.rows, device=weights.w.device).reshape(-1)
            sites = weights.shared.shape[-1]
            if len(counts) != sites:
                raise ValueError(f"rows: expected a number for each of {sites} sites, found {self.rows}")
        rows = self.bound(weights, model) + shared_term(weights, batch.site, counts)
        return -(rows + context_of(weights)).sum()

    def loss(self, model: CAMAModel, guide: CAMAGuide, data: EncodedRows) -> float:
        """Returns the loss as a number, without gradients."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, data))

    def loss_and_grads(self, model: CAMAModel, guide: CAMAGuide, data: EncodedRows) -> float:
        """Returns the loss as a number, and adds its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, data)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())


class InterventionELBO(_RowELBO):
    """The intervention ELBO, eq. 3, for clean labelled rows: do(m=0), or do(m=m0) for a known manipulation.

    Example::

        svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 3e-3}), loss=InterventionELBO())
        svi.step(pair.encode(frame))
    """

    def intervention(self, model: CAMAModel) -> Do | None:
        """Returns ``do``, by default do(m=0)."""
        return {m.name: 0.0 for m in model.graph.manipulations} or None if self.do is None else self.do


class JointELBO(_RowELBO):
    """The joint ELBO, eq. 4, for labelled rows under an unknown manipulation."""

    regime = "observational"


class MarginalELBO(_RowELBO):
    """The marginal ELBO, eq. 7, for rows without labels: logsumexp over the classes."""

    classes = True

    def bound(self, weights: LogWeights, model: CAMAModel) -> Tensor:
        """Sums the ELBO over the classes, eq. 7, ``(rows,)``."""
        return marginal(mean_bound(weights))
