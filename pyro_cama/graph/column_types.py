"""What the columns of a table seem to be: the type and the levels of a node for each, or why it is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_cama._messages import one_of, shown
from pyro_cama._number_texts import comma_hint, missing_numbers
from pyro_cama.graph.schema import graph_error

MANY = 20  # levels; more of them are no class, and text of more is an identifier or prose
RUN = 20  # rows from which on whole numbers that only rise, or only fall, are taken for row numbers
FEW = 5  # distinct whole numbers up to which they are codes rather than amounts
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_NAMELESS = re.compile(r"Unnamed: \d+")  # pandas' name for what has none
_ROW_NAMES = {"rownames", "row.names", "row_names", "rowname", "row_id", "rowid", "row", "index", "id", "nr", "no"}


@dataclass(frozen=True)
class Guess:
    """What a column seems to be: the keys of its node, None if it is left out, and why."""

    keys: dict[str, Any] | None
    why: str


def with_types(raw: Mapping[Any, Any], table: pd.DataFrame, source: str) -> dict[Any, Any]:
    """Returns a graph in the form of its file, not yet validated, with the types of nodes that have none from a table.

    Raises:
        GraphError: such a node is no column of the table, or one of which no type can be guessed.
    """
    nodes = raw.get("nodes")
    if not isinstance(nodes, Mapping):
        return dict(raw)
    columns = [str(name) for name in table.columns]
    typed, faults = {}, []
    for name, keys in nodes.items():
        typed[name] = keys
        if isinstance(keys, str) or not isinstance(keys, Mapping | None) or "type" in (keys or {}):
            continue
        if columns.count(str(name)) != 1:
            where = "no column of the table" if name not in columns else "more than one column of the table"
            faults.append(f"node {name!r}: found {where}; {one_of(name, columns)}, or its type in the graph")
            continue
        found = guess_named(str(name), table.iloc[:, columns.index(str(name))], str(raw.get("target")))
        if found.keys is None:
            faults.append(
                f"node {name!r}: found {found.why} in its column; expected its type in the graph, or no such node"
            )
        else:
            typed[name] = {**found.keys, **(keys or {})}
    if faults:
        raise graph_error(source, faults)
    return {**raw, "nodes": typed}


def guess_named(name: str, column: pd.Series[Any], target: str) -> Guess:
    """Guesses what a column is as :func:`guess` does, its name considered; the target's numbers are classes."""
    if name in ("_INPUT", "_RETURN"):
        return Guess(None, "a name that Pyro uses itself, so rename the column")
    if name == target:
        return guess(column, discrete=True)
    if _NAMELESS.fullmatch(name):
        return Guess(None, "a column without a name, when it was written")
    if name.casefold() in _ROW_NAMES and column.is_unique and column.notna().all():
        return Guess(None, "an identifier or row number, by its name: every value is another")
    return guess(column)


def guess(column: pd.Series[Any], *, discrete: bool = False) -> Guess:
    """Guesses what a column is.

    Two different values are binary, up to 20 different texts and up to 5 different whole numbers categorical; more
    whole numbers are a count if they start at 0 to 5 and end at 1000 at most, and other numbers continuous. Left out: a
    constant, row numbers, more texts than 20, dates, lists. Marks such as "?" among numbers are missing values.

    Args:
        discrete: take numbers as classes, up to 20 of them.

    >>> guess(pd.Series(["3", "0", "", "7", "12", "4", "9"])).keys
    {'type': 'count'}
    >>> guess(pd.Series(["no", "yes", "no"])).keys
    {'type': 'binary', 'levels': ['no', 'yes']}
    >>> guess(pd.Series(["no", "no"])).why
    "one value, 'no'"
    """
    known = column[column.notna()]
    if known.dtype == object or pd.api.types.is_string_dtype(known.dtype):
        known = known[known.map(lambda entry: not (isinstance(entry, str) and entry == ""))]
    missing = len(column) - len(known)
    note = f", {missing} of {len(column)} missing" if missing else ""
    if not len(known):
        return Guess(None, "no entry")
    if pd.api.types.is_datetime64_any_dtype(known.dtype):
        return Guess(None, "dates")
    values = known.map(_plain)
    if not values.map(lambda value: isinstance(value, str | int | float | bool)).all():
        return Guess(None, f"entries such as {shown(values.iloc[0])}")
    numbers = _as_numbers(values)
    if numbers is not None:
        marks = _marks(values)
        said = f" ({', '.join(map(shown, marks))} among them)" if marks else ""
        note = f", {len(column) - len(numbers)} of {len(column)} missing{said}" if len(numbers) < len(column) else ""
        if not len(numbers):
            return Guess(None, "no entry")
        return _of_numbers(numbers, note, discrete)
    levels = sorted({_text(value) for value in values})
    if len(levels) > MANY or 2 < len(levels) == len(values):
        return Guess(None, _prose(levels))
    return _of_levels(levels, values.map(_text), note)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _as_numbers(values: pd.Series[Any]) -> pd.Series[float] | None:
    """Returns the values as floats, without those that say a number is missing; None if some are no numbers."""
    if values.map(lambda value: isinstance(value, bool)).any():
        return None
    if values.map(lambda value: isinstance(value, str)).any():
        values = values[~missing_numbers(values)[0]]
    numbers = pd.to_numeric(values.astype(object), errors="coerce")
    if numbers.isna().any() or any(isinstance(v, str) and _padded(v) for v in values):
        return None
    return numbers.astype(float)


