"""The regressions of the GCM tests: ridge on splines and kernels, with leave-one-out predictions in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pyro_cama.diagnosis.independence import Array

_LANDMARKS = 100  # of each of the two kernels
_RIDGES = 10.0 ** np.arange(-3, 5)


class LeaveOneOut:
    """A regressor whose predictions for its own rows are leave-one-out: splines and kernels, ridge, in closed form.

    The ridge is chosen by the leave-one-out error.  Residuals that are out of sample are what keeps a GCM test with
    flexible regressions at its level.  One object serves all of pgmpy's calls, and remembers them: a node is regressed
    on the same others again and again.
    """

    def __init__(self) -> None:
        self._key: tuple[str, ...] = ()
        self._basis: tuple[Array, Array] | None = None
        self._known: dict[tuple[tuple[str, ...], str], Array] = {}
        self._last: tuple[tuple[str, ...], str] = ((), "")

    def __sklearn_clone__(self) -> LeaveOneOut:
        return self

    def fit(self, z: pd.DataFrame, y: pd.Series[Any]) -> LeaveOneOut:
        """Regresses y (rows,) on z (rows, columns), and keeps the predictions."""
        key = tuple(map(str, z.columns))
        self._last = key, str(y.name)
        if self._last not in self._known:
            if key != self._key or self._basis is None:
                self._key, self._basis = key, _basis(z)
            self._known[self._last] = _predicted(*self._basis, y.to_numpy(dtype=float))
        return self

    def predict(self, z: pd.DataFrame) -> Array:
        """Returns the predictions of the last fit, of each row by all others, (rows,)."""
        return self._known[self._last]


def _basis(z: pd.DataFrame) -> tuple[Array, Array]:
    """Returns orthogonal features of z, (rows, features), and their variances; the intercept is centred away."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.preprocessing import SplineTransformer

    varied = z.loc[:, z.nunique() > 1]
    flags = [column for column in varied if varied[column].dtype == bool]
    numbers = varied.drop(columns=flags).to_numpy(dtype=float)
    indicators = varied[flags].to_numpy(dtype=float)
    blocks = [indicators, numbers]
    if numbers.shape[1]:
        blocks.append(SplineTransformer(n_knots=6, include_bias=False).fit_transform(numbers))
    width = numbers.shape[1] + len(flags) / 2
    if varied.shape[1] - bool(flags) > 0:  # more than one discrete node, or any number: relations that are no sum
        both = np.concatenate([indicators * np.sqrt(2), numbers], 1)
        landmarks = min(_LANDMARKS, len(z) // 10)
        blocks += [
            Nystroem(gamma=gamma / width, n_components=landmarks, random_state=0).fit_transform(both)
            for gamma in (0.15, 0.6)
        ]
    features = np.concatenate(blocks, 1)
    features = features - features.mean(0)
    variances, axes = np.linalg.eigh(features.T @ features)
    kept = variances > 1e-9 * max(float(variances.max(initial=0.0)), 1e-9)
    return features @ axes[:, kept], variances[kept]


def _predicted(features: Array, variances: Array, y: Array) -> Array:
    """Returns leave-one-out predictions (rows,) of y by ridge on orthogonal features: y - residual / (1 - leverage)."""
    n = len(y)
    centred = y - y.mean()
    weights = features.T @ centred
    best, error = centred, np.inf
    for ridge in _RIDGES:
        residual = centred - features @ (weights / (variances + ridge))
        leverage = 1 / n + (features**2) @ (1 / (variances + ridge))
        residual = residual / np.maximum(1 - leverage, 1e-3)
        if (squared := float(residual @ residual)) < error:
            best, error = residual, squared
    predicted: Array = y - best
    return predicted
