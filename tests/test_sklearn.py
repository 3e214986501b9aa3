"""The scikit-learn estimator: its checks, the numbers of build and fit, labels, copies, adaptation, errors."""

import copy
import functools
import inspect
import json
import pickle
import pickletools
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_wine, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

from pyro_cama import CausalGraph, DataError, GraphError, build
from pyro_cama.model.groups import with_style
from pyro_cama.sklearn import CAMAClassifier, adapt_pipeline
from support.clinic import Hospital, patients
from tests.helpers.paths import GRAPHS

SMALL: dict[str, Any] = {
    "hidden": 8, "layers": 1, "max_epochs": 8, "lr": 5e-2, "conditional_weight": 0.0, "device": "cpu",
}  # fmt: skip
FAST: dict[str, Any] = {"steps": 20, "restarts": 1, "folds": 2}
X, Y = make_blobs(90, n_features=3, random_state=0)
X.flags.writeable = False
CLINIC = pd.concat([Hospital(name).measure(patients(80, seed), seed) for seed, name in enumerate(("north", "south"))])
INFECTION = CLINIC.pop("infection")


def small(**options: Any) -> CAMAClassifier:
    return CAMAClassifier(**{**SMALL, **options})


@functools.cache
def blobs() -> CAMAClassifier:
    return small().fit(X, Y)


def clinic_graph(scope: str = "hospital") -> dict[str, Any]:
    raw = CausalGraph(GRAPHS / "clinic.yaml").to_dict()
    raw["latents"]["m"]["scope"] = scope
    return raw


def wine() -> tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.Series]:
    bunch = load_wine(as_frame=True)
    odd = np.arange(len(bunch.data)) % 2 == 1
    return bunch.data[odd], bunch.target[odd], bunch.data[~odd], bunch.target[~odd]


@functools.cache
def fitted_wine() -> CAMAClassifier:
    train, y, _, _ = wine()
    return small(max_epochs=40, hidden=16, conditional_weight=30.0).fit(train, y)


def drifted(rows: pd.DataFrame) -> pd.DataFrame:
    wrong = rows.columns[::2]
    return rows.assign(**{name: rows[name] * 1.2 + 2 * rows[name].std() for name in wrong})


# scikit-learn's own checks; none is expected to fail.


@parametrize_with_checks([small()])
def test_it_is_a_scikit_learn_estimator(estimator: CAMAClassifier, check: Any) -> None:
    check(estimator)


# The same numbers as the library.


def test_without_a_graph_the_target_causes_every_column() -> None:
    raw = {
        "target": "target",
        "nodes": {
            "target": {"type": "categorical", "levels": [0, 1, 2]},
            **dict.fromkeys(("x0", "x1", "x2"), "continuous"),
        },
        "edges": ["target -> x0", "target -> x1", "target -> x2"],
        "latents": {"m": {"scope": "dataset"}},
    }  # fmt: skip
    table = pd.DataFrame(X, columns=["x0", "x1", "x2"])
    cama = build(raw, seed=3, hidden=8, layers=1, device="cpu")
    options: dict[str, Any] = {
        "max_epochs": 4, "batch_size": 16, "lr": 2e-2, "weight_decay": 1e-2, "conditional_weight": 3.0,
        "validation": 0.3, "patience": 2, "anneal": True,
    }  # fmt: skip
    cama.fit(table.assign(target=Y), progress=False, **options)
    cama.modules.double()
    model = small(random_state=3, **options).fit(X, Y)
    assert model.cama_.graph == with_style(CausalGraph(raw))
    np.testing.assert_array_equal(model.predict_proba(X), cama.predict_proba(table))


@pytest.mark.parametrize("scope", ["row", "hospital"])
def test_with_a_graph_it_is_that_graph_s_model(scope: str) -> None:
    raw = clinic_graph(scope)
    raw["nodes"]["infection"]["levels"] = ["bacterial", "healthy", "viral"]
    options: dict[str, Any] = {"max_epochs": 3, "lr": 2e-2, "conditional_weight": 0.0}
    if scope == "row":
        options |= {"interventions": {"fever": 0.5}, "mixing": 0.7}
    cama = build(raw, hidden=8, layers=1, device="cpu")
    cama.fit(CLINIC.assign(infection=INFECTION), progress=False, **options)
    cama.modules.double()
    model = small(graph=clinic_graph(scope), **options).fit(CLINIC, INFECTION)
    assert model.classes_.tolist() == list(cama.classes) == ["bacterial", "healthy", "viral"]
    np.testing.assert_array_equal(model.predict_proba(CLINIC), cama.predict_proba(CLINIC))
    model.set_params(power=0.5)
    np.testing.assert_array_equal(model.predict_proba(CLINIC), cama.predict_proba(CLINIC, power=0.5))


