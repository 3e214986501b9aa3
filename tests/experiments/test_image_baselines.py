"""Images to experiment on, and the image baselines (experiments/support)."""

import argparse
import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from pyro_cama.attacks.gradient import pgd
from support import image_baselines, image_data
from support.image_baselines import ADAPTATIONS, CNN, bn_adapt, entropy, information, network, shot_im, t3a, tent
from support.image_data import Images, add_data_dir, cifar, digits, load, mnist, pixels, protocol

# images -------------------------------------------------------------------------------------------------------------


def numbered(rows: int = 11) -> Images:
    """Every test image tells its own row."""
    x = torch.arange(rows, dtype=torch.uint8)[:, None, None, None].expand(rows, 1, 8, 8)
    return Images(x[:4], torch.arange(4), x, torch.arange(rows), "numbered")


def test_digits_are_scikit_learn_s_each_in_one_part() -> None:
    images, bunch = digits(), load_digits()
    assert images.train_x.shape == (1000, 1, 8, 8)
    assert images.test_x.shape == (797, 1, 8, 8)
    assert (images.shape, images.classes, images.name) == ((1, 8, 8), 10, "digits")
    both = torch.cat([images.train_x, images.test_x])[:, 0].mul(16).flatten(1)
    codes = torch.cat([images.train_y, images.test_y])
    found = sorted((*row, code) for row, code in zip(both.int().tolist(), codes.tolist(), strict=True))
    assert found == sorted((*map(int, row), int(y)) for row, y in zip(bunch.data, bunch.target, strict=True))
    shares = [torch.bincount(y) / len(y) for y in (images.train_y, images.test_y)]
    torch.testing.assert_close(shares[0], shares[1], atol=2e-3, rtol=0)
    assert torch.equal(digits().test_x, images.test_x)


def test_digits_upsampled() -> None:
    small, large = digits(), digits(size=16)
    assert large.shape == (1, 16, 16)
    assert torch.equal(large.train_y, small.train_y)
    assert large.train_x.min() == 0
    assert large.train_x.max() <= 1
    # bilinear: an inner pixel is 9/16 of its own, 3/16 of two neighbours, 1/16 of the one across
    x = small.train_x[:, 0]
    by_hand = (9 * x[:, 3, 3] + 3 * x[:, 2, 3] + 3 * x[:, 3, 2] + x[:, 2, 2]) / 16
    torch.testing.assert_close(large.train_x[:, 0, 6, 6], by_hand)


def test_protocol_adapts_on_the_first_half_and_scores_the_second() -> None:
    split = protocol(numbered(11))
    assert split.adapt_x[:, 0, 0, 0].mul(255).round().tolist() == [0, 1, 2, 3, 4]
    assert split.score_x[:, 0, 0, 0].mul(255).round().tolist() == split.score_y.tolist() == [5, 6, 7, 8, 9, 10]
    assert split.train_y.tolist() == [0, 1, 2, 3]
    assert all(x.dtype == torch.float32 for x in (split.train_x, split.adapt_x, split.score_x))
    few = protocol(numbered(11), limit=2)
    assert few.train_y.tolist() == [0, 1]
    assert few.adapt_x[:, 0, 0, 0].mul(255).round().tolist() == [0, 1]
    assert few.score_y.tolist() == [5, 6]


def test_pixels() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pixels(levels).mul(255).round().to(torch.uint8), levels)
    assert pixels(levels).dtype == torch.float32
    double = torch.rand(3, dtype=torch.float64)
    assert pixels(double) is double


