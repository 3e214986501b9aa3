"""Standard noise mapped to values is the distribution it was."""

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.structural import from_noise
from pyro_cama.mechanisms.affine import Affine
from pyro_cama.mechanisms.base import Mechanism

LOC, SCALE = torch.tensor([0.5, -2.0, 0.0]), torch.tensor([1.0, 0.3, 2.0])


def moved(clean: dist.TorchDistribution, mechanism: Mechanism) -> dist.TorchDistribution:
    return mechanism.transform(clean, torch.full((mechanism.size(Node("x", "continuous")),), 0.4))


@pytest.mark.parametrize(
    "d",
    [
        dist.Normal(LOC, SCALE),
        dist.Normal(LOC, SCALE).to_event(1),
        dist.StudentT(torch.tensor(4.0), LOC, SCALE),
        dist.Laplace(LOC, SCALE),
        dist.LogNormal(LOC, SCALE),
        moved(dist.Normal(LOC, SCALE), Affine()),
        moved(dist.Laplace(LOC, SCALE), Affine()),
        moved(dist.Laplace(LOC, SCALE), Affine()).to_event(1),
    ],
    ids=str,
)
def test_the_distribution_is_the_same_and_its_noise_knows_no_cause(d: dist.TorchDistribution) -> None:
    found = from_noise(d)
    assert isinstance(found, dist.TransformedDistribution)
    assert (found.batch_shape, found.event_shape) == (d.batch_shape, d.event_shape)
    value = d.sample()
    torch.testing.assert_close(found.log_prob(value), d.log_prob(value))
    noise = found.transforms[0].inv(value)
    torch.testing.assert_close(found.transforms[0](noise), value)
    inner = found.base_dist
    while hasattr(inner, "base_dist"):
        inner = inner.base_dist
    loc: Tensor = inner.loc
    assert not bool(loc.any())


@pytest.mark.parametrize("d", [dist.Bernoulli(torch.tensor(0.3)), dist.Categorical(torch.ones(3)), dist.Poisson(3.0)])
def test_what_has_no_such_map_stays(d: dist.TorchDistribution) -> None:
    assert from_noise(d) is d
