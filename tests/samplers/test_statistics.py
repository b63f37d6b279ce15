"""Batch statistics measured for sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.contracts import Decodes, Generator, Renormalises
from genbench.ops.random import Ambient, Keys
from genbench.samplers.decode import Decode
from genbench.samplers.statistics import measure, using


class Normalising(Generator):
    """decode(z) = BN(3 z + 2), with a second normalisation that decoding never runs."""

    image_shape = (2, 1, 1)
    latent_shapes = ((2, 1, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"used": nn.BatchNorm2d(2), "unused": nn.BatchNorm2d(2)})
        with torch.no_grad():
            self.network["used"].running_mean.fill_(100.0)

    def renormalised(self) -> nn.Module:
        return self.network

    def phases(self):
        return []

    def decode(self, latents, labels=None, temperature=1.0) -> Tensor:
        return self.network["used"](3 * temperature * latents[0] + 2)


def test_the_statistics_are_those_of_the_latents_sampling_uses():
    torch.manual_seed(0)
    model = Normalising().eval()
    assert isinstance(model, Renormalises)
    assert isinstance(model, Decodes)
    fitted = Decode(statistics=20_000).fit(model, iter([]), Ambient(500, torch.device("cpu")))
    assert sorted(fitted) == ["used.running_mean", "used.running_var"]
    assert abs(float(fitted["used.running_mean"].mean()) - 2) < 5 * 3 / 40_000**0.5
    assert abs(float(fitted["used.running_var"].mean()) - 9) < 5 * 9 * (2 / 40_000) ** 0.5
    cold = Decode(temperature=0.5, statistics=20_000).fit(model, iter([]), Ambient(500, torch.device("cpu")))
    assert abs(float(cold["used.running_var"].mean()) - 9 / 4) < 5 * 9 / 4 * (2 / 40_000) ** 0.5


def test_measuring_leaves_the_model_as_it_was():
    model = Normalising().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model.network, 3, lambda batch: model.decode([torch.randn(8, 2, 1, 1)]))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in model.modules())
    assert model.network["used"].momentum == 0.1


def test_sampling_uses_what_was_fitted_and_puts_it_back():
    torch.manual_seed(0)
    model = Normalising().eval()
    keys = Keys(torch.arange(4000), 0)
    sampler = Decode(statistics=20_000)
    fitted = sampler.fit(model, iter([]), Ambient(500, torch.device("cpu")))
    images = sampler(model, keys, None, fitted).images
    assert abs(float(images.mean())) < 0.1
    assert abs(float(images.std()) - 1) < 0.05
    assert float(model.network["used"].running_mean[0]) == 100.0
    raw = sampler(model, keys, None, {}).images
    assert float(raw.mean()) < -50


def test_every_batch_counts_as_much():
    """Batches of constants 0, 1, 5: their mean is 2, whatever their order."""
    model = nn.BatchNorm2d(1)
    for order in ((0.0, 1.0, 5.0), (5.0, 0.0, 1.0)):
        fitted = measure(model, 3, lambda batch, order=order: model(torch.full((2, 1, 2, 2), order[batch])))
        torch.testing.assert_close(fitted["running_mean"], torch.tensor([2.0]))


def test_statistics_come_back_after_an_error():
    model = Normalising().eval()
    try:
        with using(model.network, {"used.running_mean": torch.zeros(2)}):
            assert float(model.network["used"].running_mean[0]) == 0
            raise RuntimeError
    except RuntimeError:
        pass
    assert float(model.network["used"].running_mean[0]) == 100.0


def test_zero_statistics_keep_the_running_averages_of_training():
    assert Decode(statistics=0).fit(Normalising(), iter([]), Ambient(500, torch.device("cpu"))) == {}
