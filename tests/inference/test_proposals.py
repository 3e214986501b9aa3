"""More computing at prediction: a better proposals of every row's m and z, and what stays as it was."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.bounds import importance_bound, marginal
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.inference.proposals import _gradient_ascent, m_proposal, z_proposal
from pyro_cama.model.guide import CAMAGuide
from tests.helpers.images import digits, joint, rows, state, tiny
from tests.helpers.networks import networks
from tests.helpers.patches import rows_at_a_time
from tests.helpers.precision import in_double

QUICK: dict[str, Any] = {"max_epochs": 0, "progress": False}


def objective(cama: CAMA, batch: Batch, m: Tensor) -> Tensor:
    """log sum_y p(x, y, m) of every row, up to what the draw of z leaves open, ``(rows,)``."""
    with torch.no_grad(), common_noise(cama.settings.seed):
        weights = log_weights(cama.model, cama.guide, batch, do={"m": m}, samples=1, classes=True)
        return marginal(importance_bound(weights)) + dist.Normal(0.0, 1.0).log_prob(m).sum(-1)


def proposed(cama: CAMA, batch: Batch, widen: float = 1.0, refine: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and scale, ``(rows, dim)`` each, as a prediction would draw m."""
    with torch.no_grad(), common_noise(cama.settings.seed):
        q = m_proposal(cama, batch, widen=widen, refine=refine)
    assert q.batch_shape == (batch.rows,)
    return q.mean, q.variance.sqrt()


def some(n: int = 12) -> tuple[CAMA, Batch, dict[str, Any]]:
    """The model of digits, and shifted ones."""
    cama, _, shifted = digits()
    table = {"i": shifted["i"][:n]}
    return cama, cama.encode(table), table


def test_without_budget_the_proposal_is_q() -> None:
    cama, batch, table = some()
    with torch.no_grad():
        q: Any = cama.guide.m_dist(batch)
    loc, scale = proposed(cama, batch)
    torch.testing.assert_close(loc, q.mean)
    torch.testing.assert_close(scale, q.variance.sqrt())
    plain = cama.predict_proba(table)
    np.testing.assert_array_equal(cama.predict_proba(table, widen=1.0, refine=0), plain)


def test_widening_scales_and_moves_nothing() -> None:
    cama, batch, _ = some()
    (loc, scale), (other, wide) = proposed(cama, batch), proposed(cama, batch, widen=2.5)
    assert torch.equal(other, loc)
    torch.testing.assert_close(wide, 2.5 * scale)


def test_refining_never_lowers_the_objective_it_climbs() -> None:
    cama, batch, _ = some(40)
    start, scale = proposed(cama, batch)
    reached = objective(cama, batch, start)
    for steps in (1, 3, 10, 30):  # the steps of a longer climb begin with those of a shorter one
        loc, same = proposed(cama, batch, refine=steps)
        assert torch.equal(same, scale)
        found = objective(cama, batch, loc)
        assert (found >= reached - 1e-3).all()
        reached = found
    gain = reached - objective(cama, batch, start)
    assert (gain > 0.01).float().mean() > 0.9


def test_where_m_does_not_matter_refining_finds_the_prior() -> None:
    """log p(x, m) = log p(x) + log p(m) is highest at 0."""
    cama = build({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}, hidden=4)
    cama.fit({"y": [0, 1, 0, 1], "x": [0.0, 1.0, 2.0, 3.0]}, **QUICK)
    with torch.no_grad():
        last: Any = cama.manipulation.network[-1]
        last.weight.zero_()
    batch = cama.encode({"x": [0.5, 1.5]})
    with torch.no_grad():
        q: Any = cama.guide.m_posterior.network[-1]
        q.bias[:4] = torch.tensor([1.5, -1.0, 0.7, 0.0])
    assert proposed(cama, batch)[0].norm(dim=1).min() > 1
    assert proposed(cama, batch, refine=150)[0].norm(dim=1).max() < 0.1


