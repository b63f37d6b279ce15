"""One law, every sampler: all draw the same mixture, each with the error that is its own, in any batches."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from exact import Exact
from torch import Tensor

from genbench.contracts import Sampler
from genbench.corruptions.continuous import EDM, VE, VP, Flow, Geometric
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama, LargeVariance, ReverseDiffusion
from genbench.corruptions.schedules import Linear, Schedule
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.ops.random import Keys
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.correctors import Langevin
from genbench.samplers.grids import LogSNR, Rho, Uniform
from genbench.samplers.multistep import DPMSolver2, DPMSolverPP2M, UniPC
from genbench.samplers.ode import Heun, RungeKutta45
from genbench.samplers.restore import Restore

STD, AWAY, SHARE = 0.5, 2.0, 0.8


@dataclass(frozen=True)
class Run:
    """A sampler, its evaluations an image, and the variance it gives data of variance STD^2, in units of it.

    bias is that of its recursion on N(0, STD^2), written down from the papers' formulas apart from this code;
    finer has twice the steps.
    """

    schedule: Schedule
    sampler: Sampler
    nfe: int | None
    bias: float
    finer: Sampler | None = None


RUNS = {
    "ddpm-1000": Run(Linear(), Restore(1000, Uniform(), Eta(1.0), clip=False), 1000, 0.984501),
    "ddim-1000": Run(Linear(), Restore(1000, Uniform(), Eta(0.0), clip=False), 1000, 0.993990),
    "rk45": Run(VP(), RungeKutta45(), None, 0.999560),
    "flow-euler-200": Run(Flow(), Restore(200, Uniform(), EulerMaruyama(0.0), clip=False), 200, 0.985292),
    "heun-18": Run(EDM(), Heun(18, Rho(80, 0.002)), 35, 1.113551, Heun(36, Rho(80, 0.002))),
    "dpmpp_2m-20": Run(VP(), DPMSolverPP2M(20, LogSNR()), 20, 1.028297, DPMSolverPP2M(40, LogSNR())),
    "unipc-10": Run(VP(), UniPC(10, LogSNR()), 10, 1.090692, UniPC(20, LogSNR())),
}


@pytest.mark.parametrize("name", [name for name in RUNS if name != "ddpm-1000"])
def test_a_deterministic_sampler_scales_gaussian_data_by_its_recursion(name):
    """One float64 number through all steps, against the recursion; the adaptive one to its tolerance."""
    run = RUNS[name]
    model = GaussianOracle(Exact(run.schedule, run.schedule.terminal_std), (1, 1, 1), std=STD)
    factor = float(run.sampler(model, Keys(torch.arange(1), 0)).images)
    assert factor**2 / STD**2 == pytest.approx(run.bias, abs=3e-4 if name == "rk45" else 1e-6)


def drawn(run: Run, sampler: Sampler, count: int) -> tuple[Tensor, Tensor]:
    """Images of four pixels, [count, 4] in a basis whose first vector joins the modes; and NFE."""
    means = torch.tensor([-AWAY, AWAY]).reshape(2, 1, 1, 1) / 2
    model = MixtureOracle(Gaussian(run.schedule), means, [STD, STD], [1 - SHARE, SHARE], [1, 2, 2])
    samples = sampler(model, Keys(torch.arange(count), 0))
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double()
    return samples.images.double().flatten(1) @ signs / 2, samples.nfe


def along(x: Tensor) -> dict[str, float]:
    """On the line through the modes: the share of the larger one, both centres and both variances."""
    low, high = x[x[:, 0] < 0, 0], x[x[:, 0] > 0, 0]
    found = {"share": len(high) / len(x), "low": float(low.mean()), "high": float(high.mean())}
    return found | {"low variance": float(low.var()), "high variance": float(high.var())}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.endswith("1000")) for name in RUNS]
)
def test_every_sampler_draws_the_mixture(name):
    """Across the line through its modes a mixture of equal spreads is Gaussian at every time: there the
    sampler's own recursion is exact, and nothing but five standard errors is allowed. Along the line a
    coarse sampler has an error of at least first order besides, at most twice the change on halving its
    steps with the same noise; a fine one has none to be seen."""
    run, count = RUNS[name], 1000
    x, nfe = drawn(run, run.sampler, count)
    assert run.nfe is None or nfe.unique().tolist() == [run.nfe]
    across = x[:, 1:]
    variance = STD**2 * run.bias
    assert abs(float(across.square().mean()) / variance - 1) < 5 * (2 / across.numel()) ** 0.5
    assert float(across.mean(0).abs().max()) < 5 * (variance / count) ** 0.5
    covariance = x.T.cov()
    correlation = covariance / covariance.diag().outer(covariance.diag()).sqrt()
    assert float((correlation - torch.eye(4)).abs().max()) < 5 / count**0.5

    found = along(x)
    finer = along(drawn(run, run.finer, count)[0]) if run.finer else found
    few, many = (1 - SHARE) * count, SHARE * count
    inside = STD**2 * (1 if run.finer else run.bias)
    for key, expected, error in (
        ("share", SHARE, (SHARE * (1 - SHARE) / count) ** 0.5),
        ("low", -AWAY, STD / few**0.5),
        ("high", AWAY, STD / many**0.5),
        ("low variance", inside, STD**2 * (2 / few) ** 0.5),
        ("high variance", inside, STD**2 * (2 / many) ** 0.5),
    ):
        assert abs(found[key] - expected) < 5 * error + 2 * abs(found[key] - finer[key]), key


IN_BATCHES = {
    "ddpm": (Linear(), Restore(8, Uniform(), LargeVariance())),
    "ddim": (Linear(), Restore(8, Uniform(), Eta(0.0))),
    "reverse_sde": (VP(), Restore(8, Uniform(), EulerMaruyama(1.0))),
    "predictor_corrector": (VE(0.02, 100.0), Restore(8, Uniform(), ReverseDiffusion(), corrector=Langevin())),
    "annealed_langevin": (Geometric(5, 0.02, 2.0), AnnealedLangevin(5, Uniform(), 3, 1e-4)),
    "euler": (Flow(), Restore(8, Uniform(), EulerMaruyama(0.0))),
    "heun": (EDM(), Heun(8, Rho(80.0, 0.002))),
    "churn": (EDM(), Heun(8, Rho(80.0, 0.002), churn=4.0)),
    "rk45": (VP(), RungeKutta45(rtol=1e-3, atol=1e-3)),
    "dpm_solver": (VP(), DPMSolver2(8, LogSNR())),
    "dpmpp_2m": (VP(), DPMSolverPP2M(8, LogSNR())),
    "unipc": (VP(), UniPC(8, LogSNR())),
}


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", IN_BATCHES)
def test_a_seed_makes_the_same_images_bit_for_bit_in_any_batches(name, batch):
    schedule, sampler = IN_BATCHES[name]
    model = GaussianOracle(Gaussian(schedule), (1, 4, 4), 0.1, STD)
    index = torch.arange(16)
    whole = sampler(model, Keys(index, 3)).images
    apart = torch.cat([sampler(model, Keys(piece, 3)).images for piece in index.split(batch)])
    assert torch.equal(whole, apart)
    assert not torch.equal(whole, sampler(model, Keys(index, 4)).images)
    assert len(whole.flatten(1).unique(dim=0)) == 16
