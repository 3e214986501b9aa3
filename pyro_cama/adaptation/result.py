"""What an adaptation comes to: its candidates, and the record of what was decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from pyro_cama import _html
from pyro_cama._messages import listed
from pyro_cama.adaptation.expected_accuracy import Accuracy

BEHIND = 1.0  # nats a row: a start that is so far from the best is not near it

Theta = tuple[tuple[float, ...], ...]
"""A tuple a site: one in the scopes row, where it is the rows' mean, and dataset."""


@dataclass(frozen=True)
class Candidate:
    """One start of the adaptation, optimised.

    Attributes:
        start: where it began: "here", "moved", "moments", "alternatives", "sleep", "sleep, ... alone" (one family of
            theta's numbers) or "random k".
        evidence: log p(x | a, c) of every new row, ``(rows,)``, in nats.
        probabilities: p(y | x) of every new row, ``(classes, rows)``.
        proportions: of the classes among the new rows, ``(classes,)``.
        recovery: how often the adapted model recognises the class of rows it made itself and manipulated as it now
            believes the world does.
        penalty: what the prior of a shared theta takes off the evidence, in nats a row.
        state: of NN_pM and NN_qM, by name.
        theta: see :class:`Adaptation`.
        counted: rows that the proportions are of, if not of those that have labels here.
        generated: rows that the recovery is of; 0 for a recovery known exactly.
    """

    start: str
    evidence: Tensor
    probabilities: Tensor
    proportions: Tensor
    recovery: float
    state: dict[str, Tensor]
    penalty: float = 0.0
    theta: Theta = ()
    counted: int = 0
    generated: int = 0

    @property
    def labels(self) -> Tensor:
        """The most probable class of every new row, ``(rows,)``."""
        return self.probabilities.argmax(0)


class Modes(NamedTuple):
    """What predictions average over.

    Attributes:
        starts: those of the adaptation, the winner first.
        others: that no evidence was asked about: the moments of the new rows, the model as it was.
        alone: whether the winner is believed by itself.
    """

    starts: list[Candidate]
    others: list[Candidate]
    alone: bool

    @property
    def averaged(self) -> list[Candidate]:
        """Those that are, the winner first."""
        return self.starts[:1] if self.alone else [*self.starts, *self.others]

    @property
    def labels(self) -> Tensor:
        """The most probable class of every new row, ``(rows,)``."""
        return torch.stack([one.probabilities for one in self.averaged]).mean(0).argmax(0)

    def sureness(self, labels: Tensor) -> float:
        """Returns the mean of what the starts together say of these labels, p(y | x), but for those left behind."""
        evidence = [float(one.evidence.mean()) for one in self.starts]
        best = max((value for value in evidence if not math.isnan(value)), default=math.nan)
        near = [
            one.probabilities for one, value in zip(self.starts, evidence, strict=True) if not value < best - BEHIND
        ]
        said = torch.stack(near).mean(0)
        return float(said.gather(0, labels[None]).nanmean())


class CrossFit(NamedTuple):
    """New rows under models adapted to other rows than they.

    Attributes:
        evidence: log p(x | a, c) of every row, ``(rows,)``, in nats.
        labels: their most probable classes, ``(rows,)``.
        replicates: every fold's theta.
    """

    evidence: Tensor
    labels: Tensor
    replicates: tuple[Theta, ...]


