"""The sleep phase: q(m | x) learns to read manipulations of known size, and NN_pM takes the new rows' width."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.adaptation.initialisation import initialise_start
from pyro_cama.adaptation.wake_sleep import (
    LEAST,
    PACE,
    Reading,
    _begin_at_reading,
    _restored,
    begin_at,
    epochs_of,
    sleep,
)
from pyro_cama.data.batch import Batch
from pyro_cama.image_manipulations.kinds import manipulate
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.inference.generation import ancestral_sample
from tests.helpers.patches import module_at

QUICK: dict[str, Any] = {"progress": False}
Spec = dict[str, Any]


def spec(mechanism: str, dim: int = 8, **m: Any) -> Spec:
    return {
        "target": "y",
        "nodes": {
            "y": {"type": "categorical", "levels": list(range(10))},
            "i": {"type": "image", "shape": [1, 8, 8], "channels": 8},
        },
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 4}, "m": {"dim": dim, "mechanism": mechanism, **m}},
    }


@functools.cache
def images() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    return torch.from_numpy(bunch.images[order, None] / 16).float(), torch.from_numpy(bunch.target[order])


def table(rows: slice, **moved: Any) -> Spec:
    """Some of the digits, moved by ``kind=severity``."""
    x, y = (part[rows] for part in images())
    for kind, severity in moved.items():
        x = manipulate(x, kind, severity, seed=1)
    return {"i": x.numpy(), "y": y.numpy()}


CLEAN, NEW, TEST = slice(0, 800), slice(800, 1200), slice(1200, 1700)


@functools.cache
def fitted(mechanism: str = "warp+intensity", scope: str = "row") -> CAMA:
    """A model that has seen clean digits alone."""
    cama = build(spec(mechanism, scope=scope), hidden=32, layers=1, device="cpu")
    options: dict[str, Any] = {"max_epochs": 12, "lr": 1e-2, "batch_size": 32, "validation": 0.0}
    return cama.fit(table(CLEAN), conditional_share=1.0, **options, **QUICK)


def state(cama: CAMA) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cama.modules.state_dict().items()}


@pytest.mark.parametrize(
    ("raw", "able"),
    [
        (spec("warp"), True),
        (spec("warp", 6), True),
        (spec("warp", 5), False),  # fewer directions than numbers
        (spec("warp+intensity"), True),
        (spec("field"), False),
        (spec("concat"), False),
        (spec("warp", scope="dataset"), False),
        (spec("warp") | {"latents": {"z": {"dim": 2}, "m": None}}, False),
        (spec("warp") | {"nodes": spec("warp")["nodes"] | {"x": "continuous"}, "edges": ["y -> i", "y -> x"]}, False),
    ],
)
def test_what_can_sleep(raw: Spec, able: bool) -> None:
    raw["latents"]["m"] = raw["latents"]["m"] and dict(raw["latents"]["m"])
    if "x" in raw["nodes"]:
        raw["latents"]["m"].pop("mechanism")
    cama = build(raw, hidden=8, device="cpu")
    assert (cama.graph.m is not None and cama.manipulation.can_sleep) == able


def asleep(new: Spec, clean: Spec | None, steps: int = 100) -> CAMA:
    copy = fitted().copy()
    rows = copy.encode({"i": new["i"]})
    sleep(copy, rows, None if clean is None else copy.encode(clean), steps, seed=0, progress=False)
    return copy


@pytest.mark.parametrize("clean", [table(CLEAN), None], ids=["clean rows", "imagined rows"])
def test_manipulations_are_read_and_take_the_width_of_the_new_rows(clean: Spec | None) -> None:
    """Rows that are brighter and move to the side, by how much varies: what varies is wide, all else narrow."""
    copy = asleep(table(NEW, horizontal_shift=0.3, brightness=0.4), clean)
    manipulation = copy.manipulation
    with torch.no_grad():
        theta = manipulation(torch.randn(2000, 8)) / manipulation.prior_scale()
        widths = theta.square().mean(0).sqrt()
    assert widths[0] > 1.5 * widths[1]  # right, and not down
    assert widths[0] > 0.6  # of 0.3 * 2 / sqrt(3) / 0.2 = 1.7
    assert widths[7] > 0.6  # the offset
    assert widths.min() > 0.5 * LEAST

    amounts = torch.linspace(-0.3, 0.3, 500)
    x = manipulate(images()[0][TEST], "horizontal_shift", amount=amounts)
    with torch.no_grad():
        found = manipulation(copy.guide.m_dist(copy.encode({"i": x.numpy()})).mean)[:, 0]
    assert torch.corrcoef(torch.stack([amounts, found]))[0, 1] > 0.8


@pytest.mark.parametrize("clean", [table(CLEAN), None], ids=["clean rows", "imagined rows"])
@pytest.mark.parametrize(("moved", "known"), [({"horizontal_shift": 0.3}, True), ({"gaussian_noise": 0.4}, False)])
def test_steps_are_small_where_what_was_read_explains_the_rows(moved: Spec, known: bool, clean: Spec | None) -> None:
    copy = fitted("warp").copy()
    rows = copy.encode({"i": table(NEW, **moved)["i"]})
    start = sleep(copy, rows, None if clean is None else copy.encode(clean), 100, seed=0, progress=False)
    assert start.pace == (PACE if known else 1.0)
    assert (start.restored > 0.5) == known


@pytest.mark.parametrize(
    ("moved", "starts"),
    [({"horizontal_shift": 0.3}, ["sleep, warp alone"]), ({"inversion": 1.0}, ["moments"]), ({"stripe": 1.0}, None)],
)
def test_the_start_that_explains_the_rows_best_takes_steps_alone(
    moved: Spec, starts: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of negatives a sleep restores much too, of the wrong theta: what counts is the best of all starts."""
    titles: list[str] = []
    optimise = module_at("adaptation.drawn").optimise

    def told(stages: Any, *args: Any, **kwargs: Any) -> Any:
        titles.extend(stage.title for stage in stages)
        return optimise(stages, *args, **kwargs)

    monkeypatch.setattr(module_at("adaptation.drawn"), "optimise", told)
    fitted().adapt({"i": table(NEW, **moved)["i"]}, table(CLEAN), steps=10, **QUICK)
    assert len(titles) == (3 if starts is None else 1)
    assert starts is None or titles == [f"adapt, start 1 of 1 ({starts[0]})"]


