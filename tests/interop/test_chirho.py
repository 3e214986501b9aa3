"""ChiRho's handlers over the generative model: interventions, and worlds side by side."""

import pandas as pd
import pyro
import pytest
import torch

import pyro_cama
from pyro_cama import CAMA

pytest.importorskip("chirho")
pytestmark = pytest.mark.filterwarnings("ignore")

from chirho.counterfactual.handlers import MultiWorldCounterfactual  # noqa: E402
from chirho.interventional.handlers import do  # noqa: E402

GRAPH = {
    "target": "y",
    "nodes": {"y": "binary", "c": "continuous", "x": "continuous", "w": "continuous"},
    "edges": ["y -> x", "y -> w", "c -> x", "x -> w"],
    "latents": {"z": None, "m": {"scope": "dataset"}},
}


@pytest.fixture(scope="module")
def cama() -> CAMA:
    rows: pd.DataFrame = pyro_cama.StructuralModel(GRAPH, seed=0).sample(200, seed=1)
    return pyro_cama.build(GRAPH, hidden=8, device="cpu").fit(rows, max_epochs=5, lr=1e-2, progress=False)


def test_do_is_pyros_own(cama: CAMA) -> None:
    x = torch.full((6,), 2.0)
    pyro.set_rng_seed(0)
    with do(actions={"x": x}):
        found = cama.model(rows=6)
    pyro.set_rng_seed(0)
    expected = pyro.poutine.do(cama.model, {"x": x})(rows=6)
    torch.testing.assert_close(found["w"], expected["w"])
    torch.testing.assert_close(found["x"], x)


def test_worlds_share_what_the_intervention_does_not_reach(cama: CAMA) -> None:
    with MultiWorldCounterfactual(), do(actions={"x": torch.full((6,), 2.0)}), pyro.poutine.trace() as trace:
        cama.model(rows=6)
    nodes = trace.trace.nodes
    assert {nodes[name]["value"].shape for name in ("y", "c")} == {(6,)}, "these are the same in both"
    assert nodes["w"]["value"].shape == (2, 1, 1, 1, 6), "as it was, and under do(x)"
