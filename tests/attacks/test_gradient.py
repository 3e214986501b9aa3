"""FGSM and PGD: beside Foolbox's, where they may go, what they find, what they refuse."""

import functools
import itertools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyro_cama.attacks.gradient import fgsm, pgd

NORMS = ["linf", "l2"]


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
