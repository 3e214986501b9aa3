"""Image manipulations: exact references, then what all kinds promise, then each kind's own, then several at once."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import Generator, Tensor
from torchvision.transforms import functional as vision  # type: ignore[import-untyped]

from pyro_cama.image_manipulations.kinds import KINDS, Kind, expect_kinds, manipulate, manipulate_all
from tests.helpers.gpu import needs_gpu

SPATIAL = ["vertical_shift", "horizontal_shift", "rotation", "scale", "shear"]
SIGNED = [*SPATIAL, "brightness", "contrast"]
FIXED = [kind for kind in KINDS if kind not in SIGNED]
DOUBLE = torch.float64


def images(rows: int = 6, channels: int = 1, height: int = 28, width: int = 28, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.rand(rows, channels, height, width, dtype=dtype, generator=Generator().manual_seed(3))


def smooth(rows: int = 6, side: int = 32) -> Tensor:
    """A broad blob a row, off the centre, black at the border: interpolation hardly changes it."""
    axis = torch.arange(side, dtype=DOUBLE) - (side - 1) / 2
    centre = (torch.rand(rows, 2, 1, dtype=DOUBLE, generator=Generator().manual_seed(5)) - 0.5) * side / 8
    across, down = (-0.5 * ((axis - centre) / (side / 12)).square()).exp().unbind(1)
    return (down[:, :, None] * across[:, None, :])[:, None]


def grey(value: float, rows: int = 20, channels: int = 1, side: int = 28) -> Tensor:
    return torch.full((rows, channels, side, side), value, dtype=DOUBLE)


def centres(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's centre of mass, right and down, in pixels."""
    mass = x.sum((1, 2, 3))
    right = (x.sum((1, 2)) * torch.arange(x.shape[3])).sum(1) / mass
    down = (x.sum((1, 3)) * torch.arange(x.shape[2])).sum(1) / mass
    return right, down


def changed(x: Tensor, y: Tensor) -> Tensor:
    """Which rows."""
    return (x != y).flatten(1).any(1)


# exact references ----------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 33), st.integers(1, 33), st.sampled_from([torch.float32, DOUBLE]))
@settings(max_examples=60)
def test_a_shift_by_whole_pixels_is_roll_with_zeros(
    data: st.DataObject, height: int, width: int, dtype: torch.dtype
) -> None:
    x = images(2, 3, height, width, dtype)
    for kind, side, dim in (("vertical_shift", height, 2), ("horizontal_shift", width, 3)):
        pixels = data.draw(st.integers(-side, side))
        expected = x.roll(pixels, dim)
        expected.narrow(dim, 0 if pixels >= 0 else side + pixels, abs(pixels)).zero_()
        assert torch.equal(manipulate(x, kind, amount=pixels / side), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, DOUBLE])
@pytest.mark.parametrize("side", [1, 7, 28, 32])
def test_quarter_turns_of_a_square_are_rot90(side: int, dtype: torch.dtype) -> None:
    x = images(3, 2, side, side, dtype)
    for quarters in range(-4, 5):
        assert torch.equal(manipulate(x, "rotation", amount=90 * quarters), x.rot90(quarters, (2, 3)))


def test_half_a_pixel_is_the_mean_of_neighbours() -> None:
    x = images()
    before = torch.cat((torch.zeros_like(x[:, :, :1]), x[:, :, :-1]), 2)
    torch.testing.assert_close(manipulate(x, "vertical_shift", amount=0.5 / 28), (x + before) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (19, 30)])
