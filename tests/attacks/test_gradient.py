"""Adversarial attacks: against foolbox, what they may and may not touch, and a CAMA's own gradients."""

import functools
import itertools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor, nn

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

NORMS = ["linf", "l2"]
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


def images(rows: int = 12) -> tuple[Tensor, Tensor]:
    """Small images in [0, 1], and codes of four classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 2, 4, 4, generator=generator), torch.arange(rows) % 4


@functools.cache
def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 6, 3), nn.SiLU(), nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4)
    return nn.Sequential(*layers).to(dtype).eval()


def loss(logits: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(logits(x), y, reduction="none")


def length(offset: Tensor) -> Tensor:
    return offset.flatten(1).norm(dim=1)


def attack(name: str, **options: Any) -> Callable[..., Tensor]:
    if name == "fgsm":
        return functools.partial(fgsm, **options)
    return functools.partial(pgd, **{"steps": 6, "starts": 2, **options})


# Foolbox (Rauber et al. 2017, 2020) as reference.


@pytest.fixture(scope="module")
def foolbox() -> Any:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports GitPython, which wants a git
    with warnings.catch_warnings():
        # "Please import `gaussian_filter` from the `scipy.ndimage` namespace"
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("foolbox", exc_type=ImportError)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.03, 0.3, 2.0])
def test_fgsm_is_that_of_foolbox(foolbox: Any, norm: str, eps: float) -> None:
    x, y = images()
    reference = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}[norm]()
    expected = reference.run(foolbox.PyTorchModel(net(), bounds=(0, 1)), x, y, epsilon=eps)
    found = fgsm(net(), x, y, eps=eps, norm=norm, bounds=(0.0, 1.0))
    if norm == "linf":
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.equal(found, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("norm", "eps", "step_size"), [("linf", 0.1, 0.015), ("l2", 0.8, 0.1)])
def test_pgd_is_that_of_foolbox(foolbox: Any, norm: str, eps: float, step_size: float, dtype: torch.dtype) -> None:
    x, y = images()
    x = x.to(dtype)
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    reference = kind(abs_stepsize=step_size, steps=20, random_start=False)
    expected = reference.run(foolbox.PyTorchModel(net(dtype), bounds=(0, 1)), x, y, epsilon=eps)
    options: dict[str, Any] = {"eps": eps, "norm": norm, "step_size": step_size, "bounds": (0.0, 1.0)}
    last = pgd(net(dtype), x, y, steps=20, keep="last", **options)
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-6)
    worst = pgd(net(dtype), x, y, steps=20, **options)
    assert bool((loss(net(dtype), worst, y) >= loss(net(dtype), last, y)).all())


# Where they may go.


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of any unit and shape, a mask, bounds, some of them violated, and an eps of each feature or one."""
    rows, shape = draw(st.integers(1, 4)), draw(st.sampled_from([(1,), (5,), (2, 3), (2, 2, 2)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    norm = draw(st.sampled_from(NORMS))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e3]))
    x = scale * torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
    eps: float | Tensor = scale * draw(st.sampled_from([0.0, 0.01, 1.0, 30.0]))
    if norm == "linf" and draw(st.booleans()):
        eps = eps * torch.rand(shape, generator=generator, dtype=torch.float64).round(decimals=1)
    leads = [None, shape, (rows, *shape), (rows, *[1] * len(shape)), (1,)]
    lead = draw(st.sampled_from(leads))
    low = -scale * torch.rand(shape[-1:], generator=generator, dtype=torch.float64)
    return {
        "name": draw(st.sampled_from(["fgsm", "pgd"])),
        "x": x,
        "y": torch.randint(0, 3, (rows,), generator=generator),
        "weights": torch.randn(x[0].numel(), 3, generator=generator, dtype=torch.float64) / scale,
        "eps": eps,
        "norm": norm,
        "mask": None if lead is None else torch.rand(lead, generator=generator) < 0.6,
        "bounds": draw(st.sampled_from([None, (-scale, scale), (low, 2 * scale), (-torch.inf, low)])),
    }


