"""The public class: fitting, predicting by Bayes' rule, bounds, samples, reconstruction, missing values, arguments."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyro import distributions as dist
from torch.utils.data import Dataset

from pyro_cama import CAMA, DataError, GraphError, build
from pyro_cama.attacks.tables import AttackableTable
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.likelihoods import Poisson
from pyro_cama.model.guide import CAMAGuide
from support.clinic import Hospital, patients
from support.drift import Drift, load_table, split
from tests.helpers.patches import rows_at_a_time
from tests.helpers.paths import GRAPHS

SCOPES = ["row", "dataset", "hospital"]
QUICK: dict[str, Any] = {"progress": False}
CLINIC = patients(600, seed=0)
TEST = patients(1000, seed=1)
LABEL = "infection"
FEW = Hospital("north").measure(TEST[:24], seed=0)


def graph(scope: str = "row") -> dict[str, Any]:
    raw = CausalGraph(GRAPHS / "clinic.yaml").to_dict()
    raw["latents"]["m"]["scope"] = scope
    raw["latents"]["z"] = {"dim": 4, "effect": "deep"}
    return raw


@functools.cache
def clinic(scope: str = "row", epochs: int = 3, guide: type[CAMAGuide] = CAMAGuide) -> CAMA:
    rows = CLINIC if epochs > 3 else CLINIC[:150]
    cama = build(graph(scope), hidden=32, guide=guide, device="cpu")
    options: dict[str, Any] = {"max_epochs": epochs, "conditional_weight": 0.0, "lr": 3e-3}
    return cama.fit(Hospital("north").measure(rows, seed=0), **options, **QUICK)


@functools.cache
def table(name: str) -> tuple[CAMA, str, pd.DataFrame, pd.DataFrame]:
    frame, target = load_table(name)
    train, test = split(frame, target, seed=0)
    cama = build(GRAPHS / f"{name}.yaml", device="cpu").fit(train, max_epochs=25, **QUICK)
    return cama, target, train, test


def adapted(cama: CAMA, rows: pd.DataFrame, **options: Any) -> CAMA:
    return cama.adapt(rows, **{"steps": 20, "restarts": 1, "folds": 2, "keep": "always", **QUICK, **options})


def state(cama: CAMA) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in cama.modules.state_dict().items()}


# Fitting.


@pytest.mark.parametrize(("name", "least"), [("wine", 0.9), ("breast_cancer", 0.9)])
def test_it_learns(name: str, least: float) -> None:
    cama, _, _, test = table(name)
    assert cama.score(test) > least


def test_the_same_seed_gives_the_same_numbers() -> None:
    def run(seed: int) -> list[np.ndarray]:
        torch.rand(7)  # whatever the caller drew before
        cama = build(graph(), seed=seed, hidden=8, device="cpu").fit(CLINIC[:40], max_epochs=1, **QUICK)
        copy = adapted(cama, TEST[:30], steps=10)
        found = [cama.predict_proba(FEW), copy.predict_proba(FEW), cama.elbo(FEW).numpy()]
        return [*found, cama.sample(5).select_dtypes(float).to_numpy()]

    first, again, other = run(0), run(0), run(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    cama = build(graph(), hidden=8, device="cpu").fit(CLINIC[:40], max_epochs=1, **QUICK)
    adapted(cama, TEST[:30]).predict(FEW)
    cama.sample(3)
    cama.elbo(FEW)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before[1])


def test_rows_without_a_label_teach_too() -> None:
    some = CLINIC[:120].assign(infection=CLINIC[LABEL][:120].where(CLINIC.index[:120] % 3 > 0))
    options: dict[str, Any] = {"max_epochs": 2, "conditional_weight": 0.0}
    cama = build(graph(), hidden=8, device="cpu").fit(some, **options, **QUICK)
    fewer = build(graph(), hidden=8, device="cpu").fit(some.dropna(), **options, **QUICK)
    assert not np.array_equal(cama.predict_proba(FEW), fewer.predict_proba(FEW))
    assert cama.encoder.statistics["age"]["mean"] == pytest.approx(some["age"].mean())


def test_a_graph_without_latents() -> None:
    raw = graph() | {"latents": {"z": None, "m": None}}
    cama = build(raw, hidden=8, device="cpu").fit(CLINIC[:100], max_epochs=2, **QUICK)
    assert cama.predict(FEW).shape == (24,)
    assert cama.manipulation_parameters() == {}
    assert bool(torch.isfinite(cama.elbo(FEW)).all())
    with pytest.raises(ValueError, match="no manipulation latent"):
        cama.adapt(FEW)
    with pytest.raises(ValueError, match="no manipulation"):
        cama.predict(FEW, do={"m": 0.0})
    with pytest.raises(ValueError, match="no manipulation latent"):
        cama.fit(CLINIC, interventions=1.0)


def test_any_column_name() -> None:
    names = ["type", "keys", "a.b", "with space", "forward", "ünïcode", "1", "rows"]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    frame = pd.DataFrame({name: y + rng.normal(0, 0.5, 100) for name in names[1:]} | {names[0]: y})
    raw = {
        "target": "type",
        "nodes": dict.fromkeys(names[1:], "continuous") | {"type": "binary"},
        "edges": [["type", name] for name in names[1:]],
    }
    cama = build(raw, hidden=8, device="cpu").fit(frame, max_epochs=40, **QUICK)
    assert cama.score(frame) > 0.9
    assert set(cama.predict(frame)) == {0, 1}
    assert list(cama.sample(2).columns) == ["type", *names[1:]]


def drifting(rows: int, seed: int, drift: float = 0.0) -> pd.DataFrame:
    """Three measurements of a class, the first of which has drifted up or down."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    x = 1.5 * y[:, None] + rng.normal(size=(rows, 3))
    x[:, 0] += drift * rng.choice([-1, 1], rows)
    return pd.DataFrame(x, columns=list("abc")).assign(y=y)


