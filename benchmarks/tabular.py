"""Steps on tables: plain PyTorch, the grouped scorer, Pyro's traces of it, Pyro's own ELBOs, a naive site a child."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from measure import PLAIN, Call, Row, agree, interleaved, over_floor, profiled, steps
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyro_cama
from pyro_cama.adaptation.objective import adaptation_loss
from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import intervene
from pyro_cama.inference.bounds import mean_bound
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import MIN_SCALE

GROUPED, TRACED, NAIVE = "grouped scorer", "Pyro's traces", "a naive site a child"
CLEAN = {"m": 0.0}


def model_of(children: int, hidden: int, classes: int = 2, device: str = "cpu") -> CAMA:
    names = [f"x{i}" for i in range(children)]
    levels = [f"class {i}" for i in range(classes)]
    nodes: dict[str, Any] = {"y": {"type": "categorical", "levels": levels}} | dict.fromkeys(names, "continuous")
    edges = [f"y -> {name}" for name in names]
    graph = {"target": "y", "nodes": nodes, "edges": edges, "latents": {"z": {"effect": "deep"}}}  # so that z is drawn
    return pyro_cama.build(graph, hidden=hidden, device=device)


def batch_of(cama: CAMA, rows: int) -> Batch:
    children = cama.graph.blanket.children
    x = torch.randn(rows, len(children), device=cama.device)
    y = torch.randint(cama.model.classes, (rows,), device=cama.device)
    return Batch(values={"y": y} | dict(zip(children, x.unbind(1), strict=True)), observed={}, site=None, rows=rows)


def plain(cama: CAMA, batch: Batch) -> Callable[[], Tensor]:
    """The negative ELBO of eq. 3 by hand, with the very same modules; the children come side by side."""
    children = cama.graph.blanket.children
    x, y = torch.stack([batch.values[name] for name in children], 1), batch.values["y"]
    missing = x.new_zeros(batch.rows, len(children))
    model: Any = cama.model.networks
    guide: Any = cama.guide.networks
    target, group = (model["merges"][i] for i in range(2))
    features, encoder = model["features"].networks, guide["encoder"].projections

    def loss() -> Tensor:
        one_hot = F.one_hot(y, cama.model.classes).float()
        seen = guide["encoder"].bias + encoder["values"](x) + encoder["missing flags"](missing)
        seen = seen + encoder["target"](one_hot)
        loc, raw = guide["z"](guide["encoder"].output(F.silu(seen))).chunk(2, -1)
        scale = F.softplus(raw) + 1e-3
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        log_q = (-0.5 * eps.square() - scale.log()).sum(-1)
        log_p = (-0.5 * z.square()).sum(-1)
        merged = group.bias + group.projections["y"](features["y"](one_hot)) + group.projections["z"](features["z"](z))
        mean = group.output(F.silu(merged))
        sd = F.softplus(model["constants"][1][:, 0]) + MIN_SCALE
        log_p = log_p + (-0.5 * ((x - mean) / sd).square() - sd.log()).sum(-1) - 0.9189 * len(children)
        log_p = log_p + F.log_softmax(target.bias, 0)[y]
        return -(log_p - log_q).mean()

    return loss


def scored(cama: CAMA, batch: Batch, trace: bool) -> Callable[[], Tensor]:
    return lambda: -mean_bound(log_weights(cama.model, cama.guide, batch, do=CLEAN, trace=trace)).mean()


def pyros(elbo: Any, cama: CAMA, batch: Batch) -> Callable[[], Tensor]:
    """One of Pyro's own losses of the generated pair, a row."""
    model, guide = intervene(cama.model, CLEAN), intervene(cama.guide, CLEAN)
    return lambda: elbo.differentiable_loss(model, guide, batch) / batch.rows


class NaiveModel(PyroModule):
    """What one writes first: a network and a site a child, networks found as attributes."""

    def __init__(self, children: int, hidden: int) -> None:
        super().__init__("naive_model")
        self.y = nn.Parameter(torch.zeros(2))
        self.means = nn.ModuleList(
            nn.Sequential(nn.Linear(8 + 2, hidden), nn.SiLU(), nn.Linear(hidden, 1)) for _ in range(children)
        )
        self.scales = nn.Parameter(torch.zeros(children))

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(8), x.new_ones(8)).to_event(1))
            y = pyro.sample("y", dist.Categorical(logits=self.y), obs=y)
            causes = torch.cat([z, F.one_hot(y, 2).float()], -1)
            for i, mean in enumerate(self.means):
                scale = F.softplus(self.scales[i]) + MIN_SCALE
                pyro.sample(f"x{i}", dist.Normal(mean(causes).squeeze(-1), scale), obs=x[:, i])


class NaiveGuide(PyroModule):
    def __init__(self, children: int, hidden: int) -> None:
        super().__init__("naive_guide")
        self.encoder = nn.Sequential(nn.Linear(children + 2, hidden), nn.SiLU(), nn.Linear(hidden, 16))

    def forward(self, x: Tensor, y: Tensor) -> None:
        loc, raw = self.encoder(torch.cat([x, F.one_hot(y, 2).float()], -1)).chunk(2, -1)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, F.softplus(raw) + 1e-3).to_event(1))


