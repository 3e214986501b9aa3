"""Simulated drifts, and what is learnt from them (experiments/guard.py, support/simulated_drift.py)."""

import guard
import numpy as np
import pandas as pd
import pytest

from pyro_cama.adaptation.expected_accuracy import ADAPTED, Calibration
from support import simulated_drift
from support.simulated_drift import INSIDE, OTHER_PART, OUTSIDE


@pytest.fixture(scope="module")
def given() -> simulated_drift.Table:
    return simulated_drift.table("random 1")


def test_random_tables_are_a_function_of_their_number() -> None:
    pd.testing.assert_frame_equal(simulated_drift.random_table(3), simulated_drift.random_table(3))
    assert not simulated_drift.random_table(3).equals(simulated_drift.random_table(4))


def test_rows_to_train_on_to_see_and_to_score_are_others(given: simulated_drift.Table) -> None:
    cases = list(simulated_drift.drifts(given, "random 1", 0))
    assert {case.kind for case in cases} == {*INSIDE, *OUTSIDE}
    for case in cases:
        places = [set(part.index) for part in (case.train, case.seen, case.scored)]
        assert sum(map(len, places)) == len(set.union(*places))
        labels = given.rows[given.target]
        for part in (case.train, case.seen, case.scored):  # no label is touched
            assert part[given.target].equals(labels[part.index])


def test_what_nothing_happened_to_is_as_it_was(given: simulated_drift.Table) -> None:
    case = next(case for case in simulated_drift.drifts(given, "random 1", 0) if case.kind == "nothing")
    pd.testing.assert_frame_equal(case.seen, given.rows.loc[case.seen.index])


def test_another_part_of_the_population_forgets_its_column(given: simulated_drift.Table) -> None:
    for case, graph in simulated_drift.other_parts(given, "random 1", 0):
        assert case.kind == OTHER_PART
        assert set(case.train.columns) == set(graph.nodes)
        assert len(graph.nodes) < len(given.graph.nodes)


@pytest.mark.parametrize("mix", [0.05, 0.5, 0.95, "alone"])
def test_a_mix_has_the_share_that_it_says(given: simulated_drift.Table, mix: float | str) -> None:
    rows = simulated_drift.mixed(given.rows, given.target, mix, np.random.default_rng(0))
    most = rows[given.target].value_counts(normalize=True)
    share = 1.0 if mix == "alone" else mix
    assert min(abs(most - share)) < 0.15


def test_a_planted_calibration_is_found() -> None:
    rng = np.random.default_rng(0)
    planted = Calibration(-0.5, 0.8, -1.0, 1.0)
    said = rng.uniform(0.3, 0.98, 4000)
    noise = rng.normal(0, 0.5, len(said))
    middle = planted.intercept + planted.slope * np.array([guard.logit(p) for p in said])
    truth = 1 / (1 + np.exp(-middle - noise))
    estimates = [ADAPTED.of(p).estimate for p in said]
    cases = pd.DataFrame({"adapted accuracy": truth, "adapted estimate": estimates, "scored": 100})
    found = guard.fitted(cases, "adapted")
    assert found.intercept == pytest.approx(-0.5, abs=0.1)
    assert found.slope == pytest.approx(0.8, abs=0.1)
    assert found.low == pytest.approx(-0.82, abs=0.1)  # 5 % of a normal of .5
    assert found.high == pytest.approx(0.82, abs=0.1)
