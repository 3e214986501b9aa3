"""Columns that move together share a part of theta: its prior, the format that says so, and what it is good for."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_cama
from pyro_cama import CAMA, CausalGraph, GraphError, Mechanism, build
from pyro_cama.mechanisms import Affine
from tests.helpers.precision import in_double

COLUMNS = [f"{sensor}{i}" for sensor in "abc" for i in range(4)]
GROUPS = {sensor: [f"{sensor}{i}" for i in range(4)] for sensor in "abc"}


def spec(**m: Any) -> dict[str, Any]:
    return {
        "target": "y",
        "nodes": {"y": {"type": "binary"}, **dict.fromkeys([*COLUMNS, "n"], "continuous")},
        "edges": [f"y -> {name}" for name in [*COLUMNS, "n"]],
        "latents": {"z": {"dim": 2, "effect": "linear"}, "m": {"scope": "dataset", "groups": GROUPS, **m}},
    }


def rows(count: int, seed: int) -> pd.DataFrame:
    """Twelve readings of three sensors: what a class reads differs from reading to reading."""
    rng, y = np.random.default_rng(seed), np.random.default_rng(seed).integers(0, 2, count)
    means = np.random.default_rng(7).choice([-1.0, 1.0], len(COLUMNS)) * 0.7
    x = np.outer(2 * y - 1, means) + rng.normal(size=(count, len(COLUMNS)))
    return pd.DataFrame(x, columns=COLUMNS).assign(y=y, n=rng.normal(size=count))


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return build(spec(), seed=0, hidden=4, device="cpu").fit(rows(300, 0), progress=False)


@pytest.mark.parametrize("corner", [0.0, 0.02])
def test_the_common_part_is_the_best_there_is(cama: CAMA, corner: float) -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(5, cama.manipulation.size, generator=generator, dtype=torch.float64) * 2
    found = cama.manipulation.extent(theta, corner)
    even, grid = cama.manipulation.even(), torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    sized = torch.where(even, theta.abs(), theta)
    moved = [group for group in cama.manipulation.groups if group.theta_size]
    expected = torch.zeros(5, dtype=torch.float64)
    for group in moved:
        own = cama.manipulation.theta(sized, group)
        expected += own[:, group.nodes.index("n")].abs().sum(-1)
        for columns in GROUPS.values():
            some = own[:, [group.nodes.index(name) for name in columns]]
            for row in range(5):
                for k in range(group.theta_size):
                    expected[row] += (grid.abs() + (some[row, :, k] - grid).abs().sum(1, keepdim=True)).min()
    torch.testing.assert_close(found, expected, rtol=0.02 if corner else 1e-3, atol=0.1 if corner else 2e-2)


def test_a_graph_without_groups_has_a_laplace_prior_and_the_gradient_is_right(cama: CAMA) -> None:
    plain = build(spec(groups=None), hidden=4, device="cpu").manipulation
    theta = torch.randn(3, plain.size, dtype=torch.float64)
    torch.testing.assert_close(plain.extent(theta), theta.abs().sum(-1))
    assert torch.autograd.gradcheck(lambda t: cama.manipulation.extent(t, 0.02), theta.requires_grad_())
    assert float(cama.manipulation.extent(torch.zeros(cama.manipulation.size), 0.02)) == 0


def test_few_rows_suffice_where_the_graph_says_what_moves_together(cama: CAMA) -> None:
    """Sensor a reads 2 more on all of its four columns: eight rows."""
    alone = build(spec(groups=None), seed=0, hidden=4, device="cpu").fit(rows(300, 0), progress=False)
    apart: dict[str, list[float]] = {"alone": [], "together": []}
    for seed in (1, 2):
        new = rows(8, seed)
        new[GROUPS["a"]] += 2.0
        for key, model in (("alone", alone), ("together", cama)):
            found = model.adapt(new.drop(columns="y"), keep="always", progress=False).explain_shift()
            shift = found.parameters.query("parameter == 'shift at the mean'").set_index("column")["estimate"]
            apart[key].append(float((shift[GROUPS["a"]] - 2.0).abs().mean()))
    assert np.mean(apart["together"]) < np.mean(apart["alone"]) - 0.05, apart


def test_groups_are_named_and_stored(cama: CAMA, tmp_path: Path) -> None:
    new = rows(60, 3)
    new[GROUPS["a"]] += 2.0
    adapted = cama.adapt(new.drop(columns="y"), progress=False)
    found = adapted.explain_shift()
    assert found.table.set_index("column")["group"][["a0", "c3", "n"]].tolist() == ["a", "c", ""]
    assert "a0 (a): shift at the mean" in str(found)
    assert "together    a: a0, a1, a2, a3" in cama.summary()
    again = pyro_cama.load(adapted.save(tmp_path / "m"))
    assert again.graph.m is not None
    assert again.graph.m.groups == {key: tuple(columns) for key, columns in GROUPS.items()}
    with in_double():
        theta = torch.randn(cama.manipulation.size)
        assert torch.equal(again.manipulation.extent(theta), cama.manipulation.extent(theta))
    assert CausalGraph(cama.graph.to_dict()).m == cama.graph.m


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"a": ["a0", "a9"]}, "latent 'm': groups: 'a': found 'a9'; expected one of 'a0', 'a1'"),
        ({"a": ["a0", "y"]}, "groups: 'a': found 'y'; expected one of"),
        ({"a": ["a0", "a1"], "b": ["a1", "b0"]}, "'b': found 'a1' in 'a' too; expected each child in one group, once"),
        ({"a": ["a0", "a0"]}, "'a': found 'a0' twice; expected each child in one group, once"),
        ({"a": ["a0", "n"]}, "'a': found columns that move in different ways, 'continuous by affine', 'count by rate'"),
        ({"a": ["a0"]}, "groups: found {'a': ['a0']}; expected a mapping of name to a list of two or more children"),
        (["a0", "a1"], "groups: found ['a0', 'a1']; expected a mapping of name to a list of two or more children"),
    ],
)
def test_what_is_wrong_with_groups_is_said(groups: Any, says: str) -> None:
    raw = spec(groups=groups)
    raw["nodes"]["n"] = "count"
    with pytest.raises(GraphError) as error:
        CausalGraph(raw)
    assert says in str(error.value)


def test_of_a_style_of_rows_of_images_and_of_concat_there_are_no_groups() -> None:
    with pytest.raises(GraphError, match="found groups in scope 'row'; expected 'dataset' or a column"):
        CausalGraph(spec(scope="row"))
    raw = spec(groups=None)
    raw["latents"]["z"]["groups"] = GROUPS
    with pytest.raises(GraphError, match="latent 'z': found key 'groups'; expected it for a manipulation only"):
        CausalGraph(raw)
    images = spec(groups={"i": ["i", "k"]})
    images["nodes"] |= {name: {"type": "image", "shape": [1, 4, 4]} for name in "ik"}
    images["edges"] += ["y -> i", "y -> k"]
    with pytest.raises(GraphError, match="'i': found 'i', an image; expected columns of numbers or levels"):
        CausalGraph(images)
    with pytest.raises(GraphError, match="'a': found mechanisms with these numbers of parameters: a0 0, a1 0"):
        build(spec(mechanism="concat"), device="cpu")

    other: dict[str, Mechanism] = {"a0": Affine(shared=False)}
    with pytest.raises(GraphError, match="'a': found mechanisms with these numbers of parameters: a0 2, a1 4"):
        build(spec(), device="cpu", mechanisms=other)