def naive(batch: Batch, hidden: int) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Its loss through Trace_ELBO, and its parameters; the networks are its own, so the value is another."""
    x = torch.stack([v for n, v in batch.values.items() if n != "y"], 1)
    model, guide = (kind(x.shape[1], hidden).to(x.device) for kind in (NaiveModel, NaiveGuide))
    elbo: Any = Trace_ELBO()
    parameters: list[Tensor] = [*model.parameters(), *guide.parameters()]

    def loss() -> Tensor:
        total: Tensor = elbo.differentiable_loss(model, guide, x, batch.values["y"])
        return total / len(x)

    return loss, parameters


def training(quick: bool, device: str = "cpu") -> list[Row]:
    """30 children, batch 128, hidden 64."""
    cama = model_of(30, 64, device=device)
    batch = batch_of(cama, 128)
    losses = {
        PLAIN: plain(cama, batch),
        GROUPED: scored(cama, batch, False),
        TRACED: scored(cama, batch, True),
        "Trace_ELBO": pyros(Trace_ELBO(), cama, batch),
        "TraceEnum_ELBO": pyros(TraceEnum_ELBO(max_plate_nesting=3), cama, batch),
    }
    with fast():
        agree(losses, draws=50, within=0.1)
        contenders = steps(losses, list(cama.modules.parameters()))
        loss, parameters = naive(batch, 64)
        contenders |= steps({NAIVE: loss}, parameters)
        times = interleaved(contenders, 40 if quick else 300, device=device)
        rows = [
            Row("tabular step, plain PyTorch", 1e3 * times.median(PLAIN), "ms", profile=profiled(contenders[PLAIN]))
        ]
        for name, goal in (
            (GROUPED, 1.3),
            (TRACED, 4.0),
            ("Trace_ELBO", None),
            ("TraceEnum_ELBO", None),
            (NAIVE, None),
        ):
            about = {"goal": goal, "profile": profiled(contenders[name], 0.5)}
            rows.append(times.ratio(name, PLAIN, f"tabular step, {name} over plain PyTorch", **about))
        floor = {name: over_floor(contenders[name], 30, device) for name in (PLAIN, GROUPED, TRACED)}
    return [_with_floor(row, floor) for row in rows]


def _with_floor(row: Row, floor: dict[str, str]) -> Row:
    name = next((n for n in (GROUPED, TRACED) if n in row.name), PLAIN if row.unit == "ms" else None)
    return replace(row, profile=f"{row.profile}; {floor[name]}") if name else row


def children(quick: bool, device: str = "cpu") -> list[Row]:
    """The grouped scorer's step at 8 and at 256 children of one kind."""
    with fast():
        contenders: dict[str, Call] = {}
        for count in (8, 256):
            cama = model_of(count, 64, device=device)
            loss = scored(cama, batch_of(cama, 128), False)
            contenders |= steps({str(count): loss}, list(cama.modules.parameters()))
        times = interleaved(contenders, 40 if quick else 300, device=device)
        about = f"{profiled(contenders['256'])}; {over_floor(contenders['256'], 30, device)}"
        return [times.ratio("256", "8", "tabular step, 256 over 8 children", goal=3.0, profile=about)]


def adaptation(classes: int, rows: int, draws: int, device: str = "cpu") -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Eq. 8 of new rows alone, 10 children, hidden 64: the loss of `adapt`, and what it trains."""
    cama = model_of(10, 64, classes, device)
    y = [f"class {i}" for i in range(classes)]
    x = torch.randn(classes, 10)
    cama.fit({"y": y} | {f"x{i}": x[:, i].numpy() for i in range(10)}, max_epochs=0, progress=False)
    new = batch_of(cama, rows).without("y")
    nothing = torch.zeros(classes, device=device)
    free = nn.Parameter(torch.zeros_like(nothing))
    loss = adaptation_loss(cama, new, None, 0.5, draws, 1.0, nothing, free)
    cama.modules.requires_grad_(False)
    moving = [p.requires_grad_(True) for p in cama.manipulation_parameters().values()]
    return lambda: loss(new), [*moving, free]


def many_classes(quick: bool, device: str = "cpu") -> list[Row]:
    """An adaptation step at 2 and at 100 classes: one draw of 32 and of 128 rows, and `adapt`'s own 4 draws."""
    found = []
    with fast():
        for rows, draws in ((32, 1), (128, 1), (128, 4)):
            contenders: dict[str, Call] = {}
            for count in (2, 100):
                loss, moving = adaptation(count, rows, draws, device)
                contenders |= steps({str(count): loss}, moving)
            times = interleaved(contenders, 20 if quick else 100, device=device)
            least = over_floor(contenders["100"], 10, device)
            about = f"{profiled(contenders['100'])}; {least}; 2 classes {1e3 * times.median('2'):.3g} ms"
            name = f"tabular adaptation step, 100 over 2 classes, {rows} rows, {draws} draw{'s' * (draws > 1)}"
            found.append(times.ratio("100", "2", name, goal=4.0, profile=about))
    return found
