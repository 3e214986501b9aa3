"""Exported programs: what they answer is what predict_proba answers, for any number of rows, without this package."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama import CAMA, DataError, build
from pyro_cama.data.batch import Batch
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.networks import images as image_networks
from pyro_cama.persistence.export import Exported, export, load

NODES: dict[str, Any] = {
    "y": {"type": "categorical", "levels": ["p", "q"]},
    "a": "continuous",
    "n": "count",
    "x": "continuous",
    "w": "continuous",
    "k": {"type": "categorical", "levels": ["u", "v", "w"]},
}
EDGES = ["a -> y", "y -> x", "y -> w", "y -> k", "n -> k"]


def table(n: int, seed: int = 0, drift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    numbers = {"a": rng.normal(size=n) + y, "n": rng.poisson(3, n), "w": 5 + 3 * rng.normal(size=n) + y}
    other = {"x": y + rng.normal(size=n) + drift, "k": rng.choice(list("uvw"), n), "site": "there" if drift else "here"}
    return pd.DataFrame({"y": np.where(y, "q", "p"), **numbers, **other})


NEW = table(20, seed=1, drift=2.0)


def made(scope: str = "row", **options: Any) -> CAMA:
    latents = {"z": {"dim": 1}, "m": {"dim": 2, "scope": scope}}
    return build(
        {"target": "y", "nodes": NODES, "edges": EDGES, "latents": latents},
        **{"hidden": 8, "layers": 1, "device": "cpu", **options},
    )


@functools.cache
def fitted(scope: str) -> CAMA:
    return made(scope).fit(table(60), max_epochs=2, progress=False)


@functools.cache
def adapted(scope: str) -> CAMA:
    return fitted(scope).adapt(NEW, steps=3, restarts=1, folds=2, keep="always", progress=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was not adapted, exported; nobody writes into it."""
    return fitted("dataset").export(tmp_path_factory.mktemp("made") / "served")


def agree(program: Exported, cama: CAMA, data: Any, **options: Any) -> None:
    np.testing.assert_allclose(program.predict_proba(data), cama.predict_proba(data, **options), atol=1e-5)


def gap(one: CAMA, other: CAMA) -> float:
    return float(abs(one.predict_proba(NEW) - other.predict_proba(NEW)).max())


# the same answers ----------------------------------------------------------------------------------------------------


def test_a_model_that_was_not_adapted(served: Path) -> None:
    for rows in (NEW, NEW.iloc[:1], table(33)):
        agree(load(served), fitted("dataset"), rows)


@pytest.mark.parametrize("scope", ["row", "site"])
def test_adapted_models(scope: str, tmp_path: Path) -> None:
    cama = adapted(scope)
    assert gap(cama, fitted(scope)) > 1e-3, "a program that forgets the adaptation has to be found out"
    program = load(cama.export(tmp_path / "served"))
    for rows in (NEW, NEW.iloc[:1], NEW.iloc[:2], table(33)):
        agree(program, cama, rows)
    if scope == "site":
        elsewhere = NEW.assign(site="nowhere")
        with pytest.warns(UserWarning, match="never adapted"):
            agree(program, cama, elsewhere)
        agree(program, cama, table(33), do={"m": 0.0})  # a site that nothing was learnt of
        assert abs(program.predict_proba(elsewhere) - program.predict_proba(NEW)).max() > 1e-3


