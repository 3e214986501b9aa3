"""check, simulate, fit, predict, adapt, evaluate and demo: figures, files and what they say."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics

import pyro_cama
from pyro_cama import CAMA, CausalGraph
from pyro_cama.adaptation.options import TABLES
from pyro_cama.cli import demo as cli_demo
from pyro_cama.cli.files import flat, write_table
from pyro_cama.inference.evidence import elbo_of_unlabelled
from pyro_cama.inference.novelty import NoveltyThreshold
from pyro_cama.metrics import scores
from pyro_cama.training.lightning_checkpoints import PeriodicCheckpoint
from pyro_cama.training.lightning_module import Training
from tests.helpers.command_line import GRAPH, contents, done, refused, run
from tests.helpers.faults import ctrl_c
from tests.helpers.patches import module_at, rows_at_a_time
from tests.helpers.paths import GRAPHS


def test_check_says_roles_and_what_drifts() -> None:
    text = done("check", GRAPHS / "clinic.yaml")
    assert "parents     age, exposure\n" in text
    assert "co-parents  age, smoker, medication\n" in text
    assert "manipulable white_cells (rate), fever (affine), cough (confusion); scope hospital\n" in text
    assert "p(ward | infection, age, fever)" in text
    assert "outside the target's Markov blanket: billing\n" in text


def test_shift_moves_one_column_and_what_it_causes(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH.replace("k -> x", "n -> x"))
    for name, options in (("clean", []), ("again", []), ("off", ["--shift", "n=+4"]), ("other", ["--seed", 1])):
        done("simulate", tmp_path / "g.yaml", "-n", 40, "-o", tmp_path / f"{name}.csv", *options)
    clean, again, off, other = (pd.read_csv(tmp_path / f"{n}.csv") for n in ("clean", "again", "off", "other"))
    pd.testing.assert_frame_equal(clean, again)
    assert (off["n"] - clean["n"] == 4).all()
    assert (off["x"] != clean["x"]).any()
    pd.testing.assert_frame_equal(off[["y", "k", "v[0]"]], clean[["y", "k", "v[0]"]])
    assert not other.equals(clean)
    refused("simulate", tmp_path / "g.yaml", "-o", tmp_path / "w.csv", "--shift", "w=1", says="found no such node")
    refused("simulate", tmp_path / "g.yaml", "-o", tmp_path / "w.csv", "--shift", "k=1", says="expected a level")


def test_ctrl_c_ends_a_fit_in_one_line_and_its_checkpoint_stays(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", made / "g.yaml", made / "t.csv", "--epochs", 4, "--hidden", 4, "--conditional-weight", 0]
    done(*arguments, "-o", tmp_path / "whole")
    kept = [*arguments, "-o", tmp_path / "out", "--checkpoints", tmp_path / "run"]
    begins = Training.on_train_epoch_start

    def stops(self: Training) -> None:
        begins(self)
        if self.current_epoch == 2:
            ctrl_c()

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_epoch_start", stops)
        patch.setattr(PeriodicCheckpoint, "_old", lambda _: True)
        result = run(*kept)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Error: interrupted\n")
    assert (tmp_path / "run" / "last.ckpt").exists()
    assert not (tmp_path / "out").exists()
    done(*kept, "--resume")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("file", ["last.ckpt", "about.json"])
def test_a_damaged_checkpoint_is_named(file: str, made: Path, tmp_path: Path) -> None:
    arguments = ["fit", made / "g.yaml", made / "t.csv", "--epochs", 1, "--hidden", 4, "--conditional-weight", 0]
    kept = [*arguments, "--checkpoints", tmp_path / "run", "-o", tmp_path / "out", "--force"]
    done(*kept)
    before = contents(tmp_path / "out")
    (tmp_path / "run" / file).write_bytes(b"{")
    refused(*kept, "--resume", says=f"Error: {tmp_path / 'run' / file} is damaged (")
    assert contents(tmp_path / "out") == before


def test_fit_follows_its_seed_and_prints_figures(made: Path, tmp_path: Path) -> None:
    arguments = ["fit", made / "g.yaml", made / "t.csv", "--epochs", 2, "--hidden", 4, "--layers", 0]
    text = done(*arguments, "-o", tmp_path / "a")
    assert "2 epochs, the best" in text
    assert "validation on 9 rows: accuracy " in text
    done(*arguments, "-o", tmp_path / "b")
    done(*arguments, "-o", tmp_path / "c", "--seed", 1)
    a, b, c = (contents(tmp_path / name)["tensors.safetensors"] for name in "abc")
    assert a == b != c
    options = ["--conditional-weight", 0, "--batch-size", 7, "--lr", 0.01, "--anneal", "--device", "cpu"]
    done(*arguments, "-o", tmp_path / "c", "--force", *options)


def test_predict_carries_identifiers_and_rounds(made: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    names = [f"patient {i}" for i in range(len(table))]
    flat(table).assign(patient=names, code=1234567.25).to_csv(tmp_path / "t.csv", index=False)
    done("predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "p.csv", "--id", "patient", "--id", "code")
    out = pd.read_csv(tmp_path / "p.csv", dtype=str)
    assert list(out.columns[:3]) == ["patient", "code", "label"]
    assert list(out["patient"]) == names
    assert set(out["code"]) == {"1234567.25"}
    assert max(map(len, out["p(a)"])) <= 11
    says = "--id: found no column 'patients'; expected one of"
    refused("predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "q.csv", "--id", "patients", says=says)
    for taken in ("label", "p(a)"):
        flat(table).assign(**{taken: 1}).to_csv(tmp_path / "t.csv", index=False)
        says = f"--id: found {taken!r}, a name that the result has for its own; rename the column"
        refused("predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "q.csv", "--id", taken, says=says)
        (tmp_path / "in").mkdir(exist_ok=True)
        refused("watch", made / "model", tmp_path / "in", "-o", tmp_path / "w", "--once", "--id", taken, says=says)


def test_an_entry_that_does_not_fit_is_found_by_its_line(made: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    rows = flat(table).assign(remark="on\ntwo lines")
    rows["x"] = rows["x"].astype(object)
    rows.loc[3, "x"] = "wide"
    rows.to_csv(tmp_path / "t.csv", index=False)
    says = "row 3 ('wide') (counted from 0)"
    line = "row 3 ends in line 9 of the file"  # the names, and two lines a row
    said = run("predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "p.csv").stderr
    assert says in said
    assert line in said


@pytest.mark.filterwarnings("default")  # as outside of the tests
def test_unknown_levels_are_read_as_missing_where_asked_and_found_by_their_line(made: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(made / "t.csv").astype({"k": object})
    rows.loc[[5, 8], "k"] = "perhaps"
    rows.to_csv(tmp_path / "t.csv", index=False)
    model, data = made / "model", tmp_path / "t.csv"
    adapting = ("--steps", 2, "-o", tmp_path / "a")
    for command, rest in (("predict", ("-o", tmp_path / "p.csv")), ("evaluate", ()), ("adapt", adapting)):
        refused(command, model, data, *rest, says="column 'k': found unknown levels in rows 5 ('perhaps'), 8")
        said = run(command, model, data, *rest, "--unknown", "missing")
        assert said.exit_code == 0, said.output
        found = "column 'k': 'perhaps', 2 entries, the first in row 5 (line 7). Correct them, or add the levels"
        assert [found in line for line in said.stderr.splitlines() if "does not name" in line] == [True]


def test_diagnose(made: Path, tmp_path: Path) -> None:
    y = np.arange(120) % 2
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": y, "x": y + rng.normal(size=120), "w": rng.normal(size=120)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    done("init", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "g.yaml")
    done("fit", tmp_path / "g.yaml", tmp_path / "t.csv", "-o", tmp_path / "m", "--epochs", 1)
    said = done("diagnose", tmp_path / "m", tmp_path / "t.csv", "--plot", tmp_path / "d.png")
    assert "implied independences tested" in said
    assert (tmp_path / "d.png").stat().st_size > 5000


def test_a_fit_of_the_whole_table_prints_the_epoch_that_was_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    frame = pd.DataFrame({"y": y, "a": y + rng.normal(size=200), "b": rng.normal(size=200) - y})
    frame.to_csv(tmp_path / "t.csv", index=False)
    done("init", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "g.yaml")
    assert "effect: auto" in (tmp_path / "g.yaml").read_text()
    text = done("fit", tmp_path / "g.yaml", tmp_path / "t.csv", "-o", tmp_path / "m")
    epochs, best = (int(n) for n in re.findall(r"(\d+) epochs, the best (\d+), loss ", text)[0])
    assert best <= epochs


def test_fit_on_few_rows_says_that_nothing_was_validated(made: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("".join((made / "t.csv").read_text().splitlines(keepends=True)[:12]))
    arguments = ["--epochs", 1, "--hidden", 4, "--layers", 0, "-o", tmp_path / "m"]
    assert "no validation: fewer than 20 rows" in done("fit", made / "g.yaml", tmp_path / "t.csv", *arguments)
    assert json.loads((tmp_path / "m" / "usual.json").read_text())["held_out"] == 0


def test_predictions_are_the_librarys(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    done("predict", made / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert found.columns.tolist() == ["label", "p(a)", "p(b)", "evidence", "unusual"]
    assert found["label"].tolist() == model.predict(table).tolist()
    np.testing.assert_allclose(found[["p(a)", "p(b)"]], model.predict_proba(table), rtol=5e-6)
    np.testing.assert_allclose(found["evidence"], model.elbo(table.drop(columns="y")).double(), rtol=1e-5)
    unlabelled = tmp_path / "x.csv"
    pd.read_csv(made / "t.csv").drop(columns="y").to_csv(unlabelled, index=False)
    done("predict", made / "model", unlabelled, "-o", tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text() == (tmp_path / "p.csv").read_text()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_missing_file_is_named_once(command: str, made: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "p.csv") if command == "predict" else ()
    said = refused(command, made / "model", made / "nope.csv", *output, says="nope.csv: no such file")
    assert said.count("nope.csv") == 1


def test_a_budget_is_the_librarys(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    budget = ("--samples", 3, "--power", 0.5, "--refine-z", 2)
    done("predict", made / "model", made / "t.csv", *budget, "-o", tmp_path / "p.csv")
    p = model.predict_proba(table, samples=3, power=0.5, refine_z=2)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")[["p(a)", "p(b)"]], p, rtol=5e-6)
    said = done("evaluate", made / "model", made / "t.csv", *budget)
    assert said.strip() == str(scores(model, table, samples=3, power=0.5, refine_z=2))
    assert said != done("evaluate", made / "model", made / "t.csv")
    for power in (0, 1.1):
        refused("evaluate", made / "model", made / "t.csv", "--power", power, says="--power", code=2)


def test_rows_unlike_anything_seen_are_flagged(made: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(made / "t.csv")
    odd = [8, 9, 10]
    rows["x"] = rows["x"].astype(float)
    rows.loc[odd, "x"] = [50.0, -1e6, 1e30]
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert "60 rows, 3 unlike anything seen" in done(
        "predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "p.csv"
    )
    found = pd.read_csv(tmp_path / "p.csv")
    assert found.index[found["unusual"]].tolist() == odd
    assert found["label"].isna().tolist() == [i == 10 for i in range(60)]  # 1e30 leaves no probabilities
    assert done("evaluate", made / "model", tmp_path / "t.csv").startswith("59 rows: accuracy ")
    assert "; 1 row without probabilities is left out" in done("evaluate", made / "model", tmp_path / "t.csv")


@pytest.mark.filterwarnings("default")  # as outside of the tests
def test_an_entry_that_training_takes_for_missing_hides_no_other(made: Path, tmp_path: Path) -> None:
    """One -999 in the training table makes every variance huge where it counts."""
    rows = pd.read_csv(made / "t.csv")
    rows["x"] = rows["x"].astype(float)
    rows.loc[3, "x"] = -9999.0
    rows.to_csv(tmp_path / "train.csv", index=False)
    tiny = ["--epochs", 1, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    done("fit", made / "g.yaml", tmp_path / "train.csv", *tiny, "-o", tmp_path / "model")
    rows.loc[3, "x"] = rows.loc[4, "x"]
    rows.loc[[8, 9], "x"] = [200.0, -200.0]
    rows.to_csv(tmp_path / "t.csv", index=False)
    said = done("predict", tmp_path / "model", tmp_path / "t.csv", "-o", tmp_path / "p.csv")
    assert "60 rows, 2 unlike anything seen" in said


def test_without_usual_nothing_is_flagged(model: CAMA, made: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    said = done("predict", tmp_path / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    assert "is not known" in said
    assert "unusual" not in pd.read_csv(tmp_path / "p.csv").columns
    for text in ("", "{}", "[]", '{"format": 1, "threshold": 0}', '{"format": 3, "bands": [{}]}', "null", "\x00"):
        (tmp_path / "model" / "usual.json").write_text(text)
        arguments = ["predict", tmp_path / "model", made / "t.csv", "-o", tmp_path / "q.csv"]
        refused(*arguments, says="usual.json is damaged")


def test_evidence_is_each_rows_own(model: CAMA, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = elbo_of_unlabelled(model, table)
    asked = rows_at_a_time(monkeypatch, 7)
    np.testing.assert_allclose(elbo_of_unlabelled(model, table), whole, rtol=1e-5)
    assert asked
    np.testing.assert_allclose(elbo_of_unlabelled(model, table.iloc[5:6]), whole[5:6], rtol=1e-5)
    np.testing.assert_array_equal(elbo_of_unlabelled(model, table.assign(y="a")), elbo_of_unlabelled(model, table))


def test_adapt(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(table.assign(x=table["x"] * 1.5 + 3.0), tmp_path / "off.csv", False)
    arguments = ["adapt", made / "model", tmp_path / "off.csv", "--clean", made / "t.csv", "--steps", 10]
    text = done(*arguments, "-o", tmp_path / "new")
    assert text.startswith(("kept: ", "not kept: "))
    adapted = pyro_cama.load(tmp_path / "new")
    assert str(adapted.adaptation) in text
    assert adapted.adaptation.rows == 60
    for name in adapted.explain_shift().table["column"]:
        assert name in text
    usual = {
        name: NoveltyThreshold.load(folder) for name, folder in (("old", made / "model"), ("new", tmp_path / "new"))
    }
    assert usual["old"] is not None
    assert usual["new"] is not None
    assert usual["new"].bands == usual["old"].bands
    assert (usual["new"].shifts != usual["old"].shifts) == adapted.adaptation.applied
    refused(*arguments[:2], made / "g.yaml", "-o", tmp_path / "w", says="suffix '.yaml'")
    broken = tmp_path / "broken.csv"
    broken.write_text("y,x,n,k,v[0],v[1]\n,0.5,3,0,1,2\n")
    bad_clean = ["adapt", made / "model", tmp_path / "off.csv", "--clean", broken, "-o", tmp_path / "w"]
    assert str(broken) in refused(*bad_clean, says="no label in row 0")


def test_adapt_without_folds_says_that_nothing_is_certain(
    made: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_at("adaptation.options"), "TABLES", replace(TABLES, restarts=1))
    monkeypatch.setattr(module_at("adaptation.adapt"), "judge", lambda *_, **__: (True, "to be explained", 1.0))
    write_table(table.assign(x=table["x"] * 1.5 + 3.0), tmp_path / "off.csv", False)
    text = done("adapt", made / "model", tmp_path / "off.csv", "--steps", 10, "--folds", 1, "-o", tmp_path / "new")
    assert "uncertainty unknown: adapting with 4 folds gives intervals" in text
    found = pyro_cama.load(tmp_path / "new").explain_shift()
    for row in found.table.to_dict("records"):
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [row["column"]]]
        assert line.split()[1] == "unknown"
        assert row["reading"] in line
    assert "as before" not in text


def test_adapt_needs_a_manipulation(made: Path, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH.replace("m: {dim: 1, scope: dataset}", "m: null"))
    tiny = ["--epochs", 1, "--hidden", 4, "--layers", 1]
    done("fit", tmp_path / "g.yaml", made / "t.csv", "-o", tmp_path / "m", *tiny)
    refused("adapt", tmp_path / "m", made / "t.csv", "-o", tmp_path / "n", says="no manipulation latent")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "settings.json").unlink(), "lacks settings.json"),
        (lambda folder: (folder / "settings.json").write_text("{"), "settings.json is damaged"),
        (lambda folder: (folder / "tensors.safetensors").write_bytes(b"\0" * 9), "tensors.safetensors is damaged"),
        (lambda folder: (folder / "graph.yaml").write_text("[]"), "graph.yaml is damaged"),
        (lambda folder: (folder / "usual.json").write_text("{"), "usual.json is damaged"),
    ],
)
def test_a_damaged_model_is_one_line(damage: Callable[[Path], object], says: str, made: Path, tmp_path: Path) -> None:
    done("predict", made / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in contents(made / "model").items():
        (folder / name).write_bytes(data)
    damage(folder)
    refused("predict", folder, made / "t.csv", "-o", tmp_path / "q.csv", says=says)
    refused("predict", tmp_path / "none", made / "t.csv", "-o", tmp_path / "q.csv", says="is not a folder")


def test_evaluate_prints_what_scikit_learn_finds(made: Path, model: CAMA, table: pd.DataFrame) -> None:
    text = done("evaluate", made / "model", made / "t.csv")
    p, y = model.predict_proba(table), table["y"].to_numpy()
    accuracy, loss = metrics.accuracy_score(y, model.predict(table)), metrics.log_loss(y, p)
    assert text.startswith(f"60 rows: accuracy {accuracy:.3f}, log-loss {loss:.3f}, calibration error ")
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["class", "a", "b"]


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cli_demo.build
    monkeypatch.setattr(cli_demo, "build", lambda graph, seed: real(graph, seed=seed, hidden=4, layers=1, device="cpu"))
    lines = done("demo", "--quick").splitlines()
    assert lines[0] == "breast cancer: 284 rows train, 142 adapt (without labels), 143 are scored"
    figures_of = {line[:24].strip(): [float(f) for f in line[24:].split()] for line in lines[3:5]}
    assert len(figures_of["clean"]) == 2
    assert len(figures_of["+2 sd on 100%"]) == 3
    assert figures_of["clean"][0] > 0.9 > figures_of["+2 sd on 100%"][0]
    assert any(line.startswith("the last one: ") for line in lines)


def test_a_fit_with_checkpoints_goes_on(made: Path, tmp_path: Path) -> None:
    tiny = ["--epochs", 2, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    common = ["fit", made / "g.yaml", made / "t.csv", *tiny, "--checkpoints", tmp_path / "run"]
    done(*common, "-o", tmp_path / "one")
    refused(*common, "-o", tmp_path / "two", says="pass resume=True")
    done(*common, "--resume", "-o", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    refused(*common[:-2], "--resume", "-o", tmp_path / "three", says="--resume needs --checkpoints", code=2)


def test_folders_of_images_are_tables(tmp_path: Path) -> None:
    """Labelled by subfolders or not at all; paths come back as the table has them."""
    (tmp_path / "g.yaml").write_text(
        "target: y\nnodes:\n  y: {type: categorical, levels: [cat, dog]}\n"
        "  scan: {type: image, shape: [1, 8, 8], channels: 4}\nedges: [y -> scan]\nlatents: {z: {dim: 2}, m: null}\n"
    )
    for i in range(40):
        folder = tmp_path / "train" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 100 + 100 * (i % 2), dtype=np.uint8)).save(folder / f"{i:02}.png")
    text = done(
        "fit", tmp_path / "g.yaml", tmp_path / "train", "-o", tmp_path / "model",
        "--epochs", 3, "--hidden", 8, "--device", "cpu",
    )  # fmt: skip
    assert "3 epochs, the best" in text
    assert "accuracy" in done("evaluate", tmp_path / "model", tmp_path / "train")
    unlabelled = tmp_path / "train" / "cat"
    done("predict", tmp_path / "model", unlabelled, "--id", "scan", "-o", tmp_path / "labels.csv")
    assert pd.read_csv(tmp_path / "labels.csv")["scan"].tolist() == [f"{i:02}.png" for i in range(0, 40, 2)]
    table = pd.DataFrame({"scan": ["train/cat/00.png", "train/dog/01.png"]})
    table.to_csv(tmp_path / "later.csv", index=False)
    done("predict", tmp_path / "model", tmp_path / "later.csv", "--id", "scan", "-o", tmp_path / "later_labels.csv")
    assert pd.read_csv(tmp_path / "later_labels.csv")["scan"].tolist() == table["scan"].tolist()
    refused("init", tmp_path / "train", "--target", "y", says="found a folder; expected a table")
    (tmp_path / "other.yaml").write_text(GRAPH)
    refused("fit", tmp_path / "other.yaml", tmp_path / "train", "-o", tmp_path / "no", says="no image node")


def test_what_is_drawn_is_what_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A style that is summed out acts on continuous children alone, which build settles."""
    drawn: list[CausalGraph] = []
    monkeypatch.setattr(module_at("cli.graphs"), "draw_graph", lambda graph, path: (drawn.append(graph), path.touch()))
    (tmp_path / "g.yaml").write_text(
        "target: y\nnodes: {y: binary, x: continuous, n: count}\nedges: [y -> x, y -> n]\n"
    )
    done("draw", tmp_path / "g.yaml", "-o", tmp_path / "g.png")
    assert drawn[0].factorisation() in done("check", tmp_path / "g.yaml")
