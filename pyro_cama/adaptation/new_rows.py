"""The rows that an adaptation learns from: encoded, with their sites, checked, and split for comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.adaptation.doubtful_rows import warn_of_doubtful
from pyro_cama.adaptation.far_readings import without_far_readings
from pyro_cama.adaptation.objective import log_train
from pyro_cama.adaptation.options import TABLES, AdaptOptions
from pyro_cama.adaptation.recovery import recovery_of
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import DataSource
from pyro_cama.errors import DataError
from pyro_cama.inference.class_prior import ClassPrior, prior_log_ratio
from pyro_cama.inference.do import encode_do
from pyro_cama.model.pair import ModelGuidePair

COUNTED = 500  # rows whose classes are counted where few are held out
COPIES = 10  # of theta in a step, its gradient and what mechanisms make of it
MOST_BYTES = 8e9  # that they may take
RULED_OUT = -30.0  # log ratio of a class of which there is none: finite, for gradients


@dataclass(frozen=True)
class NewRows:
    """New rows without labels, and what is known beside them.

    Attributes:
        batch: all of them, encoded.
        clean: the training rows, where they are at hand.
        fixed: log of the class proportions to be expected over the training ones, ``(classes,)``.
        expected: those proportions, ``(classes,)``.
        recovery: share of rows of its own whose class the unadapted model recognises.
        folds: parts to split the rows into, none of fewer than two rows where there are enough.
        adapted_to: numbers of the rows that every start is optimised on.
        compared: the rows that candidates are compared on.
        recorded: the same with every pixel as it was recorded.
        counted: the rows whose classes are counted: those, and others where they are few.
        overlaid: names of images over which something lies in most of the rows: pixels that seem hidden are unknown.
    """

    batch: Batch
    clean: Batch | None
    fixed: Tensor
    expected: Tensor
    recovery: float
    folds: int
    adapted_to: Tensor
    compared: Batch
    recorded: Batch
    counted: Batch
    overlaid: frozenset[str]

    @classmethod
    def of(cls, pair: ModelGuidePair, new_data: DataSource, clean: DataSource | None, options: AdaptOptions) -> Self:
        """Reads and splits the rows.

        Args:
            pair: with a place for their sites, see :meth:`ModelGuidePair.encoder_with_sites`; it sees every pixel.

        Raises:
            DataError: the rows do not fit the graph, or hold no reading that tells anything about m.
            ValueError: ``class_prior`` is none.
        """
        recorded = without_far_readings(pair, pair.read(new_data, "ignore", sampled=True))
        overlaid = pair.manipulation.overlaid(recorded)
        batch = pair.manipulation.without_hidden(recorded, overlaid)
        folds = min(options.folds, max(TABLES.folds, batch.rows // 2))
        expect_readings(pair, batch)
        warn_of_doubtful(pair, batch)
        expect_memory(pair, min(options.batch_size, batch.rows), options.samples)
        labelled = None if clean is None else pair.read(clean, "require", sampled=True)
        fixed = fixed_log_ratio(pair, options.class_prior)
        rest, held = hold_out(batch.rows, folds, pair.settings.seed)
        compared = batch.select(held.to(pair.device))
        # a handful of held-out rows may well lack a class: others help to count
        more = torch.cat([held, rest])[: max(COUNTED, len(held))]
        return cls(
            batch=batch,
            clean=labelled,
            fixed=fixed,
            expected=torch.softmax(log_train(pair) + fixed, 0),
            recovery=recovery_of(pair, compared, encode_do(pair, "auto"), options),
            folds=folds,
            adapted_to=rest,
            compared=compared,
            recorded=recorded.select(held.to(pair.device)),
            counted=batch.select(more.to(pair.device)) if len(held) < batch.rows else compared,
            overlaid=overlaid,
        )

    def seen_by(self, pair: ModelGuidePair) -> Self:
        """Returns the same, to compare on as another pair sees them, which takes other pixels for hidden."""
        compared = pair.seen(self.recorded)
        return replace(self, compared=compared, counted=compared, overlaid=pair.overlaid)

    @property
    def ambiguity(self) -> float:
        """Share of rows of its own whose class the unadapted model does not recognise."""
        return 1.0 - self.recovery

    @property
    def too_few(self) -> bool:
        """Whether none of them can be held out from an adaptation to the others."""
        return self.batch.rows < 2 * max(self.folds, 2)

    def unread(self, pair: ModelGuidePair) -> tuple[str, ...]:
        """Returns the names of the manipulations' children of which no new row has a reading."""
        children = {child for m in pair.graph.manipulations for child in m.children}
        return tuple(name for name in self.batch.empty if name in children)

    def sites(self, pair: ModelGuidePair) -> tuple[Any, ...]:
        """Returns the sites that have new rows, by name; none in a scope without sites."""
        return tuple(pair.encoder.sites[i] for i in self.batch.known_sites)


