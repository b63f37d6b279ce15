"""The bridges of chains whose tokens stay or are drawn anew, in closed form (Austin et al. 2021, eq. 3).

With p the law of what is drawn, a and b the probabilities of not having been drawn by t and s, k = a / b and
v = x_t, what a level j of x_s, or of x_0, has become is

    q(x_t = v | x_s = j) = k [j = v] + (1 - k) p_v,         q(x_t = v | x_0 = j) = a [j = v] + (1 - a) p_v

so that but for v itself, and x_0 where it is known, all levels share their factors: a law of V levels is read
and written a few times, where products of the general forms take several times as many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNREACHED = 1e-37
"""Probabilities below it have reciprocals that may be infinite in float32."""


@dataclass(frozen=True)
class ResampledStep:
    """One step back from x_t.

    stationary: p, [V]; at_t, own: v and p_v, [B, ..., 1]; a, b, k: each [] or [B, 1, ..., 1], as above.
    """

    stationary: Tensor
    at_t: Tensor
    own: Tensor
    a: Tensor
    b: Tensor
    k: Tensor

    def known(self, at_0: Tensor) -> Tensor:
        """Proportional to q(x_s | x_t, x_0), [B, ..., V], of levels at_0 [B, ..., 1].

        q(x_s | x_0) where x_t cannot have come from x_0.
        """
        same, own = self.at_t == at_0, self.own
        none = torch.where(same, self.a, 0.0) + (1 - self.a) * own == 0
        onward = ((1 - self.k) * own).masked_fill(none, 1.0)
        law = onward * (1 - self.b) * self.stationary
        law.scatter_add_(-1, at_0, onward * self.b)
        return law.scatter_add_(-1, self.at_t, self.k * ((1 - self.b) * own + torch.where(same, self.b, 0.0)))

    def estimated(self, logits: Tensor) -> Tensor:
        """sum_x0 q(x_s | x_t, x_0) g(x_0), [B, ..., V], of an estimate g with logits [B, ..., V].

            law_j = (1 - k) (b g_j / (1 - a) + (1 - b) z p_j)           where j is not v
            law_v = (k + (1 - k) p_v) (b g_v / q_v + (1 - b) z)
            z = sum_{j != v} g_j / (1 - a) + p_v g_v / q_v,             q_v = a + (1 - a) p_v

        Where x_t comes from v alone, g is taken to be certain of it; where from no level that g allows, which
        only an unlikely draw can bring about, x_t is not asked: sum_x0 q(x_s | x_0) g(x_0).
        """
        own, a, b, k = self.own, self.a, self.b, self.k
        alone, stays = (1 - a) * own < UNREACHED, a + (1 - a) * own
        none = alone & ((stays < UNREACHED) | (logits.detach().gather(-1, self.at_t) == -torch.inf))
        g = logits.softmax(dim=-1)
        at_v = g.gather(-1, self.at_t)
        # Not 1 - g_v: of sharp estimates nothing would be left.
        others = g.scatter(-1, self.at_t, 0.0)
        sure = torch.where(alone, 1.0, at_v)
        missed = torch.where(alone, 1.0, 1 - a)
        stays = stays.clamp(min=UNREACHED)
        z = torch.where(alone, 0.0, others.sum(dim=-1, keepdim=True)) / missed + own * sure / stays
        share = torch.where(none, b, torch.where(alone, 0.0, (1 - k) * b / missed))
        drawn = torch.where(none, 1 - b, (1 - k) * (1 - b) * z)
        back = (k + (1 - k) * own) * (b * sure / stays + (1 - b) * z)
        law = (share * others).addcmul_(drawn, self.stationary)
        return law.scatter_(-1, self.at_t, torch.where(none, b * at_v + (1 - b) * own, back))
