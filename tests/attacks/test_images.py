"""Attacks on images that CAMA reads."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama.attacks.gradient import fgsm, pgd
from pyro_cama.attacks.tables import AttackableTable
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.bounds import class_log_probs
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.inference.proposals import proposals
from tests.helpers.images import digits, fitted, rows, table, tiny
from tests.helpers.precision import in_double


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
