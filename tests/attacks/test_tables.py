"""Attacks on tables that CAMA reads: the prediction's logits and gradients, and tables that come back."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.attacks.gradient import fgsm, pgd
from pyro_cama.attacks.tables import AttackableTable
from pyro_cama.inference import proposals
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.model.guide import CAMAGuide
from support.drift import load_table, split
from tests.helpers.patches import rows_at_a_time
from tests.helpers.paths import GRAPHS
from tests.helpers.precision import in_double

QUICK: dict[str, Any] = {"progress": False}
MIXED: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "a": "continuous",
        "c": "continuous",
        "k": {"type": "categorical", "levels": ["u", "v"]},
        "y": {"type": "categorical", "levels": ["p", "q", "r"]},
        "x1": "continuous",
        "x2": {"type": "continuous", "dim": 2},
        "x3": "count",
    },
    "edges": ["a -> y", "y -> x1", "y -> x2", "y -> x3", "c -> x1", "k -> x1", "x1 -> x2"],
}


# A CAMA on tables.


def mixed_table(rows: int = 40, missing: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    frame = pd.DataFrame(
        {
            "note": [f"row {i}" for i in range(rows)],  # no node
            "ward": rng.choice(["north", "south"], rows),  # a scope
            "y": np.array(["p", "q", "r"])[y],
            "a": rng.normal(y, 1.0),
            "c": rng.integers(100, 200, rows),  # integers
            "k": np.where(rng.random(rows) < 0.5, "u", "v"),
            "x1": rng.normal(50.0 + 5.0 * y, 4.0).astype(np.float32),
            "x2": list(rng.normal(y[:, None], 1.0, (rows, 2))),
            "x3": rng.poisson(1.0 + y).astype(float),
        },
        index=np.arange(rows)[::-1] * 3,
    )
    if missing:
        for i, name in enumerate(["a", "x1", "x2", "k", "x3"]):
            frame[name] = frame[name].where(np.arange(rows) % 7 != i)
    return frame


@functools.cache
def mixed(scope: str = "row") -> CAMA:
    graph = {**MIXED, "latents": {"z": {"dim": 2}, "m": {"dim": 2, "scope": scope}}}
    cama = build(graph, hidden=8, layers=1, device="cpu")
    return cama.fit(mixed_table(), max_epochs=3, conditional_weight=0.0, **QUICK)


@functools.cache
def wine() -> tuple[CAMA, pd.DataFrame]:
    train, test = split(*load_table("wine"), seed=0)
    return build(GRAPHS / "wine.yaml", device="cpu").fit(train, max_epochs=25, **QUICK), test


@pytest.mark.parametrize("scope", ["row", "dataset", "ward"])
@pytest.mark.parametrize("do", ["auto", None, {"m": 0.3}])
@pytest.mark.parametrize("care", [{}, {"power": 0.5}, {"refine_z": 2, "power": 0.5}])
def test_logits_are_those_of_the_prediction(scope: str, do: Any, care: dict[str, Any]) -> None:
    cama, table = mixed(scope), mixed_table()
    options: dict[str, Any] = {"do": do, "samples": 5, "m_samples": 3, **care}
    part = AttackableTable(cama, table, **options)
    assert part.columns == ("c", "x1", "x2[0]", "x2[1]")
    expected = torch.tensor(cama.predict_proba(table, **options)).log()
    torch.testing.assert_close(part.logits(part.x).double(), expected, rtol=0, atol=2e-5)
    # and away from the clean values
    moved = part.x + torch.linspace(-1.0, 1.0, part.x.numel()).reshape(part.x.shape)
    with pytest.warns(UserWarning, match="causes that no training row had"):
        expected = torch.tensor(cama.predict_proba(part.table(moved), **options)).log()
    torch.testing.assert_close(part.logits(moved).double(), expected, rtol=0, atol=2e-5)


def test_a_do_of_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    cama, table = mixed(), mixed_table()
    do = {"m": torch.linspace(-1.0, 1.0, 2 * len(table)).reshape(-1, 2)}
    part = AttackableTable(cama, table, do=do)
    expected = torch.tensor(cama.predict_proba(table, do)).log()
    torch.testing.assert_close(part.logits(part.x).double(), expected, rtol=0, atol=2e-5)
    asked = rows_at_a_time(monkeypatch, 7)
    torch.testing.assert_close(part.logits(part.x).double(), expected, rtol=0, atol=2e-5)
    assert asked


def test_chunks_repeat_a_refinement_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpointed chunk runs again for its gradient, and not in every step of its refinement too."""
    steps, calls = 6, [0]

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return log_weights(*args, **options)

    monkeypatch.setattr(proposals, "log_weights", counted)
    part = AttackableTable(mixed(), mixed_table()[:14], refine_z=steps)
    x = part.x.clone().requires_grad_()
    expected = torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0]
    calls[0] = 0
    rows_at_a_time(monkeypatch, 7)
    found = torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0]
    assert calls[0] == 2 * 2 * (steps + 1 + 1)  # chunks, runs of each, evaluations of the climb, the weights themselves
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["row", "dataset"])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_gradients_are_those_of_finite_differences(scope: str, power: float) -> None:
    with in_double():
        cama = build({**MIXED, "latents": {"z": {"dim": 2}, "m": {"dim": 2, "scope": scope}}}, hidden=6, device="cpu")
        cama.fit(mixed_table(), max_epochs=0, **QUICK)
        with torch.no_grad():  # nothing at its start, where m has no effect yet
            for parameter in cama.modules.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        part = AttackableTable(
            cama, mixed_table()[:8], ["a", "c", "x1", "x2"], do=None, samples=3, m_samples=2, power=power
        )
        x = part.x.clone().requires_grad_()
        assert torch.autograd.gradcheck(part.logits, (x,), eps=1e-6, atol=1e-6)
        slope = torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0]
        assert bool((slope[part.mask] != 0).all())
        assert bool((slope[~part.mask] == 0).all())
        assert all(p.grad is None for p in cama.modules.parameters())


