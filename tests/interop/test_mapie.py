"""Conformal sets of labels by MAPIE, around the scikit-learn classifier."""

import numpy as np
import pytest

from pyro_cama import datasets
from pyro_cama.sklearn import CAMAClassifier

pytest.importorskip("mapie")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_sets_hold_the_label_as_often_as_asked() -> None:
    from mapie.classification import SplitConformalClassifier

    table = datasets.load("wine").sample(frac=1, random_state=0)
    X, y = table.drop(columns="cultivar"), table["cultivar"]
    model = CAMAClassifier(max_epochs=10, lr=1e-2, device="cpu").fit(X[:60], y[:60])
    sets = SplitConformalClassifier(model, confidence_level=0.9, prefit=True).conformalize(X[60:120], y[60:120])
    labels, inside = sets.predict_set(X[120:])
    assert inside.shape == (58, 3, 1)
    assert set(labels) <= set(model.classes_)
    held = inside[np.arange(58), np.searchsorted(model.classes_, y[120:]), 0]
    assert held.mean() > 0.75
