"""ChiRho's handlers over the generative model: interventions, and worlds side by side."""

from typing import Any

import numpy as np
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

from tests.inference.test_reconstruction import plant  # noqa: E402

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


# counterfactuals of rows ----------------------------------------------------------------------------------------------


def asked(cama: CAMA, rows: pd.DataFrame, actions: dict[str, torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
    """Both worlds of every node that an intervention reaches, ``(2, samples, rows)``; of others as it was."""
    program = cama.as_program(rows, **options)
    with MultiWorldCounterfactual(), do(actions=actions):
        worlds = program()
    return {name: value.detach().squeeze(-2).squeeze(1) for name, value in worlds.items()}


@pytest.fixture(scope="module")
def styled() -> CAMA:
    graph = GRAPH | {"latents": {"z": {"dim": 2}, "m": {"scope": "dataset"}}}
    rows = pyro_cama.StructuralModel(GRAPH, seed=0).sample(200, seed=1)
    return pyro_cama.build(graph, hidden=8, device="cpu").fit(rows, max_epochs=5, progress=False)


def test_had_the_class_been_another_the_noise_had_been_the_same(styled: CAMA) -> None:
    cama, rows = styled, pyro_cama.StructuralModel(GRAPH, seed=0).sample(20, seed=2)
    batch = cama.encode(rows)
    other = 1 - batch.values["y"]
    found = asked(cama, rows, {"y": other}, samples=7)
    assert found["c"].shape == (7, 20), "no world reaches it"
    for name in ("x", "w"):
        torch.testing.assert_close(found[name][0], batch.values[name].expand(7, 20))
    assert torch.equal(found["y"][1], other.expand(7, 20))

    program = cama.as_program(rows, samples=7)  # the same draws of z, held, and what each class makes of them
    with pyro.poutine.trace() as held, pyro.poutine.block(hide_types=["param"]):
        program()
    z = held.trace.nodes["z"]["value"]

    def locations(values: dict[str, torch.Tensor]) -> dict[str, Any]:
        given = pyro.poutine.condition(cama.model, {"z": z, "m": torch.zeros(4)})
        nodes = pyro.poutine.trace(given).get_trace(values, samples=7).nodes
        return {name: nodes[name]["fn"] for name in ("x", "w")}

    was = locations(batch.values)
    changed = batch.values | {"y": other}
    then = locations(changed)
    x = then["x"].loc + (batch.values["x"] - was["x"].loc) / was["x"].scale * then["x"].scale
    torch.testing.assert_close(found["x"][1], x.squeeze(1).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scope", ["dataset", "row", "site"])
def test_under_m_zero_a_reading_is_as_before_the_instrument_moved(scope: str) -> None:
    graph = GRAPH | {"latents": {"z": {"dim": 1}, "m": {"scope": scope, "children": ["w"]}}}
    rows = pyro_cama.StructuralModel(GRAPH, seed=0).sample(100, seed=1).assign(site="a")
    cama = pyro_cama.build(graph, hidden=8, device="cpu").fit(rows, max_epochs=2, progress=False)
    program = cama.as_program(rows[:10], samples=3)
    with pyro.poutine.trace() as trace:
        program()
    assert not bool(trace.trace.nodes["m"]["value"].any()), "no m was learned: rows are read as clean"

    theta, m = torch.tensor([[0.3, 2.0, 0.0, 0.0]])[:, : cama.manipulation.size], torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    cama.manipulation.solve_for(m, theta)
    plant(cama, m[0])
    if scope == "site":  # where rows were adapted to
        cama.guide.m_posterior.share.fill_(1.0)
    found = asked(cama, rows[:10], {"m": torch.zeros(4)}, samples=3)
    measured = cama.encode(rows[:10]).values["w"]
    torch.testing.assert_close(found["w"][0], measured.expand(3, 10))
    gain = cama.manipulation.groups[0].mechanism.line(theta[0])
    expected = gain.slope * measured + gain.offset
    torch.testing.assert_close(found["w"][1], expected.detach().expand(3, 10), atol=0.03, rtol=0.0)
    assert found["x"].shape == (3, 10), "m does not reach it"


def test_what_is_not_known_is_drawn_and_what_is_stays(styled: CAMA) -> None:
    cama, rows = styled, pyro_cama.StructuralModel(GRAPH, seed=0).sample(12, seed=2)
    holes = rows.astype({"y": "object"}).assign(x=rows["x"].where(np.arange(12) > 3))
    holes.loc[0, "y"] = None
    found = asked(cama, holes, {"c": torch.full((12,), 2.0)}, samples=50)
    x = found["x"][0]
    assert bool((x.std(0)[:4] > 0.01).all())
    assert bool((x.std(0)[4:] == 0).all())
    known = cama.encode(rows).values["y"][1:]
    assert torch.equal(found["y"][:, 1:], known.expand(50, 11))


def test_the_program_is_the_model(styled: CAMA) -> None:
    cama = styled
    batch = cama.encode(pyro_cama.StructuralModel(GRAPH, seed=0).sample(12, seed=2))
    given = batch.values | {"z": torch.ones(12, 2), "m": torch.ones(4)}
    held = [pyro.poutine.condition(program, data=given) for program in (cama.model, cama.as_program())]
    one, other = (pyro.poutine.trace(program).get_trace(rows=12).log_prob_sum() for program in held)
    torch.testing.assert_close(one, other)


def world(rows: int, seed: int, *, other: bool = False) -> pd.DataFrame:
    """y -> x <- c and (x, y) -> w, of the same noise had the class been the other."""
    rng = np.random.default_rng(seed)
    y, (c, own, last) = rng.integers(0, 2, rows), rng.normal(size=(3, rows))
    y = 1 - y if other else y
    x = 3.0 * y + c + own
    return pd.DataFrame({"y": y, "c": c, "x": x, "w": 0.8 * x - 2.0 * y + 0.5 * last})


def test_what_the_readings_would_have_been_is_found() -> None:
    cama = pyro_cama.build(GRAPH, hidden=16, device="cpu").fit(world(1000, 1), max_epochs=30, lr=1e-2, progress=False)
    rows, truth = world(200, 2), world(200, 2, other=True)
    other = torch.tensor(truth["y"].to_numpy(), dtype=torch.float32)
    found = asked(cama, rows, {"y": other}, samples=4)
    for name in ("x", "w"):
        then = cama.encoder.decode(name, found[name][1].mean(0))
        assert np.sqrt(np.mean((then - truth[name]) ** 2)) < 0.5, "1 where each world has noise of its own"
