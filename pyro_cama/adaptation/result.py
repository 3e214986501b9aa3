"""What an adaptation comes to: its candidates, and the record of what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

Theta = tuple[tuple[float, ...], ...]
"""A tuple a site: one in the scopes row, where it is the rows' mean, and dataset."""


@dataclass(frozen=True)
class Candidate:
    """One start of the adaptation, optimised.

    Attributes:
        start: where it began: "here", "moments", "sleep" or "random k".
        evidence: log p(x | a, c) of every new row, ``(rows,)``, in nats.
        labels: the most probable class of every new row, ``(rows,)``.
        proportions: of the classes among the new rows, ``(classes,)``.
        recovery: how often the adapted model recognises the class of rows it made itself and manipulated as it now
            believes the world does.
        penalty: what the prior of a shared theta takes off the evidence, in nats a row.
        state: of model and guide.
        theta: see :class:`Adaptation`.
        counted: rows that the proportions are of, if not of those that have labels here.
        generated: rows that the recovery is of; 0 for a recovery known exactly.
    """

    start: str
    evidence: Tensor
    labels: Tensor
    proportions: Tensor
    recovery: float
    state: dict[str, Tensor]
    penalty: float = 0.0
    theta: Theta = ()
    counted: int = 0
    generated: int = 0


@dataclass(frozen=True)
class Adaptation:
    """What :meth:`CAMA.adapt` decided, and why.

    Attributes:
        accepted: False means that the copy predicts exactly as the original.
        reason: the decision in a sentence.
        applied: whether the copy carries the change: it was accepted, or to be kept always.
        evidence_before, evidence_after: winsorised mean of log p(x | a, c) over the new rows, in nats; the latter
            is cross-fitted.
        gain_se: standard error of their difference.
        proportions_before, proportions_after: predicted class proportions of the new rows.
        agreement: share of new rows on which the starts of about equal evidence agree.
        recovery: see :class:`Candidate`, beside that of the unadapted model on unmanipulated rows.
        start: the start that won.
        rows: how many new rows there were.
        class_prior: class proportions the adaptation settled on, for ``predict(class_prior=...)``.
        theta: of the best candidate, a tuple a site (one in the scopes row, where it is the rows' mean, and dataset).
        replicates: the same of every fold, adapted to the other rows.
        sites: the sites that had new rows, in a scope that has sites.
    """

    accepted: bool
    reason: str
    evidence_before: float
    evidence_after: float
    gain_se: float
    proportions_before: tuple[float, ...]
    proportions_after: tuple[float, ...]
    agreement: float
    recovery: float
    recovery_before: float
    start: str
    rows: int
    class_prior: tuple[float, ...]
    theta: Theta = ()
    replicates: tuple[Theta, ...] = ()
    sites: tuple[Any, ...] = ()
    applied: bool = False

    def __str__(self) -> str:
        return (
            f"{'kept' if self.accepted else 'not kept'}: {self.reason} (evidence {self.evidence_before:.2f} -> "
            f"{self.evidence_after:.2f} nats a row, start {self.start!r}, agreement {self.agreement:.0%})"
        )