def test_the_defaults_are_the_library_s() -> None:
    found = CAMAClassifier().get_params()
    cama = type(blobs().cama_)
    for call in (build, cama.fit, cama.predict_proba):
        for name, parameter in inspect.signature(call).parameters.items():
            if name in found and name not in ("graph", "progress", "max_epochs"):
                assert found[name] == parameter.default, name
    assert found["max_epochs"] is None  # left to fit
    assert not found["progress"]


# The table.


@pytest.mark.parametrize("form", ["path", "text", "dict", "CausalGraph", "networkx"])
def test_a_graph_may_come_in_any_form(form: str) -> None:
    path = GRAPHS / "clinic.yaml"
    causal = CausalGraph(path)
    graph = {
        "path": path, "text": str(path), "dict": causal.to_dict(), "CausalGraph": causal,
        "networkx": causal.to_networkx(),
    }[form]  # fmt: skip
    model = clone(small(graph=graph, max_epochs=1)).fit(CLINIC, INFECTION)
    assert set(model.cama_.graph.edges) == set(causal.edges)
    assert set(model.predict(CLINIC)) <= set(INFECTION)


def test_columns_go_by_name_and_others_are_not_looked_at() -> None:
    model = small(graph=clinic_graph(), max_epochs=2).fit(CLINIC, INFECTION)
    extended = CLINIC.assign(infection="nobody knows", note="free text")[["note", "infection", *CLINIC.columns[::-1]]]
    other = clone(model).fit(extended, INFECTION)
    np.testing.assert_array_equal(other.predict_proba(extended), model.predict_proba(CLINIC))
    assert list(other.feature_names_in_) == list(extended.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(CLINIC[CLINIC.columns[::-1]])


def test_names_that_the_model_uses_itself_are_free_for_columns() -> None:
    names = ["target", "z", "m"]
    model = small().fit(pd.DataFrame(X, columns=names), Y)
    graph = model.cama_.graph
    assert graph.target == "target_"
    assert [latent and latent.name for latent in (graph.z, graph.m)] == ["z_", "m_"]
    assert graph.blanket.children == tuple(names)
    assert model.score(pd.DataFrame(X, columns=names), Y) > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["b", "c", "a"]), np.array(["yes", "no", "on"], dtype=object), np.array([10, -1, 7]),
        np.array([2.0, 1.0, 3.0]), np.array([True, False, True]), pd.Series(["1", "01", "1.0"], dtype="category"),
        pd.Series(["u", "v", "w"], dtype="string"),
    ],
    ids=["str", "object", "int", "float", "bool", "category", "string"],
)  # fmt: skip
def test_labels_of_every_kind(labels: Any) -> None:
    y = labels[Y]
    model = small().fit(X, y)
    assert model.classes_.tolist() == sorted(set(labels.tolist()))
    found = model.predict(X)
    assert found.dtype == model.classes_.dtype
    assert (found == np.asarray(y)).mean() == model.score(X, y) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), found)


def test_labels_may_be_a_level_s_text_and_levels_without_rows_are_no_class() -> None:
    raw: dict[str, Any] = {
        "target": "y",
        "nodes": {"y": {"type": "categorical", "levels": [3, 0, 1, 2]}, "a": "continuous", "b": "continuous"},
        "edges": ["y -> a", "y -> b"],
    }
    table = pd.DataFrame(X[:, :2], columns=["a", "b"])
    model = small(graph=raw).fit(table, np.array(["3", "1", "0"])[Y])
    assert model.classes_.tolist() == ["0", "1", "3"]
    assert model.cama_.classes == (0, 1, 3)
    assert raw["nodes"]["y"]["levels"] == [3, 0, 1, 2]
    assert model.predict_proba(table).shape == (90, 3)
    assert model.score(table, np.array(["3", "1", "0"])[Y]) > 0.9


