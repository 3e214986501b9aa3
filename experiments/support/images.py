"""What the figures of the paper's section 4.1 share: the split, models fitted once and kept, and their scores.

Trained on the clean training images; adapted without labels on the first half of the test images; scored on the other
half.  Fitted models are kept under `<out>/models` and taken from there by every later script.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA, CausalGraph, datasets
from pyro_cama.attacks.tables import AttackableTable
from pyro_cama.data.batch import Batch
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.image_manipulations.kinds import manipulate, manipulate_all
from pyro_cama.inference.bounds import marginal, mean_bound
from pyro_cama.mechanisms.registry import mechanism_named
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage
from support import experiment, image_data
from support.experiment import Row
from support.image_baselines import CNN, network

IMAGE = "image"  # the node, in every graph here

# what simulated interventions and the augmented nets are told to expect; every row gets one of these
FAMILY = {"vertical_shift": 0.5, "horizontal_shift": 0.5, "rotation": 60.0}
SHIFTS = ("vertical_shift", "horizontal_shift")
MECHANISMS = {"warp": "cama", "concat": "concat"}  # side by side in figures; the methods of their rows
BY_METHOD = {method: mechanism for mechanism, method in MECHANISMS.items()}
OWN_METHODS = {"concat": "concat", "warp+intensity": "intensity"}  # of mechanisms beside another that is "cama"
ROBUST = 0.3  # eps of the adversarially trained net
LARGEST = 0.5  # shift among the images with which the paper augments those to train on


@dataclass(frozen=True)
class Setting:
    """How large an experiment is."""

    name: str
    data: str = "mnist"
    train: int | None = None  # images; None is all
    test: int | None = None  # images to adapt on, and to score
    epochs: int = 10
    simulated_epochs: int = 8  # a step counts twice there
    net_epochs: int = 5
    hidden: int = 256
    channels: int = 32
    steps: int = 100  # of an adaptation
    samples: int = 4  # of a prediction
    device: str = "cpu"

    @property
    def photographs(self) -> bool:
        """Whether the images are photographs."""
        return self.data == "cifar"

    @property
    def power(self) -> float:
        """Of the likelihood, in predictions."""
        return float(PHOTOGRAPHS["conditional_power"]) if self.photographs else 1.0


TRAINS = ("data", "train", "epochs", "simulated_epochs", "net_epochs", "hidden", "channels")  # makes a model another
SETTINGS = {
    "smoke": Setting("smoke", "digits", 300, 40, 2, 2, 2, 16, 4, 10, 1),
    "quick": Setting("quick", "mnist", 6000, 500, 6, 4, 4, 128, 16, 80, 2),
    "full": Setting("full"),
}
# for photographs, whose thousands of pixels are far from independent: a class term that is not lost in them
PHOTOGRAPHS: dict[str, Any] = {
    "conditional_power": 0.01, "conditional_weight": 1000.0, "conditional_share": 1.0, "paired": True,
    "density_epochs": 2, "validation": 0.05,
}  # fmt: skip
# CIFAR's two classes are a sixth of MNIST's images: more passes
FULL: dict[str, dict[str, Any]] = {"cifar": {"epochs": 40, "simulated_epochs": 30, "net_epochs": 20}}


def parser(description: str | None, methods: Iterable[str] = (), *, seeds: int = 1) -> argparse.ArgumentParser:
    """The arguments of every image experiment, `--methods` among them where there are some to choose from."""
    found = experiment.parser(description, seeds=seeds)
    image_data.add_data_dir(found)
    found.add_argument("--device", default="cpu", help="cpu or cuda")
    if names := [*methods]:
        found.add_argument("--methods", nargs="+", choices=names, default=names, help="which to measure; all")
    found.add_argument("--models", type=Path, help="folder of fitted models; <out>/models")
    return found


METHODS = {"net": "cnn", "net_bn": "cnn_bn", "net_pgd": "cnn_pgd", "input": "cnn"}


def published(row: Row) -> Row:
    """A row with the names that the image experiments share: a CAMA is told apart by its mechanism and its training."""
    method, trained_on = METHODS.get(row["method"], row["method"]), row["trained_on"]
    if row["method"] == "simulated":
        trained_on = "simulated interventions"
    if method in ("concat", "intensity", "simulated"):
        method = "cama"
    if method == "cnn" and trained_on.endswith("_shift"):
        method = "cnn_augmented"
    name = "cifar_binary" if row["experiment"] == "cifar" else row["experiment"]
    return row | {"experiment": name, "method": method, "trained_on": trained_on}


def told_apart(row: Row) -> Row:
    """A published row with the method's name that tables and pictures know, see :func:`published`.

    >>> told_apart({"method": "cama", "mechanism": "concat", "trained_on": "clean"})["method"]
    'concat'
    """
    method = next((own for own, written in METHODS.items() if written == row["method"]), row["method"])
    if method == "cama":
        method = OWN_METHODS.get(row["mechanism"], method)
        method = "simulated" if row["trained_on"] == "simulated interventions" else method
    return row | {"method": method}


@dataclass(frozen=True)
class Lab:
    """The images of an experiment, and the models fitted to them; pickled for every task.

    Attributes:
        setting: how large it all is.
        models: folder in which fitted models are kept.
        data_dir: where the images are.
        seed: of models and manipulations.
        graph: file name of the causal graph.
        data: the images, of those classes only that the graph's target has.
        adapt_y: labels of the images to adapt on: an attacker knows them, no adaptation does.
    """

    setting: Setting
    models: Path
    data_dir: Path | None = None
    seed: int = 0
    graph: str = "mnist"
    data: image_data.Protocol = field(init=False, repr=False, compare=False)
    adapt_y: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        classes = self.declared.nodes[self.target].classes
        images = _of_classes(image_data.load(self.setting.data, self.data_dir), classes)
        split = image_data.protocol(images, self.setting.test)
        train = slice(self.setting.train)
        whole = replace(split, train_x=image_data.pixels(images.train_x[train]), train_y=images.train_y[train])
        object.__setattr__(self, "data", whole)
        object.__setattr__(self, "adapt_y", images.test_y[: len(images.test_y) // 2][: self.setting.test])

    # data -----------------------------------------------------------------------------------------------------------

    def adapt_x(self, kind: str, severity: float) -> Tensor:
        """The unlabelled images, manipulated."""
        return manipulate(self.data.adapt_x, kind, severity, seed=1000 + self.seed) if severity else self.data.adapt_x

    def score_x(self, kind: str, severity: float) -> Tensor:
        """The images to score, manipulated."""
        return manipulate(self.data.score_x, kind, severity, seed=2000 + self.seed) if severity else self.data.score_x

    # our models -----------------------------------------------------------------------------------------------------

    def causal_graph(self, mechanism: str = "warp") -> CausalGraph:
        """The graph with a mechanism; `none` drops m, and `concat` has the paper's sizes of z and m."""
        raw = self.declared.to_dict()
        image = raw["nodes"][IMAGE]
        image["shape"], image["channels"] = list(self.data.train_x.shape[1:]), self.setting.channels
        if mechanism == "none":
            raw["latents"]["m"] = None
        else:
            raw["latents"]["m"]["mechanism"] = mechanism
            # a direction of m for each number of theta, to begin asleep
            numbers = mechanism_named(mechanism, "row", "").size(self.declared.nodes[IMAGE])
            raw["latents"]["m"]["dim"] = max(raw["latents"]["m"]["dim"], numbers)
        if mechanism == "concat":
            raw["latents"]["z"]["dim"], raw["latents"]["m"]["dim"] = 64, 32
        return CausalGraph(raw)

    @cached_property
    def declared(self) -> CausalGraph:
        """The graph as it comes with the package."""
        return datasets.graph(self.graph)

    @property
    def target(self) -> str:
        return self.declared.target

    def rows(self, x: Tensor, y: Tensor | None = None) -> dict[str, Any]:
        """Images and labels as a CAMA takes them."""
        found: dict[str, Any] = {IMAGE: x.cpu().numpy()}
        if y is not None:
            levels = self.declared.nodes[self.target].levels or ()
            found[self.target] = [levels[i] for i in y.tolist()]
        return found

    def cama(
        self, mechanism: str = "warp", interventions: Mapping[str, float] | None = None, **manipulated: float
    ) -> CAMA:
        """A fitted model.

        Args:
            interventions: kinds and severities that training simulates.
            manipulated: kind and severity of labelled manipulated rows beside the clean ones (augmentation).
        """
        name = f"cama-{mechanism}" + _suffix("sim", interventions) + _suffix("aug", manipulated)
        folder = self._folder(name)
        if folder.exists():
            return pyro_cama.load(folder, device=self.setting.device)
        s = self.setting
        cama = pyro_cama.build(self.causal_graph(mechanism), seed=self.seed, hidden=s.hidden, device=s.device)
        other = None
        if manipulated:
            moved = manipulate_all(self.data.train_x, manipulated, seed=self.seed)
            other = self.rows(moved, self.data.train_y)
        options = PHOTOGRAPHS if s.photographs else {}
        cama.fit(
            self.rows(self.data.train_x, self.data.train_y), other, {IMAGE: interventions} if interventions else None,
            max_epochs=s.simulated_epochs if interventions else s.epochs, batch_size=128, lr=2e-3, anneal=True,
            progress=False, **options,
        )  # fmt: skip
        cama.save(folder)
        return cama

    def cvae(self) -> CAMA:
        """The same networks without M: under do(m=0) they are trained alike, so the weights are those of `cama`."""
        s, cama = self.setting, self.cama()
        twin = pyro_cama.build(self.causal_graph("none"), seed=self.seed, hidden=s.hidden, device=s.device)
        twin.fit(self.rows(self.data.train_x, self.data.train_y), max_epochs=0, progress=False)  # learns the encoding
        mine = twin.modules.state_dict()
        twin.modules.load_state_dict({k: v for k, v in cama.modules.state_dict().items() if k in mine})
        return twin

    def adapted_cvae(self, cvae: CAMA, x: Tensor, *, lr: float = 1e-3, batch_size: int = 32) -> CAMA:
        """A copy whose decoder explains these images (eq. 7): nothing in it only adapts."""
        twin = cvae.copy()
        batch = twin.encode(self.rows(x))
        moving = [p for n, p in twin.model.named_parameters() if n.startswith(("networks.merges.1.", "networks.decod"))]

        def loss(part: Batch) -> Tensor:
            return -marginal(mean_bound(twin.log_weights(part, classes=True))).mean()

        source = Shuffled(batch.rows, row_selector(batch), batch_size, self.seed, self.setting.steps)
        optimise([Stage(loss, 1, lr)], twin.modules, moving, source, seed=self.seed, progress=False)
        return twin

    def adapted(self, cama: CAMA, x: Tensor, *, keep: str = "trusted", **options: Any) -> CAMA:
        """A copy adapted to unlabelled images, the clean training images beside them."""
        clean = self.rows(self.data.train_x[:10_000], self.data.train_y[:10_000])
        return cama.adapt(self.rows(x), clean, keep=keep, progress=False, **{"steps": self.setting.steps, **options})

    def accuracy(self, cama: CAMA, x: Tensor, y: Tensor | None = None, **options: Any) -> float:
        """On images, by default those to score; one without probabilities counts as wrong."""
        y = self.data.score_y if y is None else y
        options = {"samples": self.setting.samples, "power": self.setting.power, **options}
        p = torch.as_tensor(cama.predict_proba(self.rows(x), **options))
        return float(((p.argmax(1) == y) & p.isfinite().all(1)).float().mean())

    def attacked(
        self, attack: Callable[..., Tensor], classifier: CAMA | CNN, x: Tensor, y: Tensor, eps: float, **options: Any
    ) -> Tensor:
        """What an attack of :mod:`pyro_cama.attacks` makes of labelled images, within eps in every intensity.

        Args:
            options: of :class:`AttackableTable`, where the classifier is a CAMA.
        """
        if eps == 0:
            return x
        if isinstance(classifier, CNN):
            return attack(classifier.logits, x, y, eps=eps, bounds=(0.0, 1.0))
        part = AttackableTable(classifier, self.rows(x, y), **{"power": self.setting.power, **options})
        found = attack(part.logits, part.x, part.y, mask=part.mask, eps=eps, bounds=part.bounds)
        return found.reshape(x.shape).to(x)

    # baselines ------------------------------------------------------------------------------------------------------

    def net(self, name: str = "net", augment: Mapping[str, float] | None = None, eps: float = 0.0) -> CNN:
        """A fitted net: `net`, or `net_bn` with batch normalisation.

        Args:
            augment: kinds and severities; every training image gets one of them.
            eps: of adversarial training.
        """
        s = self.setting
        cnn = CNN(
            channels=s.channels, batch_norm=name == "net_bn", epochs=s.net_epochs, seed=self.seed, device=s.device,
            eps=eps, augment=partial(augmented, dict(augment)) if augment else None,
        )  # fmt: skip
        folder = self._folder(name + _suffix("aug", augment) + (f"-pgd{eps:g}" if eps else ""))
        file = folder.with_name(f"{folder.name}.safetensors")  # with_suffix would cut the name at a severity's point
        cnn.shape = tuple(self.data.train_x.shape[1:])
        if file.exists():
            cnn.net = network(cnn.shape, int(self.data.train_y.max()) + 1, cnn.channels, cnn.batch_norm).to(s.device)
            cnn.net.load_state_dict(load_file(file, device=s.device))
            cnn.net.eval()
            return cnn
        cnn.fit(self.data.train_x, self.data.train_y)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        save_file({k: v.contiguous() for k, v in cnn.net.state_dict().items()}, new)
        new.replace(file)
        return cnn

    def _folder(self, name: str) -> Path:
        trains = {name: getattr(self.setting, name) for name in TRAINS}
        trains |= PHOTOGRAPHS if self.setting.photographs else {}
        said = json.dumps(trains | {"seed": self.seed, "graph": self.graph}, sort_keys=True)
        return self.models / f"{Path(self.graph).stem}-{name}-{self.setting.name}-{zlib.crc32(said.encode()):08x}"


