"""Normalisation told the class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.networks.conditional import ConditionalNorm, conditional_batch_norm


def layer(channels: int = 6, condition: int = 4) -> ConditionalNorm:
    return ConditionalNorm(nn.LayerNorm(channels, elementwise_affine=False), channels, condition)


def test_every_class_starts_with_the_plain_normalisation():
    torch.manual_seed(0)
    x, classes = torch.randn(5, 6), torch.randn(5, 4)
    assert torch.equal(layer()(x, classes), nn.LayerNorm(6)(x))


def test_the_gradient_reaches_the_class_at_once():
    torch.manual_seed(0)
    told = layer()
    told(torch.randn(5, 6), torch.randn(5, 4)).square().sum().backward()
    assert (told.told.weight.grad.abs() > 0).all()


def test_the_output_is_normalised_before_scale_and_shift():
    torch.manual_seed(0)
    told = layer()
    nn.init.normal_(told.told.weight)
    x, classes = torch.randn(7, 6) * 3 + 5, torch.randn(7, 4)
    delta_scale, delta_shift = told.told(classes).chunk(2, dim=1)
    normal = (told(x, classes) - delta_shift) / (1 + delta_scale)
    torch.testing.assert_close(normal.mean(dim=1), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(dim=1, correction=0), torch.ones(7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("condition", [0, 4])
def test_with_batch_norm_it_is_pytorchs_at_the_start(condition):
    torch.manual_seed(0)
    x = torch.randn(4, 6, 3, 3)
    told = conditional_batch_norm(6, condition)
    classes = torch.randn(4, condition) if condition else None
    torch.testing.assert_close(told(x, classes), nn.BatchNorm2d(6)(x))


def test_scale_and_shift_follow_the_class_of_each_image():
    told = conditional_batch_norm(2, 1)
    with torch.no_grad():
        told.told.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    told.eval()  # mean 0 and variance 1: the normalisation itself does nothing but its epsilon
    x = torch.ones(2, 2, 1, 1)
    out = told(x, torch.tensor([[0.0], [1.0]])).flatten(1)
    torch.testing.assert_close(out, torch.tensor([[1.0, 1.0], [2 + 3, 3 + 4.0]]), atol=1e-4, rtol=0)