@pytest.mark.parametrize(
    ("kind", "amount", "reference"),
    [
        ("rotation", 33.0, {"angle": -33.0}),  # torchvision turns clockwise
        ("rotation", -121.5, {"angle": 121.5}),
        ("scale", 0.4, {"scale": math.exp(0.4)}),
        ("scale", -0.7, {"scale": math.exp(-0.7)}),
        ("shear", 25.0, {"shear": [25.0, 0.0]}),
        ("shear", -50.0, {"shear": [-50.0, 0.0]}),
    ],
)
def test_affine_kinds_are_those_of_torchvision(
    kind: str, amount: float, reference: Mapping[str, Any], height: int, width: int
) -> None:
    x = images(2, 3, height, width)
    options = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **reference}
    expected = vision.affine(x, interpolation=vision.InterpolationMode.BILINEAR, **options)
    torch.testing.assert_close(manipulate(x, kind, amount=amount), expected, rtol=0, atol=1e-5)


def test_every_row_has_its_own_amount() -> None:
    x = images(5, 2, 20, 31)
    for kind in KINDS:
        if kind in SIGNED:
            amounts = KINDS[kind].typical * torch.tensor([-1.0, 0.3, 0.0, -0.7, 0.9])
            alone = [manipulate(x[i : i + 1], kind, amount=float(amounts[i])) for i in range(5)]
            torch.testing.assert_close(manipulate(x, kind, amount=amounts), torch.cat(alone), rtol=0, atol=1e-12)
    sd = torch.tensor([0.0, 0.5, 1.0, 2.0, 50.0])
    alone = [manipulate(x[i : i + 1], "blur", amount=float(sd[i])) for i in range(5)]
    torch.testing.assert_close(manipulate(x, "blur", amount=sd), torch.cat(alone), rtol=0, atol=1e-12)


def test_formulas() -> None:
    x = images()
    amounts = torch.linspace(-0.9, 0.9, len(x), dtype=DOUBLE)
    a = amounts.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(manipulate(x, "brightness", amount=amounts), (x + a).clamp(0, 1))
    torch.testing.assert_close(manipulate(x, "contrast", amount=amounts), (0.5 + (x - 0.5) * a.exp()).clamp(0, 1))
    assert torch.equal(manipulate(x, "inversion", 1), 1 - x)
    torch.testing.assert_close(manipulate(x, "inversion", 0.3), 0.7 * x + 0.3 * (1 - x))


@pytest.mark.parametrize("sd", [0.4, 1.5, 4.0])
def test_blur_is_the_gaussian_of_scipy_renormalised_at_the_border(sd: float) -> None:
    x = images(2, 3, 17, 28)

    def filtered(y: Tensor) -> Tensor:
        sigma = (0, 0, sd, sd)
        return torch.from_numpy(ndimage.gaussian_filter(y.numpy(), sigma, mode="constant", truncate=40.0))

    expected = filtered(x) / filtered(torch.ones_like(x))
    torch.testing.assert_close(manipulate(x, "blur", sd), expected, rtol=0, atol=1e-12)


# what all kinds promise ----------------------------------------------------------------------------------------------


