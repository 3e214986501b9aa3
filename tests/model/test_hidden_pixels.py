"""Images over which something lies: what is hidden tells nothing, wherever the pair's rows are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.model.causes import Causes
from pyro_cama.model.groups import MovedGroup
from pyro_cama.networks.hidden_pixels import HiddenPixels
from pyro_cama.persistence import export
from pyro_cama.stream.reading import Reader


def digits(mechanism: str, dim: int = 8) -> CAMA:
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8], "channels": 4}},
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 2}, "m": {"dim": dim, "mechanism": mechanism}},
    }
    return pyro_cama.build(graph, hidden=8, layers=1, device="cpu", seed=0)


def fitted(mechanism: str = "warp+overlay") -> CAMA:
    return digits(mechanism).fit(table(40), max_epochs=1, progress=False)


def table(rows: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {"i": torch.rand(rows, 1, 8, 8, generator=generator).numpy(), "y": [k % 2 for k in range(rows)]}


def group_of(cama: CAMA) -> MovedGroup:
    (group,) = cama.manipulation.groups
    return group


HIDDEN = torch.zeros(1, 8, 8, dtype=torch.bool)
HIDDEN[:, 2:5] = True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has these pixels found hidden, in images whose first pixel is bright."""

    def logits(self: HiddenPixels, images: Tensor) -> Tensor:
        return torch.where(HIDDEN & (images[:, :, :1, :1] > 0.5), 5.0, -5.0).to(images)

    monkeypatch.setattr(HiddenPixels, "forward", logits)


def rows_of(x: Tensor) -> Batch:
    return Batch({"i": x, "y": torch.zeros(len(x))}, {}, None, len(x))


def bright(rows: int) -> Tensor:
    x = torch.rand(rows, 1, 8, 8)
    x[:, :, 0, 0] = 0.9
    return x


def test_what_has_left_the_frame_is_unknown_to_the_guide() -> None:
    """Shifted by two pixels to the right: nothing is known of the clean image's last two columns."""
    cama, x = digits("warp"), torch.rand(3, 1, 8, 8)
    group, theta = group_of(cama), torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])

    def undone(images: Tensor, theta: Tensor) -> Tensor:
        found = cama.manipulation.undo({"i": images}, theta, group)
        assert isinstance(found, dict)
        return found["i"]

    back = undone(x, theta)
    assert back[..., 6:].isnan().all()
    torch.testing.assert_close(back[..., :6], x[..., 2:], atol=0.05, rtol=0)  # bounded: 1.96 pixels
    again = undone(back, -theta)  # what was unknown stays so, where it comes to lie
    assert again[..., :2].isnan().all()
    assert not again[..., 2:].isnan().any()


@pytest.mark.usefixtures("told")
def test_something_lies_over_images_where_it_does_over_most() -> None:
    manipulation, x = digits("warp+overlay").manipulation, bright(10)
    assert manipulation.overlaid(rows_of(x)) == {"i"}
    x[4:, :, 0, 0] = 0.1
    assert manipulation.overlaid(rows_of(x)) == frozenset()
    there = {"i": torch.arange(10) < 4}  # of the rows that have an image all
    assert manipulation.overlaid(Batch({"i": x}, there, None, 10)) == {"i"}
    assert manipulation.overlaid(Batch({"i": x}, {"i": torch.zeros(10, dtype=torch.bool)}, None, 10)) == frozenset()
    assert digits("warp").manipulation.overlaid(rows_of(x)) == frozenset()


@pytest.mark.usefixtures("told")
def test_hidden_pixels_are_unknown_once_and_those_of_other_images_never() -> None:
    manipulation, x = digits("warp+overlay").manipulation, bright(4)
    assert torch.equal(manipulation.without_hidden(rows_of(x), []).values["i"], x)
    found = manipulation.without_hidden(rows_of(x), ["i"])
    assert found.unknown == {"i"}
    assert torch.equal(found.values["i"].isnan(), HIDDEN.expand(4, 1, 8, 8))
    assert manipulation.without_hidden(found, ["i"]) is found
    plain = digits("warp").manipulation
    assert torch.equal(plain.without_hidden(rows_of(x), ["i"]).values["i"], x)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("m", [None, 0.0, 1.0])
def test_hidden_pixels_tell_nothing(trace: bool, m: float | None) -> None:
    """Whatever lies there, log-weights are the same; where nothing is known to lie over images, they are not."""
    cama, x = fitted(), bright(4)
    other = torch.where(HIDDEN, torch.rand(4, 1, 8, 8), x)
    do = {} if m is None else {"m": m * torch.ones(8)}

    def weights(images: Tensor) -> Tensor:
        with common_noise(0), torch.no_grad():
            batch = cama.encode(rows_of(images))
            return log_weights(cama.model, cama.guide, batch, do=do, classes=True, trace=trace).w

    assert (weights(x) - weights(other)).abs().max() > 0.01
    cama.overlaid = frozenset({"i"})
    torch.testing.assert_close(weights(x), weights(other), atol=1e-4, rtol=0)


