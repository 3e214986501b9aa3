"""fit: what a table, a file or a folder of images and the options become for the engine to optimise."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_cama.data import Batch, Table, TableEncoder
from pyro_cama.distributions import Bernoulli, Categorical
from pyro_cama.elbo import class_log_probs, log_weights
from pyro_cama.engine import Checkpoints, History, Stage, optimise
from pyro_cama.errors import DataError, expect, number, whole
from pyro_cama.graph import CausalGraph
from pyro_cama.minibatches import Minibatches, Shuffled, own_rows, rows_of
from pyro_cama.streams import Stream, minibatches, open_stream, sample_rows, survey
from pyro_cama.training import Scale, calibrate, every_nth, fit_loss, train_validation_split

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA

Data = Table | Batch | Stream | DataLoader[Any] | str | Path
"""A table in memory, encoded or not, or what :func:`pyro_cama.streams.open_stream` reads in parts."""

SAMPLE = 20_000  # rows of a stream that are held in memory where some suffice for all
NUMBERS = 2**28  # in them, at most


@dataclass(frozen=True)
class Options:
    """How to fit; see :meth:`pyro_cama.CAMA.fit`."""

    max_epochs: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    conditional_weight: float = 30.0
    conditional_share: float | None = None
    mixing: float = 0.5
    samples: int = 1
    validation: float = 0.15
    patience: int = 40
    anneal: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "samples", "patience"):
            expect("fit", name, getattr(self, name), whole(getattr(self, name), 1), "a whole number of at least 1")
        epochs, weight, share = self.max_epochs, self.conditional_weight, self.conditional_share
        expect("fit", "max_epochs", epochs, epochs is None or whole(epochs, 0), "a whole number of at least 0, or None")
        expect("fit", "conditional_weight", weight, number(weight) and weight >= 0, "a finite number of at least 0")
        part = share is None or (number(share) and 0 < share <= 1)
        expect("fit", "conditional_share", share, part, "a number above 0, at most 1")
        expect("fit", "lr", self.lr, number(self.lr) and self.lr > 0, "a finite number above 0")
        decay = self.weight_decay
        expect("fit", "weight_decay", decay, number(decay) and decay >= 0, "a finite number of at least 0")
        expect("fit", "mixing", self.mixing, number(self.mixing) and 0 <= self.mixing <= 1, "a number from 0 to 1")
        part = number(self.validation) and 0 <= self.validation < 1
        expect("fit", "validation", self.validation, part, "a number of at least 0, less than 1")
        for field in fields(self):  # of numpy's numbers neither JSON nor a checkpoint knows
            value = getattr(self, field.name)
            if isinstance(value, Real) and not isinstance(value, bool):
                object.__setattr__(self, field.name, int(value) if isinstance(value, Integral) else float(value))


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
class Streamed:
    """The minibatches of a stream: one pass an epoch, every process reads all and keeps its rows of each."""

    stream: Stream
    encoder: TableEncoder
    rows: int
    batch_size: int
    seed: int
    threshold: float
    to: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See :class:`pyro_cama.minibatches.Minibatches`."""
        for batch in minibatches(
            self.stream,
            self.encoder,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
            held=self.threshold,
            survey_seed=self.seed,
        ):
            mine = torch.arange(batch.rows)[own_rows(batch.rows, rank, world)]
            yield self.to(batch if world == 1 else batch.select(mine))


@dataclass(frozen=True)
class Plan:
    """What the engine optimises, and what is left to do after it."""

    stages: list[Stage]
    parameters: Sequence[Tensor]
    minibatches: Minibatches
    about: Mapping[str, Any]
    finish: Callable[[History], None]