@given(cases())
@settings(max_examples=150)
def test_ball_bounds_and_mask_hold(case: dict[str, Any]) -> None:
    x, y, weights, eps, mask, bounds = (case[key] for key in ("x", "y", "weights", "eps", "mask", "bounds"))
    before = x.clone()
    run = attack(case["name"], eps=eps, norm=case["norm"], mask=mask, bounds=bounds)
    found = run(lambda z: (z.flatten(1) @ weights).tanh() * 3, x, y)
    assert torch.equal(x, before)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert found.data_ptr() != x.data_ptr()
    offset = found - x
    far = torch.as_tensor(eps, dtype=x.dtype).expand(x.shape[1:])
    assert torch.equal(found[:, far == 0], x[:, far == 0])
    rounding = 1e-12 * x.abs().max()
    if case["norm"] == "linf":
        assert bool((offset.abs() <= far + rounding).all())
    else:
        assert bool((length(offset) <= eps * (1 + 1e-12) + rounding).all())
    if mask is not None:
        kept = ~mask.expand(x.shape)
        assert torch.equal(found[kept], x[kept])
    if bounds is not None:
        low, high = (torch.as_tensor(b, dtype=x.dtype) for b in bounds)
        assert bool((found >= torch.minimum(low, x)).all())
        assert bool((found <= torch.maximum(high, x)).all())


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero_changes_no_bit(name: str, norm: str) -> None:
    x, y = torch.tensor([[-0.0, 0.1, 1e-40], [3.0, -7.0, 1e30]]), torch.tensor([0, 1])
    found = attack(name, eps=0.0, norm=norm, bounds=(0.0, 1.0))(lambda z: z[:, :2].tanh(), x, y)
    assert np.array_equal(found.numpy().view(np.int32), x.numpy().view(np.int32))


@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_counts_only_what_may_move(norm: str) -> None:
    x, y = images(6)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 1:3] = True
    found = fgsm(net(), x, y, eps=0.5, norm=norm, mask=mask)
    torch.testing.assert_close(length(found - x), torch.full((6,), 0.5 * (2.0 if norm == "linf" else 1.0)))


def test_an_eps_of_each_feature() -> None:
    x, y = torch.zeros(3, 4), torch.tensor([0, 1, 0])
    eps = torch.tensor([0.1, 0.0, 2.0, 0.5])
    weights = torch.tensor([[1.0, -1.0, 2.0, -3.0], [-1.0, 2.0, 1.0, 1.0]]).T
    assert torch.equal(fgsm(lambda z: z @ weights, x, y, eps=eps).abs(), eps.expand(3, 4))
    torch.testing.assert_close(pgd(lambda z: z @ weights, x, y, eps=eps).abs(), eps.expand(3, 4))
    slow = pgd(lambda z: z @ weights, x, y, eps=eps, steps=2, step_size=eps / 4)
    torch.testing.assert_close(slow.abs(), (eps / 2).expand(3, 4))


def test_random_starts_fill_the_ball() -> None:
    def flat(z: Tensor) -> Tensor:
        return torch.stack([1e3 * z.sum(1), 0 * z.sum(1)], 1).detach() + 0 * z.sum(1, keepdim=True)

    x, y, mask = torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([True, True, False])
    for norm in NORMS:
        offsets = torch.stack(
            [pgd(flat, x, y, eps=2.0, norm=norm, steps=1, starts=2, mask=mask, seed=seed) for seed in range(250)]
        )
        assert bool((offsets[..., 2] == 0).all())
        sizes = (offsets.abs().amax(-1) if norm == "linf" else offsets.norm(dim=-1)) / 2.0
        sizes = sizes[sizes > 0]  # where x itself was no worse
        assert float((sizes**2).mean()) == pytest.approx(0.5, abs=0.08)  # uniform over two dimensions
        assert float(sizes.max()) > 0.95


# What they find.


@pytest.mark.parametrize("norm", NORMS)
def test_never_weaker_than_x_or_with_fewer_starts(norm: str) -> None:
    x, y = images()
    options: dict[str, Any] = {"eps": 0.3, "norm": norm, "steps": 4, "bounds": (0.0, 1.0)}
    losses = [loss(net(), pgd(net(), x, y, starts=starts, **options), y) for starts in (1, 2, 5)]
    losses = [loss(net(), x, y), *losses]
    assert all(bool((after >= before - 1e-6).all()) for before, after in itertools.pairwise(losses))
    last = loss(net(), pgd(net(), x, y, starts=5, keep="last", **options), y)
    assert bool((losses[-1] >= last - 1e-6).all())


