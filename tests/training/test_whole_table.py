"""Tables of a linear style are fitted whole, from a closed-form start, without draws and without Lightning."""

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_cama.training.fit as fit_module
from pyro_cama import CAMA, build
from pyro_cama.training.closed_form import start_style
from pyro_cama.training.objective import fit_loss
from tests.helpers.precision import in_double
from tests.helpers.training import COLUMNS, GRAPH, table


def spec(**style: Any) -> dict[str, Any]:
    latents = {"z": {"dim": 2, "effect": "linear", "loadings": "class", **style}, "m": {"dim": 3, "scope": "dataset"}}
    return {**GRAPH, "latents": latents}


def styled(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Two classes whose columns share two factors, other ones in each class."""
    rng = np.random.default_rng(seed)
    frame = table(rows, seed)
    factors = np.random.default_rng(7).normal(size=(2, 2, len(COLUMNS)))
    style = np.einsum("rf,rfc->rc", rng.normal(size=(rows, 2)), factors[frame["y"]])
    frame[COLUMNS] += style
    return frame


def fitted(data: Any = None, graph: Any = None, **options: Any) -> CAMA:
    cama = build(graph or spec(), seed=3, hidden=8, device="cpu")
    return cama.fit(styled() if data is None else data, progress=False, **options)


def weights(cama: CAMA) -> list[torch.Tensor]:
    return list(cama.modules.state_dict().values())


@pytest.mark.parametrize("loadings", ["class", "shared"])
def test_the_fit_ends_where_no_gradient_is_left(loadings: str) -> None:
    with in_double():
        cama = build(spec(loadings=loadings), seed=3, hidden=8, device="cpu")
        cama.fit(styled(), progress=False, conditional_weight=0.0, validation=0.0, max_epochs=500)
        loss = fit_loss(
            cama.model, cama.guide, None, mixing=0.5, interventions=None, conditional_weight=0.0, samples=1
        )  # fmt: skip
        value = loss(cama.encode(styled()))
        value.backward()
    gradients = [p.grad.abs().max() for p in cama.model.parameters() if p.grad is not None]
    assert float(max(gradients)) < 5e-3


def test_it_recovers_the_covariances_that_the_rows_have() -> None:
    data = styled(4000)
    cama = fitted(data, conditional_weight=0.0)
    drawn = cama.sample(20_000, do={"m": 0.0})
    for y in (0, 1):
        expected, found = data[data["y"] == y][COLUMNS].cov(), drawn[drawn["y"] == y][COLUMNS].cov()
        assert np.abs(found - expected).to_numpy().max() < 0.12 * np.abs(expected).to_numpy().max()
        gap = data[data["y"] == y][COLUMNS].mean() - drawn[drawn["y"] == y][COLUMNS].mean()
        assert gap.abs().max() < 0.15


def test_the_start_is_the_factor_model_of_the_residuals() -> None:
    data = styled(2000)
    cama = build(spec(), seed=3, device="cpu")
    cama.take_encoder(cama.encoder.fit(data))
    batch = cama.encode(data)
    start_style(cama.model, batch)
    (group,) = [group for group in cama.model.groups if group.linear_z]
    x, y = group.stack(batch.values).double(), batch.values["y"]
    for label in (0, 1):
        own = x[y == label]
        loadings = cama.model.loadings(group).factors[label].double()
        scale = torch.nn.functional.softplus(cama.model.constants(group)[label, :, 0].double()) + 0.01
        found = loadings @ loadings.T + torch.diag(scale.square())
        torch.testing.assert_close(cama.model.loadings(group).means[label].double(), own.mean(0), atol=5e-3, rtol=0)
        torch.testing.assert_close(found.diagonal(), own.T.cov().diagonal(), rtol=0.1, atol=0.02)
        assert float((found - own.T.cov()).detach().norm() / own.T.cov().norm()) < 0.35


def test_missing_entries_and_labels_a_constant_column_and_a_rare_class_are_no_obstacle() -> None:
    data = styled(200)
    data[COLUMNS[0]] = 3.0
    data.loc[::4, COLUMNS[1]] = np.nan
    data.loc[data.index[data["y"] == 1][2:], "y"] = 0
    data["y"] = data["y"].astype(object)
    data.loc[::9, "y"] = None
    cama = fitted(data)
    assert np.isfinite(cama.predict_proba(data)).all()


def test_the_same_rows_give_the_same_weights_and_another_order_of_columns_nothing_else() -> None:
    one, other = fitted(), fitted()
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    shuffled = fitted(styled()[[*reversed(COLUMNS), "y"]])
    np.testing.assert_allclose(shuffled.predict_proba(styled()), one.predict_proba(styled()), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"batch_size": 32}, {"lr": 0.01}, {"trainer_kwargs": {"max_epochs": 1}}, {"anneal": True}]
)
def test_options_of_minibatches_ask_for_minibatches(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("fitted whole")

    monkeypatch.setattr(fit_module, "minimise", whole)
    assert fitted(max_epochs=1, **options).history is not None


def test_checkpoints_ask_for_minibatches(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "minimise", lambda *args, **kwargs: pytest.fail("fitted whole"))
    fitted(max_epochs=1, checkpoints=tmp_path)
    assert (tmp_path / "last.ckpt").exists()


def test_large_tables_are_read_in_parts_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fitted(max_epochs=20).predict_proba(styled(50, 1))
    monkeypatch.setattr(fit_module, "WHOLE", 600)
    seen: list[int] = []
    original = fit_module.minimise

    def watched(stage: Any, parts: Any, parameters: Any, **options: Any) -> Any:
        seen.extend(part.rows for part in parts)
        return original(stage, parts, parameters, **options)

    monkeypatch.setattr(fit_module, "minimise", watched)
    found = fitted(max_epochs=20).predict_proba(styled(50, 1))
    assert seen == [50] * 6 + [40]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_second_fit_goes_on_from_the_first() -> None:
    cama = fitted(max_epochs=5)
    before = cama.history
    cama.fit(styled(), progress=False, max_epochs=5)
    assert before is not None
    assert cama.history is not None
    assert cama.history.rows[0]["loss"] <= before.rows[0]["loss"]


def test_no_epoch_leaves_the_closed_form_start() -> None:
    cama = fitted(max_epochs=0)
    assert cama.score(styled(300, 1)) > 0.7
    assert cama.history is not None
    assert len(cama.history.rows) == 1


def test_a_stop_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cama = build(spec(), seed=3, hidden=8, device="cpu")
    before = [value.clone() for value in weights(cama)]
    calls = []

    def stopped(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    original = fit_module._validate
    monkeypatch.setattr(fit_module, "_validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        cama.fit(styled(), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(weights(cama), before, strict=True))
    assert not cama.encoder.fitted


def test_a_loss_that_is_not_finite_is_told() -> None:
    cama = fitted(max_epochs=0)
    with torch.no_grad():
        next(cama.model.networks["loadings"].parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="fit: the loss is nan at the start"):
        cama.fit(styled(), progress=False)


def test_it_does_not_import_lightning() -> None:
    code = """
import sys, pyro_cama
graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"],
         "latents": {"z": {"dim": 1, "effect": "linear"}, "m": {"scope": "dataset"}}}
rows = {"y": [0, 1] * 40, "x": [0.1 * (i % 7) + i % 2 for i in range(80)]}
pyro_cama.build(graph, device="cpu").fit(rows, progress=False).adapt({"x": rows["x"]}, progress=False)
sys.exit("lightning" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
