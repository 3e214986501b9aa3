"""A first graph from a table: types guessed, everything a child of the target, YAML with comments to be edited."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pyro_cama._messages import one_of, shown
from pyro_cama.data.number_texts import comma_hint, missing_numbers
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph

MANY = 20  # levels; more of them are no class, and text of more is an identifier or prose
RUN = 20  # rows from which on whole numbers that only rise, or only fall, are taken for row numbers
_NAMELESS = re.compile(r"Unnamed: \d+")  # pandas' name for what has none
_ROW_NAMES = {"rownames", "row.names", "row_names", "rowname", "row_id", "rowid", "row", "index", "id", "nr", "no"}
FEW = 5  # distinct whole numbers up to which they are codes rather than amounts


@dataclass(frozen=True)
class Guess:
    """What a column seems to be: the keys of its node, None if it is left out, and why."""

    keys: dict[str, Any] | None
    why: str


def first_graph(table: pd.DataFrame, target: str, source: str) -> tuple[str, dict[str, str]]:
    """Writes the YAML of a graph whose target causes every other column; returns it and why columns are left out.

    Args:
        table: a DataFrame, texts as in a CSV file or typed.
        target: a column of at most 20 different values.
        source: the table's name, for the first comment.

    Raises:
        DataError: no such column, a target that is no class, or no column to be its child.

    >>> text, left_out = first_graph(pd.DataFrame({"y": ["a", "b"], "x": ["0.5", "1.5"], "k": ["", ""]}), "y", "t.csv")
    >>> CausalGraph.from_yaml(text)
    <CausalGraph: target 'y'; parents none; children 'x'; coparents none; latents 'z', 'm'>
    >>> left_out
    {'k': 'no entry'}
    """
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    doubled = [name for name, times in Counter(table.columns).items() if times > 1]
    if target in doubled:
        raise DataError(f"{source}: target: found column {target!r} more than once; expected one: rename the others")
    if target not in table.columns:
        raise DataError(f"{source}: target: found no column {target!r}; {one_of(target, table.columns)}")
    guesses = {name: _guess(name, table[name], target) for name in table.columns if name not in ("", *doubled)}
    guesses |= {name: Guess(None, "a name that more than one column has") for name in doubled}
    if "" in table.columns:
        guesses[""] = Guess(None, "a column without a name")
    chosen = guesses[target]
    if chosen.keys is None:
        raise DataError(
            f"{source}: target {target!r}: found {chosen.why}; expected a class, two to {MANY} different values"
        )
    left_out = {name: found.why for name, found in guesses.items() if found.keys is None}
    nodes = {name: found for name, found in guesses.items() if found.keys is not None}
    children = [name for name in nodes if name != target]
    if not children:
        raise DataError(f"{source}: found no column that could be a child of {target!r}: {_reasons(left_out)}")
    text = "\n".join(_lines(nodes, children, target, left_out, source, len(table))) + "\n"
    CausalGraph.from_yaml(text)
    return text, left_out


def _guess(name: str, column: pd.Series[Any], target: str) -> Guess:
    """What a column seems to be, its name considered."""
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
    known = known[known != ""] if known.dtype == object or pd.api.types.is_string_dtype(known.dtype) else known
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
    return f"{len(levels)} different texts, such as {shown(levels[0])}: an identifier, or prose"


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


def _lines(
    nodes: dict[str, Guess], children: list[str], target: str, left_out: dict[str, str], source: str, rows: int
) -> list[str]:
    lines = [
        f"# A first graph of {_comment(source)}, {rows} rows. Types are guesses, and edges only a place to start:",
        "# 1. Correct the types: continuous, count, binary, categorical (with levels).",
        "# 2. Turn the edges: an edge goes from cause to effect, and what causes the target is no child of it.",
        "# 3. Add what causes the children apart from the target (smoker -> radius), and edges among children.",
        "# 4. Take out what is neither. Then: pyro-cama check, pyro-cama draw.",
        f"target: {_yaml(target)}",
        "",
        "nodes:",
    ]
    entries = {name: f"  {_yaml(name)}: {_yaml(found.keys)}" for name, found in nodes.items()}
    wide = min(60, max(map(len, entries.values())))
    lines += [f"{entry:<{wide}}  # {_comment(nodes[name].why)}" for name, entry in entries.items()]
    lines += [f"  # left out: {_comment(_yaml(name))} ({_comment(why)})" for name, why in left_out.items()]
    lines += ["", "edges:"]
    lines += [f"  - {_edge(target, child)}" for child in children]
    lines += [
        "",
        "# z is the style that the children share, m what manipulates them. scope says where m lives: row (each row",
        "# its own way), dataset (one recalibrated instrument for all rows) or a column's name (each site its own).",
        "latents:",
    ]
    z, m = (_free(name, nodes) for name in ("z", "m"))
    lines += ["  z: {dim: 8}"] if z == "z" else [f"  {z}: {{dim: 8}}  # z is a column", "  z: null"]
    manipulation = f"{m}: {{dim: 4, manipulation: true, scope: dataset}}"
    return lines + ([f"  {manipulation}"] if m == "m" else [f"  {manipulation}  # m is a column", "  m: null"])


def _free(name: str, taken: dict[str, Guess]) -> str:
    others = (f"latent_{name}{i or ''}" for i in range(len(taken) + 1))
    return name if name not in taken else next(other for other in others if other not in taken)


def _edge(cause: str, effect: str) -> str:
    arrow = f"{cause} -> {effect}"
    plain = [part.strip() for part in arrow.split("->")] == [cause, effect]
    return _yaml(arrow if plain else [cause, effect])


def _yaml(value: Any) -> str:
    """Writes a value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    if any(mark in text for mark in "\x85\u2028\u2029\ufeff"):  # PyYAML would read these otherwise than it wrote them
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    text = text.removesuffix("...\n").rstrip("\n")
    if "\n" in text:
        text = yaml.safe_dump(
            value, default_flow_style=True, default_style='"', sort_keys=False, width=10**9, allow_unicode=False
        ).rstrip("\n")
    return text


def _comment(text: str) -> str:
    """Returns a text that stays on its line, without what YAML refuses even in a comment."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _reasons(left_out: dict[str, str]) -> str:
    said = [f"{name!r} is left out ({why})" for name, why in left_out.items()][:3]
    return "; ".join(said) or "there is no other column"
