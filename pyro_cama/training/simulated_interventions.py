"""Simulated interventions: clean rows of every minibatch, manipulated at random, from which q(m | x) learns (eq. 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_cama._arguments import expect, number
from pyro_cama._messages import listed
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Latent
from pyro_cama.handlers.distributions import draw
from pyro_cama.image_manipulations.kinds import KINDS, expect_kinds, manipulate_all
from pyro_cama.mechanisms.image import recorded
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.groups import MovedGroup
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.pair import ModelGuidePair

Scale = float | Mapping[str, float]
"""Of simulated interventions: of the mechanism's own, or severities of kinds of image manipulations."""


class ByLatent(NamedTuple):
    """Scales of simulated interventions on a child by those of its manipulations that are named."""

    scales: Mapping[str, float]


Simulated = Scale | ByLatent


@torch.no_grad()
def intervened(model: CAMAModel, guide: CAMAGuide, batch: Batch, scales: Mapping[str, Simulated]) -> Batch:
    """Returns clean rows after a random intervention of their own on each of the named children.

    What a child causes follows, unless only its measurement is intervened on (``affects``): see :func:`_followed`.  An
    image's intervention is of one kind.  Missing entries stay as they are filled in.

    Args:
        scales: by child, see :func:`scales_of`.
    """
    graph, affects = model.graph, model.manipulation.affects
    recorded, quantities = dict(batch.values), dict(batch.values)  # as measured, and as effects see them
    moved: set[str] = set()
    z = None
    if graph.z is not None and any(affects[name] == "quantity" and model.effects(name) for name in scales):
        m = torch.zeros(model.manipulation.dim).to(model.like)
        z = draw(guide.z_dist(batch, guide.target_value(batch, False), m))
    before, after = Causes(model, batch, z), Causes(model, batch, z)
    before.values, after.values = batch.values, quantities

    def known(name: str, value: Tensor) -> Tensor:
        mask = batch.observed.get(name)
        return (
            value if mask is None else torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, quantities[name])
        )

    for name in graph.order:  # causes first
        if moved & set(graph.parents_of(name)) and name in quantities and name != graph.target:
            quantities[name] = recorded[name] = known(name, _followed(name, before, after))
            moved.add(name)
        if name in scales:
            recorded[name] = known(name, _pushed(model, name, quantities[name], scales[name]))
            if affects[name] == "quantity":
                quantities[name] = recorded[name]
                moved.add(name)
    return Batch(values=recorded, observed=batch.observed, site=batch.site, rows=batch.rows)


def _pushed(model: CAMAModel, name: str, value: Tensor, scale: Simulated) -> Tensor:
    """A child's values after random interventions on it, by those of its manipulations that are every row's own."""
    if isinstance(scale, Mapping):
        return manipulate_all(value, scale, seed=int(torch.randint(2**31, ())), one_of=True)
    group, node = model.group_of[name], model.graph.nodes[name]
    assert isinstance(group, MovedGroup)
    shape = tuple(value.shape[:1] if group.image else value.shape)
    own = {m.name for m in model.graph.manipulations if m.per_row}
    parts = []
    for acting in group.acting:
        how_large = scale.scales.get(acting.latent, 0.0) if isinstance(scale, ByLatent) else scale
        size = acting.numbers.stop - acting.numbers.start
        acts = acting.latent in own and how_large > 0
        parts.append(acting.mechanism.simulate(shape, node, how_large) if acts else torch.zeros(*shape, size))
    theta = torch.cat(parts, -1).to(model.like)
    return recorded(group.mechanism, value, theta) if group.image else group.mechanism.push(value, theta)


def _followed(name: str, before: Causes, after: Causes) -> Tensor:
    """A node's values after its causes have changed.

    A number of a location and a scale keeps its distance from the one in units of the other, which is its own noise;
    counts, levels and numbers of other distributions are drawn anew, and an image is its mean, as it would be recorded.
    """
    old, new, value = before.distribution(name), after.distribution(name), before.values[name]
    if before.graph.nodes[name].is_image:
        return new.mean.expand_as(value).clamp(0.0, 1.0)
    if hasattr(old, "loc") and hasattr(old, "scale"):
        return new.loc + (value - old.loc) / old.scale * new.scale
    return draw(new.expand(value.shape)).to(value.dtype)