@dataclass(frozen=True)
class Adaptation:
    """What :meth:`CAMA.adapt` decided, and why.

    Attributes:
        accepted: False means that the copy predicts exactly as the original, but for what is ``overlaid``.
        reason: the decision in a sentence.
        applied: whether the copy carries the change: it was accepted, or to be kept always.
        evidence_before, evidence_after: winsorised mean of log p(x | a, c) over the new rows, in nats; the latter
            is cross-fitted.
        gain_se: standard error of their difference.
        proportions_before, proportions_after: predicted class proportions of the new rows.
        agreement: least share of new rows on which the adapted model agrees with the starts of about equal evidence,
            and with itself as adapted without those rows.
        accuracy_before, accuracy_after: the share of new rows that the model reads rightly without the change and with
            it, estimated, each with an interval: :mod:`pyro_cama.adaptation.expected_accuracy`.
        recovery: see :class:`Candidate`, beside that of the unadapted model on unmanipulated rows.
        start: the start that won.
        rows: how many new rows there were.
        class_prior: class proportions for ``predict(class_prior=...)``: those that the adaptation settled on, or, where
            the change was not applied, the mix that explains the rows by itself, or else those that were expected.
        theta: of the best candidate, a tuple a site (one in the scopes row, where it is the rows' mean, and dataset).
        replicates: the same of every fold, adapted to the other rows.
        of_rows: in scope row theta of some of the new rows, where the change was applied.
        manipulations: names of those that it moved.
        sites: the sites that had new rows, in a scope that has sites.
        overlaid: names of images over which something lies in most of the new rows: whatever was decided about m, the
            copy takes pixels that seem hidden for unknown.
        unread: names of children without a reading among the new rows: of their theta nothing is known.
        earlier: adaptations before this one whose changes the copy still carries, the newest first.
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
    accuracy_before: Accuracy
    accuracy_after: Accuracy
    theta: Theta = ()
    replicates: tuple[Theta, ...] = ()
    of_rows: Theta = ()
    manipulations: tuple[str, ...] = ()
    sites: tuple[Any, ...] = ()
    overlaid: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    applied: bool = False
    earlier: tuple[Adaptation, ...] = ()

    def after(self, previous: Adaptation | None) -> Self:
        """Returns the record with what it leaves standing of the adaptation before it, and of those before that."""
        if previous is None:
            return self
        chain = (replace(previous, earlier=()), *previous.earlier)

        def stands(other: Adaptation) -> bool:
            untouched = {*other.manipulations} - {*self.manipulations} or {*other.sites} - {*self.sites}
            return other.applied and (not self.applied or bool(untouched))

        return replace(self, earlier=tuple(filter(stands, chain)))

    @property
    def together(self) -> tuple[Adaptation, ...]:
        """This one, and those before it of other manipulations, whose changes stand beside its own."""
        return (self, *(one for one in self.earlier if not {*one.manipulations} & {*self.manipulations}))

    def carried(self, manipulation: str, site: Any = None) -> Adaptation | None:
        """Returns the adaptation whose change of a manipulation the copy carries; None if none.

        Args:
            site: where a column is its scope.
        """
        chain = (self, *self.earlier)
        fits = (a for a in chain if a.applied and manipulation in a.manipulations)
        return next((a for a in fits if site is None or site in a.sites), None)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Returns the record that ``dataclasses.asdict`` and JSON have made lists and mappings of."""
        earlier = tuple(cls.from_json(one) for one in stored["earlier"])
        accuracies = {name: Accuracy(*stored[name]) for name in ("accuracy_before", "accuracy_after")}
        return cls(**{name: _tuples(value) for name, value in stored.items()} | accuracies | {"earlier": earlier})

    def __repr__(self) -> str:
        return f"<Adaptation: {self}>"

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, classes: Sequence[Any] = ()) -> str:
        """Returns the decision, and what it rests on, as HTML for a notebook.

        Args:
            classes: the names of the classes; left out, they are numbered.
        """
        names = classes or range(len(self.proportions_before))
        shares = zip(names, self.proportions_before, self.proportions_after, strict=True)
        gain = self.evidence_after - self.evidence_before
        low, high = (gain + side * 1.96 * self.gain_se for side in (-1, 1))
        rows = [
            ("accuracy, estimated (nine of ten lie within)", str(self.accuracy_before), str(self.accuracy_after)),
            ("evidence, nats a row", f"{self.evidence_before:.2f}", f"{self.evidence_after:.2f}"),
            *((f"share of class {name}", f"{a:.1%}", f"{b:.1%}") for name, a, b in shares),
            ("generated rows recognised", f"{self.recovery_before:.1%}", f"{self.recovery:.1%}"),
        ]
        said = (
            f"{self.rows} rows without labels; evidence gained {gain:.2f} [{low:.2f}, {high:.2f}] nats a row; start "
            f"{self.start!r}; starts agree on {self.agreement:.1%} of the rows"
            f"{f'; something lies over {listed(self.overlaid)}' if self.overlaid else ''}"
        )
        badge = ("kept", "good") if self.accepted else ("applied, not trusted" if self.applied else "not kept", "bad")
        return _html.card(self.reason, _html.table(rows, ("", "before", "after")), _html.paragraph(said), badge=badge)

    def __str__(self) -> str:
        if len(self.together) > 1:
            return "; ".join(f"{listed(one.manipulations)}: {one._verdict()}" for one in self.together)
        return self._verdict()

    def _verdict(self) -> str:
        over = f"; something lies over most images {listed(self.overlaid)}: hidden pixels count as unknown"
        estimated = f"; estimated accuracy {self.accuracy_before} without the change, {self.accuracy_after} with it"
        known = math.isfinite(self.evidence_after)
        return (
            f"{'kept' if self.accepted else 'not kept'}: {self.reason}{estimated if known else ''}"
            f"{over if self.overlaid else ''}"
        )


def _tuples(value: Any) -> Any:
    """Returns JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
