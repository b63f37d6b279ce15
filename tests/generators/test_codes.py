"""Codes: penalties in closed form, batch normalisation as entropy needs it, what evaluation sees."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from genbench.contracts import Step
from genbench.errors import UserError
from genbench.generators.codes import Entropic, Plain, SquaredNorm, Variational
from genbench.generators.entropy import NearestNeighbourEntropy
from genbench.ops.random import Keys

START = Step(0, 100)


def entropic(dimension: int = 4, weight: float = 1.0, warmup: int = 0) -> Entropic:
    return Entropic(dimension, NearestNeighbourEntropy(), weight, warmup)


def features(count: int = 200, width: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


CODES = {
    "plain": Plain(),
    "squared": SquaredNorm(0.1),
    "variational": Variational(0.1),
    "entropic": entropic(),
}


@pytest.mark.parametrize("name", CODES)
def test_codes_are_float32_under_autocast(name):
    code = CODES[name]
    h = features(64, 4 * code.outputs_per_dimension)
    for given in (h, h.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            z, penalty, parts = code(given, START)
            made = [
                z,
                penalty,
                code.mean(given),
                code.draw(given, Keys(torch.arange(64), 0)),
                *parts.values(),
            ]
        assert all(tensor.dtype == torch.float32 for tensor in made)
        assert z.shape == (64, 4)
        assert penalty.shape == ()


def test_a_plain_code_is_the_encoders_output():
    h = features()
    z, penalty, _ = Plain()(h, START)
    assert torch.equal(z, h)
    assert float(penalty) == 0
    assert torch.equal(Plain().mean(h), h)


def test_the_squared_norm_is_half_the_weight_times_its_mean():
    h = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    z, penalty, parts = SquaredNorm(0.5)(h, START)
    assert torch.equal(z, h)
    assert float(penalty) == 0.5 / 2 * (25 + 1) / 2
    assert float(parts["squared_norm"]) == 13


def test_the_divergence_is_that_of_torch():
    h = features(50, 6).double()
    mu, log_variance = h.chunk(2, dim=1)
    posterior = Independent(Normal(mu, (log_variance / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    expected = kl_divergence(posterior, prior).mean()
    _, penalty, parts = Variational(0.3)(h, START)
    assert torch.allclose(parts["kl"], expected, rtol=1e-12, atol=0)
    assert torch.allclose(penalty, 0.3 * expected, rtol=1e-12, atol=0)


def test_a_variational_code_is_drawn_around_its_mean():
    """20,000 codes from one h: mean and standard deviation, in training and in evaluation, to five errors."""
    count = 20_000
    h = torch.tensor([1.0, -2.0, math.log(4), math.log(0.25)]).expand(count, 4)
    torch.manual_seed(0)
    for z in (Variational(1.0)(h, START)[0], Variational(1.0).draw(h, Keys(torch.arange(count), 0))):
        deviation = torch.tensor([2.0, 0.5])
        assert ((z.mean(dim=0) - torch.tensor([1.0, -2.0])).abs() < 5 * deviation / count**0.5).all()
        assert ((z.std(dim=0) / deviation - 1).abs() < 5 / (2 * count) ** 0.5).all()
    assert torch.equal(Variational(1.0).mean(h), h[:, :2])


def test_the_reconstruction_reaches_mean_and_variance():
    """z = mu + sigma eps: dz/dmu = 1 and dz/dlog sigma^2 = (z - mu) / 2."""
    h = features(5, 6).requires_grad_()
    torch.manual_seed(0)
    z, _, _ = Variational(1.0)(h, START)
    z.sum().backward()
    assert h.grad is not None
    assert torch.equal(h.grad[:, :3], torch.ones(5, 3))
    assert torch.allclose(h.grad[:, 3:], (z - h[:, :3]).detach() / 2)


@pytest.mark.parametrize(("std", "variance"), [(0.1, 0.999), (1.0, 1 - 1e-5), (100.0, 1.0)])
def test_normalised_codes_have_mean_zero_and_variance_v_over_v_plus_eps(std, variance):
    h = features().double()
    h = 3 + std * (h - h.mean(dim=0)) / h.std(dim=0, correction=0)
    z, _, _ = entropic().double()(h, START)
    assert float(z.mean(dim=0).abs().max()) < 1e-5
    assert torch.allclose(
        z.var(dim=0, correction=0), torch.full((4,), variance, dtype=torch.float64), atol=1e-5
    )


def test_normalisation_has_no_scale_to_learn():
    """With one the entropy bonus would be unbounded."""
    assert not list(entropic().parameters())


def test_the_entropy_is_of_the_normalised_code():
    """Scaling the encoder's output earns nothing, while it would add 4 log 100 = 18 nats to H(h)."""
    code, h = entropic().double(), features().double()
    (z, one, parts), (_, other, _) = code(h, START), code(100 * h + 7, START)
    assert abs(float(one - other)) < 1e-3
    assert torch.equal(parts["entropy"], NearestNeighbourEntropy()(z))
    assert torch.equal(one, -parts["entropy"])