def test_rows_of_a_table_are_independent_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cama, table = mixed(), mixed_table()
    part = AttackableTable(cama, table, samples=4)
    options: dict[str, Any] = {"eps": 0.4, "steps": 3, "starts": 2}
    together = pgd(part.logits, part.x, part.y, mask=part.mask, **options)
    few = AttackableTable(cama, table[5:9], samples=4)
    torch.testing.assert_close(few.logits(few.x), part.logits(part.x)[5:9], rtol=0, atol=1e-5)
    alone = pgd(few.logits, few.x, few.y, mask=few.mask, **options)
    torch.testing.assert_close(few.logits(alone), part.logits(together)[5:9], rtol=0, atol=1e-4)

    x = part.x.clone().requires_grad_()
    slope = torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0]
    asked = rows_at_a_time(monkeypatch, 7)
    torch.testing.assert_close(part.logits(part.x), part.logits(x).detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0], slope, rtol=1e-4, atol=1e-6)
    assert len(asked) == 3


class Circular(CAMAGuide):
    """Its draws have no common noise."""

    def z_dist(self, batch: Any, y: Tensor | None, m: Tensor | None) -> Any:
        loc, scale = self.z_params(batch, y, m)
        return dist.VonMises(loc, 1.0 / scale).to_event(1)


def test_a_distribution_without_common_noise() -> None:
    cama = build({**MIXED, "latents": {"z": {"dim": 2}, "m": None}}, hidden=8, guide=Circular, device="cpu")
    table = mixed_table()[:6]
    cama.fit(table, max_epochs=0, **QUICK)
    part = AttackableTable(cama, table, samples=3)
    expected = torch.tensor(cama.predict_proba(table, samples=3)).log()
    torch.testing.assert_close(part.logits(part.x).double(), expected, rtol=0, atol=2e-5)
    x = part.x.clone().requires_grad_()
    assert bool(torch.autograd.grad(part.logits(x)[:, 0].sum(), x)[0].isfinite().all())


def test_the_table_comes_back_in_raw_units() -> None:
    cama, table = mixed(), mixed_table()
    part = AttackableTable(cama, table, ["x1", "x2", "c"])
    pd.testing.assert_frame_equal(part.table(part.x), table)
    x = part.x.clone()
    x[:, 0] += 0.5  # x1
    x[3, 2] -= 1.0  # a component of x2
    before = table.copy(deep=True)
    found = part.table(x)
    pd.testing.assert_frame_equal(table, before)
    others = ["note", "ward", "y", "a", "c", "k", "x3"]
    pd.testing.assert_frame_equal(found[others], table[others])
    sd = float(cama.encoder.statistics["x1"]["sd"])
    assert found["x1"].to_numpy() == pytest.approx(table["x1"].to_numpy() + 0.5 * sd, rel=1e-6, nan_ok=True)
    assert found["x1"].isna().equals(table["x1"].isna())
    for i in range(len(table)):
        if i == 3:
            shift = float(cama.encoder.statistics["x2"]["sd"][1])
            assert found["x2"].iloc[i] == pytest.approx(table["x2"].iloc[i] - np.array([0.0, shift]), rel=1e-6)
        else:
            assert found["x2"].iloc[i] is table["x2"].iloc[i]
    one = part.x.clone()
    one[4, 3] += 1.0  # c, a column of integers
    column = part.table(one)["c"].to_numpy()
    assert column[4] == pytest.approx(table["c"].iloc[4] + float(cama.encoder.statistics["c"]["sd"]))
    assert np.array_equal(np.delete(column, 4), np.delete(table["c"].to_numpy(), 4))
    again = AttackableTable(cama, found, ["x1", "x2", "c"])
    torch.testing.assert_close(again.x[part.mask], x[part.mask], rtol=0, atol=1e-6)
    assert torch.equal(again.mask, part.mask)


