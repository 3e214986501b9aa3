"""NN_pM: from the manipulation m to every mechanism's theta.  With NN_qM, all that adaptation trains."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from math import nan

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Latent
from pyro_cama.mechanisms.base import Clean, Line
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.model.theta_prior import ThetaPrior, numbers_of_columns
from pyro_cama.networks.features import NamedModules, mlp
from pyro_cama.networks.hidden_pixels import HiddenPixels
from pyro_cama.networks.image_layers import filled, known_pixels
from pyro_cama.networks.inputs import NodeInputs

LAID_OVER = 0.005  # share of an image's pixels that seem hidden, from which on something counts as laid over it
MOST = 0.5  # of the rows, from which on something lies over an image
AT_A_TIME = 500  # images whose hidden pixels are looked for

_ALL = slice(None)
_calibrated: ContextVar[frozenset[nn.Module]] = ContextVar("pyro_cama_calibrated", default=frozenset())


class Manipulation(nn.Module):
    """theta(m) = NN_pM(m) - NN_pM(0), dealt out to the groups of manipulated children; zero at m = 0 by construction.

    Shared by model and guide: the model applies the mechanisms, the guide undoes them.  Of several manipulations each
    has a network of its own, which makes its own numbers of theta and no other's.

    Args:
        latent: m; of a graph of several manipulations, all of them taken together.
        groups: all of the graph; those that m acts on are kept as :attr:`groups`.
        inputs: for the nodes' types and the frequencies of their levels.
        hidden, layers: units of a layer, and hidden layers; a shared m has none.
    """

    def __init__(self, latent: Latent, groups: tuple[Group, ...], inputs: NodeInputs, hidden: int, layers: int) -> None:
        super().__init__()
        self.dim = latent.dim
        self.latent = latent
        self.affects = dict(latent.affects)
        self.groups = tuple(g for g in groups if isinstance(g, MovedGroup))
        self.inputs = inputs
        self.prior = ThetaPrior(latent, self.groups)
        self._slices: dict[str, slice] = {}
        start = 0
        for group in self.groups:
            size = group.units * group.theta_size
            self._slices[group.nodes[0]] = slice(start, start + size)
            start += size
        self.features_in_merge = any(g.mechanism.in_merge for g in self.groups)
        self._features = slice(start, start + hidden if self.features_in_merge else start)
        self.hidden = hidden
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(start))  # no parameter: SVI would train it, or warn
        columns = {one.name: numbers_of_columns(self.groups, one.name) for one in latent.each}
        # where every manipulation's numbers stand in theta, component by component
        numbers = self._numbers = {name: _joined([*own.values()]) for name, own in columns.items()}
        self.detectors = NamedModules(
            {g.nodes[0]: HiddenPixels(inputs.nodes[g.nodes[0]]) for g in self.groups if _hides(g)}
        )
        # a shared m is one point, or one a site: a linear map reaches every theta, and adapts without ill-conditioning
        widths = (
            {name: len(own) for name, own in numbers.items()} if latent.parts else {latent.name: self._features.stop}
        )
        self._widths = widths
        self.networks = NamedModules(  # of no number at all one is made, and cut off: a layer of none cannot begin
            {one.name: mlp(one.dim, hidden, widths[one.name] or 1, layers if one.per_row else 0) for one in latent.each}
        )
        self._order: Tensor
        self.register_buffer("_order", torch.cat([*numbers.values()]).argsort(), persistent=False)

    def forward(self, m: Tensor) -> Tensor:
        """Returns all of theta side by side, ``(..., total)``, from m ``(..., dim)``."""
        parts = []
        for name, at in self.latent.slices.items():
            network, own = self.networks[name], m[..., at]
            theta = network(own) - network(torch.zeros_like(own[..., :1, :] if m.dim() > 1 else own))
            parts.append(theta[..., : self._widths[name]])
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)[..., self._order]

    @property
    def network(self) -> nn.Sequential:
        """NN_pM of the only manipulation."""
        (name,) = self.networks
        return self._network(name)

    def _network(self, name: str) -> nn.Sequential:
        found = self.networks[name]
        assert isinstance(found, nn.Sequential)
        return found

    @property
    def can_sleep(self) -> bool:
        """Whether m is each row's own, manipulates images alone, and has a direction for every number of theta.

        And the only manipulation: what several did to a row is learnt where they are simulated, by
        ``fit(interventions=)``.
        """
        simulates = all(g.image and g.theta_size and g.mechanism.simulates for g in self.groups)
        return self.latent.per_row and not self.latent.parts and simulates and 0 < self.size <= self.dim

    def families(self) -> dict[str, Tensor]:
        """Returns numbers of theta that can be all that moves, by a name, bool ``(size,)`` each; of images alone."""
        found = {}
        for group in self.groups:
            if group.image and group.theta_size:
                start = self.slice_of(group).start
                for name, own in group.mechanism.families(group.theta_size).items():
                    acts = torch.zeros(self.size, dtype=torch.bool, device=self.calibration.device)
                    acts[start + own.start : start + own.stop] = True
                    found[name if len(self.groups) == 1 else f"{group.nodes[0]}: {name}"] = acts
        return found

    @contextmanager
    def at_rest(self, resting: Tensor | None) -> Iterator[None]:
        """Holds numbers of theta, bool ``(size,)``, at 0 for every m: NN_pM's weights for them are 0 and stay so.

        Of a graph of one manipulation.  None means none of the numbers, of any graph.
        """
        if resting is None:
            yield
            return
        weight = self.network[-1].weight
        assert isinstance(weight, nn.Parameter)
        moves = F.pad(~resting, (0, len(weight) - len(resting)), value=True)[:, None]
        with torch.no_grad():
            weight.mul_(moves)
        hook = weight.register_hook(lambda gradient: gradient * moves)
        try:
            yield
        finally:
            hook.remove()

    def of_latents(self, names: Collection[str]) -> Tensor:
        """Returns which numbers of theta are these manipulations', bool ``(size,)``."""
        found = torch.zeros(self.size, dtype=torch.bool)
        for name in names:
            found[self._numbers[name]] = True
        return found.to(self.calibration.device)

    def structured(self, m: Tensor) -> Tensor:
        """Returns theta without ``concat``'s features, ``(..., size)``, from m ``(..., dim)``."""
        theta: Tensor = self(m)[..., : self.size]
        return theta

    def is_identity(self, m: Tensor) -> bool:
        """Whether m is seen to be zero for all rows: every mechanism is the identity, and need not be worked out.

        Not looked at on other devices, which would have to be waited for, nor where m has a gradient.
        """
        if m.dim() > 1 or m.requires_grad or m.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        calibrates = self in _calibrated.get() and any(g.mechanism.composes for g in self.groups)
        return not calibrates and not bool(m.any())

    def theta(self, theta: Tensor, group: MovedGroup, at: int | slice = _ALL) -> Tensor:
        """Returns a group's part of theta, ``(..., width, theta_size)`` or some of it; an image's, ``(..., size)``."""
        own = theta[..., self._slices[group.nodes[0]]]
        return own if group.image else own.unflatten(-1, (group.width, group.theta_size))[..., at, :]

    def slice_of(self, group: MovedGroup) -> slice:
        """Returns where a group's numbers stand in theta."""
        return self._slices[group.nodes[0]]

    def features(self, theta: Tensor) -> Tensor:
        """Returns what ``concat`` children merge with their other causes, ``(..., hidden)``."""
        return theta[..., self._features]

    def transform(
        self, clean: TorchDistribution, theta: Tensor, group: MovedGroup, at: int | slice = _ALL
    ) -> TorchDistribution:
        """Returns the distribution of a group's nodes, or of some components, as measured.

        Args:
            clean: p(x~ | pa(x), z) of these components.
            theta: of all groups, ``(..., total)``, as :meth:`forward` returns it.
            group: whose mechanism it is.
            at: which of its components; all by default.
        """
        return group.mechanism.transform(self.compared(clean, group, at), self.theta(theta, group, at))

    def compared(self, clean: TorchDistribution, group: MovedGroup, at: int | slice = _ALL) -> TorchDistribution:
        """Returns the clean distribution that adaptation compares inside :meth:`calibrated`; elsewhere as it is."""
        if self in _calibrated.get() and group.mechanism.composes:
            return group.mechanism.transform(clean, self.theta(self.calibration, group, at))
        return clean

    def invert(
        self, x: Tensor, theta: Tensor, group: MovedGroup, at: int | slice, frequencies: Tensor | None
    ) -> Tensor:
        """Returns the clean values of some components of a group.

        Args:
            x: as measured.
            theta, group, at: as for :meth:`transform`.
            frequencies: of a discrete node's levels in the training rows, else None.
        """
        x = group.mechanism.invert(x, self.theta(theta, group, at), frequencies)
        if self in _calibrated.get() and group.mechanism.composes:
            x = group.mechanism.invert(x, self.theta(self.calibration, group, at), frequencies)
        return x

    def overlaid(self, batch: Batch) -> frozenset[str]:
        """Returns the names of the images over which something seems to lie in most rows.

        Args:
            batch: rows as recorded; those that lack an image have no say about it.
        """
        return frozenset(name for name in self.detectors if name in batch.values and self._lies_over(name, batch))

    def _lies_over(self, name: str, batch: Batch) -> bool:
        images = batch.values[name]
        images = images[batch.observed[name]] if name in batch.observed else images
        if not len(images):
            return False
        share = self._hidden(name, images).float().mean((-3, -2, -1))
        return bool((share > LAID_OVER).float().mean() > MOST)

    def without_hidden(self, batch: Batch, names: Collection[str]) -> Batch:
        """Returns rows in which pixels of these images are unknown, NaN, that something seems to hide.

        Args:
            batch: rows as recorded; an image of which some pixels are unknown already is left as it is.
            names: of images; others than those over which a mechanism may lay something are as they are.
        """
        names = [name for name in names if name in self.detectors and name in batch.values.keys() - batch.unknown]
        images = {name: batch.values[name].masked_fill(self._hidden(name, batch.values[name]), nan) for name in names}
        return replace(batch, values={**batch.values, **images}, unknown=batch.unknown | {*names}) if names else batch

    @torch.no_grad()
    def _hidden(self, name: str, x: Tensor) -> Tensor:
        """Which pixels of images seem hidden, bool ``(rows, 1, H, W)``."""
        detector = self.detectors[name]
        parts = (x,) if torch.compiler.is_compiling() else x.split(AT_A_TIME)
        return torch.cat([detector(part) > 0 for part in parts])

    def pull_back(self, x: Tensor, theta: Tensor | None, group: Group) -> Clean | None:
        """Returns a group's readings on the clean scale, ``(..., width)``; None where no mechanism acts on them.

        Args:
            x: as measured, side by side.
            theta: of all groups, as :meth:`forward` returns it; None where every mechanism is the identity.
        """
        if theta is None or not isinstance(group, MovedGroup) or not group.theta_size:
            return None
        found = group.mechanism.pull_back(x, self.theta(theta, group))
        if not (self in _calibrated.get() and group.mechanism.composes):
            return found
        inner = group.mechanism.pull_back(found.x, self.theta(self.calibration, group))
        # noise that was added on the calibrated scale, which is linear to the clean one
        variance = inner.variance + found.variance * (2 * inner.log_slope).exp()
        return Clean(inner.x, found.log_slope + inner.log_slope, variance)

    def line(self, theta: Tensor, group: Group) -> Line:
        """Returns the line on which readings of every component are mapped, ``(..., width)``; no calibration in it.

        Args:
            theta: of all groups, ``(..., size)``.
            group: one without a mechanism, or with a :attr:`~pyro_cama.mechanisms.base.Mechanism.linear` one.
        """
        if isinstance(group, MovedGroup) and group.theta_size:
            return group.mechanism.line(self.theta(theta, group))
        nothing = theta.new_zeros(*theta.shape[:-1], group.width)
        return Line(nothing + 1.0, nothing, nothing, nothing)

    def line_compared(self, group: Group) -> Line:
        """Returns the line on which readings are moved on inside :meth:`calibrated`, ``(width,)``; elsewhere x~ = x."""
        calibrates = self in _calibrated.get() and isinstance(group, MovedGroup) and group.mechanism.composes
        return self.line(self.calibration if calibrates else torch.zeros_like(self.calibration), group)

    def undo(self, values: Mapping[str, Tensor], theta: Tensor, group: MovedGroup) -> Tensor | dict[str, Tensor]:
        """Returns the clean values x~ of a group's nodes.

        Returns:
            Continuous nodes side by side, ``(..., width)``; others by name, levels as probabilities, images with NaN
            where nothing is known of the clean one: what has left the frame, or was hidden.
        """
        if group.image:
            return {group.nodes[0]: self._undo_image(values[group.nodes[0]], theta, group)}
        if self.inputs.nodes[group.nodes[0]].type == "continuous":
            return self.invert(group.stack(values), theta, group, _ALL, None)
        return {
            name: self.invert(values[name], theta, group, group.component(name), self.inputs.frequencies(name))
            for name in group.nodes
        }

    def _undo_image(self, x: Tensor, theta: Tensor, group: MovedGroup) -> Tensor:
        mechanism, known = group.mechanism, known_pixels(x)
        x = filled(x)
        clean = self.invert(x, theta, group, _ALL, None)
        if not isinstance(mechanism, ImageMechanism):
            return clean
        with torch.no_grad():
            known = mechanism.known(known.to(x), self.theta(theta, group)) > 0.5
        return torch.where(known, clean, torch.nan)

    @contextmanager
    def calibrated(self) -> Iterator[None]:
        """Transforms every child by ``calibration`` first, inside: the density that adaptation compares.

        The conditional term of training buys accuracy with density: the training rows themselves would be explained
        better after a small manipulation.  Adaptation must not take that for a drift, so what the training rows ask
        for is found once, at the end of fit, and is part of the clean density while adapting - never of a prediction.
        """
        token = _calibrated.set(_calibrated.get() | {self})
        try:
            yield
        finally:
            _calibrated.reset(token)

    @torch.no_grad()
    def solve_for(self, m: Tensor, theta: Tensor, names: Collection[str] | None = None) -> None:
        """Changes the last layer of every NN_pM, as little as possible, so that ``theta(m_s)`` is as given for every s.

        Args:
            m: ``(s, dim)``, at most ``hidden`` of them; ``dim`` where m is shared, since the map is linear there.  Of
                more, theta comes as near as least squares can.
            theta: ``(s, size)``.
            names: of the manipulations whose numbers are to be so; None means all.
        """
        gap = theta - self.structured(m)
        for name, at in self.latent.slices.items():
            if names is not None and name not in names:
                continue
            network, own, numbers = self._network(name), m[..., at], self._numbers[name]
            last, body = network[-1], network[:-1]
            assert isinstance(last, nn.Linear)
            step = body(own) - body(torch.zeros_like(own[:1]))
            last.weight[: len(numbers)] += (torch.linalg.pinv(step) @ gap[..., numbers.to(gap.device)]).T

    def prior_scale(self) -> Tensor:
        """Returns the mechanisms' prior scales of theta, ``(size,)``."""
        weight = next(self.networks.parameters())
        parts = [g.mechanism.prior_scale(self.inputs.nodes[g.nodes[0]]).repeat(g.units) for g in self.groups]
        return torch.cat([*parts, torch.zeros(0)]).to(weight)

    def extent(self, moved: Tensor, corner: float = 0.0) -> Tensor:
        """Returns how far theta is from rest, ``(...)``, from theta in prior scales; see :class:`ThetaPrior`."""
        return self.prior.extent(moved, self.even(), corner)

    def felt(self, theta: Tensor) -> Tensor:
        """Returns how large a step in each number is felt as one of 1 is at theta = 0, ``(..., size)`` as theta."""
        found = torch.ones_like(theta)
        for group in self.groups:
            if group.theta_size and not group.image:
                own = self.theta(theta, group)
                found[..., self.slice_of(group)] = group.mechanism.felt(own).flatten(-2)
        return found

    def even(self) -> Tensor:
        """Returns which numbers of theta act by their size alone, bool ``(size,)``."""
        parts = [g.mechanism.even(self.inputs.nodes[g.nodes[0]]).repeat(g.units) for g in self.groups]
        return torch.cat([*parts, torch.zeros(0, dtype=torch.bool)]).to(self.calibration.device)

    @property
    def size(self) -> int:
        """Numbers in theta, the features of ``concat`` left out."""
        return self._features.start


def _hides(group: MovedGroup) -> bool:
    return isinstance(group.mechanism, ImageMechanism) and group.mechanism.hides


def _joined(places: list[Tensor]) -> Tensor:
    """Places in theta one after the other, ``(numbers,)``."""
    return torch.cat([torch.zeros(0, dtype=torch.long), *(own.flatten() for own in places)])