@pytest.mark.parametrize(("of_rows", "of_data"), [("row", "dataset"), ("row", "site")])
def test_several_manipulations(of_rows: str, of_data: str, tmp_path: Path) -> None:
    """Under "auto" one is given as 0, the other drawn: the modes of its posterior are averaged over all the same."""
    latents: dict[str, Any] = {"z": {"dim": 1}, "m": None}
    for name, scope in (("knock", of_rows), ("unit", of_data)):
        latents[name] = {"manipulation": True, "dim": 1, "scope": scope}
    nodes = {name: NODES[name] for name in "yaxw"}
    graph = {"target": "y", "nodes": nodes, "edges": EDGES[:3], "latents": latents}
    base = build(graph, hidden=8, layers=1, device="cpu").fit(table(60), max_epochs=2, progress=False)
    alone = base.adapt(NEW, only=["unit"], keep="always", progress=False)
    cama = alone.copy()
    other = base.copy(alone.encoder)
    cama.modes = ({name: value.detach() + 0.1 for name, value in other.manipulation_parameters().items()},)
    assert gap(cama, alone) > 1e-3, "a program that forgets the modes has to be found out"
    program = load(cama.export(tmp_path / "served"))
    agree(program, cama, NEW)
    both = load(cama.export(tmp_path / "both", do=None))
    agree(both, cama, NEW, do=None)
    if of_data == "site":
        elsewhere = NEW.assign(site="nowhere")
        for one, do in ((program, "auto"), (both, None)):
            with pytest.warns(UserWarning, match="never adapted"):
                agree(one, cama, elsewhere, do=do)


def test_do_samples_and_missing_entries(tmp_path: Path) -> None:
    cama = adapted("dataset")
    options: dict[str, Any] = {"do": {"m": [0.5, -1.0]}, "samples": 3, "power": 0.4}
    assert abs(cama.predict_proba(NEW, **options) - cama.predict_proba(NEW, **options | {"power": 1.0})).max() > 1e-3
    program = load(cama.export(tmp_path / "served", missing=True, **options))
    agree(program, cama, NEW, **options)
    assert abs(program.predict_proba(NEW) - cama.predict_proba(NEW)).max() > 1e-3
    holes = NEW.copy()
    for i, name in enumerate(("a", "x", "k", "w")):
        holes[name] = holes[name].astype(object)
        holes.loc[holes.index[i::7], name] = None
    agree(program, cama, holes, **options)
    agree(program, cama, holes.iloc[:1], **options)
    assert abs(program.predict_proba(holes) - program.predict_proba(NEW)).max() > 1e-3
    with pytest.raises(DataError, match=r"'n': found no entry in rows 0, 1"):  # a count that causes k
        program.predict_proba(NEW.assign(n=np.nan))


def test_images(tmp_path: Path) -> None:
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 4, 5], "channels": 4}, "c": "continuous"},
        "edges": ["y -> i", "c -> i"],
        "latents": {"z": {"dim": 2}, "m": {"dim": 2, "mechanism": {"i": "warp+intensity"}}},
    }
    rng = np.random.default_rng(0)
    rows = {"y": rng.integers(0, 2, 12), "i": rng.random((12, 1, 4, 5)), "c": rng.normal(size=12)}
    cama = build(graph, hidden=8, device="cpu").fit(rows, max_epochs=0, progress=False)
    with torch.no_grad():  # an m that moves the images
        for parameter in cama.manipulation_parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    options: dict[str, Any] = {"do": None, "samples": 2}
    expected = cama.predict_proba(rows, **options)
    program = load(cama.export(tmp_path / "served", **options))
    agree(program, cama, rows, **options)
    assert abs(expected - cama.predict_proba(rows, samples=2)).max() > 1e-3
    one = {name: values[:1] for name, values in rows.items()}
    np.testing.assert_allclose(program.predict_proba(one), expected[:1], atol=1e-5)


# the program by itself -----------------------------------------------------------------------------------------------


def test_torch_and_the_json_are_enough(served: Path) -> None:
    """Encoded by hand, from what encoding.json says."""
    said = json.loads((served / "encoding.json").read_text())
    program = torch.export.load(served / "program.pt2").module()
    data, tensors = table(9), []
    for kind, name in said["inputs"]:
        assert kind == "value"
        values = data[name].to_numpy()
        if name == "k":
            tensors.append(torch.tensor([said["encoding"]["levels"]["k"].index(level) for level in values]))
            continue
        if name != "n":
            own = said["encoding"]["statistics"][name]
            values = (values - own["mean"]) / own["sd"]
        tensors.append(torch.tensor(values, dtype=getattr(torch, said["dtype"])))
    found = program(*tensors)
    assert found.shape == (9, 2)
    np.testing.assert_allclose(found.detach(), fitted("dataset").predict_proba(data), atol=1e-5)
    assert said["output"] == ["y", ["p", "q"]]
    assert {path.name for path in served.iterdir()} == {"program.pt2", "encoding.json"}


