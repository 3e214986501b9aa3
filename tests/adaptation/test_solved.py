"""Adaptation of tables of a linear style: theta is solved for, all starts and folds side by side."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm.auto import tqdm

from pyro_cama import CAMA
from pyro_cama.adaptation.drawn import Drawn
from pyro_cama.adaptation.initialisation import statistics_of, theta_at_moments
from pyro_cama.adaptation.new_rows import NewRows
from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.solved import Solved, _Race, can_solve
from pyro_cama.adaptation.stacked_search import _promises, search_stacked
from pyro_cama.inference.bounds import importance_bound, marginal, shared_mean
from pyro_cama.inference.exact import joint_of_thetas, solves_exactly
from pyro_cama.inference.log_weights import log_weights
from tests.helpers.precision import in_double
from tests.helpers.training import COLUMNS
from tests.training.test_whole_table import fitted, spec, styled


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return fitted(styled(600))


def drifted(seed: int = 1, rows: int = 300) -> pd.DataFrame:
    """One column reads twice as much and 5 more, another's scale is turned round, a third is noisier."""
    frame, rng = styled(rows, seed), np.random.default_rng(seed)
    frame["x0"] = 2.0 * frame["x0"] + 5.0
    frame["x1"] = -frame["x1"]
    frame["x2"] += rng.normal(size=rows) * 2.0
    return frame