@pytest.mark.parametrize("way", ["interventions", "manipulated"])
def test_training_on_manipulations_teaches_to_undo_them(way: str) -> None:
    raw = {
        "target": "y",
        "nodes": {"y": "binary", **dict.fromkeys("abc", "continuous")},
        "edges": [["y", name] for name in "abc"],
        "latents": {"m": {"children": ["a"]}},
    }
    cama = build(raw, hidden=32, device="cpu")
    new = drifting(500, 2, drift=6.0)
    given: dict[str, Any] = {"interventions": 4.0} if way == "interventions" else {"manipulated": drifting(400, 1, 6.0)}
    options: dict[str, Any] = {"max_epochs": 40, "lr": 3e-3, "conditional_weight": 0.0}
    cama.fit(drifting(400, 0), **given, **options, **QUICK)
    assert cama.m_trained
    assert np.array_equal(cama.predict_proba(new), cama.predict_proba(new, None))
    assert cama.score(new) > cama.score(new, {"m": 0.0}) + 0.05
    assert cama.score(drifting(500, 3)) > 0.8


# Predicting.


def test_probabilities() -> None:
    cama, target, _, test = table("wine")
    found = cama.predict_proba(test)
    assert found.shape == (len(test), 3)
    assert found.dtype == np.float64
    assert found.sum(1) == pytest.approx(np.ones(len(test)))
    assert found.min() >= 0
    assert np.array_equal(cama.predict_proba(test), found)
    labels = cama.predict(test)
    assert labels.tolist() == [f"class_{code}" for code in found.argmax(1)]
    assert cama.score(test) == (labels == test[target].to_numpy(str)).mean()


def test_the_labels_of_the_table_are_not_looked_at() -> None:
    cama, target, _, test = table("wine")
    expected = cama.predict_proba(test)
    assert np.array_equal(cama.predict_proba(test.drop(columns=target)), expected)
    assert np.array_equal(cama.predict_proba(test.assign(**{target: "no label"})), expected)


def test_kinds_of_tables() -> None:
    class Rows(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(FEW)

        def __getitem__(self, i: int) -> dict[str, Any]:
            return dict(FEW.iloc[i])

    cama = clinic()
    expected = cama.predict_proba(FEW)
    assert np.array_equal(cama.predict_proba(dict(FEW)), expected)
    assert np.array_equal(cama.predict_proba(Rows()), expected)
    assert np.array_equal(cama.predict_proba(FEW.sample(frac=1, random_state=0).sort_index()), expected)


class MixtureGuide(CAMAGuide):
    """A posterior for which there is no common noise."""

    def z_dist(self, batch: Any, y: Any, m: Any) -> Any:
        loc, scale = (p.unsqueeze(-2) for p in self.z_params(batch, y, m))
        parts = dist.Normal(loc + torch.tensor([[0.0], [1.0]]), scale).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(*loc.shape[:-2], 2)), parts)


@pytest.mark.parametrize("do", ["auto", None])
@pytest.mark.parametrize("guide", [CAMAGuide, MixtureGuide])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_row_does_not_depend_on_the_rows_beside_it(scope: str, guide: type[CAMAGuide], do: Any) -> None:
    cama = clinic(scope, guide=guide)
    rows = FEW.assign(age=FEW["age"].where(FEW.index % 3 > 0), fever=FEW["fever"].where(FEW.index % 4 > 0))[:8]
    together = cama.predict_proba(rows, do)
    assert np.ptp(together[:, 0]) > 1e-3
    alone = np.concatenate([cama.predict_proba(rows[i : i + 1], do) for i in range(len(rows))])
    assert alone == pytest.approx(together, abs=1e-5)  # of 32-bit numbers
    order = np.random.default_rng(0).permutation(len(rows))
    assert cama.predict_proba(rows.iloc[order], do) == pytest.approx(together[order], abs=1e-6)


def test_a_guide_without_common_noise_serves_everywhere() -> None:
    cama = clinic(guide=MixtureGuide)
    assert torch.equal(cama.elbo(FEW), cama.elbo(FEW))
    assert bool(torch.isfinite(cama.elbo(FEW)).all())
    assert cama.reconstruct(FEW).equals(cama.reconstruct(FEW))
    copy = adapted(cama, FEW[:8], steps=10)
    assert np.array_equal(copy.predict_proba(FEW[:2], {"m": 0.0}), cama.predict_proba(FEW[:2], {"m": 0.0}))


