"""Figures of a classifier against scikit-learn's, and what is not told: no part of any figure, and counted."""

import math

import numpy as np
import pytest
from sklearn import metrics

from pyro_cama import build
from pyro_cama.metrics import bins_of, calibration_error, classification_metrics, scores


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
    assert found.untold == 0
    assert "left out" not in str(found)


def test_rows_without_probabilities_are_left_out_counted_and_said() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet([1.0, 1.0], 50), rng.integers(0, 2, 50)
    p[[0, 7, 20]] = np.nan
    told = np.isfinite(p).all(1)
    found, expected = (classification_metrics(p[rows], y[rows], ("a", "b")) for rows in (slice(None), told))
    assert (found.rows, found.untold) == (47, 3)
    assert (found.accuracy, found.log_loss) == (expected.accuracy, expected.log_loss)
    assert found.calibration_error == expected.calibration_error
    assert found.classes.equals(expected.classes)
    assert expected.line() in found.line()
    assert "3 rows without probabilities are left out" in str(found)
    confidence, right = p.max(1), p.argmax(1) == y
    assert calibration_error(confidence, right) == calibration_error(confidence[told], right[told])


def test_where_none_is_told_there_are_no_figures() -> None:
    found = classification_metrics(np.full((6, 2), np.nan), np.array([0, 1] * 3), ("a", "b"))
    assert (found.rows, found.untold) == (0, 6)
    assert all(map(math.isnan, (found.accuracy, found.log_loss, found.calibration_error)))
    assert found.line().startswith("no figures; 6 rows without probabilities are left out")
    assert "nan" not in str(found)
    assert math.isnan(calibration_error(np.full(3, np.nan), np.ones(3, dtype=bool)))
    with pytest.raises(ValueError, match="found 1 confidences that are no numbers"):
        bins_of(np.array([0.5, np.nan]))


def test_a_model_and_readings_too_far_off() -> None:
    rows = {"y": [0, 1] * 20, "x": [float(i % 2) + 0.1 * (i % 5) for i in range(40)]}
    graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    cama = build(graph, hidden=4, layers=1, device="cpu").fit(rows, max_epochs=0, progress=False)
    far = {"y": rows["y"], "x": [1e30, *rows["x"][1:]]}
    found = scores(cama, far)
    assert (found.rows, found.untold) == (39, 1)
    assert cama.score(far) == pytest.approx(found.accuracy * 39 / 40)