def _of_classes(images: image_data.Images, classes: int) -> image_data.Images:
    """The images of the first so many classes."""
    if images.classes <= classes:
        return images
    train, test = images.train_y < classes, images.test_y < classes
    return replace(
        images, train_x=images.train_x[train], train_y=images.train_y[train],
        test_x=images.test_x[test], test_y=images.test_y[test],
    )  # fmt: skip


def augmented(kinds: Mapping[str, float], x: Tensor, seed: int) -> Tensor:
    """Every image by one of the kinds."""
    return manipulate_all(x, kinds, seed=seed, one_of=True)


def beside_clean(kind: str) -> dict[str, float]:
    """`augment` of a net: an image is as likely to be shifted, by at most `LARGEST`, as to stay clean, shifted by 0.

    >>> beside_clean("vertical_shift")
    {'vertical_shift': 0.5, 'horizontal_shift': 0.0}
    """
    other = next(name for name in SHIFTS if name != kind)
    return {kind: LARGEST, other: 0.0}


def _suffix(what: str, kinds: Mapping[str, float] | None) -> str:
    return f"-{what}-" + "-".join(f"{kind}{value:g}" for kind, value in kinds.items()) if kinds else ""


def lab_of(options: argparse.Namespace, seed: int, **more: Any) -> dict[str, Any]:
    """What a task needs to make its `Lab`."""
    found = {
        "setting": experiment.size(options), "device": options.device, "seed": seed,
        "models": str(options.models or options.out / "models"), "data_dir": str(options.data_dir or "") or None,
    }  # fmt: skip
    return found | more


