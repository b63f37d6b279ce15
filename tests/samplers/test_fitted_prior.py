"""A law fitted to codes: which codes, what is fitted, and what is drawn from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.contracts import Autoencodes, Batch
from genbench.errors import UserError
from genbench.ops.random import Ambient, Keys
from genbench.samplers.decode import Decode
from genbench.samplers.fitted_prior import FittedPrior
from genbench.samplers.priors import GaussianPrior, MixturePrior, Prior

CPU = torch.device("cpu")


class Toy(nn.Module):
    """Codes are the four pixels: two latents, of shapes (3,) and (1, 1); with noise where chance is given."""

    image_shape = (1, 2, 2)
    latent_shapes = ((3,), (1, 1))

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise

    def encode(self, images, labels=None, randomness=None):
        z = images.flatten(1)
        if randomness is not None:
            z = z + self.noise * randomness.normal((4,))
        return [z[:, :3], z[:, 3:, None]]

    def decode(self, latents, labels=None, temperature=1.0):
        return temperature * torch.cat([z.flatten(1) for z in latents], dim=1).reshape(-1, 1, 2, 2)


class Recording(Prior):
    """Keeps the codes it is given; a fit is nothing."""

    def fit(self, codes):
        self.codes = codes
        return {"nothing": torch.zeros(1)}

    def standard(self, dimension):
        return {"nothing": torch.zeros(1)}

    def place(self, fitted, normals, uniform):
        return normals


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def endless(data: torch.Tensor, size: int):
    """Batches as the harness gives them: epoch after epoch, a batch may straddle two. Stops who reads on."""
    for position in range(0, 5 * len(data), size):
        index = (torch.arange(position, position + size) * 7) % len(data)
        yield Batch(data[index], None, index)
    pytest.fail("read five epochs and was going on")


@pytest.mark.parametrize(("count", "size"), [(20, 5), (20, 6), (20, 20), (3, 2)])
def test_every_training_image_is_coded_once(count, size):
    """Whether or not batches divide the epoch; 7 is prime to 20 and 3, so an epoch is a permutation."""
    data, prior = images(count), Recording()
    FittedPrior(prior, codes=1000).fit(Toy(), endless(data, size), Ambient(size, CPU))
    order = (torch.arange(count) * 7) % count
    assert torch.equal(prior.codes, data[order].flatten(1))


def test_no_more_codes_are_had_than_asked_for():
    data, prior, read = images(100), Recording(), []

    def counted():
        for batch in endless(data, 10):
            read.append(batch)
            yield batch

    FittedPrior(prior, codes=25).fit(Toy(), counted(), Ambient(10, CPU))
    assert torch.equal(prior.codes, data[(torch.arange(25) * 7) % 100].flatten(1))
    assert len(read) == 3


def test_batches_may_end():
    data, prior = images(20), Recording()
    two = [next(iter(endless(data, 5))), Batch(data[1:6], None, torch.arange(1, 6) + 100)]
    FittedPrior(prior, codes=1000).fit(Toy(), two, Ambient(5, CPU))
    assert len(prior.codes) == 10


def test_codes_are_drawn_where_the_encoder_is_random():
    """Codes N(image, 3^2): without the draw their variance would be the images' own."""
    data, prior = torch.zeros(4000, 1, 2, 2), Recording()
    torch.manual_seed(0)
    FittedPrior(prior, codes=4000).fit(Toy(noise=3.0), endless(data, 500), Ambient(500, CPU))
    assert abs(float(prior.codes.var()) / 9 - 1) < 5 * (2 / prior.codes.numel()) ** 0.5


def test_a_standard_normal_prior_gives_the_images_of_decode():
    keys = Keys(torch.arange(50), 3)
    fitted = {"mean": torch.zeros(4), "factor": torch.eye(4)}
    samples = FittedPrior(GaussianPrior(), codes=10)(Toy(), keys, fitted=fitted)
    assert torch.equal(samples.images, Decode()(Toy(), keys).images)
    assert samples.nfe.tolist() == [1] * 50
    assert FittedPrior(GaussianPrior(), codes=10).evaluations() == 1


FACTOR = torch.tensor([[1.0, 0, 0, 0], [0.5, 2, 0, 0], [0, -1, 0.5, 0], [0.3, 0, 0, 1]])
MEAN = torch.tensor([1.0, -2.0, 0.0, 5.0])


def draw(prior: Prior, codes: torch.Tensor, count: int = 20_000) -> torch.Tensor:
    return FittedPrior(prior, 10)(
        Toy(), Keys(torch.arange(count), 0), fitted=prior.fit(codes)
    ).images.flatten(1)


@pytest.mark.parametrize(
    "prior", [GaussianPrior(), MixturePrior(components=1)], ids=["gaussian", "one component"]
)
def test_moments_of_the_codes_are_those_of_the_draws(prior):
    """A single component is a Gaussian. Five standard errors of 20,000 draws from the codes' moments."""
    codes = images(5000).flatten(1) @ FACTOR.T + MEAN
    drawn = draw(prior, codes)
    covariance = codes.T.cov(correction=0)
    deviation = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - codes.mean(0)).abs() < 5 * deviation / 20_000**0.5).all()
    errors = (drawn.T.cov() - covariance).abs() / (deviation[:, None] * deviation)
    assert float(errors.max()) < 5 * (2 / 20_000) ** 0.5
    fitted = prior.fit(codes)
    assert all(tensor.dtype == torch.float32 for tensor in fitted.values())