def test_copies_and_saved_models_see_the_same_and_a_fit_sees_all(tmp_path: Path) -> None:
    cama = fitted()
    cama.overlaid = frozenset({"i"})
    assert cama.copy().overlaid == {"i"}
    cama.save(tmp_path / "model")
    assert pyro_cama.load(tmp_path / "model").overlaid == {"i"}
    with pytest.raises(pyro_cama.DataError):
        cama.fit({"i": [1.0], "y": [0]}, max_epochs=1, progress=False)
    assert cama.overlaid == {"i"}
    assert cama.fit(table(40), max_epochs=1, progress=False).overlaid == frozenset()


@pytest.mark.usefixtures("told")
def test_an_adaptation_says_over_which_images_something_lies() -> None:
    """And its copy sees no hidden pixel, whatever became of m; one to other rows decides anew."""
    cama, new = fitted(), {"i": bright(30).numpy()}
    copy = cama.adapt(new, steps=10, restarts=1, progress=False)
    assert copy.adaptation is not None
    assert copy.adaptation.overlaid == ("i",)
    assert "something lies over most images 'i': hidden pixels count as unknown" in str(copy.adaptation)
    assert cama.overlaid == frozenset()
    other = {"i": torch.where(HIDDEN, 0.3, torch.as_tensor(new["i"])).numpy()}
    np.testing.assert_allclose(copy.predict_proba(new), copy.predict_proba(other), atol=1e-5)
    assert not np.allclose(cama.predict_proba(new), cama.predict_proba(other), atol=1e-5)
    new["i"][:, :, 0, 0] = 0.1
    again = copy.adapt(new, steps=10, restarts=1, progress=False)
    assert again.adaptation is not None
    assert again.adaptation.overlaid == ()
    assert again.overlaid == frozenset()


@pytest.mark.usefixtures("told")
def test_an_exported_program_sees_the_same(tmp_path: Path) -> None:
    cama = fitted()
    cama.overlaid = frozenset({"i"})
    x = {"i": torch.cat([bright(3), 0.4 * torch.rand(2, 1, 8, 8)]).numpy()}
    exported = export.load(cama.export(tmp_path / "program"))
    np.testing.assert_allclose(exported.predict_proba(x), cama.predict_proba(x), atol=1e-5)


@pytest.mark.usefixtures("told")
def test_a_stream_knows_a_world_by_what_lies_over_its_images(tmp_path: Path) -> None:
    """Hidden pixels cost no evidence: a world that hides some is compared where as much seems to be hidden."""
    cama, x = fitted(), 0.4 * torch.rand(110, 1, 8, 8)
    over = torch.where(HIDDEN, 0.95, bright(50))
    monitor = cama.monitor({"i": x[:60].numpy()}, least=40, steps=10, restarts=1, state=tmp_path / "state")
    step = monitor.update({"i": over.numpy()})
    assert step.kind == "new"
    assert [regime.overlaid for regime in monitor.regimes] == [frozenset(), {"i"}]
    assert monitor.model().overlaid == {"i"}
    again = cama.monitor(state=tmp_path / "state", least=40, steps=10, restarts=1)
    assert [regime.overlaid for regime in again.regimes] == [frozenset(), {"i"}]
    reader = Reader(cama, {})
    assert [regime.number for regime in reader.comparable(again.regimes, rows_of(over))] == [1]
    assert [regime.number for regime in reader.comparable(again.regimes, rows_of(x))] == [0]


def test_an_overlay_comes_last() -> None:
    with pytest.raises(pyro_cama.GraphError, match=r"'overlay\+warp': found a part behind one that hides pixels"):
        digits("overlay+warp")


def test_effects_of_an_image_see_what_is_known_of_it() -> None:
    """Under affects: measurement; a mechanism is undone on all pixels, and a few that are unknown spread to none."""
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8], "channels": 4}, "x": "continuous"},
        "edges": ["y -> i -> x", "y -> x"],
        "latents": {"m": {"dim": 8, "children": ["i"], "mechanism": "warp+blur", "affects": "measurement"}},
    }
    cama = pyro_cama.build(graph, hidden=8, layers=1, device="cpu")
    batch = rows_of(torch.rand(3, 1, 8, 8))
    batch.values["x"] = torch.zeros(3)
    batch.values["i"][:, :, 4, 4] = torch.nan
    causes = Causes(cama.model, batch)
    causes.values = batch.values
    causes.set_m(0.3 * torch.randn(3, 8))
    assert causes.theta is not None
    found, group = causes.undone("i"), group_of(cama)
    expected = cama.manipulation.undo(batch.values, causes.theta, group)
    assert isinstance(expected, dict)
    assert torch.equal(found.isnan(), expected["i"].isnan())
    assert found.isnan().float().mean() < 0.5
