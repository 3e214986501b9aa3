"""fit(None, manipulated): every training row is manipulated, and its manipulation may go with the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyro_cama
from pyro_cama import CAMA, CausalGraph

GRAPH: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "y": "binary",
        "shape": "continuous",
        "image": {"type": "image", "shape": [2, 4, 4], "likelihood": "grey"},
    },
    "edges": ["y -> shape", "y -> image", "y -> colour"],
    "latents": {"z": None, "colour": {"manipulation": True, "dim": 1, "mechanism": "colour", "children": ["image"]}},
}


def _rows(n: int, agrees: float, seed: int = 0) -> dict[str, Any]:
    """Images of one brightness in red or green, which agrees with the label; the shape tells a little of it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    red = np.where(rng.random(n) < agrees, y, 1 - y).astype(bool)
    image = np.zeros((n, 2, 4, 4), dtype=np.float32)
    image[red, 0] = image[~red, 1] = 0.8
    return {"y": y, "shape": 1.5 * y + rng.normal(size=n), "image": image}


@pytest.fixture(scope="module")
def cama() -> CAMA:
    model = pyro_cama.build(GRAPH, hidden=8, layers=1, device="cpu")
    return model.fit(None, _rows(300, 0.95), max_epochs=25, lr=2e-2, conditional_weight=5.0, progress=False)


def test_colour_that_goes_with_the_class_is_evidence_only_where_nobody_intervened(cama: CAMA) -> None:
    same, reversed_ = _rows(500, 0.95, 1), _rows(500, 0.05, 2)
    assert cama.m_trained
    assert cama.score(same, regime="observational") > 0.9
    assert cama.score(reversed_, regime="observational") < 0.55
    assert cama.score(same) > 0.7
    assert cama.score(reversed_) > 0.7
    assert cama.predict_proba(same).shape == (500, 2)


def test_a_colour_says_nothing_of_the_class(cama: CAMA) -> None:
    rows = _rows(40, 0.5, 3)
    turned = rows | {"image": rows["image"][:, ::-1].copy()}
    gap = cama.predict_proba(rows, samples=200) - cama.predict_proba(turned, samples=200)
    assert abs(gap).max() < 0.02
    gap = cama.predict_proba(rows, regime="observational") - cama.predict_proba(turned, regime="observational")
    assert abs(gap).mean() > 0.2


def test_regime_survives_a_folder_and_an_export(cama: CAMA, tmp_path: Any) -> None:
    from pyro_cama.persistence.export import load as load_exported

    rows = _rows(20, 0.5, 4)
    back = pyro_cama.load(cama.save(tmp_path / "model"))
    for regime in ("interventional", "observational"):
        expected = cama.predict_proba(rows, regime=regime)
        np.testing.assert_array_equal(back.predict_proba(rows, regime=regime), expected)
    served = load_exported(cama.export(tmp_path / "served", regime="observational"))
    np.testing.assert_allclose(served.predict_proba(rows), expected, atol=1e-5)


def test_adapting_leaves_p_m_given_y_alone(cama: CAMA) -> None:
    before = cama.modules.state_dict()
    adapted = cama.adapt({k: v for k, v in _rows(100, 0.05, 5).items() if k != "y"}, steps=5, progress=False)
    names = [name for name in before if "class_manipulation" in name]
    assert len(names) == 2
    assert all(before[name].equal(adapted.modules.state_dict()[name]) for name in names)
    assert adapted.score(_rows(300, 0.05, 6)) > 0.7


@pytest.mark.parametrize(
    ("latents", "options", "told"),
    [
        ({"m": {"scope": "dataset"}}, {}, "found scope 'dataset'; expected 'row', or clean rows too"),
        ({}, {"interventions": 1.0}, "found no clean rows to intervene on"),
        ({"m": None}, {}, "this graph has no manipulation latent"),
    ],
)
def test_what_needs_clean_rows_says_so(latents: dict[str, Any], options: dict[str, Any], told: str) -> None:
    graph = CausalGraph(
        {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"], "latents": latents}
    )
    rows = {"y": [0, 1] * 10, "x": list(range(20))}
    with pytest.raises(ValueError, match=told):
        pyro_cama.build(graph, device="cpu").fit(None, rows, progress=False, **options)


def test_neither_clean_nor_manipulated_rows() -> None:
    with pytest.raises(ValueError, match="neither clean nor manipulated rows"):
        pyro_cama.build(GRAPH, device="cpu").fit(None, progress=False)


def test_regime_is_checked(cama: CAMA) -> None:
    with pytest.raises(ValueError, match=r"regime='both'\): expected 'interventional' or 'observational'"):
        cama.predict_proba(_rows(3, 0.5), regime="both")  # type: ignore[arg-type]