def write_cifar(folder: Path, **changed: np.ndarray) -> dict[str, np.ndarray]:
    """A small file of the kind: the classes one after the other, a frog's pixels odd."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, rows in (("train", 40), ("test", 20)):
        arrays[f"y_{part}"] = y = np.repeat([0, 1], rows // 2).astype(np.uint8)
        even = rng.integers(0, 128, (rows, 32, 32, 3)) * 2
        arrays[f"x_{part}"] = (even + y[:, None, None, None]).astype(np.uint8)
    np.savez(folder / image_data.CIFAR_FILE, allow_pickle=True, **(arrays | changed))
    return arrays


def test_cifar_is_shuffled_with_its_labels(tmp_path: Path) -> None:
    arrays = write_cifar(tmp_path)
    images = cifar(tmp_path)
    assert images.shape == (3, 32, 32)
    assert (images.train_x.dtype, images.classes) == (torch.uint8, 2)
    assert "JPEG" in images.note
    for x, y, part in ((images.train_x, images.train_y, "train"), (images.test_x, images.test_y, "test")):
        assert torch.equal(x[:, 0, 0, 0].long() % 2, y)
        given = sorted(row.tobytes() for row in arrays[f"x_{part}"])
        assert sorted(row.tobytes() for row in x.permute(0, 2, 3, 1).contiguous().numpy()) == given
        half = y[: len(y) // 2].float().mean()
        assert 0.2 < half < 0.8
    assert torch.equal(cifar(tmp_path).train_x, images.train_x)


def test_cifar_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ten:
        class_to_idx = {"airplane": 0, "cat": 3, "frog": 6}  # noqa: RUF012

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert root == tmp_path
            assert not download
            self.targets = [6, 3, 0, 0, 6, 3] * 5
            self.data = np.zeros((30, 32, 32, 3), dtype=np.uint8) + np.reshape(self.targets, (30, 1, 1, 1)).astype("u1")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Ten)
    images = cifar(tmp_path)
    assert images.train_x.shape == (20, 3, 32, 32)
    assert torch.equal(images.train_x[:, 0, 0, 0].long(), images.train_y * 6)
    assert images.train_y.sum() == 10
    assert images.note == ""


def write_mnist(root: Path, rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A few random images as IDX files: magic number, sizes, bytes."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8), np.arange(rows, dtype=np.uint8)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        sizes = np.array([0x803, rows, 28, 28], dtype=">i4")
        (raw / f"{part}-images-idx3-ubyte").write_bytes(sizes.tobytes() + x.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, rows], dtype=">i4").tobytes() + y.tobytes())
    return x, y


def test_mnist_from_idx_files_in_a_folder_given_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = write_mnist(tmp_path)
    images = mnist(tmp_path)
    assert images.train_x.dtype == torch.uint8
    assert torch.equal(images.train_x[:, 0], torch.as_tensor(x))
    assert images.test_y.tolist() == y.tolist()
    monkeypatch.setenv(image_data.VARIABLE, str(tmp_path))
    assert torch.equal(load("mnist").test_x, images.test_x)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"cannot be read from .*other"):  # what is given goes first
        mnist(tmp_path / "other")


def test_mnist_itself(data_dir: Path) -> None:
    images = mnist(data_dir)
    assert images.train_x.shape == (60000, 1, 28, 28)
    assert images.test_x.shape == (10000, 1, 28, 28)
    assert images.test_y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert images.train_x.numpy().mean() / 255 == pytest.approx(0.1307, abs=5e-5), "as everybody standardises it"
    split = protocol(images, limit=100)
    assert torch.equal(split.score_x, pixels(images.test_x[5000:5100]))


def test_cifar_itself(data_dir: Path) -> None:
    images = cifar(data_dir)
    assert images.train_x.shape == (10000, 3, 32, 32)
    assert images.test_x.shape == (2000, 3, 32, 32)
    assert torch.bincount(images.train_y).tolist() == [5000, 5000]
    assert 400 < images.test_y[:1000].sum() < 600
    airplane, frog = (pixels(images.train_x[images.train_y == y][::10]).mean((0, 2, 3)) for y in (0, 1))
    assert airplane[2] > frog[2] + 0.1, "more blue in the sky"


def test_absent_and_broken_files_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(image_data.VARIABLE, raising=False)
    for loader, expected in ((mnist, "MNIST/raw"), (cifar, image_data.CIFAR_FILE)):
        with pytest.raises(ValueError, match=re.escape(f"expected a folder that holds {expected}")) as error:
            loader(tmp_path)
        assert "--data-dir" in str(error.value)
        with pytest.raises(ValueError, match=r"image_data\(data_dir=.*a folder that exists"):
            loader(tmp_path / "nowhere")
    monkeypatch.setenv(image_data.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"\$PYRO_CAMA_DATA.*a folder that exists"):
        mnist()
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="MNIST cannot be read from"):
        mnist(tmp_path)
    (tmp_path / image_data.CIFAR_FILE).write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"npz cannot be read .* expected arrays x_train"):
        cifar(tmp_path)
    write_cifar(tmp_path, x_test=np.zeros((20, 3, 32, 32), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 of \(rows, 32, 32, 3\)"):
        cifar(tmp_path)
    write_cifar(tmp_path, y_test=np.zeros(19, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"y=.*\(19,\)\)\): expected \(20,\), each 0 or 1"):
        cifar(tmp_path)
    write_cifar(tmp_path, y_test=np.full(20, 6))
    with pytest.raises(ValueError, match="each 0 or 1"):
        cifar(tmp_path)
    write_cifar(tmp_path, y_test=np.array([{}] * 20))
    with pytest.raises(ValueError, match=r"cannot be read \(ValueError: Object arrays"):
        cifar(tmp_path)


@pytest.mark.parametrize(("loader", "dataset"), [(mnist, "MNIST"), (cifar, "CIFAR10")])
def test_without_a_folder_they_are_downloaded_and_a_failure_says_so(
    loader: Callable[[], Images], dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(self: Any) -> None:
        asked.append(Path(self.root))
        raise OSError("no network")

    monkeypatch.delenv(image_data.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(f"torchvision.datasets.{dataset}.download", download)
    with pytest.raises(ValueError, match=f"{dataset} could not be downloaded to .*no network.*--data-dir"):
        loader()
    assert asked == [tmp_path / "pyro_cama"]


def test_arguments_of_data() -> None:
    parser = argparse.ArgumentParser()
    add_data_dir(parser)
    assert parser.parse_args([]).data_dir is None
    assert parser.parse_args(["--data-dir", "there"]).data_dir == Path("there")
    with pytest.raises(ValueError, match=r"load\(name='minst'\): expected one of mnist, cifar, digits"):
        load("minst")
    with pytest.raises(ValueError, match=r"digits\(size=4\): expected at least 8"):
        digits(size=4)
    with pytest.raises(ValueError, match=r"protocol\(limit=0\)"):
        protocol(numbered(), limit=0)
    x, y = torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    for parts, message in (
        ((x[0], y, x, y), r"train_x.shape=\(1, 8, 8\)"),
        ((x.long(), y, x, y), r"train_x.dtype=torch.int64"),
        ((x, y.float(), x, y), r"train_y.dtype=torch.float32"),
        ((x, y - 1, x, y), r"train_y.min\(\)=-1"),
        ((x, y, x, y[:2]), r"test_y.shape=\(2,\)"),
        ((x, y, x[..., :7], y), r"test_x.shape=\(3, 1, 8, 7\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Images(*parts, "wrong")


# nets ---------------------------------------------------------------------------------------------------------------

Net = dict[str, Any]
SMALL: Net = {"epochs": 20, "batch_size": 64, "rate": 5e-3}
IMAGES = digits()
SPLIT = protocol(IMAGES)


def fitted(**options: Any) -> CNN:
    return CNN(**(SMALL | options)).fit(IMAGES.train_x, IMAGES.train_y)


@pytest.fixture(scope="module")
def plain() -> CNN:
    return fitted()


@pytest.fixture(scope="module")
def normed() -> CNN:
    return fitted(batch_norm=True)


def shifted(x: Tensor, seed: int = 0) -> Tensor:
    """A pixel to the right."""
    return F.pad(x, (1, 0))[..., :-1]


def state(net: CNN) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.net.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 30), (2, 5, 1)])
def test_the_network_by_hand(shape: tuple[int, int, int]) -> None:
    net, x = network(shape, 7, 4, batch_norm=False), torch.rand(3, *shape)
    weights = list(net.parameters())
    h = x
    for i in range(0, 6, 2):
        h = F.conv2d(h, weights[i], weights[i + 1], stride=2, padding=1).relu()
    h = F.linear(h.flatten(1), weights[6], weights[7]).relu()
    torch.testing.assert_close(net(x), F.linear(h, weights[8], weights[9]))
    assert [tuple(weights[i].shape[:1]) for i in (0, 2, 4, 6, 8)] == [(4,), (4,), (4,), (128,), (7,)]
    assert len(list(network(shape, 7, 4, batch_norm=True).parameters())) == 10 + 8


def test_plain_and_normalised_nets_learn(plain: CNN, normed: CNN) -> None:
    for net in (plain, normed):
        assert net.accuracy(IMAGES.test_x, IMAGES.test_y) > 0.95
        assert net.accuracy(shifted(IMAGES.test_x), IMAGES.test_y) < 0.8


def test_prediction(normed: CNN, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = IMAGES.test_x[:50], IMAGES.test_y[:50]
    logits = normed.logits(x)
    proba = normed.predict_proba(x)
    assert proba.shape == (50, 10)
    assert not proba.requires_grad
    torch.testing.assert_close(proba, logits.softmax(1))
    torch.testing.assert_close(normed.logits(x[7:8]), logits[7:8], atol=1e-5, rtol=1e-4)
    assert normed.accuracy(x, y) == (logits.argmax(1) == y).double().mean().item()
    torch.testing.assert_close(normed.logits(x.double()), logits)
    monkeypatch.setattr(image_baselines, "CHUNK", 7)
    torch.testing.assert_close(normed.logits(x), logits, atol=1e-5, rtol=1e-4)
    assert normed.logits(x[:0]).shape == (0, 10)


def test_logits_are_differentiable_and_can_be_attacked(plain: CNN) -> None:
    x, y = IMAGES.test_x[:100], IMAGES.test_y[:100]
    attacked = pgd(plain.logits, x, y, eps=0.2, steps=5, bounds=(0.0, 1.0))
    assert plain.accuracy(attacked, y) < plain.accuracy(x, y) - 0.3


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_repeats_and_leaves_torch_s_own_seed_alone(batch_norm: bool) -> None:
    options: Net = {"batch_norm": batch_norm, "epochs": 1, "augment": lambda x, seed: x * (0.5 + seed % 2)}
    one = fitted(**options)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    two, other = fitted(**options), fitted(seed=1, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(state(one), state(two))
    assert not torch.equal(one.logits(IMAGES.test_x), other.logits(IMAGES.test_x))


def test_bytes_train_as_floats_do() -> None:
    x, y = (IMAGES.train_x * 255).to(torch.uint8), IMAGES.train_y
    options: Net = {"channels": 4, "epochs": 1}
    from_bytes, from_floats = CNN(**options).fit(x, y), CNN(**options).fit(pixels(x), y)
    assert_equal(state(from_bytes), state(from_floats))
    assert torch.equal(from_bytes.logits(x), from_floats.logits(pixels(x)))


def test_every_batch_is_augmented_with_another_seed() -> None:
    seen: list[tuple[int, int]] = []

    def augment(x: Tensor, seed: int) -> Tensor:
        seen.append((len(x), seed))
        return x

    CNN(channels=2, epochs=2, batch_size=300, augment=augment).fit(IMAGES.train_x, IMAGES.train_y)
    assert [rows for rows, _ in seen] == [334, 333, 333] * 2  # all thousand, none left over
    assert len({seed for _, seed in seen}) == 6


def test_the_oracle_knows_the_manipulation(plain: CNN) -> None:
    oracle = fitted(augment=shifted)
    after = shifted(IMAGES.test_x)
    assert plain.accuracy(after, IMAGES.test_y) < 0.8
    assert oracle.accuracy(after, IMAGES.test_y) > 0.93


def test_adversarial_training_withstands_more(plain: CNN) -> None:
    robust = fitted(eps=0.1, attack_steps=2, epochs=12)
    x, y = IMAGES.test_x[:300], IMAGES.test_y[:300]
    assert robust.accuracy(x, y) > 0.9
    under_attack = [net.accuracy(pgd(net.logits, x, y, eps=0.1, steps=10, bounds=(0.0, 1.0)), y)
                    for net in (robust, plain)]  # fmt: skip
    assert under_attack[0] > under_attack[1] + 0.1


def test_the_attack_of_training_grows_to_its_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def spy(logits: Any, x: Tensor, y: Tensor, *, eps: float, **options: Any) -> Tensor:
        assert not logits.training, "attacked as it predicts"
        attacked = pgd(logits, x, y, eps=eps, **options)
        assert (attacked - x).abs().max() <= eps + 1e-6
        assert 0 <= attacked.min() <= attacked.max() <= 1
        seen.append(eps)
        return attacked

    monkeypatch.setattr(image_baselines, "pgd", spy)
    net = CNN(channels=2, batch_norm=True, epochs=6, batch_size=500, eps=0.2, attack_steps=1)
    net.fit(IMAGES.train_x, IMAGES.train_y)
    np.testing.assert_allclose(seen, 0.2 * np.minimum(1, 3 * np.arange(1, 13) / 12))
    assert net.net.features[1].num_batches_tracked == 12, "trained in training mode"


# adaptations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_adaptations_repeat_and_leave_the_source_and_torch_s_seed_alone(name: str, normed: CNN) -> None:
    adapt = ADAPTATIONS[name]
    options: Net = {"steps": 5} if name in ("tent", "shot_im") else {}
    x = shifted(SPLIT.adapt_x)
    given, before, seed = x.clone(), state(normed), torch.get_rng_state()
    one, two = adapt(normed, x, **options), adapt(normed, x, **options)
    assert torch.equal(torch.get_rng_state(), seed)
    assert torch.equal(x, given)
    assert_equal(state(normed), before)
    assert_equal(state(one), state(two))
    assert not torch.equal(one.logits(SPLIT.score_x), normed.logits(SPLIT.score_x))
    assert not one.net.training
    assert not normed.net.training
    torch.testing.assert_close(one.logits(x[:1]), one.logits(x)[:1], atol=1e-4, rtol=1e-4)
    in_bytes = (SPLIT.adapt_x * 255).to(torch.uint8)
    assert_equal(state(adapt(normed, in_bytes, **options)), state(adapt(normed, pixels(in_bytes), **options)))


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_adaptations_to_clean_images_do_little_harm(name: str, normed: CNN) -> None:
    adapted = ADAPTATIONS[name](normed, SPLIT.adapt_x)
    assert adapted.accuracy(SPLIT.score_x, SPLIT.score_y) > 0.9


def test_bn_adapt_takes_the_statistics_of_all_images(normed: CNN) -> None:
    x = shifted(SPLIT.adapt_x)
    after = bn_adapt(normed, x, batch_size=len(x))
    first = normed.net.features[0](x).detach().transpose(0, 1).flatten(1)
    stats = after.net.features[1].state_dict()
    torch.testing.assert_close(stats["running_mean"], first.mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(stats["running_var"], first.var(1), atol=1e-5, rtol=1e-4)
    in_batches = bn_adapt(normed, x, batch_size=100).net.features[1].state_dict()
    torch.testing.assert_close(in_batches["running_mean"], stats["running_mean"], atol=1e-2, rtol=0)
    # of each layer given those before it: as in training mode, but for n / (n - 1) of the variance
    as_in_training = copy.deepcopy(normed.net).train()
    torch.testing.assert_close(after.logits(x), as_in_training(x), atol=2e-2, rtol=1e-2)
    moved = {name for name, value in state(normed).items() if not torch.equal(value, state(after)[name])}
    assert {name.rsplit(".")[-1] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


def test_statistics_undo_a_loss_of_contrast(normed: CNN) -> None:
    dim = 0.1
    adapted, same = bn_adapt(normed, dim * SPLIT.adapt_x), bn_adapt(normed, SPLIT.adapt_x)
    assert normed.accuracy(dim * SPLIT.score_x, SPLIT.score_y) < 0.6
    assert adapted.accuracy(dim * SPLIT.score_x, SPLIT.score_y) > 0.9
    agree = adapted.predict_proba(dim * SPLIT.score_x).argmax(1) == same.predict_proba(SPLIT.score_x).argmax(1)
    assert agree.double().mean() > 0.97, "but for the constant beside the variance it undoes it exactly"


def test_tent_moves_the_normalisation_only_and_predicts_more_confidently(normed: CNN) -> None:
    x = shifted(SPLIT.adapt_x)
    adapted, statistics = tent(normed, x, steps=60), bn_adapt(normed, x)
    before, after = state(normed), state(adapted)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.split(".")[1] in ("1", "4", "7", "11")}, "the four normalisations"
    assert entropy(adapted.predict_proba(x)).mean() < entropy(statistics.predict_proba(x)).mean() - 0.05
    assert not torch.equal(after["features.1.weight"], before["features.1.weight"])
    assert not torch.equal(after["features.11.bias"], before["features.11.bias"])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_shot_im_moves_the_features_and_not_the_head(batch_norm: bool, plain: CNN, normed: CNN) -> None:
    source, x = (normed if batch_norm else plain), shifted(SPLIT.adapt_x)
    adapted = shot_im(source, x, steps=10)
    before, after = state(source), state(adapted)
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("head"), name
    assert information(adapted.logits(x)) > information(source.logits(x))


def test_shot_im_undoes_a_shift(normed: CNN) -> None:
    adapted = shot_im(normed, shifted(SPLIT.adapt_x), steps=150)
    after = shifted(SPLIT.score_x)
    assert adapted.accuracy(after, SPLIT.score_y) > normed.accuracy(after, SPLIT.score_y) + 0.1


def test_t3a_with_nothing_added_is_the_source_s_directions(normed: CNN) -> None:
    adapted = t3a(normed, SPLIT.adapt_x[:0])
    x = SPLIT.score_x
    directions = F.normalize(normed.net.head.weight.detach(), dim=1)
    torch.testing.assert_close(adapted.logits(x), normed.net.features(x) @ directions.T)
    agree = adapted.predict_proba(x).argmax(1) == normed.predict_proba(x).argmax(1)
    assert agree.double().mean() > 0.97
    # nor is anything added where one feature of a class is kept and nothing is surer than its weights
    assert not torch.allclose(t3a(normed, x, keep=1).logits(x), adapted.logits(x), atol=1e-2)
    surest = copy.deepcopy(normed)
    surest.net.head.weight.data *= 1e4
    torch.testing.assert_close(t3a(surest, x, keep=1).logits(x), adapted.logits(x))


@pytest.mark.parametrize("keep", [1, 5, 100])
def test_t3a_row_by_row(keep: int, normed: CNN) -> None:
    x = shifted(SPLIT.adapt_x)
    head, features = normed.net.head, normed.net.features(x).detach()
    support: dict[int, list[tuple[float, Tensor]]] = {label: [] for label in range(10)}
    for z in [*head.weight.detach(), *features]:
        p = head(z).detach().softmax(0)
        support[int(p.argmax())].append((float(-(p * p.clamp_min(1e-30).log()).sum()), z / z.norm()))
    prototypes = torch.stack(
        [torch.stack([z for _, z in sorted(own, key=lambda pair: pair[0])[:keep]]).mean(0) for own in support.values()]
    )
    expected = normed.net.features(shifted(SPLIT.score_x)) @ (prototypes / prototypes.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(
        t3a(normed, x, keep=keep).logits(shifted(SPLIT.score_x)), expected.detach(), atol=1e-3, rtol=1e-3
    )


def test_entropy_and_information_by_hand() -> None:
    assert entropy(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(np.log(2))
    p, q = np.array([0.9, 0.1]), np.array([0.2, 0.8])
    by_hand = sum(0.5 * (row * np.log(row / (0.5 * (p + q)))).sum() for row in (p, q))
    assert information(torch.tensor(np.log([p, q]))).item() == pytest.approx(by_hand)


@given(st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=6))
def test_information_is_between_nothing_and_the_classes(rows: list[list[float]]) -> None:
    found = information(torch.tensor(rows, dtype=torch.float64)).item()
    assert -1e-12 <= found <= np.log(min(3, len(rows))) + 1e-12


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"attack_steps": 0}, "attack_steps=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"eps": -0.1}, "eps=-0.1"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ],
)
def test_refused_settings(options: Net, message: str) -> None:
    with pytest.raises(ValueError, match=rf"CNN\({message}\): expected"):
        CNN(**options)


def test_refused_images(plain: CNN, normed: CNN) -> None:
    x, y = IMAGES.train_x[:20], IMAGES.train_y[:20]
    for (a, b), message in (
        ((x[:, 0], y), r"x.shape=\(20, 8, 8\)"),
        ((x.long(), y), "x.dtype=torch.int64"),
        ((x * 16, y), "0 to 16.*divide"),
        ((x * torch.nan, y), "nan"),
        ((x, y[:-1]), r"y.shape=\(19,\)"),
        ((x, y.int()), "y.dtype=torch.int32"),
        ((x[:1], y[:1]), r"len\(x\)=1\): expected at least 2 images"),
    ):
        with pytest.raises(ValueError, match=message):
            CNN(epochs=1).fit(a, b)
    with pytest.raises(ValueError, match=r"augment\(x\).shape=\(20, 1, 8, 4\)"):
        CNN(epochs=1, augment=lambda x, seed: x[..., :4]).fit(x, y)
    with pytest.raises(ValueError, match="not fitted; call fit"):
        CNN().predict_proba(x)
    for adapt in ADAPTATIONS.values():
        with pytest.raises(ValueError, match="not fitted; call fit"):
            adapt(CNN(batch_norm=True), x)
        with pytest.raises(ValueError, match=r"x.shape=\(20, 1, 8, 7\)\): expected \(rows, \*\(1, 8, 8\)\)"):
            adapt(normed, x[..., :7])
    for needs_norm in (bn_adapt, tent):
        with pytest.raises(ValueError, match=r"batch_norm=False\): expected .*CNN\(batch_norm=True\)"):
            needs_norm(plain, x)
    for needs_images in (bn_adapt, tent, shot_im):
        with pytest.raises(ValueError, match="at least 2 images"):
            needs_images(normed, x[:1])
    with pytest.raises(ValueError, match=r"t3a\(keep=0\)"):
        t3a(normed, x, keep=0)
    for trains in (tent, shot_im):
        with pytest.raises(ValueError, match="steps=0"):
            trains(normed, x, steps=0)
        with pytest.raises(ValueError, match="batch_size=1"):
            trains(normed, x, batch_size=1)
    with pytest.raises(ValueError, match="at least 1 image"):
        normed.accuracy(x[:0], y[:0])
