"""Draws of grey levels and blur, the costly operations of corruptions other than Gaussian noise.

A draw of every pixel from its own law of V levels reads each logit once at best; a blur reads and writes the
image twice, once an axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from genbench.contracts import Posterior
from genbench.corruptions.bases import Cosines
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart
from genbench.speed import plain
from genbench.speed.bench import Bench
from genbench.speed.turns import Contestant, Row, compare


def rows(settings: Mapping[str, Any], bench: Bench) -> Iterator[Row]:
    """Times both. settings: draws and blurs, batch sizes of each; levels: V."""
    with torch.inference_mode():
        for batch in settings["draws"]:
            yield from _draws(batch, settings["levels"], bench)
        for batch in settings["blurs"]:
            yield from _blur(batch, bench)


def _draws(batch: int, levels: int, bench: Bench) -> list[Row]:
    logits = torch.randn(batch, 3, 32, 32, levels, device=bench.device)
    posterior = Posterior(torch.zeros(batch, 3, 32, 32, device=bench.device), logits=logits)
    keys = Keys(torch.arange(batch, device=bench.device), seed=0)
    draw = Apart()
    facts = {"bytes": float(logits.nbytes)}
    contestants = [
        Contestant("genbench", lambda: draw(posterior, keys, 0, {}), facts=facts),
        Contestant("Gumbel noise and argmax", lambda: plain.gumbel_argmax(logits), facts=facts),
        Contestant("torch.multinomial", lambda: plain.multinomial(logits), facts=facts),
    ]
    if bench.compile:
        compiled = torch.compile(plain.gumbel_argmax, dynamic=False)
        contestants.append(Contestant("Gumbel, compiled", lambda: compiled(logits), facts=facts))
    return compare("operations", f"draw of {tuple(logits.shape)} logits", "draw", contestants, bench.clock)


def _blur(batch: int, bench: Bench) -> list[Row]:
    images = torch.randn(batch, 3, 32, 32, device=bench.device)
    basis = Cosines()
    gains = torch.exp(-basis.decay(32, 32)).float().to(bench.device)
    facts = {"bytes": 4.0 * images.nbytes}
    contestants = [
        Contestant("genbench", lambda: basis.inverse(basis.forward(images) * gains), facts=facts),
        Contestant("DCT by FFT", lambda: plain.blur_by_fft(images, gains), facts=facts),
    ]
    return compare("operations", f"blur of {tuple(images.shape)}", "blur", contestants, bench.clock)
