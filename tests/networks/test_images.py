"""Image nodes: densities by hand, eq. 6 by quadrature, both ways of the log-weights, and a model of real digits."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
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

import pyro_cama
from pyro_cama import CAMA, DataError, build
from pyro_cama.adaptation.candidates import examine
from pyro_cama.adaptation.initialisation import initialise_start as begin_at
from pyro_cama.adaptation.new_rows import hold_out
from pyro_cama.attacks.gradient import fgsm, pgd
from pyro_cama.attacks.tables import AttackableTable
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.image_manipulations.kinds import manipulate
from pyro_cama.inference.bounds import class_log_probs, importance_bound, marginal, mean_bound
from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.inference.proposals import proposals
from pyro_cama.likelihoods import MIN_PROBABILITY, MIN_SCALE
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.networks.images import ImageDecoder, ImageEncoder, decode_images, encode_images, initialise_weights
from pyro_cama.training.simulated_interventions import intervened
from tests.helpers.networks import networks
from tests.helpers.patches import module_at
from tests.helpers.paths import GRAPHS
from tests.helpers.random_graphs import row_selector, small
from tests.inference.test_elbo import both_ways, in_double

QUICK: dict[str, Any] = {"progress": False}
TARGET: dict[str, Any] = {"type": "categorical", "levels": ["p", "q", "r"]}
BERNOULLI: dict[str, Any] = {"type": "image", "shape": [1, 6, 6], "channels": 4}
NORMAL: dict[str, Any] = {"type": "image", "shape": [3, 5, 7], "channels": 4, "likelihood": "normal"}
Spec = dict[str, Any]


def spec(nodes: Spec, edges: list[str], m: Spec | None = None, **keys: Any) -> Spec:
    latents = {"z": {"dim": 2}, "m": None if keys.get("still") else {"dim": 2, **(m or {})}}
    return {"target": "y", "nodes": {"y": TARGET, **nodes}, "edges": edges, "latents": latents}


ROLES: dict[str, tuple[Spec, list[str], Spec]] = {
    "child": ({"i": BERNOULLI}, ["y -> i"], {}),
    "normal child": ({"i": NORMAL}, ["y -> i"], {"mechanism": "warp+intensity"}),
    "field": ({"i": BERNOULLI}, ["y -> i"], {"mechanism": "field"}),
    "concat": ({"i": BERNOULLI, "x": "count"}, ["y -> i", "y -> x"], {"mechanism": {"i": "concat"}}),
    "beside a co-parent": ({"i": NORMAL, "c": "continuous"}, ["y -> i", "c -> i"], {}),
    "among others": (
        {"i": BERNOULLI, "j": NORMAL, "x": "continuous", "k": {"type": "categorical", "levels": ["u", "v"]}},
        ["y -> i", "y -> j", "y -> x", "y -> k"],
        {"mechanism": {"j": "intensity"}},
    ),
    "co-parent": ({"i": BERNOULLI, "x": "continuous"}, ["y -> x", "i -> x"], {}),
    "parent": ({"i": NORMAL, "j": BERNOULLI}, ["i -> y", "y -> j", "i -> j"], {}),
    "cause": ({"i": BERNOULLI, "x": "continuous"}, ["y -> i -> x", "y -> x"], {"affects": "quantity"}),
    "measured cause": ({"i": BERNOULLI, "x": "continuous"}, ["y -> i -> x", "y -> x"], {"affects": "measurement"}),
}


def model(role: str, scope: str = "row", **options: Any) -> CAMA:
    nodes, edges, m = ROLES[role]
    return small(spec(nodes, edges, {"scope": scope, **m}), **{"hidden": 8, **options})


def rows(cama: CAMA, n: int, *missing: str) -> Batch:
    """Rows of the model with images of all greys; of the named nodes some entries are missing."""
    batch = row_selector(cama, n)
    values = {name: torch.rand_like(v) if v.dim() > 2 else v for name, v in batch.values.items()}
    return Batch(values, {name: torch.arange(n) % 3 > 0 for name in missing}, None, n)


def shaken(cama: CAMA, by: float = 0.2) -> CAMA:
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(by * torch.randn(parameter.shape))
    return cama


# two ways to the same numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("scope", ["row", "dataset"])
def test_traced_and_grouped_agree(role: str, scope: str) -> None:
    with in_double():
        cama = shaken(model(role, scope))
        some = [name for name in cama.graph.order if name not in ("y", "k")]
        for classes, do, missing in (
            (False, None, []),
            (True, None, some),
            (True, 0.0, ["y", *some]),
            (False, [0.5, -1.0], some),
        ):
            batch = rows(cama, 5, *missing)
            given_ = None if do is None else {"m": do}
            both_ways(cama, batch, lambda: common_noise(3), do=given_, samples=3, classes=classes)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("classes", [False, True])
def test_traced_and_grouped_agree_under_a_proposal(role: str, classes: bool) -> None:
    with in_double():
        cama = shaken(model(role))
        proposal = dist.Normal(torch.randn(5, 2), torch.rand(5, 2) + 0.5).to_event(1)
        batch = rows(cama, 5, "i")
        both_ways(cama, batch, lambda: common_noise(3), samples=3, classes=classes, proposals={"m": proposal})
        # m is drawn from it, and weighed by it
        with common_noise(3), torch.no_grad():
            ours, other = (
                log_weights(cama.model, cama.guide, batch, samples=3, proposals=q) for q in ({"m": proposal}, None)
            )
        assert not torch.allclose(ours.w, other.w)


# densities -----------------------------------------------------------------------------------------------------------


@contextmanager
def calls(module: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What goes into a module and what comes out of it, in all calls inside."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("image", [BERNOULLI, NORMAL], ids=["bernoulli", "normal"])
@pytest.mark.parametrize("mechanism", ["warp", "field", "intensity", "warp+field+intensity", "concat"])
@pytest.mark.parametrize("clean", [True, False])
def test_the_density_of_an_image_by_hand(image: Spec, mechanism: str, clean: bool) -> None:
    """Sums over pixels of what the decoder puts out: as it is under do(m=0), else with its mean moved."""
    with in_double():
        cama = shaken(small(spec({"i": image}, ["y -> i"], {"mechanism": mechanism}), hidden=8))
        batch, z = rows(cama, 4), torch.randn(2, 3, 4, 2)
        m = torch.zeros(2) if clean else torch.randn(2, 1, 4, 2)
        with calls(networks(cama.model)["decoders"]["i"]) as seen, torch.no_grad():
            likelihood, context = cama.model.log_prob(batch, z, m, samples=2, classes=True)
        ((_, out),) = seen
        (group,) = (group for group in cama.model.groups if group.image)
        assert isinstance(group.mechanism, ImageMechanism) or mechanism == "concat"
        out = out.reshape(2, 3, 4, *image["shape"])
        theta = cama.manipulation(m).detach()

        def as_recorded(mean: Tensor) -> Tensor:
            if clean or mechanism == "concat":
                return mean
            assert group.mechanism is not None
            return group.mechanism.push(mean, theta)

        x = batch.values["i"]
        if image is BERNOULLI:
            p = as_recorded(MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) / (1 + (-out).exp()))
            p = p.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            each = x * p.log() + (1 - x) * (1 - p).log()
        else:
            raw = networks(cama.model)["constants"][cama.model.groups.index(group)][0, 0].detach()
            sd = raw.exp().log1p() + MIN_SCALE
            each = -0.5 * ((x - as_recorded(out)) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
        prior = torch.log_softmax(networks(cama.model)["merges"][0].bias.detach(), 0)
        expected = each.sum((-3, -2, -1)) + prior[:, None]
        torch.testing.assert_close(likelihood, expected, atol=1e-9, rtol=1e-10)
        assert not context.any()


def test_at_m_zero_concat_draws_what_it_would_without_m() -> None:
    cama = shaken(model("concat"))
    batch, z = rows(cama, 4), torch.randn(1, 1, 4, 2)
    found = []
    for without in (False, True):
        if without:
            with torch.no_grad():
                merge = networks(cama.model)["merges"][next(i for i, g in enumerate(cama.model.groups) if g.image)]
                merge.projections["m"].weight.zero_()
        for m in (torch.zeros(2), torch.ones(2)):
            with torch.no_grad():
                found.append(cama.model.log_prob(batch, z, m, samples=1, classes=False)[0])
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_missing_image_says_nothing() -> None:
    cama = shaken(model("among others"))
    batch = rows(cama, 6)
    z, m = torch.randn(1, 3, 6, 2), torch.randn(1, 1, 6, 2)
    gone = torch.tensor([True, False] * 3)
    values = {**batch.values, "i": torch.where(gone[:, None, None, None], 0.5, batch.values["i"])}
    with torch.no_grad():
        found = cama.model.log_prob(Batch(values, {"i": ~gone}, None, 6), z, m, samples=1, classes=True)[0]
        whole = cama.model.log_prob(batch, z, m, samples=1, classes=True)[0]
        lone = cama.model.log_prob(Batch(values, {"i": torch.zeros(6) > 0}, None, 6), z, m, samples=1, classes=True)[0]
    torch.testing.assert_close(found[..., ~gone], whole[..., ~gone])
    torch.testing.assert_close(found[..., gone], lone[..., gone])
    assert (found[..., gone] != whole[..., gone]).all()


def test_grey_values_pass_pyros_validation() -> None:
    """A Bernoulli's support is 0 and 1; SVI validates by default."""
    cama = model("among others")
    batch = rows(cama, 4)
    for loss in (InterventionELBO(samples=2), JointELBO(samples=2)):
        assert math.isfinite(loss.loss(cama.model, cama.guide, batch))
    assert math.isfinite(MarginalELBO().loss(cama.model, cama.guide, batch.without("y")))


