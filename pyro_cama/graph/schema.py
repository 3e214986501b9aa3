"""The format of a graph: what its keys may hold, and faults as sentences a user can act on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pyro_cama._messages import listed, one_of, quoting, shown
from pyro_cama.errors import GraphError

NodeType = Literal["continuous", "categorical", "binary", "count", "image"]
Affects = Literal["quantity", "measurement"]
Effect = Literal["auto", "linear", "deep"]
Loadings = Literal["class", "shared"]
Scale = Literal["auto", "identity", "log", "signed_log"]
ImageSize = Literal["small", "base"]
Level = str | int | float | bool
Edge = tuple[str, str]
TAKES: dict[str, tuple[str, ...]] = {
    "continuous": ("dim", "likelihood", "scale"),
    "categorical": ("levels", "likelihood"),
    "binary": ("levels", "likelihood"),
    "count": ("dim", "likelihood"),
    "image": ("shape", "channels", "size", "likelihood"),
}
FORM = "a mapping with the keys target, nodes and edges"
_Name = Annotated[str, Field(min_length=1)]
_Size = Annotated[int, Field(ge=1)]


def graph_error(source: str, faults: str | Iterable[str]) -> GraphError:
    """Returns one error for all faults of a source: in its line if there is one, else a line each."""
    faults = [faults] if isinstance(faults, str) else list(dict.fromkeys(faults))
    if len(faults) == 1:
        return GraphError(f"{source}: {faults[0]}")
    return GraphError(f"{source}: {len(faults)} faults" + "".join(f"\n  - {fault}" for fault in faults))


def parse_edge(value: object) -> list[Edge]:
    """Returns the edges of one entry, 'a -> b', 'a -> b -> c' or [a, b].

    Raises:
        ValueError: another form.
    """
    if isinstance(value, str):
        names = [part.strip() for part in value.split("->")]
        if len(names) < 2 or not all(names):
            raise ValueError(f"found {shown(value)}; expected 'a -> b', 'a -> b -> c' or [a, b]")
        return list(itertools.pairwise(names))
    if not isinstance(value, list):
        raise ValueError(f"found {shown(value)}; expected 'a -> b', 'a -> b -> c' or [a, b]")
    if len(value) != 2:
        raise ValueError(
            f"found a list of {len(value)}, {shown(value)}; expected two, [cause, effect]; "
            "write a chain as 'a -> b -> c'"
        )
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"found {shown(name)}; {quoting(name)}")
    return [(value[0], value[1])]


class _Spec(BaseModel):
    # The descriptions of the fields are what error messages say was expected.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NodeSpec(_Spec):
    """A node as declared."""

    type: NodeType = Field(description="one of " + listed(get_args(NodeType)))
    dim: _Size | None = Field(default=None, description="a whole number of at least 1")
    levels: list[Level] | None = Field(
        default=None, description="a list of texts or numbers, such as [benign, malignant]"
    )
    shape: Annotated[list[_Size], Field(min_length=3, max_length=3)] | None = Field(
        default=None, description="[channels, height, width], three whole numbers of at least 1"
    )
    channels: _Size | None = Field(default=None, description="a whole number of at least 1")
    size: ImageSize | None = Field(default=None, description="'small' or 'base'")
    likelihood: _Name | None = Field(default=None, description="the name of a likelihood")
    scale: Scale | None = Field(default=None, description="'identity', 'log', 'signed_log' or 'auto'")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        if isinstance(value, str):
            return {"type": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"found {shown(value)}; expected a type, as in {{type: continuous}}")
        return value

    @model_validator(mode="after")
    def _by_type(self) -> Self:
        for key in ("dim", "levels", "shape", "channels", "size", "scale"):
            if getattr(self, key) is not None and key not in TAKES[self.type]:
                takes = " and ".join(TAKES[self.type])
                raise ValueError(f"found key {key!r}; expected, for type {self.type}, only {takes}")
        if self.type == "image" and self.shape is None:
            raise ValueError("missing key 'shape'; expected the size, as in shape: [1, 28, 28]")
        if self.type == "categorical" and self.levels is None:
            raise ValueError("missing key 'levels'; expected the categories, as in levels: [benign, malignant]")
        if self.levels is not None:
            self._check_levels(self.levels)
        return self

    def _check_levels(self, levels: list[Level]) -> None:
        found = f"levels: found {shown(levels)}"
        if self.type == "categorical" and any(isinstance(level, bool) for level in levels):
            raise ValueError(f"{found}; {quoting(True)}, as in ['no', 'yes'], or use type binary")
        if any(isinstance(level, float) and not math.isfinite(level) for level in levels):
            raise ValueError(f"{found}; expected no infinity and no NaN; missing values are no level")
        if len(set(levels)) < len(levels):
            raise ValueError(f"{found}; expected each level once")
        if self.type == "binary" and len(levels) != 2:
            raise ValueError(f"{found}; expected exactly two; use type categorical for more")
        if len(levels) < 2:
            raise ValueError(f"{found}; expected at least two")


class LatentSpec(_Spec):
    """A latent as declared; None is what was left out."""

    dim: _Size | None = Field(default=None, description="a whole number of at least 1")
    children: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="a list of at least one of the target's children"
    )
    parents: Annotated[list[str], Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="a list with the target, as in [digit]"
    )
    causes: Annotated[list[str], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="the target and a manipulation, as in [digit, colour]"
    )
    manipulation: bool | None = Field(default=None, description="true or false")
    scope: _Name = Field(default="row", description="'row', 'dataset' or the name of a column")
    mechanism: _Name | dict[str, _Name] | None = Field(
        default=None, description="the name of a mechanism, or a mapping of child to such a name"
    )
    affects: Affects | dict[str, Affects] | None = Field(
        default=None, description="'quantity' or 'measurement', or a mapping of child to one of them"
    )
    groups: dict[_Name, Annotated[list[str], Field(min_length=2)]] | None = Field(
        default=None, description="a mapping of name to a list of two or more children, as in {sensor_1: [a, b]}"
    )
    effect: Effect | None = Field(default=None, description="'linear', 'deep' or 'auto'")
    loadings: Loadings | None = Field(default=None, description="'shared' or 'class'")


class GraphSpec(_Spec):
    """A graph as declared."""

    target: str = Field(description="the name of a categorical or binary node")
    nodes: Annotated[dict[_Name, NodeSpec], Field(min_length=1)] = Field(
        description="a mapping of node to type, such as {age: continuous, sick: binary}"
    )
    edges: list[Annotated[list[Edge], BeforeValidator(parse_edge)]] = Field(
        default=[], description="a list of edges 'a -> b', 'a -> b -> c' or [a, b]"
    )
    latents: dict[_Name, LatentSpec | None] = Field(
        default={}, description="a mapping such as {z: {dim: 8}, m: null}; leave the key out for the defaults"
    )


def plain(value: object) -> Any:
    """Returns the value with mappings, sequences and numpy's types as dict, list and Python's scalars."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def validated(raw: object, source: str) -> GraphSpec:
    """Validates the mapping that describes a graph.

    Raises:
        GraphError: it does not follow the format; all faults of form are listed.
    """
    if not isinstance(raw, Mapping):
        raise graph_error(source, f"found {shown(raw)}; expected {FORM}")
    if not raw:
        raise graph_error(source, f"is empty; expected {FORM}")
    try:
        data = plain(raw)
    except RecursionError:
        raise graph_error(source, f"is nested too deeply; expected {FORM}") from None
    try:
        return GraphSpec.model_validate(data)
    except ValidationError as error:
        faults: dict[object, str] = {}
        for detail in error.errors(include_url=False):
            # A union reports each of its branches; one sentence a key will do.
            faults.setdefault(detail["loc"][:3], _sentence(detail, data))
    raise graph_error(source, faults.values())


