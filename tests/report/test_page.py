"""The report: its figures are the model's, its HTML is whole, its curves start from the clean rows."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from pyro_cama import CAMA, CausalGraph, DataError, build, cli
from pyro_cama.metrics import calibration_error
from pyro_cama.report import sections as module
from pyro_cama.report.drift import AMOUNTS, Drift
from pyro_cama.report.page import report
from pyro_cama.report.plots import calibration
from pyro_cama.report.sections import confusion

QUICK: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 2, "keep": "always"}
NASTY = "<script>&\"'$x"
VOID = {"meta", "br", "link", "img", "input", "hr"}
NODES = {"y": {"type": "categorical", "levels": ["p", "<q>"]}, "x": "continuous", NASTY: "continuous", "n": "count"}
EDGES = [["y", "x"], ["y", NASTY], ["y", "n"]]


def table(rows: int, seed: int = 0, drift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    frame = {"x": 10 + 2 * (2 * y + rng.normal(size=rows) + drift), NASTY: y + rng.normal(size=rows)}
    return pd.DataFrame(frame | {"n": rng.poisson(2 + 3 * y), "y": np.where(y, "<q>", "p")})


def made(**m: Any) -> CAMA:
    latents = {"z": {"dim": 1}, "m": {"dim": 1, **m} if m else None}
    graph = {"target": "y", "nodes": NODES, "edges": EDGES, "latents": latents}
    return build(graph, hidden=8, layers=1, device="cpu")


@functools.cache
def fitted(scope: str = "dataset") -> CAMA:
    return made(scope=scope).fit(table(120), max_epochs=15, lr=1e-2, progress=False)


NEW = table(60, seed=1, drift=3.0)


@functools.cache
def adapted() -> CAMA:
    return fitted().adapt(NEW, progress=False, **QUICK)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with everything in it."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    drifts = ["x offset", f"x, {NASTY} gain"]
    assert report(adapted(), NEW, path, before=fitted(), clean=table(120), drifts=drifts) == path
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements that are open, and all that were met; fails where one is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.met: list[tuple[str, dict[str, str | None]]] = []
        self.within: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.met.append((tag, dict(attrs)))
        self.within.append(tuple(self.open))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.met.append((tag, dict(attrs)))
        self.within.append(tuple(self.open))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.met)


def cells(page: str, name: str) -> list[str]:
    """The cells of the table's row that begins with a name."""
    row = re.search(rf'<tr><th scope="row">{re.escape(name)}</th>(.*?)</tr>', page)
    assert row is not None, name
    return re.findall(r"<td[^>]*>(.*?)</td>", row[1])


# drifts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.0, 1.5])
def test_offsets_are_standard_deviations_of_the_clean_rows(amount: float) -> None:
    graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "v": {"type": "continuous", "dim": 2}, "n": "count"},
                         "edges": ["y -> v", "y -> n"]})  # fmt: skip
    v = np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, 5.0], [4.0, 7.0]])
    rows = {"y": [0, 1, 0, 1], "v": v, "n": np.array([0.0, 3.0, np.nan, 9.0])}
    found = Drift.parse("v, n offset", graph).apply(rows, graph, amount)
    seen = v[[0, 1, 3]]  # a vector with a hole is missing as a whole
    np.testing.assert_allclose(found["v"][[0, 1, 3]], seen + amount * seen.std(0))
    assert np.isnan(found["v"][2]).all()
    np.testing.assert_allclose(found["n"][[0, 1, 3]], np.round(np.array([0, 3, 9]) + amount * np.std([0, 3, 9])))
    assert np.isnan(found["n"][2])
    assert found["y"] is rows["y"]
    assert v[0, 0] == 0.0, "the caller's rows stay as they were"


def test_gains_multiply_readings() -> None:
    graph = fitted().graph
    rows = table(20)
    found = Drift.parse("x, n gain", graph).apply(dict(rows), graph, 0.5)
    np.testing.assert_allclose(found["x"], rows["x"] / 2)
    np.testing.assert_array_equal(found["n"], np.round(rows["n"] / 2))
    assert Drift.parse(f"{NASTY} gain", graph).columns == (NASTY,)
    for kind, rest in (("offset", 0.0), ("gain", 1.0)):
        assert rest in AMOUNTS[kind]
        same = Drift.parse(f"x, n {kind}", graph).apply(dict(rows), graph, rest)
        np.testing.assert_array_equal(same["x"], rows["x"])
        np.testing.assert_array_equal(same["n"], rows["n"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "expected columns, then offset or gain"),
        ("offset", "expected columns"),
        ("x twist", "'x twist': expected columns"),
        ("y offset", "found 'y'; expected some of 'x'"),
        ("x, z gain", "found 'z'"),
    ],
)
def test_drifts_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Drift.parse(text, fitted().graph)