def _marks(values: pd.Series[Any]) -> list[str]:
    """Marks that stand for a missing number, such as "?"."""
    return [*dict.fromkeys(values[missing_numbers(values)[1]])]


def _prose(levels: list[str]) -> str:
    """Why many different texts are left out: numbers written in another way, numbers and texts, or texts."""
    if sum(bool(comma_hint(text)) for text in levels) > len(levels) / 2:
        first = next(text for text in levels if comma_hint(text))
        return f"texts such as {shown(first)}{comma_hint(first)}"
    odd = [text for text in levels if pd.isna(pd.to_numeric(text, errors="coerce"))]
    if 0 < len(odd) < len(levels) / 2:
        return f"numbers, but for {len(odd)} texts such as {shown(odd[0])}"
    kind = "an identifier, or prose"
    if Path(levels[0]).suffix.lower() in _IMAGES:
        kind = "paths of images? Declare the node yourself, {type: image, shape: [channels, height, width]}"
    return f"{len(levels)} different texts, such as {shown(levels[0])}: {kind}"


def _padded(text: str) -> bool:
    """Whether a text is a number in form and a name in truth: 01, 007."""
    text = text.strip()
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def _of_numbers(numbers: pd.Series[float], note: str, discrete: bool) -> Guess:
    distinct = np.unique(numbers)
    if not np.isfinite(distinct).all():
        return Guess(None, "infinite values; correct them, or leave the fields empty")
    whole = bool((distinct == np.rint(distinct)).all())
    levels = [int(v) if whole else float(v) for v in distinct[: MANY + 1]]
    if len(distinct) <= (MANY if discrete else FEW if whole else 2):
        return _of_levels(levels, numbers.map(int) if whole else numbers, note)
    if discrete:
        return Guess(None, f"{len(distinct)} different numbers")
    span = f"{distinct[0]:g} to {distinct[-1]:g}{note}"
    if not whole:
        return Guess({"type": "continuous"}, span)
    steps = numbers.diff().dropna()
    if (steps == 1).all() or (len(numbers) >= RUN and ((steps > 0).all() or (steps < 0).all())):
        return Guess(None, f"a running number, {distinct[0]:g} to {distinct[-1]:g}")
    if 0 <= distinct[0] <= FEW and distinct[-1] <= 1000:
        return Guess({"type": "count"}, f"whole numbers, {span}")
    return Guess({"type": "continuous"}, f"whole numbers, {span}")


def _of_levels(levels: list[Any], values: pd.Series[Any], note: str) -> Guess:
    if len(levels) == 1:
        return Guess(None, f"one value, {shown(levels[0])}")
    most = values.value_counts(normalize=True)
    why = f"{len(levels)} values, {most.iloc[0]:.0%} {' '.join(_text(most.index[0]).split())[:30]}{note}"
    if levels == [0, 1]:
        return Guess({"type": "binary"}, why)
    levels = [False, True] if levels == ["False", "True"] else levels
    return Guess({"type": "binary" if len(levels) == 2 else "categorical", "levels": levels}, why)
