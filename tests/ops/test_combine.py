"""The one linear update, against the sum written out."""

from __future__ import annotations

import pytest
import torch

from genbench.ops.combine import ONE, Combination, Update, clamped, combine, expand, linear, tensor
from genbench.ops.random import Keys, Stream


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("per_image", [False, True])
def test_combine_is_the_weighted_sum(count, per_image):
    torch.manual_seed(0)
    tensors = [torch.randn(5, 3, 4, 4, dtype=torch.float64) for _ in range(count)]
    shape = (5,) if per_image else ()
    coefficients = [torch.randn(shape, dtype=torch.float64) for _ in range(count)]
    keys = Keys(torch.arange(5), seed=1)
    scale = torch.rand(shape, dtype=torch.float64) + 0.5
    expected = sum(
        c.reshape(-1, 1, 1, 1) * x if per_image else c * x for c, x in zip(coefficients, tensors, strict=True)
    )
    noise = keys.normal((3, 4, 4), 7, Stream.CORRECTOR).double()
    expected = expected + (scale.reshape(-1, 1, 1, 1) if per_image else scale) * noise
    before = [tensor.clone() for tensor in tensors]
    result = combine(coefficients, tensors, scale, keys, 7, Stream.CORRECTOR)
    assert torch.allclose(result, expected, rtol=0, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_no_noise_is_drawn_for_a_zero_coefficient():
    x = torch.ones(2, 3)
    zero = torch.zeros((), dtype=torch.float64)
    assert torch.equal(combine((torch.ones(()),), (x,), zero), x)


def test_noise_without_randomness_is_refused():
    with pytest.raises(ValueError, match="randomness"):
        combine((torch.ones(()),), (torch.ones(2, 3),), torch.ones(()))


def test_expand_keeps_scalars_and_aligns_batches():
    like = torch.zeros(2, 3, 4)
    assert expand(2.0, like).shape == ()
    assert expand(torch.tensor([1.0, 2.0]), like).shape == (2, 1, 1)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def two(dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, 3, 4, dtype=dtype), torch.randn(2, 3, 4, dtype=dtype)


def test_a_combination_without_a_bound_is_never_made():
    """x - x, and so on, in coefficients: the update sees each tensor once."""
    x, y = two()
    estimate = Combination((number(2.0), number(-3.0)), (x, y))
    update = Update((ONE, number(0.5)), (x, estimate))
    assert [float(weight) for weight in update.weights] == [2.0, -1.5]
    assert update.tensors[0] is x
    assert update.tensors[1] is y
    torch.testing.assert_close(combine((ONE, number(0.5)), (x, estimate)), 2 * x - 1.5 * y)
    assert not estimate.known


def test_guidance_of_two_combinations_has_three_tensors():
    x, y = two()
    z = y.flip(0)
    given, without = (Combination((number(1.5), number(-2.0)), (x, output)) for output in (y, z))
    mixed = linear((number(3.0), number(-2.0)), (given, without))
    assert len(mixed.tensors) == 3
    assert float(mixed.coefficients[0]) == 1.5
    torch.testing.assert_close(mixed.tensor(), 3 * given.tensor() - 2 * without.tensor())


@pytest.mark.parametrize("bound", [0.5, (0.3, 0.8)])
def test_a_bound_holds_before_the_step_is_taken(bound):
    x, y = two()
    bound = torch.tensor(bound, dtype=torch.float64)
    limit = bound.reshape(-1, 1, 1)
    inner = (2 * x - y).clamp(-limit, limit)
    estimate = clamped(Combination((number(2.0), -ONE), (x, y)), bound)
    torch.testing.assert_close(combine((number(3.0), number(0.5)), (x, estimate)), 3 * x + 0.5 * inner)
    torch.testing.assert_close(estimate.tensor(), inner)
    torch.testing.assert_close(tensor(clamped(x, bound)), x.clamp(-limit, limit))
    twice = clamped(clamped(x, number(0.9)), number(0.4))
    torch.testing.assert_close(twice.tensor(), x.clamp(-0.4, 0.4))
    narrowed = linear((number(2.0),), (clamped(x, number(0.4)),))
    torch.testing.assert_close(narrowed.tensor(), 2 * x.clamp(-0.4, 0.4))


def test_values_are_worked_out_once_and_let_go_of_their_terms():
    x, y = two()
    estimate = Combination((number(2.0), -ONE), (x, y))
    combine((ONE, ONE), (x, estimate), keep=estimate)
    values = estimate.tensor()
    assert estimate.tensor() is values
    assert estimate.tensors == (values,)
    torch.testing.assert_close(values, 2 * x - y)


def test_a_step_never_writes_to_what_it_is_given():
    """Not to a term of weight one, nor to the values of an estimate, with noise or without."""
    x, y = two()
    kept = Combination((ONE,), (x,))
    estimate = Combination((ONE,), (y,), number(0.5))
    before = [each.clone() for each in (x, y, kept.tensor(), estimate.tensor())]
    keys = Keys(torch.arange(2), 0)
    for terms in ((x,), (kept,), (estimate,), (x, y), (estimate, y), (kept, x)):
        for noise in (None, ONE):
            out = combine((ONE,) * len(terms), terms, noise, keys)
            assert all(out is not tensor(term) for term in terms)
    after = (x, y, kept.tensor(), estimate.tensor())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_first_tensor_says_the_precision():
    x, y = two(torch.float32)
    estimate = Combination((ONE, number(0.5)), (x, y.bfloat16()))
    assert combine((ONE, ONE), (x, estimate)).dtype == torch.float32
    torch.testing.assert_close(estimate.tensor(), x + 0.5 * y.bfloat16().float())


def test_gradients_reach_what_an_estimate_is_made_of():
    x, y = (each.requires_grad_() for each in two())
    estimate = Combination((number(2.0), number(-3.0)), (x, y), number(1.0))
    assert torch.autograd.gradcheck(
        lambda x, y: combine((ONE, ONE), (x, Combination(estimate.coefficients, (x, y), number(1.0)))), (x, y)
    )
