"""Small graphs and models of images, and digits that are shifted."""

import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Node
from pyro_cama.image_manipulations.kinds import manipulate
from pyro_cama.likelihoods import MIN_PROBABILITY
from pyro_cama.mechanisms.image import ImageMechanism
from tests.helpers.networks import networks
from tests.helpers.random_graphs import rows_of, small

QUICK: dict[str, Any] = {"progress": False}
TARGET: dict[str, Any] = {"type": "categorical", "levels": ["p", "q", "r"]}
BERNOULLI: dict[str, Any] = {"type": "image", "shape": [1, 6, 6], "channels": 4}
NORMAL: dict[str, Any] = {"type": "image", "shape": [3, 5, 7], "channels": 4, "likelihood": "normal"}
Spec = dict[str, Any]


def spec(nodes: Spec, edges: list[str], m: Spec | None = None, **keys: Any) -> Spec:
    latents = {"z": {"dim": 2}, "m": None if keys.get("still") else {"dim": 2, **(m or {})}}
    return {"target": "y", "nodes": {"y": TARGET, **nodes}, "edges": edges, "latents": latents}


ROLES: dict[str, tuple[Spec, list[str], Spec]] = {
    "child": ({"i": BERNOULLI}, ["y -> i"], {}),
    "normal child": ({"i": NORMAL}, ["y -> i"], {"mechanism": "warp+intensity"}),
    "field": ({"i": BERNOULLI}, ["y -> i"], {"mechanism": "field"}),
    "concat": ({"i": BERNOULLI, "x": "count"}, ["y -> i", "y -> x"], {"mechanism": {"i": "concat"}}),
    "beside a co-parent": ({"i": NORMAL, "c": "continuous"}, ["y -> i", "c -> i"], {}),
    "among others": (
        {"i": BERNOULLI, "j": NORMAL, "x": "continuous", "k": {"type": "categorical", "levels": ["u", "v"]}},
        ["y -> i", "y -> j", "y -> x", "y -> k"],
        {"mechanism": {"j": "intensity"}},
    ),
    "co-parent": ({"i": BERNOULLI, "x": "continuous"}, ["y -> x", "i -> x"], {}),
    "parent": ({"i": NORMAL, "j": BERNOULLI}, ["i -> y", "y -> j", "i -> j"], {}),
    "cause": ({"i": BERNOULLI, "x": "continuous"}, ["y -> i -> x", "y -> x"], {"affects": "quantity"}),
    "measured cause": ({"i": BERNOULLI, "x": "continuous"}, ["y -> i -> x", "y -> x"], {"affects": "measurement"}),
}


def model(role: str, scope: str = "row", **options: Any) -> CAMA:
    nodes, edges, m = ROLES[role]
    return small(spec(nodes, edges, {"scope": scope, **m}), **{"hidden": 8, **options})


def rows(cama: CAMA, n: int, *missing: str) -> Batch:
    """Rows of the model with images of all greys; of the named nodes some entries are missing."""
    batch = rows_of(cama, n)
    values = {name: torch.rand_like(v) if v.dim() > 2 else v for name, v in batch.values.items()}
    return Batch(values, {name: torch.arange(n) % 3 > 0 for name in missing}, None, n)


def shaken(cama: CAMA, by: float = 0.2) -> CAMA:
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(by * torch.randn(parameter.shape))
    return cama


class Pixels(nn.Module):
    """A decoder that is the identity: one feature a pixel."""

    def __init__(self, node: Node, numbers: int) -> None:
        super().__init__()
        assert node.shape is not None
        self.shape, self.inputs = node.shape, math.prod(node.shape)

    def forward(self, features: Tensor) -> Tensor:
        return features.reshape(-1, *self.shape)


