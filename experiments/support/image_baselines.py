"""Image classifiers to compare with: small CNNs, and what adapts a copy of one to images without labels.

`CNN` covers those that train with labels:

- `CNN()`: plain; `CNN(batch_norm=True)`: with batch normalisation.
- `CNN(augment=f)`: every batch goes through `f(images, seed)`. With the tested manipulation as `f` it is the
  supervised oracle: the same net, trained with labels where it is scored.
- `CNN(eps=0.3)`: every batch is attacked. Madry et al., "Towards deep learning models resistant to adversarial
  attacks", ICLR 2018.

Adaptations, `f(source, images, ...) -> CNN`, the source untouched:

- `bn_adapt`: batch normalisation with the statistics of the new images. Schneider et al., "Improving robustness
  against common corruptions by covariate shift adaptation", NeurIPS 2020.
- `tent`: these, then gains and offsets of low entropy. Wang et al., "Tent: fully test-time adaptation by entropy
  minimization", ICLR 2021.
- `shot_im`: information maximisation on the features. Liang, Hu and Feng, "Do we really need to access the source
  data?", ICML 2020 (SHOT-IM).
- `t3a`: another linear classifier, of the most confident features. Iwasawa and Matsuo, "Test-time classifier
  adjustment module for model-agnostic domain generalization", NeurIPS 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from pyro_cama._arguments import expect
from pyro_cama.attacks.gradient import pgd
from support.image_data import expect_codes, expect_images, pixels

Augment = Callable[[Tensor, int], Tensor]  # images in [0, 1] and a seed, to images of the same shape
CHUNK = 1000  # images that go through a net at once where nothing is learned
HIDDEN = 128  # units of the hidden layer


class Network(nn.Module):
    """A linear head on features."""

    def __init__(self, features: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, height, width) -> logits (rows, classes)."""
        return self.head(self.features(x))