def test_other_kinds_of_table() -> None:
    cama, table = mixed(), mixed_table(missing=False)
    frame = AttackableTable(cama, table)
    columns: dict[str, Any] = {name: table[name] for name in ("y", "c", "k", "x1")}  # by position, not by index
    columns |= {"a": table["a"].reset_index(drop=True), "x2": np.stack(table["x2"].tolist()), "x3": [*table["x3"]]}
    other = AttackableTable(cama, columns)
    assert torch.equal(other.x, frame.x)
    x = frame.x + 0.1
    assert cama.predict_proba(other.table(x)) == pytest.approx(cama.predict_proba(frame.table(x)))
    assert frame.y is not None
    assert frame.y.tolist() == ["pqr".index(label) for label in table["y"]]
    assert AttackableTable(cama, table.drop(columns="y")).y is None
    unknown = AttackableTable(cama, table.assign(y=table["y"].where(np.arange(len(table)) != 2)))
    assert unknown.y is not None
    assert unknown.y[2] == -1


def test_missing_entries_are_not_attacked() -> None:
    part = AttackableTable(mixed(), mixed_table())
    assert int((~part.mask).sum()) == int(mixed_table()["x1"].isna().sum() + 2 * mixed_table()["x2"].isna().sum())
    found = pgd(part.logits, part.x, part.y, eps=1.0, norm="l2", steps=2, mask=part.mask)
    assert torch.equal(found[~part.mask], part.x[~part.mask])
    anything = torch.where(part.mask, part.x, torch.tensor(torch.nan))
    assert torch.equal(part.logits(anything), part.logits(part.x))


def test_fresh_noise() -> None:
    cama, table = mixed(), mixed_table()
    fixed, fresh = AttackableTable(cama, table, do=None), AttackableTable(cama, table, do=None, fresh=True)
    assert torch.equal(fixed.logits(fixed.x), fixed.logits(fixed.x))
    assert not torch.equal(fresh.logits(fresh.x), fresh.logits(fresh.x))
    options: dict[str, Any] = {"eps": 0.3, "steps": 2, "draws": 3, "mask": fresh.mask}
    before = torch.get_rng_state()
    first, again = (pgd(fresh.logits, fresh.x, fresh.y, **options) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (["x3"], r"nodes: \['x3'\] have no gradient to attack along; expected numbers or images, some of \['a', 'c'"),
        (["k", "x1", "y"], r"nodes: \['k', 'y'\]"),
        (["absent"], r"nodes: \['absent'\]"),
        ([], r"expected some of \['a', 'c', 'x1', 'x2'\], each once, found \[\]"),
        (["x1", "x1"], r"each once"),
        ("x3", r"nodes: \['x3'\] have no gradient"),
        (3, r"AttackableTable\(nodes=3\): expected some of \['a', 'c', 'x1', 'x2'\]"),
    ],
)
def test_nodes_that_cannot_be_attacked(nodes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttackableTable(mixed(), mixed_table(), nodes)


def test_one_name_and_how_a_table_is_shown() -> None:
    assert repr(AttackableTable(mixed(), mixed_table(), "x2")) == "AttackableTable(40 rows, x2[2])"
    assert repr(AttackableTable(mixed(), mixed_table(), ["x1", "x2"])) == "AttackableTable(40 rows, x1, x2[2])"


def test_what_a_table_refuses() -> None:
    part = AttackableTable(mixed(), mixed_table())
    for call in (part.logits, part.table):
        with pytest.raises(ValueError, match=r"x.shape=\(3, 4\)\): expected \(40, 4\)"):
            call(part.x[:3])
        with pytest.raises(ValueError, match=r"type\(x\)='ndarray'\): expected Tensor"):
            call(part.x.numpy())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"AttackableTable\(samples=0\)"):
        AttackableTable(mixed(), mixed_table(), samples=0)
    with pytest.raises(ValueError, match=r"AttackableTable\(powr=0.5\): expected some of samples, m_samples, widen"):
        AttackableTable(mixed(), mixed_table(), powr=0.5)
    graph = {"target": "y", "nodes": {"y": "binary", "x": "count"}, "edges": ["y -> x"]}
    cama = build(graph, device="cpu")
    with pytest.raises(ValueError, match=r"expected some of \[\], each once"):
        AttackableTable(cama, {"x": [1, 2], "y": [0, 1]})


def test_the_score_under_attack_is_that_of_the_logits() -> None:
    cama, test = wine()
    part = AttackableTable(cama, test, samples=8)
    assert part.x.shape == (len(test), 13)
    scores = []
    for x in (
        part.x,
        fgsm(part.logits, part.x, part.y, eps=0.5),
        pgd(part.logits, part.x, part.y, eps=0.5, steps=8),
        pgd(part.logits, part.x, part.y, eps=1.5, norm="l2", steps=8),
    ):
        accuracy = float((part.logits(x).argmax(1) == part.y).float().mean())
        assert cama.score(part.table(x), samples=8) == pytest.approx(accuracy, abs=1e-6)
        scores.append(accuracy)
    clean, fast, strong, l2 = scores
    assert clean > 0.9
    assert fast < clean - 0.2
    assert strong <= fast
    assert l2 < clean - 0.2
