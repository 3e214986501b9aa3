"""Steps and predictions on images, beside the same networks as plain PyTorch and the naive loop over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from measure import PLAIN, Row, agree, interleaved, over_floor, profiled, steps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_cama
from pyro_cama.adaptation.objective import adaptation_loss
from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.bounds import mean_bound
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import MIN_PROBABILITY
from pyro_cama.mechanisms.warp import Warp

LEVELS = list(range(10))
SIZES = {"side": 28, "channels": 32, "hidden": 256}
SMALL = {"side": 12, "channels": 4, "hidden": 16}


def model_of(side: int, channels: int, hidden: int, device: str = "cpu") -> CAMA:
    """The model of the graph "mnist" at a size, its encoding learned from noise."""
    graph: dict[str, Any] = {
        "target": "digit",
        "nodes": {
            "digit": {"type": "categorical", "levels": LEVELS},
            "image": {"type": "image", "shape": [1, side, side], "channels": channels},
        },
        "edges": ["digit -> image"],
        "latents": {"z": {"dim": 32}, "m": {"dim": 8, "mechanism": "warp"}},
    }
    cama = pyro_cama.build(graph, hidden=hidden, device=device)
    rows = {"digit": LEVELS * 10, "image": torch.rand(100, 1, side, side)}
    return cama.fit(rows, max_epochs=0, progress=False)


def batch_of(rows: int, side: int, device: str = "cpu") -> Batch:
    image = torch.rand(rows, 1, side, side, device=device)
    values = {"digit": torch.randint(10, (rows,), device=device), "image": image}
    return Batch(values=values, observed={}, site=None, rows=rows)


class Plain:
    """The log-weights by hand, with the model's own modules and its warp, but without Pyro and without our scorer."""

    def __init__(self, cama: CAMA) -> None:
        self.warp = Warp()
        self.model: Any = cama.model.networks
        self.guide: Any = cama.guide.networks

    def theta(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """theta of m drawn from q(m | x), and log p(m) - log q(m)."""
        q, network = self.guide["m"]["m"], self.model["manipulation"].network
        seen = torch.cat([x.new_zeros(len(x), 1), q.encoders["image"](x)], -1)
        loc, raw = q.network(seen).chunk(2, -1)
        m, ratio = draw(loc, F.softplus(raw) + 1e-3)
        return network(m) - network(x.new_zeros(1, 8)), ratio

    def __call__(self, x: Tensor, y: Tensor, *, infer: bool) -> Tensor:
        """One draw of the latents, ``(classes, rows)``.

        Args:
            y: one-hot, ``(classes or 1, rows or 1, 10)``.
            infer: draw m from q(m | x); else do(m=0), under which nothing moves.
        """
        theta, ratio = self.theta(x) if infer else (None, x.new_zeros(len(x)))
        clean = x if theta is None else self.warp.invert(x, theta, None)
        encoder = self.guide["encoder"]
        seen = encoder.bias + encoder.projections["image image"](self.guide["images"]["image"](clean))
        seen = seen + encoder.projections["missing flags"](x.new_zeros(len(x), 1)) + encoder.projections["target"](y)
        loc, raw = self.guide["z"](encoder.output(F.silu(seen))).chunk(2, -1)
        z, z_ratio = draw(loc, F.softplus(raw) + 1e-3)
        merge, features = self.model["merges"][1], self.model["features"].networks
        maps = merge.bias + merge.projections["digit"](features["digit"](y))
        maps = maps + merge.projections["z"](features["z"](z))
        lead = maps.shape[:-1]
        logits = self.model["decoders"]["image"](maps.flatten(0, -2)).reshape(*lead, *x.shape[1:])
        probs = MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * torch.sigmoid(logits)
        if theta is not None:
            probs = self.warp.push(probs, theta).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        log_p = (x * probs.log() + (1 - x) * (1 - probs).log()).sum((-1, -2, -3))
        prior = (F.log_softmax(self.model["merges"][0].bias, 0) * y).sum(-1)
        return log_p + prior + ratio + z_ratio


def draw(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised draw and log p - log q, p standard normal."""
    eps = torch.randn_like(loc)
    value = loc + scale * eps
    return value, (0.5 * eps.square() + scale.log() - 0.5 * value.square()).sum(-1)


def one_hot(batch: Batch) -> Tensor:
    return F.one_hot(batch.values["digit"], 10).float()


def _measured(
    losses: dict[str, Callable[[], Tensor]], moving: list[Tensor], name: str, goal: float, rounds: int, device: str
) -> list[Row]:
    with fast():
        agree(losses, draws=10, within=0.02)
        contenders = steps(losses, moving)
        times = interleaved(contenders, rounds, device=device)
        ours, bare = (
            f"{profiled(contenders[n])}; {over_floor(contenders[n], 5, device)}" for n in ("pyro_cama", PLAIN)
        )
    return [
        Row(f"{name}, plain PyTorch", 1e3 * times.median(PLAIN), "ms", profile=bare),
        times.ratio("pyro_cama", PLAIN, f"{name}, pyro_cama over plain PyTorch", goal=goal, profile=ours),
    ]


def training(quick: bool, device: str = "cpu") -> list[Row]:
    """Eq. 3 on 128 images."""
    sizes = SMALL if quick else SIZES
    cama = model_of(**sizes, device=device)
    plain, batch = Plain(cama), batch_of(128, sizes["side"], device)
    losses = {
        PLAIN: lambda: -plain(batch.values["image"], one_hot(batch), infer=False).mean(),
        "pyro_cama": lambda: -mean_bound(log_weights(cama.model, cama.guide, batch, do={"m": 0.0})).mean(),
    }
    moving: list[Tensor] = list(cama.modules.parameters())
    return _measured(losses, moving, "image training step", 1.05, 10 if quick else 60, device)


def adaptation(quick: bool, device: str = "cpu") -> list[Row]:
    """Eq. 8 on 32 new images under 10 classes, and 32 clean ones."""
    sizes, rows = SMALL if quick else SIZES, 32
    cama = model_of(**sizes, device=device)
    plain, classes = Plain(cama), torch.eye(10, device=device)[:, None]
    new, clean = (batch_of(rows, sizes["side"], device) for _ in range(2))
    nothing = torch.zeros(10, device=device)
    theirs = adaptation_loss(cama, new, clean, 0.5, 1, 0.0, nothing, nothing)

    def adapted() -> Tensor:
        marginal = torch.logsumexp(plain(new.values["image"], classes, infer=True), 0).mean()
        expected = torch.softmax(nothing, 0)  # ten imagined rows of the expected classes
        marginal = marginal + 10.0 / rows * (expected * torch.log_softmax(nothing, 0)).sum()
        part = clean.select(torch.randint(rows, (rows,), device=device))
        return -0.5 * (marginal + plain(part.values["image"], one_hot(part), infer=True).mean())

    cama.modules.requires_grad_(False)
    moving: list[Tensor] = [p.requires_grad_(True) for p in cama.manipulation_parameters().values()]
    losses = {PLAIN: adapted, "pyro_cama": lambda: theirs(new)}
    return _measured(losses, moving, "image adaptation step", 1.1, 10 if quick else 60, device)


# prediction -----------------------------------------------------------------------------------------------------------


def naive(plain: Plain, x: Tensor, samples: int) -> Tensor:
    """p(y | x) as the public reimplementations go about it: every class and every draw reads the images anew."""
    bounds = []
    for label in range(10):
        y = F.one_hot(torch.tensor([label], device=x.device), 10).float().expand(len(x), 10)
        bounds.append(torch.stack([plain(x, y, infer=True) for _ in range(samples)]).logsumexp(0))
    return torch.stack(bounds, 1).softmax(1)


def prediction(quick: bool, device: str = "cpu") -> list[Row]:
    """10 classes and 10 samples, m inferred, of 1, 16 and 128 images."""
    sizes = SMALL if quick else SIZES
    cama = model_of(**sizes, device=device)
    plain = Plain(cama)
    rows = []
    with fast(), torch.no_grad():
        for count, rounds in ((1, 20), (16, 10), (128, 4)):
            x = torch.rand(count, 1, sizes["side"], sizes["side"])
            table, x = {"image": x.numpy()}, x.to(device)

            def ours(table: dict[str, Any] = table) -> Any:
                return cama.predict_proba(table, do=None, samples=10)

            contenders = {"naive": lambda x=x: naive(plain, x, 10), "pyro_cama": ours}
            times = interleaved(contenders, 2 if quick else rounds, warm=1, device=device)
            name = f"image prediction, {count} image{'s' * (count > 1)}, naive loop over pyro_cama"
            goal = 10.0 if count == 1 else None
            about = profiled(ours, 0.5) + f"; {1e3 * times.median('pyro_cama') / count:.3g} ms an image"
            rows.append(times.ratio("naive", "pyro_cama", name, goal=goal, direction="max", profile=about))
    return rows


# memory ---------------------------------------------------------------------------------------------------------------

CLASSES, CHILDREN, DRAWS = 1000, 20, 16
CHUNK = 2**21  # numbers in the widest tensor of a prediction, see chunk_size


class Largest(TorchDispatchMode):
    """The most numbers that any operator inside returned in one tensor."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                held = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.numbers = max(self.numbers, held)
        return out


def memory(quick: bool) -> list[Row]:
    """The largest tensor of a prediction of 1,000 classes, and what it costs to take its rows one by one."""
    rows = 64 if quick else 1000
    names = [f"x{i}" for i in range(CHILDREN)]
    levels = [f"class {i}" for i in range(CLASSES)]
    nodes: dict[str, Any] = {"y": {"type": "categorical", "levels": levels}} | dict.fromkeys(names, "continuous")
    cama = pyro_cama.build({"target": "y", "nodes": nodes, "edges": [f"y -> {n}" for n in names]}, device="cpu")
    generator = torch.Generator().manual_seed(0)
    table: dict[str, Any] = {n: torch.randn(CLASSES, generator=generator).numpy() for n in names}
    cama.fit(table | {"y": levels}, max_epochs=0, progress=False)
    some = {n: column[:rows] for n, column in table.items()}
    with Largest() as found:
        whole = cama.predict_proba(some, samples=DRAWS)
    few = {n: column[:8] for n, column in table.items()}
    with mock.patch("pyro_cama.inference.class_posterior.chunk_size", return_value=1):
        alone = cama.predict_proba(few, samples=DRAWS)
    unchunked = DRAWS * CLASSES * rows * cama.settings.hidden
    name = f"prediction, {CLASSES} classes"
    about = f"{found.numbers * 4 / 2**20:.0f} MB; unchunked it would be {unchunked * 4 / 2**20:.0f} MB at {rows} rows"
    return [
        Row(f"{name}: largest tensor over the chunk's size", found.numbers / CHUNK, "x", 1.0, profile=about),
        Row(f"{name}: one row at a time against chunks, difference", float(abs(whole[:8] - alone).max()), "", 1e-6),
    ]
