"""Classifiers to compare with, all with `fit(frame, target)`, `predict`, `predict_proba` and `accuracy`.

Columns are numbers or categories, and values may be missing, in training rows and in new ones.

- `DiscriminativeNet`: a multilayer perceptron, tuned by cross-validation on its training rows.
  Its adaptations to rows without labels, each a copy:
    - `adapt_norm`: statistics of the new rows. Schneider et al., "Improving robustness against common
      corruptions by covariate shift adaptation", NeurIPS 2020
    - `adapt_tent`: these, then a gain and offset of low entropy. Wang et al., "Tent: fully test-time
      adaptation by entropy minimization", ICLR 2021
    - `adapt_shot_im`: information maximisation on the features. Liang, Hu and Feng, "Do we really need to
      access the source data?", ICML 2020
    - `adapt_coral`: features of the training rows and of the new ones with the same mean and covariance.
      Sun and Saenko, "Deep CORAL", ECCV workshops 2016
- `IRM`, `CORAL`: that net, from rows of several environments. Arjovsky et al., "Invariant risk
  minimization", 2019 (IRMv1), and Deep CORAL between them; both as Gulrajani and Lopez-Paz, "In search of
  lost domain generalization", ICLR 2021, have them.
- `CVAE`: deep CAMA without M, and with the same unlabelled objective for its decoder.
- `boosting`, `logistic`: scikit-learn's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyro
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

import pyro_cama
from pyro_cama import CausalGraph
from pyro_cama.inference.bounds import importance_bound, marginal


class Classifier:
    """What all baselines share: labels by name."""

    target: str
    labels: np.ndarray

    def fit(self, frame: pd.DataFrame, target: str) -> Self:
        """Learn `target` from all other columns."""
        raise NotImplementedError

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Probabilities, one column a class in the order of `labels`."""
        raise NotImplementedError

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """The most probable labels; None where there are no probabilities."""
        p = self.predict_proba(frame)
        labels = self.labels[p.argmax(1)].astype(object)
        labels[~np.isfinite(p).all(1)] = None
        return labels

    def accuracy(self, frame: pd.DataFrame) -> float:
        """The share of rows whose label is predicted."""
        return float((self.predict(frame) == frame[self.target].to_numpy(str)).mean())


class Encoding:
    """A frame as numbers: numeric columns as they are, others one-hot; NaN where a value is missing.

    A level that the training rows lack is all zeros.

    >>> frame = pd.DataFrame({"size": [1.0, None], "sex": ["f", "m"]})
    >>> Encoding(frame)(frame.assign(sex=["m", None])).tolist()
    [[1.0, 0.0, 1.0], [nan, nan, nan]]
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.levels = {name: None if pd.api.types.is_numeric_dtype(column) else np.unique(column.dropna().astype(str))
                       for name, column in frame.items()}  # fmt: skip

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        parts = []
        for name, levels in self.levels.items():
            column = frame[name]
            if levels is None:
                parts.append(column.to_numpy(float, na_value=np.nan)[:, None])
            else:
                one_hot = (column.astype(str).to_numpy()[:, None] == levels).astype(float)
                parts.append(np.where(column.isna().to_numpy()[:, None], np.nan, one_hot))
        return np.concatenate(parts, 1)


class _Tabular(Classifier):
    """A classifier of encoded rows."""

    encoding: Encoding

    def fit(self, frame: pd.DataFrame, target: str) -> Self:
        self.target, self.encoding = target, Encoding(frame.drop(columns=target))
        self.labels, codes = np.unique(frame[target].to_numpy(str), return_inverse=True)
        self._fit(self.encoding(frame), codes)
        return self

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        return self._proba(self.encoding(frame))

    def _fit(self, x: np.ndarray, y: np.ndarray) -> None:
        raise NotImplementedError

    def _proba(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass
class _Sklearn(_Tabular):
    estimator: Any

    def _fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.estimator.fit(x, y)

    def _proba(self, x: np.ndarray) -> np.ndarray:
        return self.estimator.predict_proba(x)


def boosting(seed: int = 0) -> Classifier:
    """Gradient-boosted trees with scikit-learn's own settings."""
    return _Sklearn(HistGradientBoostingClassifier(random_state=seed))


