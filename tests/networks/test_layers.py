"""The layers whose computation is not their definition: upsampling, attention, dropout; order in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genbench.networks.attention import attend
from genbench.networks.dropout import dropout_
from genbench.networks.levels import memory_format
from genbench.networks.resampling import Upsample


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (3, 5)])
def test_upsampling_is_nearest_neighbour_then_convolution(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = Upsample(6).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, height, width, dtype=torch.float64, requires_grad=True)
    enlarged = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(enlarged, layer.weight, layer.bias, padding=1)
    out = layer(x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    wanted = torch.autograd.grad((expected * weight).sum(), (x, layer.weight, layer.bias))
    found = torch.autograd.grad((out * weight).sum(), (x, layer.weight, layer.bias))
    for mine, theirs in zip(found, wanted):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_is_the_softmax_formula(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 32, 16).to(dtype).unbind()
    q, k, v = query.double(), key.double(), value.double()
    expected = (q @ k.transpose(-1, -2) / 4.0).softmax(dim=-1) @ v
    torch.testing.assert_close(attend(query, key, value).double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_it_is_told_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    n = 2**20
    out = dropout_(torch.ones(n), p, training=True)
    share = float((out == 0).float().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5
    kept = out[out != 0]
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert float(kept[0]) == pytest.approx(1 / (1 - p), rel=2e-4)


def test_dropout_decides_for_every_element_apart() -> None:
    torch.manual_seed(0)
    kept = (dropout_(torch.ones(2**20), 0.5, training=True) != 0).double()
    words = kept.view(-1, 4)  # four decisions come from one integer
    covariance = torch.cov(words.T)
    torch.testing.assert_close(covariance, 0.25 * torch.eye(4, dtype=torch.float64), rtol=0, atol=3e-3)
    neighbours = torch.cov(torch.stack((words[:-1, 3], words[1:, 0])))
    assert abs(float(neighbours[0, 1])) < 3e-3


def test_dropout_is_repeatable_and_its_gradient_has_the_same_mask() -> None:
    x = torch.randn(3, 5, 7, requires_grad=True)  # 105 elements: not a multiple of four
    torch.manual_seed(7)
    out = dropout_(x * 1.0, 0.3, training=True)
    torch.manual_seed(7)
    assert torch.equal(out, dropout_(x.detach().clone(), 0.3, training=True))
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())
    assert not torch.equal(out, dropout_(x.detach().clone(), 0.3, training=True))


def test_dropout_keeps_the_order_of_axes_in_memory() -> None:
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    out = dropout_(x.clone(), 0.5, training=True)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out[out != 0], (2 * x)[out != 0])


def test_dropout_is_nothing_outside_training_and_at_probability_zero() -> None:
    x = torch.randn(16)
    state = torch.get_rng_state()
    assert dropout_(x, 0.5, training=False) is x
    assert dropout_(x, 0.0, training=True) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_feature_maps_lie_as_the_device_is_fast_with_them(monkeypatch) -> None:
    """The measurements are beside `memory_format`; here, that each case is told from the others."""
    x = torch.zeros(1)
    assert memory_format(x) == torch.channels_last
    assert memory_format(x.bfloat16()) == torch.contiguous_format
    with torch.autocast("cpu", torch.bfloat16):
        assert memory_format(x) == torch.contiguous_format
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert memory_format(x) == torch.channels_last
    assert memory_format(x.to("meta")) == torch.preserve_format


@pytest.mark.gpu
def test_on_a_gpu_bfloat16_lies_channels_last() -> None:
    x = torch.zeros(1, device="cuda")
    assert memory_format(x) == torch.preserve_format
    with torch.autocast("cuda", torch.bfloat16):
        assert memory_format(x) == torch.channels_last