def mixed(rows: int = 120, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    generator = np.random.default_rng(seed)
    sex, age = generator.choice(["Female", "Male"], rows), generator.normal(50, 10, rows)
    band, smokes = pd.cut(age, [0, 45, 55, 120]), generator.random(rows) < 0.3
    y = np.where((sex == "Male") == (generator.random(rows) < 0.9), "ill", "well")
    return pd.DataFrame({"sex": pd.Categorical(sex), "age": age, "band": band, "smokes": smokes}), y


def test_categories_are_taken_by_type() -> None:
    table, y = mixed()
    model = small(max_epochs=30).fit(table, y)
    assert model.cama_.graph.nodes["sex"].levels == ("Female", "Male")
    assert model.cama_.graph.nodes["band"].type == "categorical"
    assert [model.cama_.graph.nodes[name].type for name in ("age", "smokes")] == ["continuous"] * 2
    assert model.score(*mixed(seed=1)) > 0.8
    p = model.predict_proba(table)
    plain = table.assign(sex=table["sex"].astype(str), band=table["band"].astype(str))  # as texts, as few categories
    np.testing.assert_array_equal(model.predict_proba(plain), p)
    np.testing.assert_array_equal(model.predict_proba(table[:1].assign(sex=pd.Categorical([table["sex"][0]]))), p[:1])
    missing = table.assign(sex=table["sex"].where(table.index > 2), age=table["age"].where(table.index > 2))
    assert np.isfinite(model.predict_proba(missing)).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(table), p)
    model.adapt(table, **FAST)
    model.fit(table[["age", "smokes"]], y)
    assert [*model.cama_.graph.blanket.children] == ["age", "smokes"]


def test_dates_and_single_categories_are_named() -> None:
    X = pd.DataFrame({"x": np.arange(40.0)})
    y = np.arange(40) % 2
    with pytest.raises(DataError, match="X: column 'day': found dates; expected numbers"):
        small().fit(X.assign(day=pd.date_range("2026-01-01", periods=40)), y)
    with pytest.raises(DataError, match=r"X: column 'k': found 1 categories, \['u'\]; expected two or more"):
        small().fit(X.assign(k=pd.Categorical(["u"] * 40)), y)


def test_a_score_of_rows_without_labels_is_none() -> None:
    X, y = pd.DataFrame({"x": np.arange(40.0)}), pd.Series(np.arange(40) % 2, dtype="Int64")
    model = small().fit(X, y.to_numpy(int))
    with pytest.raises(ValueError, match="score: found 2 rows without a label in y"):
        model.score(X, y.where(y.index > 1))


def test_texts_that_are_no_categories_are_named() -> None:
    table, y = mixed()
    texts = table.assign(sex=table["sex"].astype(object))
    model = small(max_epochs=1).fit(table, y)
    for found in (texts, texts[["sex", "age"]]):
        with pytest.raises(
            DataError, match=r"X: column 'sex': found '(Fem|M)ale' in .*; expected numbers, or dtype 'cat"
        ):
            small().fit(found, y)
    with pytest.raises(DataError, match="expected numbers, or dtype 'category'"):
        model.fit(texts, y)  # what was fitted before says nothing of it
    with pytest.raises(DataError, match="column 'sex': found unknown levels"):
        model.predict(table.assign(sex="neither"))
    with pytest.raises(ValueError, match="X contains infinity"):
        small().fit(table.assign(age=np.inf), y)


def test_missing_values() -> None:
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    rare = np.concatenate([np.flatnonzero(Y == 0)[:10], np.flatnonzero(Y > 0)])
    model = small(max_epochs=60).fit(holes[rare], Y[rare])
    assert model.score(holes, Y) > 0.8
    nothing = model.predict_proba(np.full((2, 3), np.nan))
    np.testing.assert_array_equal(nothing[0], nothing[1])
    # with nothing seen p(y | x) is p(y)
    np.testing.assert_allclose(nothing[0], np.bincount(Y[rare]) / len(rare), atol=0.08)


# Predictions.


@pytest.mark.parametrize("names", [[0, 1], ["a", "b"]])
def test_rows_without_probabilities_have_no_label_and_are_wrong(names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = pd.DataFrame({"x": [0.0, 1.0] * 20, "w": np.arange(40.0)}), np.array(names * 20)
    model = CAMAClassifier(hidden=4, layers=0, max_epochs=0, device="cpu").fit(rows, labels)
    before, p = model.predict(rows), model.predict_proba(rows)
    assert model.score(rows, labels) == np.mean(before == labels)
    assert model.score(rows, labels, sample_weight=[1.0] + [0.0] * 39) == float(before[0] == labels[0])
    p[0] = np.nan
    monkeypatch.setattr(model.cama_, "predict_proba", lambda *_, **__: p)
    with pytest.warns(UserWarning, match=r"no probabilities for row 0 \(counted from 0\)"):
        found = model.predict(rows)
    assert found.tolist() == [None, *before[1:].tolist()]
    with pytest.warns(UserWarning, match="no probabilities"):
        assert model.score(rows, labels) == np.mean(before[1:] == labels[1:]) * 39 / 40


@given(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=30))
def test_a_row_s_prediction_is_its_own(rows: list[int]) -> None:
    np.testing.assert_allclose(blobs().predict_proba(X[rows]), blobs().predict_proba(X)[rows], rtol=0, atol=1e-12)


