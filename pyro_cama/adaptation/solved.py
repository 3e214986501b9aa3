"""The starts of an adaptation side by side, without draws: theta itself is solved for.

Where a linear style is summed out, eq. 7 is exact, and smooth in the theta of a shared m.  So every start, and every
fold of the winner, is a problem of its own in one stack (:mod:`pyro_cama.training.stacked_lbfgs`), after which NN_pM
and NN_qM are set to stand at what was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.adaptation.candidates import state_of
from pyro_cama.adaptation.initialisation import (
    absent_sites,
    random_theta,
    set_theta,
    statistics_of,
    theta_at_moments,
    theta_of_moved,
    thetas_of,
)
from pyro_cama.adaptation.new_rows import NewRows, split_folds
from pyro_cama.adaptation.objective import log_train
from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.recovery import recovery_of
from pyro_cama.adaptation.result import BEHIND, Candidate, CrossFit, Modes, Theta
from pyro_cama.adaptation.stacked_search import search_stacked
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.bounds import sites_at_rest
from pyro_cama.inference.class_prior import imagined_rows
from pyro_cama.inference.comparison import winsorised
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.exact import joint_of_thetas, solves_exactly, summed_evidence, units_of
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.training.stacked_lbfgs import minimise_stacked, rooted, unrooted

NUMBERS = 2**21  # in the largest tensor of a solve: where rows are more, some are taken
CORNER = 0.02  # prior scales within which the Laplace prior is round
TOLERANCE = 5e-5  # of the mean evidence, relative: a hundredth of what a kept change has to gain
WORTH = 5.0  # nats over all rows that a larger change has to gain
RESTORED = 0.95  # share of the evidence lost, of what is explained as well as the training table
RAW_SCALE = -16.0  # of q(m): NN_pM carries a large theta, and q should not blur it


def can_solve(pair: ModelGuidePair, batch: Batch) -> bool:
    """Returns whether theta can be solved for: rows share m, no draw is needed, and NN_pM reaches every site's theta.

    NN_pM is linear in m, so that no more sites than ``dim`` of m can stand each where it wants.
    """
    by_row = {m.name for m in pair.graph.manipulations if m.per_row}
    if pair.moves_by_row or by_row & pair.trained or not solves_exactly(pair.model, pair.guide, batch):
        return False
    moved = torch.atleast_1d(~sites_at_rest(pair.guide))
    if batch.site is not None:
        moved = moved | ~absent_sites(pair, batch)
    return all(int(moved.sum()) <= m.dim for m in pair.graph.manipulations if m.name in pair.moving)


@dataclass(frozen=True)
class Problem:
    """An optimisation among those side by side.

    Attributes:
        start: its name.
        theta: where it begins, and after :meth:`Solved.solve` where it ended, ``(sites, size)``.
        weights: of the rows, 1 or 0, ``(rows,)``.
        learns: whether class proportions may change.
        ratio: log of the class proportions over the training ones, ``(classes,)``.
    """

    start: str
    theta: Tensor
    weights: Tensor
    learns: bool
    ratio: Tensor


class _Race:
    """Ends the solving of several starts when the best has been waited for as long again as it took.

    A start that is not where another one ended, nor near it, after twice as many steps does not win any more.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar, self.steps, self.ended, self.last = bar, 0, 0, torch.zeros(())

    def __call__(self, _: Tensor, losses: Tensor) -> bool:
        """Takes in a step; returns whether it was the last."""
        self.bar.update()
        self.steps += 1
        at_rest = losses == self.last
        self.last = losses
        if not self.ended and bool(at_rest.any()):
            self.ended = self.steps
        behind = at_rest | (losses > losses.min() + BEHIND)
        return 0 < 2 * self.ended <= self.steps and bool(behind.all())


