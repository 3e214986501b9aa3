"""Training on images: simulated interventions, and digits learned."""

from typing import Any

import numpy as np
import pytest
import torch

from pyro_cama.training.simulated_interventions import intervened
from tests.helpers.images import QUICK, digits, model, rows, table


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