def test_the_seed() -> None:
    def probabilities(random_state: Any) -> Any:
        return small(max_epochs=2, random_state=random_state).fit(X, Y).predict_proba(X)

    before = pickle.dumps(np.random.get_state())
    np.testing.assert_array_equal(probabilities(1), probabilities(1))
    assert pickle.dumps(np.random.get_state()) == before
    assert abs(probabilities(1) - probabilities(2)).max() > 1e-3
    np.testing.assert_array_equal(probabilities(np.random.RandomState(5)), probabilities(np.random.RandomState(5)))
    assert abs(probabilities(None) - probabilities(None)).max() > 1e-3


# Copies.


def test_a_pickle_predicts_the_same_and_names_no_module_of_torch() -> None:
    model = blobs()
    content = pickle.dumps(model)
    texts = [arg for _, arg, _ in pickletools.genops(content) if isinstance(arg, str)]
    named = [text for text in texts if text.split(".")[0] in ("torch", "pyro", "pyro_cama", "lightning")]
    assert named == ["pyro_cama.sklearn"]  # the class itself
    for twin in (pickle.loads(content), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
        assert vars(twin).keys() == vars(model).keys()
        assert twin.cama_.model._pyro_name != model.cama_.model._pyro_name
    assert model.cama_.history is not None  # the original keeps what its pickle does not hold


def test_an_estimator_that_is_not_fitted_pickles() -> None:
    twin = pickle.loads(pickle.dumps(small(graph=clinic_graph())))
    assert twin.get_params() == small(graph=clinic_graph()).get_params()
    with pytest.raises(NotFittedError):
        twin.predict(CLINIC)


def test_a_failed_fit_leaves_the_last_one() -> None:
    model = small(max_epochs=1).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="one class"):
        model.fit(X, np.zeros(len(X)))
    np.testing.assert_array_equal(model.predict_proba(X), before)


# In scikit-learn's hands.


def test_pipeline_and_cross_validation() -> None:
    model = make_pipeline(StandardScaler(), small())
    assert cross_val_score(model, X, Y, cv=3).min() > 0.8
    assert cross_val_predict(model, X, Y, cv=3, method="predict_proba").shape == (90, 3)


def test_a_pipeline_s_last_step_adapts_and_the_others_stay() -> None:
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, Y)
    moved = X + np.array([6.0, 0.0, 0.0])
    adapted = adapt_pipeline(pipeline, moved, steps=20)
    assert adapted[-1].adaptation_ is not None
    assert pipeline[-1].adaptation_ is None
    assert adapted[0] is pipeline[0]
    same = pipeline[-1].adapt(pipeline[0].transform(moved), steps=20)
    np.testing.assert_array_equal(adapted.predict_proba(moved), same.predict_proba(pipeline[0].transform(moved)))
    alone = adapt_pipeline(make_pipeline(pipeline[-1]), pipeline[0].transform(moved), steps=20)
    np.testing.assert_array_equal(alone.predict(pipeline[0].transform(moved)), adapted.predict(moved))
    with pytest.raises(TypeError, match="found a StandardScaler as last step"):
        adapt_pipeline(make_pipeline(StandardScaler()).fit(X), X)


def test_weights_of_rows_are_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"X\.loc\[X\.index\.repeat\(weights\)\].*class_prior"):
        small().fit(X, Y, sample_weight=np.ones(len(X)))
    with pytest.raises(TypeError, match="options go to the constructor"):
        small().fit(X, Y, max_epochs=3)
    assert not has_fit_parameter(small(), "sample_weight"), "callers that look before they leap"
    small(max_epochs=1).fit(X, Y, sample_weight=None)