def test_gain_offset_reversal_and_noise_are_found(cama: CAMA) -> None:
    new = drifted()
    adapted = cama.adapt(new[COLUMNS], progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.accepted
    clean = cama.score(styled(300, 1))
    assert cama.score(new) < clean - 0.1
    assert adapted.score(new) > clean - 0.08  # of which noise takes a half
    told = adapted.explain_shift().parameters.set_index(["column", "parameter"])["estimate"]
    assert told["x0", "gain"] == pytest.approx(2.0, abs=0.2)
    assert told["x0", "offset"] == pytest.approx(5.0, abs=0.5)
    assert told["x1", "gain"] == pytest.approx(-1.0, abs=0.15)
    assert told["x2", "noise"] == pytest.approx(2.0, abs=0.5)
    assert told["x3", "gain"] == pytest.approx(1.0, abs=0.15)
    assert told["x4", "offset"] == pytest.approx(0.0, abs=0.4)


def test_units_of_any_size_are_found(cama: CAMA) -> None:
    new = drifted()
    clean = cama.score(styled(300, 1))
    for factor in (1e-2, 1e6):
        far = new.assign(x0=factor * new["x0"], x3=factor * new["x3"])
        adapted = cama.adapt(far[COLUMNS], progress=False)
        assert adapted.adaptation is not None
        assert adapted.adaptation.accepted
        assert adapted.score(far) > clean - 0.06
        told = adapted.explain_shift().parameters.set_index(["column", "parameter"])["estimate"]
        assert told["x3", "gain"] == pytest.approx(factor, rel=0.15)


def test_the_evidence_of_a_theta_is_that_of_the_model_that_stands_at_it(cama: CAMA) -> None:
    adapted = cama.adapt(drifted()[COLUMNS], progress=False)
    batch = adapted.encode(drifted(2), "ignore")
    m = adapted.graph.require_m()
    theta = adapted.manipulation.structured(shared_mean(adapted.guide)).detach()
    joint, _ = joint_of_thetas(adapted.model, batch, theta[None, None])
    do = {m.name: shared_mean(adapted.guide)}
    weights = log_weights(adapted.model, adapted.guide, batch, do=do, classes=True)
    torch.testing.assert_close(torch.logsumexp(joint[0], 0), marginal(importance_bound(weights)), atol=1e-3, rtol=1e-4)


def test_starts_side_by_side_end_where_each_ends_alone(cama: CAMA) -> None:
    options = AdaptOptions(steps=200)
    new = NewRows.of(cama, drifted()[COLUMNS], None, options)
    together = Solved(cama, new, options, False)
    together.starts()
    assert [problem.start for problem in together.problems] == ["alternatives", "here", "moved"]
    for problem in together.problems:
        alone = Solved(cama, new, options, False)
        (again,) = alone.solve([problem])  # from where it ended
        torch.testing.assert_close(again.theta, problem.theta, atol=0.1, rtol=0.05)
    best = max(float(c.evidence.mean()) for c in together._examined(together.problems))
    assert float(together._examined(together.problems)[0].evidence.mean()) == pytest.approx(best, abs=0.02)


def test_solving_explains_new_rows_no_worse_than_gradient_steps_under_draws(cama: CAMA) -> None:
    options = AdaptOptions(restarts=1, folds=1)
    new = NewRows.of(cama, drifted()[COLUMNS], None, options)
    (solved,) = Solved(cama, new, options, False).starts()
    (drawn,) = Drawn(cama, new, options, False, None).starts()
    assert float(solved.evidence.mean()) > float(drawn.evidence.mean()) - 0.05


def test_every_site_gets_its_own_theta_and_is_searched_by_itself() -> None:
    graph: dict[str, Any] = {**spec(), "latents": {**spec()["latents"], "m": {"dim": 4, "scope": "ward"}}}
    cama = fitted(styled(600).assign(ward="A"), graph)
    one, other = styled(200, 1), styled(200, 2)
    one["x0"] += 6.0
    other["x1"] = -other["x1"]
    new = pd.concat([one.assign(ward="B"), other.assign(ward="C")], ignore_index=True)
    adapted = cama.adapt(new.drop(columns="y"), progress=False)
    told = adapted.explain_shift().parameters.set_index(["column", "site", "parameter"])["estimate"]
    assert told["x0", "B", "offset"] == pytest.approx(6.0, abs=0.6)
    assert told["x1", "C", "gain"] == pytest.approx(-1.0, abs=0.2)
    assert told["x0", "C", "offset"] == pytest.approx(0.0, abs=0.6)
    assert told["x1", "B", "gain"] == pytest.approx(1.0, abs=0.2)
    before = cama.predict_proba(styled(50, 3).assign(ward="A"))
    np.testing.assert_allclose(adapted.predict_proba(styled(50, 3).assign(ward="A")), before, atol=1e-6)


def test_reversed_scales_are_found_however_many_there_are(cama: CAMA) -> None:
    frame = styled(300, 4)
    frame[["x0", "x2", "x3"]] *= -1
    batch = cama.encode(frame, "ignore")
    size = cama.manipulation.size
    with torch.no_grad(), cama.manipulation.calibrated(), cama.seeded():
        found = search_stacked(cama, batch, theta_at_moments(cama, batch), statistics_of(cama))
    assert found.shape == (1, size)
    assert (found[0, 3::4] > 1).tolist() == [True, False, True, True, False]


def test_rows_to_which_nothing_happened_change_next_to_nothing(cama: CAMA) -> None:
    same = styled(300, 5)
    adapted = cama.adapt(same[COLUMNS], progress=False)
    assert abs(adapted.score(same) - cama.score(same)) <= 0.01


def test_missing_readings_and_constant_columns_are_no_obstacle(cama: CAMA) -> None:
    new = drifted(6)
    new.loc[::3, "x3"] = np.nan
    new["x4"] = 1.0
    with pytest.warns(UserWarning, match=r"one value in all new rows of 'x4' \(1, 300 rows\); in training they varied"):
        adapted = cama.adapt(new[COLUMNS], progress=False)
    assert np.isfinite(adapted.predict_proba(new)).all()


def test_a_column_that_stands_still_at_one_site_is_named() -> None:
    raw = spec()
    raw["latents"]["m"]["scope"] = "site"
    model = fitted(styled(200).assign(site="here"), raw, max_epochs=1)
    new = drifted(6)[COLUMNS].assign(site="there")
    new.loc[:99, "site"], new.loc[:99, "x4"] = "elsewhere", 1.0
    said = r"one value in all new rows of 'x4' \(1, 100 rows of site 'elsewhere'\)"
    with pytest.warns(UserWarning, match=said):
        model.adapt(new, progress=False)


def test_too_few_rows_for_folds_are_not_trusted(cama: CAMA) -> None:
    adapted = cama.adapt(drifted(7, rows=3)[COLUMNS], progress=False)
    assert adapted.adaptation is not None
    assert not adapted.adaptation.accepted


def test_many_rows_are_solved_on_some_and_judged_on_all(cama: CAMA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_cama.adaptation.solved.NUMBERS", 2**14)
    new = drifted(8, rows=1000)
    options = AdaptOptions()
    search = Solved(cama, NewRows.of(cama, new[COLUMNS], None, options), options, False)
    assert len(search.used) == 2**14 // (4 * cama.model.numbers_per_row)
    outside = [float((~torch.isin(search.used, fold)).float().mean()) for fold in search.folds]
    assert min(outside) > 0.65  # every fold leaves its share to solve on
    adapted = cama.adapt(new[COLUMNS], progress=False)
    assert adapted.adaptation is not None
    assert (adapted.adaptation.rows, adapted.adaptation.accepted) == (1000, True)


def test_where_a_cause_is_missing_or_m_is_every_rows_own_draws_are_taken(cama: CAMA) -> None:
    assert solves_exactly(cama.model, cama.guide, cama.encode(styled(10), "ignore"))
    caused = {**spec(), "edges": [*spec()["edges"], "x0 -> x1"]}
    other = fitted(styled(100), caused, max_epochs=1)
    frame = styled(10)
    assert solves_exactly(other.model, other.guide, other.encode(frame, "ignore"))
    frame.loc[0, "x0"] = np.nan
    assert not solves_exactly(other.model, other.guide, other.encode(frame, "ignore"))


def test_an_adapted_model_is_saved_loaded_and_exported(cama: CAMA, tmp_path: Any) -> None:
    import pyro_cama
    from pyro_cama.persistence import export

    new = drifted()
    adapted = cama.adapt(new[COLUMNS], progress=False)
    expected = adapted.predict_proba(new)
    again = pyro_cama.load(adapted.save(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(again.predict_proba(new), expected)
    program = export.load(adapted.export(tmp_path / "program"))
    np.testing.assert_allclose(program.predict_proba(new), expected, atol=1e-5)


def test_more_sites_than_m_has_dimensions_are_left_to_gradient_steps() -> None:
    graph: dict[str, Any] = {**spec(), "latents": {**spec()["latents"], "m": {"dim": 2, "scope": "ward"}}}
    cama = fitted(styled(200).assign(ward="A"), graph, max_epochs=1)
    for wards, solved in ((["B", "C"], True), (["B", "C", "D"], False)):
        new = styled(60, 1).assign(ward=[wards[i % len(wards)] for i in range(60)])
        twin = cama.copy(cama.encoder_with_sites(new))
        assert can_solve(twin, twin.encode(new, "ignore")) == solved


@pytest.mark.parametrize("affects", ["quantity", "measurement"])
def test_what_an_alternative_promises_is_what_it_gains(affects: str) -> None:
    """In float64, with missing readings; of a child that others read clean the promise leaves these out."""
    with in_double():
        torch.manual_seed(0)
        graph: dict[str, Any] = {**spec(), "edges": [*spec()["edges"], "x0 -> x1"]}
        graph["latents"] = {**graph["latents"], "m": {"dim": 3, "scope": "dataset", "affects": affects}}
        cama = fitted(styled(200), graph, max_epochs=10)
        frame = styled(40, 1)
        frame.loc[::3, "x3"] = np.nan
        batch = cama.encode(frame, "ignore")
        theta = 0.5 * torch.rand(1, cama.manipulation.size)
        tried, promised = _promises(cama, batch, theta, statistics_of(cama), {})
        assert len(tried) >= 5
        before = torch.logsumexp(joint_of_thetas(cama.model, batch, theta[None])[0][0], 0)
        for (place, other), gain in zip(tried, promised, strict=True):
            changed = theta.clone()
            changed[:, place] = other
            found = torch.logsumexp(joint_of_thetas(cama.model, batch, changed[None])[0][0], 0) - before
            if affects == "quantity" or place.start > 0:
                torch.testing.assert_close(gain, found, atol=1e-6, rtol=1e-6)


def test_a_start_that_stays_far_behind_is_not_waited_for() -> None:
    bar = tqdm(disable=True)
    race = _Race(bar)
    losses = iter([[9.0, 5.0], [8.0, 2.0], [7.9, 2.0], [7.8, 2.0], [7.7, 2.0], [7.6, 2.0]])
    told = [race(torch.zeros(0), torch.tensor(some)) for some in losses]
    assert told == [False] * 5 + [True]  # the other had ended after three steps
    near = _Race(bar)
    told = [
        near(torch.zeros(0), torch.tensor(some)) for some in [[2.5, 2.0]] + [[2.4 - 0.01 * i, 2.0] for i in range(9)]
    ]
    assert not any(told)


def test_several_reversed_scales_are_found_together() -> None:
    torch.manual_seed(0)
    cama = fitted(styled(600), spec(loadings="shared"))
    frame = styled(300, 1)
    turned = ["x0", "x1"]
    frame[turned] = -frame[turned]
    batch = cama.encode(frame[COLUMNS], "ignore")
    start = theta_at_moments(cama, batch)
    found = search_stacked(cama, batch, start, statistics_of(cama), rows=300)
    right = start.clone()
    for i, name in enumerate(COLUMNS):
        if name in turned:
            right[0, 4 * i : 4 * i + 4] = cama.manipulation.groups[0].mechanism.alternatives(
                right[0, 4 * i : 4 * i + 4], {"mean": torch.zeros(()), "sd": torch.ones(())}
            )[0]
    joint, _ = joint_of_thetas(cama.model, batch, torch.stack([start, found, right]))
    before, best, truth = torch.logsumexp(joint, 1).sum(1).tolist()
    assert truth > before + 20
    assert best > truth - 5
