"""The guide, eq. 10 of the paper: q(z, m | x, y, a, c) = q(m | x) q(z | T_m^{-1} x, y, a, c).

q(m | x) is amortised in scope ``row`` and a small free posterior, one per dataset or site, in the other scopes.  The
encoder of z sees children from which the manipulation has been undone; with ``concat`` children, which cannot be
undone, it sees m itself.  A missing value goes in as filled in, beside a flag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pyro
import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_cama.data.batch import Batch
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Latent
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.model.linear_style import StylePosterior, style_log_prob, style_posterior
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.plates import EncodedRows, Plates, as_batch, class_values, joined, m_of_rows
from pyro_cama.model.posteriors import RowPosterior, SharedPosterior
from pyro_cama.networks.features import Merge, NamedModules, mlp, network_of
from pyro_cama.networks.image_layers import initialise_weights
from pyro_cama.networks.images import EncoderFactory, encode_images, encoder_of
from pyro_cama.networks.inputs import NodeInputs

MISSING = "missing flags"


def shared_first(graph: CausalGraph) -> list[Latent]:
    """Returns the manipulations in the order in which a guide draws them: what rows share, then what is their own."""
    return sorted(graph.manipulations, key=lambda latent: latent.per_row)


def _image(name: str) -> str:
    """Names an image among the encoder's sources, whose own names are values, target and the like."""
    return f"image {name}"