def logistic() -> Classifier:
    """Logistic regression on standardised columns; a missing value is the training mean."""
    fill = SimpleImputer(keep_empty_features=True)
    return _Sklearn(make_pipeline(fill, StandardScaler(), LogisticRegression(max_iter=1000)))


class _Linear(nn.Module):
    """`nets` linear layers side by side: (nets, rows, inputs) -> (nets, rows, outputs)."""

    def __init__(self, nets: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(nets, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(nets, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _Nets(nn.Module):
    """Perceptrons of one shape trained side by side, so that all folds of all settings cost one run."""

    def __init__(self, sizes: list[int], dropout: Tensor) -> None:
        super().__init__()
        nets = len(dropout)
        self.dropout = dropout[:, None, None]
        self.features = nn.ModuleList(_Linear(nets, i, o) for i, o in pairwise(sizes[:-1]))
        self.head = _Linear(nets, sizes[-2], sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inputs) -> logits (nets, rows, classes)."""
        return self.head(self.last_features(x))

    def last_features(self, x: Tensor) -> Tensor:
        """(rows, inputs) -> what the head sees (nets, rows, width)."""
        h = x.expand(len(self.dropout), *x.shape)
        for layer in self.features:
            h = layer(h).relu()
            if self.training:
                h = h * (torch.rand_like(h) >= self.dropout) / (1 - self.dropout)
        return h

    def decay(self, strength: Tensor) -> None:
        """AdamW's decoupled decay, a strength a net."""
        with torch.no_grad():
            for layer in [*self.features, self.head]:
                layer.weight.mul_(1 - strength[:, None, None])


class DiscriminativeNet(_Tabular):
    """Standardised columns, a multilayer perceptron, dropout, weight decay, early stopping.

    Shape, dropout, decay and the number of epochs (`tuned`) are those of the least cross-validated log-loss
    on the training rows (some of them, where there are many); one net is then trained on all of them.  Label
    smoothing is SHOT's, for its source.  A missing value is the mean.
    """

    tuned: dict[str, Any]
    nets: _Nets
    mean: Tensor
    sd: Tensor
    gain: Tensor
    offset: Tensor
    train: tuple[Tensor, Tensor]

    HIDDEN = ([128], [64, 64])
    DROPOUT = (0.0, 0.5)
    DECAY = (0.1, 1.0)
    FOLDS, BATCH, RATE = 5, 64, 1e-3
    TUNING_ROWS, TUNING_STEPS = 1500, 1500

    def __init__(self, seed: int = 0, label_smoothing: float = 0.1, max_epochs: int = 150) -> None:
        self.seed, self.label_smoothing, self.max_epochs = seed, label_smoothing, max_epochs

    def encode(self, frame: pd.DataFrame) -> Tensor:
        """Rows in the net's units, (rows, inputs): standardised, a missing value at the mean."""
        return self._standardise(self.encoding(frame))

    def logits(self, x: Tensor) -> Tensor:
        """Logits of encoded rows, (rows, classes); differentiable."""
        return self.nets(x)[0]

    def adapt_norm(self, frame: pd.DataFrame) -> Self:
        """A copy that standardises by the statistics of these rows; a column without any keeps its own."""
        adapted = copy.deepcopy(self)
        mean, sd = _moments(self.encoding(frame))
        adapted.mean, adapted.sd = mean.where(~mean.isnan(), self.mean), sd.where(sd > 0, self.sd)
        return adapted

    def adapt_tent(self, frame: pd.DataFrame, steps: int = 50, rate: float = 1e-3) -> Self:
        """As `adapt_norm`, then a gain and offset a column that make predictions confident."""
        adapted = self.adapt_norm(frame)
        x = adapted.encode(frame)
        gain, offset = adapted.gain.clone().requires_grad_(), adapted.offset.clone().requires_grad_()
        _minimise(lambda: _entropy(adapted.logits(x * gain + offset).softmax(1)).mean(), [gain, offset], steps, rate)
        adapted.gain, adapted.offset = gain.detach(), offset.detach()
        return adapted

    def adapt_shot_im(self, frame: pd.DataFrame, steps: int = 100, rate: float = 1e-3) -> Self:
        """A copy whose features make confident, diverse predictions of these rows; the head stays."""
        adapted = copy.deepcopy(self)
        x = self.encode(frame)

        def loss() -> Tensor:
            proba = adapted.logits(x).softmax(1)
            return _entropy(proba).mean() - _entropy(proba.mean(0))

        _minimise(loss, list(adapted.nets.features.parameters()), steps, rate)
        return adapted

    def adapt_coral(self, frame: pd.DataFrame, steps: int = 100, rate: float = 1e-3, weight: float = 10.0) -> Self:
        """A copy that still predicts the training rows, by features that these rows have alike."""
        adapted = copy.deepcopy(self)
        (x, y), new = self.train, self.encode(frame)

        def loss() -> Tensor:
            source, target = adapted.nets.last_features(x), adapted.nets.last_features(new)
            risk = F.cross_entropy(adapted.nets.head(source)[0], y, label_smoothing=self.label_smoothing)
            return risk + weight * coral_penalty([source[0], target[0]])

        _minimise(loss, list(adapted.nets.parameters()), steps, rate)
        return adapted

    def _codes(self, frame: pd.DataFrame) -> Tensor:
        return torch.as_tensor(np.searchsorted(self.labels, frame[self.target].to_numpy(str)))

    def _standardise(self, values: np.ndarray) -> Tensor:
        x = ((torch.tensor(values) - self.mean) / self.sd).nan_to_num(0.0).float()
        return x * self.gain + self.offset

    def _fit(self, values: np.ndarray, codes: np.ndarray) -> None:
        self.mean, sd = _moments(values)
        self.sd = sd.where(sd > 0, 1.0)  # a constant column
        self.gain, self.offset = torch.ones(values.shape[1]), torch.zeros(values.shape[1])
        self.train = x, y = self._standardise(values), torch.as_tensor(codes)
        # rows of every class dealt out in turn
        order = torch.as_tensor(np.lexsort((np.random.default_rng(self.seed).random(len(x)), codes)))
        some = order[torch.linspace(0, len(x) - 1, min(len(x), self.TUNING_ROWS)).round().long()]
        held_out = torch.arange(len(some)) % self.FOLDS == torch.arange(self.FOLDS)[:, None]
        max_epochs = min(self.max_epochs, math.ceil(self.TUNING_STEPS * self.BATCH / len(some)))
        grid = list(product(self.DROPOUT, self.DECAY))
        settings, use = torch.tensor(grid), ~held_out.repeat(len(grid), 1)
        least = math.inf
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for hidden in self.HIDDEN:
                folds = settings.repeat_interleave(self.FOLDS, 0)
                _, losses = self._train(hidden, folds, x[some], y[some], use, max_epochs)
                loss = losses.unflatten(1, (-1, self.FOLDS)).mean(2)  # (epochs, settings)
                if loss.min() < least:
                    least = float(loss.min())
                    epoch, best = divmod(int(loss.argmin()), len(grid))
                    dropout, decay = grid[best]
                    self.tuned = {"hidden": hidden, "dropout": dropout, "decay": decay, "epochs": epoch + 1}
            all_rows = torch.ones(1, len(x), dtype=torch.bool)
            setting = torch.tensor([[self.tuned["dropout"], self.tuned["decay"]]])
            self.nets, _ = self._train(self.tuned["hidden"], setting, x, y, all_rows, self.tuned["epochs"])

    def _train(
        self, hidden: list[int], settings: Tensor, x: Tensor, y: Tensor, use: Tensor, epochs: int
    ) -> tuple[_Nets, Tensor]:
        """Nets trained on the rows in `use` (nets, rows), and the log-loss on their others (epochs, nets)."""
        dropout, decay = settings.T
        nets = _Nets([x.shape[1], *hidden, len(self.labels)], dropout)
        optimiser = torch.optim.Adam(nets.parameters(), lr=self.RATE)

        def loss(rows: Tensor, which: Tensor, smoothing: float) -> Tensor:
            logits, targets = nets(x[rows]).transpose(1, 2), y[rows].expand(len(use), -1)
            each = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
            return (each * which[:, rows]).sum(1) / which[:, rows].sum(1).clamp(min=1)

        losses = []
        for _ in range(epochs):
            nets.train()
            for rows in torch.randperm(len(x)).split(self.BATCH):
                optimiser.zero_grad()
                loss(rows, use, self.label_smoothing).sum().backward()
                optimiser.step()
                nets.decay(self.RATE * decay)
            nets.eval()
            with torch.no_grad():
                losses.append(loss(torch.arange(len(x)), ~use, 0.0))
        return nets, torch.stack(losses)

    def _proba(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.logits(self._standardise(x)).softmax(1).numpy()


@dataclass(frozen=True)
class Seen:
    """A batch of one environment as the net sees it."""

    features: Tensor
    logits: Tensor
    y: Tensor


class _Invariant(DiscriminativeNet):
    """That net, from several environments at once: their mean risk, and a penalty of how they differ.

    Shape, dropout, decay and epochs are those of the net on all rows, the steps at least `STEPS`; for the first
    `warm` of them the penalty's weight is at most 1, as in the code of IRM's authors.
    """

    STEPS, PENALTY_BATCH = 500, 256

    def __init__(self, seed: int = 0, weight: float = 1.0, warm: float = 0.5, **options: Any) -> None:
        super().__init__(seed, **options)
        self.weight, self.warm = weight, warm

    def fit_environments(self, frames: Sequence[pd.DataFrame], target: str) -> Self:
        """Learn `target` from all other columns of every environment's rows."""
        self.fit(pd.concat(frames, ignore_index=True), target)
        parts = [(self.encode(frame), self._codes(frame)) for frame in frames]
        steps = max(self.STEPS, self.tuned["epochs"] * math.ceil(max(len(y) for _, y in parts) / self.BATCH))
        decay = torch.tensor([self.RATE * self.tuned["decay"]])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sizes = [parts[0][0].shape[1], *self.tuned["hidden"], len(self.labels)]
            nets = _Nets(sizes, torch.tensor([self.tuned["dropout"]])).train()
            optimiser = torch.optim.Adam(nets.parameters(), lr=self.RATE)
            for step in range(steps):
                seen = []
                for x, y in parts:
                    rows = torch.randperm(len(y))[: self.PENALTY_BATCH]
                    features = nets.last_features(x[rows])
                    seen.append(Seen(features[0], nets.head(features)[0], y[rows]))
                weight = self.weight if step >= self.warm * steps else min(self.weight, 1.0)
                risks = [F.cross_entropy(e.logits, e.y, label_smoothing=self.label_smoothing) for e in seen]
                loss = torch.stack(risks).mean() + weight * self._penalty(seen)
                optimiser.zero_grad()
                (loss / max(weight, 1.0)).backward()
                optimiser.step()
                nets.decay(decay)
        self.nets = nets.eval()
        return self

    def _penalty(self, seen: list[Seen]) -> Tensor:
        raise NotImplementedError


class IRM(_Invariant):
    """A net whose head is the best one in every environment (IRMv1)."""

    def __init__(self, seed: int = 0, weight: float = 1000.0, **options: Any) -> None:
        super().__init__(seed, weight, **options)

    def _penalty(self, seen: list[Seen]) -> Tensor:
        return torch.stack([irm_penalty(e.logits, e.y, self.label_smoothing) for e in seen]).mean()


class CORAL(_Invariant):
    """A net whose features have the same mean and covariance in every environment."""

    def _penalty(self, seen: list[Seen]) -> Tensor:
        return coral_penalty([e.features for e in seen])


def irm_penalty(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The squared gradient of the risk in a factor of the logits; unbiased, from two halves of the rows."""
    factor = torch.ones((), requires_grad=True)
    halves = [F.cross_entropy(logits[i::2] * factor, y[i::2], label_smoothing=label_smoothing) for i in range(2)]
    first, second = (torch.autograd.grad(risk, factor, create_graph=True)[0] for risk in halves)
    return first * second


def coral_penalty(features: Sequence[Tensor]) -> Tensor:
    """Squared differences of means and covariances, mean over their entries and over pairs; zero for a single one."""
    moments = [(f.mean(0), f.T.cov()) for f in features]
    pairs = [
        (a - b).square().mean() for one, other in combinations(moments, 2) for a, b in zip(one, other, strict=True)
    ]
    return 2 * torch.stack(pairs).mean() if pairs else torch.zeros(())


class CVAE(Classifier):
    """Deep CAMA without M: the same graph, networks and training, prediction by Bayes' rule.

    Nothing in it only adapts, so `adapt` tunes the decoders, p(child | y, z, co-parents), by CAMA's unlabelled
    objective (eq. 7).
    """

    def __init__(
        self, graph: str | Path | Mapping[str, Any] | CausalGraph, seed: int = 0, *, hidden: int = 64, **fit: Any
    ) -> None:
        self.cama = pyro_cama.build(_deep(without_m(graph)), seed=seed, hidden=hidden, device="cpu")
        self.seed, self.options = seed, fit

    def fit(self, frame: pd.DataFrame, target: str) -> Self:
        self.target, self.labels = target, np.array([str(level) for level in self.cama.classes])
        self.cama.fit(frame, progress=False, **self.options)
        return self

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        return self.cama.predict_proba(frame)

    def adapt(self, frame: pd.DataFrame, steps: int = 100, rate: float = 1e-2, batch_size: int = 256) -> Self:
        """A copy whose decoders explain these rows."""
        adapted = copy.copy(self)
        adapted.cama = cama = self.cama.copy()
        rows, children = cama.encode(frame, target="ignore"), set(cama.graph.blanket.children)
        decoders = tuple(f"networks.merges.{i}." for i, g in enumerate(cama.model.groups) if children & {*g.nodes})
        moving = [value for name, value in cama.model.named_parameters() if name.startswith(decoders)]

        def loss() -> Tensor:
            batch = rows.select(torch.randperm(rows.rows)[:batch_size])
            return -marginal(importance_bound(cama.log_weights(batch, samples=4, classes=True))).mean()

        local = pyro.settings.context(module_local_params=True)
        with torch.random.fork_rng(devices=[]), local, pyro.validation_enabled(False):
            torch.manual_seed(self.seed)
            _minimise(loss, moving, steps, rate)
        return adapted


def without_m(graph: str | Path | Mapping[str, Any] | CausalGraph) -> CausalGraph:
    """The graph without its manipulation."""
    given = CausalGraph(graph)
    raw = given.to_dict()
    latents = {name: latent for name, latent in raw["latents"].items() if given.m is None or name != given.m.name}
    return CausalGraph({**raw, "latents": {**latents, "m": None}})


def _deep(graph: CausalGraph) -> CausalGraph:
    """The graph with the paper's style, where it has one: networks, whose layers can be tuned."""
    raw = graph.to_dict()
    if graph.z is not None:
        style = raw["latents"][graph.z.name]
        style.pop("loadings", None)
        style["effect"] = "deep"
    return CausalGraph(raw)


def _moments(values: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what is there; NaN where nothing is."""
    x = torch.tensor(values)
    mean = x.nanmean(0)
    return mean, (x - mean).square().nanmean(0).sqrt()


def _minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int, rate: float) -> None:
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward(inputs=list(parameters))  # all else is left alone
        optimiser.step()


def _entropy(proba: Tensor) -> Tensor:
    return torch.special.entr(proba).sum(-1)
