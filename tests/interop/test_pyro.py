"""Pyro's own inference over a fitted model whose networks are frozen."""

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive
from pyro.infer.inspect import get_model_relations

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


def test_pyro_finds_the_graphs_own_relations() -> None:
    graph = GRAPH | {"edges": ["y -> x", "y -> w", "x -> w"], "latents": {"z": {"dim": 1}, "m": {"scope": "dataset"}}}
    rows = pyro_cama.StructuralModel(GRAPH, seed=0).sample(50, seed=1)
    cama = pyro_cama.build(graph, hidden=8, device="cpu").fit(rows, max_epochs=1, progress=False)
    found = get_model_relations(cama.model, model_args=(cama.encode(rows[:3]),))
    causes = {name: set(parents) for name, parents in found["sample_sample"].items()}
    assert causes == {"m": set(), "z": set(), "y": set(), "x": {"y", "z", "m"}, "w": {"y", "x", "z", "m"}}
    assert found["observed"] == ["y", "x", "w"]
    pytest.importorskip("graphviz")
    drawn = pyro.render_model(cama.model, model_kwargs={"rows": 3}).source
    assert {"x -> w", "z -> w", "m -> x"} <= {line.strip() for line in drawn.splitlines()}
