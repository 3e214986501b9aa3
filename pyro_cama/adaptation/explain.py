"""What changed: after ``adapt``, which children moved and by how much, in the user's own units.

The estimate is the adapted theta; its uncertainty comes from the folds of the adaptation, each adapted to the other
rows only: the delete-a-group jackknife (Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17),
whose intervals take Student's t with folds - 1 degrees of freedom.  Folds know nothing of the training rows' own error.
What is estimated is a difference of two samples, so intervals of tables are as much wider as those of a difference are
than those of the new sample alone, sqrt(1 + new rows / training rows).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor

from pyro_cama._arguments import expect, number
from pyro_cama._messages import listed
from pyro_cama.adaptation.explanation import Explanation
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.model.groups import Acting, MovedGroup
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.pair import ModelGuidePair

Reading = Callable[[Tensor], dict[str, float]]
"""From all of theta to the parameters of one component."""

FOLDS = 4  # to be asked for where there are no intervals
_MOST = 8  # parameters in a reading without intervals: a confusion of many levels has many


def explain_shift(pair: ModelGuidePair, adaptation: Adaptation | None, *, level: float = 0.95) -> Explanation:
    """Estimates which children moved, and by how much, as the model now believes: from the last adaptation it carries.

    Args:
        pair: a copy that ``adapt`` returned.
        adaptation: what was decided about it; if that was not to be kept, what stands is an adaptation before it, and
            where there is none nothing has moved.
        level: of the intervals.

    Raises:
        ValueError: the model was never adapted, or no child's mechanism has parameters (``concat``, ``overlay``).
    """
    if adaptation is None:
        raise ValueError("explain_shift: this model was never adapted; call it on what adapt(new_data) returns")
    manipulation = pair.manipulation
    if manipulation.size == 0:
        named = listed(sorted({name for m in pair.graph.manipulations for name in m.mechanism.values()}))
        raise ValueError(
            f"explain_shift: the mechanism {named} has no parameters that could be explained; declare a structured one "
            "(affine, rate, confusion; of images warp, intensity)"
        )
    expect("explain_shift", "level", level, number(level) and 0 < level < 1, "a number above 0, less than 1")
    rows: list[dict[str, Any]] = []
    parameters: list[dict[str, Any]] = []
    uncertain: list[Adaptation] = []
    grouped = any(m.groups for m in pair.graph.manipulations)
    for m in pair.graph.manipulations:
        groups = {child: group for group, columns in m.groups.items() for child in columns}
        for index, site in enumerate(pair.encoder.sites if m.site_column is not None else (None,)):
            carried = adaptation.carried(m.name, site)
            if carried is None and site is not None and site not in adaptation.sites:
                continue
            place: dict[str, Any] = {} if site is None else {"site": site}
            if len(pair.graph.manipulations) > 1:
                place = {"manipulation": m.name, **place}
            zero = torch.zeros(manipulation.size)
            whole = zero if carried is None else torch.tensor(carried.theta[index])
            folds = [zero] * 2 if carried is None else [torch.tensor(theta[index]) for theta in carried.replicates]
            uncertain += [carried] if carried is not None and len(folds) < 2 else []
            for node, column, mechanism, read in _readings(pair, manipulation, m.name):
                of_group = {"group": groups.get(node, "")} if grouped else {}
                about = {"column": column, **of_group, **place}
                if carried is not None and node in carried.unread:
                    rows.append(about | _unread(mechanism))
                    continue
                of_rows = [] if carried is None else [torch.tensor(theta) for theta in carried.of_rows]
                new = 0 if carried is None else carried.rows / max(1, len(carried.sites))
                wider = _of_two_samples(pair, node, new)
                row, own = _row(about, mechanism, read, whole, folds, of_rows, level, wider)
                rows.append(row)
                parameters += [{"column": column, **place, **one} for one in own]
    table = pd.DataFrame(rows).sort_values("change", ascending=False, kind="stable", ignore_index=True)
    note = ""
    if uncertain:
        table["moved"] = table["moved"].astype("boolean")  # bool, but missing
        enough = "" if uncertain[0].rows >= 2 * FOLDS else f", with {2 * FOLDS} rows or more,"
        note = f"uncertainty unknown: adapting with {FOLDS} folds{enough} gives intervals"
    kept = adaptation.applied or bool(adaptation.earlier)
    refused = kept and not any(one.applied for one in adaptation.together)
    return Explanation(table, pd.DataFrame(parameters), kept, adaptation.reason, note, refused=refused)


def _row(
    about: Mapping[str, Any],
    mechanism: Mechanism,
    read: Reading,
    whole: Tensor,
    folds: list[Tensor],
    of_rows: list[Tensor],
    level: float,
    wider: float,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a manipulation did to a component: the row of the table, and those of its parameters.

    Args:
        about: which component it is.
        whole, folds: theta, and that of every fold.
        of_rows: theta of some rows, where each has its own and ``whole`` is their mean.
        wider: factor on the intervals that the folds give.
    """
    estimate, resting = read(whole), read(torch.zeros_like(whole))
    others, rows = [read(fold) for fold in folds], [read(theta) for theta in of_rows]
    known, real, own = len(folds) > 1, False, list[dict[str, Any]]()
    for name, value in estimate.items():
        low, high = _interval(value, [o[name] for o in others], level, wider, mechanism.range_of(name))
        if name != "change":
            real |= name != "offset" and not low <= resting[name] <= high  # gain and mean tell it apart
            own.append({"parameter": name, "estimate": value, "low": low, "high": high, "unchanged": resting[name]})
            if rows:
                least, most = np.quantile([one[name] for one in rows], [0.05, 0.95])
                own[-1] |= {"rows_low": float(least), "rows_high": float(most)}
    change = estimate["change"]
    if rows and not known:  # manipulations to both sides are none in the mean
        change = math.sqrt(float(np.mean([one["change"] ** 2 for one in rows])))
    low, high = _interval(change, [o["change"] for o in others], level, wider, mechanism.range_of("change"))
    moved = bool(real and change >= mechanism.noticeable)
    row = {
        **about, "moved": moved if known else pd.NA, "change": change, "low": low, "high": high,
        "small": mechanism.noticeable,
        "reading": _words(estimate, resting, own, moved) if known else _estimates(own),
    }  # fmt: skip
    return row, own


