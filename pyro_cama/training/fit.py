"""fit: what a table, a file or a folder of images and the options become for the engine to optimise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_cama._arguments import expect, number
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.minibatches import Minibatches, Shuffled, Streamed, row_selector
from pyro_cama.data.open_stream import open_stream
from pyro_cama.data.sampling import survey, train_validation_split
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.bounds import class_log_probs
from pyro_cama.inference.chunks import chunk_size
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import Bernoulli, Categorical
from pyro_cama.model.pair import SAMPLE, ModelGuidePair
from pyro_cama.training.calibration import calibrate
from pyro_cama.training.checkpoints import Checkpoints
from pyro_cama.training.objective import every_nth, fit_loss
from pyro_cama.training.optimise import optimise
from pyro_cama.training.options import FitOptions
from pyro_cama.training.simulated_interventions import Scale
from pyro_cama.training.stages import History, Stage


@dataclass(frozen=True)
class Rows:
    """Clean rows, in memory or not.

    Attributes:
        minibatches: those to train on.
        held: those to validate on, 0 rows if there are none.
        some: all of them in memory, a uniform sample of a stream.
        rows: how many there are in all.
    """

    minibatches: Minibatches
    held: Batch
    some: Batch
    rows: int


@dataclass(frozen=True)
class Plan:
    """What the engine optimises, and what is left to do after it."""

    stages: list[Stage]
    parameters: Sequence[Tensor]
    minibatches: Minibatches
    about: Mapping[str, Any]
    finish: Callable[[], None]


def plan(
    pair: ModelGuidePair,
    clean: Any,
    manipulated: Any,
    interventions: Mapping[str, Scale],
    options: FitOptions,
    *,
    progress: bool,
) -> Plan:
    """Encodes the data, and says what to minimise: eqs. 3 to 5 and the conditional term, in one stage or two.

    Raises:
        DataError: the data do not fit the graph.
        ValueError: manipulated rows for a graph without a manipulation.
    """
    if manipulated is not None and pair.graph.m is None:
        raise ValueError("fit(manipulated=...): this graph has no manipulation latent (m is null)")
    rows = _rows(pair, clean, options, progress)
    other = None if manipulated is None else pair.read(manipulated, "use")
    if other is not None:
        _require_target(pair.graph, other)
    images, weight = pair.model.has_images, options.conditional_weight
    usual_epochs, usual_share, draws = (20, 0.25, 2) if images else (300, 1.0, 8)
    epochs = usual_epochs if options.max_epochs is None else options.max_epochs
    share = usual_share if options.conditional_share is None else options.conditional_share
    served = other is not None or bool(interventions)
    common: dict[str, Any] = {"mixing": options.mixing, "interventions": interventions, "conditional_share": share}

    def stage(epochs: int, weight: float, lr: float, title: str) -> Stage:
        loss = fit_loss(pair.model, pair.guide, other, samples=options.samples, conditional_weight=weight, **common)
        held_loss = fit_loss(pair.model, pair.guide, other, samples=draws, conditional_weight=weight, **common)

        def validate() -> dict[str, float]:
            total, right, asked = 0.0, 0, 0
            with pair.seeded():
                for index in torch.arange(rows.held.rows, device=pair.device).split(chunk_size(pair, draws)):
                    part = rows.held.select(index)
                    total += float(held_loss(part)) * part.rows
                for index in every_nth(rows.held, share).split(chunk_size(pair, 1)):
                    hits, of = _hits(pair, rows.held.select(index))
                    right, asked = right + hits, asked + of
            figures = {"loss": total / rows.held.rows}
            return figures | ({"accuracy": right / asked} if asked else {})

        return Stage(loss, epochs, lr, validate if rows.held.rows else None, title)

    # told to classify from the start, a decoder of images never learns to use z
    half = epochs // 2 if images and weight else 0
    stages = [stage(half, 0.0, options.lr, "fit, densities")] if half else []
    stages.append(stage(epochs - half, weight, options.lr / 2 if half else options.lr, "fit"))
    # without manipulated rows NN_pM and NN_qM have no gradient, and weight decay would shrink them to nothing
    idle = set() if served else {id(p) for p in pair.manipulation_parameters().values()}
    moving = [p for p in pair.modules.parameters() if p.requires_grad and id(p) not in idle]

    def finish() -> None:
        if weight and epochs and pair.graph.m is not None:
            with pair.seeded():
                calibrate(pair.model, pair.guide, rows.some, seed=pair.settings.seed, progress=progress)
        pair.m_trained = pair.m_trained or served

    about = asdict(options) | {
        "interventions": interventions,
        "rows": rows.rows,
        "manipulated rows": 0 if other is None else other.rows,
        "network sizes and seed": asdict(pair.settings),
        "graph": _digest(pair.graph.to_dict()),
        "data": _digest(pair.encoder.state()),
    }
    return Plan(stages, moving, rows.minibatches, about, finish)


def fit(
    pair: ModelGuidePair,
    clean: Any,
    manipulated: Any,
    interventions: Mapping[str, Scale],
    options: FitOptions,
    *,
    progress: bool,
    checkpoints: str | Path | None,
    resume: bool,
    checkpoint_seconds: float,
    trainer_kwargs: Mapping[str, Any] | None,
) -> History:
    """Trains a pair in place, and returns what the optimisation did; see :meth:`pyro_cama.CAMA.fit`."""
    if resume and checkpoints is None:
        raise ValueError("fit(resume=True): expected checkpoints=, the folder to go on from")
    fits = number(checkpoint_seconds) and checkpoint_seconds >= 0
    expect("fit", "checkpoint_seconds", checkpoint_seconds, fits, "a finite number of at least 0")
    kept = None
    with unfitted_on_error(pair):
        made = plan(pair, clean, manipulated, interventions, options, progress=progress)
        if checkpoints is not None:
            kept = Checkpoints(Path(checkpoints), made.about, resume, checkpoint_seconds)
            kept.begin()
    history = optimise(
        made.stages, pair.modules, made.parameters, made.minibatches, weight_decay=options.weight_decay,
        patience=options.patience, anneal=options.anneal, seed=pair.settings.seed, progress=progress,
        per_step=pair.minibatches_per_step, checkpoints=kept, trainer_kwargs=trainer_kwargs,
    )  # fmt: skip
    made.finish()
    return history


@contextmanager
def unfitted_on_error(pair: ModelGuidePair) -> Iterator[None]:
    """What a model has learnt of data that cannot be trained on is forgotten."""
    before = pair.model, pair.guide, pair.modules, pair.encoder
    try:
        yield
    except BaseException:
        pair.model, pair.guide, pair.modules, pair.encoder = before
        raise


def _rows(pair: ModelGuidePair, clean: Any, options: FitOptions, progress: bool) -> Rows:
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
        source = Streamed(stream, pair.encoder, trained, options.batch_size, seed, found.threshold, pair.encode)
        return Rows(source, pair.encode(found.held), pair.encode(found.sample), found.rows)
    if not pair.encoder.fitted:
        _take(pair, TableEncoder(pair.graph).fit(clean))
    batch = pair.encode(clean, target="use")
    _require_target(pair.graph, batch)
    train, held = train_validation_split(batch.values[pair.graph.target].cpu(), options.validation, seed)
    part, kept = batch.select(train.to(pair.device)), batch.select(held.to(pair.device))
    return Rows(Shuffled(part.rows, row_selector(part), options.batch_size, seed), kept, batch, batch.rows)


def _take(pair: ModelGuidePair, encoder: TableEncoder) -> None:
    """A first look at the data: how they are encoded, and p(y) as frequent as the classes are.

    p(y | x) is content with a wrong p(y) that the children's densities make up for, and there would be little else to
    move it: a missing reading, a power of those densities or a draw from the model would show it.
    """
    pair.take_encoder(encoder)
    model, target = pair.model, pair.graph.target
    if type(model.group_of[target].likelihood) not in (Bernoulli, Categorical):
        return  # what another one's numbers mean is its own affair
    bias = model.merge_of(target).last_bias
    frequencies = encoder.statistics[target]["frequencies"].to(bias)
    logs = frequencies.where(frequencies > 0, 1e-4).log()
    with torch.no_grad():
        bias.copy_(logs[1:] - logs[:1] if len(bias) == 1 else logs - logs.mean())


def _hits(pair: ModelGuidePair, batch: Batch) -> tuple[int, int]:
    """Right answers under do(m=0), from one draw, and rows with a label."""
    y = batch.values[pair.graph.target]
    known = batch.observed.get(pair.graph.target, torch.ones_like(y, dtype=torch.bool))
    do = {pair.graph.m.name: 0.0} if pair.graph.m is not None else None
    found = class_log_probs(log_weights(pair.model, pair.guide, batch, do=do, samples=1, classes=True)).argmax(0)
    return int(((found == y.long()) & known).sum()), int(known.sum())


def _require_target(graph: CausalGraph, batch: Batch) -> None:
    if graph.target not in batch.values:
        raise DataError(f"column {graph.target!r} (the target) is missing: fit needs labels")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
