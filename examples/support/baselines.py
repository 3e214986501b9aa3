"""Classifiers to compare with, all with `fit(frame, target)`, `predict`, `predict_proba` and `accuracy`.

- `DiscriminativeNet`: a multilayer perceptron, tuned by cross-validation on its training rows.
  Its adaptations to rows without labels, each a copy:
    - `adapt_norm`: statistics of the new rows. Schneider et al., "Improving robustness against common
      corruptions by covariate shift adaptation", NeurIPS 2020
    - `adapt_tent`: these, then a gain and offset of low entropy. Wang et al., "Tent: fully test-time
      adaptation by entropy minimization", ICLR 2021
    - `adapt_shot_im`: information maximisation on the features. Liang, Hu and Feng, "Do we really need to
      access the source data?", ICML 2020
- `boosting`, `logistic`: scikit-learn's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier:
    """What all baselines share: columns and labels by name."""

    target: str
    columns: list[str]
    labels: np.ndarray

    def fit(self, frame: pd.DataFrame, target: str) -> Self:
        """Learn `target` from all other columns."""
        self.target, self.columns = target, [name for name in frame.columns if name != target]
        self.labels, codes = np.unique(frame[target].to_numpy(str), return_inverse=True)
        self._fit(frame[self.columns].to_numpy(float), codes)
        return self

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Probabilities, one column a class in the order of `labels`."""
        return self._proba(frame[self.columns].to_numpy(float))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """The most probable labels."""
        return self.labels[self.predict_proba(frame).argmax(1)]

    def accuracy(self, frame: pd.DataFrame) -> float:
        """The share of rows whose label is predicted."""
        return float((self.predict(frame) == frame[self.target].to_numpy(str)).mean())

    def _fit(self, x: np.ndarray, y: np.ndarray) -> None:
        raise NotImplementedError

    def _proba(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass
class _Sklearn(Classifier):
    estimator: Any

    def _fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.estimator.fit(x, y)

    def _proba(self, x: np.ndarray) -> np.ndarray:
        return self.estimator.predict_proba(x)


def boosting(seed: int = 0) -> Classifier:
    """Gradient-boosted trees with scikit-learn's own settings."""
    return _Sklearn(HistGradientBoostingClassifier(random_state=seed))


def logistic() -> Classifier:
    """Logistic regression on standardised columns."""
    return _Sklearn(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


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
        h = x.expand(len(self.dropout), *x.shape)
        for layer in self.features:
            h = layer(h).relu()
            if self.training:
                h = h * (torch.rand_like(h) >= self.dropout) / (1 - self.dropout)
        return self.head(h)


class DiscriminativeNet(Classifier):
    """Standardised columns, a multilayer perceptron, dropout, weight decay, early stopping.

    Shape, dropout, decay and the number of epochs (`tuned`) are those of the least cross-validated log-loss
    on the training rows; one net is then trained on all of them. Label smoothing is SHOT's, for its source.
    """

    tuned: dict[str, Any]
    nets: _Nets
    mean: Tensor
    sd: Tensor

    HIDDEN = ([128], [64, 64])
    DROPOUT = (0.0, 0.5)
    DECAY = (0.1, 1.0)
    FOLDS, BATCH, RATE = 5, 64, 1e-3

    def __init__(self, seed: int = 0, label_smoothing: float = 0.1, max_epochs: int = 150) -> None:
        self.seed, self.label_smoothing, self.max_epochs = seed, label_smoothing, max_epochs

    def adapt_norm(self, frame: pd.DataFrame) -> Self:
        """A copy that standardises by the statistics of these rows."""
        adapted = copy.deepcopy(self)
        adapted.mean, adapted.sd = _moments(torch.tensor(frame[self.columns].to_numpy(float)))
        return adapted

    def adapt_tent(self, frame: pd.DataFrame, steps: int = 50, rate: float = 1e-3) -> Self:
        """As `adapt_norm`, then a gain and offset a column that make predictions confident."""
        adapted = self.adapt_norm(frame)
        x = adapted._standardise(frame[self.columns].to_numpy(float))
        gain, offset = torch.ones_like(x[0]).requires_grad_(), torch.zeros_like(x[0]).requires_grad_()
        _minimise(
            lambda: _entropy(adapted.nets(x * gain + offset)[0].softmax(1)).mean(),
            [gain, offset],
            steps,
            rate,
        )
        # (x - mean) / sd * gain + offset, written as a mean and a standard deviation again
        adapted.sd = adapted.sd / gain.detach()
        adapted.mean = adapted.mean - offset.detach() * adapted.sd
        return adapted

    def adapt_shot_im(self, frame: pd.DataFrame, steps: int = 100, rate: float = 1e-3) -> Self:
        """A copy whose features make confident, diverse predictions of these rows; the head stays."""
        adapted = copy.deepcopy(self)
        x = self._standardise(frame[self.columns].to_numpy(float))

        def loss() -> Tensor:
            proba = adapted.nets(x)[0].softmax(1)
            return _entropy(proba).mean() - _entropy(proba.mean(0))

        _minimise(loss, list(adapted.nets.features.parameters()), steps, rate)
        return adapted

    def _standardise(self, values: np.ndarray) -> Tensor:
        return ((torch.tensor(values) - self.mean) / self.sd).float()

    def _fit(self, values: np.ndarray, codes: np.ndarray) -> None:
        self.mean, self.sd = _moments(torch.tensor(values))
        x, y = self._standardise(values), torch.as_tensor(codes)
        held_out = torch.zeros(self.FOLDS, len(x), dtype=torch.bool)
        folds = StratifiedKFold(self.FOLDS, shuffle=True, random_state=self.seed)
        for k, (_, rows) in enumerate(folds.split(values, codes)):
            held_out[k, rows] = True
        grid = list(product(self.DROPOUT, self.DECAY))
        settings, use = torch.tensor(grid), ~held_out.repeat(len(grid), 1)
        least = math.inf
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for hidden in self.HIDDEN:
                _, losses = self._train(hidden, settings.repeat_interleave(self.FOLDS, 0), x, y, use, self.max_epochs)
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
                with torch.no_grad():  # AdamW's decoupled decay, a strength a net
                    for layer in [*nets.features, nets.head]:
                        layer.weight.mul_(1 - self.RATE * decay[:, None, None])
            nets.eval()
            with torch.no_grad():
                losses.append(loss(torch.arange(len(x)), ~use, 0.0))
        return nets, torch.stack(losses)

    def _proba(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.nets(self._standardise(x))[0].softmax(1).numpy()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    sd, mean = torch.std_mean(x, 0, correction=0)
    return mean, sd.where(sd > 0, 1.0)  # a constant column


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor], steps: int, rate: float) -> None:
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward(inputs=parameters)  # all else is left alone
        optimiser.step()


def _entropy(proba: Tensor) -> Tensor:
    return torch.special.entr(proba).sum(-1)
