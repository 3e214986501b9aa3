"""The experiments' tables, what happens to them, and the baselines (experiments/support)."""

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import real_tables
import torch

from pyro_cama import CausalGraph, datasets
from support import tables
from support.baselines import (
    CORAL,
    CVAE,
    IRM,
    Classifier,
    DiscriminativeNet,
    boosting,
    coral_penalty,
    irm_penalty,
    logistic,
    without_m,
)
from support.drift import (
    CASES,
    CASES_OF,
    DRIFTS,
    Case,
    Dead,
    Drift,
    Gain,
    Noise,
    Swapped,
    Unit,
    cross_fit,
    graph_of,
    load_table,
    split,
)
from support.experiment import line_of

Wine = tuple[pd.DataFrame, pd.DataFrame, str, list[str]]


@pytest.fixture(scope="module")
def wine() -> Wine:
    table, target = load_table("wine")
    train, test = split(table, target, seed=0)
    return train, test, target, [name for name in table.columns if name != target]


@pytest.fixture(scope="module")
def net(wine: Wine) -> DiscriminativeNet:
    train, _, target, _ = wine
    return DiscriminativeNet(max_epochs=30).fit(train, target)


@pytest.mark.parametrize(
    ("name", "rows", "levels"),
    [
        ("breast_cancer", (285, 284), {"benign", "malignant"}),
        ("wine", (89, 89), {"class_0", "class_1", "class_2"}),
        ("digits", (899, 898), set("0123456789")),
        ("anes96", (472, 472), {"Clinton", "Dole"}),
    ],
)
def test_split_keeps_every_row_and_the_classes_shares(name: str, rows: tuple[int, int], levels: set[str]) -> None:
    table, target = load_table(name)
    train, test = split(table, target, seed=0)
    assert (len(train), len(test)) == rows
    assert set(table[target]) == levels
    both = pd.concat([train, test])
    assert sorted(map(tuple, both.to_numpy())) == sorted(map(tuple, table.to_numpy()))
    assert all(abs((train[target] == y).mean() - (test[target] == y).mean()) < 0.02 for y in levels)


@pytest.mark.parametrize("drift", DRIFTS, ids=str)
def test_drift_moves_the_chosen_columns_only_and_by_its_size(drift: Drift, wine: Wine) -> None:
    train, test, target, columns = wine
    before = test.copy()
    drifted, moved = drift.apply(test, train, columns, seed=3)
    assert len(moved) == len(set(moved)) == int(np.ceil(drift.fraction * 13))
    for name in moved:
        sd = np.std(train[name].to_numpy())
        np.testing.assert_allclose(drifted[name] - test[name], drift.size_sd * sd, rtol=1e-9)
    still = [name for name in test if name not in moved]
    pd.testing.assert_frame_equal(drifted[still], test[still])
    assert target in still
    pd.testing.assert_frame_equal(test, before)
    assert drift.apply(test, train, columns, seed=3)[1] == moved


def test_a_fraction_that_floating_point_rounds_up() -> None:
    frame = pd.DataFrame(np.eye(35), columns=[f"x{i}" for i in range(35)])
    assert len(Drift(1.0, 0.2).apply(frame, frame, list(frame.columns), seed=0)[1]) == 7


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Gain(0.5, 0.2), lambda x, train: 0.5 * x),
        (Unit(2.54, 1.0), lambda x, train: 2.54 * x),
        (Swapped(0.0), lambda x, train: train.min() + train.max() - x),
        (Dead(0.0), lambda x, train: np.nan * x),
    ],
    ids=["gain", "unit", "swapped scale", "dead"],
)
def test_what_a_case_does_to_a_reading(case: Case, expected: Callable[..., pd.Series], wine: Wine) -> None:
    train, test, _, columns = wine
    after, moved = case.apply(test, train, columns, seed=3)
    assert len(moved) == max(1, int(np.ceil(case.fraction * 13)))
    for name in moved:
        np.testing.assert_allclose(after[name], expected(test[name], train[name]))
    pd.testing.assert_frame_equal(after.drop(columns=moved), test.drop(columns=moved))


