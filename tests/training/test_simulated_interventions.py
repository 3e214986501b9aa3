"""Simulated interventions: effects follow as the graph says, and what is missing stays missing."""

from typing import Any

import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.model.causes import Causes
from pyro_cama.training.simulated_interventions import intervened

TABLE = pd.DataFrame(
    {"y": [0, 1] * 30, "x1": torch.randn(60), "x2": torch.randn(60), "k": list("pqr") * 20, "x3": torch.randn(60)}
)


def chain(affects: str, likelihood: str = "normal", **z: Any) -> CAMA:
    """x1 is manipulated, and causes x2 and k, which is no child of y; x2 causes x3."""
    graph = {
        "target": "y",
        "nodes": {
            "y": "binary",
            "x1": "continuous",
            "x2": {"type": "continuous", "likelihood": likelihood},
            "x3": "continuous",
            "k": {"type": "categorical", "levels": ["p", "q", "r"]},
        },
        "edges": ["y -> x1 -> x2 -> x3", "y -> x2", "y -> x3", "x1 -> k -> x3"],
        "latents": {"z": z or None, "m": {"dim": 2, "children": ["x1"], "affects": affects, "scope": "row"}},
    }
    return build(graph, hidden=8, device="cpu").fit(TABLE, max_epochs=0, progress=False)


def mean(cama: CAMA, name: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
    causes = Causes(cama.model, Batch(values, {}, None, 60))
    causes.values = values
    found: torch.Tensor = causes.distribution(name).mean
    return found


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_effects_keep_their_distance_from_the_mean_and_levels_are_drawn_anew(likelihood: str) -> None:
    cama = chain("quantity", likelihood)
    batch = cama.encode(TABLE)
    pushed = intervened(cama.model, cama.guide, batch, {"x1": 3.0}).values
    assert not torch.equal(pushed["x1"], batch.values["x1"])
    for name in ("x2", "x3"):  # x3 by way of x2 and k
        assert not torch.allclose(pushed[name], batch.values[name])
        noise = batch.values[name] - mean(cama, name, batch.values)
        torch.testing.assert_close(pushed[name] - mean(cama, name, pushed), noise)
    assert not torch.equal(pushed["k"], batch.values["k"])
    assert pushed["k"].dtype == batch.values["k"].dtype
    assert torch.equal(pushed["y"], batch.values["y"])


def test_a_scale_that_follows_the_causes_stretches_the_distance() -> None:
    cama = chain("quantity", "heteroscedastic")
    batch = cama.encode(TABLE)
    pushed = intervened(cama.model, cama.guide, batch, {"x1": 3.0}).values
    before, after = (Causes(cama.model, Batch(v, {}, None, 60)) for v in (batch.values, pushed))
    before.values, after.values = batch.values, pushed
    old, new = before.distribution("x2"), after.distribution("x2")
    assert not torch.allclose(old.scale, new.scale)
    torch.testing.assert_close((pushed["x2"] - new.loc) / new.scale, (batch.values["x2"] - old.loc) / old.scale)


def test_a_changed_measurement_changes_no_effect() -> None:
    cama = chain("measurement")
    batch = cama.encode(TABLE)
    pushed = intervened(cama.model, cama.guide, batch, {"x1": 3.0}).values
    assert not torch.equal(pushed["x1"], batch.values["x1"])
    for name in ("x2", "x3", "k", "y"):
        assert torch.equal(pushed[name], batch.values[name])


def test_what_is_missing_stays_as_it_is_filled_in() -> None:
    cama = chain("quantity", dim=2)
    rows = TABLE.assign(x1=TABLE["x1"].where(TABLE.index >= 20), x2=TABLE["x2"].where(TABLE.index < 40))
    batch = cama.encode(rows)
    pushed = intervened(cama.model, cama.guide, batch, {"x1": 3.0})
    assert torch.equal(pushed.values["x1"][:20], batch.values["x1"][:20])
    assert torch.equal(pushed.values["x2"][40:], batch.values["x2"][40:])
    assert not torch.isclose(pushed.values["x1"][20:], batch.values["x1"][20:]).all()
    torch.testing.assert_close(pushed.values["x2"][:20], batch.values["x2"][:20])  # of a cause that stayed
    assert pushed.observed is batch.observed


def test_a_normal_image_that_follows_stays_one_that_can_be_recorded() -> None:
    """Its mean is of no bound, and kinds of manipulations take intensities in [0, 1]."""
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "x": "continuous", "i": {"type": "image", "shape": [1, 4, 4], "likelihood": "normal"}},
        "edges": ["y -> x -> i", "y -> i"],
        "latents": {"m": {"dim": 12, "scope": "row", "mechanism": {"x": "affine", "i": "warp"}}},
    }
    cama = build(graph, hidden=8, device="cpu")
    table = {"y": [0, 1] * 20, "x": torch.randn(40).numpy(), "i": torch.rand(40, 1, 4, 4).numpy()}
    cama.fit(table, max_epochs=0, progress=False)
    batch = cama.encode(table)
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.mul_(20.0)
    found = intervened(cama.model, cama.guide, batch, {"x": 3.0, "i": {"rotation": 20.0}}).values["i"]
    assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0


@pytest.mark.parametrize("mechanism", ["concat", "overlay"])
def test_a_mechanism_without_numbers_is_named(mechanism: str) -> None:
    graph = {
        "target": "y", "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8]}}, "edges": ["y -> i"],
        "latents": {"m": {"dim": 2, "scope": "row", "mechanism": mechanism}},
    }  # fmt: skip
    cama = build(graph, hidden=8, device="cpu")
    with pytest.raises(ValueError, match=f"found no mechanism but '{mechanism}', which has no parameters"):
        cama.fit({"y": [0, 1] * 20, "i": torch.rand(40, 1, 8, 8).numpy()}, interventions=1.0, progress=False)
