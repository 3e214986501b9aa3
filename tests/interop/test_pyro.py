"""Pyro's own inference over a fitted model whose networks are frozen."""

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive

import pyro_cama

GRAPH = {
    "target": "y",
    "nodes": {"y": "binary", "x": "continuous", "w": "continuous"},
    "edges": ["y -> x", "y -> w"],
    "latents": {"z": {"dim": 1}, "m": None},
}


@pytest.mark.filterwarnings("ignore")
def test_nuts_finds_the_posterior_that_a_grid_finds() -> None:
    rows = pyro_cama.StructuralModel(GRAPH, seed=0).sample(200, seed=1)
    cama = pyro_cama.build(GRAPH, hidden=8, device="cpu").fit(rows, max_epochs=5, lr=1e-2, progress=False)
    cama.model.requires_grad_(False)
    batch = cama.encode(rows[:3])
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(cama.model, jit_compile=False), num_samples=200, warmup_steps=50, disable_progbar=True)
    mcmc.run(batch)
    drawn = mcmc.get_samples()["z"]
    assert drawn.shape == (200, 3, 1)

    def log_density(z: float) -> torch.Tensor:
        held = pyro.poutine.condition(cama.model, {"z": torch.full((3, 1), z)})
        trace = pyro.poutine.trace(held).get_trace(batch)
        trace.compute_log_prob()
        return sum(site["log_prob"] for name, site in trace.nodes.items() if name in ("z", "y", "x", "w"))

    grid = torch.linspace(-5, 5, 101)
    weights = torch.stack([log_density(float(z)) for z in grid]).softmax(0)
    torch.testing.assert_close(drawn[..., 0].mean(0), (weights * grid[:, None]).sum(0), atol=0.3, rtol=0)
    found = Predictive(cama.model, mcmc.get_samples())(rows=3)
    assert found["x"].shape == (200, 3)
