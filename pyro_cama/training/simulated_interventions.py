"""Simulated interventions: clean rows of every minibatch, manipulated at random, from which q(m | x) learns (eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pyro_cama._arguments import expect, number
from pyro_cama.data.batch import Batch
from pyro_cama.image_manipulations.kinds import KINDS, expect_kinds, manipulate_all
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.pair import ModelGuidePair

Scale = float | Mapping[str, float]
"""Of simulated interventions: of the mechanism's own, or severities of kinds of image manipulations."""


def intervened(model: CAMAModel, batch: Batch, scales: Mapping[str, Scale]) -> Batch:
    """Returns clean rows after a random intervention of their own on each of the named children.

    An image's is of one kind.

    Args:
        scales: by child, see :func:`scales_of`.
    """
    manipulation = model.manipulation
    values = dict(batch.values)
    for group in manipulation.groups:
        for name in group.nodes:
            if name not in scales:
                continue
            scale = scales[name]
            if isinstance(scale, Mapping):
                values[name] = manipulate_all(values[name], scale, seed=int(torch.randint(2**31, ())), one_of=True)
                continue
            if group.theta_size == 0:
                continue
            node = model.graph.nodes[name]
            shape = values[name].shape[:1] if group.image else values[name].shape
            theta = group.mechanism.simulate(tuple(shape), node, scale).to(model.like)
            pushed = group.mechanism.push(values[name], theta)
            values[name] = pushed.clamp(0.0, 1.0) if group.image else pushed  # as every recorded image
    return Batch(values=values, observed=batch.observed, site=batch.site, rows=batch.rows)


def scales_of(pair: ModelGuidePair, interventions: float | Mapping[str, Scale] | None) -> dict[str, Scale]:
    """Returns the scales of fit's simulated interventions by child.

    Raises:
        ValueError: the graph or the manipulation's scope does not allow them.
    """
    positive = number(interventions) and interventions > 0
    fits = positive or interventions is None or isinstance(interventions, Mapping)
    expected = "a finite number above 0, or a mapping of node to number, of an image also to severities by kind"
    expect("fit", "interventions", interventions, fits, expected)
    if not interventions:
        return {}
    m = pair.graph.m
    if m is None:
        raise ValueError("fit(interventions=...): this graph has no manipulation latent (m is null)")
    if not m.per_row:
        raise ValueError(
            f"fit(interventions=...) trains q(m | x) of single rows; {m.name!r} has scope {m.scope!r}, whose "
            "posterior is found by adapt(); declare scope: row, or leave interventions out"
        )
    acting = [n for g in pair.manipulation.groups if g.theta_size for n in g.nodes]
    if isinstance(interventions, Mapping):
        kinds = {n for n, scale in interventions.items() if isinstance(scale, Mapping)} & set(m.children)
        # kinds of manipulations need no theta
        unknown = [n for n in interventions if n not in acting and n not in kinds]
        if unknown:
            images = [n for n in m.children if pair.graph.nodes[n].type == "image"]
            nested = bool(images) and set(unknown) <= {*KINDS}
            hint = f"; did you mean {{{images[0]!r}: {dict(interventions)}}}?" if nested else ""
            raise ValueError(
                f"fit(interventions=...): {unknown} cannot be intervened on; expected some of {acting}{hint}"
            )
        scales: dict[str, Scale] = {}
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
    if not acting:
        raise ValueError("fit(interventions=...): every mechanism is concat, which cannot simulate interventions")
    return dict.fromkeys(acting, float(interventions))
