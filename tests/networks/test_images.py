"""Encoders and decoders of images: sizes, initial weights, and a user's own."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pyro_cama
from pyro_cama import CAMA, DataError, build
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Node
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.networks.image_layers import initialise_weights
from pyro_cama.networks.images import ImageDecoder, ImageEncoder, decode_images, encode_images
from tests.helpers.images import BERNOULLI, QUICK, ROLES, rows, spec, table
from tests.helpers.networks import calls, networks
from tests.helpers.paths import GRAPHS
from tests.helpers.random_graphs import small


@settings(max_examples=40)
@given(st.integers(1, 33), st.integers(1, 33), st.integers(1, 3), st.integers(1, 2))
def test_encoders_and_decoders_take_any_size(height: int, width: int, channels: int, numbers: int) -> None:
    node = Node("i", "image", shape=(channels, height, width), channels=2)
    assert encode_images(ImageEncoder(node, 5), torch.rand(3, 1, 2, *node.event_shape)).shape == (3, 1, 2, 5)
    assert encode_images(ImageEncoder(node, 5), torch.rand(2, *node.event_shape)).shape == (2, 5)
    decoder = ImageDecoder(node, numbers)
    out = decode_images(decoder, torch.randn(3, 1, 2, decoder.inputs), node.event_shape)
    assert out.shape == (3, 1, 2, channels, height, width, numbers)


def test_a_channels_numbers_stand_side_by_side() -> None:
    class Numbered(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return torch.arange(6.0)[:, None, None].expand(len(features), 6, 4, 5)

    out = decode_images(Numbered(), torch.zeros(2, 7, 1), (3, 4, 5))
    assert out.shape == (2, 7, 3, 4, 5, 2)
    assert out[1, 2, :, 3, 4].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Linear(300, 200, bias=False),
        lambda: nn.Conv2d(40, 60, 3, stride=2, padding=1, bias=False),
        lambda: nn.ConvTranspose2d(40, 60, 3, 2, 1, 1, bias=False),
    ],
)
def test_initial_weights_keep_the_scale_through_a_layer_and_relu(layer: Callable[[], nn.Module]) -> None:
    """He et al.: the mean square of relu(W x) is that of x."""
    module = layer()
    initialise_weights(module)
    x = torch.randn(20, 300) if isinstance(module, nn.Linear) else torch.randn(20, 40, 12, 12)
    with torch.no_grad():
        out = F.relu(module(x))
    if out.dim() == 4:
        out = out[..., 2:-2, 2:-2]  # the frame gets less
    assert float(out.square().mean()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_new_model_draws_plausible_images(layers: int) -> None:
    """Neither flat nor saturated: the bias is that of dark pixels, and z and y are seen in them."""
    cama = small(spec({"i": {**BERNOULLI, "channels": 16}}, ["y -> i"]), hidden=32, layers=layers)
    z = torch.randn(1, 1, 50, 2)
    batch = rows(cama, 50)
    with calls(networks(cama.model)["decoders"]["i"]) as seen, torch.no_grad():
        cama.model.log_prob(batch, z, torch.zeros(2), samples=1, classes=True)
    out = seen[0][1].reshape(3, 50, 36)
    assert -4 < out.mean() < 0
    assert 0.1 < out.std(1).mean() < 5  # over z
    assert 0.1 < out.mean(1).std(0).mean() < 5  # over y


class Encoder(nn.Module):
    """A user's own."""

    def __init__(self, node: Node, features: int, channels: int = 3) -> None:
        super().__init__()
        assert node.shape is not None
        self.convolution = nn.Conv2d(node.shape[0], channels, 3)
        self.norm = nn.BatchNorm2d(channels).eval()  # frozen
        self.linear = nn.Linear(channels, features)
        nn.init.constant_(self.convolution.weight, 0.1)
        nn.init.constant_(self.linear.weight, 0.2)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(self.convolution(images)).mean((2, 3)))
        return out


class Decoder(nn.Module):
    """A user's own."""

    def __init__(self, node: Node, numbers: int, inputs: int = 5) -> None:
        super().__init__()
        assert node.shape is not None
        self.inputs = inputs
        self.linear = nn.Linear(inputs, math.prod(node.shape) * numbers)
        nn.init.constant_(self.linear.weight, 0.1)
        self.shape = (node.shape[0] * numbers, *node.shape[1:])

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.linear(features)
        return out.unflatten(-1, self.shape)


