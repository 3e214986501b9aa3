"""Image columns of file paths: what is read as what, sizes, modes, folders, errors."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.image_files import image_table, read_image
from pyro_cama.data.open_stream import open_stream
from pyro_cama.data.sampling import encoded_parts, minibatches, survey
from pyro_cama.data.streams import FrameStream
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph

RNG = np.random.default_rng(0)


def graph_of(shape: list[int], levels: list[Any] | None = None, images: int = 1) -> CausalGraph:
    scans = {f"scan{i or ''}": {"type": "image", "shape": shape} for i in range(images)}
    nodes = {"y": {"type": "categorical", "levels": levels or ["cat", "dog"]}, **scans, "age": "continuous"}
    return CausalGraph({"target": "y", "nodes": nodes, "edges": [["y", name] for name in nodes if name != "y"]})


def pixels(rows: int, height: int, width: int, channels: int = 1) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (rows, channels, height, width), dtype=np.uint8)


def save(array: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [str, Path])
def test_paths_equal_the_arrays_they_point_at(tmp_path: Path, channels: int, kind: Any) -> None:
    arrays, graph = pixels(5, 4, 6, channels), graph_of([channels, 4, 6])
    table: dict[str, Any] = {"y": ["cat", "dog", "cat", "dog", "dog"], "age": [1.0, 2.0, 3.0, 4.0, 5.0]}
    paths = [kind(save(array, tmp_path / f"{i}.png")) for i, array in enumerate(arrays)]
    expected = TableEncoder(graph).fit({**table, "scan": arrays})
    one = expected.encode({**table, "scan": arrays})
    for column in (paths, pd.Series(paths), np.array(paths)):
        found = TableEncoder(graph).fit({**table, "scan": column})
        assert found.statistics["scan"]["mean"].item() == pytest.approx(expected.statistics["scan"]["mean"].item())
        assert torch.equal(expected.encode({**table, "scan": column}).values["scan"], one.values["scan"])
    assert one.values["scan"].max() <= 1
    assert torch.equal(expected.encode_value("scan", paths[2]), one.values["scan"][2])


def test_a_missing_path_is_a_missing_image(tmp_path: Path) -> None:
    arrays, graph = pixels(2, 3, 3), graph_of([1, 3, 3])
    paths = [save(array, tmp_path / f"{i}.png") for i, array in enumerate(arrays)]
    table = {"y": ["cat", "dog", "cat", "dog"], "age": [1.0, 2.0, 3.0, 4.0], "scan": [None, paths[0], np.nan, paths[1]]}
    encoder = TableEncoder(graph).fit(table)
    batch = encoder.encode(table)
    assert batch.observed["scan"].tolist() == [False, True, False, True]
    torch.testing.assert_close(batch.values["scan"][3], torch.from_numpy(arrays[1]) / 255)
    assert torch.equal(batch.values["scan"][0], torch.full((1, 3, 3), encoder.statistics["scan"]["mean"].item()))


def test_relative_paths_in_memory_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = pixels(1, 3, 3)[0]
    save(array, tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    batch = TableEncoder(graph_of([1, 3, 3])).fit(
        table := {"y": ["cat", "dog"], "age": [1.0, 2.0], "scan": ["in/a.png", "in/a.png"]}
    ).encode(table)  # fmt: skip
    torch.testing.assert_close(batch.values["scan"][0], torch.from_numpy(array) / 255)


def test_modes_are_converted(tmp_path: Path) -> None:
    array = pixels(1, 3, 5, 3)[0]
    image = Image.fromarray(array.transpose(1, 2, 0))
    image.save(tmp_path / "rgb.png")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(array[0] > 127).save(tmp_path / "bits.png")
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png", (3, 3, 5)), array)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png", (3, 3, 5)), array)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png", (1, 3, 5)), grey[None])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", (3, 3, 5)), np.stack([grey] * 3))
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png", (1, 3, 5)), (array[:1] > 127) * 255)


def refused(column: Any, message: str, shape: list[int] | None = None) -> None:
    table = {"y": ["cat", "dog"], "age": [1.0, 2.0], "scan": column}
    with pytest.raises(DataError, match=re.escape(message)):
        TableEncoder(graph_of(shape or [1, 28, 28])).fit(table)


def test_faults_of_files_name_row_and_path(tmp_path: Path) -> None:
    good, wide = (save(pixels(1, 28, width)[0], tmp_path / f"{width}.png") for width in (28, 40))
    where = "column 'scan': row 1 (counted from 0): "
    refused([good, wide], f"{where}{wide}: found 40x28 pixels; expected 28x28: resize the image")
    gone = tmp_path / "gone.png"
    refused([good, gone], f"{where}{gone}: no such file; correct the path")
    text = tmp_path / "text.png"
    text.write_text("no image")
    refused([good, text], f"{where}{text}: cannot be read as an image (cannot identify image file")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:300])
    refused([good, cut], f"{where}{cut}: cannot be read as an image (")
    refused([good, tmp_path], f"{where}{tmp_path}: cannot be read as an image (")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((28, 28), 60_000, dtype=np.uint16)).save(deep)
    refused([good, deep], f"{where}{deep}: found intensities of mode I;16; expected 8 bits a channel")
    refused([good, pixels(1, 28, 28)[0]], "column 'scan': found no path in row 1 (counted from 0), but array")
    refused([good, good], "found a path for an image of 2 channels; expected 1 or 3", [2, 28, 28])


def folder_of(root: Path, rows: int = 6, levels: tuple[str, ...] = ("cat", "dog")) -> NDArray[np.uint8]:
    """Images by turns in the levels' folders; returned are the pixels in the order of an ImageFolder."""
    arrays = pixels(rows, 4, 4)
    for i, array in enumerate(arrays):
        save(array, root / levels[i % len(levels)] / f"{i}.png")
    return np.concatenate([arrays[k :: len(levels)] for k in range(len(levels))])


