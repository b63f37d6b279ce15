"""Classes and guidance through whole samplers, on laws whose guided images are known."""

from __future__ import annotations

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.continuous import EDM, VP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.tokens import expectation
from genbench.generators.oracles import GaussianOracle
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks
from genbench.ops.random import Keys
from genbench.samplers.counting import Counted
from genbench.samplers.grids import LogSNR, Rho
from genbench.samplers.guidance import Dynamic, Estimate, Free, Static, threshold
from genbench.samplers.multistep import DPMSolver2, DPMSolverPP2M, UniPC
from genbench.samplers.ode import Heun, RungeKutta45
from genbench.validation import check

MEANS = torch.tensor([-0.6, 0.8, 0.1])  # of class 0, class 1 and, last, no class
STD = 0.3


class Classes(GaussianOracle):
    """Class k is N(MEANS[k], STD^2 I); label -1 reads the last mean, as indices of Python do."""

    classes = 2

    def denoise(self, x_t, t, labels=None):
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        power = alpha**2 * STD**2 + sigma**2
        column = lambda values: values.to(x_t.dtype).reshape(-1, 1, 1, 1)
        mean = column(MEANS[labels])
        return Posterior(mean + column(alpha * STD**2 / power) * (x_t - column(alpha) * mean))


SAMPLERS = {
    "heun": (EDM(), lambda weight: Heun(18, Rho(80.0, 0.002), guidance=weight), 35),
    "churn": (EDM(), lambda weight: Heun(18, Rho(80.0, 0.002), guidance=weight, churn=6.0), 35),
    "rk45": (VP(), lambda weight: RungeKutta45(rtol=1e-6, atol=1e-6, guidance=weight), None),
    "dpm_solver": (VP(), lambda weight: DPMSolver2(6, LogSNR(), guidance=weight), 11),
    "dpmpp_2m": (VP(), lambda weight: DPMSolverPP2M(10, LogSNR(), guidance=weight), 10),
    "unipc": (VP(), lambda weight: UniPC(10, LogSNR(), guidance=weight), 10),
}


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_guided_images_are_those_of_the_extrapolated_class(name, weight):
    """Of classes N(mu_y, c^2 I) the estimate (1 + w) x0(y) - w x0(none) is the exact one of the law
    N((1 + w) mu_y - w mu_none, c^2 I): every image is that law's own for the same noise, at w = 0 the
    class's and at w = -1 the unconditional one's. Two evaluations an estimate unless w = 0."""
    schedule, make, nfe = SAMPLERS[name]
    labels = torch.tensor([0, 1, 1, 0, 1])
    keys = Keys(torch.arange(5), 0)
    found = make(weight)(Classes(Gaussian(schedule), (1, 2, 2)), keys, labels)
    evaluations = 1 if weight == 0 else 2
    for label in (0, 1):
        mean = float((1 + weight) * MEANS[label] - weight * MEANS[-1])
        law = GaussianOracle(Gaussian(schedule), (1, 2, 2), mean, STD)
        expected = make(0.0)(law, keys)
        rows = labels == label
        torch.testing.assert_close(found.images[rows], expected.images[rows], rtol=0, atol=1e-5)
        assert found.nfe[rows].tolist() == (evaluations * expected.nfe[rows]).tolist()
    assert nfe is None or found.nfe.tolist() == [evaluations * nfe] * 5


def test_guidance_weighs_logits():
    """What a rule reads of an estimate must be guided, whichever part it is."""

    class Labelled:
        classes = 2

        def denoise(self, x_t, t, labels=None):
            known = (labels >= 0).float().reshape(-1, 1, 1, 1)
            logits = torch.stack((known, 2 - known, 0 * known), dim=-1)
            return Posterior(expectation(logits), logits=logits)

    x, labels = torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 1])
    found = Estimate(clip=False, guidance=2.0)(Counted(Labelled(), 3), x, torch.ones(()), labels)
    expected = torch.tensor([3.0, -1.0, 0.0])  # 3 (1, 1, 0) - 2 (0, 2, 0)
    torch.testing.assert_close(found.logits[0, 0, 0, 0], expected)
    torch.testing.assert_close(found.mean, expectation(found.logits))


def test_guidance_weighs_a_less_degraded_image():
    class Labelled:
        classes = 2

        def denoise(self, x_t, t, labels=None):
            known = (labels >= 0).float().reshape(-1, 1, 1, 1)
            return Posterior(known, earlier=1 + known)

    found = Estimate(clip=False, guidance=2.0)(
        Counted(Labelled(), 2), torch.zeros(2, 1, 1, 1), torch.ones(()), torch.tensor([0, 1])
    )
    torch.testing.assert_close(found.earlier, torch.full((2, 1, 1, 1), 4.0))  # 3 * 2 - 2 * 1


def test_what_clip_may_be():
    assert [type(threshold(clip)) for clip in (False, True, "dynamic")] == [Free, Static, Dynamic]
    own = Dynamic(0.9)
    assert threshold(own) is own
    with pytest.raises(UserError, match="true, false or dynamic"):
        Estimate("static")
    with pytest.raises(UserError, match=r"sampler\.clip\.share"):
        Dynamic(0.0)


def test_dynamic_thresholds_follow_each_image():
    """Of 101 sizes 0, 0.01 m, ..., m the 0.9 quantile is 0.9 m: an image within [-1, 1] stays, another
    is cut there and divided by it, whatever the images beside it are."""
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64) * torch.tensor([1.0, -1.0]).repeat(51)[:101]
    x = torch.stack([ramp, 3 * ramp, 10 * ramp])
    found = Dynamic(0.9)(x).tensor()
    limits = torch.tensor([1.0, 2.7, 9.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(found, x.clamp(-limits, limits) / limits)
    assert torch.equal(found[1:2], Dynamic(0.9)(x[1:2]).tensor())
    assert torch.equal(Dynamic(1.0)(x[:1]).tensor(), x[:1])


def test_an_estimate_is_kept_within_its_threshold():
    class Far:
        def denoise(self, x_t, t, labels=None):
            return Posterior(4 * x_t)

    x = torch.tensor([-1.0, 0.1, 0.5, 1.0]).reshape(1, 1, 2, 2)
    estimate = lambda clip: Estimate(clip)(Counted(Far(), 1), x, torch.ones(()), None).mean.flatten().tolist()
    assert estimate(False) == [-4.0, pytest.approx(0.4), 2.0, 4.0]
    assert estimate(True) == [-1.0, pytest.approx(0.4), 1.0, 1.0]
    assert estimate(Dynamic(1.0)) == [-1.0, pytest.approx(0.1), 0.5, 1.0]


def test_clipping_is_configured_by_a_word_or_an_object(compose):
    """true, false, dynamic, or a Threshold named in full; anything else is refused before any work."""
    own = "{_target_: genbench.samplers.guidance.Dynamic, share: 0.9}"
    for clip, share in (("true", None), ("false", None), ("dynamic", 0.995), (own, 0.9)):
        config = compose("sampler=ancestral", f"sampler.clip={clip}")
        check(config)
        sampler = Assembly(config, torch.device("cpu"), Ranks()).sampler()
        assert getattr(threshold(sampler.take.clip), "share", None) == share
    with pytest.raises(UserError, match="type true, false or dynamic"):
        check(compose("sampler=ancestral", "sampler.clip=static"))
