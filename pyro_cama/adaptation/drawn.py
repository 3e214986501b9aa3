"""The starts of an adaptation one after the other, by gradient steps under draws of the latents: any graph's way."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.adaptation.candidates import examine, mean_theta
from pyro_cama.adaptation.guard import CONSISTENT
from pyro_cama.adaptation.initialisation import initialise_start, set_theta
from pyro_cama.adaptation.new_rows import NewRows, split_folds
from pyro_cama.adaptation.objective import adaptation_loss, log_ratio
from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.result import Candidate, CrossFit, Modes
from pyro_cama.adaptation.start import Start, sleeping_starts, worth_steps
from pyro_cama.adaptation.wake_sleep import epochs_of
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage


class Drawn:
    """Candidates of an adaptation, each optimised by itself.

    Args:
        pair: the unadapted model, with a place for the sites of the new rows.
        new, options, trainer_kwargs: of the adaptation.
        progress: shows a bar.

    Attributes:
        optimised: numbers of the starts that :meth:`starts` has optimised.
        preferred: names of starts; an earlier one is the best if it falls short of the highest evidence by less than
            ``slack``, in nats a row.
        agree: least share of rows on which starts of about equal evidence have to agree.
    """

    agree = CONSISTENT
    preferred: tuple[str, ...] = ()
    slack = 0.0

    def __init__(
        self,
        pair: ModelGuidePair,
        new: NewRows,
        options: AdaptOptions,
        progress: bool,
        trainer_kwargs: dict[str, Any] | None,
    ) -> None:
        self.pair, self.new, self.options, self.trainer_kwargs = pair, new, options, trainer_kwargs
        self.bar: tqdm[Any] = tqdm(total=self._epochs(), disable=not progress, leave=False)

    def starts(self) -> list[Candidate]:
        """Optimises the starts that are worth it on the rows that are not held out, and examines them."""
        begun = [self._begun(k, self.new.adapted_to) for k in range(self.options.restarts)]
        self.optimised = worth_steps([start for _, start in begun])
        count = len(self.optimised)
        self.bar.total = self._epochs() - (len(begun) - count) * self.options.epochs
        return [self._examined(*begun[k], k, f"start {place} of {count}") for place, k in enumerate(self.optimised, 1)]

    def examined(self, best: Candidate) -> Candidate:
        """Returns the winner with all that the guard asks for: it is known."""
        return best

    def modes(self, best: Candidate, candidates: list[Candidate], before: Candidate, fit: CrossFit) -> Modes:
        """Returns the winner alone: to average over other starts would cost a prediction each."""
        return Modes([best], [], alone=True)

    def cross_fit(self, place: int | None) -> CrossFit:
        """Optimises for every fold's rows without them, from the start at this place of :meth:`starts`.

        None holds the class proportions.
        """
        new, pair, options = self.new, self.pair, self.options
        k = None if place is None else self.optimised[place]
        evidence, thetas = torch.empty(new.batch.rows, dtype=torch.float64), []
        labels = torch.empty(new.batch.rows, dtype=torch.long)
        parts = split_folds(new.batch.rows, new.folds, pair.settings.seed)
        for i, part in enumerate(parts):
            rest = torch.cat([p for p in parts if p is not part])
            title = f"fold {i + 1} of {len(parts)}"
            twin, start = self._begun(k, rest)
            ratio = self._optimise(twin, start, k, rest, title)
            rows = new.batch.select(part.to(pair.device))
            do = encode_do(twin, "auto")
            evidence[part] = importance_evidence(twin, rows, ratio, do=do)
            posterior = class_log_posterior(twin, rows, do, PredictionOptions(options.label_draws))
            labels[part] = (posterior + ratio[:, None]).argmax(0).cpu()
            thetas.append(mean_theta(twin, new.batch.select(rest.to(pair.device))))
        return CrossFit(evidence, labels, tuple(thetas))

    def anchored(self) -> Candidate:
        """Optimises from no manipulation, the class proportions held at the expected ones."""
        return self._examined(*self._begun(None, self.new.adapted_to), None, "class proportions held")

    def _begun(self, k: int | None, rows: Tensor) -> tuple[ModelGuidePair, Start]:
        """A copy of the model at a start, where NN_pM and NN_qM alone can move.

        Args:
            k: the start's number, see :func:`pyro_cama.adaptation.initialisation.initialise_start`; None is no
                manipulation.
            rows: numbers of the new rows to adapt to.
        """
        pair, new = self.pair, self.new
        twin, part = pair.copy(), new.batch.select(rows.to(pair.device))
        twin.modes = ()  # of an adaptation before this one
        twin.modules.requires_grad_(False)
        for parameter in twin.manipulation_parameters().values():
            parameter.requires_grad_(True)
        with twin.seeded(self._seed(k)), twin.manipulation.calibrated():
            if k is None:
                set_theta(twin, part, torch.zeros(twin.model.sites, twin.manipulation.size))
                return twin, Start("identity")
            start = initialise_start(
                twin, part, new.clean, k, self.options.steps, progress=self.bar, trainer_kwargs=self.trainer_kwargs
            )
            return twin, start

    def _examined(self, twin: ModelGuidePair, start: Start, k: int | None, title: str) -> Candidate:
        """Optimises a copy at a start, and examines it."""
        new, options = self.new, self.options
        ratio = self._optimise(twin, start, k, new.adapted_to, title)
        do = encode_do(twin, "auto")
        return examine(twin, start.name, new.compared, new.counted, ratio, options, do=do, sparsity=options.sparsity)

    def _optimise(self, twin: ModelGuidePair, start: Start, k: int | None, rows: Tensor, title: str) -> Tensor:
        """Optimises a copy that is at a start, and with it class proportions, which are held where k is None.

        Args:
            twin, start: as :meth:`_begun` gave them.
            k, rows: as it was given.
            title: for the progress bar.

        Returns:
            log of the class proportions over the training ones, ``(classes,)``.
        """
        new, options, seed = self.new, self.options, self._seed(k)
        part = new.batch.select(rows.to(twin.device))
        free = nn.Parameter(torch.zeros_like(new.fixed))
        moving = [*twin.manipulation_parameters().values()]
        if options.learns_proportions and k is not None:
            moving.append(free)
        with twin.seeded(seed), twin.manipulation.calibrated():
            loss = adaptation_loss(
                twin, part, new.clean, options.alpha, options.samples, options.sparsity, new.fixed, free, new.ambiguity
            )
            # a start that diverges counts as it began
            with twin.manipulation.at_rest(start.resting), suppress(FloatingPointError):
                optimise(
                    [Stage(loss, options.epochs, options.lr * start.pace, title=f"adapt, {title} ({start.name})")],
                    twin.modules,
                    moving,
                    Shuffled(part.rows, row_selector(part), options.batch_size, seed, steps=10),
                    anneal=True,
                    seed=seed,
                    progress=self.bar,
                    per_step=twin.minibatches_per_step,
                    trainer_kwargs=self.trainer_kwargs,
                )
        twin.trained |= {*twin.moving}
        return log_ratio(twin, new.fixed, free.detach())

    def _seed(self, k: int | None) -> int:
        """Of everything that is drawn from a start on."""
        return self.pair.settings.seed + (k or 0)

    def _epochs(self) -> int:
        """How many epochs the starts and folds take, those asleep among them: the length of the progress bar."""
        new, options = self.new, self.options
        sleeping = sum(k < options.restarts for k in sleeping_starts(self.pair.manipulation))
        folds = 0 if new.folds == 1 or new.too_few else new.folds
        return sleeping * epochs_of(options.steps) + (options.restarts + folds) * options.epochs