def test_a_graph_s_columns_survive_a_pipeline_that_keeps_their_names() -> None:
    raw = {
        "target": "y",
        "nodes": {"y": {"type": "categorical", "levels": [0, 1, 2]}, "b": "continuous"},
        "edges": ["y -> b"],
    }
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    model = make_pipeline(StandardScaler(), small(graph=raw))
    with pytest.raises(DataError, match="set_output"):
        model.fit(table, Y)
    assert model.set_output(transform="pandas").fit(table, Y).score(table, Y) > 0.5


def test_a_search_over_numpy_s_numbers_gives_a_model_that_can_be_saved(tmp_path: Path) -> None:
    grid = {"hidden": np.arange(4, 9, 4), "lr": np.array([1e-6, 2e-2]), "max_epochs": [np.int64(10)]}
    search = GridSearchCV(small(), grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_params_.keys() == grid.keys()
    assert search.best_score_ > 0.8
    folder = search.best_estimator_.cama_.save(tmp_path / "model")
    settings = json.loads((folder / "settings.json").read_text())["settings"]
    assert settings["hidden"] == search.best_params_["hidden"]


# Adaptation.


def test_adapt_returns_a_better_copy_and_leaves_the_original_alone() -> None:
    model, (_, _, later, y) = fitted_wine(), wine()
    new = drifted(later)
    before, state = model.predict_proba(new), {k: v.clone() for k, v in model.cama_.modules.state_dict().items()}
    adapted = model.adapt(new, **FAST)
    assert type(adapted) is CAMAClassifier
    assert adapted.cama_.adaptation.accepted, adapted.cama_.adaptation
    assert adapted.score(new, y) > model.score(new, y) + 0.2
    assert adapted.score(new, y) > 0.9
    np.testing.assert_array_equal(model.predict_proba(new), before)
    assert all(value.equal(state[name]) for name, value in model.cama_.modules.state_dict().items())
    assert model.cama_.adaptation is None
    assert adapted.get_params() == model.get_params()
    assert adapted.classes_.tolist() == model.classes_.tolist()
    assert adapted.feature_names_in_.tolist() == list(later.columns)
    again = pickle.loads(pickle.dumps(adapted))
    np.testing.assert_array_equal(again.predict_proba(new), adapted.predict_proba(new))
    assert again.cama_.adaptation == adapted.cama_.adaptation


def test_what_is_not_kept_predicts_as_before() -> None:
    model, (train, _, later, _) = fitted_wine(), wine()
    same = model.adapt(train, **FAST)  # nothing has changed
    assert not same.cama_.adaptation.accepted
    np.testing.assert_array_equal(same.predict_proba(later), model.predict_proba(later))


def test_class_proportions_are_in_the_order_of_the_classes() -> None:
    y = np.array(["c", "a", "b"])[Y]
    model = small().fit(X, y)
    found = model.adapt(X + 0.0, class_prior=[0.1, 0.2, 0.7], keep="always", **FAST).cama_.adaptation
    expected = build(model.cama_.graph, hidden=8, layers=1, device="cpu")
    expected.fit(pd.DataFrame(X, columns=["x0", "x1", "x2"]).assign(target=y), progress=False,
                 **{k: v for k, v in SMALL.items() if k not in ("hidden", "layers", "device")})  # fmt: skip
    expected.modules.double()
    other = expected.adapt(
        pd.DataFrame(X, columns=["x0", "x1", "x2"]), class_prior=np.array([0.1, 0.2, 0.7]), keep="always",
        progress=False, **FAST,
    )  # fmt: skip
    assert model.cama_.classes == ("a", "b", "c")
    assert found == other.adaptation


def test_clean_rows_have_a_part_in_scope_row() -> None:
    model = small(graph=clinic_graph("row"), max_epochs=1, interventions=0.5).fit(CLINIC, INFECTION)
    new = CLINIC[:20].assign(fever=CLINIC.fever[:20] + 1)
    options = {**FAST, "steps": 10, "keep": "always"}
    alone = model.adapt(new, **options)
    beside = model.adapt(new, CLINIC[:20], INFECTION[:20], alpha=0.9, **options)
    assert abs(alone.predict_proba(new) - beside.predict_proba(new)).max() > 1e-4


# Errors and the package.


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({"hidden": 0}, X, Y, r"build\(hidden=0\): expected a whole number of at least 1"),
        ({"layers": None}, X, Y, r"CAMAClassifier\(layers=None\): expected a whole number"),
        ({"hidden": 8.5}, X, Y, r"CAMAClassifier\(hidden=8.5\): expected a whole number"),
        ({"lr": -1.0}, X, Y, r"fit\(lr=-1.0\): expected a finite number above 0"),
        ({"random_state": -1}, X, Y, "random_state|[Ss]eed"),
        ({"interventions": 1.0}, X, Y, "scope 'dataset'"),
        ({}, X, Y * 0 + 1, r"y: found one class, 1, in all 90 rows; expected two or more"),
        ({}, X, np.array(["a", None, "b"], dtype=object)[Y], "y: found no label in rows .*label these rows"),
        ({}, X, Y + 0.5, "Unknown label type"),
        ({}, np.where(X > 2, np.inf, X), Y, "infinity"),
        ({}, pd.DataFrame(X, columns=["a", "b", "a"]), Y, "unique column names|found again"),
        ({}, np.where(np.arange(3) == 1, np.nan, X), Y, "column 'x1': found no entry in 90 rows"),
        ({"graph": "nowhere.yaml"}, CLINIC, INFECTION, "nowhere.yaml"),
        ({"graph": clinic_graph()}, CLINIC.to_numpy(), INFECTION, "X: found a ndarray; expected a DataFrame"),
        ({"graph": clinic_graph()}, CLINIC.drop(columns="age"), INFECTION, "column 'age': found none"),
        ({"graph": clinic_graph()}, CLINIC.drop(columns="hospital"), INFECTION, "scope column 'hospital': found none"),
        ({"graph": clinic_graph()}, CLINIC, INFECTION.replace("viral", "virral"), "unknown levels.*virral"),
        ({"graph": clinic_graph()}, CLINIC, INFECTION[:50], "inconsistent numbers of samples"),
        ({"graph": clinic_graph()}, CLINIC, INFECTION.where(INFECTION != "viral"), "no label in rows"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**{"max_epochs": 1, **options}).fit(x, y)


def test_adapt_wants_clean_rows_with_their_labels() -> None:
    with pytest.raises(ValueError, match="found X_clean alone; expected X_clean and its labels"):
        blobs().adapt(X, X)
    with pytest.raises(ValueError, match="found y_clean alone"):
        blobs().adapt(X, y_clean=Y)
    with pytest.raises(DataError, match="unknown levels in row"):
        blobs().adapt(X, X, Y + 1)
    with pytest.raises(ValueError, match="features"):
        blobs().adapt(X[:, :2])
    with pytest.raises(NotFittedError):
        small().adapt(X)


def test_a_graph_s_fault_is_told_at_fit() -> None:
    raw = {"target": "y", "nodes": {"y": "binary", "a": "continuous"}, "edges": ["a -> y"]}
    with pytest.raises(GraphError, match="no children"):
        small(graph=raw).fit(pd.DataFrame({"a": X[:, 0]}), Y)


def test_the_tags_follow_the_graph() -> None:
    without, with_graph = (model.__sklearn_tags__().input_tags for model in (small(), small(graph=nx.DiGraph())))
    assert without.allow_nan
    assert with_graph.allow_nan
    assert (without.string, without.categorical) == (False, False)
    assert (with_graph.string, with_graph.categorical) == (True, True)


def test_unknown_levels_are_read_as_missing_where_asked() -> None:
    color = pd.Series(["red", "blue"] * 30, dtype="category")
    rows = pd.DataFrame({"c": color, "x": [float(i % 2) + 0.1 * (i % 7) for i in range(60)]})
    model = small(unknown="missing").fit(rows, [i % 2 for i in range(60)])
    new = rows.assign(c=["green", *color[1:]])
    with pytest.warns(UserWarning, match="column 'c': 'green', 1 entry, in row 0"):
        found = model.predict_proba(new)
    np.testing.assert_array_equal(found, model.predict_proba(rows.assign(c=[None, *color[1:]])))
    with pytest.raises(ValueError, match="found unknown levels"):
        model.set_params(unknown="error").predict(new)
    with pytest.raises(ValueError, match=r"CAMAClassifier\(unknown=1\): expected 'error' or 'missing'"):
        small(unknown=1).fit(rows, [i % 2 for i in range(60)])


@pytest.mark.parametrize("power", [0, "half", None, 2, float("nan")])
def test_a_wrong_power_is_found_before_training(power: Any) -> None:
    with pytest.raises(ValueError, match=r"CAMAClassifier\(power=.*\): expected a number above 0, at most 1"):
        small(power=power, max_epochs=-5).fit(X, Y)  # that too is wrong, and would be found later
