"""What a causal graph is made of: nodes, latents, and the Markov blanket of the target."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyro_cama.graph.schema import Effect, ImageSize, Level, Loadings, NodeType, Scale


@dataclass(frozen=True)
class Node:
    """An observed variable: a column, a vector of columns or an image.

    ``levels`` is set for categorical and binary nodes, ``dim`` for vectors, ``shape``, ``channels`` (of the
    convolutions) and ``size`` (of the networks) for images. ``scale`` is the one on which a continuous node is read:
    ``auto`` is chosen from the training rows.
    """

    name: str
    type: NodeType
    dim: int | None = None
    levels: tuple[Level, ...] | None = None
    shape: tuple[int, ...] | None = None
    likelihood: str | None = None
    channels: int | None = None
    size: ImageSize = "small"
    scale: Scale = "auto"

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers: continuous or count, scalar or vector."""
        return self.type in ("continuous", "count")

    @property
    def is_discrete(self) -> bool:
        """Whether its values are levels: categorical or binary."""
        return self.type in ("categorical", "binary")

    @property
    def is_image(self) -> bool:
        """Whether its values are images."""
        return self.type == "image"

    @property
    def classes(self) -> int:
        """The number of levels; 0 for a node that is not discrete."""
        return len(self.levels or ())

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one entry: ``()``, ``(dim,)`` or an image's shape."""
        return self.shape or (() if self.dim is None else (self.dim,))


@dataclass(frozen=True)
class Latent:
    """A hidden cause of the target's children: the style z, or the manipulation m.

    ``mechanism`` and ``affects`` hold every child of a manipulation, and nothing for z.

    ``parents`` are what causes a manipulation, the target or nothing; ``confounder`` is a latent that causes both.

    ``groups`` are children of a manipulation that move together, such as one sensor's features, by the group's name.

    ``parts`` are the manipulations that this one is made of, where a graph has several: their values side by side are
    its value, and a child stands under each of them that names it, the first nearest to the clean child.

    ``effect`` says how a style acts on continuous children: through a ``deep`` network, the paper's way, or ``linear``
    on their means, so that it can be summed out exactly; ``auto`` is linear where nothing speaks against it, which
    :func:`pyro_cama.build` finds out.  The ``loadings`` of a linear one, and the scales of its children, are every
    ``class``'s own or ``shared`` by all.
    """

    name: str
    dim: int
    children: tuple[str, ...]
    manipulation: bool = False
    scope: str = "row"
    mechanism: dict[str, str] = field(default_factory=dict, hash=False)
    affects: dict[str, str] = field(default_factory=dict, hash=False)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    effect: Effect = "auto"
    loadings: Loadings = "shared"
    parents: tuple[str, ...] = ()
    confounder: str | None = None
    parts: tuple[Latent, ...] = ()

    @property
    def goes_with_class(self) -> bool:
        """Whether it depends on the target where nobody intervenes: caused by it, or by what causes both."""
        return bool(self.parents) or self.confounder is not None

    @property
    def each(self) -> tuple[Latent, ...]:
        """The latents that are sampled: the parts, or this one."""
        return self.parts or (self,)

    @property
    def slices(self) -> dict[str, slice]:
        """Where the value of each of :attr:`each` stands in the value of this one, by name."""
        found, start = {}, 0
        for latent in self.each:
            found[latent.name] = slice(start, start + latent.dim)
            start += latent.dim
        return found

    @property
    def per_row(self) -> bool:
        """Whether every row has a value of its own (scope ``row``)."""
        return self.scope == "row"

    @property
    def per_dataset(self) -> bool:
        """Whether all rows share one value (scope ``dataset``)."""
        return self.scope == "dataset"

    @property
    def site_column(self) -> str | None:
        """The column whose every value has a value of this latent; None in the scopes ``row`` and ``dataset``."""
        return None if self.scope in ("row", "dataset") else self.scope


@dataclass(frozen=True)
class Blanket:
    """The Markov blanket by role, each in topological order.

    A node that causes the target and one of its children is parent and co-parent.
    """

    parents: tuple[str, ...]
    children: tuple[str, ...]
    coparents: tuple[str, ...]