def test_refining_z_climbs_under_every_class_and_leaves_m_alone() -> None:
    cama, batch, _ = some()
    with torch.no_grad():
        m = cama.guide.m_dist(batch).mean  # type: ignore[attr-defined]
        q: Any = cama.guide.z_dist(batch, cama.guide.target_value(batch, classes=True), m)

    def height(z: Tensor) -> Tensor:
        """log p(x, y, z | m), ``(classes, rows)``."""
        likelihood, _ = cama.model.log_prob(batch, z[None], m, samples=1, classes=True)
        return likelihood[0] + dist.Normal(0.0, 1.0).log_prob(z).sum(-1)

    with torch.no_grad(), common_noise(cama.settings.seed):
        reached = height(q.mean)
        for steps in (1, 3, 10, 30):
            found: Any = z_proposal(cama, batch, {"m": m}, steps=steps)
            assert found.batch_shape == (len(cama.classes), batch.rows)
            torch.testing.assert_close(found.variance, q.variance.expand(found.variance.shape))
            higher = height(found.mean)
            assert (higher >= reached - 1e-3).all()
            reached = higher
    assert ((reached - height(q.mean)) > 0.01).float().mean() > 0.8


BUDGETS = [
    {"widen": 2.0}, {"refine": 4}, {"widen": 1.5, "refine": 4}, {"refine_z": 4}, {"refine": 2, "refine_z": 3},
    {"power": 0.3}, {"refine": 2, "refine_z": 3, "power": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("budget", BUDGETS)
def test_predictions_stay_deterministic_and_each_rows_own(budget: dict[str, Any]) -> None:
    cama, _, table = some()
    before = state(cama)
    cama.modules.zero_grad()
    together = cama.predict_proba(table, **budget)
    np.testing.assert_array_equal(cama.predict_proba(table, **budget), together)
    np.testing.assert_allclose(together.sum(1), 1.0)
    assert np.abs(together - cama.predict_proba(table)).max() > 1e-4
    for i in (0, 7):
        alone = cama.predict_proba({"i": table["i"][i : i + 1]}, **budget)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)
    backwards = cama.predict_proba({"i": table["i"][::-1].copy()}, **budget)[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-4)
    # the model is as it was, gradients included
    assert all(torch.equal(value, before[name]) for name, value in state(cama).items())
    assert all(parameter.grad is None for parameter in cama.modules.parameters())
    assert cama.predict(table, **budget).tolist() == together.argmax(1).tolist()


def test_the_callers_random_state_is_left_alone() -> None:
    cama, _, table = some(4)
    before = torch.get_rng_state()
    cama.predict_proba(table, widen=2.0, refine=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_chunks_refine_as_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cama, _, table = some()
    whole = cama.predict_proba(table, refine=4, refine_z=3)
    asked = rows_at_a_time(monkeypatch, 5)
    np.testing.assert_allclose(cama.predict_proba(table, refine=4, refine_z=3), whole, atol=1e-4)
    assert asked


@pytest.mark.parametrize(
    "budget",
    [
        {"widen": 1.2}, {"refine": 5}, {"widen": 0.9, "refine": 2}, {"refine_z": 5}, {"refine": 2, "refine_z": 9},
        {"power": 0.4}, {"refine": 2, "refine_z": 5, "power": 0.4},
    ],
)  # fmt: skip
def test_importance_weights_hold_for_any_proposal(budget: dict[str, Any]) -> None:
    """Eq. 6 by quadrature, whatever m is drawn from."""
    with in_double():
        cama = tiny("intensity")
        images = rows(cama, 3).values["i"]
        y = np.array(["p", "q", "r"])
        cama.fit({"y": y, "i": images.numpy()}, **QUICK)
        exact = torch.softmax(joint(cama, images, None, budget.get("power", 1.0)), 0).T.numpy()
        found = cama.predict_proba({"i": images.numpy()}, do=None, samples=40_000, **budget)
        np.testing.assert_allclose(found, exact, atol=0.02)


def test_a_power_is_of_the_children_alone() -> None:
    """Parents, co-parents and the class proportions say what they say; a row of no children says it too."""
    spec = {
        "target": "y",
        "nodes": {"y": "binary", "a": "continuous", "c": "continuous", "x": "continuous", "k": "count"},
        "edges": ["a -> y", "y -> x", "c -> x", "y -> k"],
        "latents": {"z": {"effect": "deep"}},
    }
    cama = build(spec, hidden=8, device="cpu")
    table = {"y": [0, 1, 1] * 4, **{n: np.linspace(-1, 2, 12) for n in "acx"}, "k": np.arange(12)}
    cama.fit(table, **QUICK)
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    batch = cama.encode(table)

    def weights(power: float) -> LogWeights:
        with common_noise(0), torch.no_grad():
            return log_weights(cama.model, cama.guide, batch, samples=5, classes=True, power=power)

    whole, half, quarter = (weights(power) for power in (1.0, 0.5, 0.25))
    torch.testing.assert_close(half.w - quarter.w, (whole.w - half.w) / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(half.context, whole.context)
    unseen = {**table, "x": [np.nan] * 12, "k": [np.nan] * 12}
    np.testing.assert_array_equal(cama.predict_proba(unseen, power=0.1), cama.predict_proba(unseen))
    nearly = cama.predict_proba(table, samples=5000, power=1e-3)  # hardly anything is said by children
    np.testing.assert_allclose(nearly, cama.predict_proba(unseen, samples=5000), atol=0.03)
    assert np.abs(cama.predict_proba(table, samples=5000) - nearly).max() > 0.05


def test_refining_repairs_a_wrong_q() -> None:
    """q(m | x) is narrow about a wrong m; only the climb leads back."""
    cama, _, shifted = digits()
    copy = cama.copy()
    with torch.no_grad():
        q: Any = copy.guide.m_posterior.network[-1]
        q.bias[:3] += 2.5
        q.bias[3:] -= 2.0
    table = {name: column[:100] for name, column in shifted.items()}
    fine, wrong = cama.score(table), copy.score(table)
    assert wrong < fine - 0.15
    assert copy.score(table, refine=20) > wrong + 0.1


def test_refining_z_repairs_a_wrong_q() -> None:
    """q(z | x, y) is narrow about a wrong z, the m of q(m | x) is right: only the climb of z leads back."""
    cama, _, shifted = digits()
    copy = cama.copy()
    with torch.no_grad():
        q = networks(copy.guide)["z"][-1][-1]
        half = len(q.bias) // 2
        q.bias[:half] += 9.0 * torch.randn(half, generator=torch.Generator().manual_seed(0))
        q.bias[half:] -= 2.0
    table = {name: column[:200] for name, column in shifted.items()}
    fine, wrong = cama.score(table), copy.score(table)
    assert wrong < fine - 0.15
    assert copy.score(table, refine_z=120) > wrong + 0.1


@pytest.mark.parametrize("m", [{"scope": "dataset"}, {"scope": "s"}, None])
@pytest.mark.parametrize("do", ["auto", None])
def test_z_is_refined_in_every_scope(m: Any, do: Any) -> None:
    spec = {
        "target": "y", "nodes": {"y": "binary", "x": "continuous", "c": "count"}, "edges": ["y -> x", "y -> c"],
        "latents": {"z": {"effect": "deep"}, "m": m},
    }  # fmt: skip
    cama = build(spec, hidden=8, device="cpu")
    table = {"y": [0, 1] * 6, "x": np.linspace(-1, 2, 12), "c": np.arange(12), "s": ["a", "b", "c"] * 4}
    cama.fit(table, **QUICK)
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = cama.predict_proba(table, do=do, refine_z=6)
    np.testing.assert_allclose(found.sum(1), 1.0)
    plain = cama.predict_proba(table, do=do, samples=1)
    assert np.abs(cama.predict_proba(table, do=do, samples=1, refine_z=6) - plain).max() > 1e-4
    # both estimate the same probabilities
    exact = cama.predict_proba(table, do=do, samples=20_000, m_samples=1)
    np.testing.assert_allclose(
        cama.predict_proba(table, do=do, samples=20_000, m_samples=1, refine_z=6), exact, atol=0.03
    )
    alone = {name: column[4:5] for name, column in table.items()}
    np.testing.assert_allclose(cama.predict_proba(alone, do=do, refine_z=6)[0], found[4], atol=1e-4)


def test_a_given_m_is_not_looked_for() -> None:
    cama, _, table = some()
    for options in ({"widen": 3.0}, {"refine": 3}):
        with pytest.raises(
            ValueError, match=r"predict: widen and refine are for an m that is inferred, and here it is"
        ):
            cama.predict_proba(table, do={"m": 0.0}, **options)


class Uncommon(CAMAGuide):
    """Without common noise: rows are predicted one at a time, from one seed."""

    def z_dist(self, batch: Any, y: Any, m: Any) -> Any:
        loc, scale = self.z_params(batch, y, m)
        parts = dist.Normal(torch.stack([loc, loc + 1.0], -2), torch.stack([scale, scale], -2)).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(*loc.shape[:-1], 2)), parts)


class Meanless(CAMAGuide):
    """q(m | x) of a flow: its mean is not known."""

    def m_dist(self, batch: Any) -> Any:
        q: Any = super().m_dist(batch)
        return dist.TransformedDistribution(q.base_dist, [dist.transforms.TanhTransform()]).to_event(1)


def custom(guide: type[CAMAGuide]) -> tuple[CAMA, dict[str, Any]]:
    spec = {"target": "y", "nodes": {"y": "binary", "x": "continuous", "c": "count"}, "edges": ["y -> x", "y -> c"]}
    cama = build(spec, hidden=8, guide=guide, device="cpu")
    table = {"y": [0, 1] * 4, "x": np.linspace(-1, 2, 8), "c": np.arange(8)}
    return cama.fit(table, **QUICK), table


def test_a_guide_without_common_noise_climbs_one_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    cama, table = custom(Uncommon)
    found = cama.predict_proba(table, do=None, refine=5)
    np.testing.assert_array_equal(cama.predict_proba(table, do=None, refine=5), found)
    alone = cama.predict_proba({"x": table["x"][3:4], "c": table["c"][3:4]}, do=None, refine=5)
    np.testing.assert_allclose(alone[0], found[3], atol=1e-5)
    # the draw of z is held fixed from step to step: the best m reached is no lucky draw
    states = []

    def watched(*arguments: Any, **options: Any) -> LogWeights:
        states.append(torch.get_rng_state())
        return log_weights(*arguments, **options)

    monkeypatch.setattr("pyro_cama.inference.proposals.log_weights", watched)
    np.testing.assert_array_equal(cama.predict_proba(table, do=None, refine=5), found)
    assert len(states) >= 8 * (5 + 1)
    assert all(torch.equal(one, states[0]) for one in states)


def test_a_posterior_without_moments_cannot_be_widened() -> None:
    cama, table = custom(Meanless)
    assert np.isfinite(cama.predict_proba(table, do=None)).all()
    with pytest.raises(NotImplementedError, match=r"widen and refine need the mean and variance of q\(m \| x\), and"):
        cama.predict_proba(table, do=None, widen=2.0)
    with pytest.raises(NotImplementedError, match=r"predict: refine_z needs the mean and variance of q\(m \| x\)"):
        cama.predict_proba(table, do=None, refine_z=2)
    assert np.isfinite(cama.predict_proba(table, do={"m": 0.0}, refine_z=2)).all()


@pytest.mark.parametrize(
    ("m", "budget", "message"),
    [
        ({}, {"widen": 0.0}, r"predict\(widen=0.0\): expected a number above 0, finite"),
        ({}, {"widen": float("inf")}, r"predict\(widen=inf\): expected a number above 0, finite"),
        ({}, {"refine": 2}, r"an m that is inferred, and here it is given \('auto' is do\(m=0\) until"),
        ({}, {"refine": -1}, r"predict\(refine=-1\): expected a whole number of at least 0"),
        ({}, {"refine_z": 2.5}, r"predict\(refine_z=2.5\): expected a whole number of at least 0"),
        ({}, {"refine_z": "5"}, r"predict\(refine_z='5'\): expected a whole number of at least 0"),
        ({}, {"samples": True}, r"predict\(samples=True\): expected a whole number of at least 1"),
        ({}, {"m_samples": 2.5}, r"predict\(m_samples=2.5\): expected a whole number of at least 1"),
        ({}, {"power": "0.5"}, r"predict\(power='0.5'\): expected a number above 0, at most 1"),
        ({}, {"power": None}, r"predict\(power=None\): expected a number above 0, at most 1"),
        ({}, {"power": float("nan")}, r"predict\(power=nan\): expected a number above 0, at most 1"),
        ({"scope": "dataset"}, {"widen": 2.0}, r"predict: widen and refine are for one manipulation of scope row"),
        ({"scope": "dataset"}, {"refine": 1}, r"predict: widen and refine are for one manipulation of scope row"),
        ({}, {"refine_z": -1}, r"predict\(refine_z=-1\): expected a whole number of at least 0"),
        ({}, {"power": 0.0}, r"predict\(power=0.0\): expected a number above 0, at most 1"),
        ({}, {"power": 1.5}, r"predict\(power=1.5\): expected a number above 0, at most 1"),
        (None, {"refine": 1}, r"predict: widen and refine are for one manipulation of scope row"),
    ],
)
def test_budgets_that_cannot_be_spent_are_errors(m: Any, budget: dict[str, Any], message: str) -> None:
    spec = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"], "latents": {"m": m}}
    cama = build(spec, hidden=4).fit({"y": [0, 1, 0, 1], "x": [0.0, 1.0, 2.0, 3.0]}, **QUICK)
    with pytest.raises(ValueError, match=message):
        cama.predict_proba({"x": [1.0]}, **budget)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    cama, _, table = some(4)
    found = cama.predict_proba(table, samples=np.int64(3), refine_z=np.int32(2), power=np.float32(0.5))
    np.testing.assert_array_equal(found, cama.predict_proba(table, samples=3, refine_z=2, power=0.5))


def test_a_climb_is_freed() -> None:
    cama, _, _ = some(4)
    passed: list[weakref.ref[Tensor]] = []

    def joint(z: Tensor) -> Tensor:
        grown = z.exp()  # whose derivative is itself: what is saved is what was computed
        passed.append(weakref.ref(grown))
        return (2 * z - grown).sum(-1)

    best = _gradient_ascent(cama, joint, torch.zeros(3, 2), 40, 0.1)
    torch.testing.assert_close(best, torch.full((3, 2), 2.0).log(), rtol=0, atol=0.02)
    gc.collect()
    assert not any(found() is not None for found in passed)


def test_inference_mode_may_be_on() -> None:
    cama, _, table = some(4)
    care: dict[str, Any] = {"refine": 2, "refine_z": 2}
    with torch.inference_mode():
        found = cama.predict_proba(table, **care)
    np.testing.assert_array_equal(found, cama.predict_proba(table, **care))


def test_without_z_there_is_none_to_refine() -> None:
    spec = {
        "target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"], "latents": {"z": None},
    }  # fmt: skip
    cama = build(spec, hidden=4).fit({"y": [0, 1, 0, 1], "x": [0.0, 1.0, 2.0, 3.0]}, **QUICK)
    with pytest.raises(ValueError, match="predict: refine_z is for a graph with the latent z"):
        cama.predict_proba({"x": [1.0]}, refine_z=1)
