"""Tables read in parts: what is learnt, held out, shuffled and sampled, sources, errors."""

import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyro_cama import build
from pyro_cama.data.batch import Batch
from pyro_cama.data.column_statistics import Moments
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.open_stream import open_stream
from pyro_cama.data.sampling import encoded_parts, keys, minibatches, sample_rows, survey, with_sites
from pyro_cama.data.streams import FrameStream, Stream
from pyro_cama.data.table_files import CsvStream, ParquetStream
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.tables import ALL_TYPES

FLAT = {name: node for name, node in ALL_TYPES.items() if name != "i"}


def graph_of(scope: str = "row", **nodes: Any) -> CausalGraph:
    nodes = {"y": {"type": "categorical", "levels": ["a", "b"]}} | nodes
    edges = [["y", name] for name in nodes if name != "y"]
    return CausalGraph({"target": "y", "nodes": nodes, "edges": edges, "latents": {"m": {"scope": scope}}})


def table_of(rows: int, seed: int = 0, missing: float = 0.2) -> dict[str, Any]:
    """Columns of all types with missing entries; the first two rows have all, and both classes."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "y": rng.choice(["a", "b"], rows).astype(object),
        "x": rng.normal(5, 3, rows),
        "v": [*rng.normal([1, -200], [3, 0.1], (rows, 2))],
        "n": rng.poisson(4, rows).astype(float),
        "w": [*rng.poisson(4, (rows, 3)).astype(float)],
        "b": rng.choice(["no", "yes"], rows).astype(object),
        "c": rng.choice([1, 2, 3], rows).astype(object),
        "i": [*rng.random((rows, 1, 2, 2))],
        "site": rng.choice([1, 2.0, "3", "north"], rows).astype(object),
    }
    columns["y"][:2] = ["a", "b"]
    for column in columns.values():
        for row in range(2, rows):
            if rng.random() < missing:
                column[row] = np.nan if isinstance(column, np.ndarray) and column.dtype == float else None
    return columns


class Parts(Stream):
    """A table cut at given places, which says how much of it is read at a time."""

    def __init__(self, table: dict[str, Any], cuts: list[int], jumps: bool = True) -> None:
        self._frame = pd.DataFrame(table)
        self._cuts = [0, *sorted(cuts), len(self._frame)]
        self._jumps = jumps
        self.chunk = max(1, *(b - a for a, b in zip(self._cuts, self._cuts[1:], strict=False)))

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        size = len(self._cuts) - 1
        for part in order.permutation(size) if order is not None and self._jumps else range(size):
            kept = [name for name in self._frame if name in columns]
            yield int(part), self._frame[kept].iloc[self._cuts[part] : self._cuts[part + 1]]


def numbers(rows: int, chunk: int, jumps: bool = True) -> tuple[Parts, CausalGraph]:
    """Rows that x numbers, and y, by turns a and b."""
    table = {"y": ["ab"[i % 2] for i in range(rows)], "x": np.arange(rows, dtype=float)}
    return Parts(table, [*range(chunk, rows, chunk)], jumps), graph_of(x="continuous")


def raw(encoder: TableEncoder, batch: Batch) -> list[int]:
    """The x of :func:`numbers`."""
    return np.rint(encoder.decode("x", batch.values["x"])).astype(int).tolist()


def equal(one: Batch, two: Batch) -> None:
    assert one.rows == two.rows
    assert one.values.keys() == two.values.keys()
    for name, value in one.values.items():
        mask = torch.ones(one.rows, dtype=torch.bool)
        assert torch.equal(one.observed.get(name, mask), two.observed.get(name, mask)), name
        torch.testing.assert_close(value, two.values[name], msg=name)
    assert (one.site is None) == (two.site is None)
    if one.site is not None and two.site is not None:
        assert torch.equal(one.site, two.site)


# What is learnt


@given(
    st.integers(3, 60), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 1000), st.sampled_from([0, 0.2, 0.9])
)
def test_parts_teach_what_the_whole_table_does(rows: int, cuts: list[int], seed: int, missing: float) -> None:
    table, graph = table_of(rows, seed, missing), graph_of("site", **ALL_TYPES)
    table["site"][0] = "north"
    found = survey(Parts(table, [cut for cut in cuts if cut <= rows]), graph, validation=0.2, seed=seed, progress=False)
    expected = TableEncoder(graph).fit(table)
    assert found.rows == rows
    assert found.encoder.sites == expected.sites
    assert found.encoder.statistics.keys() == expected.statistics.keys()
    for name, entries in expected.statistics.items():
        for key, value in entries.items():
            torch.testing.assert_close(found.encoder.statistics[name][key], value, rtol=1e-12, atol=1e-12, msg=name)


floats = st.floats(-1e300, 1e300, allow_subnormal=True)


@given(st.lists(st.lists(floats, min_size=1, max_size=6), min_size=1, max_size=5))
def test_moments_merge_whatever_the_size_of_the_values(parts: list[list[float]]) -> None:
    arrays = [np.array(part) for part in parts]
    merged = Moments.of(arrays[0])
    for array in arrays[1:]:
        merged = merged.merged(Moments.of(array))
    whole = Moments.of(np.concatenate(arrays))
    assert merged.rows == whole.rows
    size = float(np.abs(np.concatenate(arrays)).max())
    np.testing.assert_allclose(merged.mean_sd()[0], whole.mean_sd()[0], rtol=0, atol=1e-13 * size)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-12, atol=1e-15)
    assert np.isfinite(merged.mean_sd()).all()


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [0.1, 0.1 + 1e-17, 0.1], [0.0, 0.0, 1e-200], [0.0, 5e-324, 0.0]])
def test_constants_and_tiny_values_by_parts(values: list[float]) -> None:
    merged = Moments.of(np.array(values[:1]))
    for value in values[1:]:
        merged = merged.merged(Moments.of(np.array([value])))
    mean, sd = Moments.of(np.array(values)).mean_sd()
    np.testing.assert_allclose(merged.mean_sd(), (mean, sd), rtol=1e-12)


def test_moments_of_known_values() -> None:
    one, two = Moments.of(np.array([1.0, 2.0])), Moments.of(np.array([3.0, 6.0]))
    mean, sd = one.merged(two).mean_sd()
    assert float(mean) == 3.0
    assert float(sd) == pytest.approx(np.sqrt(3.5), rel=1e-15)


def test_survey_encodes_its_rows_as_the_table_is_encoded() -> None:
    table, graph = table_of(300), graph_of("site", **ALL_TYPES)
    stream = Parts(table, [70, 71, 200])
    found = survey(stream, graph, validation=0.1, seed=3, sample=50, progress=False)
    again = survey(stream, graph, validation=0.1, seed=3, sample=50, encoder=found.encoder, progress=False)
    assert again.encoder is found.encoder
    assert (found.held.rows, found.sample.rows) == (30, 50)
    equal(found.held, again.held)
    equal(found.sample, again.sample)
    assert found.threshold == again.threshold
    drawn = np.concatenate([keys(3, part, rows) for part, rows in enumerate((70, 1, 129, 100))])
    whole = found.encoder.encode(table)
    equal(found.held, whole.select(torch.from_numpy(np.argsort(drawn)[:30].copy())))
    equal(found.sample, whole.select(torch.from_numpy(np.argsort(drawn)[30:80].copy())))


@pytest.mark.parametrize(("rows", "validation", "held"), [(19, 0.5, 0), (20, 0.5, 10), (40, 0.99, 39), (50, 0.0, 0)])
def test_how_many_rows_are_held_out(rows: int, validation: float, held: int) -> None:
    stream, graph = numbers(rows, 7)
    found = survey(stream, graph, validation=validation, seed=0, progress=False)
    assert (found.held.rows, found.sample.rows) == (held, rows - held)
    assert found.threshold >= 0 if held else found.threshold == -1
    left = sum(
        batch.rows for batch in minibatches(stream, found.encoder, batch_size=4, seed=0, epoch=0, held=found.threshold)
    )
    assert left == rows - held


def test_no_more_than_two_thousand_rows_are_held_out() -> None:
    stream, graph = numbers(30_000, 4096)
    found = survey(stream, graph, validation=0.5, seed=0, sample=100, progress=False)
    assert (found.held.rows, found.sample.rows, found.rows) == (2000, 100, 30_000)


# Epochs


@settings(max_examples=40)
@given(st.integers(20, 120), st.integers(2, 40), st.integers(1, 30), st.booleans(), st.integers(0, 10**12))
def test_an_epoch_has_every_other_row_once(rows: int, chunk: int, batch_size: int, jumps: bool, seed: int) -> None:
    stream, graph = numbers(rows, chunk, jumps)
    found = survey(stream, graph, validation=0.2, seed=seed, progress=False)
    held = raw(found.encoder, found.held)
    for epoch in (0, 1):
        batches = [
            raw(found.encoder, batch)
            for batch in minibatches(
                stream, found.encoder, batch_size=batch_size, seed=seed, epoch=epoch, held=found.threshold
            )
        ]
        assert sorted([*held, *(row for batch in batches for row in batch)]) == [*range(rows)]
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert len(batches) == -(-(rows - len(held)) // batch_size)


@pytest.mark.parametrize("jumps", [True, False])
def test_an_epoch_is_replayed_to_the_bit_and_the_next_differs(jumps: bool) -> None:
    table, graph = table_of(500), graph_of("site", **ALL_TYPES)
    encoder = TableEncoder(graph).fit(table)

    def epoch(number: int, seed: int = 5) -> list[Batch]:
        stream = Parts(table, [*range(50, 500, 50)], jumps)
        return [*minibatches(stream, encoder, batch_size=32, seed=seed, epoch=number)]

    one, again, other, seeded = epoch(0), epoch(0), epoch(1), epoch(0, seed=6)
    for a, b in zip(one, again, strict=True):
        equal(a, b)
        assert torch.equal(a.values["x"], b.values["x"])
    assert not torch.equal(one[0].values["x"], other[0].values["x"])
    assert not torch.equal(one[0].values["x"], seeded[0].values["x"])


def test_rows_of_several_parts_mix() -> None:
    stream, graph = numbers(1000, 100, jumps=False)
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0.0, 999.0]})
    first = raw(encoder, next(iter(minibatches(stream, encoder, batch_size=100, seed=0, epoch=0))))
    assert len({row // 100 for row in first}) == 4


def test_labels_can_be_left_out_of_minibatches() -> None:
    stream, graph = numbers(30, 10)
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0.0, 29.0]})
    batches = [*minibatches(stream, encoder, batch_size=7, seed=0, epoch=0, target="ignore")]
    assert {name for batch in batches for name in batch.values} == {"x"}


def test_the_survey_may_have_had_another_seed() -> None:
    stream, graph = numbers(100, 30)
    found = survey(stream, graph, validation=0.2, seed=1, progress=False)
    rows = minibatches(stream, found.encoder, batch_size=9, seed=2, epoch=0, held=found.threshold, survey_seed=1)
    assert not {*raw(found.encoder, found.held)} & {row for batch in rows for row in raw(found.encoder, batch)}


# Samples


def test_keys_are_uniform_and_belong_to_their_place() -> None:
    drawn = keys(0, 3, 10_000)
    assert stats.kstest(drawn, "uniform").pvalue > 0.01
    assert np.array_equal(drawn[:50], keys(0, 3, 50))
    for other in (keys(1, 3, 10_000), keys(0, 4, 10_000), keys(-1, 3, 10_000)):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.05


@pytest.mark.parametrize("what", ["held", "sample", "sample_rows"])
def test_samples_are_uniform(what: str) -> None:
    stream, graph = numbers(100, 17)
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0.0, 99.0]})
    counts = np.zeros(100)
    for seed in range(200):
        if what == "sample_rows":
            batch = sample_rows(stream, encoder, 10, seed, "ignore")
        else:
            found = survey(stream, graph, validation=0.1, seed=seed, sample=10, encoder=encoder, progress=False)
            batch = found.held if what == "held" else found.sample
        rows = raw(encoder, batch)
        assert len({*rows}) == 10
        counts[rows] += 1
    # without replacement counts vary by 1 - 10 / 100 less than a multinomial's
    statistic = ((counts - 20) ** 2 / 20).sum() / 0.9
    assert 0.001 < stats.chi2(99).sf(statistic) < 0.999


def test_a_sample_of_more_rows_than_there_are_is_all_of_them() -> None:
    stream, graph = numbers(25, 4)
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0.0, 24.0]})
    batch = sample_rows(stream, encoder, 1000, 0, "require")
    assert sorted(raw(encoder, batch)) == [*range(25)]
    assert raw(encoder, batch) != [*range(25)]
    assert batch.values["y"].tolist() == [row % 2 for row in raw(encoder, batch)]


def test_sites_of_a_stream_are_added_as_those_of_a_table() -> None:
    table, graph = table_of(200), graph_of("site", **ALL_TYPES)
    encoder = TableEncoder(graph).fit({name: column[:2] for name, column in table.items()})
    stream = Parts(table, [3, 50])
    assert with_sites(stream, encoder).sites == encoder.with_sites(table).sites
    assert len(with_sites(stream, encoder).sites) == 4
    assert with_sites(numbers(5, 2)[0], TableEncoder(graph_of(x="continuous"))).sites == ()


# Memory


class Counted(Stream):
    """Rows that are made when they are read."""

    chunk = 1000

    def __init__(self, rows: int) -> None:
        self.total = rows

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        for part in range(self.total // self.chunk):
            x = np.arange(part * self.chunk, (part + 1) * self.chunk, dtype=float)
            frame = pd.DataFrame({"y": np.where(x % 2, "a", "b"), "x": x})
            yield part, frame[[name for name in frame if name in columns]]


def test_memory_is_bounded_by_the_chunk_and_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    most = {"concatenated": 0}
    whole = Batch.concatenate

    def watched(batches: Any) -> Batch:
        batch = whole(batches)
        most["concatenated"] = max(most["concatenated"], batch.rows)
        return batch

    monkeypatch.setattr(Batch, "concatenate", staticmethod(watched))
    for rows in (50_000, 200_000):
        stream, graph = Counted(rows), graph_of(x="continuous")
        most["concatenated"] = 0
        found = survey(stream, graph, validation=0.15, seed=0, sample=500, progress=False)
        assert (found.rows, found.held.rows, found.sample.rows) == (rows, 2000, 500)
        assert most["concatenated"] <= 2 * 2500 + 1000
        most["concatenated"], seen = 0, 0
        for batch in minibatches(stream, found.encoder, batch_size=128, seed=0, epoch=0, held=found.threshold):
            assert batch.rows <= 128
            seen += batch.rows
        assert seen == rows - 2000
        assert most["concatenated"] <= 5 * stream.chunk + 128
        most["concatenated"] = 0
        assert sample_rows(stream, found.encoder, 700, 0).rows == 700
        assert most["concatenated"] <= 2 * 700 + 1000


def test_a_part_larger_than_promised_is_refused() -> None:
    stream, graph = numbers(30, 10)
    stream.chunk = 9
    with pytest.raises(DataError, match=r"part 0: found 10 rows; expected at most 9 a part"):
        survey(stream, graph, validation=0, seed=0, progress=False)


# Sources


def files_of(folder: Path, frame: pd.DataFrame, chunk: int, graph: CausalGraph) -> dict[str, Stream]:
    """The same rows from every kind of source."""
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet", index=False, row_group_size=37)
    for kind in ("csv", "parquet"):
        (folder / kind).mkdir()
        for i, start in enumerate(range(0, len(frame), 45)):
            part = frame.iloc[start : start + 45]
            if kind == "csv":
                part.to_csv(folder / kind / f"{i}.csv", index=False)
            else:
                part.to_parquet(folder / kind / f"{i}.parquet", index=False)
    found = {name: open_stream(folder / name, graph, chunk=chunk) for name in ("t.csv", "t.parquet", "csv", "parquet")}
    return {name: stream for name, stream in found.items() if stream is not None}


@pytest.mark.parametrize("chunk", [7, 1000])
def test_files_equal_the_table_in_memory(tmp_path: Path, chunk: int) -> None:
    table, graph = table_of(100), graph_of("site", **FLAT)
    del table["i"]
    table["site"] = np.array([1, 2, 12345678901234567, 1][:4] * 25, dtype=object)
    table["site"][7] = None
    table["b"][3] = "yes"
    frame = pd.DataFrame(
        {
            **{name: table[name] for name in ("y", "x", "n", "b")},
            **{f"v[{i}]": [np.nan if row is None else row[i] for row in table["v"]] for i in range(2)},
            **{f"w[{i}]": [np.nan if row is None else row[i] for row in table["w"]] for i in range(3)},
            "c": pd.array(table["c"], dtype="Int64"),
            "site": pd.array(table["site"], dtype="Int64"),
            "unused": 7,
        }
    )
    expected = TableEncoder(graph).fit(table)
    whole = expected.encode(table)
    for name, stream in files_of(tmp_path, frame, chunk, graph).items():
        found = survey(stream, graph, validation=0.2, seed=0, progress=False)
        assert found.rows == 100, name
        assert expected.sites == (1, 12345678901234567, 2)
        assert [str(site) for site in found.encoder.sites] == ["1", "12345678901234567", "2"], name
        for node, entries in expected.statistics.items():
            for key, value in entries.items():
                torch.testing.assert_close(found.encoder.statistics[node][key], value, rtol=1e-12, atol=1e-12)
        parts = [*encoded_parts(stream, expected, "use")]
        assert max(part.rows for part in parts) <= chunk
        equal(Batch.concatenate(parts), whole)
        drawn = [*minibatches(stream, expected, batch_size=8, seed=0, epoch=0, held=found.threshold)]
        x = torch.cat([found.held.values["x"], *(batch.values["x"] for batch in drawn)])
        torch.testing.assert_close(x.sort().values, whole.values["x"].sort().values)


def test_levels_and_missing_entries_do_not_change_from_part_to_part(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "y,c,b,x,site\n"
        "a,01,True,1,7\n"
        "b,2,False,NA,8\n"
        "a,,true,,7.0\n"
        "b,3.0,,null,north\n"
        "NA,1,False,2.5,\n"
    )  # fmt: skip
    nodes = {"c": ALL_TYPES["c"], "b": {"type": "binary", "levels": [False, True]}, "x": "continuous"}
    graph = graph_of("site", y={"type": "categorical", "levels": ["a", "b", "NA"]}, **nodes)
    for chunk in (1, 2, 5):
        stream = open_stream(tmp_path / "t.csv", graph, chunk=chunk)
        assert stream is not None
        encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
        assert encoder.sites == ("7", "8", "north")
        batch = Batch.concatenate(encoded_parts(stream, encoder, "require"))
        assert batch.values["y"].tolist() == [0, 1, 0, 1, 2]
        assert batch.observed["x"].tolist() == [True, False, False, False, True]
        assert batch.values["c"].tolist()[:2] + batch.values["c"].tolist()[3:] == [0, 1, 2, 0]
        assert batch.observed["c"].tolist() == [True, True, False, True, True]
        assert batch.values["b"].tolist()[:3] == [1, 0, 1]
        assert batch.site is not None
        assert batch.site.tolist() == [0, 1, 0, 2, -1]


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame", "mapping"])
def test_sites_and_levels_are_the_same_from_any_table(kind: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "y": ["a", "b", "a", "b", "a"],
            "zip": ["01234", "1234", "01234", "1234", None],
            "n": ["1", "01", "2.0", "+2", " 1"],
            "site": ["01", "1", "1.0", "001", None],
        }
    )
    data: Any = {name: column.tolist() for name, column in frame.items()} if kind == "mapping" else frame
    if kind in ("csv", "parquet"):
        data = tmp_path / f"t.{kind}"
        frame.to_csv(data, index=False) if kind == "csv" else frame.to_parquet(data)
    graph = graph_of(
        "site",
        zip={"type": "categorical", "levels": ["01234", "1234"]},
        n={"type": "categorical", "levels": [1, 2]},
    )
    stream = open_stream(data, graph, chunk=2)
    if stream is None:
        encoder = TableEncoder(graph).fit(data)
        batch = encoder.encode(data)
    else:
        encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
        batch = Batch.concatenate(encoded_parts(stream, encoder, "use"))
    assert encoder.sites == ("001", "01", "1")
    assert batch.site is not None
    assert batch.site.tolist() == [1, 2, 2, 0, -1]
    assert batch.values["zip"].tolist()[:4] == [0, 1, 0, 1]
    assert batch.values["n"].tolist() == [0, 0, 1, 1, 0]
    # the same sites as numbers, some beside a missing one
    assert encoder.encode({**dict.fromkeys(("zip", "n"), [None] * 2), "site": [1.0, None]}).site.tolist() == [2, -1]  # type: ignore[union-attr]


def frames_of(text: str, graph: CausalGraph, chunk: int, path: Path) -> Batch:
    path.write_text(text)
    stream = open_stream(path, graph, chunk=chunk)
    assert stream is not None
    encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    return Batch.concatenate(encoded_parts(stream, encoder, "use"))


PLAIN = "y,x,n\na,1.5,3\nb,2.5,1\nb,0.5,2\n"
ODD = {
    "index without a name": ",y,x,n\n0,a,1.5,3\n1,b,2.5,1\n2,b,0.5,2\n",
    "two levels of an index": ",,y,x,n\n0,0,a,1.5,3\n0,1,b,2.5,1\n1,0,b,0.5,2\n",
    "commas at the ends": "y,x,n,\na,1.5,3,\nb,2.5,1,\nb,0.5,2,\n",
    "commas at the ends but the first": "y,x,n\na,1.5,3,\nb,2.5,1,\nb,0.5,2,\n",
    "unused doubled": "k,y,x,k,n\n1,a,1.5,p,3\n2,b,2.5,q,1\n3,b,0.5,,2\n",
    "pandas' name of a doubled one": "n.1,y,x,n\n1,a,1.5,3\n2,b,2.5,1\n3,b,0.5,2\n",
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_columns_that_are_none_of_the_graphs_change_nothing(odd: str, chunk: int, tmp_path: Path) -> None:
    graph = graph_of(x="continuous", n="count")
    equal(*(frames_of(text, graph, chunk, tmp_path / "t.csv") for text in (PLAIN, ODD[odd])))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_marks_among_numbers_are_missing_and_it_is_said(
    chunk: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes: Any = {"x": "continuous", "n": "count", "v": ALL_TYPES["v"], "c": {"type": "categorical", "levels": [1, 2]}}
    graph = graph_of(**nodes, k={"type": "categorical", "levels": ["?", "u"]})
    rows = ["a,1.5,3,1,2,1,?", "b,?,1,-,3,2,u", "b,2.5, ?,4,4,NA,?", "a,?,2,5,6,?,"]
    head = "y,x,n,v[0],v[1],c,k\n"
    with caplog.at_level(logging.WARNING):
        found = frames_of(head + "\n".join(rows), graph, chunk, tmp_path / "t.csv")
    path = tmp_path / "t.csv"
    assert {record.getMessage() for record in caplog.records} == {
        f"{path}: column {name!r}: {mark!r}, first in row {row} (counted from 0), is read as missing"
        for name, mark, row in (("x", "?", 1), ("n", " ?", 2), ("v[0]", "-", 1), ("c", "?", 3))
    }
    assert len(caplog.records) == 4, "once each, whatever the passes"
    blank = [row.replace(" ?", "").replace("-", "").replace("NA", "") for row in rows]
    blank = [",".join([*("" if f == "?" else f for f in row.split(",")[:-1]), row.split(",")[-1]]) for row in blank]
    equal(found, frames_of(head + "\n".join(blank), graph, chunk, tmp_path / "t.csv"))


def test_unused_doubled_columns_of_parquet_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    arrays = [pa.array(["a", "b"]), pa.array([1.0, 2.0]), pa.array([1, 2]), pa.array(["p", "q"])]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, names=["y", "x", "k", "k"]), tmp_path / "t.parquet")
    stream = open_stream(tmp_path / "t.parquet", graph_of(x="continuous"))
    assert stream is not None
    assert next(iter(stream.parts(["y", "x"])))[1]["x"].tolist() == [1.0, 2.0]
    assert "ignored: 'k', which is there 2 times" in caplog.text
    with pytest.raises(DataError, match="found column 'k' more than once"):
        open_stream(tmp_path / "t.parquet", graph_of(k="count"))


def test_parquet_keeps_vectors_booleans_and_large_integers(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "y": pd.array([True, None, False, True]),
            "v": [np.array([1.0, 2.0]), None, np.array([3.0, 4.0]), np.array([5.0, 7.0])],
            "site": pd.array([9007199254740993, None, 9007199254740992, 5], dtype="Int64"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    graph = graph_of("site", y="binary", v=ALL_TYPES["v"])
    stream = open_stream(str(tmp_path / "t.parquet"), graph, chunk=1)
    assert isinstance(stream, ParquetStream)
    found = survey(stream, graph, validation=0, seed=0, progress=False)
    assert found.encoder.sites == (5, 9007199254740992, 9007199254740993)
    equal(Batch.concatenate(encoded_parts(stream, found.encoder, "use")), found.encoder.encode(frame))


def test_parquet_parts_are_the_same_whatever_columns_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": ["a", "b"] * 50, "x": np.arange(100.0), "v": [[1.0, 2.0]] * 100})
    frame.to_parquet(tmp_path / "t.parquet", index=False, row_group_size=33)
    graph = graph_of(x="continuous", v=ALL_TYPES["v"])
    stream = open_stream(tmp_path / "t.parquet", graph, chunk=10)
    assert stream is not None
    assert stream.rows == 100
    expected = [10, 10, 10, 3] * 3 + [1]
    for columns in (["x"], ["y", "v"], ["x", "y", "v"]):
        parts = [*stream.parts(columns)]
        assert [number for number, _ in parts] == [*range(13)]
        assert [len(part) for _, part in parts] == expected
        assert {*parts[0][1]} == {*columns}
    shuffled = [number for number, _ in stream.parts(["x"], np.random.default_rng(0))]
    assert sorted(shuffled) == [*range(13)]
    assert shuffled != [*range(13)]
    x = {number: part["x"].tolist() for number, part in stream.parts(["x"], np.random.default_rng(0))}
    assert [value for number in range(13) for value in x[number]] == [*range(100)]


class RowByRow(Dataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= self.rows:
            raise IndexError
        return {"y": "ab"[i % 2], "x": float(i), "v": torch.tensor([i, 1.0]), "i": torch.full((1, 2, 2), i / 100)}


class Rows(IterableDataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = RowByRow(rows)

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[i] for i in range(len(self.rows)))


@pytest.mark.parametrize("source", ["loader", "large batches", "iterable"])
def test_loaders_equal_the_table_in_memory(source: str) -> None:
    graph = graph_of(x="continuous", v=ALL_TYPES["v"], i=ALL_TYPES["i"])
    data: Any = {
        "loader": DataLoader(RowByRow(53), batch_size=8),
        "large batches": DataLoader(RowByRow(53), batch_size=30),
        "iterable": Rows(53),
    }[source]
    stream = open_stream(data, graph, chunk=10)
    assert stream is not None
    expected = TableEncoder(graph).fit(RowByRow(53))
    found = survey(stream, graph, validation=0.2, seed=0, progress=False)
    for node, entries in expected.statistics.items():
        for key, value in entries.items():
            torch.testing.assert_close(found.encoder.statistics[node][key], value, rtol=1e-12, atol=1e-12)
    parts = [*encoded_parts(stream, expected, "use")]
    assert max(part.rows for part in parts) <= 10
    equal(Batch.concatenate(parts), expected.encode(RowByRow(53)))


def test_what_is_a_stream_and_what_is_not(tmp_path: Path) -> None:
    graph = graph_of(x="continuous")
    table = {"y": ["a", "b"], "x": [1.0, 2.0]}
    assert open_stream(table, graph) is None
    assert open_stream(pd.DataFrame(table), graph) is None
    assert open_stream(RowByRow(3), graph) is None
    stream, _ = numbers(5, 2)
    assert open_stream(stream, graph) is stream
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    found = open_stream(tmp_path / "t.csv", graph)
    assert isinstance(found, CsvStream)
    assert found.chunk == 65_536
    images = graph_of(i=ALL_TYPES["i"])
    assert open_stream({"y": ["a"], "i": np.zeros((1, 1, 2, 2))}, images) is None
    paths = open_stream({"y": ["a", "b", "a"], "i": [None, pd.NA, "a.png"]}, images)
    assert isinstance(paths, FrameStream)
    assert paths.chunk == 1024
    with pytest.raises(ValueError, match=r"open_stream\(chunk=0\): expected a whole number"):
        open_stream(tmp_path / "t.csv", graph, chunk=0)


def test_unknown_columns_of_a_file_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("y,x,weight\na,1,2\nb,2,3\n")
    graph = graph_of(x="continuous")
    stream = open_stream(tmp_path / "t.csv", graph)
    assert stream is not None
    with caplog.at_level(logging.WARNING):
        survey(stream, graph, validation=0, seed=0, progress=False)
    assert "no nodes of the graph are ignored: 'weight'" in caplog.text


# Errors


def refused(data: Any, message: str, graph: CausalGraph | None = None, chunk: int = 2) -> None:
    """Opening or surveying fails with this message, taken literally but for ... ."""
    graph = graph or graph_of(x="continuous", n="count")
    pattern = ".*".join(re.escape(part) for part in message.split("..."))

    def read() -> None:
        stream = open_stream(data, graph, chunk=chunk)
        assert stream is not None
        survey(stream, graph, validation=0, seed=0, progress=False)

    with pytest.raises(DataError, match=pattern):
        read()


CSV_FAULTS = {
    "": "t.csv: is empty; expected names of columns",
    "y,x,n\n": "t.csv: the table is empty; expected at least one row",
    "y,X,n\na,1,1\n": "t.csv: column 'x': found none, but 'X'; expected one: rename it",
    "x,n\n1,1\n": "t.csv: target column 'y': found none; expected one",
    "y,x,n,n\na,1,1,1\n": "t.csv: found column 'n' more than once",
    "y;x;n\na;1;1\n": "t.csv: line 1: ...expected commas, not ';'...pandas.read_csv(..., sep=';', decimal=',')",
    "y\tx\tn\na\t1\t1\n": "t.csv: line 1: ...expected commas, not '\\t'...pandas.read_csv(..., sep='\\t') may read it",
    "y,x,n\na,1,1,\nb,2,1,7\n": "t.csv: line 3: found 4 fields; expected 3",
    "y,x,n\na,1,1,\nb,2,1\n": "t.csv: line 3: found 3 fields; expected 4, the last of them empty",
    'y,x,n\na,1,1\nb,"2,5",1\n': "column 'x': found no number in row 1 ('2,5')...is that a decimal comma? write '2.5'",
    "y,x,n\na,?,1\nb,-,1\n": "t.csv: column 'x': found no entry in 2 rows",
    "y,x,n\na,1,1\nb,2\n": "t.csv: line 3: found 2 fields; expected 3",
    "y,x,n\na,1,1\nb,2,3,4\n": "t.csv: line 3: found 4 fields; expected 3",
    'y,x,n\na,1,1\nb,"2,3\n': "t.csv: line 3: unexpected end of data; expected each quote closed",
    "y,x,n\na,1,1\nb,\0,3\n": "t.csv: line 3: found a zero byte",
    "y,x,n\na,1,1\nb,2,1\na,2,1\nc,1,1\n": "t.csv: column 'y': found unknown levels in row 3 ('c') (counted from 0)",
    "y,x,n\na,1,1\nb,2,1\na,two,1\n": "t.csv: column 'x': found no number in row 2 ('two') (counted from 0)",
    "y,x,n\na,1,1\nb,2,1\na,inf,1\n": "t.csv: column 'x': found infinite values in row 2 (inf)",
    "y,x,n\na,1,1\nb,2,1\na,2,1\na,2,-1\n": "t.csv: column 'n': found negative or fractional values in row 3 (-1.0)",
    "y,x,n\na,1,1\na,2,1\n": "t.csv: target column 'y': found one class, 'a'",
    "y,x,n\na,,1\nb,,1\na,,1\n": "t.csv: column 'x': found no entry in 3 rows",
}


@pytest.mark.parametrize("text", CSV_FAULTS)
def test_faults_of_a_csv_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    refused(tmp_path / "t.csv", CSV_FAULTS[text])


def test_faults_of_paths(tmp_path: Path) -> None:
    refused(tmp_path / "t.csv", "t.csv: no such file or folder")
    refused(tmp_path, "found no .csv and no .parquet file")
    (tmp_path / "t.txt").write_text("y,x\n")
    refused(tmp_path / "t.txt", "t.txt: found suffix '.txt'; expected a table, .csv or .parquet")
    (tmp_path / "latin.csv").write_bytes("y,x,n\na,1,1\nb\xe9,2,1\n".encode("latin-1"))
    refused(tmp_path / "latin.csv", "latin.csv: is not UTF-8 text")
    (tmp_path / "t.parquet").write_text("no such thing")
    refused(tmp_path / "t.parquet", "t.parquet: is no valid parquet file")
    refused(tmp_path, "found both .csv and .parquet files; expected one kind")


def test_faults_of_vectors(tmp_path: Path) -> None:
    graph = graph_of(v=ALL_TYPES["v"])
    (tmp_path / "t.csv").write_text("y,v[0]\na,1\nb,2\n")
    refused(tmp_path / "t.csv", "t.csv: vector 'v': found no column 'v[1]'; expected 'v[0]', 'v[1]'", graph)
    (tmp_path / "t.csv").write_text("y,v[0],v[1]\na,1,1\nb,2,2\na,3,x\n")
    refused(tmp_path / "t.csv", "t.csv: column 'v[1]': found no number in row 2 (counted from 0), 'x'", graph)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_a_folder_have_the_same_columns(tmp_path: Path, kind: str) -> None:
    def write(name: str, frame: pd.DataFrame) -> None:
        path = tmp_path / f"{name}.{kind}"
        if kind == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)

    write("1", pd.DataFrame({"y": ["a", "b"], "x": [1.0, 2], "n": [1, 2]}))
    write("2", pd.DataFrame({"y": ["a", "b"], "n": [1, 2], "unused": [1, 2]}))
    refused(tmp_path, f"2.{kind}: found no column 'x', which 1.{kind} has")
    write("2", pd.DataFrame({"n": [1, 2], "unused": [1, 2], "x": [3.0, 4], "y": ["b", "z"]}))
    refused(tmp_path, f"2.{kind}: column 'y': found unknown levels in row 1 ('z')", chunk=1)


def test_faults_of_parquet_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": ["a", "b", "a", "a"], "x": ["1", "2", "3", "four"], "n": 1})
    frame.to_parquet(tmp_path / "t.parquet", index=False, row_group_size=2)
    refused(tmp_path / "t.parquet", "t.parquet: column 'x': found no number in row 3 ('four')", chunk=1)
    frame.drop(columns="n").to_parquet(tmp_path / "t.parquet", index=False)
    refused(tmp_path / "t.parquet", "t.parquet: column 'n': found none; expected one")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_text("")

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("pyro_cama.data.table_files.importlib.import_module", absent)
    with pytest.raises(ImportError, match=r"t\.parquet: .* run: pip install 'pyro_cama\[parquet\]'"):
        open_stream(tmp_path / "t.parquet", graph_of(x="continuous"))


def test_a_table_that_changes_between_passes(tmp_path: Path) -> None:
    path, graph = tmp_path / "t.csv", graph_of(x="continuous")
    path.write_text("y,x\na,10\nb,20\na,30\n")
    stream = open_stream(path, graph)
    assert stream is not None
    encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    path.write_text("y,x\na,10\nb,2000000\n")
    with pytest.raises(DataError, match=r"t\.csv: found 2 rows, 3 in an earlier pass"):
        [*encoded_parts(stream, encoder)]
    path.write_text("y,x\na,10\n")
    with pytest.raises(DataError, match=r"t\.csv: found 9 bytes, 19 when it was opened"):
        [*encoded_parts(stream, encoder)]
    path.unlink()
    with pytest.raises(DataError, match=r"t\.csv: cannot be read \(No such file"):
        [*encoded_parts(stream, encoder)]


class Once(IterableDataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = iter(rows)

    def __iter__(self) -> Iterator[Any]:
        return self.rows


class Drawn(IterableDataset[Any]):
    """The rows in another order in every pass."""

    def __init__(self, rows: int, jitter: bool = False) -> None:
        self.rows, self.generator, self.jitter = RowByRow(rows), np.random.default_rng(0), jitter

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self.rows)) if self.jitter else self.generator.permutation(len(self.rows)):
            yield {**self.rows[i], **({"i": torch.rand(1, 2, 2)} if self.jitter else {})}


@pytest.mark.parametrize(
    "wrap", [lambda rows: rows, lambda rows: DataLoader(rows, batch_size=8)], ids=["rows", "loader"]
)
def test_rows_that_are_shuffled_anew_are_refused(wrap: Any) -> None:
    graph = graph_of(x="continuous")
    stream = open_stream(wrap(Drawn(30)), graph, chunk=10)
    assert stream is not None
    list(stream.parts(["x", "y"]))
    with pytest.raises(DataError, match=r"column '[xy]': found other entries in rows 0 to (9|7) .* in an earlier pass"):
        list(stream.parts(["x", "y"]))
    cama = build(graph, hidden=4, device="cpu")
    with pytest.raises(DataError, match="do not shuffle, the rows are shuffled here"):
        cama.fit(wrap(Drawn(60)), max_epochs=2, progress=False)
    cama.fit(wrap(Rows(60)), max_epochs=1, progress=False)
    with pytest.raises(DataError, match="do not shuffle"):
        cama.score(wrap(Drawn(60)))  # labels of one pass, probabilities of another
    assert cama.score(wrap(Rows(60))) == cama.score(RowByRow(60))
    assert len(cama.predict_proba(wrap(Drawn(60)))) == 60


def test_augmented_images_are_not_shuffled_rows() -> None:
    graph = graph_of(x="continuous", i=ALL_TYPES["i"])
    stream = open_stream(Drawn(30, jitter=True), graph, chunk=10)
    assert stream is not None
    for _ in range(2):
        assert len(list(stream.parts(["x", "y", "i"]))) == 3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_partitioned_folders(kind: str, tmp_path: Path) -> None:
    graph = graph_of("site", x="continuous", n="count", c={"type": "categorical", "levels": ["new", "o/d"]})
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.choice(["a", "b"], 60), "x": rng.normal(size=60), "n": rng.integers(0, 3, 60),
                          "c": rng.choice(["new", "o/d"], 60), "site": rng.choice(["n", "s"], 60)})  # fmt: skip
    write = {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}[kind]
    ordered = []
    for (c, site, n), part in frame.groupby(["c", "site", "n"]):
        folder = tmp_path / "table" / f"c={c.replace('/', '%2F')}" / f"site={site}" / f"n={n}"
        folder.mkdir(parents=True)
        write(part.drop(columns=["c", "site", "n"]), folder / f"part.{kind}", index=False)
        (folder / "_SUCCESS").touch()
        ordered.append(part)
    stream = open_stream(tmp_path / "table", graph, chunk=7)
    assert stream is not None
    assert {*stream.names} == {*frame.columns}
    whole = pd.concat(ordered, ignore_index=True)
    encoder = TableEncoder(graph).fit(whole)
    equal(Batch.concatenate([*encoded_parts(stream, encoder, "use")]), encoder.encode(whole))
    found = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    assert found.sites == encoder.sites


def test_faults_of_partitioned_folders(tmp_path: Path) -> None:
    for folder in ("c=new", "site=n"):
        (tmp_path / folder).mkdir()
        pd.DataFrame({"y": ["a", "b"], "x": [0.0, 1.0]}).to_csv(tmp_path / folder / "t.csv", index=False)
    graph = graph_of(x="continuous", c={"type": "categorical", "levels": ["new", "old"]})
    refused(tmp_path, "found no column 'c', which t.csv has; expected the same columns in all files of a folder", graph)
    (tmp_path / "missing" / "c=__HIVE_DEFAULT_PARTITION__").mkdir(parents=True)
    frame = pd.DataFrame({"y": ["a", "b"], "x": [0.0, 1.0]})
    frame.to_csv(tmp_path / "missing" / "c=__HIVE_DEFAULT_PARTITION__" / "t.csv", index=False)
    stream = open_stream(tmp_path / "missing", graph)
    assert stream is not None
    ((_, part),) = stream.parts(["y", "x", "c"])
    assert part["c"].isna().all()


def test_faults_of_loaders() -> None:
    graph = graph_of(x="continuous")
    refused(DataLoader(RowByRow(9), shuffle=True), "the DataLoader shuffles; ...pass shuffle=False", graph)
    tuples: Any = DataLoader([(1.0, 2.0)] * 4, batch_size=2)  # type: ignore[arg-type]
    refused(tuples, "the DataLoader, batch 0: found a list as table", graph)
    rows: list[Any] = [{"y": "a", "x": 1.0}, {"y": "b", "x": 2.0}, {"y": "b", "x": 2.0}, {"y": "b"}]
    refused(Once(rows), "the IterableDataset: column 'x': found no entry in row 3 (counted from 0)", graph)
    refused(Once([*rows[:3], 5]), "the IterableDataset: found a int as row 3 (counted from 0)", graph)
    refused(Once([*rows[:3], {"y": "c", "x": 1}]), "column 'y': found unknown levels in row 3 ('c')", graph)
    stream = open_stream(Once(rows[:3]), graph)
    assert stream is not None
    encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    with pytest.raises(DataError, match=r"found 0 rows, 3 in an earlier pass; .* nor can it be read only once"):
        [*encoded_parts(stream, encoder)]


def test_missing_labels_where_they_are_required() -> None:
    graph = graph_of(x="continuous")
    stream = Parts({"y": ["a", "b", "a", None], "x": [1.0, 2.0, 3.0, 4.0]}, [2])
    encoder = survey(stream, graph, validation=0, seed=0, progress=False).encoder
    with pytest.raises(DataError, match=r"part 1: target column 'y': found no label in row 3 \(counted from 0\)"):
        [*encoded_parts(stream, encoder, "require")]
    assert Batch.concatenate(encoded_parts(stream, encoder, "use")).observed["y"].tolist() == [True, True, True, False]