# eq. 6 by quadrature -------------------------------------------------------------------------------------------------


class Pixels(nn.Module):
    """A decoder that is the identity: one feature a pixel."""

    def __init__(self, node: Node, numbers: int) -> None:
        super().__init__()
        assert node.shape is not None
        self.shape, self.inputs = node.shape, math.prod(node.shape)

    def forward(self, features: Tensor) -> Tensor:
        return features.reshape(-1, *self.shape)


def tiny(mechanism: str) -> CAMA:
    """Images of 2 x 3 pixels, linear in y and z, with broad posteriors of z and m; every parameter random."""
    image = {"type": "image", "shape": [1, 2, 3]}
    raw = spec({"i": image}, ["y -> i"], {"dim": 1, "mechanism": mechanism})
    raw["latents"]["z"]["dim"] = 1
    cama = build(raw, layers=0, hidden=4, decoders={"i": Pixels}, device="cpu")
    broad = math.log(math.expm1(1.3))
    with torch.no_grad():
        networks(cama.model)["merges"][0].bias.copy_(torch.tensor([0.4, 0.0, -0.3]))
        last_of(cama).weight.mul_(1.5)
        encoder, q = networks(cama.guide)["encoder"], cama.guide.m_posterior
        for source in encoder.projections:
            encoder.projections[source].weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, broad]))
        q.network[-1].weight.zero_()
        q.network[-1].bias.copy_(torch.tensor([0.0, broad]))
    return cama


