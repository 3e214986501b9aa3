"""The test of change: fair bets, however few rows calibrate it; its false alarms; what it notices and how soon."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama.stream.change import BETS, BINS, Calibration, ChangeTest, Floats, Urns, tilts


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 80), st.integers(0, 10_000))
def test_every_bet_is_fair(rows: int, seed: int) -> None:
    """Polya's urn gives every bet the mean pay of 1, before and after rows have fallen."""
    rng = np.random.default_rng(seed)
    urns = Urns.of(rng.normal(size=rows), rng.integers(0, 2, rows), 2, rng.random(rows))
    for _ in range(3):
        for label in range(2):
            chance = urns.counts[label] / urns.counts[label].sum()
            pays = [np.exp(urns.log_payoffs(np.array([label]), np.array([k]))) for k in range(BINS)]
            np.testing.assert_allclose(sum(p * pay for p, pay in zip(chance, pays, strict=True)), 1.0)
        fallen = rng.integers(0, 2, 5)
        bins = np.array([rng.choice(np.flatnonzero(urns.counts[label])) for label in fallen])
        urns = urns.plus(urns.tally(fallen, bins))


def test_rows_pay_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    urns = Urns.of(rng.normal(size=30), rng.integers(0, 2, 30), 2, rng.random(30))
    labels, bins = rng.integers(0, 2, 9), rng.integers(0, BINS, 9)
    together, alone = urns.log_payoffs(labels, bins), np.zeros(BETS)
    for row in range(9):
        own = labels[row : row + 1], bins[row : row + 1]
        alone += urns.log_payoffs(*own)
        urns = urns.plus(urns.tally(*own))
    np.testing.assert_allclose(together, alone)


@pytest.mark.parametrize("levels", [None, 3], ids=["continuous", "ties"])
def test_ranks_are_uniform(levels: int | None) -> None:
    """Of five calibration rows and one new one each is as likely to be the lowest, equal scores or not."""
    rng, found = np.random.default_rng(1), np.zeros(BINS)
    for _ in range(6000):
        scores = rng.normal(size=6) if levels is None else rng.integers(0, levels, 6).astype(float)
        order, one = rng.random(6), np.zeros(6, dtype=np.int64)
        found[Urns.of(scores[:5], one[:5], 1, order[:5]).bins(scores[5:], one[5:], order[5:])] += 1
    np.testing.assert_allclose(found[:6] / 6000, 1 / 6, atol=0.025)
    assert not found[6:].any()


def watched(rng: np.random.Generator, calibrated: int, level: float, batches: int, *, moved: float, at: int) -> int:
    """The batch of the alarm, and 0 if there is none; from batch ``at`` on scores are lower, and the mix is another."""
    mix, other = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])

    def rows(count: int, mix: Floats) -> tuple[Floats, np.ndarray]:
        labels = rng.choice(3, count, p=mix)
        return rng.normal(size=count) + 3.0 * labels, labels

    known = Calibration.of(*rows(calibrated, mix), 3)
    test = ChangeTest.new(level)
    for batch in range(1, batches + 1):
        late = batch >= at
        scores, labels = rows(25, other if late else mix)
        bins = known.bins(scores - moved * late, labels, rng.random(25))
        test, known = test.after(known.log_payoffs(labels, bins)), known.plus(labels, bins)
        if test.alarms:
            return batch
    return 0


@pytest.mark.parametrize("calibrated", [20, 60, 300])
def test_false_alarms_are_as_rare_as_stated(calibrated: int) -> None:
    rng = np.random.default_rng(calibrated)
    alarms = [watched(rng, calibrated, 0.2, 50, moved=0.0, at=51) > 0 for _ in range(40)]
    assert sum(alarms) <= 12  # 8 in the mean at the most


def test_classes_that_calibration_rows_are_too_few_for_are_no_change() -> None:
    """Classes that came seldom by chance come as often as others later."""
    rng, alarms = np.random.default_rng(1), 0
    for seed in range(20):
        known = Calibration.of(rng.normal(size=200), rng.integers(0, 40, 200), 40, seed)
        test = ChangeTest.new(0.01)
        for _ in range(25):
            scores, labels = rng.normal(size=50), rng.integers(0, 40, 50)
            bins = known.bins(scores, labels, rng.random(50))
            test, known = test.after(known.log_payoffs(labels, bins)), known.plus(labels, bins)
            if test.alarms:
                alarms += 1
                break
    assert alarms <= 2


def test_another_class_mix_is_no_change() -> None:
    rng = np.random.default_rng(0)
    assert not any(watched(rng, 200, 0.01, 60, moved=0.0, at=20) for _ in range(10))


def test_a_late_change_is_noticed_soon() -> None:
    rng = np.random.default_rng(0)
    found = [watched(rng, 100, 0.01, 120, moved=0.7, at=80) for _ in range(10)]
    assert all(80 <= batch <= 95 for batch in found)


def test_rows_of_a_class_that_was_never_there_are_noticed() -> None:
    rng = np.random.default_rng(0)
    known = Calibration.of(rng.normal(size=80), np.zeros(80, dtype=np.int64), 2)
    labels = np.ones(60, dtype=np.int64)
    bins = known.bins(rng.normal(size=60), labels, rng.random(60))
    assert ChangeTest.new(0.01).after(known.log_payoffs(labels, bins)).alarms
    assert known.rejects(labels, bins, 0.01)


def test_since_is_where_the_evidence_began() -> None:
    test = ChangeTest.new(0.01)
    for earned in (-0.5, -0.5, -0.5, 2.0, 3.0, 3.0):
        test = test.after(np.full((2, BETS), earned))
    assert test.alarms
    assert test.since == 4


def test_taking_rows_back_restores_the_calibration() -> None:
    rng = np.random.default_rng(0)
    known = Calibration.of(rng.normal(size=50), rng.integers(0, 2, 50), 2)
    labels = rng.integers(0, 2, 20)
    bins = known.bins(rng.normal(size=20), labels, rng.random(20))
    back = known.plus(labels, bins).plus(labels, bins, -1.0)
    np.testing.assert_array_equal(back.evidence.counts, known.evidence.counts)


def test_tilts_are_positive_and_even() -> None:
    found = tilts(np.linspace(0, 1, 11))
    assert found.shape == (11, BETS)
    assert (found > 0).all()
    np.testing.assert_allclose(found[:, :4], found[::-1, 4:8])
