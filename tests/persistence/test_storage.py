"""Saved models: what comes back, what is never overwritten, and what damage is said to be."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pyro_cama
from pyro_cama import CAMA, DataError, _files, build, load
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.mechanisms.affine import Affine
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.persistence import storage
from support.clinic import Hospital, patients
from tests.helpers.paths import GRAPHS
from tests.helpers.precision import in_double

ROWS = Hospital("north").measure(patients(80, seed=0), seed=0)
NEW = Hospital("east", thermometer=1.0).measure(patients(40, seed=1), seed=1)


class OtherGuide(CAMAGuide):
    """The same guide by another name."""


def model(scope: str = "row", **options: Any) -> CAMA:
    raw = CausalGraph(GRAPHS / "clinic.yaml").to_dict()
    raw["latents"]["m"]["scope"] = scope
    return build(raw, seed=1, hidden=8, device="cpu", **options)


def fitted(scope: str = "row", **options: Any) -> CAMA:
    return model(scope, **options).fit(ROWS, max_epochs=1, progress=False)


def adapted(cama: CAMA) -> CAMA:
    return cama.adapt(NEW, steps=10, restarts=1, folds=2, keep="always", progress=False)


@pytest.fixture(scope="module")
def original() -> CAMA:
    return fitted()


@pytest.fixture
def folder(original: CAMA, tmp_path: Path) -> Path:
    return original.save(tmp_path / "model")


def same(one: CAMA, other: CAMA) -> bool:
    state, found = one.modules.state_dict(), other.modules.state_dict()
    return list(state) == list(found) and all(torch.equal(state[k], found[k]) for k in state)


# What comes back.


@pytest.mark.parametrize("scope", ["row", "dataset", "hospital"])
def test_predictions_come_back_bitwise(scope: str, tmp_path: Path) -> None:
    cama = fitted(scope)
    copy = adapted(cama)
    assert not np.array_equal(copy.predict_proba(NEW), cama.predict_proba(NEW))
    for name, one in (("fitted", cama), ("adapted", copy)):
        back = load(one.save(tmp_path / name), device="cpu")
        assert same(one, back)
        assert np.array_equal(back.predict_proba(NEW), one.predict_proba(NEW))
        for do in ({"m": 0.0}, None):
            assert np.array_equal(back.predict_proba(ROWS, do), one.predict_proba(ROWS, do))
        assert torch.equal(back.elbo(ROWS), one.elbo(ROWS))
        assert back.encoder.sites == one.encoder.sites
        assert back.adaptation == one.adaptation
        assert back.settings == one.settings
        assert repr(back) == repr(one)


def test_a_loaded_model_adapts_as_the_saved_one(original: CAMA, folder: Path) -> None:
    assert same(adapted(load(folder, device="cpu")), adapted(original))


def test_a_model_not_yet_fitted(tmp_path: Path) -> None:
    cama = model()
    back = load(cama.save(tmp_path / "fresh"), device="cpu")
    assert same(cama, back)
    with pytest.raises(DataError, match="fit"):
        back.predict(ROWS)
    one, other = (each.fit(ROWS, max_epochs=1, progress=False) for each in (cama, back))
    assert np.array_equal(one.predict_proba(ROWS), other.predict_proba(ROWS))


def test_double_precision(tmp_path: Path) -> None:
    with in_double():
        cama = fitted()
    back = load(cama.save(tmp_path / "model"), device="cpu")
    assert back.model.like.dtype == torch.float64
    assert same(cama, back)


def test_plain_files_without_pickle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(storage.FILES)
    assert CausalGraph(folder / "graph.yaml") == model().graph
    assert json.loads((folder / "settings.json").read_text())["format"] == storage.FORMAT
    assert load_file(folder / "tensors.safetensors")
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"PK\x03\x04", b"\x80"))  # torch.save's archives, and pickles


def test_every_file_may_be_read_by_whom_the_umask_lets(folder: Path) -> None:
    (folder.parent / "ordinary").touch()
    (folder.parent / "folder").mkdir()
    assert {path.stat().st_mode for path in folder.iterdir()} == {(folder.parent / "ordinary").stat().st_mode}
    assert folder.stat().st_mode == (folder.parent / "folder").stat().st_mode


# Extensions are code: they are named in the folder, and given again.


@pytest.mark.parametrize(
    "extension", [{"guide": OtherGuide}, {"mechanisms": {"fever": Affine()}}], ids=["guide", "mechanisms"]
)
def test_an_extension_is_given_again(extension: dict[str, Any], tmp_path: Path) -> None:
    cama = fitted(**extension)
    folder = cama.save(tmp_path / "model")
    back = load(folder, device="cpu", **extension)
    assert type(back.guide) is type(cama.guide)
    assert np.array_equal(back.predict_proba(ROWS), cama.predict_proba(ROWS))
    with pytest.raises(DataError, match=rf"{next(iter(extension))}=.*load\(folder, \.\.\.\)"):
        load(folder)


def test_an_extension_too_many(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no extensions.*guide=OtherGuide"):
        load(folder, guide=OtherGuide)


# What is never lost.


def test_an_existing_folder_is_overwritten_on_demand_only(original: CAMA, folder: Path) -> None:
    other = fitted("dataset")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(folder)
    assert same(load(folder, device="cpu"), original)
    mode = folder.stat().st_mode
    (folder / "usual.json").write_text("{}")  # the command line's; goes with the model it is about
    other.save(folder, overwrite=True)
    assert same(load(folder, device="cpu"), other)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert folder.stat().st_mode == mode


def test_a_link_to_a_model_stays_one(folder: Path) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder.name)
    other = fitted("dataset")
    other.save(link, overwrite=True)
    assert link.is_symlink()
    assert same(load(folder, device="cpu"), other)
    table, names = folder.parent / "table.csv", folder.parent / "names.csv"
    table.write_text("old")
    names.symlink_to(table.name)
    with _files.replacing(names) as part:
        part.write_text("new")
    assert names.is_symlink()
    assert table.read_text() == "new"


def test_a_folder_with_other_files_is_never_overwritten(original: CAMA, folder: Path) -> None:
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="choose another folder"):
        original.save(folder, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"
    with pytest.raises(FileExistsError, match="choose another folder"):
        original.save(folder / "thesis.tex", overwrite=True)


@pytest.mark.parametrize("step", ["pyro_cama.persistence.storage.packed", "os.fsync"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_crash_while_writing_leaves_what_was_there(
    step: str, exists: bool, original: CAMA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    if exists:
        original.save(folder)
    before = sorted(tmp_path.rglob("*"))

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, crash)
    with pytest.raises(KeyboardInterrupt):
        adapted(original).save(folder, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    if exists:
        assert same(load(folder, device="cpu"), original)


def test_a_crash_while_replacing_puts_the_old_one_back(
    original: CAMA, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = []
    replace = os.replace
    monkeypatch.setattr(_files, "exchange", lambda *_: False)  # as where there is none

    def crash(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 2:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr("os.replace", crash)
    # graph.yaml is written by a replacement of its own, which is not the one that is meant
    monkeypatch.setattr(CausalGraph, "to_yaml", lambda self, path: path.write_text("target: y"))
    with pytest.raises(OSError, match="disk full"):
        original.save(folder, overwrite=True)
    assert folder in moves
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert same(load(folder, device="cpu"), original)


# Damage: one line that names the file and the remedy.


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(name: str, share: float) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def settings(**changes: Any) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "settings.json"
        stored = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in stored.items() if value is not ...}, default=str))

    return damage


def without(key: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "settings.json"
        stored = json.loads(path.read_text())
        del stored[key]
        path.write_text(json.dumps(stored))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        found = load_file(folder / "tensors.safetensors")
        change(found)
        save_file(found, folder / "tensors.safetensors")

    return damage


def swap(found: dict[str, torch.Tensor]) -> None:
    one, other = next((a, b) for a in found for b in found if found[a].shape != found[b].shape)
    found[one], found[other] = found[other].clone(), found[one].clone()


def edit_graph(old: str, new: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        text = (folder / "graph.yaml").read_text()
        assert old in text
        (folder / "graph.yaml").write_text(text.replace(old, new))

    return damage


DAMAGE = {
    "no settings": (remove("settings.json"), "settings.json", "expected"),
    "no tensors": (remove("tensors.safetensors"), "tensors.safetensors", "expected"),
    "no graph": (remove("graph.yaml"), "graph.yaml", "expected"),
    "garbage settings": (write("settings.json", b"\x00\xff{"), "settings.json", "save the model again"),
    "list of settings": (write("settings.json", b"[]"), "settings.json", "save the model again"),
    "half the settings": (truncate("settings.json", 0.5), "settings.json", "save the model again"),
    "no encoder": (without("encoder"), "settings.json", "save the model again"),
    "no extensions": (settings(extensions=7), "settings.json", "save the model again"),
    "no type": (settings(dtype="nothing"), "settings.json", "save the model again"),
    "odd sizes": (settings(settings={"hidden": -1}), "settings.json", "save the model again"),
    "an odd adaptation": (settings(adaptation={"accepted": True}), "settings.json", "save the model again"),
    "a damaged encoder": (settings(encoder={}), "settings.json", "save the model again"),
    "older format": (settings(format=3), "found format 3", "fit and save the model again"),
    "newer format": (settings(format=99), "found format 99", "install a newer one"),
    "garbage tensors": (write("tensors.safetensors", b"garbage"), "tensors.safetensors", "save the model again"),
    "no content": (write("tensors.safetensors", b""), "tensors.safetensors", "save the model again"),
    "half the tensors": (truncate("tensors.safetensors", 0.5), "tensors.safetensors", "save the model again"),
    "a tensor less": (tensors(lambda found: found.popitem()), "tensors.safetensors", "save the model again"),
    "swapped tensors": (tensors(swap), "tensors.safetensors", "save the model again"),
    "another width": (settings(settings={"hidden": 16}), "tensors.safetensors", "save the model again"),
    "garbage graph": (write("graph.yaml", b": ["), "graph.yaml", "save the model again"),
    "an edge less": (edit_graph("- age -> ward\n", ""), "graph.yaml", "put that back"),
    "another level": (edit_graph("viral", "fungal"), "graph.yaml", "put that back"),
    "another name": (edit_graph("smoker", "smokes"), "graph.yaml", "put that back"),
    "another scope": (edit_graph("scope: row", "scope: dataset"), "graph.yaml", "put that back"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_a_data_error(case: str, folder: Path) -> None:
    damage, place, remedy = DAMAGE[case]
    damage(folder)
    with pytest.raises(DataError) as raised:
        load(folder, device="cpu")
    message = str(raised.value)
    assert message.startswith(str(folder)), message
    assert place in message
    assert remedy in message
    assert "\n" not in message


def test_a_graph_written_otherwise_is_the_same_graph(original: CAMA, folder: Path) -> None:
    path = folder / "graph.yaml"
    path.write_text("# ours\n" + path.read_text().replace("infection:", "'infection':"))
    assert same(load(folder, device="cpu"), original)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        pyro_cama.load(tmp_path / name)
