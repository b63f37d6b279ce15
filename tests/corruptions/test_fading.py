"""Gains that fall from one: blur by the heat equation, and means over ever larger blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from genbench.contracts import UserError
from genbench.corruptions.fading import GeometricWidth, Heat, Pixelation, SineWidth

FADINGS = {
    "sine": Heat(SineWidth(20.0)),
    "sine, some left": Heat(SineWidth(20.0), least=0.001),
    "geometric": Heat(GeometricWidth(0.3, 24.0)),
    "pixelation": Pixelation(),
    "pixelation, some left": Pixelation(least=0.2),
}
every_fading = pytest.mark.parametrize("fading", FADINGS.values(), ids=FADINGS.keys())
SIDES = [(8, 8), (28, 28), (7, 5), (8, 4), (3, 12), (1, 6), (1, 1)]
TIMES = torch.tensor([0.03, 0.11, 0.29, 0.41, 0.61, 0.93], dtype=torch.float64)


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), SIDES)
@every_fading
def test_nothing_has_faded_at_first(fading, height, width):
    gains, _ = fading.gains(time(0), height, width)
    assert gains.dtype == torch.float64
    assert torch.equal(gains, torch.ones(height, width, dtype=torch.float64))
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(fading.apply(x, time(0)), x, rtol=0, atol=1e-13)
    torch.testing.assert_close(fading.apply(x.float(), time(0)), x.float(), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("height", "width"), SIDES)
@every_fading
def test_rates_are_the_derivatives_of_gains(fading, height, width):
    """Central differences, away from the times at which a level of pixelation starts or ends."""
    h = 1e-5
    _, rates = fading.gains(TIMES, height, width)
    after, before = (fading.gains(TIMES + shift, height, width)[0] for shift in (h, -h))
    torch.testing.assert_close(rates, (after - before) / (2 * h), rtol=1e-6, atol=1e-6)


@every_fading
def test_gains_never_rise_and_stop_at_what_is_left(fading):
    gains, rates = fading.gains(torch.linspace(0, 1, 50, dtype=torch.float64), 8, 8)
    assert (gains.diff(dim=0) <= 0).all()
    assert (rates <= 0).all()
    assert gains.min() > fading.least - 1e-15
    assert gains[-1, 7, 7].item() == pytest.approx(fading.least, abs=1e-12)


@every_fading
def test_the_mean_colour_stays(fading):
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    for t in TIMES:
        mean = fading.apply(x, t).mean(dim=(-2, -1))
        torch.testing.assert_close(mean, x.mean(dim=(-2, -1)), rtol=0, atol=1e-13)


@every_fading
def test_every_image_fades_at_a_time_of_its_own(fading):
    x = torch.randn(len(TIMES), 2, 8, 8)
    together = fading.apply(x, TIMES)
    for i, t in enumerate(TIMES):
        assert torch.equal(together[i], fading.apply(x[i : i + 1], t)[0])


def test_widths_go_the_published_way():
    """b sin^2(pi t / 2) of Hoogeboom & Salimans 2023, and even steps of log width of Rissanen et al. 2023."""
    third = time(1 / 3)
    assert SineWidth(20.0)(time(1))[0].item() == pytest.approx(20)
    assert SineWidth(20.0)(third)[0].item() == pytest.approx(20 * 0.25)
    geometric = GeometricWidth(0.5, 32.0)
    assert geometric(time(1))[0].item() == pytest.approx(32)
    assert geometric(third)[0].item() == pytest.approx(2)
    assert geometric(time(1e-9))[0].item() == pytest.approx(0.5)
    assert geometric(time(0))[0] == 0


@pytest.mark.parametrize(("smallest", "largest"), [(0.0, 1.0), (2.0, 2.0), (3.0, 1.0)])
def test_widths_that_do_not_grow_are_refused(smallest, largest):
    with pytest.raises(UserError, match="smallest < largest"):
        GeometricWidth(smallest, largest)


def test_heat_blurs_by_a_gaussian_of_its_width():
    """Far from the edges, of a point: e^(-r^2 / 2 s^2) / (2 pi s^2)."""
    heat = Heat(SineWidth(4.0))
    x = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    x[0, 0, 16, 16] = 1
    i = torch.arange(33, dtype=torch.float64) - 16
    expected = torch.exp(-(i[:, None] ** 2 + i**2) / (2 * 4)) / (2 * math.pi * 4)
    torch.testing.assert_close(heat.apply(x, time(0.5))[0, 0], expected, atol=1e-9, rtol=0)


def test_heat_is_a_semigroup():
    """Blurs of 1.5 and of 2 pixels make one of 2.5 (Rissanen et al. 2023)."""
    heat = Heat(GeometricWidth(0.5, 8.0))
    first, second, both = (time(math.log(width / 0.5) / math.log(16)) for width in (1.5, 2.0, 2.5))
    x = torch.randn(2, 3, 16, 10, dtype=torch.float64)
    torch.testing.assert_close(heat.apply(heat.apply(x, first), second), heat.apply(x, both))


def test_some_of_every_wave_may_be_left():
    """d = (1 - least) e^(-lambda tau) + least: the image itself comes through at that share."""
    full, some = Heat(SineWidth(5.0)), Heat(SineWidth(5.0), least=0.3)
    x = torch.randn(2, 1, 6, 9, dtype=torch.float64)
    for t in TIMES:
        torch.testing.assert_close(some.apply(x, t), 0.7 * full.apply(x, t) + 0.3 * x)


def block_means(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    means = F.avg_pool2d(x, (height, width))
    return means.repeat_interleave(height, -2).repeat_interleave(width, -1)


BLOCKS = {
    (8, 8): [(1, 1), (2, 2), (4, 4), (8, 8)],
    (28, 28): [(1, 1), (2, 2), (4, 4), (28, 28)],
    (7, 7): [(1, 1), (7, 7)],
    # A side that is through waits for the other.
    (8, 4): [(1, 1), (2, 2), (4, 4), (8, 4)],
    (7, 8): [(1, 1), (7, 2), (7, 4), (7, 8)],
    (1, 4): [(1, 1), (1, 2), (1, 4)],
}


@pytest.mark.parametrize(("sides", "blocks"), BLOCKS.items())
def test_levels_are_means_over_blocks_and_end_in_the_mean_of_all(sides, blocks):
    assert blocks[-1] == sides
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    pixelation, count = Pixelation(), len(blocks) - 1
    for number, block in enumerate(blocks):
        found = pixelation.apply(x, time(number / count))
        torch.testing.assert_close(found, block_means(x, *block), rtol=0, atol=1e-13)


def test_a_level_fades_evenly_into_the_next():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for number, (fine, coarse) in enumerate([(1, 2), (2, 4), (4, 8)]):
        found = Pixelation().apply(x, time((number + 0.3) / 3))
        torch.testing.assert_close(
            found, 0.7 * block_means(x, fine, fine) + 0.3 * block_means(x, coarse, coarse)
        )


def test_some_of_every_level_may_be_left():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = Pixelation(least=0.2).apply(x, time(1))
    torch.testing.assert_close(found, 0.8 * block_means(x, 8, 8) + 0.2 * x)
