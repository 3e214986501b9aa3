"""fit: what a table, a file or a folder of images and the options become for Lightning to optimise (eqs. 3 to 5)."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_cama._arguments import expect, number
from pyro_cama._messages import caller_level
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.far_entries import far_text
from pyro_cama.data.minibatches import Minibatches, Shuffled, Streamed, row_selector
from pyro_cama.data.open_stream import DataSource, open_stream
from pyro_cama.data.sampling import survey, train_validation_split
from pyro_cama.data.tables import Table
from pyro_cama.inference.bounds import class_log_probs
from pyro_cama.inference.chunks import chunk_size
from pyro_cama.inference.comparison import winsorised
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.exact import solves_exactly
from pyro_cama.inference.log_weights import causes_known, is_exact, log_weights
from pyro_cama.model.pair import SAMPLE, ModelGuidePair
from pyro_cama.training.asleep import RATE, asleep_epochs, asleep_loss
from pyro_cama.training.calibration import calibrate
from pyro_cama.training.checkpoints import Checkpoints
from pyro_cama.training.closed_form import start_style
from pyro_cama.training.manipulated_rows import leave_at_rest, manipulated_alone, read_manipulated, require_target
from pyro_cama.training.objective import every_nth, fit_loss
from pyro_cama.training.optimise import optimise
from pyro_cama.training.options import FitOptions
from pyro_cama.training.simulated_interventions import Scale, Simulated, scales_of
from pyro_cama.training.stages import History, Stage
from pyro_cama.training.summed_loss import SummedLoss, can_sum
from pyro_cama.training.undo import undo_of_pair, undone_on_error
from pyro_cama.training.whole_table import Part, minimise

if TYPE_CHECKING:
    from pyro_cama.training.lightning_module import Training, TrainingData


WHOLE = 2**20  # numbers of rows times classes in the tensors of a whole table's loss, a part at a time
USUAL = 2000  # rows that the usual evidence is of, at most


@dataclass(frozen=True)
class Rows:
    """Clean rows, in memory or not.

    Attributes:
        minibatches: those to train on.
        held: those to validate on, 0 rows if there are none.
        sample: all of them in memory, a uniform sample of a stream.
        rows: how many there are in all.
        train: those to train on; None for those that are not in memory.
    """

    minibatches: Minibatches
    held: Batch
    sample: Batch
    rows: int
    train: Batch | None = None


@dataclass(frozen=True)
class Plan:
    """What is optimised, and what is left to do after it.

    Attributes:
        stages: with a loss each, one after the other.
        parameters: that move.
        minibatches: of the clean rows.
        about: what has to be the same where a killed fit goes on, by name.
        finish: to be called when all stages are done.
        whole: the stage and all rows in parts, where the loss draws nothing and is optimised over all of them at once.
    """

    stages: list[Stage]
    parameters: Sequence[Tensor]
    minibatches: Minibatches
    about: Mapping[str, Any]
    finish: Callable[[], None]
    whole: Callable[[], tuple[Stage, Sequence[Part]]] | None = None


def plan(
    pair: ModelGuidePair,
    clean: DataSource | None,
    manipulated: DataSource | None,
    interventions: float | Mapping[str, Scale] | None,
    options: FitOptions,
    *,
    progress: bool,
) -> Plan:
    """Encodes the data, and decides what to minimise: eqs. 3 to 5 and the conditional term, in one stage or two.

    Args:
        pair: takes the encoder of the data where it has none.
        clean, manipulated, interventions: see :meth:`pyro_cama.CAMA.fit`.
        options: the rest of its options.
        progress: shows how far a stream has been read.

    Raises:
        DataError: the data do not fit the graph.
        ValueError: manipulated rows or interventions for a graph that cannot have them.
    """
    scales = scales_of(pair, interventions)
    pair.overlaid = frozenset()  # of an adaptation to other rows
    if manipulated is not None and pair.graph.m is None:
        raise ValueError("fit(manipulated=...): this graph has no manipulation latent (m is null)")
    unclean = clean is None
    rows = _rows(
        pair, manipulated_alone(pair.graph, manipulated, scales) if clean is None else clean, options, progress
    )
    other = None if manipulated is None or unclean else read_manipulated(pair, manipulated, rows.sample)
    stages = _stages(pair, rows, other, scales, options, unclean)
    # without manipulated rows NN_pM and NN_qM have no gradient, and weight decay would shrink them to nothing
    every = unclean or other is not None
    trains = {m.name for m in pair.graph.manipulations if every or (scales and m.per_row)}
    resting = [m.name for m in pair.graph.manipulations if m.name not in trains]
    idle = {id(p) for p in pair.manipulation_parameters(resting).values()}
    moving = [p for p in pair.modules.parameters() if p.requires_grad and id(p) not in idle]

    def finish() -> None:
        if options.conditional_weight and stages[-1].epochs and pair.graph.m is not None and not unclean:
            with pair.seeded():
                calibrate(pair.model, pair.guide, rows.sample, seed=pair.settings.seed, progress=progress)
        leave_at_rest(pair, rows.sample)
        of_one = {m.name for m in pair.graph.manipulations if m.per_dataset}  # q(m) is of this data set, and no other
        pair.trained |= trains - of_one
        pair.usual_evidence = _usual_evidence(pair, rows.held if rows.held.rows else rows.sample)
        pair.modes = ()  # of an adaptation to other rows, under weights that have moved

    about = asdict(options) | {
        "interventions": scales,
        "rows": rows.rows,
        "manipulated rows": 0 if other is None else other.rows,
        "no clean rows": unclean,
        "network sizes and seed": asdict(pair.settings),
    }
    draws = bool(trains) or not causes_known(pair.model, rows.sample, classes=True)
    exact = not draws and is_exact(pair.model, pair.guide)
    whole = partial(_whole, pair, rows, options, stages[-1]) if exact and rows.train is not None else None
    return Plan(stages, moving, rows.minibatches, about, finish, whole)


def _whole(pair: ModelGuidePair, rows: Rows, options: FitOptions, stage: Stage) -> tuple[Stage, Sequence[Part]]:
    """The same stage over all rows at once, in parts whose tensors are small; summed up where that can be done."""
    assert rows.train is not None
    model, train = pair.model, rows.train
    share = options.conditional_share in (None, 1.0)
    sums = share and can_sum(model, train) and can_sum(model, rows.held)
    size = max(1, WHOLE // (model.sum_numbers_per_row if sums else model.numbers_per_row))
    parts = [train.select(part) for part in torch.arange(train.rows, device=pair.device).split(size)]
    if not sums:
        return stage, parts
    held = SummedLoss(model, rows.held, max(options.conditional_weight, _least_weight(pair)))
    losses = [SummedLoss(model, part, options.conditional_weight) for part in parts]
    return replace(stage, loss=lambda part: part(), validate=stage.validate and held.validated), losses


def _usual_evidence(pair: ModelGuidePair, rows: Batch) -> float:
    """Returns the mean evidence of some rows, which an adaptation should reach again; NaN where it takes draws."""
    if pair.graph.m is None or not solves_exactly(pair.model, pair.guide, rows):
        return math.nan
    some = rows.select(torch.arange(min(rows.rows, USUAL), device=pair.device))
    even = torch.zeros(pair.model.classes).to(pair.model.like)
    evidence = importance_evidence(pair, some, even, do=encode_do(pair, clean_do(pair.graph)))
    return float(winsorised(evidence).mean())


def _stages(
    pair: ModelGuidePair,
    rows: Rows,
    manipulated: Batch | None,
    scales: Mapping[str, Simulated],
    options: FitOptions,
    unclean: bool,
) -> list[Stage]:
    """One stage, or of images two, the first without the conditional term: else the decoder never learns to use z."""
    images, weight = pair.model.has_images, options.conditional_weight
    default_epochs, default_share, draws = (20, 0.25, 2) if images else (300, 1.0, 8)
    epochs = default_epochs if options.max_epochs is None else options.max_epochs
    share = default_share if options.conditional_share is None else options.conditional_share

    def stage(epochs: int, weight: float, lr: float, title: str) -> Stage:
        loss, held_loss = (
            fit_loss(
                pair.model,
                pair.guide,
                manipulated,
                mixing=options.mixing,
                interventions=scales,
                conditional_weight=own_weight,
                conditional_share=share,
                conditional_power=options.conditional_power,
                unknown_pixels=unknown,
                samples=samples,
                paired=options.paired,
                unclean=unclean,
            )
            for samples, own_weight, unknown in (
                (options.samples, weight, options.unknown_pixels),
                (draws, max(weight, _least_weight(pair)), 0.0),
            )
        )
        read = partial(_hits, pair, power=options.conditional_power, paired=options.paired, unclean=unclean)
        validate = partial(_validate, pair, rows.held, held_loss, read, share, draws)
        return Stage(loss, epochs, lr, validate if rows.held.rows else None, title)

    asked = epochs // 2 if options.density_epochs is None else min(options.density_epochs, epochs)
    before = asked if images and weight else 0
    first = [stage(before, 0.0, options.lr, "fit, densities")] if before else []
    if asleep := asleep_epochs(pair, rows.rows, epochs):
        first = [Stage(asleep_loss(pair), asleep, RATE, None, "fit, asleep", anneal=True, asleep=True), *first]
    return [*first, stage(epochs - before, weight, options.lr / 2 if before else options.lr, "fit")]


def _least_weight(pair: ModelGuidePair) -> int:
    """The least weight of the conditional term in validation.

    The held-out rows' densities of a thousand readings would outvote their labels: a class effect on every one is
    learnt from few rows, and costs density long before it costs a right answer.
    """
    children = set(pair.graph.blanket.children)
    return 0 if pair.model.has_images else sum(g.width for g in pair.model.groups if g.nodes[0] in children)


def _validate(
    pair: ModelGuidePair,
    held: Batch,
    loss: Callable[[Batch], Tensor],
    read: Callable[[Batch], tuple[int, int]],
    share: float,
    draws: int,
) -> dict[str, float]:
    """The mean loss of the held-out rows, of so many draws, and the accuracy on a share of them."""
    total, right, labelled = 0.0, 0, 0
    with pair.seeded():
        for index in torch.arange(held.rows, device=pair.device).split(chunk_size(pair, draws)):
            part = held.select(index)
            total += float(loss(part)) * part.rows
        for index in every_nth(held, share).split(chunk_size(pair, 1)):
            part_right, part_labelled = read(held.select(index))
            right, labelled = right + part_right, labelled + part_labelled
    return {"loss": total / held.rows} | ({"accuracy": right / labelled} if labelled else {})


def fit(
    pair: ModelGuidePair,
    clean: DataSource | None,
    manipulated: DataSource | None,
    interventions: float | Mapping[str, Scale] | None,
    options: FitOptions,
    *,
    progress: bool,
    checkpoints: str | Path | None,
    resume: bool,
    checkpoint_seconds: float,
    trainer_kwargs: Mapping[str, Any] | None,
) -> History:
    """Trains a pair in place, and returns what the optimisation did; arguments as :meth:`pyro_cama.CAMA.fit`.

    Whatever is raised, Ctrl-C too, the pair is as it was before; checkpoints stay.

    Raises:
        DataError: the data do not fit the graph.
        FileExistsError, ValueError: there is a checkpoint and no ``resume``, or it is of another fit.
    """
    if resume and checkpoints is None:
        raise ValueError("fit(resume=True): expected checkpoints=, the folder to go on from")
    fits = number(checkpoint_seconds) and checkpoint_seconds >= 0
    expect("fit", "checkpoint_seconds", checkpoint_seconds, fits, "a finite number of at least 0")
    kept = None
    with undone_on_error(undo_of_pair(pair)):
        made = plan(pair, clean, manipulated, interventions, options, progress=progress)
        if checkpoints is not None:
            digests = {"graph": _digest(pair.graph.to_dict()), "data": _digest(pair.encoder.state())}
            kept = Checkpoints(Path(checkpoints), {**made.about, **digests}, resume, checkpoint_seconds)
            kept.begin()
        if made.whole and kept is None and not trainer_kwargs and not options.by_minibatches:
            patience = math.ceil(options.patience / 2)  # a step of L-BFGS goes further than one of Adam
            history = minimise(*made.whole(), made.parameters, patience=patience, progress=progress)
            made.finish()
            return history
        history = optimise(
            made.stages,
            pair.modules,
            made.parameters,
            made.minibatches,
            weight_decay=options.weight_decay,
            patience=options.patience,
            anneal=options.anneal,
            seed=pair.settings.seed,
            progress=progress,
            per_step=pair.minibatches_per_step,
            checkpoints=kept,
            trainer_kwargs=trainer_kwargs,
        )
        made.finish()
    return history


def lightning_parts(
    pair: ModelGuidePair,
    clean: DataSource | None,
    manipulated: DataSource | None,
    interventions: float | Mapping[str, Scale] | None,
    options: FitOptions,
    *,
    progress: bool,
    after: Callable[[History], None],
) -> tuple[Training, TrainingData]:
    """Returns what :func:`fit` would optimise, for a Trainer of the caller's; arguments as there.

    Args:
        after: called with the history when the module's ``finish`` is.
    """
    from pyro_cama.training.lightning_module import Training, TrainingData

    undo = undo_of_pair(pair)
    with undone_on_error(undo):
        made = plan(pair, clean, manipulated, interventions, options, progress=progress)

    def finish(history: History) -> None:
        with undone_on_error(undo):
            made.finish()
        after(history)

    module = Training(
        made.stages,
        pair.modules,
        made.parameters,
        weight_decay=options.weight_decay,
        patience=options.patience,
        anneal=options.anneal,
        seed=pair.settings.seed,
        progress=progress,
        after=finish,
        undo=undo,
    )
    return module, TrainingData(made.minibatches, undo=module.undo)


def _rows(pair: ModelGuidePair, clean: DataSource, options: FitOptions, progress: bool) -> Rows:
    seed, stream = pair.settings.seed, open_stream(clean, pair.graph)
    if stream is not None:
        known = pair.encoder if pair.encoder.fitted else None
        found = survey(
            stream,
            pair.graph,
            validation=options.validation,
            seed=seed,
            sample=SAMPLE,
            encoder=known,
            progress=progress,
        )
        if known is None:
            _take(pair, found.encoder)
        trained = found.rows - found.held.rows
        encode = partial(_to_train_on, pair)
        if known is None:
            start_style(pair.model, encode(found.sample))
        source = Streamed(stream, pair.encoder, trained, options.batch_size, seed, found.threshold, encode)
        return Rows(source, encode(found.held), encode(found.sample), found.rows)
    fresh = not pair.encoder.fitted
    if fresh:
        _take(pair, TableEncoder(pair.graph).fit(clean))  # type: ignore[arg-type]  # no stream
    batch = _to_train_on(pair, clean)  # type: ignore[arg-type]
    require_target(pair, batch)
    train, held = train_validation_split(batch.values[pair.graph.target].cpu(), options.validation, seed)
    part, kept = batch.select(train.to(pair.device)), batch.select(held.to(pair.device))
    if fresh:
        start_style(pair.model, part)
    minibatches = Shuffled(part.rows, row_selector(part), options.batch_size, seed)
    return Rows(minibatches, kept, batch, batch.rows, part)


def _to_train_on(pair: ModelGuidePair, data: Table | Batch) -> Batch:
    """Encodes rows; what stands far from the others, such as -999, counts as missing: a few could outweigh all."""
    return pair.encoder.without_far(pair.encode(data))


def _take(pair: ModelGuidePair, encoder: TableEncoder) -> None:
    """Takes the encoder, and lets every likelihood start where the training rows are.

    p(y | x) is content with a wrong p(y) that the children's densities make up for, and there would be little else to
    move it: a missing reading, a power of those densities or a draw from the model would show it.  And to a count of
    thousands it is a long way from a mean of 1.
    """
    pair.take_encoder(encoder)
    pair.model.start_at(encoder.statistics)
    if encoder.far:
        warnings.warn(
            f"found entries far from all others of their column, which training takes for missing: "
            f"{far_text(encoder.far)}. Do they stand for missing values? Set them to NaN, in new rows too; "
            "if they were measured, transform the column (its logarithm?) so that they are no longer so far",
            UserWarning,
            stacklevel=caller_level(),
        )


def _hits(pair: ModelGuidePair, batch: Batch, *, power: float, paired: bool, unclean: bool) -> tuple[int, int]:
    """Right answers from one draw, under do(m=0) or of manipulated rows with m inferred, and rows with a label."""
    y = batch.values[pair.graph.target]
    known = batch.observed.get(pair.graph.target, torch.ones_like(y, dtype=torch.bool))
    do = None if unclean else encode_do(pair, clean_do(pair.graph))
    weights = log_weights(pair.model, pair.guide, batch, do=do, samples=1, classes=True, power=power, paired=paired)
    log_p = class_log_probs(weights)
    told = ~log_p.isnan().any(0)  # a row without probabilities is a wrong one
    return int(((log_p.argmax(0) == y.long()) & told & known).sum()), int(known.sum())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
