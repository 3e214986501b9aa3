"""The search for what no gradient leads to: exact where class and latents are known, few evaluations, what it finds."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.adaptation import search
from pyro_cama.adaptation.initialisation import initialise_start
from pyro_cama.adaptation.new_rows import expect_memory
from pyro_cama.adaptation.search import Option
from pyro_cama.inference.evidence import importance_evidence

COLUMNS = [f"x{i}" for i in range(12)]
LEVELS = list("abcdefgh")


def rows(number: int, seed: int) -> pd.DataFrame:
    """Twelve measurements and a code of eight levels, all effects of y."""
    rng = np.random.default_rng(seed)
    y = (rng.random(number) < 0.7).astype(int)
    x = 5 + 1.5 * y[:, None] * np.linspace(-1, 1, len(COLUMNS)) + rng.normal(size=(number, len(COLUMNS)))
    shares = np.array([[6, 1, 1, 1, 1, 4, 2, 1], [1, 6, 2, 1, 1, 1, 1, 4]])
    code = [rng.choice(LEVELS, p=shares[k] / shares[k].sum()) for k in y]
    return pd.DataFrame(x, columns=COLUMNS).assign(code=code, y=y)


@functools.cache
def fitted(scope: str = "dataset", style: int = 0) -> CAMA:
    nodes = {"y": "binary", "code": {"type": "categorical", "levels": LEVELS}, **dict.fromkeys(COLUMNS, "continuous")}
    graph: dict[str, Any] = {
        "target": "y",
        "nodes": nodes,
        "edges": [["y", name] for name in nodes if name != "y"],
        "latents": {"z": {"dim": style} if style else None, "m": {"dim": 2, "scope": scope}},
    }
    train = rows(400, 0).assign(site="north")
    return build(graph, hidden=16, device="cpu").fit(train, max_epochs=25, lr=1e-2, progress=False)


def drifted(number: int = 150) -> pd.DataFrame:
    """x1 and x9 reversed; the codes a and b exchanged."""
    new = rows(number, 1)
    new[["x1", "x9"]] = 10 - new[["x1", "x9"]]
    return new.assign(code=new["code"].replace({"a": "b", "b": "a"}))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"evidence": 0}

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        counts["evidence"] += 1
        return importance_evidence(*args, **kwargs)

    monkeypatch.setattr(search, "importance_evidence", counting)
    return counts


def options_of(cama: CAMA, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Option], Tensor, Tensor]:
    """What the screen lets pass at the moments of the drifted rows, m and theta there."""
    seen: list[Any] = []
    promising = search._promising

    def spy(pair: Any, part: Any, m: Tensor, theta: Tensor, *rest: Any) -> list[Option]:
        seen.append((promising(pair, part, m, theta, *rest), m, theta))
        return []

    monkeypatch.setattr(search, "_promising", spy)
    initialise_start(cama, cama.encode(drifted(100), "ignore"), None, 0, 10)
    found: tuple[list[Option], Tensor, Tensor] = seen[0]
    return found


def test_the_screen_is_exact_without_style(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where class and parents are all that a column depends on, its own factor tells what the evidence gains."""
    cama = fitted().copy()
    options, m, theta = options_of(cama, monkeypatch)
    batch, zero = cama.encode(drifted(100), "ignore"), torch.zeros(2)

    def evidence(theta: Tensor) -> Tensor:
        cama.manipulation.solve_for(m, theta)
        return importance_evidence(cama, batch, zero, do=None, samples=1)

    before = evidence(theta)
    assert len(options) >= 3
    for option in options:
        changed = theta.clone()
        changed[option.site, option.place] = option.theta
        gain = evidence(changed) - before
        low, high = torch.quantile(gain, torch.tensor([0.05, 0.95], dtype=gain.dtype))
        assert float(gain.clamp(low, high).sum()) == pytest.approx(option.promises, abs=0.05)


@pytest.mark.parametrize(("scope", "style"), [("dataset", 0), ("dataset", 2), ("site", 2)])
def test_what_is_reversed_and_recoded_is_found_at_the_start(scope: str, style: int, counted: dict[str, int]) -> None:
    cama = fitted(scope, style).copy()
    assert initialise_start(cama, cama.encode(drifted().assign(site="north"), "ignore"), None, 0, 10).name == "moments"
    q = cama.guide.m_posterior
    theta = cama.manipulation.structured(q.loc)[0]
    by_name: dict[str, Tensor] = {}
    for group in cama.manipulation.groups:
        own = theta[cama.manipulation.slice_of(group)].reshape(group.width, -1)
        by_name |= dict(zip(group.nodes, own, strict=True))
    assert [name for name in COLUMNS if by_name[name][3] > 1] == ["x1", "x9"]
    matrix = cama.manipulation.groups[[g.nodes[0] for g in cama.manipulation.groups].index("code")].mechanism
    assert matrix.matrix(by_name["code"]).argmax(-1).tolist() == [1, 0, *range(2, len(LEVELS))]  # type: ignore[attr-defined]
    assert counted["evidence"] <= 20  # of 27 alternatives and more, most of them tried twice


def test_a_fruitless_search_costs_few_evaluations(counted: dict[str, int]) -> None:
    cama = fitted(style=2).copy()
    initialise_start(cama, cama.encode(rows(150, 2), "ignore"), None, 0, 10)
    assert counted["evidence"] <= 10


def test_a_theta_a_row_that_cannot_fit_is_refused() -> None:
    levels = list(range(400))
    graph: dict[str, Any] = {
        "target": "y",
        "nodes": {"y": "binary", "code": {"type": "categorical", "levels": levels}},
        "edges": ["y -> code"],
        "latents": {"m": {"scope": "row", "dim": 1}},
    }
    wide = build(graph, hidden=2, layers=1, device="cpu")
    with pytest.raises(ValueError, match=r"'code' takes 160000 numbers for its 400 levels.*merge rare levels"):
        expect_memory(wide, 256, 8)
    expect_memory(wide, 16, 1)
    graph["latents"]["m"]["scope"] = "dataset"
    expect_memory(build(graph, hidden=2, layers=1, device="cpu"), 256, 8)