def _unread(mechanism: Mechanism) -> dict[str, Any]:
    """The row of a component without a reading among the new rows: it may have changed in any way."""
    row = {"moved": False, "change": 0.0, "low": 0.0, "high": math.inf, "small": mechanism.noticeable}
    return row | {"reading": "no reading among the new rows"}


def _readings(
    pair: ModelGuidePair, manipulation: Manipulation, latent: str
) -> list[tuple[str, str, Mechanism, Reading]]:
    """Every component that a manipulation acts on: its node, name and mechanism, and what reads theta of it."""
    found: list[tuple[str, str, Mechanism, Reading]] = []
    for group in manipulation.groups:
        acting = next((one for one in group.acting if one.latent == latent), None)
        if not group.theta_size or acting is None:
            continue
        for name in group.nodes:
            node = pair.graph.nodes[name]
            statistics = pair.encoder.statistics[name]
            span = group.component(name)
            start = (span.start or 0) if isinstance(span, slice) else span
            for i in range(node.dim or 1):
                own = {k: v.reshape(-1)[i] if node.is_number else v for k, v in statistics.items()}
                read = partial(_described, manipulation, group, acting, node, own, start + i)
                found.append((name, name if node.dim is None else f"{name}[{i}]", acting.mechanism, read))
    return found


def _described(
    manipulation: Manipulation,
    group: MovedGroup,
    acting: Acting,
    node: Node,
    statistics: Mapping[str, Tensor],
    at: int,
    theta: Tensor,
) -> dict[str, float]:
    """What theta says of one component, in a manipulation's part of it."""
    own = manipulation.theta(theta, group)
    return acting.mechanism.describe((own if group.image else own[at])[acting.numbers], node, statistics)


def _of_two_samples(pair: ModelGuidePair, node: str, new: float) -> float:
    """How much wider the interval of a difference is than that of so many new rows alone; 1 of an image."""
    known = pair.encoder.by_class.get(node)
    return 1.0 if known is None else math.sqrt(1 + new / float(known["rows"].sum()))


def _interval(
    value: float,
    others: list[float],
    level: float,
    wider: float = 1.0,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Delete-a-group jackknife around ``value``, cut to the values there are; all of these where nothing was held out.

    Cut rather than taken on a scale where the range has no end: such an interval of a share never holds 0, which is
    what a share is that nothing happened to.
    """
    k, (least, greatest) = len(others), within
    if k < 2:
        return within
    se = math.sqrt((k - 1) / k * float(np.square(np.array(others) - np.mean(others)).sum()))
    half = float(stdtrit(k - 1, 0.5 + level / 2)) * se * wider
    return max(value - half, least), min(value + half, greatest)


def _words(estimate: dict[str, float], resting: dict[str, float], intervals: list[dict[str, Any]], moved: bool) -> str:
    if not moved:
        return "as before"
    real = {p["parameter"] for p in intervals if not p["low"] <= resting[p["parameter"]] <= p["high"]}
    if "gain" not in real:  # an offset alone is the shift at the mean, less certain
        real -= {"offset"}
    said = [
        f"{p['parameter']} {p['estimate']:.3g} [{p['low']:.3g}, {p['high']:.3g}]{_over_rows(p)}"
        for p in intervals
        if p["parameter"] in real
    ]
    return ", ".join(said)


def _estimates(parameters: list[dict[str, Any]]) -> str:
    """What is estimated to differ from unchanged, where nothing says how certain that is."""
    said = {
        p["parameter"]: f"{p['estimate']:.3g}{_over_rows(p)}" for p in parameters if p["estimate"] != p["unchanged"]
    }
    if "shift at the mean" in said:  # with the gain it says all
        said.pop("offset", None)
    if not said:
        return "no change estimated"
    ends = ("estimate", "rows_low", "rows_high")
    distance = {p["parameter"]: max(abs(p[k] - p["unchanged"]) for k in ends if k in p) for p in parameters}
    largest = set(sorted(said, key=lambda name: -distance[name])[:_MOST])
    more = f", and {len(said) - _MOST} smaller ones" if len(said) > _MOST else ""
    return f"estimated {', '.join(f'{name} {value}' for name, value in said.items() if name in largest)}{more}"


def _over_rows(parameter: Mapping[str, Any]) -> str:
    """Where nine of ten rows lie, if each has its own."""
    if "rows_low" not in parameter:
        return ""
    return f" in the mean (rows {parameter['rows_low']:.3g} to {parameter['rows_high']:.3g})"
