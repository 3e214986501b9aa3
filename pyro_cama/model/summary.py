"""A pair in words: roles, factorisation, and the number of parameters in each part."""

from __future__ import annotations

import torch

from pyro_cama.model.linear_style import sums_out
from pyro_cama.model.pair import ModelGuidePair


def summary(pair: ModelGuidePair) -> str:
    """Returns roles, factorisation and the number of parameters in each part, as text."""
    blanket = pair.graph.blanket
    lines = [
        f"target      {pair.graph.target}: {', '.join(map(str, pair.classes))}",
        f"parents     {', '.join(blanket.parents) or '-'}",
        f"children    {', '.join(blanket.children)}",
        f"co-parents  {', '.join(blanket.coparents) or '-'}",
    ]
    z, several = pair.graph.z, len(pair.graph.manipulations) > 1
    if z is not None:
        loadings = "every class's own" if z.loadings == "class" else "shared by the classes"
        way = {"deep": "through a network", "linear": f"linearly, loadings {loadings}"}[z.effect]
        exact = "; summed out exactly" if sums_out(pair.model.groups) else ""
        lines.append(f"style       {z.name}, dim {z.dim}, acts {way}{exact}")
    for m in pair.graph.manipulations:
        acts = ", ".join(f"{n} ({m.mechanism[n]})" for n in m.children)
        lines.append(f"manipulable {f'by {m.name}: ' if several else ''}{acts}; scope {m.scope}")
        lines += [f"together    {group}: {', '.join(columns)}" for group, columns in m.groups.items()]
    if logarithmic := _logarithmic(pair):
        lines.append(f"log scale   {', '.join(logarithmic)}")
    lines += ["", pair.graph.factorisation(), ""]
    adapts = {id(p) for p in pair.manipulation_parameters().values()}
    parts: dict[str, list[int]] = {}
    seen: set[int] = set()
    for owner, module in (("model", pair.model), ("guide", pair.guide)):
        for name, parameter in module.named_parameters():
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            part = f"{owner} {name.removeprefix('networks.').split('.')[0]}" + (" *" if id(parameter) in adapts else "")
            parts.setdefault(part, []).append(parameter.numel())
    lines += [f"{part:<24}{sum(sizes):>9,} parameters" for part, sizes in parts.items()]
    return "\n".join([*lines, "* trained by adapt()"])


def _logarithmic(pair: ModelGuidePair) -> list[str]:
    """The columns that are read on a logarithmic scale (:mod:`pyro_cama.data.scales`), known once there was a fit."""
    names = (name for name in pair.graph.order if pair.graph.nodes[name].type == "continuous")
    found = []
    for name in names if pair.encoder.fitted else ():
        units = pair.encoder.statistics[name]["unit"]
        some = torch.nonzero(torch.atleast_1d(units)).flatten().tolist()
        found += [name] if units.dim() == 0 and some else [f"{name}[{i}]" for i in some]
    return found
