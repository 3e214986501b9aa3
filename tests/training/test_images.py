"""Training on images: simulated interventions, and digits learned."""

import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_cama.inference.log_weights import log_weights
from pyro_cama.training.objective import fit_loss
from pyro_cama.training.simulated_interventions import intervened
from tests.helpers.images import QUICK, digits, model, rows, table
from tests.helpers.precision import in_double


def test_simulated_images_are_images() -> None:
    cama = model("normal child")
    batch = rows(cama, 50)
    for scale in (0.1, 3.0):
        pushed = intervened(cama.model, cama.guide, batch, {"i": scale}).values["i"]
        assert pushed.shape == batch.values["i"].shape
        assert pushed.min() >= 0
        assert pushed.max() <= 1
        assert (pushed != batch.values["i"]).flatten(1).any(1).all()
    kinds = intervened(cama.model, cama.guide, batch, {"i": {"inversion": 1.0, "brightness": 0.0}}).values["i"]
    same = torch.isclose(kinds, batch.values["i"]).flatten(1).all(1)
    inverted = torch.isclose(kinds, 1 - batch.values["i"]).flatten(1).all(1)
    assert (same ^ inverted).all()  # of the kinds each row gets one
    assert 10 < int(same.sum()) < 40
    assert intervened(cama.model, cama.guide, batch, {}).values["i"] is batch.values["i"]


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ({"i": {"wobble": 1.0}}, r"fit\(interventions=\.\.\.\)\(kind='wobble'\): expected one of"),
        ({"i": {"rotation": 400}}, r"fit\(interventions=\.\.\.\)\(severity of rotation=400\)"),
        ({"i": {}}, r"expected a mapping of at least one kind"),
        ({"x": {"rotation": 20}}, r"'x' is continuous; expected a number, since kinds of manipulations are an image's"),
        ({"i": 0.0}, r"fit\(interventions\['i'\]=0.0\): expected a finite number above 0, or severities by kind"),
        ({"i": "rotation"}, r"fit\(interventions\['i'\]='rotation'\): expected"),
        ({"i": None}, r"fit\(interventions\['i'\]=None\): expected"),
        ({"i": ["rotation"]}, r"fit\(interventions\['i'\]=\['rotation'\]\): expected"),
        ({"i": np.inf}, r"fit\(interventions\['i'\]=inf\): expected"),
        ({"rotation": 20}, r"\['rotation'\] cannot be .*; did you mean \{'i': \{'rotation': 20\}\}\?"),
        ("rotation", r"fit\(interventions='rotation'\): expected a finite number above 0, or a mapping"),
        ([("i", 1)], r"fit\(interventions=\[\('i', 1\)\]\): expected"),
        (np.inf, r"fit\(interventions=inf\): expected a finite number above 0"),
    ],
)
def test_interventions_that_do_not_fit_are_errors(interventions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model("cause").fit(table(), interventions=interventions, **QUICK)


def test_digits_are_learned_and_shifts_inferred() -> None:
    cama, clean, shifted = digits()
    assert cama.score(clean, do={"m": 0.0}) > 0.8
    assert cama.score(clean) > 0.8
    blind, seeing = cama.score(shifted, do={"m": 0.0}), cama.score(shifted)
    assert blind < 0.65
    assert seeing > blind + 0.15
    assert cama.m_trained


@pytest.mark.parametrize("share", [1.0, 0.5])
@in_double()
def test_the_conditional_term_has_a_power_of_its_own(share: float) -> None:
    """ELBO(x, y) at power 1 and log p(y | x) at another, of as many draws as there are."""
    cama = model("child")
    batch = rows(cama, 6)
    zero: dict[str, Any] = {"do": {"m": 0.0}, "samples": 3}

    def weights(**options: Any) -> Tensor:
        return log_weights(cama.model, cama.guide, batch, **zero, **options).w

    y = batch.values["y"].long()
    with patch("pyro_cama.inference.log_weights.draw_site", lambda q, name: q.base_dist.loc):  # z at the mean of q
        elbo = weights().mean((0, 1)).mean()
        log_p = torch.log_softmax(weights(classes=True, power=0.1).mean(0), 0).gather(0, y[None])[0]
        loss = fit_loss(
            cama.model, cama.guide, None, mixing=0.5, interventions=None, conditional_weight=7.0,
            conditional_share=share, conditional_power=0.1, samples=3,
        )(batch)  # fmt: skip
    expected = -(elbo + 7.0 * log_p[:: round(1 / share)].mean())
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


def test_a_power_that_does_not_fit_is_an_error() -> None:
    for power in (0.0, 1.5, "half", math.nan):
        with pytest.raises(ValueError, match=r"fit\(conditional_power=.*\): expected a number above 0, at most 1"):
            model("child").fit(table(), conditional_power=power, **QUICK)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "stages"), [(None, [1, 2]), (0, [3]), (1, [1, 2]), (5, [3, 0])])
def test_epochs_before_the_conditional_term(asked: int | None, stages: list[int]) -> None:
    """Half of them, as many as are asked for, or all."""
    cama = model("child").fit(table(), max_epochs=0, **QUICK)
    module, _ = cama.lightning(table(), max_epochs=3, density_epochs=asked, progress=False)
    assert [stage.epochs for stage in module.stages] == [epochs for epochs in stages if epochs]
    assert (module.stages[0].title == "fit, densities") == (asked != 0)
