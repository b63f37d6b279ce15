"""DDE on data whose optimum has a closed form; one trainable number stands in for a network."""

from __future__ import annotations

import math

import pytest
import torch
from quadratics import NOW, SHAPE, Quadratic, batch, gaussian, vertex
from torch import Tensor, nn

from genbench.contracts import Decodes, Energy, Renormalises, Step
from genbench.generators.denoising_density import DDE, Normaliser
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks
from genbench.ops.gradients import gradient
from genbench.ops.random import Keys
from genbench.samplers.decode import Decode


class Line(nn.Module):
    """g(z) = w z + b."""

    def __init__(self, w: float, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(b))

    def forward(self, z: Tensor) -> Tensor:
        return (self.w * z + self.b).reshape(-1, 1, 1, 1)


def dde(s_p: nn.Module, s_q: nn.Module | None = None, generator: nn.Module | None = None, sigma=0.5) -> DDE:
    return DDE(s_p, s_q or Quadratic(-1.0), generator or Line(1.0, 0.0), sigma, SHAPE, 1)


def test_dde_offers_both_of_its_sides():
    model = dde(Quadratic(-2.0))
    assert isinstance(model, Decodes)
    assert isinstance(model, Renormalises)
    assert isinstance(model, Energy)
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(model.energy(x), x.flatten().square())
    assert model.reference_sigma == model.sigma == 0.5
    samples = Decode()(model, Keys(torch.arange(4), 0))
    assert samples.images.shape == (4, *SHAPE)


def test_gaussian_data_has_the_quadratic_log_density():
    """s = -x^2 / (2 (c^2 + sigma^2)); the least loss a dimension is sigma^2 c^2 / (c^2 + sigma^2)."""
    s, sigma, std = Quadratic(0.0), 0.5, 0.8
    model = DDE(s, Quadratic(0.0), Line(1.0, 0.0), sigma, (1, 10, 10), 1)
    torch.manual_seed(0)
    data = gaussian(4000, std, shape=(1, 10, 10))
    where, least = vertex(lambda: model.real_loss(data, NOW), s.k)
    assert abs(-where * (std**2 + sigma**2) - 1) < 0.01
    assert abs(least / 100 / (sigma**2 * std**2 / (std**2 + sigma**2)) - 1) < 0.02
    with torch.no_grad():
        s.k.zero_()
    assert abs(float(model.real_loss(data, NOW).parts["error"].detach()) - 1) < 0.02


class TwoPoints(nn.Module):
    """-x^2 / (2 v) + a log cosh(x / v): with a = 1 the log-density of +-1 with noise of variance v."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))
        self.variance = variance

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten()
        return -x.square() / (2 * self.variance) + self.a * torch.cosh(x / self.variance).log()


def test_two_points_are_denoised_by_the_hyperbolic_tangent():
    """x + sigma^2 s'(x) = tanh(x / sigma^2): the loss is least at a = 1."""
    sigma = 0.7
    s = TwoPoints(sigma**2)
    model = dde(s, sigma=sigma)
    torch.manual_seed(0)
    data = batch(torch.randint(0, 2, (100_000, *SHAPE)) * 2.0 - 1)
    where, _ = vertex(lambda: model.real_loss(data, NOW), s.a)
    assert abs(where - 1) < 0.01
    with torch.no_grad():
        s.a.fill_(1.0)
    x = torch.linspace(-2, 2, 9).reshape(-1, *SHAPE)
    torch.testing.assert_close(x + sigma**2 * gradient(s, x), torch.tanh(x / sigma**2))


