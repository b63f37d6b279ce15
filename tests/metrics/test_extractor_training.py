"""The making of an extractor: network, augmentation, loss, and the export that measures what it writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.contracts import Batch, Step, UserError
from genbench.data.images import ImageSet
from genbench.data.sources import Digits
from genbench.generators.classifier import Classifier
from genbench.metrics.augmentation import Affine, Chain, Cutout, Flip, Shift
from genbench.metrics.card import Card
from genbench.metrics.extractors import Shipped
from genbench.metrics.fid import gaussian
from genbench.metrics.gaussians import Gaussian, distance
from genbench.metrics.moments import Moments
from genbench.metrics.packed import read_reference, reference_path
from genbench.metrics.reference import refer
from genbench.metrics.training import accuracy, export
from genbench.networks.classifier import ConvClassifier, ResidualBlock

SMALL = {"widths": [8, 16], "strides": [1, 2], "blocks": [0, 1]}


def ramp(batch: int, channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    """Images whose every pixel tells where it is; float [B, C, H, W] in [-1, 1]."""
    values = torch.linspace(-0.9, 0.9, channels * height * width).reshape(1, channels, height, width)
    return values.repeat(batch, 1, 1, 1)


# ------------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize("black", [True, False])
def test_shift_moves_by_whole_pixels_in_all_directions(black: bool) -> None:
    torch.manual_seed(0)
    image = ramp(1, 3)
    moved = Shift(1, black)(image.expand(200, -1, -1, -1))
    padded = F.pad(image, (1,) * 4, value=-1.0) if black else F.pad(image, (1,) * 4, mode="reflect")
    windows = {(d, r): padded[0, :, d : d + 8, r : r + 8] for d in range(3) for r in range(3)}
    found = [place for one in moved for place, window in windows.items() if torch.equal(one, window)]
    assert len(found) == 200
    assert set(found) == set(windows)


def test_flip_mirrors_about_half_of_the_images() -> None:
    torch.manual_seed(0)
    images = ramp(400)
    mirrored = (Flip()(images) == images.flip(-1)).flatten(1).all(1)
    kept = (Flip()(images) == images).flatten(1).all(1)
    assert kept.any()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_hides_one_square(side: int) -> None:
    torch.manual_seed(0)
    hidden = Cutout(side)(torch.ones(300, 2, 8, 8)) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    rows, columns = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == side
    assert rows.min() >= side // 2


def test_affine_at_rest_is_the_identity_and_black_stays_black() -> None:
    images = ramp(5, 2, 6, 8)
    torch.testing.assert_close(Affine(0, 0, 0, 0, 1.0)(images), images, rtol=0, atol=1e-5)
    black = torch.full((5, 1, 8, 8), -1.0)
    torch.testing.assert_close(Affine(15, 0.2, 0.2, 1, 1.0)(black), black, rtol=0, atol=1e-6)
    assert torch.equal(Affine(15, 0.2, 0.2, 1, 0.0)(images), images)


@pytest.mark.parametrize(
    ("affine", "bound"),
    [(Affine(0, 0, 0, 2.0, 1.0), 2.0), (Affine(30, 0, 0, 0, 1.0), 2 * 8 * math.sin(math.radians(15)))],
    ids=["shift", "rotation"],
)
def test_affine_moves_a_dot_as_far_as_it_says(affine: Affine, bound: float) -> None:
    """A blob 8 pixels from the centre moves by at most 2 r sin(angle / 2), or by the displacement."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    blob = torch.exp(-((x - 24) ** 2 + (y - 16) ** 2) / 8)
    moved = affine((2 * blob - 1).expand(300, 1, -1, -1))[:, 0].add(1).div(2)
    mass = moved.sum((1, 2))
    dx, dy = (moved * x).sum((1, 2)) / mass - 24, (moved * y).sum((1, 2)) / mass - 16
    for moved_by in [dx.hypot(dy)] if affine.degrees else [dx.abs(), dy.abs()]:
        assert 0.9 * bound < float(moved_by.max()) < bound + 0.1


def test_an_empty_chain_changes_nothing_and_a_full_one_runs_in_order() -> None:
    images = ramp(2)
    assert Chain()(images) is images
    assert torch.equal(Chain([lambda x: x + 1, lambda x: x * 2])(images), (images + 1) * 2)


# ---------------------------------------------------------------------------------------- network and loss


def test_a_residual_block_starts_as_the_identity() -> None:
    x = torch.rand(4, 6, 5, 5)
    assert torch.equal(ResidualBlock(6).eval()(x), x)