def last_of(cama: CAMA) -> Any:
    """NN_pM, which is one linear map here."""
    return cama.manipulation.network[-1]


def joint(cama: CAMA, images: Tensor, do: float | None, power: float = 1.0) -> Tensor:
    """log p(x, y) of every class, ``(classes, rows)``, summed over a grid of z and m; p(x | y, z, m) to a power."""
    (group,) = (group for group in cama.model.groups if group.image)
    assert isinstance(group.mechanism, ImageMechanism)
    merge = networks(cama.model)["merges"][cama.model.groups.index(group)]
    grid = torch.linspace(-6, 6, 121)
    weight = torch.softmax(-0.5 * grid.square(), 0).log()
    at, of_m = (grid, weight) if do is None else (torch.tensor([do]), torch.zeros(1))
    with torch.no_grad():
        by_y, by_z = merge.projections["y"].weight, merge.projections["z"].weight[:, 0]
        logits = merge.bias + by_y.T[:, None] + grid[:, None] * by_z  # (classes, z, pixels)
        p = (MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * torch.sigmoid(logits)).unflatten(-1, (1, 2, 3))
        theta = at[:, None, None, None] * last_of(cama).weight[:, 0]
        p = group.mechanism.push(p, theta).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)[..., None, :, :, :]
        each = power * (images * p.log() + (1 - images) * (1 - p).log()).sum((-3, -2, -1))  # (m, classes, z, rows)
        prior = torch.log_softmax(networks(cama.model)["merges"][0].bias, 0)
        return torch.logsumexp(each + of_m[:, None, None, None] + weight[:, None], (0, 2)) + prior[:, None]


@pytest.mark.parametrize("mechanism", ["warp", "intensity"])
@pytest.mark.parametrize("do", [None, 0.0, 1.5])
def test_class_probabilities_are_eq_6(mechanism: str, do: float | None) -> None:
    with in_double():
        cama = tiny(mechanism)
        batch = rows(cama, 4)
        exact = joint(cama, batch.values["i"], do)
        batch = batch.without("y")
        wide = dist.Normal(torch.tensor([[0.3], [-0.3], [0.0], [0.6]]), torch.tensor(1.5)).to_event(1)
        for proposals in (None, {"m": wide}) if do is None else (None,):  # whatever m is drawn from
            given_ = None if do is None else {"m": do}
            with torch.no_grad():
                weights = log_weights(
                    cama.model, cama.guide, batch, do=given_, samples=40_000, classes=True, proposals=proposals
                )
            torch.testing.assert_close(importance_bound(weights), exact, atol=0.06, rtol=0)
            torch.testing.assert_close(class_log_probs(weights), torch.log_softmax(exact, 0), atol=0.05, rtol=0)
            assert (marginal(mean_bound(weights)) < marginal(exact)).all()
        assert (torch.softmax(exact, 0).amax(1) - torch.softmax(exact, 0).amin(1)).max() > 0.1