def test_rows_that_lost_no_evidence_have_none_restored() -> None:
    """Then any gain would be a share beyond all bounds."""
    rows = fitted("warp").encode(table(slice(0, 100)))
    assert _restored(fitted("warp"), rows, rows) == 0.0


@pytest.mark.parametrize("clean", [table(CLEAN), None], ids=["clean rows", "imagined rows"])
def test_a_theta_that_all_new_rows_may_share_is_theirs_and_not_that_of_clean_ones(clean: Spec | None) -> None:
    """A negative: gain -1, offset 1."""
    copy, negatives = fitted().copy(), {"i": 1 - table(NEW)["i"]}
    theta = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0, 1.0])
    rows = copy.encode(negatives)
    start = begin_at(copy, rows, None if clean is None else copy.encode(clean), theta, theta == 0, seed=0)
    assert start.pace < 1
    with torch.no_grad():
        new, old = (
            copy.manipulation(copy.guide.m_dist(copy.encode({"i": x})).mean) for x in (negatives["i"], table(TEST)["i"])
        )
    assert (new - theta).abs().mean() < 0.05
    assert old.abs().mean() < 0.05
    assert torch.equal(new[:, theta == 0], torch.zeros(len(new), 6))
    with torch.no_grad(), copy.seeded(0):  # m is free where it moves nothing, so its draws say what its mean does
        q = copy.guide.m_dist(copy.encode({"i": negatives["i"]}))
        drawn = copy.manipulation(q.rsample())
    assert q.stddev.max() > 0.5
    assert (drawn - new)[:, theta != 0].std(0).max() < 0.1


def test_sleep_sees_no_labels_and_moves_nn_pm_and_nn_qm_alone() -> None:
    new, clean = table(NEW, rotation=30), table(CLEAN)
    before, first = state(fitted()), state(asleep(new, clean, steps=10))
    other = state(asleep(new, clean | {"y": clean["y"][::-1].copy()}, steps=10))
    assert all(torch.equal(value, other[name]) for name, value in first.items())
    moved = {name for name, value in first.items() if not torch.equal(value, before[name])}
    assert moved
    copy = fitted().copy()
    free = {id(parameter) for parameter in copy.manipulation_parameters().values()}
    assert moved <= {name for name, value in copy.modules.state_dict(keep_vars=True).items() if id(value) in free}


