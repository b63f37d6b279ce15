"""One-step sampling."""

from __future__ import annotations

import torch
from torch import nn

from genbench.contracts import Decodes
from genbench.ops.random import Keys
from genbench.samplers.decode import Decode


class Affine(nn.Module):
    image_shape = (1, 2, 2)
    latent_shapes = ((4,), (4,))

    def decode(self, latents, labels=None, temperature=1.0):
        first, second = latents
        return (temperature * (first + 2 * second)).reshape(-1, 1, 2, 2)


def test_latents_are_independent_standard_normals():
    assert isinstance(Affine(), Decodes)
    samples = Decode()(Affine(), Keys(torch.arange(20_000), 0))
    values = samples.images.double()
    assert abs(float(values.var()) - 5) < 5 * 5 * (2 / values.numel()) ** 0.5
    assert samples.nfe.unique().tolist() == [1]


def test_temperature_reaches_the_model():
    keys = Keys(torch.arange(4), 0)
    hot, cold = Decode(2.0)(Affine(), keys).images, Decode(1.0)(Affine(), keys).images
    assert torch.equal(hot, 2 * cold)