# how often networks run ----------------------------------------------------------------------------------------------


def images_through(module: Any, run: Callable[[], Any]) -> list[int]:
    with calls(module) as seen, torch.no_grad():
        run()
    return [len(taken) for taken, _ in seen]


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("mechanism", ["warp", "concat"])
def test_an_image_is_encoded_once_a_draw_of_m_and_never_once_a_class(trace: bool, mechanism: str) -> None:
    cama = small(spec({"i": BERNOULLI}, ["y -> i"], {"mechanism": mechanism}), hidden=8)
    batch = rows(cama, 4)
    of_z, of_m = networks(cama.guide)["images"]["i"], cama.guide.m_posterior.encoders["i"]

    def weigh(do: Any) -> Callable[[], Any]:
        options: dict[str, Any] = {"do": do, "samples": 5, "classes": True, "trace": trace}
        return lambda: log_weights(cama.model, cama.guide, batch, **options)

    assert images_through(of_z, weigh({"m": 0.0})) == [4]
    if not trace:  # Pyro runs the program of an intervened site
        assert images_through(of_m, weigh({"m": 0.0})) == []
    assert images_through(of_z, weigh({"m": [0.3, -0.3]})) == [4]
    # an image that concat has drawn cannot be undone, so every draw of m sees the same
    assert images_through(of_z, weigh(None)) == [4 if mechanism == "concat" else 4 * 5]
    assert images_through(of_m, weigh(None)) == [4]
    assert images_through(networks(cama.model)["decoders"]["i"], weigh({"m": 0.0})) == [5 * 3 * 4]


def test_an_image_that_depends_on_the_class_alone_is_drawn_once_a_class() -> None:
    raw = spec({"i": BERNOULLI}, ["y -> i"], still=True)
    raw["latents"]["z"] = None
    cama = small(raw)
    batch = rows(cama, 7)
    decoder = networks(cama.model)["decoders"]["i"]
    run = functools.partial(log_weights, cama.model, cama.guide, batch, samples=5, classes=True)
    assert images_through(decoder, run) == [3]


@pytest.mark.parametrize("role", ["co-parent", "parent", "cause"])
def test_an_image_that_is_a_cause_is_encoded_once_a_row(role: str) -> None:
    cama = model(role)
    batch = rows(cama, 4)
    features = networks(cama.model)["features"].networks["i"]
    run = functools.partial(log_weights, cama.model, cama.guide, batch, samples=5, classes=True)
    assert images_through(features, run) == [4]
    assert images_through(features, functools.partial(log_weights, cama.model, cama.guide, batch, trace=True)) == [4]


def test_a_measured_cause_is_encoded_once_a_draw_of_m() -> None:
    cama = model("measured cause")
    run = functools.partial(log_weights, cama.model, cama.guide, rows(cama, 4), samples=5, classes=True)
    assert images_through(networks(cama.model)["features"].networks["i"], run) == [4 * 5]


# networks ------------------------------------------------------------------------------------------------------------


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


