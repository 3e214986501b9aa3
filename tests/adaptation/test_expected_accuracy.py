"""What is to be expected of an accuracy that p(y | x) promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_cama.adaptation.expected_accuracy import ADAPTED, NOT_ADAPTED, Accuracy, Calibration

PROBABILITIES = st.floats(0.0, 1.0)


@pytest.mark.parametrize("calibration", [ADAPTED, NOT_ADAPTED])
@given(first=PROBABILITIES, second=PROBABILITIES)
def test_more_is_expected_of_more_promised_within_an_interval(
    calibration: Calibration, first: float, second: float
) -> None:
    one, other = (calibration.of(said) for said in sorted((first, second)))
    assert 0.0 <= one.low <= one.estimate <= one.high <= 1.0
    assert one.estimate <= other.estimate
    assert one.low <= other.low
    assert one.high <= other.high


def test_a_promise_is_not_taken_at_its_word() -> None:
    assert ADAPTED.of(0.99).estimate < 0.99
    assert ADAPTED.of(0.99).high == 1.0


def test_an_accuracy_is_read_as_percentages() -> None:
    assert str(Accuracy(0.912, 0.8, 1.0)) == "91% (80% to 100%)"
