"""Condition (*) of unified diffusion, numerically, for every corruption and rule (kexue.fm 9262)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genbench.contracts import Rule, UserError
from genbench.corruptions import condition
from genbench.corruptions.additive import Additive
from genbench.corruptions.blend import Blend, Snow
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.cold import Faded
from genbench.corruptions.condition import check_star
from genbench.corruptions.continuous import VE, VP, Flow, SubVP
from genbench.corruptions.deletion import Blocks, Columns, Deletion, Rows
from genbench.corruptions.edit import Edit
from genbench.corruptions.fading import GeometricWidth, Heat, Pixelation, SineWidth
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama, LargeVariance, ReverseDiffusion
from genbench.corruptions.masking import Counted, Growing, Independent, Mask
from genbench.corruptions.rules import Bridge, Joint, Mixed
from genbench.corruptions.schedules import Linear
from genbench.corruptions.spectral import Spectral
from genbench.corruptions.tokens import values

LEVELS = 5
IMAGE = values(torch.tensor([[[0, 4, 2, 1], [3, 3, 1, 0], [4, 2, 0, 1], [1, 0, 3, 2]]]), LEVELS)
FRESH, SAME, MIXED = Mixed(1.0), Mixed(0.0), Mixed(0.6)

GAUSSIAN = {
    "ddpm": Gaussian(Linear()),
    "vp": Gaussian(VP()),
    "subvp": Gaussian(SubVP()),
    "ve": Gaussian(VE(0.01, 10.0)),
    "flow": Gaussian(Flow()),
    "blurring": Spectral(Linear(), Heat(SineWidth(3.0), 0.001), (1, 4, 4)),
}
ADDITIVE = {
    "blur": Faded(Heat(GeometricWidth(0.3, 3.0)), noise=0.1),
    "cold blur": Faded(Heat(GeometricWidth(0.3, 3.0))),
    "pixelate": Faded(Pixelation(), noise=0.1),
}
COUNTED = {
    "mask": Mask(Counted()),
    "patches": Mask(Counted(patch=2)),
    "independent": Mask(Independent()),
    "edit": Edit(LEVELS),
    "rows": Deletion(Rows()),
    "columns": Deletion(Columns()),
    "blocks": Deletion(Blocks(2)),
}
CHAINS = {
    "uniform": Uniform(LEVELS, CosineKeep(), steps=100),
    "absorbing": Absorbing(LEVELS, LinearKeep(), steps=100),
    "gaussian": DiscretisedGaussian(LEVELS, steps=100, beta_start=1e-3, beta_end=0.2),
}
PAIRS = [
    *(
        (name, each, rule)
        for name, each in GAUSSIAN.items()
        for rule in (FRESH, SAME, MIXED, Eta(0.5), Eta(1.0))
    ),
    *((name, each, rule) for name, each in ADDITIVE.items() for rule in (FRESH, SAME, MIXED, Bridge())),
    *((name, each, rule) for name, each in {**COUNTED, **CHAINS}.items() for rule in (FRESH, Bridge())),
    *((name, each, Joint()) for name, each in CHAINS.items()),
    ("snow", Blend(Snow()), FRESH),
    ("snow", Blend(Snow()), SAME),
    ("growing", Mask(Growing()), FRESH),
]
TIMES = [(0.4, 0.7), (0.0, 0.5), (0.2, 1.0)]


def named(each):
    """The same in every process, as an object's address is not."""
    return str(each) if isinstance(each, str | Rule) else type(each).__name__


@pytest.mark.parametrize(("name", "corruption", "rule"), PAIRS, ids=named)
def test_every_rule_keeps_the_law_of_every_corruption(name, corruption, rule):
    for s, t in TIMES:
        assert check_star(corruption, rule, IMAGE, s, t, draws=4000).holds, (s, t)


@pytest.mark.parametrize("rule", [LargeVariance(), ReverseDiffusion(), EulerMaruyama()], ids=str)
def test_steps_that_only_approximate_are_told_apart(rule):
    """They are right to first order; over a long step they are not."""
    star = check_star(GAUSSIAN["ddpm"], rule, IMAGE, 0.2, 0.7, draws=4000)
    assert star.distance > 2 * star.bound


@dataclass(frozen=True)
class Forgetful(Mixed):
    """Rule 2 as it is without its noise: x_s = F_s(x0)."""

    def law(self, corruption, x_t, x0, s, t):
        law = super().law(corruption, x_t, x0, s, t)
        return type(law)(law.coefficients[1:], law.terms[1:], law.std)


@pytest.mark.parametrize("seed", range(3))
def test_a_broken_rule_is_found(seed):
    assert check_star(GAUSSIAN["ddpm"], SAME, IMAGE, 0.2, 0.7, draws=4000, seed=seed).holds
    assert not check_star(GAUSSIAN["ddpm"], Forgetful(0.0), IMAGE, 0.2, 0.7, draws=4000, seed=seed).holds


@pytest.mark.parametrize(("name", "corruption"), [*COUNTED.items(), *CHAINS.items()], ids=named)
@pytest.mark.parametrize("rule", [SAME, MIXED], ids=str)
def test_rules_that_need_the_noise_are_refused_where_it_cannot_be_told(name, corruption, rule):
    with pytest.raises(UserError, match="rule=fresh"):
        check_star(corruption, rule, IMAGE, 0.4, 0.7, draws=10)


def test_the_noise_of_textures_cannot_be_mixed():
    with pytest.raises(UserError, match="must be Gaussian"):
        check_star(Blend(Snow()), MIXED, IMAGE, 0.4, 0.7, draws=10)


def test_a_corruption_of_ones_own_is_checked_alike():
    class Darken(Additive):
        def degrade(self, x0, t):
            return x0 - 2 * t.reshape(-1, 1, 1, 1).to(x0.dtype)

    assert check_star(Darken(noise=0.1), SAME, IMAGE, 0.3, 0.8, draws=4000).holds


@pytest.mark.parametrize("name", ["ddpm", "uniform"])
def test_draws_by_and_by_are_the_same_draws(name, monkeypatch):
    star = check_star({**GAUSSIAN, **CHAINS}[name], FRESH, IMAGE, 0.2, 0.7, draws=300)
    monkeypatch.setattr(condition, "TOGETHER", 7 * IMAGE.numel())
    assert check_star({**GAUSSIAN, **CHAINS}[name], FRESH, IMAGE, 0.2, 0.7, draws=300) == star


def test_times_out_of_order_are_refused():
    with pytest.raises(ValueError, match="s < t"):
        check_star(GAUSSIAN["ddpm"], SAME, IMAGE, 0.7, 0.4)