def table(n: int = 12, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    images = rng.random((n, 1, 6, 6), dtype=np.float32)
    images[..., :3] *= (1 - y / 3)[:, None, None, None]
    return {"y": np.array(["p", "q", "r"])[y], "i": images.astype(np.float32), "x": y + rng.normal(0, 1, n)}


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


# data ----------------------------------------------------------------------------------------------------------------


def fitted(role: str = "cause", scope: str = "row") -> CAMA:
    return model(role, scope, device="cpu").fit(table(), max_epochs=0, **QUICK)


def test_bytes_floats_tensors_and_frames_predict_the_same() -> None:
    cama, given_ = fitted(), table(seed=1)
    pixels = (given_["i"] * 255).astype(np.uint8)
    floats = pixels.astype(np.float32) / 255
    expected = cama.predict_proba({**given_, "i": floats}, do=None)
    for column in (pixels, torch.from_numpy(pixels), floats.astype(np.float64), list(pixels)):
        found = cama.predict_proba({**given_, "i": column}, do=None)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    frame = pd.DataFrame({**given_, "i": list(floats)})
    np.testing.assert_array_equal(cama.predict_proba(frame, do=None), expected)


def test_images_that_do_not_fit_are_errors() -> None:
    cama, given_ = fitted(), table()
    with pytest.raises(DataError, match=r"column 'i': found entries of shape \(6, 6\); expected shape \(1, 6, 6\)"):
        cama.predict({**given_, "i": given_["i"][:, 0]})
    with pytest.raises(DataError, match=r"column 'i': found intensities from .* expected 0 to 1: rescale them"):
        cama.predict({**given_, "i": given_["i"] * 255})


def test_an_image_with_a_missing_pixel_is_missing() -> None:
    cama, given_ = fitted(), table()
    some, whole = given_["i"].copy(), given_["i"].copy()
    some[3, 0, 2, 2] = whole[3] = np.nan
    found = cama.predict_proba({**given_, "i": some}, do=None)
    np.testing.assert_array_equal(found, cama.predict_proba({**given_, "i": whole}, do=None))
    clean = cama.predict_proba(given_, do=None)
    others = np.arange(12) != 3
    np.testing.assert_allclose(found[others], clean[others], atol=1e-5)
    assert np.isfinite(found).all()
    assert np.abs(found[3] - clean[3]).max() > 1e-3


def images_of(frame: pd.DataFrame) -> Any:
    return np.stack(list(frame["i"]))


def test_samples_and_reconstructions_are_images() -> None:
    cama = fitted("measured cause")
    frame = cama.sample(5, do={"y": "q", "i": np.zeros((1, 6, 6))})
    assert images_of(frame).shape == (5, 1, 6, 6)
    assert not images_of(frame).any()
    free = images_of(cama.sample(200))
    assert set(np.unique(free)) == {0.0, 1.0}
    built = images_of(cama.reconstruct(table()))
    assert built.shape == (12, 1, 6, 6)
    assert 0 < built.min() < built.max() < 1
    assert cama.elbo(table()).shape == (12,)


# fitting and adapting ------------------------------------------------------------------------------------------------


def test_simulated_images_are_images() -> None:
    cama = model("normal child")
    batch = rows(cama, 50)
    for scale in (0.1, 3.0):
        pushed = intervened(cama.model, batch, {"i": scale}).values["i"]
        assert pushed.shape == batch.values["i"].shape
        assert pushed.min() >= 0
        assert pushed.max() <= 1
        assert (pushed != batch.values["i"]).flatten(1).any(1).all()
    kinds = intervened(cama.model, batch, {"i": {"inversion": 1.0, "brightness": 0.0}}).values["i"]
    same = torch.isclose(kinds, batch.values["i"]).flatten(1).all(1)
    inverted = torch.isclose(kinds, 1 - batch.values["i"]).flatten(1).all(1)
    assert (same ^ inverted).all()  # of the kinds each row gets one
    assert 10 < int(same.sum()) < 40
    assert intervened(cama.model, batch, {}).values["i"] is batch.values["i"]


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ({"i": {"wobble": 1.0}}, r"fit\(interventions=\.\.\.\)\(kind='wobble'\): expected one of"),
        ({"i": {"rotation": 400}}, r"fit\(interventions=\.\.\.\)\(severity of rotation=400\)"),
        ({"i": {}}, r"expected a mapping of at least one kind"),
        ({"x": {"rotation": 20}}, r"'x' is continuous; expected a number, since kinds of manipulations are an image's"),
        ({"i": 0.0}, r"fit\(interventions\['i'\]=0.0\): expected a finite number above 0, or severities by kind"),
        ({"i": "rotation"}, r"fit\(interventions\['i'\]='rotation'\): expected"),
        ({"i": None}, r"fit\(interventions\['i'\]=None\): expected"),
        ({"i": ["rotation"]}, r"fit\(interventions\['i'\]=\['rotation'\]\): expected"),
        ({"i": np.inf}, r"fit\(interventions\['i'\]=inf\): expected"),
        ({"rotation": 20}, r"\['rotation'\] cannot be .*; did you mean \{'i': \{'rotation': 20\}\}\?"),
        ("rotation", r"fit\(interventions='rotation'\): expected a finite number above 0, or a mapping"),
        ([("i", 1)], r"fit\(interventions=\[\('i', 1\)\]\): expected"),
        (np.inf, r"fit\(interventions=inf\): expected a finite number above 0"),
    ],
)
def test_interventions_that_do_not_fit_are_errors(interventions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model("cause").fit(table(), interventions=interventions, **QUICK)


def state(cama: CAMA) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cama.modules.state_dict().items()}


def test_adapting_a_mixed_graph_under_a_shared_m() -> None:
    """Moments for the number beside the image, and the alternatives of both: the negative, the reversed scale."""
    nodes, edges = {"i": BERNOULLI, "x": "continuous"}, ["y -> i", "y -> x"]
    cama = small(spec(nodes, edges, {"scope": "dataset", "mechanism": {"i": "intensity"}}), hidden=8, device="cpu")
    cama.fit(table(60), max_epochs=30, lr=1e-2, conditional_weight=0.0, **QUICK)
    new = table(40, seed=1)
    new = {"i": 1 - new["i"], "x": new["x"] + 3}
    before = state(cama)
    options: dict[str, Any] = {"steps": 10, "samples": 1, "folds": 2, **QUICK}
    copy = cama.adapt(new, restarts=2, keep="always", **options)
    assert len(copy.adaptation.theta[0]) == 2 + 4
    assert len(copy.adaptation.replicates) == 2
    assert copy.adaptation.start == "moments"
    group = next(group for group in copy.model.groups if group.image)
    with torch.no_grad():
        m = copy.guide.m_posterior()[0][0]
        theta = copy.manipulation.theta(copy.manipulation(m), group)
    gain, offset = 1 + float(theta[0]), float(theta[1])
    assert gain == pytest.approx(-1.0, abs=0.25)  # found to be negatives
    assert offset == pytest.approx(1.0, abs=0.25)
    assert all(torch.equal(value, before[name]) for name, value in state(cama).items())
    np.testing.assert_array_equal(copy.predict_proba(new, do={"m": 0.0}), cama.predict_proba(new, do={"m": 0.0}))