class Shifted(nn.Module):
    """A log-density with a constant that nobody knows."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.inner, self.constant = TwoPoints(0.36), constant
        nn.init.ones_(self.inner.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.constant


def test_log_densities_are_normalised_by_importance():
    """Data +-1 with noise of .6: on a grid exp(log p) integrates to one and log p is the mixture's."""
    model = dde(Shifted(3.7), sigma=0.6)
    normaliser = model.log_normaliser(Keys(torch.arange(50_000), 0), mean=0.0, std=math.sqrt(1 + 0.36))
    x = torch.linspace(-5, 5, 2001)
    found = model.log_density(x.reshape(-1, *SHAPE), normaliser).detach()
    mixture = torch.distributions.Normal(torch.tensor([-1.0, 1.0]), 0.6)
    exact = mixture.log_prob(x[:, None]).logsumexp(dim=1) - math.log(2)
    assert abs(float(torch.trapezoid(found.exp(), x)) - 1) < 0.01
    torch.testing.assert_close(found, exact, rtol=0, atol=0.01)
    torch.testing.assert_close(found.diff(), exact.diff(), rtol=0, atol=1e-5)
    assert 10_000 < float(normaliser.effective) < 50_000


def test_the_log_normaliser_sums_over_pixels():
    """N(0, 1/4 I) over eight pixels, from draws that are exact: log Z without error, all effective."""
    model = DDE(Quadratic(-4.0), Quadratic(-1.0), Line(1.0, 0.0), 0.5, (2, 2, 2), 1)
    found = model.log_normaliser(Keys(torch.arange(100), 0), mean=torch.zeros(2, 2, 2), std=0.5)
    assert abs(float(found.log_z) - 4 * math.log(2 * math.pi / 4)) < 1e-4
    assert abs(float(found.effective) - 100) < 0.01
    far = model.log_normaliser(Keys(torch.arange(100), 0), mean=3.0, std=0.5)
    assert float(far.effective) < 10


def toy_pair(w: float, b: float, mu: float, std: float, sigma: float) -> DDE:
    """A linear generator with the exact log-densities of its output and of data N(mu, std^2), both noisy."""
    s_p = Quadratic(-1 / (std**2 + sigma**2), mu)
    s_q = Quadratic(-1 / (w**2 + sigma**2), b)
    return dde(s_p, s_q, Line(w, b), sigma)


def generator_gradient(model: DDE, count: int = 200_000) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    model.generator.zero_grad()
    model.generator_loss(gaussian(count), NOW).total.backward()
    return model.generator.w.grad, model.generator.b.grad


@pytest.mark.parametrize(("w", "b"), [(1.5, 0.4), (0.3, -1.0), (0.8, 0.5)])
def test_the_generators_gradient_is_that_of_the_divergence(w, b):
    """KL(N(b, w^2 + sigma^2) || N(mu, c^2 + sigma^2)), by autograd of its closed form; 0 at b = mu, w = c."""
    mu, std, sigma = 0.5, 0.8, 0.5
    found = torch.stack(generator_gradient(toy_pair(w, b, mu, std, sigma)))
    parameters = torch.tensor([w, b], requires_grad=True)
    ratio = (parameters[0] ** 2 + sigma**2) / (std**2 + sigma**2)
    kl = (ratio - 1 - ratio.log() + (parameters[1] - mu) ** 2 / (std**2 + sigma**2)) / 2
    (expected,) = torch.autograd.grad(kl, parameters)
    assert (w, b) != (std, mu) or float(expected.abs().max()) < 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_constants_change_the_generators_loss_and_not_its_gradient():
    model = toy_pair(1.5, 0.4, 0.5, 0.8, 0.5)
    before = generator_gradient(model, 1000)
    value = lambda: (torch.manual_seed(0), float(model.generator_loss(gaussian(1000), NOW).total.detach()))[1]
    low = value()
    model.s_p.constant, model.s_q.constant = -8.0, 16.0
    assert abs(value() - low - 24) < 1e-3
    torch.testing.assert_close(generator_gradient(model, 1000), before, rtol=1e-4, atol=1e-6)