def tiny(mechanism: str) -> CAMA:
    """Images of 2 x 3 pixels, linear in y and z, with broad posteriors of z and m; every parameter random."""
    image = {"type": "image", "shape": [1, 2, 3]}
    raw = spec({"i": image}, ["y -> i"], {"dim": 1, "mechanism": mechanism})
    raw["latents"]["z"]["dim"] = 1
    cama = build(raw, layers=0, hidden=4, decoders={"i": Pixels}, device="cpu")
    broad = math.log(math.expm1(1.3))
    with torch.no_grad():
        networks(cama.model)["merges"][0].bias.copy_(torch.tensor([0.4, 0.0, -0.3]))
        last_of(cama).weight.mul_(1.5)
        encoder, q = networks(cama.guide)["encoder"], cama.guide.m_posterior
        for source in encoder.projections:
            encoder.projections[source].weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, broad]))
        q.network[-1].weight.zero_()
        q.network[-1].bias.copy_(torch.tensor([0.0, broad]))
    return cama


def last_of(cama: CAMA) -> Any:
    """NN_pM, which is one linear map here."""
    return cama.manipulation.network[-1]


def joint(cama: CAMA, images: Tensor, do: float | None, power: float = 1.0) -> Tensor:
    """log p(x, y) of every class, ``(classes, rows)``, summed over a grid of z and m; p(x | y, z, m) to a power."""
    (group,) = (group for group in cama.model.groups if group.image)
    assert isinstance(group.mechanism, ImageMechanism)
    merge = networks(cama.model)["merges"][cama.model.groups.index(group)]
    grid = torch.linspace(-6, 6, 121)
    weight = torch.softmax(-0.5 * grid.square(), 0).log()
    at, of_m = (grid, weight) if do is None else (torch.tensor([do]), torch.zeros(1))
    with torch.no_grad():
        by_y, by_z = merge.projections["y"].weight, merge.projections["z"].weight[:, 0]
        logits = merge.bias + by_y.T[:, None] + grid[:, None] * by_z  # (classes, z, pixels)
        p = (MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * torch.sigmoid(logits)).unflatten(-1, (1, 2, 3))
        theta = at[:, None, None, None] * last_of(cama).weight[:, 0]
        p = group.mechanism.push(p, theta).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)[..., None, :, :, :]
        each = power * (images * p.log() + (1 - images) * (1 - p).log()).sum((-3, -2, -1))  # (m, classes, z, rows)
        prior = torch.log_softmax(networks(cama.model)["merges"][0].bias, 0)
        return torch.logsumexp(each + of_m[:, None, None, None] + weight[:, None], (0, 2)) + prior[:, None]


def table(n: int = 12, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    images = rng.random((n, 1, 6, 6), dtype=np.float32)
    images[..., :3] *= (1 - y / 3)[:, None, None, None]
    return {"y": np.array(["p", "q", "r"])[y], "i": images.astype(np.float32), "x": y + rng.normal(0, 1, n)}


def fitted(role: str = "cause", scope: str = "row") -> CAMA:
    return model(role, scope, device="cpu").fit(table(), max_epochs=0, **QUICK)


def images_of(frame: pd.DataFrame) -> Any:
    return np.stack(list(frame["i"]))


def state(cama: CAMA) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cama.modules.state_dict().items()}


@functools.cache
def digits() -> tuple[CAMA, dict[str, Any], dict[str, Any]]:
    """A model of scikit-learn's digits that knows vertical shifts; held-out rows, clean and shifted."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, y = (bunch.images[:, None] / 16).astype(np.float32), bunch.target
    order = np.random.default_rng(0).permutation(len(y))
    train, held = order[:400], order[-200:]
    node = {"type": "image", "shape": [1, 8, 8], "channels": 4}
    raw: Spec = {
        "target": "y",
        "nodes": {"y": {"type": "categorical", "levels": list(range(10))}, "i": node},
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 4}, "m": {"dim": 3}},
    }
    cama = build(raw, hidden=16, layers=1, device="cpu").fit(
        {"i": images[train], "y": y[train]},
        interventions={"i": {"vertical_shift": 0.25}},
        max_epochs=8, lr=2e-2, batch_size=16, validation=0.0, conditional_share=1.0, **QUICK,
    )  # fmt: skip
    shifted = manipulate(torch.from_numpy(images[held]), "vertical_shift", 0.25, seed=0).numpy()
    return cama, {"i": images[held], "y": y[held]}, {"i": shifted, "y": y[held]}