@pytest.mark.parametrize("law", ["normal", "uniform", "heavy", "clustered"])
def test_the_entropy_of_a_normalised_code_stays_below_the_gaussians(law):
    """(d / 2) log(2 pi e), but for the estimate's own error: some 0.05 at d = 2 and 2,000 points."""
    torch.manual_seed(0)
    h = {
        "normal": torch.randn(2000, 2),
        "uniform": torch.rand(2000, 2),
        "heavy": torch.randn(2000, 2) / torch.rand(2000, 1).sqrt(),
        "clustered": torch.randn(2000, 2) + 10 * torch.randint(0, 2, (2000, 2)),
    }[law]
    _, _, parts = Entropic(2, NearestNeighbourEntropy(k=3), 1.0)(h, START)
    assert float(parts["entropy"]) < math.log(2 * math.pi * math.e) + 5 * 0.05


def test_the_entropys_weight_is_warmed_up_linearly():
    code = entropic(weight=3.0, warmup=10)
    found = [code.weight_at(Step(index, 100)) for index in (0, 5, 10, 50)]
    assert found == [0.0, 1.5, 3.0, 3.0]
    _, penalty, parts = code(features(), Step(5, 100))
    assert torch.allclose(penalty, -1.5 * parts["entropy"])
    assert entropic(weight=3.0).weight_at(START) == 3.0


def test_a_code_in_evaluation_does_not_depend_on_its_batch():
    """Running statistics, whatever mode the module is in; evaluation leaves them as they are."""
    code = entropic()
    for seed in range(200):
        code(5 + 2 * features(seed=seed), START)
    h = 5 + 2 * features(seed=999)
    for mode in (True, False):
        code.train(mode)
        before = {name: buffer.clone() for name, buffer in code.named_buffers()}
        whole = code.mean(h)
        assert torch.equal(whole, torch.cat([code.mean(piece) for piece in h.split(7)]))
        assert torch.equal(code.draw(h, Keys(torch.arange(200), 0)), whole)
        assert all(torch.equal(buffer, before[name]) for name, buffer in code.named_buffers())
    # They are nearly those of a batch: reconstructions differ only slightly between the modes.
    assert float((whole - code.train()(h, START)[0]).abs().max()) < 0.3


def sliced_wasserstein(z: torch.Tensor) -> float:
    """Mean distance, over 64 directions, of projections of z to the standard normal's quantiles."""
    directions = torch.nn.functional.normalize(features(64, z.shape[1], seed=5).to(z.dtype), dim=1)
    middle = (torch.arange(len(z), dtype=z.dtype) + 0.5) / len(z)
    quantiles = torch.special.ndtri(middle)
    return float(((z @ directions.T).sort(dim=0).values - quantiles[:, None]).abs().mean())


def test_entropy_alone_turns_a_clustered_ring_into_a_normal_law():
    torch.manual_seed(0)
    angle = torch.randint(0, 6, (256,)) * (2 * math.pi / 6) + 0.1 * torch.randn(256)
    h = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(256, 2)
    h.requires_grad_()
    code = entropic(2)
    optimizer = torch.optim.Adam([h], lr=0.04)
    entropies, distances = [], []
    for index in range(151):
        z, penalty, parts = code(h, Step(index, 151))
        if index % 50 == 0:
            entropies.append(float(parts["entropy"].detach()))
            distances.append(sliced_wasserstein(z.detach()))
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    assert entropies == sorted(entropies)
    assert distances == sorted(distances, reverse=True)
    assert entropies[0] < 1.5
    # The bound is the law's. The estimate passes it: points that repel are spread more evenly than chance.
    assert entropies[-1] > math.log(2 * math.pi * math.e)
    assert distances[-1] < distances[0] / 2


def test_too_small_a_batch_is_refused():
    with pytest.raises(UserError, match=r"trainer\.batch_size"):
        entropic()(features(1), START)


@pytest.mark.parametrize("code", [SquaredNorm, Variational, lambda weight: entropic(weight=weight)])
def test_negative_weights_are_refused(code):
    with pytest.raises(UserError, match=r"model\.code\.weight"):
        code(-1.0)


def test_a_negative_warm_up_is_refused():
    with pytest.raises(UserError, match="warmup=-1"):
        entropic(warmup=-1)