def scales_of(pair: ModelGuidePair, interventions: float | Mapping[str, Scale] | None) -> dict[str, Simulated]:
    """Returns the scales of fit's simulated interventions by child.

    Raises:
        ValueError: the graph or the manipulation's scope does not allow them.
    """
    positive = number(interventions) and interventions > 0
    fits = positive or interventions is None or isinstance(interventions, Mapping)
    expected = "a finite number above 0, or a mapping of node or manipulation to number, of an image also to severities"
    expect("fit", "interventions", interventions, fits, f"{expected} by kind")
    if not interventions:
        return {}
    if pair.graph.m is None:
        raise ValueError("fit(interventions=...): this graph has no manipulation latent (m is null)")
    own = [m for m in pair.graph.manipulations if m.per_row]
    if not own:
        m = pair.graph.m
        raise ValueError(
            f"fit(interventions=...) trains q(m | x) of single rows; {m.name!r} has scope {m.scope!r}, whose "
            "posterior is found by adapt(); declare scope: row, or leave interventions out"
        )
    reached = {child for m in own for child in m.children}
    acting = [n for g in pair.manipulation.groups if g.theta_size for n in g.nodes if n in reached]
    if not acting:
        named = listed(sorted({m.mechanism[child] for m in own for child in m.children}))
        raise ValueError(
            f"fit(interventions=...): found no mechanism but {named}, which has no parameters to simulate "
            "interventions with; declare a structured one (affine, rate, confusion; of images warp, intensity)"
        )
    if not isinstance(interventions, Mapping):
        return dict.fromkeys(acting, float(interventions))
    latents = {m.name: m for m in pair.graph.manipulations}
    by_latent = {name: scale for name, scale in interventions.items() if name in latents}
    by_child = {name: scale for name, scale in interventions.items() if name not in latents}
    return _scales_by_child(pair, by_child, acting, reached) | _scales_by_latent(latents, by_latent, by_child, acting)


def _scales_by_child(
    pair: ModelGuidePair, interventions: Mapping[str, Scale], acting: list[str], reached: Collection[str]
) -> dict[str, Simulated]:
    """The scales of interventions that name children."""
    # kinds of manipulations need no theta
    kinds = {n for n, scale in interventions.items() if isinstance(scale, Mapping)} & set(reached)
    unknown = [n for n in interventions if n not in acting and n not in kinds]
    if unknown:
        images = [n for n in pair.graph.order if n in reached and pair.graph.nodes[n].type == "image"]
        nested = bool(images) and set(unknown) <= {*KINDS}
        hint = f"; did you mean {{{images[0]!r}: {dict(interventions)}}}?" if nested else ""
        raise ValueError(f"fit(interventions=...): {unknown} cannot be intervened on; expected some of {acting}{hint}")
    scales: dict[str, Simulated] = {}
    for name, scale in interventions.items():
        if isinstance(scale, Mapping):
            if pair.graph.nodes[name].type != "image":
                raise ValueError(
                    f"fit(interventions=...): {name!r} is {pair.graph.nodes[name].type}; expected a number, "
                    "since kinds of manipulations are an image's"
                )
            expect_kinds(scale, "fit(interventions=...)")
            scales[name] = dict(scale)
        else:
            expected = "a finite number above 0"
            if pair.graph.nodes[name].type == "image":
                expected += ", or severities by kind as {'rotation': 30}"
            expect("fit", f"interventions[{name!r}]", scale, number(scale) and scale > 0, expected)
            scales[name] = float(scale)
    return scales


def _scales_by_latent(
    latents: Mapping[str, Latent], by_latent: Mapping[str, Scale], by_child: Collection[str], acting: list[str]
) -> dict[str, Simulated]:
    """The scales of interventions that name manipulations."""
    found: dict[str, dict[str, float]] = {}
    for name, scale in by_latent.items():
        if not latents[name].per_row:
            raise ValueError(
                f"fit(interventions=...): {name!r} has scope {latents[name].scope!r}, whose posterior is found by "
                f"adapt(); expected some of {[m.name for m in latents.values() if m.per_row]}"
            )
        fits = not isinstance(scale, Mapping) and number(scale) and scale > 0
        expect("fit", f"interventions[{name!r}]", scale, fits, "a finite number above 0")
        for child in latents[name].children:
            if child in by_child:
                raise ValueError(
                    f"fit(interventions=...): found {child!r} and {name!r}, which acts on it; expected one of them"
                )
            if child in acting:
                found.setdefault(child, {})[name] = float(scale)  # type: ignore[arg-type]
    return {child: ByLatent(scales) for child, scales in found.items()}
