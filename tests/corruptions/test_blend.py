"""Blending with another image: on one line between the two, and snow."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.blend import Blend, Snow, Texture
from genbench.corruptions.continuous import Flow
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta
from genbench.corruptions.rules import Mixed
from genbench.ops.combine import expand
from genbench.ops.random import Keys, Stream
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

SHAPE = (3, 8, 8)
TIMES = torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)


class White(Texture):
    """Standard normals: with these a blend is rectified flow."""

    def draw(self, shape, randomness, stream):
        return randomness.normal(shape[1:], stream=stream)


TEXTURES = {"snow": Snow(), "white": White()}
every_texture = pytest.mark.parametrize("texture", TEXTURES.values(), ids=TEXTURES.keys())


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Even in [-1, 1], float32."""
    return 2 * Keys(torch.arange(count), seed).uniform(SHAPE, step=99) - 1


# ------------------------------------------------------------------------------------------------- blending


@every_texture
def test_it_goes_from_the_image_to_the_texture(texture):
    blend, x0, keys = Blend(texture), images(3), Keys(torch.arange(3), 1)
    z = blend.draw(x0.shape, keys)
    assert torch.equal(blend.apply(x0, z, time(0)), x0)
    assert torch.equal(blend.apply(x0, z, time(1)), z)
    assert torch.equal(blend.terminal(x0.shape, keys, {}), texture.draw(x0.shape, keys, Stream.TERMINAL))
    torch.testing.assert_close(blend.apply(x0, z, time(0.3)), 0.7 * x0 + 0.3 * z)
    for i, each in enumerate(blend.apply(x0, z, TIMES)):
        torch.testing.assert_close(each, (1 - TIMES[i]).float() * x0[i] + TIMES[i].float() * z[i])


@every_texture
@pytest.mark.parametrize("s", [0.0, 0.1, 0.6])
def test_the_deterministic_rule_stays_on_its_trajectory(texture, s):
    blend, x0 = Blend(texture), images(3).double()
    z = blend.draw(x0.shape, Keys(torch.arange(3), 1)).double()
    for t in (time(0.8), TIMES.clamp(min=0.6)):
        law = Mixed(0.0).law(blend, blend.apply(x0, z, t), Posterior(x0), s * torch.ones_like(t), t)
        found = law.sample(Keys(torch.arange(3), 2), 0)
        torch.testing.assert_close(found, blend.apply(x0, z, time(s)), rtol=0, atol=1e-14)


def test_the_texture_is_told_from_the_estimate():
    """x_s = F_s(x0_hat, z_hat) with F_t(x0_hat, z_hat) = x_t, whatever x0_hat is."""
    blend, x_t, x0 = Blend(Snow()), images(3).double(), images(3, seed=1).double()
    z = (x_t - (1 - expand(TIMES, x_t)) * x0) / expand(TIMES, x_t)
    found = Mixed(0.0).law(blend, x_t, Posterior(x0), 0.5 * TIMES, TIMES).mean
    torch.testing.assert_close(found, blend.apply(x0, z, 0.5 * TIMES))


def test_a_blend_with_noise_is_rectified_flow():
    blend, flow, x0, keys = Blend(White()), Gaussian(Flow()), images(3), Keys(torch.arange(3), 1)
    z = blend.draw(x0.shape, keys)
    x_t = blend.apply(x0, z, time(0.8))
    torch.testing.assert_close(x_t, flow.apply(x0, z, time(0.8)))
    guess = Posterior(images(3, seed=1))
    steps = [
        rule.law(corruption, x_t, guess, time(0.3), time(0.8)).mean
        for corruption, rule in ((blend, Mixed(0.0)), (flow, Eta(0.0)))
    ]
    torch.testing.assert_close(*steps)