def test_noise_is_of_its_size_another_for_every_column_and_repeats(wine: Wine) -> None:
    train, _, _, columns = wine
    many = pd.concat([train] * 30, ignore_index=True)
    after, moved = Noise(0.5, 0.2).apply(many, train, columns, seed=3)
    added = (after[moved] - many[moved]) / train[moved].std(ddof=0)
    np.testing.assert_allclose(added.std(), 0.5, rtol=0.05)
    np.testing.assert_allclose(added.corr() - np.eye(len(moved)), 0, atol=0.1)
    pd.testing.assert_frame_equal(Noise(0.5, 0.2).apply(many, train, columns, seed=3)[0], after)


@pytest.mark.parametrize("name", datasets.TABLES)
def test_cases_of_a_table_move_its_children_and_differ(name: str) -> None:
    table, target = load_table(name)
    graph = datasets.graph(name)
    assert set(graph.order) == set(table.columns)
    assert graph.target == target
    assert graph.m is not None
    assert graph.m.scope == "dataset"
    children = list(graph.blanket.children)
    results = [case.apply(table, table, children, seed=0)[0] for case in CASES_OF[name]]
    assert len({str(case) for case in CASES_OF[name]}) == len(results)
    for i, one in enumerate(results):
        assert not any(one.equals(other) for other in results[:i]), CASES_OF[name][i]


def test_there_are_forty_cases_of_every_kind() -> None:
    assert sum(map(len, CASES_OF.values())) >= 40
    for kind in {case.kind for case in CASES}:
        assert sum(kind in {case.kind for case in cases} for cases in CASES_OF.values()) >= 3, kind


def test_cross_fit_scores_every_row_once_and_never_one_it_adapted_on() -> None:
    frame = pd.DataFrame({"row": np.arange(11)})
    pairs = cross_fit(frame, seed=0)
    assert all(set(adapt["row"]).isdisjoint(score["row"]) for adapt, score in pairs)
    assert sorted(row for _, score in pairs for row in score["row"]) == list(range(11))


def test_all_learn(wine: Wine, net: DiscriminativeNet) -> None:
    train, test, target, _ = wine
    for model in (net, boosting().fit(train, target), logistic().fit(train, target)):
        assert model.accuracy(test) > 0.93
        np.testing.assert_allclose(model.predict_proba(test).sum(1), 1, rtol=1e-5)


