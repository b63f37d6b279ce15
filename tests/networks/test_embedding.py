"""What networks are told: the embeddings of time and class in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genbench.contracts import UserError
from genbench.networks.embedding import Fourier, Positional, sinusoidal_embedding, with_label


def test_sinusoidal_embedding_has_the_reference_frequencies() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0.0, 1.0, 500.0]), 8)
    frequencies = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4]
    for row, time in zip(embedding, (0.0, 1.0, 500.0)):
        expected = [math.sin(time * f) for f in frequencies] + [math.cos(time * f) for f in frequencies]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert torch.equal(sinusoidal_embedding(torch.tensor([3]), 9)[:, 8], torch.zeros(1))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_positional_multiplies_the_time(dtype: torch.dtype) -> None:
    time = torch.tensor([0, 3, 12], dtype=dtype)
    assert torch.equal(Positional(6)(time), sinusoidal_embedding(time, 6))
    assert torch.equal(Positional(6, scale=0.25)(time), sinusoidal_embedding(time.double() / 4, 6))


def test_fourier_features_are_sines_and_cosines_of_fixed_frequencies() -> None:
    torch.manual_seed(0)
    embedding = Fourier(6, scale=2.0)
    time = torch.tensor([-1.5, 0.0, 0.3])
    expected = [
        [f(2 * math.pi * t * w) for f in (math.sin, math.cos) for w in embedding.frequencies.tolist()]
        for t in time.tolist()
    ]
    torch.testing.assert_close(embedding(time), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert torch.equal(embedding(time), embedding(time))


def test_the_frequencies_are_normal_stored_and_not_trained() -> None:
    torch.manual_seed(0)
    embedding = Fourier(20_000, scale=16.0)
    frequencies = embedding.frequencies
    assert float(frequencies.std()) == pytest.approx(16.0, rel=5 / math.sqrt(2 * 10_000))
    assert abs(float(frequencies.mean())) < 5 * 16 / math.sqrt(10_000)
    assert list(embedding.parameters()) == []
    assert torch.equal(embedding.state_dict()["frequencies"], frequencies)


def test_near_times_are_told_apart_by_fourier_features_alone() -> None:
    """The kernel of Fourier features is Gaussian: E cos(2 pi w d) = exp(-2 (pi scale d)^2)."""
    torch.manual_seed(0)
    scale, distance = 16.0, 0.01
    a, b = (Fourier(8192, scale), Positional(8192))
    times = torch.tensor([0.5, 0.5 + distance])
    (one, other), (near, by) = a(times), b(times)
    expected = math.exp(-2 * (math.pi * scale * distance) ** 2)
    assert float(one @ other) / 4096 == pytest.approx(expected, abs=5 / math.sqrt(4096))
    assert float(near @ by) / 4096 > 0.9999


def test_an_odd_number_of_fourier_features_is_refused() -> None:
    with pytest.raises(UserError, match=r"features=7.*set it to 8"):
        Fourier(7)


def test_each_label_adds_its_row_and_no_label_adds_the_last() -> None:
    torch.manual_seed(0)
    label, embedded = nn.Embedding(4, 5), torch.randn(3, 5)
    rows = label.weight
    told = with_label(embedded, label, torch.tensor([2, -1, 0]))
    assert torch.equal(told, embedded + torch.stack((rows[2], rows[3], rows[0])))
    assert torch.equal(with_label(embedded, label, None), embedded + rows[3])


def test_without_classes_nothing_is_added_and_labels_are_refused() -> None:
    embedded = torch.randn(3, 5)
    assert with_label(embedded, None, None) is embedded
    with pytest.raises(UserError, match=r"network\.classes"):
        with_label(embedded, None, torch.zeros(3, dtype=torch.int64))