def network(shape: Sequence[int], classes: int, channels: int, batch_norm: bool) -> Network:
    """Three convolutions, 3 by 3 with stride 2, and a hidden layer.

    >>> network((1, 28, 28), 10, 32, batch_norm=False)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([shape[0], channels, channels, channels]):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if batch_norm else [nn.ReLU()]
    height, width = (-(-side // 8) for side in shape[1:])  # halved three times, rounded up
    layers += [nn.Flatten(), nn.Linear(channels * height * width, HIDDEN)]
    layers += [nn.BatchNorm1d(HIDDEN), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return Network(nn.Sequential(*layers), nn.Linear(HIDDEN, classes))


@dataclass(eq=False, kw_only=True)
class CNN:
    """A small convolutional net, trained with Adam and a cosine-annealed rate.

    Equal seeds give equal nets on a CPU; torch's global random state is left as it was.  A prediction does not depend
    on the images beside it.

    Args:
        channels: of each convolution.
        batch_norm: batch normalisation after every layer but the head.
        augment: what every batch goes through, with another seed each time.
        eps: of the PGD attack (linf, intensities in [0, 1]) on every batch; 0 for none.  It grows to this over the
            first third of the steps: small nets faced with all of it at once may stay at chance.  Unlike Madry's it
            begins at the image itself.
        attack_steps: of that attack.
        epochs: over all images.
        batch_size: at least; images are dealt out evenly.
        rate: Adam's first.
        label_smoothing: SHOT's, for its source.
        seed: of the weights, batches, augmentation and attacks.
        device: to train and predict on.

    Attributes:
        net: once fitted, in eval mode.
        shape: of the images fitted on: channels, height, width.

    Raises:
        ValueError: an argument is out of range.

    >>> y = torch.arange(64) % 2
    >>> dark_or_bright = y[:, None, None, None].expand(64, 1, 8, 8).float()
    >>> CNN(channels=4, epochs=20, batch_size=16).fit(dark_or_bright, y).accuracy(dark_or_bright, y)
    1.0
    """

    channels: int = 32
    batch_norm: bool = False
    augment: Augment | None = None
    eps: float = 0.0
    attack_steps: int = 7
    epochs: int = 5
    batch_size: int = 128
    rate: float = 2e-3
    label_smoothing: float = 0.1
    seed: int = 0
    device: str | torch.device = "cpu"
    net: Network = field(init=False, repr=False)
    shape: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("channels", "attack_steps", "epochs"):
            expect("CNN", name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        expect("CNN", "batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        expect("CNN", "eps", self.eps, self.eps >= 0, "at least 0")
        expect("CNN", "rate", self.rate, self.rate > 0, "more than 0")
        expect("CNN", "label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "a number in [0, 1)")

    def fit(self, x: Tensor, y: Tensor) -> Self:
        """Learns, from new weights.

        Args:
            x: ``(rows, channels, height, width)``, uint8 or floats in [0, 1]; at least 2 rows.
            y: class codes from 0, ``(rows,)``, int64.

        Raises:
            ValueError: shapes, dtypes or intensities that do not fit; or what `augment` gives has another shape.
        """
        expect_images("CNN.fit", "x", x)
        expect("CNN.fit", "len(x)", len(x), len(x) >= 2, "at least 2 images")
        expect_codes("CNN.fit", "y", y, len(x))
        low, high = x.min().item(), x.max().item()
        fits = x.dtype == torch.uint8 or (low >= 0 and high <= 1)
        expect("CNN.fit", "x", f"{low:g} to {high:g}", fits, "intensities in [0, 1]; divide by the largest")
        self.shape = tuple(x.shape[1:])
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            self.net = network(self.shape, int(y.max()) + 1, self.channels, self.batch_norm).to(self.device)
        x, y = x.to(self.device), y.to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        steps = self.epochs * max(1, len(x) // self.batch_size)

        def loss(rows: Tensor, done: float) -> Tensor:
            seed = int(torch.randint(2**31, (), generator=generator))
            batch = self._trained_on(_input(self, x[rows]), y[rows], min(1.0, 3 * done), seed)
            return F.cross_entropy(self.net(batch), y[rows], label_smoothing=self.label_smoothing)

        batches = _endless(len(x), self.batch_size, generator)
        _minimise(self.net, list(self.net.parameters()), loss, batches, steps, self.rate)
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Logits, ``(rows, classes)``, on the device of x; differentiable in x.

        Args:
            x: ``(rows, channels, height, width)``, uint8 or floats in [0, 1].

        Raises:
            ValueError: not fitted, or x has another shape.
        """
        _expect_fitting("CNN.logits", self, x)
        return torch.cat([self.net(_input(self, part)) for part in x.split(CHUNK)]).to(x.device)

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """Probabilities, ``(rows, classes)``; arguments and errors are those of :meth:`logits`."""
        return self.logits(x).softmax(1)

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """The share of images whose label is predicted.

        Args:
            x: as in :meth:`logits`.
            y: class codes, ``(rows,)``.

        Raises:
            ValueError: not fitted, there are no images, or shapes that do not fit.
        """
        expect("CNN.accuracy", "len(x)", len(x), len(x) >= 1, "at least 1 image")
        expect_codes("CNN.accuracy", "y", y, len(x))
        return (self.predict_proba(x).argmax(1) == y.to(x.device)).double().mean().item()

    def _trained_on(self, x: Tensor, y: Tensor, share: float, seed: int) -> Tensor:
        """A batch as the net trains on it, with a share of eps."""
        if self.augment is not None:
            shape, x = x.shape, self.augment(x, seed)
            expect("CNN.fit", "augment(x).shape", tuple(x.shape), x.shape == shape, f"{tuple(shape)}, as x")
        if self.eps:
            # attacked as it predicts: with the running statistics
            self.net.eval()
            x = pgd(self.net, x, y, eps=share * self.eps, steps=self.attack_steps, bounds=(0.0, 1.0), seed=seed)
            self.net.train()
        return x