def test_a_folder_with_a_subfolder_a_class(tmp_path: Path) -> None:
    arrays, graph = folder_of(tmp_path), graph_of([1, 4, 4])
    nodes = {name: graph.to_dict()["nodes"][name] for name in ("y", "scan")}
    graph = CausalGraph({"target": "y", "nodes": nodes, "edges": ["y -> scan"]})
    table = image_table(tmp_path, graph)
    assert [*table] == ["scan", "y"]
    assert table["y"].tolist() == ["cat"] * 3 + ["dog"] * 3
    expected = TableEncoder(graph).fit({"y": table["y"], "scan": arrays})
    whole = expected.encode({"y": table["y"], "scan": arrays})
    for data in (table, tmp_path, str(tmp_path), ImageFolder(str(tmp_path))):
        stream = open_stream(data, graph, chunk=4)
        assert isinstance(stream, FrameStream)
        found = survey(stream, graph, validation=0, seed=0, progress=False)
        assert found.encoder.statistics["scan"]["mean"].item() == pytest.approx(arrays.mean() / 255, rel=1e-6)
        assert found.encoder.statistics["scan"]["sd"].item() == pytest.approx(arrays.std() / 255, rel=1e-6)
        batch = Batch.concatenate(encoded_parts(stream, expected, "use"))
        assert torch.equal(batch.values["scan"], whole.values["scan"])
        assert torch.equal(batch.values["y"], whole.values["y"])
        again = Batch.concatenate(minibatches(stream, expected, batch_size=2, seed=0, epoch=0))
        assert sorted(again.values["scan"].sum((1, 2, 3)).tolist()) == pytest.approx(
            sorted(whole.values["scan"].sum((1, 2, 3)).tolist())
        )


def test_faults_of_folders(tmp_path: Path) -> None:
    graph = graph_of([1, 4, 4])
    with pytest.raises(DataError, match=r"nowhere: no such folder; expected one with a subfolder"):
        image_table(tmp_path / "nowhere", graph)
    with pytest.raises(DataError, match=r"found no subfolder and no image; expected one with images for every"):
        image_table(tmp_path, graph)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"found no images in the subfolders 'cat'; expected some"):
        image_table(tmp_path, graph)
    folder_of(tmp_path, levels=("cat", "bird"))
    with pytest.raises(DataError, match=r"found subfolders 'bird'; expected levels of the target 'y', 'cat', 'dog'"):
        image_table(tmp_path, graph)
    for images in (0, 2):
        with pytest.raises(DataError, match=rf"found {images} image nodes in the graph; expected one"):
            image_table(tmp_path, graph_of([1, 4, 4], images=images))
    with pytest.raises(DataError, match=r"the ImageFolder: found a transform, which would not be applied"):
        open_stream(ImageFolder(str(tmp_path), transform=np.asarray), graph)


def test_levels_that_are_numbers_name_subfolders(tmp_path: Path) -> None:
    folder_of(tmp_path, levels=("0", "1"))
    graph = graph_of([1, 4, 4], levels=[0, 1])
    assert image_table(tmp_path, graph)["y"].tolist() == ["0"] * 3 + ["1"] * 3


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_paths_in_a_file_start_at_its_folder(tmp_path: Path, suffix: str) -> None:
    arrays, graph = pixels(5, 4, 4), graph_of([1, 4, 4])
    names: list[str | None] = []
    for i, array in enumerate(arrays):
        path = save(array, tmp_path / "scans" / f"{i}.png")
        names.append(os.fspath(path) if i == 4 else f"scans/{i}.png")
    names[2] = None
    table = {"y": ["cat", "dog"] * 2 + ["cat"], "age": [1.0, 2.0, 3.0, 4.0, 5.0]}
    frame = pd.DataFrame({**table, "scan": names})
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    stream = open_stream(path, graph)
    assert stream is not None
    assert stream.chunk == 1024
    encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    batch = Batch.concatenate(encoded_parts(stream, encoder, "use"))
    kept = [0, 1, 3, 4]
    torch.testing.assert_close(batch.values["scan"][kept], torch.from_numpy(arrays[kept]) / 255)
    assert batch.observed["scan"].tolist() == [True, True, False, True, True]
    (tmp_path / "scans" / "3.png").unlink()
    stream = open_stream(path, graph, chunk=2)
    assert stream is not None
    message = f"t.{suffix}: column 'scan': row 3 (counted from 0): {tmp_path / 'scans' / '3.png'}: no such file"
    with pytest.raises(DataError, match=re.escape(message)):
        [*encoded_parts(stream, encoder)]


def test_a_folder_without_subfolders_has_no_labels(tmp_path: Path) -> None:
    graph = graph_of([1, 4, 4])
    for name in ("b.png", "a.png"):
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("of the scanner")
    found = image_table(tmp_path, graph)
    assert found.to_dict("list") == {"scan": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]}