def mixed(rows: int, seed: int) -> pd.DataFrame:
    """Two classes, seen in a number and in a colour."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    size = 1.5 * (2 * y - 1) + rng.normal(size=rows)
    colour = np.where(rng.random(rows) < 0.85, y, rng.integers(0, 3, rows))
    frame = pd.DataFrame(
        {"size": size, "colour": np.array(["red", "green", "blue"])[colour], "noise": rng.random(rows)}
    )
    return frame.assign(ill=np.where(y == 1, "yes", "no"))


MIXED = {
    "target": "ill",
    "nodes": {
        "ill": {"type": "categorical", "levels": ["no", "yes"]},
        "size": "continuous",
        "noise": "continuous",
        "colour": {"type": "categorical", "levels": ["red", "green", "blue"]},
    },
    "edges": ["ill -> size", "ill -> colour", "ill -> noise"],
    "latents": {"z": {"dim": 2}, "drift": {"dim": 2, "manipulation": True, "scope": "dataset"}, "m": None},
}
MAKE: dict[str, Callable[[], Classifier]] = {
    "net": lambda: DiscriminativeNet(max_epochs=20),
    "logistic": logistic,
    "boosting": boosting,
    "cvae": lambda: CVAE(MIXED, max_epochs=40),
}


@pytest.mark.parametrize("method", MAKE)
def test_mixed_columns_and_missing_values(method: str) -> None:
    train, test = mixed(400, 0), mixed(400, 1)
    rng = np.random.default_rng(2)
    for name in ("size", "colour"):
        train[name] = train[name].where(rng.random(400) > 0.1)
    model = MAKE[method]().fit(train, "ill")
    assert model.accuracy(test) > 0.9
    for dead, least in (("size", 0.75), ("colour", 0.85), ("noise", 0.9)):
        assert model.accuracy(test.assign(**{dead: np.nan})) > least, dead
    if method != "cvae":  # CAMA refuses levels that its graph has not
        unknown = model.predict_proba(test.assign(colour="pink"))
        assert np.isfinite(unknown).all()


def test_net_adapts_with_a_dead_sensor_and_a_constant_one() -> None:
    train, test = mixed(300, 0), mixed(300, 1)
    net = DiscriminativeNet(max_epochs=20).fit(train, "ill")
    after = test.assign(noise=np.nan, colour="red").drop(columns="ill")
    for adapt in (net.adapt_norm, net.adapt_tent, net.adapt_shot_im, net.adapt_coral):
        adapted = adapt(after)
        assert adapted.accuracy(after.assign(ill=test["ill"])) > 0.7, adapt.__name__
        assert np.isfinite(adapted.predict_proba(test)).all()


def test_logits_are_those_of_the_prediction_and_differentiable(wine: Wine, net: DiscriminativeNet) -> None:
    _, test, _, _ = wine
    x = net.encode(test).requires_grad_()
    logits = net.logits(x)
    np.testing.assert_allclose(logits.softmax(1).detach(), net.predict_proba(test), rtol=1e-5)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_many_rows_are_tuned_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscriminativeNet, "TUNING_ROWS", 100)
    monkeypatch.setattr(DiscriminativeNet, "TUNING_STEPS", 10)
    train = mixed(500, 0)
    train.loc[0, "ill"] = "perhaps"  # a class of one row
    net = DiscriminativeNet().fit(train, "ill")
    assert net.tuned["epochs"] <= 7
    assert list(net.labels) == ["no", "perhaps", "yes"]
    assert net.accuracy(mixed(400, 1)) > 0.85


def test_the_net_repeats_and_leaves_torch_s_own_seed_alone(wine: Wine, net: DiscriminativeNet) -> None:
    train, test, target, _ = wine
    state = torch.get_rng_state()
    again = DiscriminativeNet(max_epochs=30).fit(train, target)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.tuned == net.tuned
    np.testing.assert_array_equal(again.predict_proba(test), net.predict_proba(test))


def test_shot_im_moves_the_features_and_not_the_head(wine: Wine, net: DiscriminativeNet) -> None:
    _, test, _, _ = wine
    source = {name: value.clone() for name, value in net.nets.state_dict().items()}
    adapted = net.adapt_shot_im(test, steps=5).nets.state_dict()
    for name, value in net.nets.state_dict().items():
        assert torch.equal(value, source[name]), "the source net is untouched"
        assert torch.equal(adapted[name], value) == name.startswith("head"), name


def test_tent_moves_the_standardisation_only(wine: Wine, net: DiscriminativeNet) -> None:
    train, test, _, columns = wine
    drifted, _ = Drift(2.0, 1.0).apply(test, train, columns, seed=0)
    adapted = net.adapt_tent(drifted)
    assert not torch.equal(adapted.mean, net.mean)
    assert all(torch.equal(a, b) for a, b in zip(adapted.nets.parameters(), net.nets.parameters(), strict=True))
    assert net.accuracy(drifted) < 0.8 < adapted.accuracy(drifted)
    # an offset that all rows share vanishes with their own mean
    np.testing.assert_allclose(
        net.adapt_norm(drifted).predict_proba(drifted), net.adapt_norm(test).predict_proba(test), atol=1e-5
    )


def test_coral_undoes_a_drift(wine: Wine, net: DiscriminativeNet) -> None:
    train, test, target, columns = wine
    drifted, _ = Drift(2.0, 1.0).apply(test, train, columns, seed=0)
    assert net.accuracy(drifted) < 0.8 < net.adapt_coral(drifted.drop(columns=target)).accuracy(drifted)


def test_penalties_by_hand() -> None:
    logits, y = torch.tensor([[0.3, -0.1], [1.0, 0.2], [0.0, 2.0], [0.5, 0.5]]), torch.tensor([0, 1, 1, 0])
    factor, step = 1.0, 1e-3
    slopes = []
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        high, low = (torch.nn.functional.cross_entropy((factor + d) * logits[rows], y[rows]) for d in (step, -step))
        slopes.append((high - low) / (2 * step))
    assert irm_penalty(logits, y).item() == pytest.approx(float(slopes[0] * slopes[1]), abs=1e-3)
    a, b = torch.randn(20, 3), torch.randn(30, 3) + 1
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).mean() + ((np.cov(a.T) - np.cov(b.T)) ** 2).mean()
    assert float(coral_penalty([a, b])) == pytest.approx(float(by_hand), rel=1e-4)
    assert coral_penalty([a, a]) == coral_penalty([a]) == 0


@pytest.mark.parametrize("kind", [IRM, CORAL])
def test_several_environments(kind: type[IRM | CORAL]) -> None:
    frames = [mixed(150, seed) for seed in range(2)]
    model, again = (kind(max_epochs=8).fit_environments(frames, "ill") for _ in range(2))
    assert model.accuracy(mixed(400, 5)) > 0.85
    np.testing.assert_array_equal(again.predict_proba(frames[0]), model.predict_proba(frames[0]))


def test_irm_leans_less_on_what_changes_between_environments() -> None:
    def environment(seed: int, trap: float) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 600)
        agrees = {
            name: np.where(rng.random(600) < share, y, 1 - y) for name, share in (("cause", 0.75), ("trap", trap))
        }
        return pd.DataFrame({name: column + rng.normal(0, 0.3, 600) for name, column in agrees.items()}).assign(y=y)

    frames, other = [environment(seed, trap) for seed, trap in enumerate((0.9, 0.8))], environment(5, 0.1)
    net = DiscriminativeNet(max_epochs=15).fit(pd.concat(frames), "y")
    irm = IRM(max_epochs=15).fit_environments(frames, "y")
    assert irm.accuracy(other) > net.accuracy(other) + 0.1


def test_a_graph_without_m() -> None:
    for source in (MIXED, datasets.graph("wine"), datasets.graph("clinic"), without_m(MIXED)):
        before, after = CausalGraph(source), without_m(source)
        assert after.m is None
        assert (after.z, after.blanket, after.edges) == (before.z, before.blanket, before.edges)


def test_cvae_adapts_its_decoders_and_nothing_else(wine: Wine) -> None:
    train, test, target, columns = wine
    cvae = CVAE(datasets.graph("wine")).fit(train, target)
    drifted, _ = Drift(1.0, 0.5).apply(test, train, columns, seed=0)
    before, state = cvae.predict_proba(drifted), torch.get_rng_state()
    adapted = cvae.adapt(drifted.drop(columns=target))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(cvae.predict_proba(drifted), before)
    assert cvae.accuracy(test) > 0.9
    assert adapted.accuracy(drifted) > cvae.accuracy(drifted) + 0.05
    theirs = adapted.cama.modules.state_dict()
    moved = {name for name, value in cvae.cama.modules.state_dict().items() if not torch.equal(value, theirs[name])}
    assert moved, "the decoders of the thirteen children are one group, after the target's"
    assert all(name.startswith("0.networks.merges.1.") for name in moved)


def test_a_run_of_all_methods() -> None:
    rows = tables.run("wine", 0, name="test", cases=[Dead(0.0)], size="smoke")
    accuracies = [r for r in rows if r["metric"] == "accuracy"]
    found = {(line_of(r), r["tested_on"]) for r in accuracies}
    assert found == {(method, case) for method in tables.ALL for case in ("clean", "dead on 1 column")}
    assert len(found) == len(accuracies)
    assert all(0 <= r["value"] <= 1 for r in rows if r["metric"] in ("accuracy", "kept"))
    assert [json.loads(r["setting"]) == [] for r in rows if r["metric"] == "moved"] == [True, False]
    assert {r["value"] for r in rows if r["metric"] == "rows"} == {89}
    accuracy = {(line_of(r), r["severity"]): r["value"] for r in accuracies}
    assert accuracy["net", "dead sensor"] > 0.8


def test_methods_anew_take_the_place_of_theirs_beside_the_others() -> None:
    old = [
        {"method": method, "adapted_on": adapted, "trained_on": table, "seed": 0, "value": 0.5}
        for table in ("wine", "anes96")
        for method, adapted in (("net", ""), ("cama", ""), ("cama", "gain"))
    ]
    new = [{"method": "cama", "adapted_on": "", "trained_on": table, "seed": 0, "value": 0.9} for table in ("wine",)]
    rows = real_tables.merged(old, new)
    assert [row["value"] for row in rows if row["method"] == "cama" and not row["adapted_on"]] == [0.9]
    assert sum(row["method"] == "net" for row in rows) == 2
    assert sum(row["adapted_on"] == "gain" for row in rows) == 2


def test_the_cvae_is_as_deep_as_the_papers() -> None:
    assert CVAE(graph_of("wine")).cama.graph.to_dict()["latents"]["z"]["effect"] == "deep"
    assert CVAE(graph_of("child")).cama.graph.z is None