@functools.cache
def digits() -> tuple[CAMA, dict[str, Any], dict[str, Any]]:
    """A model of scikit-learn's digits that knows vertical shifts; held-out rows, clean and shifted."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, y = (bunch.images[:, None] / 16).astype(np.float32), bunch.target
    order = np.random.default_rng(0).permutation(len(y))
    train, held = order[:400], order[-200:]
    node = {"type": "image", "shape": [1, 8, 8], "channels": 4}
    raw: Spec = {
        "target": "y",
        "nodes": {"y": {"type": "categorical", "levels": list(range(10))}, "i": node},
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 4}, "m": {"dim": 3}},
    }
    cama = build(raw, hidden=16, layers=1, device="cpu").fit(
        {"i": images[train], "y": y[train]},
        interventions={"i": {"vertical_shift": 0.25}},
        max_epochs=8, lr=2e-2, batch_size=16, validation=0.0, conditional_share=1.0, **QUICK,
    )  # fmt: skip
    shifted = manipulate(torch.from_numpy(images[held]), "vertical_shift", 0.25, seed=0).numpy()
    return cama, {"i": images[held], "y": y[held]}, {"i": shifted, "y": y[held]}


def test_digits_are_learned_and_shifts_inferred() -> None:
    cama, clean, shifted = digits()
    assert cama.score(clean, do={"m": 0.0}) > 0.8
    assert cama.score(clean) > 0.8
    blind, seeing = cama.score(shifted, do={"m": 0.0}), cama.score(shifted)
    assert blind < 0.65
    assert seeing > blind + 0.15
    assert cama.m_trained


def test_adapting_to_digits_touches_nn_pm_and_nn_qm_alone() -> None:
    cama, clean, shifted = digits()
    before = state(cama)
    options: dict[str, Any] = {"steps": 10, "batch_size": 16, "keep": "always", **QUICK}
    copy = cama.adapt({"i": shifted["i"]}, {"i": clean["i"][:50], "y": clean["y"][:50]}, **options)
    ours = {id(parameter) for parameter in copy.manipulation_parameters().values()}
    tensors = copy.modules.state_dict(keep_vars=True)
    moved = {name for name, value in tensors.items() if not torch.equal(value, before[name])}
    free = {name for name, value in tensors.items() if id(value) in ours}
    assert moved <= free
    assert {name for name in free if name.endswith("weight")} <= moved  # a last bias is taken off again: theta(0) = 0
    assert all(torch.equal(value, before[name]) for name, value in state(cama).items())
    none = {"m": 0.0}
    for rows_ in (clean, shifted):  # do(m=0) predicts as before, to the last bit
        np.testing.assert_array_equal(copy.predict_proba(rows_, do=none), cama.predict_proba(rows_, do=none))
    assert not np.array_equal(copy.predict_proba(shifted), cama.predict_proba(shifted))
    adaptation = copy.adaptation
    assert adaptation.applied
    assert adaptation.rows == 200
    assert adaptation.replicates == ()  # a fifth was held out, and nothing folded
    assert str(copy.explain_shift()).startswith("uncertainty unknown: adapting with 4 folds gives intervals; ")
    assert len(adaptation.theta[0]) == 6
    assert math.isfinite(adaptation.evidence_after)


def test_missing_images_are_nothing_to_adapt_to() -> None:
    with pytest.raises(DataError, match=r"adapt: found no reading of 'i' in the new rows \(20 looked at\)"):
        digits()[0].adapt({"i": [None] * 20}, **QUICK)


def test_images_have_defaults_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start, and no folds; what was not accepted predicts as before."""
    cama, _, shifted = digits()
    seen: list[dict[str, Any]] = []

    def nothing(stages: Any, modules: Any, parameters: Any, minibatches: Any, **options: Any) -> None:
        (stage,) = stages
        seen.append({**vars(minibatches), "lr": stage.lr, "max_epochs": stage.epochs})

    monkeypatch.setattr(module_at("adaptation.adapt"), "optimise", nothing)
    copy = cama.adapt({"i": shifted["i"]}, **QUICK)
    found = {name: seen[0][name] for name in ("rows", "batch_size", "lr", "steps", "max_epochs")}
    assert found == {"rows": 160, "batch_size": 32, "lr": 2e-3, "steps": 10, "max_epochs": 20}
    assert len(seen) == 1
    assert not copy.adaptation.accepted
    assert copy.adaptation.start == "here"
    np.testing.assert_array_equal(copy.predict_proba(shifted), cama.predict_proba(shifted))
    cama.adapt({"i": shifted["i"]}, restarts=2, folds=3, steps=40, samples=2, batch_size=50, lr=0.1, **QUICK)
    assert len(seen) == 1 + 2 + 3
    assert [call["rows"] for call in seen[1:3]] == [200, 200]
    assert {(call["batch_size"], call["lr"], call["max_epochs"]) for call in seen[1:]} == {(50, 0.1, 4)}