def plan(
    cama: CAMA, clean: Any, manipulated: Any, interventions: Mapping[str, Scale], options: Options, *, progress: bool
) -> Plan:
    """Encodes the data, and says what to minimise: eqs. 3 to 5 and the conditional term, in one stage or two.

    Raises:
        DataError: the data do not fit the graph.
        ValueError: manipulated rows for a graph without a manipulation.
    """
    if manipulated is not None and cama.graph.m is None:
        raise ValueError("fit(manipulated=...): this graph has no manipulation latent (m is null)")
    rows = _rows(cama, clean, options, progress)
    other = None if manipulated is None else encoded(cama, manipulated, "use")
    if other is not None:
        _require_target(cama.graph, other)
    images, weight = cama.model.has_images, options.conditional_weight
    usual_epochs, usual_share, draws = (20, 0.25, 2) if images else (300, 1.0, 8)
    epochs = usual_epochs if options.max_epochs is None else options.max_epochs
    share = usual_share if options.conditional_share is None else options.conditional_share
    served = other is not None or bool(interventions)
    common: dict[str, Any] = {"mixing": options.mixing, "interventions": interventions, "conditional_share": share}

    def stage(epochs: int, weight: float, lr: float, title: str) -> Stage:
        loss = fit_loss(cama.model, cama.guide, other, samples=options.samples, conditional_weight=weight, **common)
        held_loss = fit_loss(cama.model, cama.guide, other, samples=draws, conditional_weight=weight, **common)

        def validate() -> dict[str, float]:
            total, right, asked = 0.0, 0, 0
            with cama._seeded():
                for index in torch.arange(rows.held.rows, device=cama.device).split(cama._chunk(draws)):
                    part = rows.held.select(index)
                    total += float(held_loss(part)) * part.rows
                for index in every_nth(rows.held, share).split(cama._chunk(1)):
                    hits, of = _hits(cama, rows.held.select(index))
                    right, asked = right + hits, asked + of
            figures = {"loss": total / rows.held.rows}
            return figures | ({"accuracy": right / asked} if asked else {})

        return Stage(loss, epochs, lr, validate if rows.held.rows else None, title)

    # told to classify from the start, a decoder of images never learns to use z
    half = epochs // 2 if images and weight else 0
    stages = [stage(half, 0.0, options.lr, "fit, densities")] if half else []
    stages.append(stage(epochs - half, weight, options.lr / 2 if half else options.lr, "fit"))
    # without manipulated rows NN_pM and NN_qM have no gradient, and weight decay would shrink them to nothing
    idle = set() if served else {id(p) for p in cama.manipulation_parameters().values()}
    moving = [p for p in cama.modules.parameters() if p.requires_grad and id(p) not in idle]

    def finish(history: History) -> None:
        cama.history = history
        if weight and epochs and cama.graph.m is not None:
            with cama._seeded():
                calibrate(cama.model, cama.guide, rows.some, seed=cama.settings.seed, progress=progress)
        cama.m_trained = cama.m_trained or served

    about = asdict(options) | {
        "interventions": interventions,
        "rows": rows.rows,
        "manipulated rows": 0 if other is None else other.rows,
        "network sizes and seed": asdict(cama.settings),
        "graph": _digest(cama.graph.to_dict()),
        "data": _digest(cama.encoder.state()),
    }
    return Plan(stages, moving, rows.minibatches, about, finish)


def fit(
    cama: CAMA,
    clean: Any,
    manipulated: Any,
    interventions: Mapping[str, Scale],
    options: Options,
    *,
    progress: bool,
    checkpoints: str | Path | None,
    resume: bool,
    checkpoint_seconds: float,
    trainer_kwargs: Mapping[str, Any] | None,
) -> None:
    """Trains a CAMA in place; see :meth:`pyro_cama.CAMA.fit`."""
    if resume and checkpoints is None:
        raise ValueError("fit(resume=True): expected checkpoints=, the folder to go on from")
    fits = number(checkpoint_seconds) and checkpoint_seconds >= 0
    expect("fit", "checkpoint_seconds", checkpoint_seconds, fits, "a finite number of at least 0")
    kept = None
    with unfitted_on_error(cama):
        made = plan(cama, clean, manipulated, interventions, options, progress=progress)
        if checkpoints is not None:
            kept = Checkpoints(Path(checkpoints), made.about, resume, checkpoint_seconds)
            kept.begin()
    history = optimise(
        made.stages, cama.modules, made.parameters, made.minibatches, weight_decay=options.weight_decay,
        patience=options.patience, anneal=options.anneal, seed=cama.settings.seed, progress=progress,
        per_step=per_step(cama), checkpoints=kept, trainer_kwargs=trainer_kwargs,
    )  # fmt: skip
    made.finish(history)


@contextmanager
def unfitted_on_error(cama: CAMA) -> Iterator[None]:
    """What a model has learnt of data that cannot be trained on is forgotten."""
    before = cama.model, cama.guide, cama.modules, cama.encoder
    try:
        yield
    except BaseException:
        cama.model, cama.guide, cama.modules, cama.encoder = before
        raise


