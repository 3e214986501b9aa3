"""Log-weights and class probabilities of images: two ways, densities by hand, eq. 6 by quadrature, and at what cost."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.bounds import class_log_probs, importance_bound, marginal, mean_bound
from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import MIN_PROBABILITY, MIN_SCALE
from pyro_cama.mechanisms.image import ImageMechanism
from tests.helpers.gradients import both_ways
from tests.helpers.images import (
    BERNOULLI,
    NORMAL,
    ROLES,
    Spec,
    digits,
    fitted,
    images_of,
    joint,
    model,
    rows,
    shaken,
    spec,
    table,
    tiny,
)
from tests.helpers.networks import calls, networks
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import small

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
    traced = images_through(features, functools.partial(log_weights, cama.model, cama.guide, batch, trace=True))
    # once more for the posterior of a linear style, which Pyro's program of the guide works out by itself
    assert traced == [4] * (2 if cama.graph.z is not None and cama.graph.z.effect == "linear" else 1)


def test_a_measured_cause_is_encoded_once_a_draw_of_m() -> None:
    cama = model("measured cause")
    run = functools.partial(log_weights, cama.model, cama.guide, rows(cama, 4), samples=5, classes=True)
    assert images_through(networks(cama.model)["features"].networks["i"], run) == [4 * 5]


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


def test_predictions_of_images_are_each_rows_own() -> None:
    cama, _, shifted = digits()
    together = cama.predict_proba({"i": shifted["i"][:20]})
    np.testing.assert_array_equal(cama.predict_proba({"i": shifted["i"][:20]}), together)
    np.testing.assert_allclose(cama.predict_proba({"i": shifted["i"][7:8]})[0], together[7], atol=1e-5)
    backwards = cama.predict_proba({"i": shifted["i"][:20][::-1].copy()})[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-5)


@pytest.mark.parametrize("trace", [False, True])
def test_paired_draws_differ_between_classes_as_their_posteriors_do(trace: bool) -> None:
    """Where nothing of the class reaches z or the image, all that is left of the weights is log p(y)."""
    cama = small(spec({"i": BERNOULLI}, ["y -> i"]), hidden=8, layers=1)
    with torch.no_grad():
        networks(cama.guide)["encoder"].projections["target"].weight.zero_()
        networks(cama.model)["merges"][1].projections["y"].weight.zero_()
    batch, zero = rows(cama, 5), {"m": 0.0}
    paired, apart = (
        log_weights(cama.model, cama.guide, batch, do=zero, samples=4, classes=True, trace=trace, paired=paired).w
        for paired in (True, False)
    )
    prior = torch.log_softmax(networks(cama.model)["merges"][0].bias, 0)
    torch.testing.assert_close(
        paired - paired[:, :1], (prior - prior[:1])[:, None].expand_as(paired), atol=1e-4, rtol=0
    )
    assert (apart - apart[:, :1] - (prior - prior[:1])[:, None])[:, 1:].abs().min() > 1e-3
    assert paired.std(0).min() > 1e-3  # over draws
