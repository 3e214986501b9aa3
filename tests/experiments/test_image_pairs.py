"""Pairs of digits of different origin: what brings them to one frame, what is new, and where USPS comes from."""

import bz2
import hashlib
from pathlib import Path

import image_drift
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support import image_data, image_pairs
from support.image_data import usps
from support.image_pairs import PREPARATIONS, centred, split


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_centred_moves_the_centre_of_mass_to_the_middle(right: int, down: int) -> None:
    x = torch.zeros(1, 1, 15, 17)
    x[..., 5:10, 6:9] = torch.rand(5, 3) + 0.1
    found = centred(x.roll((down, right), (2, 3)))
    mass = found.sum()
    torch.testing.assert_close(mass, x.sum())
    for axis, side in ((2, 15), (3, 17)):
        at = (found.sum(5 - axis).flatten() * torch.arange(side)).sum() / mass
        assert float(at) == pytest.approx((side - 1) / 2, abs=1e-4)


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("filled", [8, 16])
def test_a_box_of_mnists_and_a_filled_frame_become_the_same(name: str, filled: int) -> None:
    mnist = torch.zeros(1, 1, 28, 28)
    mnist[..., 4:24, 4:24] = 1.0
    one, other = PREPARATIONS[name].mnist(mnist), PREPARATIONS[name].filled(torch.ones(1, 1, filled, filled))
    assert one.shape == other.shape
    torch.testing.assert_close(one, other, atol=0.5, rtol=0)  # along the edge, which an average smooths
    assert float((one - other).abs().mean()) < 0.05


def test_nothing_that_is_learnt_from_or_adapted_to_is_scored() -> None:
    small = split("optdigits_optdigits", train=300, new=200)
    assert small.train_x.shape == (300, 1, 16, 16)
    assert len(small.adapt_x) == len(small.score_x) == len(small.score_y) == 200
    rows = [row.numpy().tobytes() for part in (small.train_x, small.adapt_x, small.score_x) for row in part]
    assert len(set(rows)) == len(rows)


def test_real_pairs(data_dir: Path) -> None:
    for name in image_pairs.PAIRS:
        found = split(name, "cut", data_dir, train=500, new=300)
        assert found.train_x.shape == (500, 1, 16, 16)
        assert found.adapt_x.shape == found.score_x.shape == (300, 1, 16, 16)
        assert set(found.train_y.tolist()) == set(found.score_y.tolist()) == set(range(10))
        ink = found.train_x.mean() / found.score_x.mean()
        assert 0.7 < float(ink) < 1.4
    assert usps(data_dir)[1][:6].tolist() == [6, 5, 4, 7, 3, 6]


def test_usps_as_torchvision_downloads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_data, "USPS_ROWS", 2)
    lines = [" ".join([str(digit), *(f"{i + 1}:{value}" for i in range(256))]) for digit, value in ((1, -1), (10, 1))]
    (tmp_path / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    x, y = usps(tmp_path)
    assert x.shape == (2, 1, 16, 16)
    assert x.dtype == torch.uint8
    assert x.flatten(1).float().mean(1).tolist() == [0.0, 255.0]
    assert y.tolist() == [0, 9]


def test_another_usps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"USPS cannot be read .* expected a folder that holds real/usps_train.npz or"):
        usps(tmp_path)
    file = tmp_path / "real" / image_data.USPS_FILE
    file.parent.mkdir()
    np.savez(file, image=np.zeros((3, 16, 16), dtype=np.uint8), digit=np.arange(3, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"sha256='[0-9a-f]{64}'\): expected d61d3ae9.*another version, or damaged"):
        usps(tmp_path)
    monkeypatch.setattr(image_data, "USPS_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"usps\(rows=3\): expected 7291"):
        usps(tmp_path)


def test_an_unknown_pair() -> None:
    with pytest.raises(ValueError, match=r"split\(name='mnist_svhn'\): expected one of mnist_usps"):
        split("mnist_svhn")


def test_nets_meet_the_interventions_that_cama_is_trained_on() -> None:
    x = split("optdigits_optdigits", new=5, train=40).train_x
    mechanism = image_drift.named("warp+intensity")
    found = image_drift.intervened(mechanism, x, 3)
    assert torch.equal(found, image_drift.intervened(mechanism, x, 3))
    torch.testing.assert_close(found[::2], x[::2])
    assert float((found[1::2] - x[1::2]).abs().flatten(1).amax(1).min()) > 0.05
    assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0
