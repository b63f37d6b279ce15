"""The compiled update gives what the plain one gives, and is there only where it is asked for."""

from __future__ import annotations

import pytest
import torch

from genbench.ops import compiled
from genbench.ops.combine import ONE, Combination, combine
from genbench.ops.random import Keys, Stream


def update(images, step, keep=False):
    """A guided, clipped, noisy step with a coefficient an image."""
    generator = torch.Generator().manual_seed(images)
    x, given, without = torch.randn(3, images, 1, 5, 3, generator=generator)
    each = torch.linspace(0.2, 0.9, images, dtype=torch.float64)
    half = torch.tensor(0.5, dtype=torch.float64)
    estimate = Combination((ONE, -each, half), (x, given, without), bound=ONE)
    kept = estimate if keep else None
    keys = Keys(torch.arange(images) + 3, seed=11)
    out = combine((each, half), (x, estimate), each / 2, keys, step, Stream.STEP, keep=kept)
    return out, estimate


def test_compiled_updates_are_the_plain_ones():
    plain = [update(4, step)[0] for step in (0, 1, 900)]
    torch.compiler.reset()
    with compiled.compiling():
        fused = [update(4, step)[0] for step in (0, 1, 900)]
        out, estimate = update(4, 2, keep=True)
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    expected, again = update(4, 2, keep=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert estimate.known
    torch.testing.assert_close(estimate.tensor(), again.tensor(), rtol=0, atol=1e-6)


def test_nothing_is_compiled_unasked(monkeypatch):
    monkeypatch.setattr(compiled, "fused", lambda *_: pytest.fail("compiled"))
    update(2, 0)
    monkeypatch.setattr(compiled, "fused", lambda update, noise, counter: "compiled")
    with compiled.compiling():
        assert update(2, 0)[0] == "compiled"
    assert torch.is_tensor(update(2, 0)[0])
