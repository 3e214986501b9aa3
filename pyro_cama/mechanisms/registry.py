"""Mechanisms by the names that a graph file gives them: a new one is a file beside this one and an entry here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pyro_cama._messages import listed
from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.mechanisms.affine import Affine
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.mechanisms.blur import Blur
from pyro_cama.mechanisms.colour import Colour
from pyro_cama.mechanisms.composed import Composed, ComposedImages, one_after_another
from pyro_cama.mechanisms.concat import Concat
from pyro_cama.mechanisms.confusion import Confusion
from pyro_cama.mechanisms.field import Field
from pyro_cama.mechanisms.illumination import Illumination
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.mechanisms.intensity import Intensity
from pyro_cama.mechanisms.monotone import Monotone
from pyro_cama.mechanisms.noise import Noise
from pyro_cama.mechanisms.overlay import Overlay
from pyro_cama.mechanisms.rate import Rate
from pyro_cama.mechanisms.warp import Warp

MECHANISMS: dict[str, Mechanism] = {
    "affine": Affine(),
    "monotone": Monotone(Affine()),
    "rate": Rate(),
    "confusion": Confusion(),
    "warp": Warp(),
    "blur": Blur(),
    "field": Field(),
    "intensity": Intensity(),
    "illumination": Illumination(),
    "colour": Colour(),
    "noise": Noise(),
    "overlay": Overlay(),
    "concat": Concat(),
}
AUTO = "auto"
OF_IMAGES = "warp+blur+illumination+overlay"  # what it stands for


def mechanism_named(wanted: str, scope: str, where: str, remedy: str = "") -> Mechanism:
    """Returns a mechanism by its name; ``warp+intensity`` is warp, then intensity.

    Args:
        wanted: a name, or several of images' mechanisms joined by ``+``; ``auto`` is those of images that an
            adaptation is to choose from.
        scope: of the manipulation: ``row``, ``dataset`` or a column of sites.
        where: the place in the graph, the beginning of messages.
        remedy: what else can be done about an unknown name, the end of messages.

    Raises:
        GraphError: the name is unknown, or the parts of a sum cannot follow one another.
    """
    parts = []
    names = OF_IMAGES if wanted.strip() == AUTO else wanted
    for name in (part.strip() for part in names.split("+")):
        if name not in MECHANISMS:
            near = difflib.get_close_matches(name, MECHANISMS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = sorted([AUTO, *MECHANISMS])
            raise GraphError(f"{where}: unknown mechanism {name!r}, expected one of {known}{hint}{remedy}")
        parts.append(MECHANISMS[name].of_scope(scope))
    if len(parts) == 1:
        return parts[0]
    images = tuple(part for part in parts if isinstance(part, ImageMechanism))
    if len(images) < len(parts):
        joined = sorted(name for name, m in MECHANISMS.items() if isinstance(m, ImageMechanism))
        raise GraphError(f"{where}: found {wanted!r}; expected only {', '.join(joined)} joined by +")
    try:
        return ComposedImages(images)
    except ValueError as error:
        raise GraphError(f"{where}: {wanted!r}: {error}") from None


def mechanism_of(graph: CausalGraph, name: str, chosen: Mapping[str, Mechanism] | None = None) -> Mechanism | None:
    """Returns the mechanism by which m acts on a node, that of several manipulations composed; None where none acts.

    Raises:
        GraphError: the mechanism is unknown, does not serve the node, or cannot follow the one before it.
    """
    node, own = graph.nodes[name], chosen.get(name) if chosen else None
    acting = [latent for latent in graph.manipulations if name in latent.children]
    if own is not None and len(acting) > 1:
        raise GraphError(
            f"build(mechanisms=...): found {name!r}, on which {listed(latent.name for latent in acting)} act; expected "
            "children of one manipulation: name the mechanisms of this one in the graph"
        )
    parts = list[Mechanism]()
    for latent in acting:
        where = f"latent {latent.name!r}, child {name!r}"
        remedy = f", or pass build(mechanisms={{{name!r}: ...}})"
        mechanism = own or mechanism_named(latent.mechanism[name], latent.scope, where, remedy)
        if node.type not in mechanism.types:
            able = sorted(known for known, m in MECHANISMS.items() if node.type in m.types)
            raise GraphError(
                f"{where}: {type(mechanism).__name__} serves {', '.join(mechanism.types)}, found type {node.type}; "
                f"expected one of {able}"
            )
        whole = mechanism.parts if isinstance(mechanism, Composed) else (mechanism,)
        for part in whole:
            if isinstance(part, ImageMechanism) and part.numbers is None and part.size(node) == 0:
                raise GraphError(
                    f"{where}: found {type(part).__name__}, which has nothing to move in an image of shape "
                    f"{list(node.shape or ())}; expected more channels, or another mechanism"
                )
        numbers = mechanism.size(node) if not own and latent.mechanism[name].strip() == AUTO else 0
        if latent.dim < numbers:
            raise GraphError(
                f"{where}: found dim {latent.dim} and mechanism {AUTO}, which has {numbers} numbers to choose from; "
                f"expected dim: {numbers} or more"
            )
        if parts and not (mechanism.composes or isinstance(mechanism, ImageMechanism)):
            raise GraphError(
                f"{where}: found {latent.mechanism[name]!r}, which cannot follow another mechanism; expected "
                f"{name!r} among the children of one manipulation"
            )
        parts.append(mechanism)
    try:
        return one_after_another(parts, node) if len(parts) > 1 else parts[0] if parts else None
    except ValueError as error:
        named = listed(latent.name for latent in acting)
        raise GraphError(f"latents {named}, child {name!r}: {error}") from None
