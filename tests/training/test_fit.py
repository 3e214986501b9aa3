"""fit, adapt and predict on data that are read in parts."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

import pyro_cama
from pyro_cama import CAMA, DataError, build
from pyro_cama.data.minibatches import Streamed
from pyro_cama.training.fit import plan
from pyro_cama.training.options import FitOptions
from tests.helpers.patches import rows_of_a_part
from tests.helpers.training import Kill, Killed, same

COLUMNS = [f"x{i}" for i in range(4)]
GRAPH: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "y": {"type": "categorical", "levels": ["no", "yes"]},
        "site": {"type": "categorical", "levels": ["a", "b"]},
        **dict.fromkeys(COLUMNS, "continuous"),
    },
    "edges": [*(f"y -> {name}" for name in COLUMNS), "site -> x0"],
    "latents": {
        "z": {"dim": 1, "children": COLUMNS},
        "m": {"dim": 4, "children": COLUMNS, "mechanism": "affine", "scope": "dataset"},
    },
}
IMAGES: dict[str, Any] = {
    "target": "digit",
    "nodes": {
        "digit": {"type": "categorical", "levels": ["0", "1"]},
        "scan": {"type": "image", "shape": [1, 8, 8], "channels": 2},
    },
    "edges": ["digit -> scan"],
    "latents": {"z": {"dim": 2}, "m": {"dim": 2, "mechanism": "warp"}},
}


def table(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    y, site = generator.integers(0, 2, (2, rows))
    x = 1.5 * y[:, None] + generator.normal(size=(rows, len(COLUMNS)))
    x[:, 0] += site
    frame = pd.DataFrame(dict(zip(COLUMNS, x.T, strict=True)))
    return frame.assign(y=np.array(["no", "yes"])[y], site=np.array(["a", "b"])[site])


def fitted(data: Any, **options: Any) -> CAMA:
    cama = build(GRAPH, seed=2, hidden=16, device="cpu")
    return cama.fit(data, progress=False, **{"max_epochs": 12, "lr": 3e-3, **options})


@functools.cache
def model() -> CAMA:
    return fitted(table())


def written(frame: pd.DataFrame, folder: Path, kind: str) -> Any:
    """The table as a source of parts."""
    if kind == "csv":
        frame.to_csv(folder / "t.csv", index=False)
    elif kind == "parquet":
        frame.to_parquet(folder / "t.parquet", index=False, row_group_size=100)
    elif kind == "folder":
        (folder / "t").mkdir()
        for i in range(3):
            frame.iloc[i::3].to_csv(folder / "t" / f"{i}.csv", index=False)
    else:
        numbers = frame.assign(y=(frame["y"] == "yes") + 0, site=(frame["site"] == "b") + 0)
        return DataLoader([dict(row) for _, row in numbers.iterrows()], batch_size=64)  # type: ignore[arg-type]
    return folder / ("t" if kind == "folder" else f"t.{kind}")


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_a_source_of_parts_teaches_what_a_table_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of_a_part(monkeypatch, 128)
    source = written(table(), tmp_path, kind)
    cama = fitted(source)
    for name, entries in model().encoder.statistics.items():
        for key, value in entries.items():
            torch.testing.assert_close(cama.encoder.statistics[name][key], value, rtol=1e-12, atol=1e-12)
    test = table(2000, seed=1)
    assert cama.score(test) == pytest.approx(model().score(test), abs=0.02)
    assert cama.score(test) > 0.9
    again = fitted(source)
    np.testing.assert_array_equal(again.predict_proba(test), cama.predict_proba(test))


def test_a_loader_of_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = GRAPH | {"nodes": GRAPH["nodes"] | {"y": "binary", "site": "binary"}}
    loader = written(table(), tmp_path, "loader")
    cama = build(graph, hidden=16, device="cpu").fit(loader, max_epochs=12, lr=3e-3, progress=False)
    assert cama.score(loader) > 0.9


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_answers_come_in_parts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of_a_part(monkeypatch, 50)
    frame = table(240, seed=3)
    source = written(frame, tmp_path, kind)
    np.testing.assert_allclose(model().predict_proba(source), model().predict_proba(frame), rtol=1e-5)
    assert model().predict(str(source)).tolist() == model().predict(frame).tolist()
    assert model().score(source) == model().score(frame)
    assert next(model().batches(source, "ignore")).rows == 50
    batch = model().encode(frame)
    np.testing.assert_array_equal(model().predict_proba(batch), model().predict_proba(frame))  # encoded before


def test_a_value_of_m_for_every_row_meets_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of_a_part(monkeypatch, 50)
    graph = GRAPH | {"latents": GRAPH["latents"] | {"m": GRAPH["latents"]["m"] | {"scope": "row"}}}
    cama = build(graph, hidden=8, device="cpu").fit(table(), max_epochs=1, progress=False)
    frame, do = table(120, seed=3), {"m": np.random.default_rng(0).normal(size=(120, 4))}
    source = written(frame, tmp_path, "csv")
    np.testing.assert_allclose(cama.predict_proba(source, do), cama.predict_proba(frame, do), rtol=1e-5)
    for rows, message in ((20, "has 20 rows; the table has more"), (130, "has 130 rows; the table has 120")):
        with pytest.raises(ValueError, match=f"^do: 'm' {message}$"):
            cama.predict_proba(source, {"m": np.zeros((rows, 4))})


def test_adapting_takes_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table(900, seed=4)
    frame["x1"] = 3.0 + 2.0 * frame["x1"]
    quick: dict[str, Any] = {"steps": 60, "restarts": 1, "folds": 2, "progress": False}
    whole = model().adapt(frame, **quick)
    assert whole.adaptation.rows == 900
    monkeypatch.setattr("pyro_cama.model.pair.SAMPLE", 300)
    for data in (frame, written(frame, tmp_path, "csv")):
        adapted = model().adapt(data, data, **quick)
        assert adapted.adaptation.rows == 300
        assert adapted.adaptation.accepted
        assert adapted.score(frame) == pytest.approx(whole.score(frame), abs=0.03)
        assert adapted.score(frame) > model().score(frame) + 0.02


def test_a_sample_of_large_rows_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model().sample_size == 20_000
    large = IMAGES | {"nodes": IMAGES["nodes"] | {"scan": {"type": "image", "shape": [3, 256, 256], "channels": 1}}}
    cama = build(large, hidden=4, device="cpu")
    assert 1000 < cama.sample_size < 1500
    monkeypatch.setattr("pyro_cama.model.pair.SAMPLE", 50)
    assert model().read(table(), "use").rows == 600  # what is in memory is used
    assert model().read(table(), "use", sampled=True).rows == 50


def test_held_out_rows_of_a_stream_are_not_trained_on(tmp_path: Path) -> None:
    frame = table(400).assign(x3=np.arange(400.0))
    source = written(frame, tmp_path, "parquet")
    cama = build(GRAPH, hidden=4, device="cpu")
    made = plan(cama, source, None, {}, FitOptions(validation=0.2), progress=False)
    assert isinstance(made.minibatches, Streamed)
    seen = torch.cat([batch.values["x3"] for batch in made.minibatches.epoch(0)])
    batches = [batch.rows for batch in made.minibatches.epoch(1)]
    assert len(batches) == len(made.minibatches) == 5
    assert sum(batches) == len(seen) == 320
    assert len(seen.unique()) == 320
    halves = [torch.cat([b.values["x3"] for b in made.minibatches.epoch(0, rank, 2)]) for rank in range(2)]
    assert sorted(torch.cat(halves).tolist()) == sorted(seen.tolist())


def test_a_stream_goes_on_after_a_stop(tmp_path: Path) -> None:
    source = written(table(), tmp_path, "parquet")
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run", "max_epochs": 3}
    one = {"gradient_clip_val": 100.0}  # one minibatch a step, so that it stops in the midst of an epoch
    with pytest.raises(Killed):
        fitted(source, **kept, checkpoint_seconds=0, trainer_kwargs={"callbacks": [Kill(1, 3)], **one})
    again = fitted(source, **kept, resume=True, trainer_kwargs=one)
    assert same(again, fitted(source, max_epochs=3, trainer_kwargs=one))


def test_bad_rows_are_counted_in_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of_a_part(monkeypatch, 50)
    frame = table()
    frame.loc[333, "site"] = "c"
    source = written(frame, tmp_path, "csv")
    for call in (fitted, model().predict_proba, model().adapt):
        with pytest.raises(DataError, match=r"t\.csv: column 'site': .* in row 333 \('c'\)"):
            call(source)
    with pytest.raises(DataError, match=r"t\.csv: target column 'y': found none"):
        fitted(written(table().drop(columns="y"), tmp_path, "csv"))


def test_a_folder_of_images(tmp_path: Path) -> None:
    x, y = load_digits(n_class=2, return_X_y=True)
    for i, (pixels, label) in enumerate(zip(x[:120], y[:120], strict=True)):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 255 / 16).astype("uint8")).save(folder / f"{i}.png")
    cama = build(IMAGES, hidden=16, device="cpu")
    frame = pyro_cama.image_table(tmp_path, cama.graph)
    cama.fit(frame, max_epochs=16, batch_size=16, lr=5e-3, progress=False)
    assert cama.score(frame) > 0.9
    arrays = np.stack([np.asarray(Image.open(path)) for path in frame["scan"]])[:, None]
    np.testing.assert_allclose(
        cama.predict_proba({"scan": arrays}), cama.predict_proba(frame.drop(columns="digit")), atol=1e-5
    )
    adapted = cama.adapt(frame.drop(columns="digit"), frame, steps=10, progress=False)
    assert adapted.adaptation.rows == 120


@pytest.mark.parametrize("form", ["table", "file"])
@pytest.mark.parametrize(
    ("kind", "levels"),
    [("binary", ["no", "yes"]), ("categorical", ["no", "yes"]), ("categorical", ["no", "perhaps", "yes"])],
)
def test_classes_are_as_frequent_as_in_training(form: str, kind: str, levels: list[str], tmp_path: Path) -> None:
    """Also before a step is taken: a high weight of log p(y | x) would let p(y) stay at any other."""
    spec = {"target": "y", "nodes": {"y": {"type": kind, "levels": levels}, "x": "continuous"}, "edges": ["y -> x"]}
    generator = np.random.default_rng(0)
    shares = [0.9, 0.1] if len(levels) == 2 else [0.85, 0.1, 0.05]
    codes = generator.choice(len(levels), 1000, p=shares)
    rows: Any = pd.DataFrame({"y": np.array(levels)[codes], "x": generator.normal(size=1000) + 1.5 * codes})
    if form == "file":
        rows.to_csv(tmp_path / "rows.csv", index=False)
        rows = tmp_path / "rows.csv"
    shares = (np.bincount(codes) / 1000).tolist()
    for epochs, tolerance in ((0, 0.005), (15, 0.05)):
        cama = build(spec, hidden=16, device="cpu").fit(rows, max_epochs=epochs, lr=3e-3, progress=False)
        found = cama.predict_proba({"x": [np.nan]}, samples=2000)[0]
        np.testing.assert_allclose(found, shares, atol=tolerance)
        drawn = cama.sample(4000)["y"].value_counts(normalize=True)
        np.testing.assert_allclose(drawn.reindex(levels), shares, atol=tolerance + 0.02)


def test_a_wide_table_is_trained_until_its_labels_are_right() -> None:
    """Densities of held-out rows are best before any class effect is learnt: on 600 columns most are noise."""
    generator, columns = np.random.default_rng(0), [f"x{i}" for i in range(600)]
    y = generator.integers(0, 2, 500)
    x = generator.normal(size=(500, 600))
    x[:, :10] += 1.5 * y[:, None]
    frame = pd.DataFrame(x, columns=columns).assign(y=y)
    graph = {"target": "y", "nodes": {"y": "binary", **dict.fromkeys(columns, "continuous")}}
    graph |= {"edges": [["y", name] for name in columns], "latents": {"z": None, "m": None}}
    cama = build(graph, hidden=16, device="cpu")
    cama.fit(frame[:150], conditional_weight=0, max_epochs=25, lr=1e-2, progress=False)
    assert cama.history is not None
    assert cama.history.best_epoch > 2
    assert cama.score(frame[150:]) > 0.85