class CAMAGuide(PyroModule):
    """q(z, m | x, y, a, c), generated from the same graph as the model.

    Override :meth:`z_dist` or :meth:`m_dist` and pass the class to ``build(graph, guide=MyGuide)``.

    Example::

        >>> import pyro_cama
        >>> class WideGuide(CAMAGuide):
        ...     def z_dist(self, batch, y, m):
        ...         loc, scale = self.z_params(batch, y, m)
        ...         return dist.StudentT(4.0, loc, scale).to_event(1)
        >>> graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
        >>> rows = {"x": [0.1, 1.3, -0.4, 0.9], "y": [0, 1, 0, 1]}
        >>> pair = pyro_cama.build(graph, guide=WideGuide, device="cpu").fit(rows, max_epochs=0, progress=False)
        >>> pair.guide.z_dist(pair.encode(rows), None, None).batch_shape
        torch.Size([4])
    """

    def __init__(
        self,
        graph: CausalGraph,
        groups: tuple[Group, ...],
        inputs: NodeInputs,
        manipulation: Manipulation | None,
        *,
        hidden: int,
        layers: int,
        encoders: Mapping[str, EncoderFactory] | None = None,
        sites: int = 0,
        name: str = "",
        model: CAMAModel | None = None,
    ) -> None:
        super().__init__(name)
        self._model = (model,)  # not registered: its parameters are not the guide's
        self.graph = graph
        self.groups = groups
        self.sites = max(sites, 1)

        def encoders_of(names: Iterable[str]) -> dict[str, nn.Module]:
            images = (graph.nodes[n] for n in names if graph.nodes[n].type == "image")
            return {node.name: encoder_of(node, hidden, encoders) for node in images}

        self._read = tuple(n for group in groups for n in group.nodes if n != graph.target)  # side by side as in groups
        networks: dict[str, nn.Module] = {"inputs": inputs}
        if manipulation is not None:
            networks["manipulation"] = manipulation
        width = sum(inputs.width(n) for n in self._read)
        if graph.z is not None and not self.exact_z:
            widths = {"values": width, MISSING: len(self._read), "target": inputs.width(graph.target)}
            if manipulation is not None and manipulation.features_in_merge:
                widths["m"] = manipulation.dim
            out = 2 * graph.z.dim
            images = encoders_of(self._read)
            networks["images"] = NamedModules(images)
            widths |= {_image(name): hidden for name in images}
            widths = {source: size for source, size in widths.items() if size}
            encoder = Merge(widths, hidden, hidden if layers else out, min(layers, 1))
            nn.init.zeros_(encoder.projections[MISSING].weight)  # type: ignore[arg-type]
            networks["encoder"] = encoder
            if layers:
                networks["z"] = nn.Sequential(nn.SiLU(), mlp(hidden, hidden, out, max(layers - 1, 0)))
            if images:
                initialise_weights(nn.ModuleList([networks[part] for part in ("encoder", "z") if part in networks]))
                nn.init.zeros_(encoder.projections[MISSING].weight)  # type: ignore[arg-type]
        # NN_qM stands by itself: adaptation trains it and NN_pM, nothing else
        x_width = sum(inputs.width(n) for n in graph.blanket.children) + len(graph.blanket.children)
        posteriors: dict[str, nn.Module] = {}
        for latent in graph.manipulations:
            posteriors[latent.name] = (
                RowPosterior(x_width, hidden, latent.dim, layers, encoders_of(graph.blanket.children))
                if latent.per_row
                else SharedPosterior(self.sites if latent.site_column else 1, latent.dim)
            )
        networks["m"] = NamedModules(posteriors)
        if manipulation is not None and manipulation.can_sleep:
            networks["recognition"] = RowPosterior(
                x_width, hidden, manipulation.size, layers, encoders_of(graph.blanket.children)
            )
        self.networks = nn.ModuleDict(networks)

    def forward(
        self,
        data: EncodedRows | None = None,
        *,
        rows: int | None = None,
        samples: int | None = None,
        classes: bool = False,
    ) -> None:
        """Draws m and z; the call signature and the plates are the model's."""
        if not pyro.settings.get("module_local_params"):
            self.networks  # noqa: B018 - the one access by which Pyro's store learns of the parameters
        batch = as_batch(data, rows)
        plates = Plates(self.graph, batch.rows, samples, classes, self.sites)
        m = None
        with plates.samples:
            if self.graph.m is not None:
                drawn: dict[str, Tensor] = {}
                for latent in shared_first(self.graph):
                    with plates.of(latent):
                        drawn[latent.name] = pyro.sample(latent.name, self.posterior(batch, latent, drawn))
                m = joined(self.graph.m, drawn, batch.site)
            with plates.classes, plates.rows:
                if self.graph.z is not None:
                    pyro.sample(self.graph.z.name, self.z_dist(batch, self.target_value(batch, classes), m))

    def m_dist(
        self, batch: Batch | None, latent: Latent | None = None, shared: Mapping[str, Tensor] | None = None
    ) -> TorchDistribution:
        """Returns q(m | x), batch shape ``(rows,)``; of a shared m q(m), ``()``, or ``(sites,)`` for a scope column.

        Of every row's own m beside one that rows share it is q(m | T^{-1} x), T what they share.

        Args:
            batch: rows; None will do for a shared m.
            latent: which of the graph's manipulations, where it has several.
            shared: values of those that rows share, by name; None takes the means of their posteriors.
        """
        latent = latent or self.graph.require_m()
        network = self.posteriors[latent.name]
        if latent.per_row:
            assert batch is not None
            loc, scale = network(*self._children(batch, self._shared(batch, shared)))
        else:
            loc, scale = network()
            if latent.per_dataset:
                loc, scale = loc[0], scale[0]
        return dist.Normal(loc, scale).to_event(1)

    def recognised(self, batch: Batch) -> dist.Normal:
        """Returns what :attr:`recognition` reads off rows: theta in units of its prior asleep, ``(rows, size)``."""
        return dist.Normal(*self.recognition(*self._children(batch, None)))

    def posterior(
        self, batch: Batch | None, latent: Latent, shared: Mapping[str, Tensor] | None = None
    ) -> TorchDistribution:
        """Returns :meth:`m_dist` of a manipulation; of a graph's only one as a guide may have overridden it."""
        return self.m_dist(batch, latent, shared) if len(self.graph.manipulations) > 1 else self.m_dist(batch)

    def m_dists(self, batch: Batch | None, names: Collection[str] | None = None) -> list[TorchDistribution | None]:
        """Returns q of every manipulation of the graph, what rows share at its mean.

        Args:
            batch: as :meth:`m_dist`.
            names: of those that are asked for; the others' are None.
        """
        return [
            self.posterior(batch, latent) if names is None or latent.name in names else None
            for latent in self.graph.manipulations
        ]

    def _shared(self, batch: Batch, shared: Mapping[str, Tensor] | None) -> Tensor | None:
        """m with what rows share, and nothing of their own; None where they share none."""
        own = [latent for latent in self.graph.manipulations if not latent.per_row]
        if not own:
            return None
        given = {name: value for name, value in (shared or {}).items() if name in {latent.name for latent in own}}
        means = {latent.name: self.m_dist(None, latent).mean for latent in own if latent.name not in given}
        return joined(self.graph.require_m(), means | given, batch.site)

    def z_dist(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> TorchDistribution:
        """Returns q(z | T_m^{-1} x, y, a, c), batch shape broadcastable to ``(samples, classes, rows)``.

        Of a linear style it is the model's own posterior, in closed form: there is nothing to train.

        Args:
            y: encoded target, ``(rows,)`` or ``(classes, 1)``; None where unknown, of a linear style then the class
                that is most probable.
            m: as sampled, or given by ``do``: ``(..., dim)``.
        """
        if self.exact_z:
            return self._exact(batch, y, m).distribution()
        loc, scale = self.z_params(batch, y, m)
        return dist.Normal(loc, scale).to_event(1)

    def z_params(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns loc and scale of q(z | ...), ``(..., dim)``: a place to start when overriding :meth:`z_dist`."""
        if self.exact_z:
            exact = self._exact(batch, y, m)
            return exact.mean, exact.scale.expand_as(exact.mean)
        networks = self._networks
        seen = self.encode(batch, y, m)
        out = networks["z"](seen) if "z" in networks else seen
        loc, raw_scale = out.chunk(2, -1)
        return loc, F.softplus(raw_scale) + 1e-3

    @property
    def exact_z(self) -> bool:
        """Whether q(z | ...) is the model's own posterior: the style is linear."""
        return any(group.linear_z for group in self.groups)

    def _exact(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> StylePosterior:
        """q(z | ...) of a linear style, given the children that it acts on linearly."""
        (model,) = self._model
        if model is None:
            raise ValueError("CAMAGuide: found no model=, whose posterior q(z | ...) of a linear style is; pass it on")
        if y is None:
            every = Causes(model, batch)
            self._condition(every, batch, class_values(self.graph, self.like), m)
            y = style_log_prob(every, self.groups, batch).argmax(-2)
        causes = Causes(model, batch)
        self._condition(causes, batch, y, m)
        return style_posterior(causes, self.groups, batch)

    def _condition(self, causes: Causes, batch: Batch, y: Tensor, m: Tensor | None) -> None:
        """Gives causes their values, a missing one as filled in, and m."""
        causes.values = self._filled(batch, self._read) | {self.graph.target: y}
        if m is not None and self.graph.m is not None:
            causes.set_m(m)

    def encode(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> Tensor:
        """Returns features of T_m^{-1} x, y, a, c (and of m under ``concat``), ``(..., hidden)``.

        Raises:
            NotImplementedError: the style is linear, and read without an encoder.
        """
        if self.exact_z:
            raise NotImplementedError(
                "CAMAGuide.encode: a linear style has no encoder; build from a graph with z: {effect: deep}"
            )
        networks = self._networks
        if m is not None and self.graph.m is not None:
            m = m_of_rows(m, self.graph.m, batch.site)
        values, images = self._values(batch, m)
        sources = [("values", values)] if values.shape[-1] else []
        if not all(name in batch.values and name not in batch.observed for name in self._read):
            sources.append((MISSING, self._missing(batch, self._read)))  # else zeros, which add nothing
        # an image is encoded once per draw of m, and not once per class
        encoders = network_of(networks, "images", NamedModules)
        sources += [(_image(n), encode_images(encoders[n], image)) for n, image in images.items()]
        if y is not None:
            sources.append(("target", networks["inputs"](self.graph.target, y)))
        if m is not None and self._manipulation is not None and self._manipulation.features_in_merge:
            sources.append(("m", m))
        features: Tensor = networks["encoder"](sources)
        return features

    def target_value(self, batch: Batch, classes: bool) -> Tensor | None:
        """Returns the target as the guide sees it: every class, the rows' labels, or None where there are none."""
        if classes:
            return class_values(self.graph, self.like)
        return batch.values.get(self.graph.target)

    @property
    def posteriors(self) -> NamedModules:
        """NN_qM of every manipulation, by its name."""
        return network_of(self._networks, "m", NamedModules)

    def posterior_of(self, name: str) -> RowPosterior | SharedPosterior:
        """Returns NN_qM of a manipulation."""
        found = self.posteriors[name]
        assert isinstance(found, RowPosterior | SharedPosterior)
        return found

    @property
    def m_posterior(self) -> RowPosterior | SharedPosterior:
        """NN_qM of the only manipulation."""
        (name,) = self.posteriors
        return self.posterior_of(name)

    @property
    def recognition(self) -> RowPosterior:
        """q(theta | x) that ``fit`` trains asleep, and with which NN_qM of an adaptation begins.

        There is one where :attr:`pyro_cama.model.manipulation.Manipulation.can_sleep`.
        """
        return network_of(self._networks, "recognition", RowPosterior)

    @property
    def like(self) -> Tensor:
        """A tensor of the guide's dtype and device."""
        networks = self._networks
        if "encoder" in networks:
            return network_of(networks, "encoder", Merge).bias
        (model,) = self._model
        return next(networks.parameters()) if model is None else model.like

    @property
    def _networks(self) -> nn.ModuleDict:
        found = self._modules["networks"]  # past PyroModule's attribute access, which costs a pass over all parameters
        assert isinstance(found, nn.ModuleDict)
        return found

    @property
    def _manipulation(self) -> Manipulation | None:
        networks = self._networks
        return network_of(networks, "manipulation", Manipulation) if "manipulation" in networks else None

    def _values(self, batch: Batch, m: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns all values but the target's, the manipulation undone, ``(..., rows, width)``; images by name."""
        inputs, manipulation = self._networks["inputs"], self._manipulation
        values = self._filled(batch, self._read)
        theta = None
        if m is not None and manipulation is not None and not manipulation.is_identity(m):
            theta = manipulation(m)
        parts, images = [], {}
        for group in self.groups:
            if group.nodes == (self.graph.target,):
                continue
            if theta is not None and manipulation is not None and isinstance(group, MovedGroup) and group.theta_size:
                clean = self._filled_in(group, batch, values, manipulation.undo(values, theta, group))
                if isinstance(clean, Tensor):
                    parts.append(clean)
                    continue
                values.update(clean)
            if group.image:
                image = values[group.nodes[0]]
                grey = group.likelihood.grey
                images[group.nodes[0]] = image.mean(-3, keepdim=True).expand_as(image) if grey else image
            elif self._plain(group):
                parts.append(group.stack(values))
            else:
                parts += [inputs(n, values[n]) for n in group.nodes]
        return _join(parts, batch.rows, self.like), images

    def _filled_in(
        self, group: Group, batch: Batch, values: Mapping[str, Tensor], clean: Tensor | dict[str, Tensor]
    ) -> Tensor | dict[str, Tensor]:
        """Returns a group's clean values, where an entry is missing its fill-in: no m has moved that."""
        gone = [name for name in group.nodes if name in batch.observed or name not in batch.values]
        if not gone:
            return clean
        nowhere = torch.zeros(batch.rows, dtype=torch.bool, device=self.like.device)
        known = {n: batch.observed[n] if n in batch.values else nowhere for n in gone}
        if isinstance(clean, Tensor):
            mask = group.stack_masks(known, batch.rows)
            assert mask is not None
            return torch.where(mask, clean, group.stack(values))
        found = dict(clean)
        for name, mask in known.items():
            fill = values[name]
            if self.graph.nodes[name].type == "categorical":
                fill = F.one_hot(fill, self.graph.nodes[name].classes).to(clean[name])
            event = (1,) * (fill.dim() - 1)
            found[name] = torch.where(mask.reshape(-1, *event), clean[name], fill)
        return found

    def _plain(self, group: Group) -> bool:
        """Whether the networks read a group's values as they are."""
        return self.graph.nodes[group.nodes[0]].type == "continuous"

    def _children(self, batch: Batch, m: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns what q(m | x) sees: children and missing flags, ``(rows, width)``; images by name.

        Args:
            m: what is undone first, see :meth:`_shared`; None leaves the children as measured.
        """
        networks, manipulation = self._networks, self._manipulation
        children = self.graph.blanket.children
        values = self._filled(batch, children)
        if m is not None and manipulation is not None and not manipulation.is_identity(m):
            theta = manipulation(m)
            for group in manipulation.groups:
                clean = self._filled_in(group, batch, values, manipulation.undo(values, theta, group))
                apart = {n: clean[..., group.component(n)] for n in group.nodes} if isinstance(clean, Tensor) else clean
                values.update(apart)
        images = {n: values[n] for n in children if self.graph.nodes[n].type == "image"}
        plain = [networks["inputs"](n, values[n]) for n in children if n not in images]
        flags = self._missing(batch, children)
        return _join([*plain, flags], batch.rows, self.like), images

    def _filled(self, batch: Batch, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Returns values by name; zeros for a node the batch lacks altogether."""
        absent = [name for name in names if name not in batch.values]
        values = dict(batch.values)
        for name in absent:
            node = self.graph.nodes[name]
            dtype = torch.long if node.type == "categorical" else self.like.dtype
            values[name] = torch.zeros((batch.rows, *node.event_shape), dtype=dtype, device=self.like.device)
        return values

    def _missing(self, batch: Batch, names: tuple[str, ...]) -> Tensor:
        """Returns 1 where a value is missing, ``(rows, nodes)``."""
        like = self.like
        flags = torch.zeros(batch.rows, len(names), dtype=like.dtype, device=like.device)
        for i, name in enumerate(names):
            if name not in batch.values:
                flags[:, i] = 1.0
            elif name in batch.observed:
                flags[:, i] = (~batch.observed[name]).to(flags)
        return flags


def _join(parts: list[Tensor], rows: int, like: Tensor) -> Tensor:
    """Puts the parts side by side, their leading shapes broadcast."""
    if not parts:
        return like.new_zeros(rows, 0)
    if len(parts) == 1:
        return parts[0]
    lead = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return torch.cat([p.expand(*lead, p.shape[-1]) for p in parts], -1)