def test_q_m_begins_at_the_posterior_under_the_new_rows_widths() -> None:
    """Bayes' rule for normals, against the joint precision inverted by hand: float64, one number told, one not."""
    cama = build(spec("warp"), hidden=8, device="cpu")
    cama.modules.double()
    torch.manual_seed(0)
    images = {"i": torch.rand(3, 1, 8, 8, dtype=torch.float64)}
    rows, size = Batch(images, {}, None, 3), cama.manipulation.size
    axes = torch.randn(size, size, dtype=torch.float64)
    variances = torch.linspace(0.05, 0.399, size, dtype=torch.float64)
    read = cama.guide.recognised(rows).mean
    precision = 1 / variances - 1 / 0.4  # of the likelihood: the reading is of a prior of variance 0.4
    _begin_at_reading(cama, axes, Reading(torch.zeros(()), variances, precision))
    found = cama.guide.m_dist(rows)

    seen = read / variances / precision
    information = torch.eye(size, dtype=torch.float64)
    for i in range(size):
        information = information + precision[i] * torch.outer(axes[:, i], axes[:, i])
    mean = torch.stack([torch.linalg.solve(information, axes @ (precision * row)) for row in seen])
    assert torch.allclose(found.mean[:, :size], mean)
    sd = torch.linalg.inv(information).diagonal().sqrt()
    assert torch.allclose(found.stddev[:, :size], sd.expand(3, -1) + 1e-3)
    assert torch.equal(found.mean[:, size:], torch.zeros(3, 8 - size, dtype=torch.float64))


def test_one_start_sleeps_and_its_steps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    kwargs: dict[str, Any] = {"gradient_clip_val": 1.0}

    def nothing(stages: Any, *_: Any, trainer_kwargs: Any, **__: Any) -> None:
        assert trainer_kwargs == kwargs
        seen.extend((stage.title, stage.epochs) for stage in stages)

    monkeypatch.setattr(module_at("adaptation.drawn"), "optimise", nothing)
    monkeypatch.setattr(module_at("adaptation.wake_sleep"), "optimise", nothing)
    fitted().adapt({"i": table(NEW)["i"]}, steps=50, trainer_kwargs=kwargs, **QUICK)
    *asleep, moments, all_awake, alone = seen
    assert asleep == [("adapt, asleep", epochs_of(50))] * 2
    assert [moments, all_awake] == [("adapt, start 1 of 3 (moments)", 5), ("adapt, start 2 of 3 (sleep)", 5)]
    assert alone in [(f"adapt, start 3 of 3 (sleep, {name} alone)", 5) for name in ("warp", "intensity")]
    seen.clear()
    fitted().adapt({"i": table(NEW)["i"]}, steps=50, restarts=1, trainer_kwargs=kwargs, **QUICK)
    assert seen == [("adapt, start 1 of 1 (moments)", 5)]


@pytest.mark.parametrize("images", [True, False])
def test_images_do_not_insist_on_class_proportions(monkeypatch: pytest.MonkeyPatch, images: bool) -> None:
    """The evidence of a likelihood so far from the truth would believe any: scribbles turned half of the digits."""
    cama, rows = fitted("warp"), table(NEW)
    if not images:
        numbers = {"target": "y", "nodes": {"y": spec("warp")["nodes"]["y"], "x": "continuous"}, "edges": ["y -> x"]}
        rows = {"x": rows["y"] + np.linspace(0.0, 0.1, len(rows["y"])), "y": rows["y"]}
        cama = build(numbers, hidden=8, device="cpu").fit(rows, max_epochs=1, validation=0.0, **QUICK)
    ones = {name: column[rows["y"] == 1] for name, column in rows.items() if name != "y"}
    seen: dict[str, Any] = {}

    def verdict(*candidates: Any, insisted: bool, unmoved: bool, agree: float) -> tuple[bool, str, float]:
        seen.update(insisted=insisted)
        return False, "", 1.0

    def insists(best: Any, anchored: Any) -> bool:
        seen.update(anchored=anchored)
        return True

    monkeypatch.setattr(module_at("adaptation.adapt"), "insists", insists)
    monkeypatch.setattr(module_at("adaptation.drawn"), "optimise", lambda *_, **__: None)
    monkeypatch.setattr(module_at("adaptation.adapt"), "judge", verdict)
    monkeypatch.setattr(module_at("adaptation.adapt"), "proportion_tolerance", lambda rows: 0.0)
    cama.adapt(ones, steps=10, restarts=1, folds=1, **QUICK)
    assert seen["insisted"] is not images
    assert ("anchored" in seen) is not images


