"""Images in tables: bytes, floats, tensors, missing ones."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import DataError, build
from tests.helpers.images import fitted, table


def test_bytes_floats_tensors_and_frames_predict_the_same() -> None:
    cama, given_ = fitted(), table(seed=1)
    pixels = (given_["i"] * 255).astype(np.uint8)
    floats = pixels.astype(np.float32) / 255
    expected = cama.predict_proba({**given_, "i": floats}, do=None)
    for column in (pixels, torch.from_numpy(pixels), floats.astype(np.float64), list(pixels)):
        found = cama.predict_proba({**given_, "i": column}, do=None)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    frame = pd.DataFrame({**given_, "i": list(floats)})
    np.testing.assert_array_equal(cama.predict_proba(frame, do=None), expected)


def test_images_that_do_not_fit_are_errors() -> None:
    cama, given_ = fitted(), table()
    with pytest.raises(DataError, match=r"column 'i': found entries of shape \(6, 6\); expected shape \(1, 6, 6\)"):
        cama.predict({**given_, "i": given_["i"][:, 0]})
    with pytest.raises(DataError, match=r"column 'i': found intensities from .* expected 0 to 1: rescale them"):
        cama.predict({**given_, "i": given_["i"] * 255})


def test_an_image_with_a_missing_pixel_is_missing() -> None:
    cama, given_ = fitted(), table()
    some, whole = given_["i"].copy(), given_["i"].copy()
    some[3, 0, 2, 2] = whole[3] = np.nan
    found = cama.predict_proba({**given_, "i": some}, do=None)
    np.testing.assert_array_equal(found, cama.predict_proba({**given_, "i": whole}, do=None))
    clean = cama.predict_proba(given_, do=None)
    others = np.arange(12) != 3
    np.testing.assert_allclose(found[others], clean[others], atol=1e-5)
    assert np.isfinite(found).all()
    assert np.abs(found[3] - clean[3]).max() > 1e-3


def test_bytes_of_0_and_1_are_warned_of() -> None:
    """A mask in uint8 was read as almost black, without a word."""
    cama = build(
        {"target": "y", "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 4, 4]}}, "edges": ["y -> i"]},
        hidden=8,
        device="cpu",
    )
    masks = np.random.default_rng(0).random((6, 1, 4, 4)) < 0.5
    y = [0, 1] * 3
    cama.fit({"i": masks, "y": y}, max_epochs=0, progress=False)
    with pytest.warns(
        UserWarning, match=r"column 'i': found uint8 of 0 and 1 alone, .* convert black and white images"
    ):
        cama.encode({"i": masks.astype(np.uint8), "y": y})
    same = cama.encode({"i": masks.astype(np.uint8) * 255, "y": y}).values["i"]
    assert torch.equal(same, cama.encode({"i": masks, "y": y}).values["i"])
