"""Whole samplers through the fused kernel, in Triton's interpreter: how often it runs, the same images."""

from __future__ import annotations

import pytest
import torch

from genbench.corruptions.continuous import EDM, VE, VP, Geometric
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama, LargeVariance, ReverseDiffusion
from genbench.corruptions.schedules import Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import EDM as Preconditioned
from genbench.generators.parameterisations import X0, Epsilon, V
from genbench.ops import combine as combining
from genbench.ops.combine import FUSED
from genbench.ops.kernels import combine as kernels
from genbench.ops.random import Keys
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.correctors import Langevin
from genbench.samplers.grids import LogSNR, Rho, Uniform
from genbench.samplers.guidance import Dynamic
from genbench.samplers.multistep import DPMSolver2, DPMSolverPP2M, UniPC
from genbench.samplers.ode import Heun
from genbench.samplers.restore import Restore

SHAPE = (1, 4, 4)


class Network(torch.nn.Module):
    """Something smooth of x, the time and the class."""

    def forward(self, x, time, labels):
        shift = 0 if labels is None else labels.float().reshape(-1, 1, 1, 1) / 4
        return torch.tanh(x.flip(-1) / 2 + shift) + time.reshape(-1, 1, 1, 1) / 2000


def model(schedule, parameterisation) -> Denoising:
    return Denoising(Network(), Gaussian(schedule), Regression(parameterisation), SHAPE, classes=3)


SAMPLERS = {
    # Calls in each step and, where the last step or the first is another, more or fewer of them.
    "ddpm": (Linear(), Epsilon(), Restore(5, Uniform(), LargeVariance()), 1, 0),
    "guided ddpm": (Linear(), Epsilon(), Restore(5, Uniform(), LargeVariance(), guidance=2.0), 1, 0),
    "ddim": (Linear(), V(), Restore(5, Uniform(), Eta(0.0), clip=False), 1, 0),
    "ddim of x0": (Linear(), X0(), Restore(5, Uniform(), Eta(0.5)), 1, 0),
    "dynamic": (Linear(), Epsilon(), Restore(5, Uniform(), Eta(1.0), clip=Dynamic(0.9)), 2, 0),
    "reverse sde": (VP(), Epsilon(), Restore(5, Uniform(), EulerMaruyama(1.0), clip=False), 1, 0),
    # The corrector has two: it must know how long the score is before it takes a step along it.
    "corrected": (
        VE(0.02, 9.0),
        Epsilon(),
        Restore(5, Uniform(), ReverseDiffusion(), corrector=Langevin()),
        3,
        0,
    ),
    # The data are reached at an estimate, which is worked out; before it, a change of level scales nothing.
    "langevin": (Geometric(3, 0.02, 2.0), Epsilon(), AnnealedLangevin(3, Uniform(), 2, 1e-4), 2, 1),
    # One to scale the network's input and one for the step, at each of two estimates.
    "heun": (EDM(), Preconditioned(), Heun(5, Rho(80.0, 0.002), clip=True), 4, -2),
    "dpm_solver": (VP(), Epsilon(), DPMSolver2(5, LogSNR(), clip=True), 2, -1),
    "2m": (VP(), Epsilon(), DPMSolverPP2M(5, LogSNR(), clip=True, guidance=1.0), 1, 0),
    "unipc": (VP(), Epsilon(), UniPC(5, LogSNR(), clip=True), 2, -1),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_is_one_kernel_and_gives_the_same_images(monkeypatch, name):
    """Of two images, noise and all, in float32: to 1e-4, which is what a sampler makes of rounding."""
    schedule, parameterisation, sampler, calls, more = SAMPLERS[name]
    denoiser, keys, labels = model(schedule, parameterisation), Keys(torch.arange(2), 3), torch.tensor([0, 2])
    with torch.inference_mode():
        expected = sampler(denoiser, keys, labels).images
        count = 0

        def counted(*arguments):
            nonlocal count
            count += 1
            return launch(*arguments)

        launch = kernels.launch
        monkeypatch.setattr(kernels, "launch", counted)
        monkeypatch.setattr(combining, "_has_kernel", lambda tensor: tensor.dtype in FUSED)
        found = sampler(denoiser, keys, labels).images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert count == calls * (len(sampler.times(denoiser.corruption)) - 1) + more