def test_features_are_the_mean_of_the_last_activations() -> None:
    network = ConvClassifier(1, 10, **SMALL).eval()
    pool, logits = network(ramp(3))
    activations = network.body(ramp(3))
    assert activations.shape == (3, 16, 4, 4)
    assert (activations >= 0).all()
    torch.testing.assert_close(pool, activations.flatten(2).mean(2))
    torch.testing.assert_close(logits, network.head(pool))
    with pytest.raises(ValueError, match="one entry a stage"):
        ConvClassifier(1, 10, [8, 16], [1], [0, 1])


def batch(n: int = 16) -> Batch:
    return Batch(ramp(n), torch.arange(n) % 10, torch.arange(n))


def test_the_loss_is_smoothed_cross_entropy() -> None:
    model = Classifier((1, 8, 8), 10, **SMALL, label_smoothing=0.1).eval()
    found = model.loss(batch(), Step(0, 1))
    _, logits = model.network(batch().images)
    target = 0.9 * F.one_hot(batch().labels, 10) + 0.01
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found.total, expected)
    assert float(found.parts["accuracy"]) == float((logits.argmax(1) == batch().labels).float().mean())


def test_an_unlabelled_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="classes=0"):
        Classifier((3, 64, 64), 0, **SMALL)
    with pytest.raises(UserError, match="labels"):
        Classifier((1, 8, 8), 10, **SMALL).loss(Batch(ramp(2), None, torch.arange(2)), Step(0, 1))


def test_its_one_phase_learns() -> None:
    torch.manual_seed(0)
    model = Classifier((1, 8, 8), 10, **SMALL)
    (phase,) = model.phases()
    optimizer = torch.optim.AdamW(phase.params.parameters(), lr=3e-2)
    digits = Digits().load(Path("unused"), "train")
    images, labels = digits.images[:64].float() / 127.5 - 1, digits.labels[:64]
    losses = []
    for step in range(25):
        found = phase.loss(Batch(images, labels, torch.arange(64)), Step(step, 25))
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(found.total.item())
    assert losses[-1] < 0.3 * losses[0]


# ------------------------------------------------------------------------------------------------- export


def test_accuracy_counts_and_leaves_the_mode_alone() -> None:
    network = ConvClassifier(1, 2, **SMALL)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor([0.0, 1.0])
    labels = torch.tensor([1] * 400 + [0] * 301)
    images = torch.zeros(701, 1, 8, 8, dtype=torch.uint8)
    assert accuracy(network, images, labels) == 400 / 701
    assert network.training


@pytest.fixture
def sets() -> tuple[ImageSet, ImageSet]:
    return Digits().load(Path("unused"), "train"), Digits().load(Path("unused"), "test")


def test_an_export_is_an_extractor(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, test = sets
    model = Classifier((1, 8, 8), 10, **SMALL)
    model.network(ramp(64) + 0.1 * torch.randn(64, 1, 8, 8))  # batch statistics other than those of the start
    card = export(model, train, test, tmp_path / "new", n_samples=200, command="python -m genbench ...")
    assert card == Card.read("digits", tmp_path / "new")
    extractor = Shipped("digits", tmp_path / "new")
    expected, _ = model.network.eval()(test.images[:50].float() / 127.5 - 1)
    # float16 keeps 11 bits of each weight.
    torch.testing.assert_close(extractor(test.images[:50])["pool"], expected, rtol=2e-2, atol=2e-3)
    assert card.test_accuracy == pytest.approx(accuracy(model.network, test.images, test.labels), abs=0.01)
    assert card.parameters == sum(p.numel() for p in model.network.parameters())
    assert (card.train_sha256, card.n_train) == (train.sha256, len(train))
    layers = torch.cat([extractor(part)["pool"] for part in train.images.split(500)])
    kept, sha256 = read_reference(reference_path("digits", tmp_path / "new"))
    again = gaussian(Moments.of(layers))
    assert distance(Gaussian(again.n, again.mean.numpy(), again.covariance.numpy()), kept) < 1e-9
    assert sha256 == refer(train, extractor, ["features"])["features"].sha256
    assert 0 < card.subset_mean < card.floor < card.ceiling
    assert (card.n_samples, card.n_test, card.features) == (200, 360, 16)


def test_weights_beyond_half_precision_are_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    model = Classifier((1, 8, 8), 10, **SMALL)
    model.network.body[0][1].running_var.fill_(1e6)
    with pytest.raises(UserError, match="running_var"):
        export(model, *sets, tmp_path, n_samples=200, command="")
