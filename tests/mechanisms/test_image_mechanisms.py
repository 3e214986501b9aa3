"""Mechanisms of images: against scipy and torchvision, inverses, gradients, units; and values between pixels."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from scipy.ndimage import convolve, map_coordinates
from torch import Tensor
from torchvision.transforms import functional as vision  # type: ignore[import-untyped]

from pyro_cama import GraphError, build
from pyro_cama.graph.nodes import Node
from pyro_cama.image_manipulations import manipulate
from pyro_cama.likelihoods import MIN_PROBABILITY
from pyro_cama.mechanisms.blur import Blur
from pyro_cama.mechanisms.composed import Composed, one_after_another
from pyro_cama.mechanisms.field import Field
from pyro_cama.mechanisms.image import ImageMechanism, moved
from pyro_cama.mechanisms.intensity import Intensity
from pyro_cama.mechanisms.registry import mechanism_named
from pyro_cama.mechanisms.warp import Warp
from pyro_cama.networks.resampling import pixel_grid, sample_grid
from tests.helpers.precision import in_double

SHAPES = [(1, 6, 6), (3, 5, 7), (2, 8, 3)]
NAMES = ["warp", "blur", "field", "intensity", "warp+blur+intensity", "warp+intensity", "intensity+field+warp"]

OF_IMAGES = "blur, colour, field, illumination, intensity, noise, overlay, warp"


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with in_double():
        yield


def node(shape: tuple[int, ...]) -> Node:
    return Node("i", "image", shape=shape)


def named(name: str) -> ImageMechanism:
    found = mechanism_named(name, "row", "here")
    assert isinstance(found, ImageMechanism)
    return found


def typical(mechanism: ImageMechanism, *rows: int, scale: float = 1.0) -> Tensor:
    """Random theta of usual size."""
    return torch.randn(*rows, mechanism.numbers) * mechanism.prior_scale(node((1, 6, 6))).double() * scale


def raw(value: float, limit: float) -> float:
    """The number whose limited value is the given one."""
    return limit * math.atanh(value / limit)


def smooth(rows: int, side: int = 40) -> Tensor:
    """A few wide blobs in the middle of each image, ``(rows, 2, side, side)``."""
    at = pixel_grid(torch.zeros(1, side, side))
    centres = 0.5 * torch.rand(rows, 2, 3, 2) - 0.25
    distance = (at - centres[..., None, None, :]).square().sum(-1)
    return (-distance / (2 * 0.15**2)).exp().sum(2) / 3


def shown(image: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of one image ``(C, H, W)`` at points ``(..., 2)`` of the plane, 0 outside, by scipy."""
    channels, height, width = image.shape
    half = max(height, width) / 2
    column, row = points[..., 0] * half + (width - 1) / 2, points[..., 1] * half + (height - 1) / 2
    at = np.stack([row.numpy(), column.numpy()])
    maps = [map_coordinates(image[c].numpy(), at, order=1, mode="grid-constant") for c in range(channels)]
    return torch.from_numpy(np.stack(maps))


# the grid and the values between pixels ------------------------------------------------------------------------------


def test_pixels_are_square_and_the_longer_side_runs_from_minus_one_to_one() -> None:
    grid = pixel_grid(torch.zeros(1, 2, 4))
    x, y = torch.tensor([-0.75, -0.25, 0.25, 0.75]), torch.tensor([-0.25, 0.25])
    torch.testing.assert_close(grid, torch.stack([x.expand(2, 4), y[:, None].expand(2, 4)], -1))
    assert pixel_grid(torch.zeros(3, 1, 1)).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("shape", SHAPES)
def test_look_up_is_bilinear_and_zero_outside(shape: tuple[int, ...]) -> None:
    image, points = torch.rand(shape), 3 * torch.rand(4, 9, 2) - 1.5
    torch.testing.assert_close(sample_grid(image, points), shown(image, points), atol=1e-12, rtol=0)
    torch.testing.assert_close(sample_grid(image, pixel_grid(image)), image, atol=1e-12, rtol=0)
    assert not sample_grid(image, torch.full((4, 9, 2), 2.0)).any()