# figures -------------------------------------------------------------------------------------------------------------


@st.composite
def read(draw: st.DrawFn) -> tuple[Any, Any]:
    rows, classes = draw(st.integers(1, 30)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    p = rng.dirichlet(np.full(classes, 0.5), rows)
    return p, rng.integers(-1, classes, rows)


@given(read())
@settings(max_examples=40)
def test_confusion_and_calibration_agree_with_others(found: tuple[Any, Any]) -> None:
    p, labels = found
    known = labels >= 0
    expected = confusion_matrix(labels[known], p[known].argmax(1), labels=range(p.shape[1])) if known.any() else 0
    np.testing.assert_array_equal(confusion(p, labels), expected)
    rows, confidence, right = calibration(p, labels)
    assert rows.sum() == known.sum()
    assert (rows > 0).all()
    if known.any():
        error = calibration_error(p[known].max(1), p[known].argmax(1) == labels[known])
        assert (rows * abs(right - confidence)).sum() / rows.sum() == pytest.approx(error)


def test_its_figures_are_the_models(page: str) -> None:
    before, after = fitted().score(NEW), adapted().score(NEW)
    assert after > before + 0.1, "nothing to report"
    assert [cell[:5] for cell in cells(page, "accuracy")] == [f"{before:.3f}", f"{after:.3f}"]
    counts = confusion(adapted().predict_proba(NEW), np.where(NEW["y"] == "p", 0, 1))
    row = re.findall(r'<tr><th scope="row">p</th>(.*?)</tr>', page)[-1]
    assert [int(cell) for cell in re.findall(r">(\d+)</td>", row)] == counts[0].tolist()
    assert f"{np.trace(counts)} of {len(NEW)} right" in page
    verdict = adapted().adaptation
    assert cells(page, "evidence of held-out rows, after") == [f"{verdict.evidence_after:.2f} nats a row"]
    assert cells(page, "x")[0] == "yes"
    assert adapted().explain_shift().table.set_index("column").loc["x", "reading"] == cells(page, "x")[-1]


def test_without_folds_nothing_is_said_to_be_certain(tmp_path: Path) -> None:
    copy = fitted().adapt(NEW, progress=False, **QUICK | {"folds": 1, "steps": 40})
    text = report(copy, NEW, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Uncertainty unknown: adapting with 4 folds gives intervals. Estimated to have moved: x" in text
    moved, _, interval, reading = cells(text, "x")
    assert (moved, interval) == ("unknown", "unknown")
    assert reading.startswith("estimated ")
    for claim in ("No column moved", "as before", "green moved"):
        assert claim not in text


def test_an_adapted_model_alone_is_compared_with_itself_at_rest(page: str, tmp_path: Path) -> None:
    alone = report(adapted(), NEW, tmp_path / "r.html").read_text(encoding="utf-8")
    for name in ("accuracy", "log-loss, nats", "calibration error"):
        assert cells(alone, name) == cells(page, name)
    assert "under do(m=0)" in alone
    assert "under do(m=0)" not in page


def test_curves_are_accuracies_of_the_fitted_model_on_clean_rows(page: str) -> None:
    clean = table(120)
    sd = clean["x"].std(ddof=0)
    ends = [fitted().score(clean.assign(x=clean["x"] + k * sd)) for k in (0, 3)]
    assert ends[0] > ends[1] + 0.1
    assert f"before adapting {ends[0]:.3f} to {ends[1]:.3f}." in page
    ends = [fitted().score(clean.assign(**{name: clean[name] * k for name in ("x", NASTY)})) for k in (0.5, 2)]
    assert f"before adapting {ends[0]:.3f} to {ends[1]:.3f}." in page
    assert "after adapting 0" not in page.split("If columns drift")[-1].split("<h2")[0], "m stands for other rows"


@pytest.mark.parametrize("lost", [10, 60])
def test_rows_without_probabilities_are_left_out_and_said(lost: int, tmp_path: Path) -> None:
    still = made().fit(table(40), max_epochs=0, progress=False)
    far = NEW.assign(x=NEW["x"].where(np.arange(60) >= lost, 1e30))
    text = report(still, far, tmp_path / "r.html", clean=far, drifts=["n offset"]).read_text(encoding="utf-8")
    Page(text)
    assert cells(text, "rows") == [str(60 - lost)]
    assert cells(text, "rows without probabilities") == [str(lost)]
    assert text.count(f"{lost} rows without probabilities are left out") == 3  # scores, confusion, calibration
    assert f"up to {lost} of 60 at a point, count as wrong" in text
    if lost == 60:
        assert cells(text, "accuracy") == cells(text, "log-loss, nats") == cells(text, "calibration error") == ["–"]
        assert "Accuracy – as fitted." in text
    else:
        share = float(cells(text, "accuracy")[0].split()[0])
        assert share == pytest.approx(still.score(far.iloc[lost:]), abs=1e-3)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


# the page ------------------------------------------------------------------------------------------------------------


def test_the_html_is_balanced_and_refers_to_itself_only(page: str) -> None:
    found = Page(page)
    ids = [attributes["id"] for _, attributes in found.met if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    links = [a[key] for _, a in found.met for key in ("href", "xlink:href") if key in a]
    links += [f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", page)]
    assert len(links) > 20
    assert {link for link in links if str(link)[1:] not in ids} == set()
    assert not re.search(r"https?:|\bsrc=|@import|<link|<script", page)
    assert page.startswith("<!doctype html>")
    assert ("html", {"lang": "en"}) in found.met
    assert any(a.get("name") == "viewport" for tag, a in found.met if tag == "meta")


def test_pictures_are_well_formed_and_take_the_pages_colours(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) == 7  # moved, its one column, calibration, two curves, training, graph
    for picture in pictures:
        ElementTree.fromstring(picture.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
        assert "#000000" not in picture
        assert 'role="img" aria-label="' in picture
    assert "prefers-color-scheme: dark" in page
    assert all("currentColor" in picture for picture in pictures[:-1])


def test_the_answer_comes_first(page: str) -> None:
    head = page.split("<dl>")[0]
    assert re.search(r'<strong class="badge good">kept</strong> accuracy 0\.\d+ → 0\.\d+; \d of \d columns moved', head)


def test_its_parts_are_what_they_say(page: str) -> None:
    found = Page(page)
    assert found.count("h1") == found.count("main") == found.count("title") == 1
    assert found.count("section") == found.count("h2") == 9
    assert found.count("figure") == found.count("figcaption") > 10
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert all(len(caption) > 20 and caption.endswith(".") for caption in captions)
    assert all(a.get("scope") in ("col", "row") for tag, a in found.met if tag == "th")
    assert [a["href"] for tag, a in found.met if tag == "a"] == [f"#section-{i}" for i in range(1, 10)]
    for (tag, _), within in zip(found.met, found.within, strict=True):
        if tag in ("svg", "table"):
            assert "figure" in within
    for title in (
        "Verdict",
        "Which columns moved",
        "How right",
        "Confusion",
        "Calibration",
        "Training",
        "The graph",
        "Words",
    ):
        assert f">{title}</h2>" in page


def test_names_are_text(page: str) -> None:
    assert "<script>" not in page
    assert NASTY in Page(page).text
    assert "p, <q>" in Page(page).text


def test_names_neither_turn_text_around_nor_break_a_picture(tmp_path: Path) -> None:
    names = {"x": "\u202eAge", NASTY: r"$\frac{$", "n": "a_name_without_a_space_" * 12}
    nodes = {names.get(name, name): node for name, node in NODES.items()}
    edges, latents = [["y", name] for name in names.values()], {"m": {"dim": 1, "scope": "dataset"}}
    cama = build({"target": "y", "nodes": nodes, "edges": edges, "latents": latents}, hidden=8, device="cpu")
    cama.fit(table(60).rename(columns=names), max_epochs=1, progress=False)
    rows = NEW.rename(columns=names)
    path = report(cama, rows, tmp_path / "r.html", clean=rows, drifts=[f"{names['x']} offset"], **QUICK)
    page = path.read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page)
    found = Page(page)
    for name in (r"\u202eAge", *[*names.values()][1:]):
        assert name in found.text
    labels = [a.get("aria-label") for tag, a in found.met if tag == "svg"]
    assert r"Accuracy by offset of \u202eAge" in labels
    moved = re.search(r'<svg[^>]*viewBox="0 0 ([\d.]+)', page)
    assert moved is not None
    assert float(moved[1]) < 620, "the longest name would take up the picture"


def test_no_letter_of_a_picture_is_smaller_than_nine_pixels(page: str) -> None:
    for width, style in re.findall(r'<svg viewBox="0 0 ([\d.]+) [\d.]+" style="min-width: (\d+)px', page):
        assert float(style) > 0.89 * float(width), "letters of 10 points, a unit of the picture each"
    assert page.count("min-width: ") > 6


def test_rows_without_labels_and_models_that_cannot_adapt(tmp_path: Path) -> None:
    unlabelled = report(adapted(), NEW.drop(columns="y"), tmp_path / "a.html").read_text(encoding="utf-8")
    Page(unlabelled)
    assert "Verdict" in unlabelled
    assert "Which columns moved" in unlabelled
    assert "Confusion" not in unlabelled
    still = made().fit(table(40), max_epochs=0, progress=False)
    some = NEW.assign(y=NEW["y"].where(np.arange(len(NEW)) < 25))
    plain = report(still, some, tmp_path / "b.html").read_text(encoding="utf-8")
    Page(plain)
    assert "25 of them labelled" in plain
    assert len(cells(plain, "accuracy")) == 1
    assert "was not adapted" in plain


def test_a_fitted_model_is_adapted_inside_and_follows(tmp_path: Path) -> None:
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    report(fitted(), NEW, one, clean=table(120), **QUICK)
    report(adapted(), NEW, other, before=fitted(), clean=table(120))
    assert one.read_bytes() == other.read_bytes(), "the same adaptation, and no date"
    amounts = dict(AMOUNTS, offset=np.array([0.0, 3.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AMOUNTS", amounts)
        followed = report(
            adapted(), NEW, one, before=fitted(), clean=table(120), drifts=["x offset"], follow=True, **QUICK
        ).read_text(encoding="utf-8")
    ends = re.search(r"before adapting ([\d.]+) to ([\d.]+); adapted at every point ([\d.]+) to ([\d.]+)\.", followed)
    assert ends is not None
    assert float(ends[4]) > float(ends[2]) + 0.1


# what is refused -----------------------------------------------------------------------------------------------------


def test_wrong_calls(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(ValueError, match="found no clean rows"):
        report(adapted(), NEW, path, drifts=["x offset"])
    with pytest.raises(ValueError, match="pass the fitted one as before="):
        report(adapted(), NEW, path, clean=NEW, drifts=["x offset"], follow=True)
    other = build({"target": "x", "nodes": {"x": "binary", "y": "count"}, "edges": ["x -> y"]})
    with pytest.raises(ValueError, match=r"before=.*found a model of 'x' with 0, 1; expected one of 'y'"):
        report(adapted(), NEW, path, before=other)
    with pytest.raises(DataError, match="'n'"):
        report(adapted(), NEW.drop(columns="n"), path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        report(adapted(), NEW, tmp_path / "none" / "r.html")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        report(adapted(), NEW, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("the last one")

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        report(adapted(), NEW.drop(columns="y"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert path.read_text() == "the last one"


def test_the_command(tmp_path: Path) -> None:
    fitted().save(tmp_path / "model")
    adapted().save(tmp_path / "adapted")
    table(40).to_csv(tmp_path / "train.csv", index=False)
    NEW.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "report.html"

    def run(*extra: object) -> Any:
        start = ["report", tmp_path / "adapted", tmp_path / "new.csv", "--before", tmp_path / "model", "-o", out]
        return CliRunner().invoke(cli.app, [str(part) for part in (*start, *extra)])

    result = run("--drift", "x twist", "--clean", tmp_path / "train.csv")
    assert result.exit_code == 1
    assert "Error: drift 'x twist': expected columns" in result.stderr
    assert not out.exists()
    result = run("--drift", "x offset", "--clean", tmp_path / "train.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {out}\n"
    page = out.read_text(encoding="utf-8")
    Page(page)
    assert "If columns drift" in page
    assert f"{adapted().score(NEW):.3f} after adapting" in page
    assert "there already" in run().stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