def per_step(cama: CAMA) -> int:
    """Minibatches of one Lightning step: what an image costs hides the step's own cost."""
    return 1 if cama.model.has_images else 64


def encoded(cama: CAMA, data: Any, target: Any, *, sampled: bool = False) -> Batch:
    """A table's rows on the model's device; of a stream a uniform sample, of a table in memory if that is asked for."""
    stream = open_stream(data, cama.graph)
    if stream is None:
        batch = cama.encode(data, target=target)
        if not sampled or batch.rows <= sample_size(cama):
            return batch
        generator = torch.Generator().manual_seed(cama.settings.seed)
        drawn = torch.randperm(batch.rows, generator=generator)[: sample_size(cama)]
        return batch.select(drawn.to(cama.device))
    return cama.encode(sample_rows(stream, cama.encoder, sample_size(cama), cama.settings.seed, target), target)


def sample_size(cama: CAMA) -> int:
    """Rows of a sample, fewer where a row is large."""
    nodes = [cama.graph.nodes[name] for name in cama.graph.order]
    return min(SAMPLE, max(1, NUMBERS // sum(math.prod(node.event_shape) for node in nodes)))


def _rows(cama: CAMA, clean: Any, options: Options, progress: bool) -> Rows:
    seed, stream = cama.settings.seed, open_stream(clean, cama.graph)
    if stream is not None:
        known = cama.encoder if cama.encoder.fitted else None
        found = survey(
            stream,
            cama.graph,
            validation=options.validation,
            seed=seed,
            sample=SAMPLE,
            encoder=known,
            progress=progress,
        )
        if known is None:
            _take(cama, found.encoder)
        trained = found.rows - found.held.rows
        source = Streamed(stream, cama.encoder, trained, options.batch_size, seed, found.threshold, cama.encode)
        return Rows(source, cama.encode(found.held), cama.encode(found.sample), found.rows)
    if not cama.encoder.fitted:
        _take(cama, TableEncoder(cama.graph).fit(clean))
    batch = cama.encode(clean, target="use")
    _require_target(cama.graph, batch)
    train, held = train_validation_split(batch.values[cama.graph.target].cpu(), options.validation, seed)
    part, kept = batch.select(train.to(cama.device)), batch.select(held.to(cama.device))
    return Rows(Shuffled(part.rows, rows_of(part), options.batch_size, seed), kept, batch, batch.rows)


def _take(cama: CAMA, encoder: TableEncoder) -> None:
    """A first look at the data: how they are encoded, and p(y) as frequent as the classes are.

    p(y | x) is content with a wrong p(y) that the children's densities make up for, and there would be little else to
    move it: a missing reading, a power of those densities or a draw from the model would show it.
    """
    cama._take_encoder(encoder)
    model, target = cama.model, cama.graph.target
    index = next(i for i, group in enumerate(model.groups) if group.nodes == (target,))
    if type(model.groups[index].likelihood) not in (Bernoulli, Categorical):
        return  # what another one's numbers mean is its own affair
    networks: Any = model._modules["networks"]
    bias = networks["merges"][index].last_bias
    frequencies = encoder.statistics[target]["frequencies"].to(bias)
    logs = frequencies.where(frequencies > 0, 1e-4).log()
    with torch.no_grad():
        bias.copy_(logs[1:] - logs[:1] if len(bias) == 1 else logs - logs.mean())


def _hits(cama: CAMA, batch: Batch) -> tuple[int, int]:
    """Right answers under do(m=0), from one draw, and rows with a label."""
    y = batch.values[cama.graph.target]
    known = batch.observed.get(cama.graph.target, torch.ones_like(y, dtype=torch.bool))
    do = {cama.graph.m.name: 0.0} if cama.graph.m is not None else None
    found = class_log_probs(log_weights(cama.model, cama.guide, batch, do=do, samples=1, classes=True)).argmax(0)
    return int(((found == y.long()) & known).sum()), int(known.sum())


def _require_target(graph: CausalGraph, batch: Batch) -> None:
    if graph.target not in batch.values:
        raise DataError(f"column {graph.target!r} (the target) is missing: fit needs labels")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