# adaptations --------------------------------------------------------------------------------------------------------


def bn_adapt(source: CNN, x: Tensor, *, batch_size: int = 256) -> CNN:
    """A copy whose batch normalisation has the statistics of these images, and keeps them.

    Args:
        source: fitted, with `batch_norm`.
        x: images without labels, at least 2, as in :meth:`CNN.fit`.
        batch_size: at least; statistics are means over batches.

    Raises:
        ValueError: the source has no batch normalisation or is not fitted, or x does not fit it.
    """
    adapted, images = _copy("bn_adapt", source, x, batch_norm=True)
    _take_statistics(adapted, images, batch_size)
    return adapted


def tent(source: CNN, x: Tensor, *, steps: int = 100, batch_size: int = 128, rate: float = 1e-3) -> CNN:
    """A copy whose batch normalisation has gains and offsets for which predictions of these images are confident.

    Statistics are those of each batch while it adapts, and then those of all images, so that a prediction does not
    depend on the images beside it.  Nothing else moves.

    Args:
        source: fitted, with `batch_norm`.
        x: images without labels, at least 2, as in :meth:`CNN.fit`.
        steps, batch_size, rate: of Adam.

    Raises:
        ValueError: the source has no batch normalisation or is not fitted, or x does not fit it.
    """
    adapted, images = _copy("tent", source, x, batch_norm=True)
    norms = [layer for layer in adapted.net.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    moving = [parameter for layer in norms for parameter in layer.parameters()]
    _adapt(adapted, images, lambda logits: entropy(logits.softmax(1)).mean(), moving, steps, batch_size, rate)
    return adapted


def shot_im(source: CNN, x: Tensor, *, steps: int = 400, batch_size: int = 128, rate: float = 5e-4) -> CNN:
    """A copy whose features make confident and diverse predictions of these images; the head stays.

    It takes the classes to be about equally frequent.  A source with `batch_norm` serves it far better, as in SHOT's
    own nets, which have it before the head: elsewhere features can grow confident by their scale alone.

    Args:
        source: fitted.
        x: images without labels, at least 2, as in :meth:`CNN.fit`.
        steps, batch_size, rate: of Adam.

    Raises:
        ValueError: the source is not fitted, or x does not fit it.
    """
    adapted, images = _copy("shot_im", source, x)
    moving = list(adapted.net.features.parameters())
    _adapt(adapted, images, lambda logits: -information(logits), moving, steps, batch_size, rate)
    return adapted


@torch.no_grad()
def t3a(source: CNN, x: Tensor, *, keep: int = 100) -> CNN:
    """A copy whose head holds prototypes: for each class, the mean direction of its most confident features.

    The head's own weights are among the features; a feature's class is the one that the source predicts.  With no
    images the head is its own weights at length 1, without offsets.

    Args:
        source: fitted.
        x: images without labels, as in :meth:`CNN.logits`; may be none.
        keep: features of a class, those of lowest entropy.

    Raises:
        ValueError: the source is not fitted, x does not fit it, or `keep` is below 1.
    """
    expect("t3a", "keep", keep, keep >= 1, "at least 1")
    adapted, images = _copy("t3a", source, x, least=0)
    head = adapted.net.head
    found = [adapted.net.features(_input(adapted, part)) for part in images.split(CHUNK)]
    support = torch.cat([head.weight, *found])
    logits = head(support)
    doubt, code = entropy(logits.softmax(1)), logits.argmax(1)
    prototypes = []
    for label in range(len(head.weight)):
        own = (code == label).nonzero().squeeze(1)
        own = own[doubt[own].argsort(stable=True)[:keep]]
        prototypes.append(F.normalize(support[own], dim=1).sum(0))
    adapted.net.head = nn.utils.skip_init(nn.Linear, HIDDEN, len(prototypes), bias=False, device=head.weight.device)
    adapted.net.head.weight.copy_(F.normalize(torch.stack(prototypes), dim=1))
    return adapted


ADAPTATIONS: dict[str, Callable[[CNN, Tensor], CNN]] = {
    "bn_adapt": bn_adapt,
    "tent": tent,
    "shot_im": shot_im,
    "t3a": t3a,
}


def entropy(proba: Tensor) -> Tensor:
    """Of each distribution in nats: (..., classes) -> (...)."""
    return torch.special.entr(proba).sum(-1)


def information(logits: Tensor) -> Tensor:
    """Mutual information of image and label in nats: entropy of the mean prediction less mean entropy.

    >>> information(torch.tensor([[99.0, 0.0], [0.0, 99.0]])), information(torch.zeros(2, 2))
    (tensor(0.6931), tensor(0.))
    """
    proba = logits.softmax(1)
    return entropy(proba.mean(0)) - entropy(proba).mean()


# what they share ----------------------------------------------------------------------------------------------------


def _copy(where: str, source: CNN, x: Tensor, *, batch_norm: bool = False, least: int = 2) -> tuple[CNN, Tensor]:
    """A copy of the source, and the images on its device."""
    _expect_fitting(where, source, x)
    expect(where, "len(x)", len(x), len(x) >= least, f"at least {least} images")
    fits = source.batch_norm or not batch_norm
    expect(where, "source.batch_norm", source.batch_norm, fits, "a net with batch normalisation: CNN(batch_norm=True)")
    adapted = copy.copy(source)
    adapted.net = copy.deepcopy(source.net)
    return adapted, x.to(source.device)


def _expect_fitting(where: str, net: CNN, x: Tensor) -> None:
    if not hasattr(net, "net"):
        raise ValueError(f"{where}: the net is not fitted; call fit(x, y) first")
    expect_images(where, "x", x)
    expect(where, "x.shape", tuple(x.shape), tuple(x.shape[1:]) == net.shape, f"(rows, *{net.shape}), as fitted on")


def _input(net: CNN, x: Tensor) -> Tensor:
    """Images as the net's layers read them."""
    return pixels(x.to(net.device)).to(net.net.head.weight.dtype)


def _adapt(
    adapted: CNN,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    moving: Sequence[Tensor],
    steps: int,
    batch_size: int,
    rate: float,
) -> None:
    """Minimises a loss of the logits of images."""
    expect("adapt", "steps", steps, steps >= 1, "at least 1")
    expect("adapt", "batch_size", batch_size, batch_size >= 2, "at least 2")
    batches = _endless(len(x), batch_size, torch.Generator().manual_seed(adapted.seed))
    _minimise(adapted.net, moving, lambda rows, _: loss(adapted.net(_input(adapted, x[rows]))), batches, steps, rate)
    _take_statistics(adapted, x, batch_size)


def _take_statistics(adapted: CNN, x: Tensor, batch_size: int) -> None:
    batches = _batches(len(x), batch_size, torch.Generator().manual_seed(adapted.seed))
    update_bn((_input(adapted, x[rows]) for rows in batches), adapted.net)


def _minimise(
    net: Network,
    moving: Sequence[Tensor],
    loss: Callable[[Tensor, float], Tensor],
    batches: Iterator[Tensor],
    steps: int,
    rate: float,
) -> None:
    """Adam on `loss(rows, share of the steps done)` over some parameters; all others are left alone."""
    optimiser = torch.optim.Adam(moving, lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    net.train()
    for step in range(steps):
        optimiser.zero_grad()
        loss(next(batches), (step + 1) / steps).backward(inputs=list(moving))
        optimiser.step()
        schedule.step()
    net.eval()


def _batches(rows: int, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """All rows in random order, dealt out evenly: `size` or more each, for batch normalisation cannot take one row."""
    return torch.randperm(rows, generator=generator).tensor_split(max(1, rows // size))


def _endless(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from _batches(rows, size, generator)