@st.composite
def leads(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two leading shapes that broadcast."""
    whole = draw(st.lists(st.integers(1, 3), max_size=3))
    parts = []
    for _ in range(2):
        own = [size if draw(st.booleans()) else 1 for size in whole]
        parts.append(tuple(own[draw(st.integers(0, len(own))) :]))
    return parts[0], parts[1]


@settings(max_examples=60)
@given(leads(), st.sampled_from(SHAPES), st.integers(0, 99))
def test_look_up_broadcasts_as_a_loop_would(
    leading: tuple[tuple[int, ...], tuple[int, ...]], shape: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    images, grid = torch.rand(*leading[0], *shape), 2 * torch.rand(*leading[1], 4, 3, 2) - 1
    found = sample_grid(images, grid)
    lead = torch.broadcast_shapes(*leading)
    assert found.shape == (*lead, shape[0], 4, 3)
    images, grid = images.expand(*lead, *shape), grid.expand(*lead, 4, 3, 2)
    for i in itertools.product(*(range(size) for size in lead)):
        torch.testing.assert_close(found[i], shown(images[i], grid[i]), atol=1e-12, rtol=0)


def test_a_grid_a_row_serves_all_classes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grids = []
    original = torch.nn.functional.grid_sample

    def counted(images: Tensor, grid: Tensor, **options: Any) -> Tensor:
        grids.append(len(grid))
        return original(images, grid, **options)

    monkeypatch.setattr("pyro_cama.networks.resampling.F.grid_sample", counted)
    Warp().push(torch.rand(2, 10, 5, 1, 6, 6), typical(Warp(), 2, 1, 5))
    Warp().push(torch.rand(2, 10, 5, 1, 6, 6), torch.zeros(6))
    assert grids == [2 * 5, 1]


# warp ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_warp_is_the_affine_map_it_says(shape: tuple[int, ...]) -> None:
    """Every pixel p shows the clean image where A u + t = p; the inverse shows what p moved to."""
    image, theta = torch.rand(shape), typical(Warp(), scale=1.5)
    right, down, turn, widen, heighten, shear = (
        float(v) if limit == math.inf else limit * math.tanh(v / limit)
        for v, limit in zip(theta.tolist(), (2.0, 2.0, math.inf, 1.5, 1.5, 2.0), strict=True)
    )
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ torch.tensor([[math.exp(widen), shear], [0.0, math.exp(heighten)]])
    offset = torch.tensor([right, down])
    grid = pixel_grid(image)
    back = (grid - offset) @ torch.linalg.inv(matrix).T
    torch.testing.assert_close(Warp().push(image, theta), shown(image, back), atol=1e-10, rtol=0)
    torch.testing.assert_close(
        Warp().invert(image, theta, None), shown(image, grid @ matrix.T + offset), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 2), (-2, 1)])
def test_a_shift_by_whole_pixels_is_roll(shape: tuple[int, ...], right: int, down: int) -> None:
    image = torch.rand(4, *shape)
    half = max(shape[1:]) / 2
    theta = torch.tensor([raw(right / half, 2.0), raw(down / half, 2.0), 0.0, 0.0, 0.0, 0.0])
    expected = image.roll((down, right), (2, 3))
    for dim, by in ((2, down), (3, right)):  # what rolled in from the other side comes from outside the frame
        side = expected.shape[dim]
        expected.narrow(dim, 0 if by > 0 else side + by, abs(by)).zero_()
    torch.testing.assert_close(Warp().push(image, theta), expected, atol=1e-12, rtol=0)
    described = Warp().describe(theta, node(shape), {})
    assert described["right"] == pytest.approx(right)
    assert described["down"] == pytest.approx(down)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [20.0, -65.0, 180.0])
def test_a_turn_is_torchvisions_rotation(shape: tuple[int, ...], degrees: float) -> None:
    """Of images that are not square too, and without shear; torchvision turns counter-clockwise."""
    images = torch.rand(4, *shape)
    theta = torch.tensor([0.0, 0.0, math.radians(degrees), 0.0, 0.0, 0.0])
    expected = vision.rotate(images, -degrees, interpolation=vision.InterpolationMode.BILINEAR)
    torch.testing.assert_close(Warp().push(images, theta), expected, atol=1e-6, rtol=0)
    assert Warp().describe(theta, node(shape), {})["degrees"] == pytest.approx(-degrees)


@pytest.mark.parametrize(
    ("place", "kind"), [(2, "rotation"), (5, "shear"), (1, "vertical_shift"), (0, "horizontal_shift")]
)
def test_what_is_described_is_what_manipulate_is_asked_for(place: int, kind: str) -> None:
    images, theta = smooth(3), torch.zeros(6)
    theta[place] = 0.3
    described = Warp().describe(theta, node((1, 40, 40)), {})
    amount = {
        "rotation": described["degrees"],
        "shear": math.degrees(math.atan(described["shear"])),
        "vertical_shift": described["down"] / 40,
        "horizontal_shift": described["right"] / 40,
    }[kind]
    inside = (..., slice(12, 28), slice(12, 28))  # at the edges one fills with zeros, the other with the border
    expected = manipulate(images, kind, amount=amount)
    torch.testing.assert_close(Warp().push(images, theta)[inside], expected[inside], rtol=0, atol=0.02)
    assert (images - expected)[inside].abs().max() > 0.1


def test_a_quarter_turn_of_a_square_is_clockwise_and_exact() -> None:
    images = torch.rand(4, 2, 6, 6)
    theta = torch.tensor([0.0, 0.0, math.pi / 2, 0.0, 0.0, 0.0])
    torch.testing.assert_close(Warp().push(images, theta), images.rot90(-1, (2, 3)), atol=1e-12, rtol=0)


def test_widening_is_torchvisions_scale() -> None:
    images = torch.rand(4, 2, 6, 6)
    log = raw(math.log(1.3), 1.5)
    theta = torch.tensor([0.0, 0.0, 0.0, log, log, 0.0])
    options: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.3, "shear": [0.0, 0.0]}
    expected = vision.affine(images, interpolation=vision.InterpolationMode.BILINEAR, **options)
    torch.testing.assert_close(Warp().push(images, theta), expected, atol=1e-6, rtol=0)
    described = Warp().describe(theta, node((2, 6, 6)), {})
    assert described["width"] == described["height"] == pytest.approx(1.3)


def test_warp_describes_what_it_does() -> None:
    theta = torch.tensor([9.0, -9.0, 0.5, 9.0, -9.0, 9.0])  # beyond every limit
    described = Warp().describe(theta, node((1, 10, 20)), {})
    assert described["right"] == pytest.approx(20.0, rel=1e-3)  # one and a half images is the most
    assert described["down"] == pytest.approx(-20.0, rel=1e-3)
    assert described["degrees"] == pytest.approx(-math.degrees(0.5))
    assert described["width"] == pytest.approx(1 / described["height"])
    assert described["width"] == pytest.approx(math.exp(1.5), rel=1e-3)
    assert described["shear"] == pytest.approx(-2.0, rel=1e-3)
    assert described["change"] == pytest.approx(float((theta / Warp().prior_scale(node((1, 10, 20)))).norm()))


# field and intensity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_field_is_a_shift(shape: tuple[int, ...]) -> None:
    """A pixel shows the clean image at p + d: d to the right moves the image left."""
    image = torch.rand(3, *shape)
    pixel = raw(2 / max(shape[1:]), 0.6)
    theta = torch.cat([torch.full((16,), pixel), torch.zeros(16)])
    expected = torch.cat([image[..., 1:], torch.zeros_like(image[..., :1])], -1)
    torch.testing.assert_close(Field().push(image, theta), expected, atol=1e-12, rtol=0)


def test_a_field_holds_its_knots_values_at_the_knots() -> None:
    theta = typical(Field())
    field = Field()._field(theta, 7, 10)
    knots = 0.6 * torch.tanh(theta.reshape(2, 4, 4) / 0.6)
    torch.testing.assert_close(field[::2, ::3].movedim(-1, 0), knots, atol=1e-12, rtol=0)
    image = torch.rand(2, 7, 10)
    torch.testing.assert_close(Field().push(image, theta), shown(image, pixel_grid(image) + field), atol=1e-12, rtol=0)


def test_the_inverse_of_a_field_finds_where_each_pixel_came_from() -> None:
    """The inverse of an image of coordinates is a map q with q + d(q) = p."""
    grid = pixel_grid(torch.zeros(1, 30, 30))
    theta = typical(Field(), 5, scale=0.5)
    came = Field().invert(grid.movedim(-1, 0), theta, None).movedim(-3, -1)
    field = Field()._field(theta, 30, 30).movedim(-1, -3)
    back = came + sample_grid(field, came).movedim(-3, -1)  # a pixel is 0.067
    inside = slice(8, -8)
    torch.testing.assert_close(back[:, inside, inside], grid[inside, inside].expand(5, -1, -1, -1), atol=0.02, rtol=0)
    assert (came - grid)[:, inside, inside].abs().amax((1, 2, 3)).min() > 0.05


def test_blur_is_a_poisson_number_of_passes_of_the_binomial_kernel() -> None:
    image, theta = torch.rand(1, 6, 9), torch.tensor([0.8])
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected, passed = np.zeros((6, 9)), image[0].numpy()
    passes = float(4 * torch.tanh(theta / 4))
    for n in range(30):
        expected += math.exp(-passes) * passes**n / math.factorial(n) * passed
        passed = convolve(passed, kernel, mode="reflect")
    np.testing.assert_allclose(Blur().push(image, theta)[0].numpy(), expected, atol=1e-12)


@given(st.floats(-20, 20))
@settings(max_examples=25, deadline=None)
def test_blur_and_its_opposite_undo_one_another_and_keep_the_mean(theta: float) -> None:
    image = torch.rand(3, 2, 7, 5)
    pushed = Blur().push(image, torch.tensor([theta]))
    torch.testing.assert_close(Blur().invert(pushed, torch.tensor([theta]), None), image, atol=1e-8, rtol=0)
    torch.testing.assert_close(pushed.mean((-2, -1)), image.mean((-2, -1)))
    wider = pushed.var() - image.var()
    assert (wider > 0) == (theta < 0) or abs(theta) < 1e-9


def test_blur_is_told_as_the_deviation_of_a_gaussian() -> None:
    variance = 0.3  # square pixels
    dot = torch.zeros(1, 31, 31)
    dot[0, 15, 15] = 1.0
    theta = torch.tensor([raw(2 * variance, 4.0)])
    across = Blur().push(dot, theta)[0].sum(0)
    assert float((across * (torch.arange(31) - 15.0).square()).sum()) == pytest.approx(variance)
    found = Blur().describe(theta, node((1, 31, 31)), {})
    assert found == pytest.approx({"change": math.sqrt(variance), "blur": math.sqrt(variance)})
    assert Blur().describe(-theta, node((1, 31, 31)), {})["blur"] == pytest.approx(-math.sqrt(variance))


def test_intensity_is_gain_and_offset() -> None:
    image, theta = torch.rand(5, 3, 2, 2), torch.tensor([[-0.4, 0.3]] * 5)
    pushed = Intensity().push(image, theta)
    torch.testing.assert_close(pushed, 0.6 * image + 0.3)
    torch.testing.assert_close(Intensity().invert(pushed, theta, None), image)
    assert Intensity().describe(theta[0], node((3, 2, 2)), {}) == pytest.approx(
        {"change": 0.5, "gain": 0.6, "offset": 0.3}
    )


def test_intensity_starts_at_the_moments_of_the_pixels() -> None:
    image, theta = torch.rand(5, 3, 2, 2), torch.tensor([-0.4, 0.3])
    statistics = {"mean": image.mean(), "sd": image.std()}
    seen = Intensity().push(image, theta)
    torch.testing.assert_close(Intensity().guess_from_moments(seen.flatten(), statistics), theta)
    negative, rest, inverted = Intensity().alternatives(theta, statistics)
    torch.testing.assert_close(Intensity().push(image, negative), 2 * seen.mean() - seen)
    assert not rest.any()
    torch.testing.assert_close(Intensity().push(image, inverted), 1 - image)
    double_negative, *_ = Intensity().alternatives(negative, statistics)
    torch.testing.assert_close(double_negative, theta, atol=1e-12, rtol=0)
    both = named("warp+intensity").guess_from_moments(seen.flatten(), statistics)
    torch.testing.assert_close(both, torch.cat([torch.zeros(6), theta]))
    assert named("warp+intensity").guesses
    assert not named("warp+field").guesses
    assert named("warp+field").simulates


def test_a_faded_image_is_not_blown_up() -> None:
    image = torch.rand(5, 1, 2, 2)
    for gain in (-1.0, -1.02, -0.98):
        assert Intensity().invert(image, torch.tensor([gain, 0.0]), None).abs().max() <= 10.0


# all of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_zero_nothing_changes(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mechanism, images = named(name), torch.rand(4, *shape, dtype=dtype)
    tight: dict[str, Any] = {"atol": 20 * torch.finfo(dtype).eps, "rtol": 0.0}
    normal = dist.Normal(images, torch.rand(4, 1, 1, 1, dtype=dtype) + 0.1)
    on = dist.Bernoulli(probs=images.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY), validate_args=False)
    for zero in (torch.zeros(mechanism.numbers, dtype=dtype), torch.zeros(4, mechanism.numbers, dtype=dtype)):
        torch.testing.assert_close(mechanism.push(images, zero), images, **tight)
        torch.testing.assert_close(mechanism.invert(images, zero, None), images, **tight)
        torch.testing.assert_close(mechanism.transform(normal, zero).mean, normal.mean, **tight)
        assert torch.equal(mechanism.transform(normal, zero).stddev, normal.stddev)
        torch.testing.assert_close(mechanism.transform(on, zero).mean, on.probs, **tight)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_pushed_comes_back(name: str) -> None:
    mechanism, images = named(name), smooth(20)
    theta = typical(mechanism, 20, scale=0.4)
    pushed = mechanism.push(images, theta)
    back = mechanism.invert(pushed, theta, None)
    inside = slice(12, -12)  # what comes from outside the frame is lost
    gap = (back - images)[..., inside, inside].abs().amax((1, 2, 3))
    away = (pushed - images)[..., inside, inside].abs().amax((1, 2, 3))
    assert gap.max() < 0.15 * images.max()  # twice interpolated
    assert gap.mean() < 0.35 * away.mean()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_of_theta_has_a_gradient_at_zero(name: str, shape: tuple[int, ...]) -> None:
    mechanism, image = named(name), torch.rand(shape)
    for change in (mechanism.push, lambda x, theta: mechanism.invert(x, theta, None)):
        theta = torch.zeros(mechanism.numbers, requires_grad=True)
        (change(image, theta) * torch.randn(shape)).sum().backward()
        assert theta.grad is not None
        assert theta.grad.isfinite().all()
        assert (theta.grad.abs() > 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_thetas_of_any_size_give_finite_values_and_gradients(name: str) -> None:
    mechanism = named(name)
    for size in (3.0, 30.0, 300.0):
        theta = (torch.randn(8, mechanism.numbers) * size).requires_grad_(True)
        images = torch.rand(8, 3, 5, 7)
        for out in (mechanism.push(images, theta), mechanism.invert(images, theta, None)):
            assert out.isfinite().all()
            (slope,) = torch.autograd.grad(out.sum(), theta)
            assert slope.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_theta_broadcasts_against_images(name: str) -> None:
    """Draws and rows of theta, draws, classes and rows of images: as one at a time."""
    mechanism, images = named(name), torch.rand(2, 3, 4, 1, 6, 6)
    theta = typical(mechanism, 2, 1, 4)
    pushed, back = mechanism.push(images, theta), mechanism.invert(images, theta, None)
    assert pushed.shape == back.shape == images.shape
    for s, c, r in itertools.product(range(2), range(3), range(4)):
        one = mechanism.push(images[s, c, r], theta[s, 0, r])
        torch.testing.assert_close(pushed[s, c, r], one, atol=1e-12, rtol=0)
        one = mechanism.invert(images[s, c, r], theta[s, 0, r], None)
        torch.testing.assert_close(back[s, c, r], one, atol=1e-12, rtol=0)
    rows = torch.rand(4, 1, 6, 6)
    assert mechanism.invert(rows, theta, None).shape == (2, 1, 4, 1, 6, 6)


@pytest.mark.parametrize("name", NAMES)
def test_simulated_thetas(name: str) -> None:
    mechanism, image = named(name), node((1, 6, 6))
    small, large = (mechanism.simulate((2000,), image, scale) for scale in (0.5, 1.0))
    assert small.shape == large.shape == (2000, mechanism.numbers)
    assert mechanism.simulate((2, 3), image, 1.0).shape == (2, 3, mechanism.numbers)
    ratio = large.std(0) / mechanism.prior_scale(image)
    assert (ratio > 0.8).all()
    assert (ratio < 1.2).all()  # prior_scale is the standard deviation
    torch.testing.assert_close(large.mean(0), torch.zeros(mechanism.numbers), atol=0.1, rtol=0)
    torch.testing.assert_close(small.std(0), 0.5 * large.std(0), atol=0.0, rtol=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    mechanism, image = named(name), node((3, 5, 7))
    assert mechanism.size(image) == mechanism.numbers == len(mechanism.prior_scale(image))
    assert mechanism.types == ("image",)
    assert not mechanism.in_merge
    assert not mechanism.composes
    resting = mechanism.describe(torch.zeros(mechanism.numbers), image, {})
    assert resting["change"] == 0
    assert mechanism == named(name)
    assert hash(mechanism) == hash(named(name))
    assert len({named(other) for other in NAMES}) == len(NAMES)


def test_a_composition_acts_in_order_and_splits_theta() -> None:
    mechanism = named("intensity+warp")
    assert isinstance(mechanism, Composed)
    images, theta = torch.rand(4, 1, 6, 6), torch.cat([typical(Intensity(), 4), typical(Warp(), 4)], -1)
    expected = Warp().push(Intensity().push(images, theta[:, :2]), theta[:, 2:])
    torch.testing.assert_close(mechanism.push(images, theta), expected)
    other = named("warp+intensity").push(images, torch.cat([theta[:, 2:], theta[:, :2]], -1))
    assert not torch.allclose(other, expected)  # an offset that is not moved fills the frame
    back = Intensity().invert(Warp().invert(images, theta[:, 2:], None), theta[:, :2], None)
    torch.testing.assert_close(mechanism.invert(images, theta, None), back)

    image = node((1, 6, 6))
    described = mechanism.describe(theta[0], image, {})
    parts = (Intensity().describe(theta[0, :2], image, {}), Warp().describe(theta[0, 2:], image, {}))
    assert described.pop("change") == pytest.approx(math.hypot(*(part.pop("change") for part in parts)))
    assert described == parts[0] | parts[1]
    statistics = {"mean": images.mean()}
    found = mechanism.alternatives(theta[0], statistics)
    for both, own in zip(found, Intensity().alternatives(theta[0, :2], statistics), strict=True):
        assert torch.equal(both, torch.cat([own, theta[0, 2:]]))
    assert not named("warp+field").alternatives(torch.zeros(38), {})


def test_the_mean_moves_and_the_noise_stays() -> None:
    theta = typical(Warp(), 4)
    images = torch.rand(4, 3, 5, 7)
    normal = Warp().transform(dist.Normal(images, torch.tensor(0.3)), theta)
    torch.testing.assert_close(normal.mean, Warp().push(images, theta))
    assert torch.equal(normal.stddev, torch.full_like(images, 0.3))
    on = Warp().transform(dist.Bernoulli(probs=images), theta)
    expected = Warp().push(images, theta).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    torch.testing.assert_close(on.mean, expected)
    assert on.mean.min() == MIN_PROBABILITY  # outside the frame
    bright = Intensity().transform(dist.Bernoulli(probs=images), torch.tensor([5.0, 5.0]))
    assert (bright.mean == 1 - MIN_PROBABILITY).all()
    assert bright.log_prob(torch.zeros(())).isfinite().all()
    with pytest.raises(GraphError, match=r"needs a Bernoulli or normal likelihood, found Laplace.*override transform"):
        moved(dist.Laplace(images, torch.ones(())), lambda mean: mean)


# by name -------------------------------------------------------------------------------------------------------------


def graph(mechanism: str, kind: str = "image") -> dict[str, Any]:
    child: dict[str, Any] = {"type": kind} | ({"shape": [1, 4, 4]} if kind == "image" else {})
    return {
        "target": "y",
        "nodes": {"y": "binary", "i": child},
        "edges": ["y -> i"],
        "latents": {"m": {"mechanism": {"i": mechanism}}},
    }


@pytest.mark.parametrize(
    ("mechanism", "kind", "message"),
    [
        ("wrap", "image", r"latent 'm', child 'i': unknown mechanism 'wrap', expected one of .*did you mean 'warp'\?"),
        ("warp+wrap", "image", r"unknown mechanism 'wrap'.*build\(mechanisms=\{'i': \.\.\.\}\)"),
        ("warp+", "image", r"unknown mechanism ''"),
        ("warp+concat", "image", rf"found 'warp\+concat'; expected only {OF_IMAGES}"),
        ("affine+rate", "continuous", rf"found 'affine\+rate'; expected only {OF_IMAGES}"),
        ("warp", "continuous", r"child 'i': Warp serves image, found type continuous; expected one of \['affine', 'co"),
        ("warp+field", "count", r"ComposedImages serves image, found type count; expected one of \['concat', 'rate'\]"),
        ("auto", "image", r"child 'i': found dim 4 and mechanism auto, which has 43 numbers.*expected dim: 43 or more"),
        ("auto", "continuous", r"ComposedImages serves image, found type continuous"),
        ("affine", "image", r"Affine serves continuous, found type image; expected one of .*'warp'"),
    ],
)
def test_mechanisms_that_do_not_fit_are_errors(mechanism: str, kind: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build(graph(mechanism, kind))


def test_one_that_moves_pixels_says_which_of_them_are_known() -> None:
    with pytest.raises(TypeError, match="Silent: found moves = False; expected moves = True and a known, or neither"):

        class Silent(Intensity):
            def known(self, known: Tensor, theta: Tensor) -> Tensor:
                return known * 0.0

    with pytest.raises(TypeError, match="Idle: found moves = True"):

        class Idle(Intensity):
            moves = True


def test_auto_is_what_images_may_need_and_its_families_are_those_of_its_parts() -> None:
    spec = graph("auto")
    spec["latents"]["m"]["dim"] = 43
    manipulation = build(spec, hidden=4).manipulation
    families = manipulation.families()
    assert [*families] == ["warp", "blur", "even illumination", "illumination"]
    assert manipulation.can_sleep
    assert [int(acts.sum()) for acts in families.values()] == [6, 1, 2, 36]
    assert torch.stack([*families.values()]).any(0).all()
    assert not (families["even illumination"] & ~families["illumination"]).any()


def test_numbers_of_theta_at_rest_stay_at_0() -> None:
    torch.manual_seed(0)
    manipulation = build(graph("warp+intensity"), hidden=4).manipulation
    acts, m = manipulation.families()["intensity"], torch.randn(50, 4)
    with manipulation.at_rest(~acts):
        optimiser = torch.optim.Adam(manipulation.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            (manipulation(m) - 1.0).square().sum().backward()
            optimiser.step()
        theta = manipulation(m)
    assert (theta[:, ~acts] == 0).all()
    assert (theta[:, acts] != 0).all()
    (manipulation(m) - 1.0).square().sum().backward()
    optimiser.step()
    assert (manipulation(m)[:, ~acts] != 0).any()


@pytest.mark.parametrize("name", ["intensity", "illumination", "warp+intensity", "warp+blur+illumination+overlay"])
def test_a_guess_is_of_the_numbers_that_are_said_to_be_guessed(name: str) -> None:
    mechanism, node = named(name), Node("i", "image", shape=(1, 8, 8))
    statistics = {"mean": torch.tensor(0.3), "sd": torch.tensor(0.1)}
    theta = mechanism.guess_from_moments(torch.rand(500), statistics)
    assert theta is not None
    assert theta.nonzero().flatten().tolist() == [*range(mechanism.size(node))[mechanism.guessed(mechanism.size(node))]]


@pytest.mark.parametrize("name", [*NAMES, " warp + intensity ", "concat"])
def test_mechanisms_that_fit(name: str) -> None:
    cama = build(graph(name), hidden=4)
    (group,) = (group for group in cama.model.groups if group.nodes == ("i",))
    assert group.mechanism is not None
    assert group.theta_size == (0 if name == "concat" else named(name).numbers)
    assert group.mechanism == (mechanism_named(name, "row", "") if name == "concat" else named(name))


def test_each_part_of_a_sum_has_its_own_ranges() -> None:
    """A sum's intervals were cut at 0 by illumination, whose spreads alone end there."""
    auto = named("auto")
    least = {name: auto.range_of(name)[0] for name in ("right", "shear", "blur", "gain", "gain varies by", "width")}
    assert least == {n: 0.0 if n in ("gain varies by", "width") else -math.inf for n in least}


def test_what_two_parts_name_alike_is_told_apart() -> None:
    both = named("intensity+illumination")
    theta = torch.zeros(both.size(node((1, 6, 6))))
    theta[0], theta[3] = -0.5, 0.2
    found = both.describe(theta, node((1, 6, 6)), {})
    assert found["gain of part 1"] == pytest.approx(0.5)
    assert found["offset of part 2"] == pytest.approx(0.2)
    assert both.range_of("gain of part 2") == (-math.inf, math.inf)
    assert both.range_of("gain varies by") == (0.0, math.inf)
    assert {*named("warp+warp").families(12)} == {"warp of part 1", "warp of part 2"}


def test_a_sum_within_a_sum_acts_in_its_place() -> None:
    """As under two manipulations of one image; noise draws, and yet a shift comes before a negative."""
    nested, flat = (
        one_after_another([named("warp+noise"), named("intensity")], node((1, 6, 6))),
        named("warp+noise+intensity"),
    )
    theta = torch.zeros(9)
    theta[0], theta[7], theta[8] = 0.5, -2.0, 1.0
    clean = dist.Normal(torch.rand(1, 6, 6), torch.ones(()))
    found = nested.transform(clean, theta)
    assert torch.allclose(found.mean, flat.transform(clean, theta).mean)
    assert torch.allclose(found.mean, nested.push(clean.loc, theta))
    assert torch.equal(found.mean[..., :, 0], torch.ones(1, 6))  # what came from outside is black, and then white


@pytest.mark.parametrize("mechanism", ["colour", "warp+colour"])
def test_one_channel_has_no_colour(mechanism: str) -> None:
    raw: dict[str, Any] = {
        "target": "y", "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8]}}, "edges": ["y -> i"],
        "latents": {"m": {"dim": 8, "mechanism": mechanism}},
    }  # fmt: skip
    with pytest.raises(GraphError, match=r"child 'i': found Colour, which has nothing to move in .*\[1, 8, 8\]"):
        build(raw, hidden=8, device="cpu")
    raw["nodes"]["i"]["shape"] = [3, 8, 8]
    build(raw, hidden=8, device="cpu")


def test_what_hides_pixels_is_last_among_manipulations_too() -> None:
    raw: dict[str, Any] = {
        "target": "y", "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8]}}, "edges": ["y -> i"],
        "latents": {
            "m": {"dim": 8, "mechanism": "overlay", "manipulation": True},
            "light": {"dim": 2, "mechanism": "intensity", "manipulation": True},
        },
    }  # fmt: skip
    with pytest.raises(GraphError, match=r"latents 'm', 'light', child 'i': found a part behind one that hides"):
        build(raw, hidden=8, device="cpu")
