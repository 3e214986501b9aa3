"""Several modes of the posterior of m: what averages over them, what does not, and where they go with the model."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, build, load
from pyro_cama.inference.class_posterior import log_posterior_of
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.persistence.export import load as load_exported
from tests.helpers.training import COLUMNS
from tests.training.test_whole_table import fitted, spec, styled


def unsure(cama: CAMA) -> CAMA:
    """A copy that does not know how well it explained its own table, so that no winner is believed alone."""
    cama = cama.copy()
    cama.usual_evidence = math.nan
    return cama


@pytest.fixture(scope="module")
def sure() -> CAMA:
    return fitted(styled(600))


@pytest.fixture(scope="module")
def cama(sure: CAMA) -> CAMA:
    return unsure(sure)


@pytest.fixture(scope="module")
def new() -> pd.DataFrame:
    rows = styled(80, 1)
    return rows.assign(x0=2.0 * rows["x0"] + 5.0, x1=rows["x1"] + 1.0)


@pytest.fixture(scope="module")
def adapted(cama: CAMA, new: pd.DataFrame) -> CAMA:
    return cama.adapt(new[COLUMNS], keep="always", progress=False)


def alone(cama: CAMA) -> list[CAMA]:
    """Copies of the model at every mode by itself, its own first."""
    own = {name: value.detach().clone() for name, value in cama.manipulation_parameters().items()}
    found = []
    for state in (own, *cama.modes):
        found.append(cama.copy())
        found[-1].load_manipulation(state)
    return found


def test_predictions_are_the_mean_over_modes(adapted: CAMA, new: pd.DataFrame) -> None:
    assert len(adapted.modes) == 4  # two other starts, the moments of the new rows, the model as it was
    each = [one.predict_proba(new) for one in alone(adapted)]
    assert max(np.abs(each[0] - other).max() for other in each[1:]) > 0.1
    np.testing.assert_allclose(adapted.predict_proba(new), np.mean(each, 0), atol=1e-6)


def test_a_winner_that_wins_back_all_evidence_is_believed_alone(sure: CAMA, new: pd.DataFrame) -> None:
    adapted = sure.adapt(new[COLUMNS], progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.evidence_after > sure.usual_evidence - 1.0
    assert adapted.modes == ()


def test_one_of_them_is_the_model_as_it_was(cama: CAMA, adapted: CAMA, new: pd.DataFrame) -> None:
    np.testing.assert_allclose(alone(adapted)[-1].predict_proba(new), cama.predict_proba(new), atol=1e-5)


def test_an_intervention_knows_no_modes(cama: CAMA, adapted: CAMA, new: pd.DataFrame) -> None:
    np.testing.assert_allclose(
        adapted.predict_proba(new, do={"m": 0.0}), cama.predict_proba(new, do={"m": 0.0}), atol=1e-6
    )


def test_they_go_where_the_model_goes(adapted: CAMA, new: pd.DataFrame, tmp_path: Path) -> None:
    expected = adapted.predict_proba(new)
    stored = load(adapted.save(tmp_path / "model"), device="cpu")
    assert np.array_equal(stored.predict_proba(new), expected)
    assert np.array_equal(adapted.copy().predict_proba(new), expected)
    served = load_exported(adapted.export(tmp_path / "served"))
    np.testing.assert_allclose(served.predict_proba(new[COLUMNS]), expected, atol=1e-5)


def test_the_gradient_is_that_of_the_mean(adapted: CAMA, new: pd.DataFrame) -> None:
    batch, rows = adapted.encode(new, "ignore"), torch.arange(len(new))
    options = PredictionOptions(1)

    def gradient(cama: CAMA) -> torch.Tensor:
        x = batch.values["x0"].clone().requires_grad_()
        part = type(batch)({**batch.values, "x0": x}, batch.observed, batch.site, batch.rows)
        probability = log_posterior_of(cama, part, rows, None, options).exp()[0].sum()
        return torch.autograd.grad(probability, x)[0]

    torch.testing.assert_close(gradient(adapted), torch.stack([gradient(one) for one in alone(adapted)]).mean(0))


def test_an_error_at_one_of_them_leaves_the_model_at_its_own(adapted: CAMA) -> None:
    own = dict(adapted.manipulation_parameters())

    def fails() -> None:
        for number, _ in enumerate(adapted.each_mode()):
            if number == 2:
                raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        fails()
    assert all(adapted.manipulation_parameters()[name] is value for name, value in own.items())


def test_sites_that_are_new_rest_at_every_mode(new: pd.DataFrame) -> None:
    train = styled(300).assign(site="north")
    raw = spec()
    raw["latents"]["m"] |= {"scope": "site"}
    cama = unsure(build(raw, seed=0, device="cpu").fit(train, max_epochs=30, progress=False))
    east = cama.adapt(new[COLUMNS].assign(site="east"), keep="always", progress=False)
    expected = east.predict_proba(new.assign(site="east"))
    both = east.adapt(new[COLUMNS].assign(site="west"), keep="trusted", progress=False)
    assert len(east.modes) == 4
    assert all(mode["NN_qM.m.loc"].shape == both.guide.m_posterior.loc.shape for mode in both.modes)
    north = new.assign(site="north")
    np.testing.assert_allclose(both.predict_proba(north), cama.predict_proba(north), atol=1e-6)
    assert np.abs(both.predict_proba(new.assign(site="east")) - expected).max() < 0.5


def test_a_new_fit_forgets_them(adapted: CAMA) -> None:
    again = adapted.copy()
    again.fit(styled(100), max_epochs=2, progress=False)
    assert again.modes == ()