@pytest.mark.parametrize(
    ("scope", "kind", "severity"),
    [("row", "brightness", 0.5), ("row", "inversion", 1.0), ("dataset", "inversion", 1.0)],
)
def test_changed_greys_are_found(scope: str, kind: str, severity: float) -> None:
    """The negative is no gradient's to find; brighter digits are the model's own, however dim their contrast."""
    cama, new, test = fitted(scope=scope), table(NEW, **{kind: severity}), table(TEST, **{kind: severity})
    clean = cama.score(table(TEST))
    assert clean > 0.85
    before = cama.score(test)
    adapted = cama.adapt({"i": new["i"]}, table(CLEAN), restarts=1, **QUICK)
    assert adapted.adaptation.accepted, adapted.adaptation.reason
    assert adapted.adaptation.start == "moments"
    assert adapted.adaptation.recovery > 0.9
    gain = 1 + adapted.adaptation.theta[0][6]
    assert gain < 0 if kind == "inversion" else gain > 0
    assert before < clean - 0.05
    assert adapted.score(test) > max(before + 0.02, clean - 0.1)


def test_turns_are_found_asleep() -> None:
    cama, new, test = fitted("warp"), table(NEW, rotation=60), table(TEST, rotation=60)
    adapted = cama.adapt({"i": new["i"]}, table(CLEAN), **QUICK)
    assert adapted.adaptation.start == "sleep"
    assert adapted.score(test) > cama.score(test) + 0.05


def test_an_adapted_model_begins_where_it_is() -> None:
    copy = fitted().copy()
    copy.trained = frozenset(copy.moving)
    before = state(copy)
    rows = copy.encode({"i": table(NEW)["i"]})
    assert initialise_start(copy, rows, None, 0, 10).name == "here"
    assert all(torch.equal(value, before[name]) for name, value in state(copy).items())


def test_imagined_rows_are_grey_and_have_every_node() -> None:
    cama = fitted()
    with cama.seeded(0):
        rows = ancestral_sample(cama, encode_do(cama, clean_do(cama.graph)), 50)
    assert {name: tuple(value.shape) for name, value in rows.values.items()} == {"y": (50,), "i": (50, 1, 8, 8)}
    x = rows.values["i"]
    assert ((x > 0.1) & (x < 0.9)).float().mean() > 0.2
    assert len({*rows.values["y"].tolist()}) > 5
    drawn = np.stack(list(cama.sample(50)["i"]))  # the model's own draws are black and white
    assert {*np.unique(drawn)} == {0.0, 1.0}


def test_shifts_to_both_sides_are_told_though_their_mean_is_none() -> None:
    new = table(NEW)["i"]
    both = np.where((np.arange(len(new)) % 2 == 0)[:, None, None, None], np.roll(new, 2, -1), np.roll(new, -2, -1))
    found = fitted("warp").adapt({"i": both}, table(CLEAN), keep="always", steps=50, **QUICK).explain_shift()
    right = found.parameters.set_index("parameter").loc["right"]
    assert abs(right["estimate"]) < 0.7
    assert right["rows_low"] < -1.2
    assert right["rows_high"] > 1.2
    (row,) = found.table.to_dict("records")
    assert row["change"] > 1.0
    assert f"right {right['estimate']:.3g} in the mean (rows {right['rows_low']:.3g} to " in row["reading"]


def test_a_model_of_this_world_has_restored_its_rows() -> None:
    new = {"i": table(NEW, horizontal_shift=0.3)["i"]}
    adapted = fitted("warp").adapt(new, table(CLEAN), steps=20, keep="always", **QUICK)
    start = initialise_start(adapted, adapted.encode(new), adapted.encode(table(CLEAN)), 0, 10)
    assert start.name == "here"
    assert start.restored > 0.5