def test_kinds() -> None:
    assert len(KINDS) == 17
    assert [name for name, kind in KINDS.items() if kind.spatial] == SPATIAL
    assert [name for name, kind in KINDS.items() if kind.signed] == SIGNED
    x = torch.zeros(50, 1, 28, 28, dtype=DOUBLE)
    for bar in (x[:, :, 4:24, 8:11], x[:, :, 4:7, 8:20], x[:, :, 12:15, 8:17]):  # an F
        bar.fill_(1.0)
    for name, kind in KINDS.items():
        assert 0 < kind.typical <= kind.limit
        assert kind.unit
        assert float((manipulate(x, name, seed=0) - x).abs().mean()) > 0.02
        assert torch.equal(manipulate(x, name, seed=0), manipulate(x, name, kind.typical, seed=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_severity_0_changes_no_bit(kind: str, dtype: torch.dtype) -> None:
    x = images(4, 3, 15, 28, dtype)
    same = manipulate(x, kind, 0, seed=1)
    assert torch.equal(same, x)
    assert same.data_ptr() != x.data_ptr()
    assert torch.equal(manipulate(x, kind, amount=0, seed=1), x)
    some = torch.tensor([0.0, KINDS[kind].typical, 0.0, KINDS[kind].typical])
    assert changed(manipulate(x, kind, amount=some, seed=1), x).tolist() == [False, True, False, True]
    assert torch.equal(manipulate_all(x, dict.fromkeys(KINDS, 0)), x)


@given(
    st.sampled_from(list(KINDS)),
    st.floats(0, 1),
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([torch.float16, torch.float32, DOUBLE]),
    st.booleans(),
)
@settings(max_examples=150)
def test_range_shape_and_dtype_hold(
    kind: str, share: float, shape: tuple[int, int, int, int], dtype: torch.dtype, binary: bool
) -> None:
    x = images(*shape, dtype)
    x = x.round() if binary else x
    before = x.clone()
    found = manipulate(x, kind, share * min(KINDS[kind].limit, 10 * KINDS[kind].typical), seed=0)
    assert torch.equal(x, before)
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert bool(((found >= 0) & (found <= 1)).all())
    assert not len(x) or found.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_reached_without_harm(kind: str) -> None:
    x = images(4, 1, 28, 28, torch.float32)
    for severity in (KINDS[kind].limit, 1e-30, 5e-324):
        found = manipulate(x, kind, severity, seed=0)
        assert bool(((found >= 0) & (found <= 1)).all())
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_everything(kind: str) -> None:
    x = images()
    state = torch.get_rng_state()
    first = manipulate(x, kind, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(manipulate(x, kind, seed=4), first)
    assert torch.equal(manipulate(x, kind, seed=np.int64(4)), first)  # type: ignore[arg-type]  # as users have them
    random = kind not in ("inversion", "blur")
    assert torch.equal(manipulate(x, kind, seed=5), first) is not random
    by_generator = [manipulate(x, kind, generator=Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*by_generator)
    generator = Generator().manual_seed(4)
    by_generator = [manipulate(x, kind, generator=generator) for _ in range(2)]
    assert torch.equal(*by_generator) is not random
    torch.manual_seed(4)
    assert torch.equal(manipulate(x, kind), by_generator[0])
    assert torch.equal(manipulate(x, kind), by_generator[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_dtype_changes_no_draw(kind: str) -> None:
    x = images(dtype=torch.float32)
    single, double = manipulate(x, kind, seed=0), manipulate(x.double(), kind, seed=0)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
    half = x.half()
    assert torch.equal(manipulate(half, kind, seed=0), manipulate(half.float(), kind, seed=0).half())


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_the_device_changes_no_draw(kind: str) -> None:
    x = images(50, 3, 28, 28, torch.float32)
    found = manipulate(x.cuda(), kind, seed=0)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), manipulate(x, kind, seed=0), rtol=0, atol=1e-4)
    both = manipulate_all(x.cuda(), {kind: KINDS[kind].typical, "inversion": 0.5}, seed=0, one_of=True)
    expected = manipulate_all(x, {kind: KINDS[kind].typical, "inversion": 0.5}, seed=0, one_of=True)
    torch.testing.assert_close(both.cpu(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("inversion", "blur")])
def test_rows_differ(kind: str) -> None:
    x = images(1).expand(30, -1, -1, -1)
    found = manipulate(x, kind, seed=0)
    assert len(found.flatten(1).unique(dim=0)) == 30


# amounts -------------------------------------------------------------------------------------------------------------


def uniform_p(values: Tensor, severity: float) -> float:
    """Of a test that they are uniform on ±severity."""
    return float(stats.kstest(values.numpy(), stats.uniform(-severity, 2 * severity).cdf).pvalue)


def test_shifts_are_uniform_in_fractions_of_the_sides() -> None:
    x = smooth(1, 32)[:, :, :, 4:28].expand(800, -1, -1, -1)
    right, down = centres(x)
    shifted = {kind: centres(manipulate(x, kind, 0.1, seed=0)) for kind in SPATIAL[:2]}
    moved_right = (shifted["horizontal_shift"][0] - right) / 24
    moved_down = (shifted["vertical_shift"][1] - down) / 32
    assert uniform_p(moved_right, 0.1) > 0.01
    assert uniform_p(moved_down, 0.1) > 0.01
    assert 0.098 < float(moved_down.abs().max()) < 0.101
    # one seed, two kinds: their draws are independent
    assert abs(float(torch.corrcoef(torch.stack((moved_right, moved_down)))[0, 1])) < 0.1
    torch.testing.assert_close(shifted["vertical_shift"][0], right, rtol=0, atol=1e-3)


def test_severity_scales_the_amounts_of_a_seed() -> None:
    x = grey(0.5, rows=500)
    little, more = (manipulate(x, "brightness", s, seed=0)[:, 0, 0, 0] - 0.5 for s in (0.1, 0.3))
    torch.testing.assert_close(3 * little, more)
    assert uniform_p(more, 0.3) > 0.01


@given(st.floats(-0.2, 0.2), st.sampled_from(SPATIAL[:2]))
@settings(max_examples=30)
def test_a_shift_moves_the_centre_of_mass_by_its_amount(amount: float, kind: str) -> None:
    x = smooth()
    before, after = centres(x), centres(manipulate(x, kind, amount=amount))
    moved = [amount * 32, 0.0] if kind == "horizontal_shift" else [0.0, amount * 32]
    for old, new, by in zip(before, after, moved, strict=True):
        torch.testing.assert_close(new, old + by, rtol=0, atol=0.02)


def test_a_turn_takes_the_centre_of_mass_along_counter_clockwise() -> None:
    x = smooth()
    right, down = (c - 15.5 for c in centres(x))
    for degrees in (20.0, -75.0):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turned = [c - 15.5 for c in centres(manipulate(x, "rotation", amount=degrees))]
        torch.testing.assert_close(turned[0], cos * right + sin * down, rtol=0, atol=0.02)
        torch.testing.assert_close(turned[1], cos * down - sin * right, rtol=0, atol=0.02)


def test_scale_multiplies_areas_by_the_square() -> None:
    x = smooth()
    areas = manipulate(x, "scale", amount=math.log(1.5)).sum((1, 2, 3)) / x.sum((1, 2, 3))
    torch.testing.assert_close(areas, torch.full_like(areas, 2.25), rtol=0.01, atol=0)


# noise ---------------------------------------------------------------------------------------------------------------


def test_gaussian_noise_has_its_moments_in_every_channel() -> None:
    noise = manipulate(grey(0.5, channels=3), "gaussian_noise", 0.1, seed=0) - 0.5
    assert stats.kstest(noise.flatten().numpy(), stats.norm(0, 0.1).cdf).pvalue > 0.01
    channels = noise.transpose(0, 1).flatten(1)
    assert float(torch.corrcoef(channels).triu(1).abs().max()) < 0.03


@pytest.mark.parametrize(("value", "s"), [(0.5, 0.1), (0.2, 0.05), (0.3, 0.25)])
def test_shot_noise_is_poisson_in_units_of_the_squared_severity(value: float, s: float) -> None:
    found = manipulate(grey(value), "shot_noise", s, seed=0)
    counts = found[found < 1] / s**2
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
    if s < 0.2:  # nothing is clamped
        n = counts.numel()
        assert abs(float(found.mean()) - value) < 4 * s * math.sqrt(value / n)
        assert float(found.var()) == pytest.approx(s**2 * value, rel=4 * math.sqrt(2 / n))
    black = float((found == 0).double().mean())
    assert black == pytest.approx(math.exp(-value / s**2), abs=0.01)
    assert torch.equal(manipulate(grey(0.0), "shot_noise", s), grey(0.0))


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_impulse_noise_hits_its_share_half_black_half_white(share: float) -> None:
    x = grey(0.5, channels=3)
    found = manipulate(x, "impulse_noise", share, seed=0)
    assert set(found.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert torch.equal(found, found[:, :1].expand_as(found))
    pixels = found[:, 0].numel()
    for value in (0.0, 1.0):
        hits = int((found[:, 0] == value).sum())
        assert stats.binomtest(hits, pixels, share / 2).pvalue > 0.001
    assert share < 1 or not bool((found == 0.5).any())


def test_blur_spreads_a_point_by_its_variance_and_keeps_flat_images() -> None:
    x = torch.zeros(1, 1, 33, 33, dtype=DOUBLE)
    x[0, 0, 16, 16] = 1.0
    spread = manipulate(x, "blur", 2.0)
    axis = torch.arange(33) - 16
    assert float(spread.sum()) == pytest.approx(1.0)
    assert float((spread.sum((0, 1, 2)) * axis.square()).sum()) == pytest.approx(4.0, rel=1e-3)
    torch.testing.assert_close(manipulate(grey(0.7), "blur", 3.0), grey(0.7))


# what is drawn over the image ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stripe", "dotted_line", "zigzag", "occlusion", "fog"])
def test_overlays_are_the_same_for_all_channels_and_images(kind: str) -> None:
    severity = KINDS[kind].typical
    x = images(4, 3)
    found = manipulate(x, kind, severity, seed=2)
    black, white = (manipulate(grey(value, 4), kind, severity, seed=2) for value in (0.0, 1.0))
    torch.testing.assert_close(found, black + x * (white - black), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["stripe", "dotted_line", "zigzag", "fog"])
def test_severity_of_an_overlay_is_its_weight(kind: str) -> None:
    x = images()
    whole = manipulate(x, kind, 1.0, seed=2)
    torch.testing.assert_close(manipulate(x, kind, 0.3, seed=2), 0.7 * x + 0.3 * whole, rtol=0, atol=1e-12)


def pieces(picture: Tensor) -> int:
    """Connected areas of ink, corners touching."""
    return int(ndimage.label(picture.numpy() > 0.3, structure=np.ones((3, 3)))[1])


@pytest.mark.parametrize("side", [28, 32, 64])
def test_drawings(side: int) -> None:
    black = grey(0.0, 60, side=side)
    inks = {kind: manipulate(black, kind, 1.0, seed=0)[:, 0] for kind in ("stripe", "dotted_line", "zigzag")}
    shares = {kind: ink.mean((1, 2)) for kind, ink in inks.items()}
    assert all(pieces(row) == 1 for row in inks["stripe"])
    assert all(pieces(row) >= 4 for row in inks["dotted_line"])
    assert np.mean([pieces(row) == 1 for row in inks["zigzag"]]) > 0.7  # a tip may leave the frame and come back
    # the band's area is its width, a quarter of a side and a pixel of soft edge, times its length inside
    assert 0.15 < float(shares["stripe"].min()) < float(shares["stripe"].max()) < 0.45
    for kind in ("dotted_line", "zigzag"):
        assert 0.015 < float(shares[kind].min()) < float(shares[kind].max()) < 0.2
    for ink in inks.values():
        assert bool((ink.flatten(1).amax(1) > 0.9).all())


def test_a_stripe_is_straight_and_a_zigzag_is_not() -> None:
    black = grey(0.0, 60)
    bend = {}
    for kind in ("stripe", "dotted_line", "zigzag"):
        ink = manipulate(black, kind, 1.0, seed=0)[:, 0]
        residuals = []
        for row in ink:
            points = (row > 0.5).nonzero().double()
            residuals.append(float(torch.linalg.svdvals(points - points.mean(0))[1]) / math.sqrt(len(points)))
        bend[kind] = float(np.median(residuals))  # sd of the ink across its main direction, in pixels
    assert bend["dotted_line"] < 0.8
    assert 1.0 < bend["zigzag"] < 2.5
    assert bend["stripe"] == pytest.approx(7 / math.sqrt(12), rel=0.15)


@pytest.mark.parametrize("severity", [0.1, 0.4, 0.99, 1.0])
def test_an_occlusion_is_a_square_of_its_side_inside_the_frame(severity: float) -> None:
    white = torch.ones(200, 2, 28, 40, dtype=DOUBLE)
    hidden = 1 - manipulate(white, "occlusion", severity, seed=0)
    side = 28 * severity
    area = torch.full((200, 2), side**2, dtype=DOUBLE)
    torch.testing.assert_close(hidden.sum((2, 3)), area)
    for dim in (2, 3):
        torch.testing.assert_close(hidden.amax((1, dim)).sum(1), area[:, 0] / side, rtol=1e-6, atol=2.0)
    right, down = centres(hidden)
    for middle, pixels in ((right, 40), (down, 28)):
        room = pixels - side
        if room > 1:
            assert stats.kstest((middle.numpy() + 0.5 - side / 2) / room, stats.uniform.cdf).pvalue > 0.01


def test_an_occlusion_of_whole_pixels_blackens_what_is_inside() -> None:
    found = manipulate(grey(1.0, 50), "occlusion", 0.5, seed=0)
    assert bool(((found == 0).sum((1, 2, 3)) >= 13 * 13).all())
    assert bool(((found == 1).sum((1, 2, 3)) >= 28 * 28 - 15 * 15).all())


def test_fog_is_smooth_and_fills_the_range() -> None:
    fog = manipulate(grey(0.0, 40, channels=2, side=32), "fog", 1.0, seed=0)
    torch.testing.assert_close(fog.amin((1, 2, 3)), torch.zeros(40, dtype=DOUBLE))
    torch.testing.assert_close(fog.amax((1, 2, 3)), torch.ones(40, dtype=DOUBLE))
    assert 0.4 < float(fog.mean()) < 0.6
    assert float(fog.std()) > 0.15
    assert float(fog.diff(dim=3).abs().mean()) < 0.05
    assert torch.equal(fog[:, 0], fog[:, 1])


# several at once -----------------------------------------------------------------------------------------------------


def in_turn(x: Tensor, severities: Mapping[str, float], seed: int) -> Tensor:
    for kind, severity in severities.items():
        x = manipulate(x, kind, severity, seed=seed)
    return x


def test_all_of_them_are_one_after_the_other() -> None:
    x = images(8, 3)
    others = {kind: KINDS[kind].typical / 2 for kind in KINDS if kind not in SPATIAL}
    for severities in (others, {"rotation": 20, **others}, {"fog": 0.2, "shear": 9, "blur": 1, "scale": 0.2}):
        assert torch.equal(manipulate_all(x, severities, seed=7), in_turn(x, severities, 7))


def test_merged_shifts_are_shifts_in_turn() -> None:
    x = images(20, 2, 28, 32)
    severities = {"vertical_shift": 0.4, "horizontal_shift": 0.3}  # bilinear interpolation is separable
    torch.testing.assert_close(manipulate_all(x, severities, seed=1), in_turn(x, severities, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", SPATIAL)
@pytest.mark.parametrize("second", SPATIAL)
def test_merged_kinds_are_kinds_in_turn_up_to_interpolation(first: str, second: str) -> None:
    mild = {"vertical_shift": 0.1, "horizontal_shift": 0.1, "rotation": 90, "scale": 0.2, "shear": 20}
    severities = {first: mild[first], second: mild[second]}
    x = smooth(10, 64)
    merged = manipulate_all(x, severities, seed=0)
    torch.testing.assert_close(merged, in_turn(x, severities, 0), rtol=0, atol=0.03)
    assert float((merged - x).abs().max()) > 0.05
    if {first, second} in ({"vertical_shift", "rotation"}, {"vertical_shift", "shear"}, {"rotation", "shear"}):
        other_way = manipulate_all(x, dict(reversed(severities.items())), seed=0)
        assert float((merged - other_way).abs().max()) > 0.05  # the order counts


def test_what_leaves_the_frame_may_come_back() -> None:
    white = grey(1.0)
    severities = {"scale": 1.0, "rotation": 45, "horizontal_shift": 0.5}
    merged, apart = manipulate_all(white, severities, seed=0), in_turn(white, severities, 0)
    assert float((merged - apart).mean()) > 0.01
    assert float(((apart - merged) > 0.5).double().mean()) < 0.002


def test_an_idle_kind_leaves_the_others_as_they_are() -> None:
    x = images()
    alone = manipulate(x, "rotation", 30, seed=3)
    for idle in ("scale", "fog", "gaussian_noise"):
        assert torch.equal(manipulate_all(x, {idle: 0, "rotation": 30}, seed=3), alone)
        assert torch.equal(manipulate_all(x, {"rotation": 30, idle: 0}, seed=3), alone)


def test_one_of_gives_each_row_one_kind() -> None:
    x = images(1, 2).expand(400, -1, -1, -1)
    marks = {"brightness": 0.0, "inversion": 1.0, "blur": 2.0, "vertical_shift": 0.2}
    found = manipulate_all(x, marks, seed=0, one_of=True)
    own = [x, 1 - x, manipulate(x, "blur", 2.0)]
    which = torch.stack([~changed(found, expected) for expected in own])
    assert int(which.sum(0).max()) == 1
    shares = torch.cat((which.double().mean(1), (~which.any(0)).double().mean()[None]))
    assert bool(((shares - 0.25).abs() < 0.08).all())
    shifted = found[~which.any(0)]
    assert len(shifted.flatten(1).unique(dim=0)) == len(shifted)  # drawn for each row
    assert torch.equal(manipulate_all(x, marks, seed=0, one_of=True), found)
    assert bool(changed(manipulate_all(x, marks, seed=1, one_of=True), found).any())
    assert torch.equal(x, images(1, 2).expand(400, -1, -1, -1))


def test_one_of_with_more_kinds_than_rows() -> None:
    severities = {name: kind.typical for name, kind in KINDS.items()}
    x = images(3, dtype=torch.float32)
    found = manipulate_all(x, severities, seed=0, one_of=True)
    assert found.dtype == torch.float32
    assert bool(changed(found, x).all())
    assert manipulate_all(x[:0], severities, one_of=True).shape == (0, 1, 28, 28)
    assert manipulate_all(x[:0], severities).shape == (0, 1, 28, 28)


# kinds of one's own, errors ------------------------------------------------------------------------------------------


def test_a_kind_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gamma = Kind("logarithm of the exponent", 0.5, 3.0, signed=True, function=lambda x, a, generator: x ** a.exp())
    monkeypatch.setitem(KINDS, "gamma", gamma)
    x = images()
    torch.testing.assert_close(manipulate(x, "gamma", amount=math.log(2)), x**2)
    with pytest.raises(ValueError, match=r"Kind\(function=None\): expected either a function or a matrix"):
        Kind("none", 1.0, 1.0)


GOOD = torch.rand(3, 1, 8, 8)


@pytest.mark.parametrize(
    ("x", "kind", "options", "message"),
    [
        (GOOD, "rotate", {}, r"kind='rotate'\): expected one of 'vertical_shift'.*did you mean 'rotation'\?"),
        (GOOD, ["rotation"], {}, r"kind=\['rotation'\]\): expected one of"),
        (GOOD.numpy(), "rotation", {}, r"type\(images\)='ndarray'\): expected Tensor"),
        ((GOOD * 255).byte(), "rotation", {}, r"images\.dtype=torch\.uint8\): expected floats in \[0, 1\].*/ 255"),
        (GOOD[:, 0], "rotation", {}, r"images\.shape=\(3, 8, 8\)\): expected \(rows, channels, height, width\)"),
        (GOOD[..., :0], "rotation", {}, r"images\.shape=\(3, 1, 8, 0\)\): expected \(rows, channels"),
        (GOOD * 0 - 1, "rotation", {}, r"images='from -1 to -1'\): expected numbers in \[0, 1\]"),
        (GOOD * 0 + 255, "rotation", {}, r"images='from 255 to 255'\): expected numbers in \[0, 1\]"),
        (GOOD * torch.nan, "rotation", {}, r"images='from nan to nan'\): expected numbers in \[0, 1\], none missing"),
        (GOOD, "rotation", {"severity": -1}, r"severity of rotation=-1\): expected a number from 0 to 360 \(degrees"),
        (GOOD, "occlusion", {"severity": 1.5}, r"severity of occlusion=1\.5\): expected a number from 0 to 1 \(side"),
        (GOOD, "rotation", {"severity": math.nan}, r"severity of rotation=nan\): expected a number"),
        (GOOD, "rotation", {"severity": "30"}, r"severity of rotation='30'\): expected a number"),
        (GOOD, "rotation", {"severity": 1, "amount": 1}, r"severity=1\): expected None where an amount is given"),
        (GOOD, "blur", {"amount": -1}, r"amount=\[-1\.0\]\): expected from 0 to 1000 for 'blur' \(standard deviation"),
        (GOOD, "shear", {"amount": torch.tensor([0, 0, -90.0])}, r"amount=\[-90\.0\]\): expected from -85 to 85"),
        (GOOD, "shear", {"amount": math.inf}, r"amount=\[inf\]\): expected from -85 to 85"),
        (GOOD, "shear", {"amount": math.nan}, r"amount=\[nan\]\): expected from -85 to 85"),
        (GOOD, "shear", {"amount": torch.zeros(2)}, r"amount\.shape=\(2,\)\): expected \(\) or \(3,\), one a row"),
        (GOOD, "shear", {"amount": "5"}, r"amount='5'\): expected a number or a tensor \(3,\)"),
        (GOOD, "shear", {"seed": -1}, r"seed=-1\): expected a whole number of at least 0"),
        (GOOD, "shear", {"seed": 0.5}, r"seed=0\.5\): expected a whole number of at least 0"),
        (GOOD, "shear", {"seed": 0, "generator": Generator()}, r"generator=.*\): expected None where a seed is given"),
        (GOOD, "shear", {"generator": 5}, r"generator=5\): expected a torch\.Generator on the CPU"),
    ],
)
def test_errors(x: Any, kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"manipulate\(" + message):
        manipulate(x, kind, **options)


@pytest.mark.parametrize(
    ("severities", "message"),
    [
        ({}, r"severities=\{\}\): expected a mapping of at least one kind to severity"),
        (["rotation"], r"severities=\['rotation'\]\): expected a mapping"),
        ({"rotation": 1, "blurr": 1}, r"kind='blurr'\): expected one of .*did you mean 'blur'\?"),
        ({"rotation": 1, "blur": -1}, r"severity of blur=-1\): expected a number from 0"),
        ({"rotation": None}, r"severity of rotation=None\): expected a number from 0"),
    ],
)
@pytest.mark.parametrize("one_of", [True, False])
def test_errors_of_several(severities: Any, message: str, one_of: bool) -> None:
    with pytest.raises(ValueError, match=r"manipulate_all\(" + message):
        manipulate_all(GOOD, severities, one_of=one_of)
    with pytest.raises(ValueError, match=r"fit\(" + message):
        expect_kinds(severities, "fit")
    with pytest.raises(ValueError, match=r"manipulate_all\(images\.shape"):
        manipulate_all(GOOD[0], {"blur": 1.0}, one_of=one_of)
