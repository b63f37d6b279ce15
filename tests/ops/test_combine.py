"""The one linear update, against the sum written out."""

from __future__ import annotations

import pytest
import torch

from genbench.ops.combine import combine, expand
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
