"""Models of images on disk."""

from pathlib import Path

import numpy as np

import pyro_cama
from tests.helpers.images import digits, images_of


def test_a_stored_model_of_images_predicts_the_same(tmp_path: Path) -> None:
    cama, clean, shifted = digits()
    cama.save(tmp_path / "digits")
    loaded = pyro_cama.load(tmp_path / "digits", device="cpu")
    for rows_ in (clean, shifted):
        np.testing.assert_array_equal(loaded.predict_proba(rows_), cama.predict_proba(rows_))
    np.testing.assert_array_equal(images_of(loaded.sample(3)), images_of(cama.sample(3)))
