"""Philox against published vectors, and noise that does not see its batch."""

from __future__ import annotations

import pytest
import torch

from genbench.ops.random import Keys, Stream, philox


def words(*values: int) -> list[torch.Tensor]:
    return [torch.tensor(value) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The known-answer vectors that come with the algorithm's authors' library (Random123)."""
    assert tuple(int(word) for word in philox(words(*counter), words(*key))) == expected


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("shape", [(3,), (3, 5, 7), (1, 8, 8)])
def test_noise_is_the_same_bit_for_bit_in_any_batch(chunk, shape):
    index = torch.arange(100, 164)
    whole = Keys(index, seed=5)
    parts = [Keys(piece, seed=5) for piece in index.split(chunk)]
    for draw in ("normal", "uniform"):
        together = getattr(whole, draw)(shape, 3, Stream.STEP)
        apart = torch.cat([getattr(part, draw)(shape, 3, Stream.STEP) for part in parts])
        assert torch.equal(together, apart)


def test_a_longer_draw_starts_with_the_shorter_one():
    keys = Keys(torch.arange(4), seed=0)
    assert torch.equal(keys.normal((40,))[:, :17], keys.normal((17,)))


def test_every_part_of_the_key_and_counter_matters():
    keys = Keys(torch.arange(2), seed=0)
    reference = keys.normal((16,), 0, Stream.STEP)
    others = [
        keys.normal((16,), 1, Stream.STEP),
        keys.normal((16,), 0, Stream.CORRECTOR),
        Keys(torch.arange(2), seed=1).normal((16,), 0, Stream.STEP),
        Keys(torch.arange(2, 4), seed=0).normal((16,), 0, Stream.STEP),
    ]
    for other in others:
        assert not torch.isclose(reference, other).any()
    assert not torch.isclose(reference[0], reference[1]).any()


def test_normals_have_the_moments_of_a_normal():
    """Four million draws: each moment within five of its standard errors."""
    x = Keys(torch.arange(1000), seed=11).normal((4096,)).double()
    n = x.numel()
    for power, (expected, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs(x.pow(power).mean() - expected) < 5 * (variance / n) ** 0.5
    rows, columns = x[:, :-1], x[:, 1:]
    assert abs((rows * columns).mean()) < 5 / n**0.5


def test_the_largest_word_is_still_below_one(monkeypatch):
    monkeypatch.setattr(Keys, "words", lambda self, count, *_: torch.tensor([[0xFFFFFFFF, 0]])[:, :count])
    keys = Keys(torch.arange(1), seed=0)
    assert float(keys.uniform((2,)).min()) > 0
    assert float(keys.uniform((2,)).max()) < 1
    assert keys.integers(10, Stream.LABEL).tolist() == [9]


def test_integers_are_even():
    drawn = Keys(torch.arange(30_000), seed=3).integers(3, Stream.LABEL)
    counts = torch.bincount(drawn, minlength=3).double()
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 2 + 5 * 2


def test_uniforms_are_inside_the_open_interval_and_even():
    u = Keys(torch.arange(1000), seed=2).uniform((1024,))
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, 64, 0, 1)
    expected = u.numel() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * (2 * 63) ** 0.5