def test_the_fresh_rule_takes_another_texture():
    """At every step: x_s = (1 - s) x0_hat + s z with snow z that has been on no earlier image."""
    blend, x0, keys = Blend(Snow()), images(50), Keys(torch.arange(50), 1)
    law = Mixed(1.0).law(blend, images(50, seed=1), Posterior(x0), time(0.5), time(0.8))
    drawn = [2 * law.sample(keys, step) - x0 for step in (0, 1)]
    drawn += [blend.draw(x0.shape, keys), blend.terminal(x0.shape, keys, {})]
    for i, one in enumerate(drawn):
        assert (one.abs() <= 1 + 1e-6).all()
        torch.testing.assert_close(one, one[:, :1].expand_as(one))
        for other in drawn[:i]:
            assert not torch.isclose(one, other).flatten(1).all(dim=1).any()


def test_textures_do_not_mix():
    """sqrt(1 - v^2) z + v z' is no draw of a texture, unless that is Gaussian."""
    x = images(1)
    with pytest.raises(UserError, match="rule=deterministic"):
        Mixed(0.5).law(Blend(Snow()), x, Posterior(x), time(0.5), time(0.8))


class Knows:
    """A model that knows the images."""

    image_shape = SHAPE

    def __init__(self, corruption, x0):
        self.corruption, self.x0 = corruption, x0

    def denoise(self, x_t, t, labels=None):
        return Posterior(self.x0)


@pytest.mark.parametrize("rule", [Mixed(0.0), Mixed(1.0)])
def test_a_chain_with_the_true_image_ends_there(rule):
    model = Knows(Blend(Snow()), images(5))
    drawn = Restore(7, Uniform(), rule)(model, Keys(torch.arange(5), 0)).images
    torch.testing.assert_close(drawn, model.x0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("rule", [Mixed(0.0), Mixed(1.0)])
def test_images_do_not_depend_on_their_batch(rule, batch):
    x0, index = images(20), torch.arange(20)
    sampler = Restore(3, Uniform(), rule)
    sampled = lambda piece: sampler(Knows(Blend(Snow()), x0[piece] / 2), Keys(piece, 3)).images
    assert torch.equal(sampled(index), torch.cat([sampled(piece) for piece in index.split(batch)]))


# ----------------------------------------------------------------------------------------------------- snow


def snow(count: int, shape, **settings) -> torch.Tensor:
    return Snow(**settings).draw((count, *shape), Keys(torch.arange(count), 4), Stream.NOISE)


def test_snow_is_grey_and_in_range():
    flakes = snow(200, (3, 16, 12), size=1.0, cover=0.3)
    assert flakes.shape == (200, 3, 16, 12)
    assert flakes.abs().max() <= 1
    assert flakes.max() > 0.99
    assert flakes.min() < -0.99
    assert torch.equal(flakes, flakes[:, :1].expand_as(flakes))


@pytest.mark.parametrize("cover", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("size", [0.7, 2.0])
def test_so_much_is_covered(size, cover):
    """Within .01 (edges vary more than the middle) and five standard errors of 2,000 images of the share."""
    white = (snow(2000, (1, 16, 16), size=size, cover=cover) > 0).double().flatten(1).mean(dim=1)
    assert abs(float(white.mean()) - cover) < 0.01 + 5 * float(white.std()) / 2000**0.5


def test_flakes_have_a_size():
    """Gaussian smoothing by s pixels leaves a correlation r = e^(-d^2 / (4 s^2)) at a distance of d, and two
    standard normals of that are of one sign with probability 1/2 + asin(r) / pi: within five standard errors
    of 20,000 images' middle pixels."""
    count, size = 20_000, 1.5
    white = snow(count, (1, 16, 16), size=size, cover=0.5)[:, 0, 8] > 0
    for distance in (1, 2, 3):
        same = float((white[:, 6] == white[:, 6 + distance]).double().mean())
        expected = 0.5 + math.asin(math.exp(-(distance**2) / (4 * size**2))) / math.pi
        assert abs(same - expected) < 5 * (expected * (1 - expected) / count) ** 0.5


@pytest.mark.parametrize("cover", [0.0, 1.0, -0.1])
def test_cover_is_a_share(cover):
    with pytest.raises(UserError, match=r"texture\.cover"):
        Snow(cover=cover)