def test_a_mixture_finds_clusters_their_weights_and_shapes():
    """Three clusters at .2, .3, .5, far apart; codes between them would be a Gaussian's."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[-30.0, 0, 0, 0], [0.0, 30, 0, 0], [30.0, 0, 0, 30]])
    scales = torch.tensor([1.0, 2.0, 0.5])
    member = torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), 3000, replacement=True, generator=generator)
    codes = centres[member] + scales[member, None] * torch.randn(3000, 4, generator=generator)
    drawn = draw(MixturePrior(components=3), codes)
    nearest = torch.cdist(drawn, centres).argmin(dim=1)
    for number, (centre, scale) in enumerate(zip(centres, scales)):
        mine = drawn[nearest == number]
        share = float((member == number).double().mean())
        assert abs(len(mine) / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
        # Centre and spread carry the error of the 600 codes and more they were fitted to.
        assert float((mine.mean(0) - centre).abs().max()) < 5 * float(scale) / 600**0.5
        assert abs(float(mine.std(0).mean()) / float(scale) - 1) < 5 / (2 * 4 * 600) ** 0.5


def test_mixtures_are_the_same_for_the_same_seed():
    codes = images(300).flatten(1)
    one, same = MixturePrior(4, seed=1).fit(codes), MixturePrior(4, seed=1).fit(codes)
    other = MixturePrior(4, seed=2).fit(codes)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["means"], other["means"])


@pytest.mark.parametrize("prior", [GaussianPrior(), MixturePrior(components=3)], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_images_do_not_depend_on_their_batch(prior, size):
    sampler, index = FittedPrior(prior, codes=10), torch.arange(64)
    fitted = prior.fit(images(500).flatten(1))
    whole = sampler(Toy(), Keys(index, 3), fitted=fitted).images
    apart = torch.cat([sampler(Toy(), Keys(piece, 3), fitted=fitted).images for piece in index.split(size)])
    assert torch.equal(whole, apart)


def test_a_component_is_chosen_by_a_draw_of_its_own():
    """Choice and place within a component are independent: they come from different streams."""
    fitted = {
        "weights": torch.tensor([0.5, 0.5]),
        "means": torch.zeros(2, 4),
        "factors": torch.stack([torch.eye(4), 2 * torch.eye(4)]),
    }
    keys = Keys(torch.arange(20_000), 0)
    drawn = FittedPrior(MixturePrior(2), 10)(Toy(), keys, fitted=fitted).images.flatten(1)
    normals = Decode()(Toy(), keys).images.flatten(1)
    second = ((drawn / normals).round() == 2).all(dim=1)
    assert abs(float(second.double().mean()) - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(float(normals[second].mean())) < 5 / (4 * 10_000) ** 0.5


@pytest.mark.parametrize("prior", [GaussianPrior(), MixturePrior(components=2)], ids=["gaussian", "mixture"])
def test_a_dimension_that_codes_do_not_use_stays_unused(prior):
    """The ridge is a thousandth of the typical deviation."""
    codes = images(400).flatten(1)
    codes[:, 2] = 1.0
    drawn = draw(prior, codes, 2000)
    assert float((drawn[:, 2] - 1).abs().max()) < 5e-3
    assert abs(float(drawn[:, 0].std()) - float(codes[:, 0].std())) < 0.1


def test_a_code_of_one_dimension_can_be_fitted():
    codes = images(500).reshape(-1, 1)
    fitted = GaussianPrior().fit(codes)
    assert torch.allclose(fitted["factor"].reshape(()), codes.std(correction=0), rtol=1e-5)


@pytest.mark.parametrize("prior", [GaussianPrior(), MixturePrior(components=2)], ids=["gaussian", "mixture"])
def test_a_collapsed_encoder_is_reported(prior):
    with pytest.raises(UserError, match="collapsed"):
        prior.fit(torch.ones(20, 4))


def test_the_prior_is_chosen_by_name(compose):
    """On the command line of any autoencoder; RAE's own choice is a Gaussian."""
    from hydra.utils import instantiate

    assert "GaussianPrior" in compose("model=rae")["sampler"]["prior"]["_target_"]
    config = compose("model=eae", "sampler=fitted_prior", "prior=mixture", "prior.components=4")
    prior = instantiate(config["sampler"]["prior"])
    assert (type(prior), prior.components) == (MixturePrior, 4)
    assert "prior" not in config


def test_what_cannot_be_fitted_or_drawn_is_refused():
    assert isinstance(Toy(), Autoencodes)
    with pytest.raises(UserError, match=r"prior\.components"):
        MixturePrior(components=10).fit(images(5).flatten(1))
    with pytest.raises(UserError, match=r"sampler\.codes=1"):
        FittedPrior(GaussianPrior(), codes=1)
    with pytest.raises(UserError, match="sampler=decode"):
        FittedPrior(GaussianPrior(), codes=10)(Toy(), Keys(torch.arange(2), 0))
    with pytest.raises(UserError, match="found 1 training images"):
        FittedPrior(GaussianPrior(), codes=10).fit(Toy(), endless(images(1), 1), Ambient(1, CPU))
    with pytest.raises(UserError, match="no encoder"):
        FittedPrior(GaussianPrior(), codes=10).fit(nn.Linear(1, 1), endless(images(9), 3), Ambient(3, CPU))