class Watching(Quadratic):
    """Remembers what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return super().forward(x)


def test_both_densities_judge_the_same_noisy_images():
    """Variance w^2 + sigma^2, at one point x for s_p and s_q, with a graph back to the generator."""
    s_p, s_q = Watching(-1.0), Watching(-2.0)
    torch.manual_seed(0)
    dde(s_p, s_q, Line(0.5, 0.0), sigma=1.2).generator_loss(gaussian(100_000), NOW)
    assert torch.equal(s_p.seen, s_q.seen)
    assert abs(float(s_p.seen.detach().var()) / (0.5**2 + 1.2**2) - 1) < 0.02
    assert s_p.seen.requires_grad


def test_images_are_made_for_the_density_without_a_graph():
    made = []
    model = dde(Quadratic(-1.0))
    model.generator.register_forward_hook(lambda module, inputs, output: made.append(output))
    model.fake_loss(gaussian(8), NOW)
    assert [images.requires_grad for images in made] == [False]


def test_generator_and_densities_together_find_the_data():
    """Everything trained at once, from a narrow generator in the wrong place: b -> mu and w^2 -> c^2."""
    torch.manual_seed(0)
    model = DDE(Free(), Free(), Line(0.2, -1.0), 0.5, SHAPE, 1, real_steps=2, fake_steps=3)
    optimizers = {
        phase.name: torch.optim.Adam(phase.params.parameters(), 0.05, betas=(0.5, 0.9))
        for phase in model.phases()
    }
    for step in range(60):
        for phase in model.phases():
            for _ in range(phase.repeats):
                optimizers[phase.name].zero_grad()
                phase.loss(gaussian(256, 0.8, 0.5), Step(step, 60)).total.backward()
                optimizers[phase.name].step()
    assert abs(float(model.generator.b.detach()) - 0.5) < 0.1
    assert abs(abs(float(model.generator.w.detach())) - 0.8) < 0.1


class Free(nn.Module):
    """-exp(a) x^2 / 2 + c x."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten()
        return -self.a.exp() * x.square() / 2 + self.c * x


def test_normalisers_are_what_log_densities_are_given():
    model = dde(Quadratic(-2.0))
    x = torch.randn(3, *SHAPE)
    found = model.log_density(x, Normaliser(torch.tensor(1.5), torch.tensor(1.0)))
    torch.testing.assert_close(found, model.s_p(x) - 1.5)


def test_the_estimators_take_their_steps_before_the_generators_one():
    phases = dde(Quadratic(1.0)).phases()
    assert [(phase.name, phase.repeats) for phase in phases] == [("s_p", 5), ("s_q", 5), ("generator", 1)]


def test_each_phase_trains_its_own_part_and_the_rest_is_frozen(compose):
    """Which parts ask for gradients while each loss is computed; and s_q's stay empty in the generator's."""
    sizes = ["energy_network.widths=[8,8]", "energy_network.halve=[true,true]", "energy_network.hidden=[8]"]
    sizes += ["model.generator.widths=[8,8]", "trainer.batch_size=16"]
    config = compose("model=dde", "model.real_steps=1", "model.fake_steps=2", *sizes)
    cpu = torch.device("cpu")
    built = Assembly(settle_precision(config, cpu), cpu, Ranks())
    model = built.generator()
    parts = {"s_p": model.s_p, "s_q": model.s_q, "generator": model.generator}
    asking: dict[str, list[set[str]]] = {name: [] for name in parts}

    def watched(name, loss):
        def noting(data, step):
            asking[name].append(
                {part for part, module in parts.items() if any(p.requires_grad for p in module.parameters())}
            )
            for parameter in model.parameters():
                parameter.grad = None
            return loss(data, step)

        return noting

    model.real_loss = watched("s_p", model.real_loss)
    model.fake_loss = watched("s_q", model.fake_loss)
    model.generator_loss = watched("generator", model.generator_loss)
    plan = built.plan(model)
    assert plan.batches_per_step == 4
    plan.run(NOW, iter([gaussian(16, shape=(1, 8, 8)) for _ in range(4)]))
    assert asking == {"s_p": [{"s_p"}], "s_q": [{"s_q"}] * 2, "generator": [{"generator"}]}
    assert all(parameter.grad is None for part in (model.s_p, model.s_q) for parameter in part.parameters())
    assert any(parameter.grad is not None for parameter in model.generator.parameters())