def test_chunks_of_a_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    cama = clinic()
    value = np.random.default_rng(0).normal(size=(len(FEW), 2))
    expected = cama.predict_proba(FEW, None), cama.predict_proba(FEW, {"m": value})
    select = type(cama.encode(FEW)).select
    sizes: list[int] = []

    def counted(batch: Any, rows: torch.Tensor) -> Any:
        sizes.append(len(rows))
        return select(batch, rows)

    monkeypatch.setattr("pyro_cama.data.batch.Batch.select", counted)
    samples = 2**21 // (3 * 32 * 5)  # five rows at a time
    cama.predict_proba(FEW[:7], samples=samples)
    assert sizes == [5, 2]
    monkeypatch.undo()
    assert cama.predict_proba(FEW[3:], None) == pytest.approx(expected[0][3:], abs=1e-5)
    assert cama.predict_proba(FEW[3:], {"m": value[3:]}) == pytest.approx(expected[1][3:], abs=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
def test_what_do_means(scope: str) -> None:
    cama = clinic(scope)
    assert not cama.m_trained
    zero = cama.predict_proba(FEW, {"m": 0.0})
    assert np.array_equal(cama.predict_proba(FEW), zero)
    assert np.array_equal(cama.predict_proba(FEW, {"m": np.zeros(2)}), zero)
    assert not np.allclose(cama.predict_proba(FEW, None), zero)
    assert not np.allclose(cama.predict_proba(FEW, {"m": np.array([3.0, -3.0])}), zero)
    copy = adapted(cama, FEW)
    assert copy.m_trained
    assert np.array_equal(copy.predict_proba(FEW), copy.predict_proba(FEW, None))


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("clean", "expected 'auto', None or a mapping"),
        ({"fever": 38.0}, r"\['fever'\] is not the manipulation latent; expected 'm'"),
        ({"q": 0.0}, r"\['q'\] is not the manipulation latent"),
        ({"m": [1.0, 2.0, 3.0]}, r"'m' has 2 dimensions, found a value of shape \(3,\)"),
        ({"m": np.zeros((1, 1, 2))}, "found a value of shape"),
        (3, "expected 'auto', None or a mapping .*, found 3"),
    ],
)
def test_a_wrong_do(do: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clinic().predict_proba(FEW, do)


@pytest.mark.parametrize("values", [1, 23, 25])
def test_a_value_of_every_row_needs_as_many_as_there_are_rows(values: int) -> None:
    cama, do = clinic(), {"m": np.zeros((values, 2))}
    calls: list[Callable[[], object]] = [
        lambda: cama.predict_proba(FEW, do),
        lambda: cama.predict_proba(cama.encode(FEW), do),
        lambda: cama.elbo(FEW, do),
        lambda: cama.reconstruct(FEW, do),
        lambda: cama.sample(24, do),
        lambda: AttackableTable(cama, FEW, do=do),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^do: 'm' has {values} rows?; the table has 24$"):
            call()


def test_a_shared_m_has_no_value_of_every_row() -> None:
    do = {"m": np.ones((24, 2))}
    with pytest.raises(ValueError, match=r"has 24 rows; scope 'dataset' .* a number or \(2,\), one for all$"):
        clinic("dataset").predict_proba(FEW, do)
    cama = clinic("hospital")
    sites = len(cama.encoder.sites)
    with pytest.raises(ValueError, match=rf"or \({sites}, 2\), one for every 'hospital'"):
        cama.predict_proba(FEW, do)
    same = cama.predict_proba(FEW, {"m": np.ones(2)})
    assert cama.predict_proba(FEW, {"m": np.ones((sites, 2))}) == pytest.approx(same, abs=1e-6)
    own = {"m": np.arange(2.0 * sites).reshape(sites, 2)}
    assert not np.allclose(cama.predict_proba(FEW, own), same)


# Class proportions.


def test_new_class_proportions() -> None:
    cama = clinic()
    plain = cama.predict_proba(FEW)
    train = cama.encoder.statistics[LABEL]["frequencies"].numpy()
    assert cama.predict_proba(FEW, class_prior=train) == pytest.approx(plain, abs=1e-6)
    new = np.array([0.1, 0.2, 0.7])
    expected = plain * new / train
    assert cama.predict_proba(FEW, class_prior=new) == pytest.approx(
        expected / expected.sum(1, keepdims=True), abs=1e-5
    )


def test_a_class_of_a_share_of_0_is_ruled_out() -> None:
    cama = clinic()
    for alone in range(3):
        shares = np.eye(3)[alone]
        assert cama.predict_proba(FEW, class_prior=shares) == pytest.approx(np.tile(shares, (len(FEW), 1)), abs=0)
    assert (cama.predict_proba(FEW, class_prior=[0.5, 0.5, 0.0])[:, 2] == 0).all()  # type: ignore[arg-type]
    assert np.isfinite(cama.adapt(FEW, class_prior=[0.5, 0.5, 0.0], progress=False).predict_proba(FEW)).all()


def test_class_proportions_by_label() -> None:
    cama = clinic()
    expected = cama.predict_proba(FEW, class_prior=np.array([0.1, 0.2, 0.7]))
    shares = dict(zip(cama.classes, [0.1, 0.2, 0.7], strict=True))
    turned = dict(reversed(shares.items()))
    for given in (turned, pd.Series(turned), pd.Series(turned, index=pd.CategoricalIndex(list(turned)))):
        assert cama.predict_proba(FEW, class_prior=given) == pytest.approx(expected, abs=0)
    for wrong in (pd.Series([0.3, 0.7], index=list(shares)[:2]), turned | {"other": 0.0}, {"a": 1.0}):
        with pytest.raises(ValueError, match=r"class_prior: found shares of '.*'; expected one of each of "):
            cama.predict_proba(FEW, class_prior=wrong)


def test_a_level_without_training_rows_takes_no_part_in_new_proportions() -> None:
    raw = graph()
    known = CausalGraph(raw).nodes[LABEL].levels or ()
    raw["nodes"][LABEL] = {"type": "categorical", "levels": [*known, "unheard of"]}
    rows = Hospital("north").measure(CLINIC[:150], seed=0)
    cama = build(raw, hidden=8, device="cpu").fit(rows, max_epochs=1, conditional_weight=0.0, **QUICK)
    shares = [*[1 / len(known)] * len(known), 0.0]
    for prior in ("estimate", shares):
        found = cama.predict_proba(FEW, class_prior=prior)  # type: ignore[arg-type]
        assert np.isfinite(found).all()
        assert found[:, -1].max() < 0.5
    shares = [*[0.6 / len(known)] * len(known), 0.4]
    said = "class_prior: found a share of 0.4 for 'unheard of', of which no training row was; expected 0 there"
    with pytest.raises(ValueError, match=said):
        cama.predict(FEW, class_prior=shares)
    with pytest.raises(ValueError, match=said):
        cama.adapt(rows, class_prior=shares)


def test_estimated_proportions_follow_the_rows() -> None:
    def overlapping(rows: int, share: float) -> pd.DataFrame:
        rng = np.random.default_rng(rows)
        y = (np.arange(rows) < share * rows).astype(int)
        return pd.DataFrame({"y": y, "x": 2 * y + rng.normal(size=rows)})

    raw = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    cama = build(raw, hidden=8, layers=1, device="cpu")
    cama.fit(overlapping(400, 0.5), max_epochs=40, conditional_weight=0.0, lr=1e-2, **QUICK)
    new = overlapping(500, 0.95)
    plain, found = cama.predict_proba(new), cama.predict_proba(new, class_prior="estimate")
    assert abs(found[:, 1].mean() - 0.95) < 0.05 < 0.1 < abs(plain[:, 1].mean() - 0.95)
    assert cama.score(new, class_prior="estimate") > cama.score(new) + 0.03


@pytest.mark.parametrize("prior", ["test", [0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.5, 0.5], [np.nan, 0.5, 0.5], 0.3])
def test_wrong_class_proportions(prior: Any) -> None:
    with pytest.raises(ValueError, match="class_prior: expected"):
        clinic().predict_proba(FEW, class_prior=prior)


# Bounds.


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("do", [{"m": 0.0}, None])
def test_bounds_of_labelled_and_unlabelled_rows(scope: str, do: Any) -> None:
    cama = clinic(scope)
    labelled = cama.elbo(FEW, do)
    assert labelled.shape == (24,)
    assert bool(torch.isfinite(labelled).all())
    unlabelled = cama.elbo(FEW.drop(columns=LABEL), do)
    assert bool((unlabelled >= labelled).all())
    known = FEW.index.to_numpy() % 2 == 0
    partly = cama.elbo(FEW.assign(infection=FEW[LABEL].where(known)), do)
    assert torch.equal(partly, torch.where(torch.tensor(known), labelled, unlabelled))


def test_bounds_are_of_clean_rows_unless_told_otherwise() -> None:
    cama = clinic()
    assert torch.equal(cama.elbo(FEW), cama.elbo(FEW, {"m": 0.0}))
    assert not torch.allclose(cama.elbo(FEW), cama.elbo(FEW, None))
    assert not torch.allclose(cama.elbo(FEW), cama.elbo(FEW, {"m": torch.ones(2)}))


@pytest.mark.parametrize("scope", SCOPES)
def test_bounds_and_reconstructions_of_a_large_table_come_in_parts(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cama = clinic(scope)
    m = torch.randn(len(FEW), 2) if scope == "row" else None
    ways: list[Any] = [{"m": 0.0}, None, *([{"m": m}] if m is not None else [])]
    whole = [(cama.elbo(FEW, do=do), cama.reconstruct(FEW, do=do)) for do in ways]
    asked = rows_at_a_time(monkeypatch, 7)
    parts = 0
    for do, (bound, rows) in zip(ways, whole, strict=True):
        torch.testing.assert_close(cama.elbo(FEW, do=do), bound)
        pd.testing.assert_frame_equal(cama.reconstruct(FEW, do=do), rows, rtol=1e-4)
        parts += 2
        assert len(asked) == parts


def test_training_raises_the_bound() -> None:
    fresh = build(graph(), hidden=32, device="cpu").fit(CLINIC, max_epochs=1, **QUICK)
    assert clinic(epochs=30).elbo(TEST).mean() > fresh.elbo(TEST).mean() + 1


# Samples.


def test_samples_look_like_the_training_rows() -> None:
    cama = clinic(epochs=30)
    found = cama.sample(2000)
    assert tuple(found.columns) == cama.graph.order
    assert len(found) == 2000
    for name in cama.graph.order:
        node = cama.graph.nodes[name]
        if node.levels:
            assert set(found[name]) <= set(node.levels)
            for level in node.levels:
                assert (found[name] == level).mean() == pytest.approx((CLINIC[name] == level).mean(), abs=0.1)
        else:
            assert found[name].mean() == pytest.approx(CLINIC[name].mean(), abs=0.4 * CLINIC[name].std())
    assert (found["white_cells"] % 1 == 0).all()
    assert cama.sample(5, seed=3).equals(cama.sample(5, seed=3))
    assert not cama.sample(5, seed=3).equals(cama.sample(5, seed=4))


def far(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns of 2000 rows differ in distribution, by five standard errors."""
    one, other = pd.Series(one), pd.Series(other)
    if not pd.api.types.is_numeric_dtype(one):
        levels = sorted({*one, *other})
        return any(far((one == level).astype(float), (other == level).astype(float)) for level in levels)
    error = np.sqrt(one.var() / len(one) + other.var() / len(other))
    return bool(abs(one.mean() - other.mean()) > 5 * error)


@pytest.mark.parametrize(
    ("name", "values", "effects"),
    [
        ("fever", (36.5, 40.0), {"fever", "ward"}),
        ("infection", ("healthy", "bacterial"), {"infection", "white_cells", "fever", "cough", "ward"}),
        ("smoker", ("no", "yes"), {"smoker", "cough"}),
        ("ward", ("home", "intensive"), {"ward"}),
    ],
)
def test_an_intervention_on_a_node_changes_its_descendants_only(name: str, values: Any, effects: set[str]) -> None:
    cama = clinic(epochs=30)
    one, other = (cama.sample(2000, do={name: value, "m": 0.0}, seed=i) for i, value in enumerate(values))
    for found, value in zip((one, other), values, strict=True):
        assert found[name].unique().tolist() == [value if isinstance(value, str) else pytest.approx(value)]
    assert {column for column in one if far(one[column], other[column])} == effects


def test_an_intervention_on_m_changes_what_it_manipulates_only() -> None:
    cama = clinic(epochs=30)
    with torch.no_grad():
        manipulation: Any = cama.model.networks["manipulation"]
        m = torch.tensor([[1.0, 0.0]])
        before = state(cama)
        manipulation.solve_for(m, torch.full((1, manipulation.size), 2.0))
    try:
        plain, found = cama.sample(2000, do={"m": 0.0}), cama.sample(2000, do={"m": m[0]}, seed=1)
    finally:
        cama.modules.load_state_dict(before)
    # the ward depends on the fever itself, not on the reading: affects is measurement in this graph
    assert {column for column in plain if far(plain[column], found[column])} == {"white_cells", "fever", "cough"}


@pytest.mark.parametrize("do", [{"nobody": 1}, {"billing": 1.0}, {"ward": "moon"}, {"m": torch.ones(3)}])
def test_a_wrong_intervention(do: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|neither|dimensions"):
        clinic().sample(3, do=do)


# Reconstruction.


def test_reconstruction_undoes_a_planted_drift() -> None:
    cama, target, train, test = table("wine")
    columns = [str(name) for name in test if name != target]
    drifted, moved = Drift(1.5, 0.5).apply(test, train, columns, seed=1)
    copy = cama.adapt(drifted.drop(columns=target), steps=60, restarts=2, **QUICK)
    assert copy.adaptation.accepted, copy.adaptation
    sd = train[columns].std()
    left = ((copy.reconstruct(drifted)[columns] - test[columns]).mean() / sd).abs()
    assert left[moved].mean() < 0.4
    assert left.mean() < 0.4
    still = ((copy.reconstruct(drifted, do=None)[columns] - test[columns]).mean() / sd).abs()
    assert still[moved].mean() > 1.0


def test_reconstructions_are_in_raw_units() -> None:
    found = clinic(epochs=30).reconstruct(TEST)
    assert list(found.columns) == ["white_cells", "fever", "cough", "ward"]
    assert set(found["cough"]) <= {"present", "absent"}
    assert (found["cough"] == TEST["cough"]).mean() > 0.6
    assert np.corrcoef(found["fever"], TEST["fever"])[0, 1] > 0.6


# What adapting changes.


@pytest.mark.parametrize("scope", SCOPES)
def test_adapting_changes_the_manipulation_parameters_and_nothing_else(scope: str) -> None:
    cama = clinic(scope)
    before, prediction = state(cama), cama.predict_proba(FEW)
    new = Hospital("north", thermometer=1.0, counter=1.5).measure(TEST[:100], seed=3)
    copy = adapted(cama, new)
    assert all(torch.equal(tensor, before[name]) for name, tensor in cama.modules.state_dict().items())
    assert np.array_equal(cama.predict_proba(FEW), prediction)
    assert cama.adaptation is None
    ours = {id(parameter): name for name, parameter in copy.manipulation_parameters().items()}
    # what the new rows' m is, for sample
    changed, remembered = set(), ("networks.m.items_.0.world", "networks.m.items_.0.share")
    for name, tensor in copy.modules.state_dict(keep_vars=True).items():
        if not torch.equal(tensor, before[name]) and not name.endswith(remembered):
            assert id(tensor) in ours, name
            changed.add(ours[id(tensor)])
    assert {name.split(".")[0] for name in changed} == {"NN_pM", "NN_qM"}
    # NN_pM(m) - NN_pM(0): the last bias alone has no say
    still = set(ours.values()) - changed
    assert len(still) <= 1
    assert all(name.startswith("NN_pM") and name.endswith("bias") for name in still)
    assert {id(p) for p in cama.modules.parameters()}.isdisjoint(id(p) for p in copy.modules.parameters())


@pytest.mark.parametrize("scope", SCOPES)
def test_not_manipulated_means_the_same_to_an_adapted_model(scope: str) -> None:
    cama = clinic(scope)
    copy = adapted(cama, Hospital("east", thermometer=2.0).measure(TEST[:100], seed=3))
    assert np.array_equal(copy.predict_proba(FEW, {"m": 0.0}), cama.predict_proba(FEW, {"m": 0.0}))
    assert not np.allclose(copy.predict_proba(FEW.assign(hospital="east"), None), cama.predict_proba(FEW, {"m": 0.0}))
    assert torch.equal(copy.elbo(FEW), cama.elbo(FEW))


def test_a_new_site_is_read_unmanipulated_until_adapted_to() -> None:
    cama = clinic("hospital")
    east = Hospital("east", thermometer=3.0).measure(TEST[:100], seed=3)
    copy = adapted(cama, east)
    assert copy.encoder.sites == ("north", "east")
    assert cama.encoder.sites == ("north",)
    assert not np.allclose(copy.predict_proba(east), cama.predict_proba(east))
    west = FEW.assign(hospital="west")
    with pytest.warns(UserWarning, match="site the model was never adapted to"):
        found = copy.predict_proba(west)
    clean = cama.predict_proba(FEW, {"m": 0.0})
    assert np.abs(found - clean).max() < 1e-6
    holes = pd.concat([west, FEW]).assign(age=np.nan)  # north has an m of 0: nothing was learnt of it
    with pytest.warns(UserWarning, match="site the model was never adapted to"):
        assert np.abs(copy.predict_proba(holes) - cama.predict_proba(holes, {"m": 0.0})).max() < 1e-6
    mixed = pd.concat([FEW, west, FEW.assign(hospital="east")]).sample(frac=1.0, random_state=0)
    with pytest.warns(UserWarning, match="site the model was never adapted to"):
        together = copy.predict_proba(mixed, None)
    with pytest.warns(UserWarning, match="site the model was never adapted to"):
        alone = np.concatenate([copy.predict_proba(mixed.iloc[[i]], None) for i in range(len(mixed))])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(copy.predict_proba(FEW.assign(hospital="east")) - clean).max() > 0.02
    more = adapted(copy, west)
    assert more.encoder.sites == ("north", "east", "west")
    more.predict(west)


# Missing values.


def test_missing_values_cost_less_than_with_mean_imputation() -> None:
    cama = clinic(epochs=30)
    rng = np.random.default_rng(0)
    holes, filled = TEST.copy(), TEST.copy()
    for name in TEST.columns.drop(LABEL):
        gone = rng.random(len(TEST)) < 0.2
        numeric = name in ("age", "white_cells", "fever")
        mean = round(CLINIC[name].mean()) if numeric else CLINIC[name].mode()[0]
        holes[name] = TEST[name].astype(object).mask(gone)
        filled[name] = TEST[name].mask(gone, mean)
    assert cama.score(holes) > cama.score(filled) + 0.01
    assert cama.score(TEST) > cama.score(holes)


def test_rows_with_nothing_but_a_label() -> None:
    cama = clinic()
    empty = FEW.assign(**dict.fromkeys(FEW.columns.drop([LABEL, "hospital"]), np.nan))
    found = cama.predict_proba(empty)
    assert np.isfinite(found).all()
    assert np.allclose(found, found[0])
    assert bool(torch.isfinite(cama.elbo(empty)).all())
    assert len(cama.reconstruct(empty)) == len(empty)


# What it says of itself, and of wrong arguments.


def test_summary() -> None:
    cama = clinic()
    text = cama.summary()
    for part in (
        "infection: healthy, viral, bacterial",
        "parents     age, exposure",
        "children    white_cells, fever, cough, ward",
        "co-parents  age, smoker, medication",
        "fever (affine)",
        "scope row",
        "p(fever | infection, medication, z, m)",
    ):
        assert part in text
    counts = [int(line.split()[-2].replace(",", "")) for line in text.splitlines() if line.endswith("parameters")]
    assert sum(counts) == sum(p.numel() for p in cama.modules.parameters())
    starred = [int(line.split()[-2].replace(",", "")) for line in text.splitlines() if " * " in line]
    assert sum(starred) == sum(p.numel() for p in cama.manipulation_parameters().values())


def test_repr_tells_the_state() -> None:
    assert "not fitted" in repr(build(graph()))
    assert repr(clinic()).endswith(", fitted)")
    assert repr(adapted(clinic(), FEW)).endswith(", adapted)")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "elbo", "reconstruct", "adapt"])
def test_a_model_not_yet_fitted_says_so(method: str) -> None:
    with pytest.raises(DataError, match=r"call fit\(clean\) first"):
        getattr(build(graph()), method)(FEW)


def test_no_samples_before_a_fit() -> None:
    with pytest.raises((DataError, RuntimeError), match="fit"):
        build(graph()).sample(3)


def test_scores_and_fits_need_labels() -> None:
    cama = clinic()
    with pytest.raises(DataError, match=LABEL):
        cama.score(FEW.drop(columns=LABEL))
    with pytest.raises(DataError, match="row 0"):
        cama.score(FEW.assign(infection=FEW[LABEL].where(FEW.index > 0)))
    with pytest.raises(DataError, match=LABEL):
        build(graph()).fit(CLINIC.drop(columns=LABEL))
    with pytest.raises(DataError, match=LABEL):
        build(graph(), hidden=8).fit(CLINIC, manipulated=CLINIC.drop(columns=LABEL))


WRONG: dict[str, tuple[type[Exception], Callable[[], object], str]] = {
    "a network of no node": (ValueError, lambda: build(graph(), networks={"nobody": torch.nn.Linear}), "nobody"),
    "a mechanism outside": (ValueError, lambda: build(graph(), mechanisms={"billing": None}), "billing"),  # type: ignore[dict-item]
    "a likelihood of a type": (GraphError, lambda: build(graph(), likelihoods={"fever": Poisson()}), "serves count"),
    "interventions of a shared m": (ValueError, lambda: clinic("dataset").fit(CLINIC, interventions=1.0), "scope"),
    "interventions on a parent": (ValueError, lambda: clinic().fit(CLINIC, interventions={"age": 1.0}), "'age'"),
    "no steps": (ValueError, lambda: clinic().adapt(FEW, steps=0), r"adapt\(steps=0\): expected a whole number"),
    "no starts": (ValueError, lambda: clinic().adapt(FEW, restarts=0), r"adapt\(restarts=0\): expected a whole"),
    "steps as text": (ValueError, lambda: clinic().adapt(FEW, steps="9"), "steps='9'"),  # type: ignore[arg-type]
    "sparsity of nan": (ValueError, lambda: clinic().adapt(FEW, sparsity=float("nan")), "finite number of at least 0"),
    "lr as text": (ValueError, lambda: clinic().fit(CLINIC, lr="1e-3"), "lr='1e-3'"),
    "decay": (ValueError, lambda: clinic().fit(CLINIC, weight_decay=-1.0), "finite number of at least 0"),
    "a seed": (ValueError, lambda: build(graph(), seed=-1), r"seed=-1\): expected a whole number from 0"),
    "no draws": (ValueError, lambda: clinic().elbo(FEW, samples=0), r"elbo\(samples=0\)"),
    "no draws of children": (ValueError, lambda: clinic().reconstruct(FEW, samples=0), r"reconstruct\(samples=0\)"),
    "no interventions": (ValueError, lambda: clinic().fit(CLINIC, interventions=0), r"interventions=0\): expected a"),
    "an option": (ValueError, lambda: clinic().lightning(CLINIC, epochs=2), r"lightning\(epochs=2\): expected some of"),
    "half a row": (ValueError, lambda: clinic().sample(2.5), "whole number"),  # type: ignore[arg-type]
    "alpha": (ValueError, lambda: clinic().adapt(FEW, alpha=1.5), "alpha"),
    "proportions": (ValueError, lambda: clinic().adapt(FEW, class_prior=np.ones(3)), "class_prior"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str) -> None:
    error, call, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()


def test_a_guide_that_lacks_a_site_is_told_which() -> None:
    class Forgetful(CAMAGuide):
        def forward(self, data: Any = None, *, rows: Any = None, samples: Any = None, classes: bool = False) -> None:
            import pyro

            from pyro_cama.model.plates import Plates, as_batch

            batch = as_batch(data, rows)
            with Plates(self.graph, batch.rows, samples, classes, self.sites).rows:
                pyro.sample("m", self.m_dist(batch))

    with pytest.raises(ValueError, match="no site 'z'"):
        build(graph(), hidden=8, guide=Forgetful, device="cpu").fit(CLINIC[:40], max_epochs=1, **QUICK)


@pytest.mark.parametrize(
    ("call", "options", "found"),
    [
        ("fit", {"batch_size": 0}, "batch_size=0"),
        ("fit", {"max_epochs": -1}, "max_epochs=-1"),
        ("fit", {"max_epochs": 1.5}, "fit(max_epochs=1.5): expected a whole number"),
        ("fit", {"samples": True}, "fit(samples=True): expected a whole number"),
        ("fit", {"mixing": 2}, "mixing=2"),
        ("fit", {"validation": 1.0}, "validation=1.0"),
        ("fit", {"conditional_weight": -1}, "conditional_weight=-1"),
        ("fit", {"lr": 0}, "lr=0"),
        ("predict", {"samples": 0}, "samples=0"),
        ("predict", {"m_samples": 0}, "m_samples=0"),
        ("predict", {"do": {"m": float("nan")}}, "finite"),
        ("predict", {"do": {"m": "much"}}, "much"),
        ("elbo", {"do": "dirty"}, "dirty"),
        ("adapt", {"keep": "x"}, "keep='x'"),
        ("adapt", {"batch_size": 0}, "batch_size=0"),
        ("adapt", {"sparsity": -1}, "sparsity=-1"),
    ],
)
def test_arguments_out_of_range_are_named(call: str, options: dict[str, Any], found: str) -> None:
    frame = pd.DataFrame({"x": [0.0, 1.0, 0.1, 1.1], "y": [0, 1, 0, 1]})
    cama = build({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}, device="cpu")
    cama.fit(frame, max_epochs=0, progress=False)
    with pytest.raises(ValueError, match=re.escape(found)):
        getattr(cama, call)(frame, **options)


def test_sizes_out_of_range_are_named() -> None:
    raw = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    with pytest.raises(ValueError, match=re.escape("build(hidden=0)")):
        build(raw, hidden=0)
    with pytest.raises(ValueError, match=re.escape("build(layers=-1)")):
        build(raw, layers=-1)
    for name in ("hidden", "layers", "seed"):
        with pytest.raises(ValueError, match=re.escape(f"build({name}=2.5): expected a whole number")):
            build(raw, **{name: 2.5})  # type: ignore[arg-type]


def test_sizes_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    raw = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    cama = build(raw, hidden=np.int64(8), layers=np.int32(1), seed=np.int64(3), device="cpu")  # type: ignore[arg-type]
    frame = pd.DataFrame({"x": np.linspace(0, 1, 40), "y": [0, 1] * 20})
    sizes: dict[str, Any] = {"max_epochs": np.int64(1), "batch_size": np.int64(8), "lr": np.float32(1e-3)}
    options = sizes | QUICK | {"weight_decay": np.float64(1e-4), "checkpoints": tmp_path / "kept"}
    cama.fit(frame, **options)
    cama.fit(frame, resume=True, **options)
    cama.save(tmp_path / "saved")


@pytest.mark.parametrize("fault", ["labels", "checkpoints"])
def test_a_fit_that_fails_before_it_trains_leaves_the_model_as_it_was(fault: str, tmp_path: Path) -> None:
    raw = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    frame = pd.DataFrame({"x": np.linspace(0, 1, 40), "y": [0, 1] * 20})
    other = frame.assign(x=frame["x"] + 50.0, y=(frame.index == 3).astype(int))
    build(raw, hidden=8, device="cpu").fit(frame, max_epochs=1, checkpoints=tmp_path, **QUICK)
    cama = build(raw, hidden=8, device="cpu")
    wrong: dict[str, Any] = {"manipulated": frame[["x"]]} if fault == "labels" else {"checkpoints": tmp_path}
    with pytest.raises(DataError if fault == "labels" else FileExistsError):
        cama.fit(other, max_epochs=1, **wrong, **QUICK)
    assert not cama.encoder.fitted
    with pytest.raises(DataError, match="fit"):
        cama.predict(frame)
    expected = build(raw, hidden=8, device="cpu").fit(frame, max_epochs=2, **QUICK).predict_proba(frame)
    found = cama.fit(frame, max_epochs=2, **QUICK).predict_proba(frame)
    np.testing.assert_array_equal(found, expected)


def test_weight_decay_spares_what_clean_rows_do_not_train() -> None:
    """NN_pM and NN_qM have no gradient under do(m=0); shrunk to nothing, they could not adapt any more."""
    options: dict[str, Any] = {"max_epochs": 2, "weight_decay": 1.0, "conditional_weight": 0.0, **QUICK}
    cama = build(graph("row"), hidden=8, device="cpu")
    rows = Hospital("north").measure(CLINIC[:60], seed=0)
    before = {name: p.clone() for name, p in cama.manipulation_parameters().items()}
    cama.fit(rows, **options)
    assert all(torch.equal(p, before[name]) for name, p in cama.manipulation_parameters().items())
    cama.fit(rows, rows, **options)  # manipulated rows train them
    assert not any(torch.equal(p, before[name]) for name, p in cama.manipulation_parameters().items())


def test_a_row_without_probabilities_spoils_no_other_and_has_no_label() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 2, 60)
    rows = pd.DataFrame({"y": np.array(["a", "b"])[codes], "x": generator.normal(size=60) + 4.0 * codes})
    spec = {
        "target": "y",
        "nodes": {"y": {"type": "binary", "levels": ["a", "b"]}, "x": "continuous"},
        "edges": ["y -> x"],
    }
    cama = build(spec, hidden=8, device="cpu").fit(rows, max_epochs=60, lr=1e-2, progress=False)
    odd = rows.assign(x=rows["x"].where(np.arange(60) != 3, 1e30))
    for prior in ("train", "estimate"):
        told = np.isfinite(cama.predict_proba(odd, class_prior=prior)).all(1)
        assert np.flatnonzero(~told).tolist() == [3]
        labels = cama.predict(odd, class_prior=prior)
        assert labels[3] is None
        assert labels[told].tolist() == cama.predict(rows, class_prior=prior)[told].tolist()
        right = labels == rows["y"].to_numpy()
        assert cama.score(odd, class_prior=prior) == pytest.approx(right.mean())
        assert right.mean() > 0.9
    nothing = cama.predict_proba(odd[3:4], class_prior="estimate")
    assert np.isnan(nothing).all()