@pytest.mark.parametrize(("count", "counted"), [(50, 50), (200, 200), (3, 3)])
def test_classes_are_counted_on_more_than_what_is_held_out(
    count: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten held-out digits lack a class or two whatever was done to them."""
    cama, _, shifted = digits()
    monkeypatch.setattr(module_at("adaptation.adapt"), "optimise", lambda *_, **__: None)
    seen: list[tuple[int, int, int]] = []

    def examined(cama: CAMA, start: str, new: Batch, every: Batch, *rest: Any, **options: Any) -> Any:
        assert torch.equal(every.values["i"][: new.rows], new.values["i"])
        found = examine(cama, start, new, every, *rest, **options)
        seen.append((len(found.labels), len(found.evidence), found.counted))
        return found

    monkeypatch.setattr(module_at("adaptation.adapt"), "examine", examined)
    copy = cama.adapt({"i": shifted["i"][:count]}, **QUICK)
    held = max(math.ceil(count / 5), 1) if count >= 4 else count
    assert {*seen} == {(held, held, counted)}
    assert sum(copy.adaptation.proportions_after) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("count", "kept"), [(4, 1), (200, 40), (20_000, 500)])
def test_with_one_fold_a_part_is_kept_from_adaptation(count: int, kept: int) -> None:
    rows_, held = hold_out(count, 1, seed=3)
    assert len(held) == kept
    assert sorted([*rows_.tolist(), *held.tolist()]) == list(range(count))
    for all_rows in (*hold_out(count, 4, seed=3), *hold_out(3, 1, seed=3)):
        assert all_rows.tolist() == list(range(len(all_rows)))


def test_a_random_start_forgets_what_m_means_and_nothing_else() -> None:
    cama, clean, shifted = digits()
    copy, batch = cama.copy(), cama.encode({"i": shifted["i"]})
    assert begin_at(copy, batch, None, 0, 10) == "here"
    assert all(torch.equal(value, state(copy)[name]) for name, value in state(cama).items())
    assert begin_at(copy, batch, None, 2, 10) == "random 2"
    before = cama.manipulation_parameters()
    assert not any(torch.equal(value, before[name]) for name, value in copy.manipulation_parameters().items())
    none = {"m": 0.0}
    np.testing.assert_array_equal(copy.predict_proba(clean, do=none), cama.predict_proba(clean, do=none))


def test_predictions_of_images_are_each_rows_own() -> None:
    cama, _, shifted = digits()
    together = cama.predict_proba({"i": shifted["i"][:20]})
    np.testing.assert_array_equal(cama.predict_proba({"i": shifted["i"][:20]}), together)
    np.testing.assert_allclose(cama.predict_proba({"i": shifted["i"][7:8]})[0], together[7], atol=1e-5)
    backwards = cama.predict_proba({"i": shifted["i"][:20][::-1].copy()})[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-5)


def test_a_stored_model_of_images_predicts_the_same(tmp_path: Path) -> None:
    cama, clean, shifted = digits()
    cama.save(tmp_path / "digits")
    loaded = pyro_cama.load(tmp_path / "digits", device="cpu")
    for rows_ in (clean, shifted):
        np.testing.assert_array_equal(loaded.predict_proba(rows_), cama.predict_proba(rows_))
    np.testing.assert_array_equal(images_of(loaded.sample(3)), images_of(cama.sample(3)))


# attacks -------------------------------------------------------------------------------------------------------------


def test_the_logits_of_images_are_those_of_predictions() -> None:
    cama, clean, _ = digits()
    part = AttackableTable(cama, {name: column[:20] for name, column in clean.items()}, samples=4)
    assert part.x.shape == (20, 64)
    assert part.columns[:2] == ("i[0]", "i[1]")
    expected = cama.predict_proba({"i": clean["i"][:20]}, samples=4)
    np.testing.assert_allclose(part.logits(part.x).detach().exp().numpy(), expected, atol=1e-5)
    x = part.x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(part.logits(x).square().sum(), x)
    assert slope.isfinite().all()
    assert slope.any(1).all()


def test_attacks_on_images_stay_within_ball_and_bounds_and_work() -> None:
    cama, clean, _ = digits()
    part = AttackableTable(cama, {name: column[:60] for name, column in clean.items()}, samples=2, do={"m": 0.0})
    assert part.y is not None
    options: dict[str, Any] = {"eps": 0.2, "bounds": (0, 1), "mask": part.mask}
    scores = [float((part.logits(part.x).argmax(1) == part.y).float().mean())]
    for x in (fgsm(part.logits, part.x, part.y, **options), pgd(part.logits, part.x, part.y, steps=4, **options)):
        assert (x - part.x).abs().max() <= 0.2 + 1e-6
        assert x.min() >= 0
        assert x.max() <= 1
        scores.append(float((part.logits(x).argmax(1) == part.y).float().mean()))
        frame = part.table(x)
        assert cama.score(frame, samples=2, do={"m": 0.0}) == pytest.approx(scores[-1], abs=1e-6)
    assert scores[0] > 0.8
    assert scores[1] < scores[0] - 0.2
    assert scores[2] <= scores[1]


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_tables_of_attacked_images_come_back(frame: bool, dtype: Any) -> None:
    """The rows that are as they were stay readable beside those that are not: bytes turn into floats."""
    cama, given_ = fitted(), table()
    images = (given_["i"] * 255).astype(np.uint8) if dtype is np.uint8 else given_["i"].astype(dtype)
    images = images.astype(np.float64) if dtype is np.float64 else images
    if dtype is not np.uint8:
        images[5] = np.nan
    data = {**given_, "i": images}
    part = AttackableTable(cama, pd.DataFrame({**data, "i": list(images)}) if frame else data)
    assert part.nodes == ("i", "x")
    assert part.mask.all(1).tolist() == [i != 5 or dtype is np.uint8 for i in range(12)]
    low, high = part.bounds  # intensities have limits, the number beside them has none
    assert low.tolist() == [0.0] * (len(low) - 1) + [-np.inf]
    assert high.tolist() == [1.0] * (len(low) - 1) + [np.inf]
    freely = fgsm(part.logits, part.x, torch.zeros(12, dtype=torch.long), eps=0.3, mask=part.mask, bounds=part.bounds)
    assert ((freely - part.x)[:, -1].abs() > 0.29).all()
    assert freely[part.mask.all(1)][:, :-1].min() >= 0
    same = part.table(part.x)
    for i in range(12):
        np.testing.assert_array_equal(same["i"][i], images[i])
    x = part.x.clone()
    x[0, :3] = 0.25
    x[1, -1] += 1.0
    again = AttackableTable(cama, part.table(x))
    torch.testing.assert_close(again.x[part.mask], x[part.mask], atol=1e-6, rtol=0)
    assert torch.equal(again.mask, part.mask)
    with pytest.raises(ValueError, match=r"\['y'\] have no gradient to attack along; expected numbers or images"):
        AttackableTable(cama, data, ["y"])


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_refined_reading_has_the_gradient_of_what_was_found(power: float) -> None:
    """The proposal is found anew for the attacked image, and then held."""
    with in_double():
        cama = tiny("intensity")
        images = rows(cama, 3).values["i"]
        cama.fit({"y": np.array(["p", "q", "r"]), "i": images.numpy()}, max_epochs=0, progress=False)
        budget = PredictionOptions(samples=3, refine=2, refine_z=4, power=power)
        part = AttackableTable(cama, {"i": images.numpy()}, do=None, **asdict(budget))
        x = (0.9 * part.x + 0.05).requires_grad_(True)
        logits = part.logits(x)
        (slope,) = torch.autograd.grad(logits[:, 0].sum(), x)

        moved = x.detach().reshape(images.shape).requires_grad_(True)
        batch = Batch({"i": moved}, {}, None, 3)
        with common_noise(cama.settings.seed):
            with torch.no_grad():
                held = proposals(cama, batch, None, budget)
            assert set(held) == {"z", "m"}
            weights = cama.log_weights(batch, samples=3, classes=True, proposals=held, power=power)
        expected = class_log_probs(weights).T
        torch.testing.assert_close(logits, expected, atol=1e-8, rtol=1e-8)
        (other,) = torch.autograd.grad(expected[:, 0].sum(), moved)
        torch.testing.assert_close(slope, other.flatten(1), atol=1e-8, rtol=1e-8)
        assert slope.abs().min() > 0