def open_lab(task: Mapping[str, Any], graph: str = "mnist", data: str | None = None) -> Lab:
    """The `Lab` of a task made by :func:`lab_of`."""
    setting = replace(SETTINGS[task["setting"]], device=task["device"])
    if data is not None and setting.name != "smoke":
        setting = replace(setting, data=data, **(FULL.get(data, {}) if setting.name == "full" else {}))
    return Lab(setting, Path(task["models"]), Path(task["data_dir"]) if task["data_dir"] else None, task["seed"], graph)


Fit = Callable[[Lab], object]


def prepare(fits: Sequence[str], graph: str = "mnist", data: str | None = None, **task: Any) -> list[experiment.Row]:
    """Fits and keeps models; the tasks that follow find them."""
    lab = open_lab(task, graph, data)
    for fit in fits:
        FITS[fit](lab)
    return []


FITS: dict[str, Fit] = {
    "warp": lambda lab: lab.cama("warp"),
    "concat": lambda lab: lab.cama("concat"),
    "warp+intensity": lambda lab: lab.cama("warp+intensity"),
    "auto": lambda lab: lab.cama("auto"),
    "simulated": lambda lab: lab.cama("warp", FAMILY),
    "net": lambda lab: lab.net(),
    "net_bn": lambda lab: lab.net("net_bn"),
    "net_pgd": lambda lab: lab.net(eps=ROBUST),
}