def test_the_worst_of_all_steps_is_kept() -> None:
    def logits(z: Tensor) -> Tensor:  # the loss is highest at 0.3, over which the steps shoot
        return torch.stack([(z[:, 0] - 0.3).abs(), 0 * z[:, 0]], 1)

    x, y = torch.tensor([[0.0], [0.29]]), torch.tensor([0, 0])
    options: dict[str, Any] = {"eps": 1.0, "steps": 3, "step_size": 0.4}
    torch.testing.assert_close(pgd(logits, x, y, **options), torch.tensor([[0.4], [0.29]]))
    torch.testing.assert_close(pgd(logits, x, y, keep="last", **options), torch.tensor([[0.4], [0.69]]))


@pytest.mark.parametrize("norm", NORMS)
def test_a_row_does_not_depend_on_the_rows_beside_it(norm: str) -> None:
    x, y = images(9)
    x, logits = x.double(), net(torch.float64)
    mask = torch.arange(9)[:, None, None, None] % 4 != torch.arange(4)
    options: dict[str, Any] = {"eps": 0.2, "norm": norm, "starts": 3, "steps": 5}
    together = pgd(logits, x, y, mask=mask, **options)
    for part in (torch.tensor([4]), torch.tensor([7, 0, 3])):
        alone = pgd(logits, x[part], y[part], mask=mask[part], **options)
        torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-12)


def test_a_gradient_that_is_not_finite_is_none() -> None:
    def logits(z: Tensor) -> Tensor:  # the slope of a root at 0 is infinite, times 0 no number
        return torch.stack([z[:, 0] + 0 * z[:, 1].sqrt(), -z[:, 0]], 1)

    x, y = torch.tensor([[1.0, 0.0], [2.0, 4.0]]), torch.tensor([0, 1])
    assert fgsm(logits, x, y, eps=0.5).tolist() == [[0.5, 0.0], [2.5, 4.0]]
    found = fgsm(logits, x, y, eps=0.5, norm="l2")
    assert found.tolist() == [[0.5, 0.0], [2.5, 4.0]]
    nowhere = pgd(lambda z: torch.stack([z[:, 0] * torch.nan, z[:, 0]], 1), x, y, eps=0.5)
    assert torch.equal(nowhere, x)