class Solved:
    """Candidates of an adaptation, all optimised at once.

    Args:
        pair: a copy of the unadapted model, with a place for the sites of the new rows; its weights are frozen.
        new, options: of the adaptation; ``steps`` is the most that a problem takes, draws and minibatches have no part.
        progress: shows a bar.

    Attributes:
        slack, preferred: see :class:`pyro_cama.adaptation.drawn.Drawn`: the least change that explains rows as well.
    """

    agree = 0.0  # labels that differ are averaged
    preferred = ("here", "moved", "moments", "alternatives")

    def __init__(self, pair: ModelGuidePair, new: NewRows, options: AdaptOptions, progress: bool) -> None:
        self.pair, self.new, self.options = pair, new, options
        self.slack = max(0.01, WORTH / new.batch.rows)
        pair.modules.requires_grad_(False)  # gradients of theta alone are asked for
        self.bar: tqdm[Any] = tqdm(total=2 * options.steps, desc="adapt", disable=not progress, leave=False)
        self.folds = split_folds(new.batch.rows, new.folds, pair.settings.seed)
        self.used = self._used()
        self.part = new.batch.select(self.used.to(pair.device))
        self.scale = pair.manipulation.prior_scale()
        self.free = pair.manipulation.of_latents(pair.moving)
        self.train = log_train(pair)
        self.units = units_of(pair.model, self.part)
        self.problems: list[Problem] = []

    def starts(self) -> list[Candidate]:
        """Solves every start on the rows that are not held out, and examines it."""
        with self.pair.seeded(), fast(), self.pair.manipulation.calibrated():
            begun = [self._begun(k, torch.ones(len(self.used))) for k in range(self.options.restarts)]
            self.problems = self.solve(begun, race=True)
        return self._examined(self.problems)

    def examined(self, best: Candidate) -> Candidate:
        """Returns the winner with its recovery, which only the guard asks for."""
        twin = self.pair.copy()
        twin.load_manipulation(best.state)
        twin.trained |= {*twin.moving}
        do = encode_do(twin, "auto")
        return replace(best, recovery=recovery_of(twin, self.new.compared, do, self.options))

    def modes(self, best: Candidate, candidates: list[Candidate], before: Candidate, fit: CrossFit) -> Modes:
        """Returns what predictions average over: the starts, the new rows' moments, and the model as it was.

        The moments are those of the winner's mix of classes.  No evidence tells a right basin from a wrong one, but
        their errors differ.  The winner alone is believed where it explains held-out new rows as well as the model
        explained its own table.
        """
        pair, everything = self.pair, torch.ones(len(self.used))
        here = torch.atleast_2d(thetas_of(pair))
        at_moments = self._allowed(self.part, theta_at_moments(pair, self.part, best.proportions).to(here), here)
        begun = {"moments of the mix": at_moments, "as it was": here}
        others = self._examined([Problem(name, at, everything, False, self.new.fixed) for name, at in begun.items()])
        starts = [best, *(other for other in candidates if other.state is not best.state)]
        worse, now = (float(winsorised(evidence).mean()) for evidence in (before.evidence, fit.evidence))
        return Modes(starts, others, alone=now >= worse + RESTORED * max(pair.usual_evidence - worse, 0.0))

    def cross_fit(self, k: int | None) -> CrossFit:
        """Solves for every fold's rows without them, from the k-th start; see :meth:`Drawn.cross_fit`."""
        with self.pair.seeded(), fast(), self.pair.manipulation.calibrated():
            outside = [torch.isin(self.used, part, invert=True).float() for part in self.folds]
            solved = self.solve([self._begun(k, weights) for weights in outside])
        evidence = torch.empty(self.new.batch.rows, dtype=torch.float64)
        labels = torch.empty(self.new.batch.rows, dtype=torch.long)
        for part, problem in zip(self.folds, solved, strict=True):
            rows = self.new.batch.select(part.to(self.pair.device))
            evidence[part] = self._evidence(rows, [problem])[0]
            labels[part] = self._log_posterior(rows, [problem])[0].argmax(0).cpu()
        return CrossFit(evidence, labels, tuple(_listed(problem.theta) for problem in solved))

    def anchored(self) -> Candidate:
        """Solves from no manipulation, the class proportions held at the expected ones."""
        with self.pair.seeded(), fast(), self.pair.manipulation.calibrated():
            solved = self.solve([self._begun(None, torch.ones(len(self.used)))])
        return self._examined(solved)[0]

    def solve(self, begun: list[Problem], *, race: bool = False) -> list[Problem]:
        """Maximises every problem's mean evidence, less theta's Laplace prior and that of the class proportions.

        Args:
            race: they are of the same rows, and the best is what is wanted; see :class:`_Race`.
        """
        pair, new, options, train = self.pair, self.new, self.options, self.train.double()
        weights = torch.stack([problem.weights for problem in begun]).to(pair.device, torch.float64)
        learns = torch.tensor([[problem.learns] for problem in begun], device=weights.device)
        first = torch.stack([problem.theta for problem in begun]).to(weights)
        of_rows = summed_evidence(pair.model, self.part, weights)
        count, sites, size = first.shape
        numbers, rows = sites * size, weights.sum(1).clamp_min(1.0)
        imagined = imagined_rows(rows, new.ambiguity)
        felt, units, even = pair.manipulation.felt(first), self.units, pair.manipulation.even()
        switches = self.scale.isinf()  # of an infinite scale: no gradient moves them
        moves = bool(self.free.all())
        scale = torch.where(switches, 1.0, self._scale_at(felt))
        present = torch.ones(sites) if self.part.site is None else ~absent_sites(pair, self.part)
        expected, present = torch.softmax(train + new.fixed, 0), present.to(weights)

        def ratio_of(free: Tensor) -> Tensor:
            free = torch.where(learns, free, 0.0)
            return torch.log_softmax(train + new.fixed + free, -1) - train

        def theta_of(x: Tensor) -> Tensor:
            theta = unrooted(x[:, :numbers].reshape(count, sites, size) * units, even) * felt
            return theta if moves else torch.where(self.free, theta, first)

        def loss(x: Tensor) -> Tensor:
            theta, ratio = theta_of(x), ratio_of(x[:, numbers:])
            total = of_rows(theta, ratio) + imagined * (expected * (train + ratio)).sum(1)
            moved = torch.where(switches, 0.0, theta / scale)
            extent = pair.manipulation.extent(moved, CORNER) @ present
            return (options.sparsity * extent - total) / rows

        start = torch.cat(
            [(rooted(first / felt, even) / units).flatten(1), torch.zeros(count, len(train)).to(weights)], 1
        )
        watch = _Race(self.bar) if race else lambda *_: self.bar.update()
        found = minimise_stacked(loss, start, steps=options.steps, tolerance=TOLERANCE, each=watch)
        thetas = theta_of(found).to(pair.model.like)
        ratios = ratio_of(found[:, numbers:]).to(pair.model.like)
        ended = zip(begun, thetas, ratios, strict=True)
        return [replace(problem, theta=theta, ratio=ratio) for problem, theta, ratio in ended]

    def _scale_at(self, felt: Tensor) -> Tensor:
        """The prior scales of theta where steps are felt so; noise is not easier to believe in a larger unit."""
        return self.scale * torch.where(self.pair.manipulation.even(), 1.0, felt).clamp_min(1.0)

    def _begun(self, k: int | None, weights: Tensor) -> Problem:
        """The k-th start, on the rows it weighs.

        0 is at their training moments, alternatives tried; 1 where the model is; 2 moves what no mix of the classes
        explains; others are random.
        None is no manipulation, the class proportions held.
        """
        pair, sites = self.pair, self.pair.model.sites
        own = self.part.select(torch.nonzero(weights).flatten().to(pair.device))
        here = torch.atleast_2d(thetas_of(pair))
        if k is None:
            start, theta = "identity", torch.zeros_like(here)
        elif k == 2:
            start, theta = "moved", theta_of_moved(pair, own).to(here)
        elif k == 0:
            start, theta = "moments", theta_at_moments(pair, own).to(here)
        elif k == 1:
            start, theta = "here", here.clone()
        else:
            start, theta = f"random {k - 2}", torch.stack([random_theta(pair) for _ in range(sites)]).to(here)
        theta = self._allowed(own, theta, here)
        if k == 0:  # a fold searches by itself: what the whole batch found was chosen with a look at what it holds out
            found = search_stacked(pair, own, theta, statistics_of(pair))
            start, theta = start if torch.equal(found, theta) else "alternatives", found
        return Problem(start, theta, weights, self.options.learns_proportions and k is not None, self.new.fixed)

    def _allowed(self, part: Batch, theta: Tensor, here: Tensor) -> Tensor:
        """Returns theta where a site has rows in a part and a manipulation moves, and elsewhere where it stands now.

        Shapes are ``(sites, size)``.
        """
        theta = torch.where(self.free, theta, here)
        if part.site is None:
            return theta
        return torch.where(absent_sites(self.pair, part)[:, None], here, theta)

    def _examined(self, problems: list[Problem]) -> list[Candidate]:
        """What candidates are compared by, but for recovery."""
        new, pair = self.new, self.pair
        evidence = self._evidence(new.compared, problems)
        counted = self._log_posterior(new.counted, problems)
        penalty = self._penalties(problems)
        twin, found = pair.copy(), []
        for i, problem in enumerate(problems):
            with twin.seeded():
                set_theta(twin, self.part, problem.theta, RAW_SCALE)
            found.append(
                Candidate(
                    start=problem.start,
                    evidence=evidence[i],
                    probabilities=counted[i].exp().cpu()[:, : new.compared.rows],
                    proportions=counted[i].exp().mean(1).cpu(),
                    counted=new.counted.rows,
                    generated=self.options.recovery_rows,
                    recovery=math.nan,
                    state=state_of(twin),
                    penalty=penalty[i] / new.compared.rows,
                    theta=_listed(problem.theta),
                )
            )
        return found

    def _penalties(self, problems: list[Problem]) -> list[float]:
        """Minus the log-prior of every theta."""
        theta = torch.stack([problem.theta for problem in problems])
        manipulation = self.pair.manipulation
        extent = manipulation.extent(theta / self._scale_at(manipulation.felt(theta)))
        found: list[float] = (self.options.sparsity * extent.sum(1)).tolist()
        return found

    def _evidence(self, batch: Batch, problems: list[Problem]) -> Tensor:
        """log p(x | a, c), as adaptation compares it, ``(problems, rows)``."""
        with self.pair.manipulation.calibrated():
            parts = self._joints(batch, problems)
            return torch.cat([torch.logsumexp(joint, 1) + context for joint, context in parts], 1).double().cpu()

    def _log_posterior(self, batch: Batch, problems: list[Problem]) -> Tensor:
        """log p(y | x, a, c), ``(problems, classes, rows)``."""
        return torch.cat([torch.log_softmax(joint, 1) for joint, _ in self._joints(batch, problems)], 2)

    def _joints(self, batch: Batch, problems: list[Problem]) -> list[tuple[Tensor, Tensor]]:
        """log p(x, y | a, c) under every problem's class proportions, and log p(a, c), rows in chunks."""
        theta = torch.stack([problem.theta for problem in problems])
        ratio = torch.stack([problem.ratio for problem in problems])[:, :, None]
        chunk, found = max(1, NUMBERS // (len(problems) * self.pair.model.numbers_per_row)), []
        with torch.no_grad(), fast():
            for rows in torch.arange(batch.rows, device=self.pair.device).split(chunk):
                joint, context = joint_of_thetas(self.pair.model, batch.select(rows), theta)
                found.append((joint + ratio, context))
        return found

    def _used(self) -> Tensor:
        """Numbers of the rows that are solved on: all that none is held out from, or some of them."""
        rows, problems = self.new.adapted_to, max(self.options.restarts, self.new.folds)
        most = max(256, NUMBERS // (problems * self.pair.model.numbers_per_row))
        if len(rows) <= most:
            return rows
        generator = torch.Generator().manual_seed(self.pair.settings.seed + 1)  # another order than that of the folds
        return rows[torch.randperm(len(rows), generator=generator)[:most]]


def _listed(theta: Tensor) -> Theta:
    return tuple(tuple(site) for site in theta.tolist())