def test_nothing_is_drawn(served: Path) -> None:
    steps = [str(node.target) for node in torch.export.load(served / "program.pt2").graph.nodes]
    assert len(steps) > 20
    assert not [step for step in steps if "rand" in step or "bernoulli" in step]


def test_rows_do_not_see_one_another_nor_the_chunks(served: Path) -> None:
    program = load(served)
    whole = program.predict_proba(table(9))
    np.testing.assert_allclose(replace(program, chunk=2).predict_proba(table(9)), whole, atol=1e-6)
    np.testing.assert_allclose(program.predict_proba(table(9).iloc[::-1]), whole[::-1], atol=1e-6)
    assert program.classes == ("p", "q")


# what is refused -----------------------------------------------------------------------------------------------------


class Circular(CAMAGuide):
    """A guide whose draws have no known map from noise."""

    def z_dist(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> TorchDistribution:
        loc, scale = self.z_params(batch, y, m)
        return dist.VonMises(loc, scale).to_event(1)


class Looking(torch.nn.Module):
    """A network that branches on its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)

    def forward(self, value: Tensor) -> Tensor:
        out: Tensor = self.linear(value)
        return out if bool((value > 0).all()) else 2 * out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"guide": Circular}, "VonMises has no common noise"),
        ({"networks": {"n": Looking}}, r"cannot trace .*networks=.*steps do not depend on values"),
    ],
)
def test_extensions_that_cannot_be_exported_are_named(options: Any, says: str, tmp_path: Path) -> None:
    cama = made(**options).fit(table(20), max_epochs=0, progress=False)
    with pytest.raises(ValueError, match=says):
        cama.export(tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_wrong_calls(served: Path, tmp_path: Path) -> None:
    cama = fitted("row")
    with pytest.raises(FileExistsError, match="there already"):
        cama.export(served)
    with pytest.raises(DataError, match="fit"):
        made().export(tmp_path / "a")
    with pytest.raises(ValueError, match=r"samples=0\): expected a whole number of at least 1"):
        cama.export(tmp_path / "a", samples=0)
    with pytest.raises(ValueError, match="a value a row"):
        cama.export(tmp_path / "a", do={"m": np.zeros((3, 2))})
    with pytest.raises(DataError, match=r"lacks program\.pt2 and encoding\.json"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"'x': found no entry in row 1 .*missing=True"):
        load(served).predict_proba(table(3).assign(x=[0.0, np.nan, 1.0]))


def test_all_or_nothing_and_the_model_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    cama = adapted("dataset")
    before, answers = {k: v.clone() for k, v in cama.modules.state_dict().items()}, cama.predict_proba(NEW)
    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(cama, tmp_path / "served", samples=1)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(v, before[k]) for k, v in cama.modules.state_dict().items())
    np.testing.assert_array_equal(cama.predict_proba(NEW), answers)
    assert not cama.model.always_fill
    assert not any("stack" in vars(group) for group in cama.model.groups)
    assert "len" not in vars(image_networks)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    ("name", "harm", "says"),
    [
        ("program.pt2", _cut, "program.pt2 is damaged"),
        ("encoding.json", _cut, "encoding.json is damaged"),
        ("encoding.json", _newer, "found format 99"),
        ("encoding.json", Path.unlink, "lacks encoding.json"),
    ],
)
def test_damage_is_named(name: str, harm: Callable[[Path], None], says: str, served: Path, tmp_path: Path) -> None:
    for path in served.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    harm(tmp_path / name)
    with pytest.raises(DataError, match=says):
        load(tmp_path)


def test_an_older_torch_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match=r"found torch 2\.9\.1\+cpu; expected 2\.13 or newer"):
        load(tmp_path)
