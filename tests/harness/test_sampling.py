"""Image i depends on (seed, i) alone: not on batch size, order, or how many images are drawn."""

from __future__ import annotations

import pytest
import torch

from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance
from genbench.corruptions.schedules import Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.oracles import GaussianOracle
from genbench.generators.parameterisations import Epsilon
from genbench.harness.distributed import Ranks
from genbench.harness.sampling import Source
from genbench.networks.unet import UNet
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def source(batch_size: int, rule=None, ranks: Ranks | None = None, classes: int = 0) -> Source:
    torch.manual_seed(0)
    network = UNet(SHAPE, channels=8, multipliers=(1, 2), attention=(4,), groups=4, classes=classes)
    with torch.no_grad():  # the output layer starts at zero; here the network must matter
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = Denoising(network, Gaussian(Linear()), Regression(Epsilon()), SHAPE, classes)
    sampler = Restore(5, Uniform(), rule or LargeVariance())
    return Source(model, sampler, {}, batch_size, CPU, ranks or Ranks())


def images(subject: Source, count: int, seed: int = 0) -> torch.Tensor:
    drawn = list(subject.draw(count, seed))
    assert torch.equal(
        torch.cat([d.index for d in drawn]), torch.arange(subject.ranks.rank, count, subject.ranks.world)
    )
    return torch.cat([d.images for d in drawn])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("rule", [LargeVariance(), Eta(0.0)])
def test_batch_size_changes_no_image_by_more_than_a_grey_level(batch_size, rule):
    expected = images(source(30, rule), 30).int()
    found = images(source(batch_size, rule), 30).int()
    assert (found - expected).abs().max() <= 1


def test_ranks_share_the_same_images():
    expected = images(source(30), 30).int()
    for world in (2, 3):
        for rank in range(world):
            found = images(source(4, ranks=Ranks(rank, world)), 30).int()
            assert (found - expected[rank::world]).abs().max() <= 1


def test_more_images_start_with_the_same_ones():
    assert torch.equal(images(source(8), 16), images(source(8), 24)[:16])


def test_another_seed_gives_other_images_and_zero_is_a_seed():
    zero, one = images(source(16), 16, seed=0), images(source(16), 16, seed=1)
    assert (zero != one).any(dim=0).double().mean() > 0.5
    assert torch.equal(zero, images(source(16), 16, seed=0))


def test_the_global_generators_do_not_matter():
    torch.manual_seed(1)
    first = images(source(16), 16)
    torch.manual_seed(2)
    assert torch.equal(first, images(source(16), 16))


def test_classes_are_drawn_evenly_and_by_number():
    subject = source(500, classes=4)
    labels = torch.cat([d.labels for d in subject.draw(2000, 0)])
    counts = torch.bincount(labels, minlength=4).double()
    assert ((counts - 500) ** 2 / 500).sum() < 3 + 5 * 6**0.5
    assert torch.equal(labels[:7], torch.cat([d.labels for d in source(3, classes=4).draw(7, 0)]))


def test_sampling_uses_evaluation_mode():
    class Checked(GaussianOracle):
        def denoise(self, x_t, t, labels=None):
            assert not self.training
            return super().denoise(x_t, t, labels)

    model = Checked(Gaussian(Linear()), SHAPE).train()
    list(Source(model, Restore(2, Uniform(), Eta(0.0)), {}, 4, CPU).draw(4, 0))
