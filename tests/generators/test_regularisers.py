"""Penalties on critics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.generators.regularisers import (
    FakeGradient,
    Rademacher,
    RealGradient,
    Spectral,
    UnitGradient,
    jacobian_square,
)
from genbench.networks.critic import Critic, Projection
from genbench.networks.dcgan import PlainCritic
from genbench.ops.gradients import gradient


class Linear(Critic):
    """v(x) = w . x over the pixels of a 1x2x2 image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Projection(4)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Bowl(Critic):
    """v(x) = |x|^2 / 2, whose gradient at x is x."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def judge(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return images.square().flatten(1).sum(dim=1) / 2


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 1, 2, 2), 3 * torch.randn(6, 1, 2, 2)


@pytest.mark.parametrize("kind", [RealGradient, FakeGradient])
def test_a_linear_critics_r1_is_half_gamma_w_squared(kind, images):
    critic = Linear()
    squared = critic.head.linear.weight.square().sum()
    torch.testing.assert_close(kind(3.0).penalty(critic, *images, None), 1.5 * squared)


def test_r1_is_on_real_images_and_r2_on_made_ones(images):
    real, fake = images
    mean_square = lambda x: x.square().flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(RealGradient(2.0).penalty(Bowl(), real, fake, None), mean_square(real))
    torch.testing.assert_close(FakeGradient(2.0).penalty(Bowl(), real, fake, None), mean_square(fake))


def test_the_unit_gradient_penalty_is_about_slope_one_between_the_two(images):
    real, fake = images
    critic = Linear()
    slope = critic.head.linear.weight.norm()
    penalty = UnitGradient(10.0).penalty(critic, real, fake, None)
    torch.testing.assert_close(penalty, 10 * (slope - 1).square())
    torch.manual_seed(1)
    share = torch.rand(6, 1, 1, 1)
    torch.manual_seed(1)
    norms = (real + share * (fake - real)).flatten(1).norm(dim=1)
    expected = (norms - 1).square().mean()
    torch.testing.assert_close(UnitGradient(1.0).penalty(Bowl(), real, fake, None), expected)


def test_random_signs_estimate_a_linear_maps_jacobian_without_bias():
    torch.manual_seed(0)
    matrix = torch.randn(5, 4, dtype=torch.float32)
    x = torch.zeros(20_000, 4)
    draws = jacobian_square(lambda x: x @ matrix.T, x)
    error = float(draws.std() / len(draws) ** 0.5)
    assert abs(float(draws.mean() - matrix.square().sum())) < 4 * error
    assert error < 0.02 * float(matrix.square().sum())


def test_the_rademacher_penalty_is_over_features_of_both_sets(images):
    penalty = Rademacher(2.0).penalty(Linear(), *images, None)
    torch.testing.assert_close(penalty, torch.tensor(4.0))  # four features, each with gradient of length one


def test_small_noise_costs_the_squared_gradient():
    """E (f(x + s e) - f(x))^2 = s^2 |grad f|^2 + O(s^4) for a quadratic f."""
    torch.manual_seed(0)
    half = torch.randn(3, 3, dtype=torch.float64)
    matrix, slope = half + half.T, torch.randn(3, dtype=torch.float64)
    f = lambda x: (x @ matrix * x).sum(-1) / 2 + x @ slope
    x = torch.randn(3, dtype=torch.float64)
    steepness = float((gradient(lambda x: f(x.double()), x[None])[0]).detach().square().sum())
    assert steepness == pytest.approx(float((matrix @ x + slope).square().sum()), rel=1e-5)
    for s in (0.1, 0.05):
        rest = s**4 * (matrix.square().sum() / 2 + matrix.trace() ** 2 / 4)  # E (e' A e / 2)^2
        noise = torch.randn(2_000_000, 3, dtype=torch.float64)
        noise = torch.cat([noise, -noise])  # odd terms cancel exactly
        cost = (f(x + s * noise) - f(x)).square()
        error = float(cost.std()) / len(noise) ** 0.5
        assert abs(float(cost.mean()) - s**2 * steepness - float(rest)) < 5 * error
        assert float(rest) < 0.3 * s**2 * steepness


def test_spectral_normalisation_bounds_every_layer():
    torch.manual_seed(0)
    critic = PlainCritic((1, 8, 8), [8, 8], classes=3)
    Spectral().prepare(critic)
    for _ in range(100):
        critic(torch.randn(4, 1, 8, 8), torch.arange(4) % 3)
    critic.eval()
    layers = [m for m in critic.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 5
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=0.02)


def test_penalties_train_the_critic(images):
    critic = Linear()
    RealGradient(1.0).penalty(critic, *images, None).backward()
    torch.testing.assert_close(critic.head.linear.weight.grad, critic.head.linear.weight.detach())


def test_negative_weights_are_refused():
    for kind in (RealGradient, FakeGradient, UnitGradient, Rademacher):
        with pytest.raises(UserError, match="0 or more"):
            kind(-1.0)
