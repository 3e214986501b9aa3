"""The distribution of an image over which something lies."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor


class Covered(TorchDistribution):
    """An image's distribution where some pixels are hidden: these have a colour of their own, whatever the causes.

    Which pixels, s, is a latent of its own, of which a point is known: so log p(x, s | ...) is scored.  p(s) is a
    Markov mesh (Abend, Harley and Kanal 1965): a pixel's four neighbours to the left and above tell how likely it is
    hidden, by rates of which every one is as likely as another, and which are integrated out.  So shapes are more
    likely than as many scattered pixels, and there is no parameter to choose.

    Args:
        seen: of the pixels that are not hidden, batch shape ``(..., C, H, W)``.
        hidden: which are, bool ``(..., 1, H, W)``.
        manipulated: whether anything may lie over the image, bool ``(..., 1, 1, 1)``: where not, this is ``seen``.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's way

    def __init__(self, seen: TorchDistribution, hidden: Tensor, manipulated: Tensor) -> None:
        self.seen, self.hidden, self.manipulated = seen, hidden, manipulated
        shape = torch.broadcast_shapes(seen.batch_shape, hidden.shape, manipulated.shape)
        super().__init__(torch.Size(shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As what is seen."""
        return bool(self.seen.has_rsample)

    @property
    def support(self) -> Any:
        """That of the image."""
        return self.seen.support

    @property
    def mean(self) -> Tensor:
        """The mean of the image beneath."""
        return self.seen.mean.expand(self.batch_shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch's own
        """Draws the image beneath."""
        drawn: Tensor = self.seen.expand(self.batch_shape).sample(sample_shape)
        return drawn

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch's own
        """Draws the image beneath, with gradients."""
        drawn: Tensor = self.seen.expand(self.batch_shape).rsample(sample_shape)
        return drawn

    def expand(self, batch_shape: Any, _instance: Any = None) -> Covered:
        """Returns the same for a larger batch."""
        return Covered(self.seen.expand(batch_shape), self.hidden, self.manipulated)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(x, s | ...) of an image, what the overlay adds dealt out to its pixels, ``(..., C, H, W)``."""
        seen = self.seen.log_prob(value)
        adds = _log_ink(self.seen, value, self.hidden) + log_shape(self.hidden)
        adds = adds - torch.where(self.hidden, seen, 0.0).sum((-3, -2, -1), keepdim=True)
        return seen + torch.where(self.manipulated, adds, 0.0) / math.prod(seen.shape[-3:])


def _log_ink(seen: TorchDistribution, value: Tensor, hidden: Tensor) -> Tensor:
    """Log density of the hidden intensities, ``(..., 1, 1, 1)``: of a Bernoulli image one colour for all of an overlay,
    every one as likely, which is integrated out; else each is uniform on [0, 1].
    """
    n = hidden.sum((-2, -1), keepdim=True).to(value)
    if not isinstance(seen, dist.Bernoulli):
        return 0.0 * n.sum(-3, keepdim=True)
    lit = (value * hidden).sum((-2, -1), keepdim=True)
    return (torch.lgamma(lit + 1) + torch.lgamma(n - lit + 1) - torch.lgamma(n + 2)).sum(-3, keepdim=True)


def log_shape(hidden: Tensor) -> Tensor:
    """Returns log p(s), ``(..., 1, 1, 1)``, of hidden pixels, bool ``(..., 1, H, W)``.

    Of n pixels whose neighbours look alike k are hidden with probability k! (n - k)! / (n + 1)!.
    """
    framed = F.pad(hidden.long(), (1, 1, 1, 0))  # beyond the frame nothing is hidden
    left, above = framed[..., 1:, :-2], framed[..., :-1, 1:-1]
    code = left + 2 * above + 4 * framed[..., :-1, :-2] + 8 * framed[..., :-1, 2:]
    alike = code.unsqueeze(-4) == torch.arange(16, device=hidden.device)[:, None, None, None]
    dtype = torch.get_default_dtype()
    n = alike.sum((-3, -2, -1), keepdim=True).to(dtype)
    k = (alike & hidden.unsqueeze(-4)).sum((-3, -2, -1), keepdim=True).to(dtype)
    return (torch.lgamma(k + 1) + torch.lgamma(n - k + 1) - torch.lgamma(n + 2)).sum(-4)
