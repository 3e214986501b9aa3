"""The threshold below which a row is unlike all that was seen."""

import json

import numpy as np
import pytest

from pyro_cama.inference.novelty import NoveltyThreshold


def test_the_threshold_by_hand() -> None:
    seen = np.arange(3000.0)
    usual = NoveltyThreshold.of(seen, seen[1000:])
    assert usual.threshold == 2.0  # the third smallest of 3000, lower than the second of the held-out ones, 1001
    assert usual.flag(np.array([1.9, 2.0, np.nan, -np.inf])).tolist() == [True, False, True, True]
    assert NoveltyThreshold.of(seen, np.array([5.0, 1.0])).threshold == 1.0  # few held out: none of them is unusual
    later = usual.after(seen - 7.0)
    assert (later.threshold, later.median) == (-5.0, usual.median - 7.0)
    assert NoveltyThreshold(**{k: v for k, v in json.loads(later.to_json()).items() if k != "format"}) == later


def test_few_fresh_rows_are_flagged() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        held, fresh = rng.standard_normal(100), rng.standard_normal(500)
        overfitted = rng.standard_normal(900) + 4.0  # evidence of rows that were trained on
        shares.append(NoveltyThreshold.of(np.concatenate([overfitted, held]), held).flag(fresh).mean())
    assert np.mean(shares) == pytest.approx(1 / 101, rel=0.2)