def test_an_entry_that_is_missing_is_left_missing() -> None:
    x, y = torch.tensor([[1.0, torch.nan], [2.0, 4.0]]), torch.tensor([0, 1])
    for norm in NORMS:
        found = pgd(lambda z: torch.stack([z.nan_to_num().sum(1), -z[:, 0]], 1), x, y, eps=0.5, norm=norm)
        assert bool(found[0, 1].isnan())
        assert bool((found[:, 0] != x[:, 0]).all())
        assert bool((found[1] - x[1]).norm() <= 0.5 * 2**0.5 + 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_size_of_the_gradient_does_not_matter(scale: float) -> None:
    x, y, weights = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    found = fgsm(lambda z: (z @ weights) * scale, x, y, eps=1.0, norm="l2")
    torch.testing.assert_close(found, torch.tensor([[-0.6, -0.8]]))


def test_the_caller_keeps_gradients_random_state_and_parameters() -> None:
    x, y = images(4)
    x.requires_grad_()
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 4))
    model[2].weight.grad = torch.ones_like(model[2].weight)
    model[2].bias.requires_grad_(False)
    before = torch.get_rng_state()
    with torch.no_grad():
        first = pgd(model, x, y, eps=0.1, starts=2)
    again = pgd(model, x, y, eps=0.1, starts=2)
    other = pgd(model, x, y, eps=0.1, starts=2, seed=1)
    fgsm(model, x, y, eps=0.1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad
    assert x.grad is None
    assert torch.equal(model[2].weight.grad, torch.ones_like(model[2].weight))
    assert [p.requires_grad for p in model.parameters()] == [True, False]


def test_an_expectation_over_draws() -> None:
    slope = torch.tensor([2.0, 1.0, 0.5, -1.0])

    def noisy(z: Tensor) -> Tensor:
        score = z @ (slope + 4.0 * torch.randn(4))
        return torch.stack([score, -score], 1)

    x, y = torch.zeros(1, 4), torch.tensor([0])
    best = -slope / slope.norm()

    def gap(draws: int) -> float:
        found = torch.cat([fgsm(noisy, x, y, eps=1.0, norm="l2", draws=draws, seed=seed) for seed in range(50)])
        return float((found @ best).mean())

    assert gap(64) > 0.93 > 0.7 > gap(1)
    found = pgd(noisy, x, y, eps=1.0, norm="l2", draws=64, steps=10, keep="last")
    assert float((found @ best).sum()) > 0.95


# What they refuse.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, r"norm='l1'\): expected 'linf' or 'l2'"),
        ({"eps": -0.1}, r"eps=\[-0.1.*\]\): expected finite, at least 0"),
        ({"eps": torch.nan}, r"eps=\[nan\]\): expected finite"),
        ({"eps": torch.ones(3)}, r"eps.shape=\(3,\)\): expected a shape that broadcasts to \(2,\), one row of x"),
        ({"eps": torch.ones(2), "norm": "l2"}, r"eps.shape=\(2,\)\): expected a number under norm='l2'"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"mask.shape=\(3,\)\): expected a shape that broadcasts"),
        ({"mask": torch.ones(2)}, r"mask.dtype=torch.float32\): expected torch.bool"),
        ({"bounds": (0.0, torch.ones(5))}, r"bounds.shape=\(5,\)\): expected a shape that broadcasts"),
        ({"bounds": (1.0, 0.0)}, r"bounds=\[\[1.0, 0.0\]\]\): expected low at most high"),
        ({"draws": 0}, r"draws=0\): expected a whole number of at least 1"),
        ({"mask": np.ones(2, dtype=bool)}, r"type\(mask\)='ndarray'\): expected Tensor"),
        ({"eps": "a"}, r"eps='a'\): expected a number or a tensor"),
        ({"bounds": 1}, r"bounds=1\): expected a pair, \(low, high\)"),
        ({"bounds": (0.0, None)}, r"bounds=None\): expected a number or a tensor"),
        ({"y": torch.tensor([0])}, r"y.shape=\(1,\)\): expected \(4,\), a code for every row of x"),
        ({"y": torch.tensor([0, 1, 3, 0])}, r"y=\[3\]\): expected codes from 0 to 2"),
        ({"y": torch.tensor([0, 1, -1, 0])}, r"y=\[-1\]\): expected codes from 0 to 2"),
        ({"y": torch.ones(4)}, r"y.dtype=torch.float32\): expected integer class codes"),
        ({"y": None}, r"type\(y\)='NoneType'\): expected Tensor"),
        ({"x": torch.ones(4, 2, dtype=torch.long)}, r"x.dtype=torch.int64\): expected floats"),
        ({"logits": lambda z: z[:, 0]}, r"logits\(x\).shape=\(4,\)\): expected \(4, classes\)"),
        ({"logits": lambda z: torch.zeros(4, 3)}, r"logits\): its output has no gradient in x"),
        ({"logits": lambda z: torch.ones(4, 3, requires_grad=True)}, r"logits\): its output has no gradient in x"),
    ],
)  # fmt: skip
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    usual = {"logits": lambda z: z @ torch.ones(2, 3), "x": torch.zeros(4, 2), "y": torch.tensor([0, 1, 2, 0])}
    arguments = {**usual, "eps": 0.1, **options}
    for function in (fgsm, pgd):
        with pytest.raises(ValueError, match=rf"^{function.__name__}\({message}") as raised:
            function(**arguments)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"pgd\(steps=0\): expected a whole number of at least 1"),
        ({"steps": 2.5}, r"pgd\(steps=2.5\): expected a whole number of at least 1"),
        ({"starts": 0}, r"pgd\(starts=0\): expected a whole number of at least 1"),
        ({"step_size": -1.0}, r"pgd\(step_size=\[-1.0\]\): expected finite, at least 0"),
        ({"keep": "best"}, r"pgd\(keep='best'\): expected 'worst' or 'last'"),
    ],
)
def test_what_pgd_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pgd(lambda z: z, torch.zeros(1, 2), torch.tensor([0]), eps=0.1, **options)


def test_no_rows_are_no_error() -> None:
    x, y = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
    assert fgsm(net(), x, y, eps=1.0).shape == (0, 2)
    assert pgd(net(), x, y, eps=1.0).shape == (0, 2)


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
