"""The one condition on a rule of correction, as a check that anyone can run on a corruption of their own.

    (*)     int p(x_s | x_t, x0) p(x_t | x0) dx_t = p(x_s | x0)

Where it holds, estimates that are draws from p(x0 | x_t) lead from the law of x_t to that of x_s, and
sampling is exact for any number of steps (kexue.fm 9262).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Corruption, Posterior, Rule
from genbench.ops.random import Keys

RISK = 1e-6
"""The probability that a rule for which (*) holds is said to break it."""

TOGETHER = 2**18
"""Pixels drawn at once: of 256 grey levels each, a law has 268 MB."""


@dataclass(frozen=True)
class Star:
    """How far apart both sides of (*) are seen to be.

    distance: the largest difference of the distribution functions along any of the directions looked at;
    bound: what chance alone exceeds once in a million checks.
    """

    distance: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether chance explains the distance."""
        return self.distance <= self.bound


def check_star(
    corruption: Corruption,
    rule: Rule,
    x0: Tensor,
    s: float,
    t: float,
    draws: int = 20000,
    directions: int = 32,
    seed: int = 0,
    tolerance: float = 1e-3,
) -> Star:
    """Both sides of (*) for one image x0 [C, H, W] and times s < t, each by `draws` draws.

    The step of `rule` is given x0 itself. Laws are compared along single pixels and along random directions,
    half of `directions` each; values closer than `tolerance` count as equal, so that laws of a few points can
    be compared. Raises UserError where the rule is refused, ValueError where not 0 <= s < t <= 1.
    """
    if not 0 <= s < t <= 1:
        raise ValueError(f"expected 0 <= s < t <= 1, found s = {s} and t = {t}")
    early, late = (torch.tensor(time, dtype=torch.float64) for time in (s, t))
    rule.check(corruption, early, late)
    pixels = x0.numel()
    normals = Keys(torch.arange(directions - directions // 2), seed + 1).normal((pixels,)).double()
    places = torch.arange(directions // 2) * max(1, pixels // max(1, directions // 2)) % pixels
    along = torch.cat((normals / normals.norm(dim=1, keepdim=True), torch.eye(pixels).double()[places]))
    sides = []
    for part in torch.arange(draws).split(max(1, TOGETHER // pixels)):
        images = x0.expand(len(part), *x0.shape).contiguous()
        walking, direct = Keys(part, seed), Keys(part + draws, seed)
        x_t = corruption.apply(images, corruption.draw(images.shape, walking), late)
        stepped = rule.law(corruption, x_t, Posterior(images), early, late).sample(walking, 0)
        drawn = corruption.apply(images, corruption.draw(images.shape, direct), early)
        sides.append([side.double().flatten(1) @ along.T for side in (stepped, drawn)])
    one, other = map(torch.cat, zip(*sides, strict=True))
    # Kolmogorov and Smirnov's, with the risk shared among the directions.
    bound = math.sqrt(math.log(2 * len(along) / RISK) / draws)
    return Star(max(_apart(one, other, tolerance), _apart(other, one, tolerance)), bound)


def _apart(one: Tensor, other: Tensor, tolerance: float) -> float:
    """The largest P(one <= x) - P(other <= x + tolerance) over x and columns of samples [N, K]."""
    ends = one.sort(dim=0).values.T.contiguous()
    reached = torch.searchsorted(other.sort(dim=0).values.T.contiguous(), ends + tolerance, right=True) / len(
        other
    )
    steps = torch.arange(1, len(one) + 1, dtype=torch.float64) / len(one)
    return float((steps - reached).max())
