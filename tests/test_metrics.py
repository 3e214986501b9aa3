"""Figures of a classifier against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from pyro_cama.metrics import calibration_error, classification_metrics


@pytest.mark.parametrize("seed", range(5))
def test_figures_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet([0.4, 0.3, 0.2, 0.05], 80), rng.integers(0, 3, 80)
    p[:, 3] *= seed != 0  # a class that nobody predicts
    p /= p.sum(1, keepdims=True)
    found = classification_metrics(p, y, ("a", "b", "c", "d"))
    said = p.argmax(1)
    assert found.accuracy == metrics.accuracy_score(y, said)
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p, labels=range(4)), rel=1e-9)
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(
        y, said, labels=range(4), zero_division=np.nan
    )
    np.testing.assert_allclose(found.classes["precision"], precision)
    np.testing.assert_allclose(found.classes["recall"], recall)
    np.testing.assert_allclose(found.classes["f1"], f1)
    assert found.classes["rows"].tolist() == rows.tolist()
    confidence, right, error = p.max(1), said == y, 0.0
    for i in range(15):
        bin_ = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if bin_.any():
            error += bin_.mean() * abs(right[bin_].mean() - confidence[bin_].mean())
    assert calibration_error(confidence, right) == pytest.approx(error, abs=1e-12)
