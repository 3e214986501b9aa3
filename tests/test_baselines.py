"""The experiments' drifts and baselines (examples/support)."""

import numpy as np
import pandas as pd
import pytest
import torch

from support.baselines import DiscriminativeNet, boosting, logistic
from support.drift import DRIFTS, Drift, cross_fit, load_table, split

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
