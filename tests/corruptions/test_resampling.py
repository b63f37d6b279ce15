"""Closed forms of chains that resample against the general forms of all chains, products of their laws."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from genbench.contracts import Posterior
from genbench.corruptions.chains import Absorbing, Chain, CosineKeep, LinearKeep, Uniform
from genbench.corruptions.tokens import values

V, T = 7, 10
S_AND_T = torch.tensor(list(combinations(range(T + 1), 2))).double().T / T
"""Every pair of times s < t, a pair an image."""
every_chain = pytest.mark.parametrize(
    "chain",
    [kind(V, keep(), T) for kind in (Uniform, Absorbing) for keep in (LinearKeep, CosineKeep)],
    ids=lambda chain: f"{type(chain).__name__}-{type(chain.keep).__name__}",
)


def images(grey: torch.Tensor) -> torch.Tensor:
    return values(grey, V).expand(S_AND_T.shape[1], 1, *grey.shape)


def both(chain, x_t: torch.Tensor, x0: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
    closed, general = chain.bridge(x_t, x0, *S_AND_T), Chain.bridge(chain, x_t, x0, *S_AND_T)
    return closed.probabilities, general.probabilities


@every_chain
def test_of_a_known_image(chain):
    """Every x_t and x_0, those that cannot be of one image among them."""
    x_t, x_0 = torch.meshgrid(torch.arange(V), torch.arange(V), indexing="ij")
    closed, general = both(chain, images(x_t), Posterior(images(x_0)))
    torch.testing.assert_close(closed, general, rtol=2e-6, atol=1e-12)


@every_chain
@pytest.mark.parametrize("sharpness", [1.0, 10.0, 1e4])
def test_of_an_estimate_and_its_slope(chain, sharpness):
    """Estimates that leave no x0 from which x_t can come are among them."""
    torch.manual_seed(0)
    x_t = images(torch.arange(V)[None])
    logits = sharpness * torch.randn(*x_t.shape, V)
    logits[..., 0] = -torch.inf
    slopes = []
    for index in (0, 1):
        leaf = logits.clone().requires_grad_(True)
        law = both(chain, x_t, Posterior(x_t, logits=leaf))[index]
        assert law.amax(dim=-1).min() > 0
        law.mul(torch.arange(V) ** 2).sum().backward()
        slopes.append((law.detach(), leaf.grad))
    (closed, slope), (general, expected) = slopes
    torch.testing.assert_close(closed, general, rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4)


def test_what_a_sharp_estimate_leaves_is_not_lost():
    """All other levels have 3e-6 together, of which 1 - g_v would keep two digits."""
    chain = Uniform(256, LinearKeep(), 1000)
    logits = torch.zeros(1, 1, 1, 1, 256)
    logits[..., 2] = 18.3
    s, t = (torch.tensor(i / 1000, dtype=torch.float64) for i in (1, 2))
    x_t = values(torch.full((1, 1, 1, 1), 2), 256)
    law = chain.bridge(x_t, Posterior(x_t, logits=logits), s, t).probabilities.double()
    wide = Chain.bridge(chain, x_t, Posterior(x_t, logits=logits.double()), s, t).probabilities
    torch.testing.assert_close(law, wide, rtol=1e-5, atol=0.0)
