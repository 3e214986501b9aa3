"""Whether rows still come from the world that a model reads: a sequential test whose false alarms are bounded exactly.

A row is told by its evidence log p(x | a, c) and by the class it is read as.  Calibration rows cut the line of the
evidence into bins, for every class by itself: n scores make n + 1 gaps, and a fresh row of the same world falls into
each of them alike, whatever the distribution (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*,
2005).  Of bins of g_1, g_2, ... gaps, after c_1, c_2, ... rows have fallen into them, the next row falls into bin k
with probability (g_k + c_k) / (n + 1 + c): Polya's urn.  That holds for any number of rows, however few calibration
rows there were, and asks for a table of counts alone, which does not grow.

A bet on bins pays its odds against that probability; what a gambler owns is a martingale as long as the world is the
same, and exceeds 1 / level at any time with probability ``level`` at most (Ville's inequality).  The bets are on low,
high, outer and central bins, of several strengths, and begin at every batch with a part of the capital, so that a late
change is not paid for with what was lost before.

Of the class mix nothing is asked, as rows are compared with those of their own class, unless they are read as classes
that (almost) no calibration row was read as, and cannot be compared at all: whether there are more of such is a second
test, by the rank of that fact among rows, equal ones in an order that is drawn.  One half of the calibration rows says
which classes those are, the other how often they come.  Each test has half of the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BINS = 12  # of a class
FEW = 5  # calibration rows of a class: with fewer, as half of them tell, rows that are read as it are strange
_SLOPES = np.array([1.0, 2.5, 6.0, 15.0])  # of bets on low or high evidence
_BULGES = np.array([1.0, 3.0])  # of bets on outer or central evidence
BETS = 2 * (len(_SLOPES) + len(_BULGES))
_DECAY, _TOTAL = 1.1, 10.584448464950803  # a bet of batch t begins with t^-1.1 / zeta(1.1) of the capital


def tilts(places: Floats) -> Floats:
    """Returns what every bet stakes on a row at a place among the ranks, 0 to 1, ``(..., bets)``, up to a factor.

    >>> tilts(np.array([0.05, 0.95]))[:, 0].round(2)
    array([1.57, 0.64])
    """
    side, outer = places[..., None] - 0.5, np.abs(2 * places[..., None] - 1) - 0.5
    return np.exp(np.concatenate([-side * _SLOPES, side * _SLOPES, -outer * _BULGES, outer * _BULGES], -1))


@dataclass(frozen=True, eq=False)
class Urns:
    """Scores of the rows of a world, group by group: bins, and how many gaps and rows are in them.

    Attributes:
        cuts: between bins, increasing, ``(groups, BINS - 1)``; infinite beyond the last bin.
        ties: which of equal scores is the greater: of every cut a number that was drawn, ``(groups, BINS - 1)``.
        counts: gaps of the calibration rows in every bin, and the rows that have fallen into it since, ``(groups,
            BINS)``.
        places: mean rank of a bin's rows at the start, 0 to 1, ``(groups, BINS)``.
    """

    cuts: Floats
    ties: Floats
    counts: Floats
    places: Floats

    @classmethod
    def of(cls, scores: Floats, labels: Codes, classes: int, order: Floats) -> Self:
        """Learns from scores, in no order, of groups; ``order`` are uniform draws, which decide among equal scores.

        >>> found = Urns.of(np.arange(23.0), np.zeros(23, dtype=np.int64), 2, np.zeros(23))
        >>> found.counts[:, :3].tolist(), found.cuts[0, :2].tolist()
        ([[2.0, 2.0, 2.0], [1.0, 0.0, 0.0]], [1.0, 3.0])
        """
        cuts, ties = np.full((classes, BINS - 1), np.inf), np.ones((classes, BINS - 1))
        counts, places = np.zeros((classes, BINS)), np.full((classes, BINS), 0.5)
        for label in range(classes):
            own = labels == label
            sort = np.lexsort((order[own], scores[own]))
            gaps = len(sort) + 1
            bins = min(BINS, gaps)
            edges = np.round(np.linspace(0, gaps, bins + 1)).astype(int)
            at = sort[edges[1:-1] - 1]
            cuts[label, : bins - 1], ties[label, : bins - 1] = scores[own][at], order[own][at]
            counts[label, :bins] = np.diff(edges)
            places[label, :bins] = (edges[1:] + edges[:-1]) / 2 / gaps
        return cls(cuts, ties, counts, places)

    def bins(self, scores: Floats, labels: Codes, ties: Floats) -> Codes:
        """Returns the bin of every row, ``(rows,)``; ``ties`` are uniform draws, which decide among equal scores."""
        cuts = self.cuts[labels]
        above = (cuts < scores[:, None]) | ((cuts == scores[:, None]) & (self.ties[labels] < ties[:, None]))
        return above.sum(1)

    def tally(self, labels: Codes, bins: Codes) -> Floats:
        """Counts rows by class and bin, ``(classes, BINS)``."""
        found = np.zeros_like(self.counts)
        np.add.at(found, (labels, bins), 1.0)
        return found

    def plus(self, tally: Floats) -> Self:
        """Returns it with rows that have come, or, if negative, with rows taken back."""
        return replace(self, counts=self.counts + tally)

    def log_payoffs(self, labels: Codes, bins: Codes) -> Floats:
        """Returns the log of what every bet pays on these rows, one after the other, ``(bets,)``."""
        if not len(labels):
            return np.zeros(BETS)
        stakes = tilts(self.places)
        total = np.zeros(BETS)
        for label in np.unique(labels):  # each class has an urn of its own
            own = bins[labels == label]
            fallen = np.zeros((len(own), BINS))
            fallen[np.arange(1, len(own)), own[:-1]] = 1.0
            urn = self.counts[label] + fallen.cumsum(0)
            fair = (urn / urn.sum(1, keepdims=True)) @ stakes[label]
            total += (np.log(stakes[label][own]) - np.log(fair)).sum(0)
        return total


@dataclass(frozen=True, eq=False)
class Calibration:
    """What rows of a world look like: their evidence, class by class, and which classes are strange there.

    Attributes:
        evidence: of the classes, see :class:`Urns`.
        strangeness: of half of the rows, all classes together.
        strange: which classes, ``(classes,)``.
        rows: that it was learnt from.
    """

    evidence: Urns
    strangeness: Urns
    strange: Codes
    rows: int

    @classmethod
    def of(cls, scores: Floats, labels: Codes, classes: int, seed: int = 0) -> Self:
        """Learns from rows that the model has not seen, in no order.

        Args:
            scores: evidence of every row, ``(rows,)``.
            labels: the class it is read as, ``(rows,)``.
            classes: how many there are.
            seed: of the draws that put equal scores in an order.

        >>> Calibration.of(np.arange(23.0), np.zeros(23, dtype=np.int64), classes=2).strange.tolist()
        [0, 1]
        """
        draws = np.random.default_rng(seed)
        order, first = draws.random(len(scores)), draws.permutation(len(scores)) < len(scores) // 2
        # one half says which classes are strange, the other how often those come: in the former they come too seldom
        strange = (np.bincount(labels[first], minlength=classes) < FEW / 2).astype(np.int64)
        familiar, later = (1 - strange[labels[~first]]).astype(np.float64), order[~first]
        how_often = Urns.of(familiar, np.zeros(len(later), dtype=np.int64), 1, later)
        return cls(Urns.of(scores, labels, classes, order), how_often, strange, len(scores))

    def bins(self, scores: Floats, labels: Codes, ties: Floats) -> Codes:
        """Returns where rows are counted, by evidence and by strangeness, ``(2, rows)``.

        Args:
            scores, labels: as :meth:`of`.
            ties: uniform draws, which decide among equal scores.
        """
        familiar = (1 - self.strange[labels]).astype(np.float64)
        found = self.evidence.bins(scores, labels, ties), self.strangeness.bins(familiar, np.zeros_like(labels), ties)
        return np.stack(found)

    def plus(self, labels: Codes, bins: Codes, sign: float = 1.0) -> Self:
        """Returns it with rows that have come, or, with a sign of -1, with rows taken back."""
        evidence = self.evidence.plus(sign * self.evidence.tally(labels, bins[0]))
        one = np.zeros_like(labels)
        return replace(
            self, evidence=evidence, strangeness=self.strangeness.plus(sign * self.strangeness.tally(one, bins[1]))
        )

    def log_payoffs(self, labels: Codes, bins: Codes) -> Floats:
        """Returns the log of what every bet of both tests pays on rows, one after the other, ``(2, bets)``."""
        one = np.zeros_like(labels)
        return np.stack([self.evidence.log_payoffs(labels, bins[0]), self.strangeness.log_payoffs(one, bins[1])])

    def rejects(self, labels: Codes, bins: Codes, level: float) -> bool:
        """Returns whether rows are not of this world, at a level: what bets on all of them pay, by Markov."""
        found = _log_sum(self.log_payoffs(labels, bins)) - math.log(BETS) - math.log(2)
        return bool(found.max() >= -math.log(level))


@dataclass(frozen=True, eq=False)
class ChangeTest:
    """What bets against an unchanged world have earned since a visit to it began.

    Attributes:
        level: the probability that an unchanged world ever sets off an alarm is at most that.
        batches: of the visit so far.
        capital: log of what the bets of every kind in both tests own together, ``(2, bets)``.
        reserve: what later bets will begin with.
        runs: of every kind of bet, the log of what the best of those that are on has earned, ``(2, bets)``.
        began: with which batch of the visit, counted from 1, that one began, ``(2, bets)``.
    """

    level: float
    batches: int
    capital: Floats
    reserve: float
    runs: Floats
    began: Codes

    @classmethod
    def new(cls, level: float) -> Self:
        """Begins with a visit."""
        return cls(level, 0, np.full((2, BETS), -np.inf), 1.0, np.zeros((2, BETS)), np.ones((2, BETS), dtype=np.int64))

    def after(self, log_payoffs: Floats) -> Self:
        """Returns the test after a batch on which bets paid so much, see :meth:`Calibration.log_payoffs`."""
        batch = self.batches + 1
        stake = batch**-_DECAY / _TOTAL
        capital = np.logaddexp(self.capital, math.log(stake / BETS)) + log_payoffs
        anew = self.runs <= 0
        runs = np.where(anew, 0.0, self.runs) + log_payoffs
        began = np.where(anew, batch, self.began)
        return replace(self, batches=batch, capital=capital, reserve=self.reserve - stake, runs=runs, began=began)

    @property
    def evidence(self) -> float:
        """Log of half the greater martingale: nats of evidence that the world has changed."""
        owned = np.logaddexp(math.log(max(self.reserve, 1e-300)), _log_sum(self.capital))
        return float(owned.max() - math.log(2))

    @property
    def threshold(self) -> float:
        """The evidence at which there is an alarm, log(1 / level)."""
        return -math.log(self.level)

    @property
    def alarms(self) -> bool:
        """Whether the world has changed."""
        return self.evidence >= self.threshold

    @property
    def since(self) -> int:
        """The batch of the visit, counted from 1, with which the bet that earned most began."""
        return int(self.began.flat[self.runs.argmax()])


def _log_sum(values: Floats) -> Floats:
    return np.asarray(np.logaddexp.reduce(values, -1))
