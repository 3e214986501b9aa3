"""Streams of batches, and ways to read them: CAMA's monitor, adapting always or never, Tent, detectors before a model.

A reader takes a batch without labels and gives labels for it; what it does besides is its own affair.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pyro_cama
from pyro_cama import CAMA, Shift, StructuralModel
from pyro_cama.inference.evidence import elbo_of_unlabelled
from support import drift_pairs
from support.baselines import DiscriminativeNet
from support.measurement import GRAPH, variant

ADAPT: dict[str, dict[str, Any]] = {"full": {}, "quick": {}, "smoke": {"steps": 5, "restarts": 1, "folds": 2}}
LEAST = 100  # rows of a new world before anything adapts to it


@dataclass(frozen=True)
class Stream:
    """A model, rows that it has not seen, and the batches that come.

    Attributes:
        cama, net: fitted to the training rows.
        held: rows of the training world, for detectors.
        batches: the name of the world and the rows of every batch, in order.
        predict: options of CAMA's predictions.
    """

    cama: CAMA
    net: Any
    held: Any
    batches: Sequence[tuple[str, Any]]
    predict: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Worlds:
    """A random model over the graph "measurement", and what its instruments do in each world."""

    model: StructuralModel
    cama: CAMA
    net: DiscriminativeNet
    held: pd.DataFrame
    seed: int

    @classmethod
    @cache
    def of(cls, seed: int, size: str) -> Worlds:
        model = StructuralModel(GRAPH, seed)
        train = model.sample(200 if size == "smoke" else 2000, seed=1)
        fit: dict[str, Any] = {"max_epochs": 2 if size == "smoke" else 60, "progress": False}
        graph = variant(GRAPH, "dataset", "affine").to_dict()
        graph["latents"]["z"]["effect"] = "linear"
        cama = pyro_cama.build(graph, seed=seed, hidden=32, device="cpu")
        cama.fit(train, conditional_weight=0.0, **fit)  # the graph is right
        net = DiscriminativeNet(seed, **({"max_epochs": 5} if size == "smoke" else {})).fit(train, "y")
        return cls(model, cama, net, model.sample(200, seed=9), seed)

    def shift(self, world: str, by: float = 2.0) -> dict[str, Shift]:
        """What moves in a world: nothing in A, a third of the readings elsewhere, up or down."""
        if world == "A":
            return {}
        draws = np.random.default_rng([self.seed, ord(world)])
        children = list(self.cama.graph.require_m().children)
        moved = draws.permutation(children)[: len(children) // 3]
        return {name: Shift(offset=float(by * draws.choice([-1, 1]))) for name in moved}

    def batch(self, number: int, rows: int, world: str = "A", by: float = 2.0) -> pd.DataFrame:
        return self.model.sample(rows, seed=100 + number, do=self.shift(world, by))

    def stream(self, batches: Sequence[tuple[str, pd.DataFrame]]) -> Stream:
        return Stream(self.cama, self.net, self.held, batches)


def gas_stream(seed: int, size: str, data_dir: Path | str | None) -> Stream:
    """Gas sensors in order of time, and then batches 2, 3 and 6 once more, by other rows of them; 200 rows a step."""
    pairs = drift_pairs.pairs([f"gas_1_{batch}" for batch in (2, 3, 4, 6)], data_dir)
    first = next(iter(pairs.values()))
    rows = first.train.sample(frac=1, random_state=seed)
    train, held = rows[:-110], rows[-110:]
    fit: dict[str, Any] = {"max_epochs": 2} if size == "smoke" else {}
    cama = pyro_cama.build(first.graph, seed=seed, device="cpu").fit(train, progress=False, **fit)
    net = DiscriminativeNet(seed, **({"max_epochs": 5} if size == "smoke" else {})).fit(train, "gas")
    most = 100 if size == "smoke" else 400
    parts = {name: pair.new.sample(frac=1, random_state=seed) for name, pair in pairs.items()}
    batches = []
    for visit, names in enumerate(((2, 3, 4, 6), (2, 3, 6))):
        for name in names:
            own = parts[f"gas_1_{name}"][visit * most : (visit + 1) * most]
            batches += [(f"batch {name}", own[i : i + 200]) for i in range(0, len(own), 200)]
    return Stream(cama, net, held, batches)


# readers ----------------------------------------------------------------------------------------------------------


@dataclass
class Reader(ABC):
    """What reads a stream.

    Attributes:
        stream: that it reads.
        adapt: options of an adaptation.
        told: what else it says of the last batch.
    """

    stream: Stream
    adapt: dict[str, Any]
    told: dict[str, float] = field(default_factory=dict)

    @abstractmethod
    def read(self, rows: Any) -> np.ndarray:
        """Returns labels."""


@dataclass
class Monitored(Reader):
    """CAMA with its monitor."""

    def __post_init__(self) -> None:
        stream = self.stream
        self.monitor = stream.cama.monitor(stream.held, least=LEAST, predict=stream.predict, **self.adapt)

    def read(self, rows: Any) -> np.ndarray:
        step = self.monitor.update(rows)
        regime = -1 if step.regime is None else step.regime
        self.told = {"alarm": step.changed, "adapted": step.adapted, "regime": regime, "evidence": step.evidence}
        return step.labels


@dataclass
class Never(Reader):
    """CAMA as it was fitted."""

    def read(self, rows: Any) -> np.ndarray:
        return self.stream.cama.predict(rows, **self.stream.predict)


@dataclass
class Always(Reader):
    """CAMA adapted anew to every batch."""

    def read(self, rows: Any) -> np.ndarray:
        adapted = self.stream.cama.adapt(rows, progress=False, **self.adapt)
        self.told = {"adapted": adapted.adaptation is not None and adapted.adaptation.applied}
        return adapted.predict(rows, **self.stream.predict)


@dataclass
class Tent(Reader):
    """A net that Tent adapts to every batch, from where it was."""

    def __post_init__(self) -> None:
        self.net = self.stream.net

    def read(self, rows: Any) -> np.ndarray:
        self.net = self.net.adapt_tent(rows)
        return self.net.predict(rows)


@dataclass
class Detected(Reader):
    """The same CAMA behind a detector of river's, on the rows' evidence: at an alarm it adapts anew, to that batch."""

    name: str = "adwin"

    def __post_init__(self) -> None:
        self.cama = self.stream.cama
        self.detector = detector(self.name)
        self.alarms(self.stream.held)

    def alarms(self, rows: pd.DataFrame) -> bool:
        found = False
        for value in elbo_of_unlabelled(self.cama, rows.drop(columns=self.cama.graph.target)):
            self.detector.update(float(value))
            found = found or self.detector.drift_detected
        return found

    def read(self, rows: Any) -> np.ndarray:
        alarm = self.alarms(rows)
        if alarm:
            self.cama = self.stream.cama.adapt(rows, progress=False, **self.adapt)
            self.detector = detector(self.name)
            self.alarms(rows)
        self.told = {"alarm": alarm, "adapted": alarm}
        return self.cama.predict(rows)


def detector(name: str) -> Any:
    """A detector of river's by its name, with its own defaults.

    Raises:
        ImportError: river is not installed.
    """
    from river import drift

    return drift.KSWIN(seed=0) if name == "kswin" else {"adwin": drift.ADWIN, "ph": drift.PageHinkley}[name]()


def detectors() -> tuple[str, ...]:
    """The names of those that are there; none without river."""
    try:
        import river  # noqa: F401
    except ImportError:
        return ()
    return ("adwin", "kswin", "ph")


def readers(stream: Stream, size: str) -> dict[str, Callable[[], Reader]]:
    """Every way to read a stream, by name; each begins when it is called."""
    adapt = ADAPT[size]
    found: dict[str, Callable[[], Reader]] = {
        "monitor": lambda: Monitored(stream, adapt),
        "never": lambda: Never(stream, adapt),
        "always": lambda: Always(stream, adapt),
        "tent_carried": lambda: Tent(stream, adapt),
    }
    if size == "smoke":
        del found["always"]
        return found
    for name in detectors()[:2]:
        found[name] = lambda name=name: Detected(stream, adapt, name=name)  # type: ignore[misc]
    return found


def read_all(stream: Stream, reader: Reader) -> Iterator[tuple[str, dict[str, float]]]:
    """The world of every batch, and how right the labels were, in how many seconds, and what else was told.

    Seconds are of the processor, which others on the machine stretch least.
    """
    target = stream.cama.graph.target
    for world, rows in stream.batches:
        begun = time.process_time()
        unlabelled = {name: rows[name] for name in rows if name != target}
        given = unlabelled if isinstance(rows, Mapping) else pd.DataFrame(unlabelled)
        labels = reader.read(rows if isinstance(reader, Detected | Tent) else given)
        seconds = time.process_time() - begun
        yield world, {"accuracy": float((labels == rows[target]).mean()), "seconds": seconds, **reader.told}