def fixed_log_ratio(pair: ModelGuidePair, class_prior: ClassPrior) -> Tensor:
    """Returns log of the given class proportions over the training ones, ``(classes,)``; zeros where none are given."""
    train = log_train(pair)
    if isinstance(class_prior, str) and class_prior in ("train", "estimate"):
        return torch.zeros_like(train)
    ratio = prior_log_ratio(pair, class_prior, train[:, None])
    assert ratio is not None
    return ratio.clamp_min(RULED_OUT)


def expect_readings(pair: ModelGuidePair, new: Batch) -> None:
    """Refuses rows whose evidence cannot depend on m: log p of nothing is 0, any gain an error of Monte Carlo.

    Raises:
        DataError: of what m manipulates, and of all that this causes, nothing was measured; or no row is of a site.
    """
    graph, children, affects = pair.graph, pair.moved_children, pair.graph.require_m().affects
    placed = torch.ones(new.rows, dtype=torch.bool) if new.site is None else (new.site >= 0).cpu()
    if not placed.any():
        raise DataError(
            f"adapt: found no {graph.site_column!r} in the new rows ({new.rows} looked at); expected some, since it "
            "says which rows share a manipulation"
        )
    reached = {name for name in children if affects[name] == "quantity"}
    for name in graph.order:  # causes first; a missing child is drawn manipulated, and its effects tell of it
        if reached & set(graph.parents_of(name)):
            reached.add(name)
    reached |= set(children)
    if all(name in new.observed and not bool(new.observed[name].cpu()[placed].any()) for name in reached):
        raise DataError(
            f"adapt: found no reading of {listed(children)} in the new rows ({new.rows} looked at); expected "
            "some to learn the manipulation from: adapt to rows that were measured"
        )


def expect_memory(pair: ModelGuidePair, rows: int, samples: int) -> None:
    """Refuses a theta of so many numbers that every row's own would not fit: confusion takes L * L for L levels.

    Args:
        rows, samples: of a minibatch.

    Raises:
        ValueError: a step would take more than :data:`MOST_BYTES`; says which child, and what to do.
    """
    m = pair.graph.require_m()
    if m.per_dataset:
        return
    draws = rows * (samples if m.per_row else 1)
    needed = draws * pair.manipulation.size * COPIES * pair.model.like.element_size()
    if needed <= MOST_BYTES:
        return
    group = max(pair.manipulation.groups, key=lambda group: group.theta_size)
    node = pair.graph.nodes[group.nodes[0]]
    levels = f" for its {node.classes} levels" if node.classes else ""
    raise ValueError(
        f"adapt: in scope {m.scope!r} every row has a theta of its own, and {node.name!r} takes {group.theta_size} "
        f"numbers{levels}: a step of {rows} rows needs about {needed / 1e9:.0f} GB; expected at most "
        f"{MOST_BYTES / 1e9:.0f}: merge rare levels, leave {node.name!r} out of the manipulation's children, choose "
        "scope dataset, where rows share a theta, or a smaller batch_size"
    )


def hold_out(rows: int, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns row numbers to adapt to and to compare on: all of them where folds follow, else apart."""
    if folds > 1 or rows < 4:
        return torch.arange(rows), torch.arange(rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[(kept := min(500, math.ceil(rows / 5))) :], order[:kept]


def split_folds(rows: int, folds: int, seed: int) -> list[Tensor]:
    """Returns row numbers in random parts of about equal size."""
    return list(torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).chunk(folds))