def custom(folder: Path | None = None, **changes: Any) -> CAMA:
    options: dict[str, Any] = {"encoders": {"i": Encoder}, "decoders": {"i": Decoder}} | changes
    if folder is not None:
        return pyro_cama.load(folder, device="cpu", **options)
    cama = build(spec(*ROLES["cause"][:2]), hidden=8, layers=1, device="cpu", **options)
    return cama.fit(table(), max_epochs=2, interventions={"i": 0.5}, conditional_weight=0.0, **QUICK)


def test_a_users_networks_are_used_trained_stored_and_asked_for(tmp_path: Path) -> None:
    cama = custom()
    for part in (networks(cama.guide)["images"]["i"], cama.guide.m_posterior.encoders["i"]):
        assert isinstance(part, Encoder)
        assert (part.convolution.weight != 0.1).any()
    assert isinstance(networks(cama.model)["features"].networks["i"], Encoder)
    assert isinstance(networks(cama.model)["decoders"]["i"], Decoder)
    before = cama.predict_proba(table(seed=1))
    np.testing.assert_array_equal(cama.copy().predict_proba(table(seed=1)), before)
    cama.save(tmp_path / "model")
    np.testing.assert_array_equal(custom(tmp_path / "model").predict_proba(table(seed=1)), before)
    with pytest.raises(DataError, match=r"built with encoders=\.\.\., decoders=\.\.\.; found encoders=\.\.\."):
        custom(tmp_path / "model", decoders={})
    with pytest.raises(DataError, match=r"convolution\.weight has shape \(3, 1, 3, 3\), expected \(9, 1, 3, 3\)"):
        custom(tmp_path / "model", encoders={"i": functools.partial(Encoder, channels=9)})


def test_a_users_networks_start_as_they_were_made() -> None:
    """They may be pretrained, and parts of them frozen."""
    nodes, edges, m = ROLES["parent"]
    cama = small(spec(nodes, edges, m), encoders={"i": Encoder, "j": Encoder}, decoders={"j": Decoder})
    found = [module for module in cama.modules.modules() if isinstance(module, Encoder)]
    assert len(found) == 4
    for module in found:
        assert (module.convolution.weight == 0.1).all()
        assert (module.linear.weight == 0.2).all()
        assert module.training
        assert not module.norm.training
    assert (networks(cama.model)["decoders"]["j"].linear.weight == 0.1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": {"x": Encoder}}, r"build\(encoders=\.\.\.\): expected nodes of type image, found \['x'\]"),
        ({"decoders": {"y": Decoder}}, r"build\(decoders=\.\.\.\): expected nodes of type image, found \['y'\]"),
        ({"encoders": {"j": Encoder}}, r"build\(encoders=\.\.\.\): \['j'\] not among the target and its blanket"),
        (
            {"encoders": {"i": lambda node, features: Encoder(node, features + 1)}},
            r"build\(encoders\['i'\]\): from \(2, 1, 6, 6\) it gives \(2, 9\); expected \(2, 8\)",
        ),
        (
            {"encoders": {"i": lambda node, features: nn.Linear(7, features)}},
            r"build\(encoders\['i'\]\): fails on a tensor of shape \(2, 1, 6, 6\): ",
        ),
        (
            {"decoders": {"i": lambda node, numbers: nn.Linear(3, 36)}},
            r"build\(decoders\['i'\]\)\(inputs=None\): expected an attribute that says how many features it takes",
        ),
        (
            {"decoders": {"i": lambda node, numbers: Decoder(node, numbers + 1)}},
            r"build\(decoders\['i'\]\): from \(2, 5\) it gives \(2, 2, 6, 6\); expected \(2, 1, 6, 6\)",
        ),
    ],
)
def test_networks_that_do_not_fit_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(spec(*ROLES["cause"][:2]), hidden=8, **options)


@pytest.mark.parametrize("name", ["mnist", "cifar_binary"])
def test_the_graphs_of_the_repository(name: str) -> None:
    cama = build(GRAPHS / f"{name}.yaml", device="cpu")
    shape = cama.graph.nodes["image"].event_shape
    batch = Batch({"image": torch.rand(2, *shape)}, {}, None, 2)
    weights = log_weights(cama.model, cama.guide, batch, classes=True)
    assert weights.w.shape == (1, len(cama.classes), 2)
    weights.w.sum().backward()
    slopes = {n: p.grad for n, p in cama.modules.named_parameters() if p.grad is not None}
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert all(slopes[name].any() for name in slopes if "decoders" in name or "images" in name or "encoders" in name)