_ENTRY: dict[str, tuple[str, type[_Spec], str]] = {
    "nodes": ("node", NodeSpec, "a mapping such as {type: continuous}"),
    "latents": ("latent", LatentSpec, "a mapping such as {dim: 4}, or null to drop it"),
}


_CHOICES: dict[str, Any] = {
    "type": NodeType, "effect": Effect, "loadings": Loadings, "scale": Scale, "size": ImageSize,
}  # fmt: skip


def _sentence(error: ErrorDetails, data: dict[Any, Any]) -> str:
    """One of pydantic's errors as: where, what was found, what was expected."""
    kind, found, loc = error["type"], error["input"], error["loc"]
    model: type[_Spec] = GraphSpec
    where, expected, field = "", "", 0
    if len(loc) > 1 and loc[0] in _ENTRY:
        label, model, expected = _ENTRY[str(loc[0])]
        where, field = f"{label} {loc[1]!r}: ", 2
    elif len(loc) > 1 and loc[0] == "edges":
        where = f"edge {int(loc[1]) + 1}: "
    if loc[-1] == "[key]" and field and len(loc) == 3:
        name = "found ''; expected a name" if found == "" else f"found {shown(found)}; {quoting(found)}"
        return f"{_ENTRY[str(loc[0])][0]} {shown(found)}: {name}"
    if kind == "value_error":
        return f"{where}{error['ctx']['error']}"
    if kind in ("extra_forbidden", "invalid_key"):
        key = found if kind == "invalid_key" else loc[-1]
        return f"{where}found unknown key {shown(key)}; {one_of(key, model.model_fields)}"
    if len(loc) > field:
        key = str(loc[field])
        expected = str(model.model_fields[key].description)
        if kind == "missing":
            return f"{where}missing key {key!r}; expected {expected}"
        where += f"{key}: "
        # The value of the key itself is what the user wrote, not the part of it that a branch refused.
        value: Any = data
        for step in loc[: field + 1]:
            value = value.get(step, found) if isinstance(value, dict) else value
        found = value
    if kind == "literal_error" and isinstance(found, str):
        names = get_args(_CHOICES.get(str(key), Affects))
        return f"{where}found {shown(found)}; {one_of(found, names)}"
    hint = f"; {quoting(found)}" if where == "target: " and not isinstance(found, str | None) else ""
    return f"{where}found {shown(found)}; expected {expected}{hint}"
