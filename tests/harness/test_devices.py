"""Training and sampling on a device that cannot be read.

"meta" tensors have a shape and no values: mixing them with the CPU's fails as it does on a GPU, and so does
reading a number back, which on a GPU works and makes the CPU wait. What passes here keeps its tensors where
they belong, and lets the CPU run ahead.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from genbench.contracts import Batch, ClassConditional, Step
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks
from genbench.ops.random import Keys

META = torch.device("meta")
FEW = "sampler.steps=3"

CASES = [
    ["model=ddpm", FEW],
    ["model=ddpm", FEW, "conditional=true", "sampler.guidance=1"],
    *(["model=ddpm", f"sampler={name}", "sampler.steps=4"] for name in ("ancestral", "heun", "euler")),
    *(["model=ddpm", f"sampler={name}", "sampler.steps=4"] for name in ("dpm_solver", "dpmpp_2m", "unipc")),
    ["model=ddpm", "sampler=reverse_diffusion", FEW],
    ["model=ddpm", "sampler=annealed_langevin", "sampler.repeats=2", FEW],
    ["model=ddpm", "sampler=analytic", FEW],
    ["model=ddpm", "sampler=restore", "draw=normal", FEW],
    ["model=iddpm", FEW],
    ["model=ncsn", "sampler.repeats=1"],
    ["model=ncsnv2", "sampler.repeats=1"],
    ["model=score_sde", "corruption=ve", "sampler=predictor_corrector", FEW],
    ["model=score_sde", "corruption=subvp", "sampler=euler_maruyama", FEW],
    ["model=edm", FEW],
    ["model=flow", FEW],
    ["model=mdsm", *(f"sampler.cooling.{name}.steps=2" for name in ("hold", "cool", "settle"))],
    ["model=dde"],
    ["model=eae"],
    ["model=vae"],
    ["model=rae", "sampler=fitted_prior"],
    ["model=fgan", "regulariser=[spectral,r1]"],
    ["model=fgan", "conditional=true"],
    *(["model=udm", f"corruption={name}", FEW] for name in ("blur", "heat", "pixelate", "snow", "blurring")),
    *(["model=udm", f"corruption={name}", FEW] for name in ("mask", "mask_independent", "edit", "deletion")),
    *(["model=d3pm", f"corruption={name}", FEW] for name in ("uniform", "absorbing", "mask_independent")),
    ["model=d3pm", "corruption=gaussian_discrete", FEW],
    ["model=d3pm", "estimator=d3pm_logistic", FEW],
    ["model=d3pm", "estimator=d3pm_mixture", FEW],
    ["model=udm", "corruption=mask", "rule=confident", "draw=mean", FEW],
    ["model=md4", FEW],
    ["model=ihdm", "corruption.steps=3", FEW],
]


class _NoAutocast(contextlib.nullcontext[None]):
    """Autocast knows no such device."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()


def batch(shape: tuple[int, int, int], count: int) -> Batch:
    return Batch(
        torch.rand(count, *shape, device=META) * 2 - 1,
        torch.zeros(count, dtype=torch.int64, device=META),
        torch.arange(count, device=META),
    )


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_nothing_is_read_back_from_the_device(compose, overrides, monkeypatch):
    monkeypatch.setattr(torch, "autocast", _NoAutocast)
    config = compose(*overrides, "dataset=digits", "trainer.precision=fp32")
    del config["optim"]["optimizer"]["fused"]  # which knows no such device either
    assembly = Assembly(config, META, Ranks())
    generator = assembly.generator()
    plan = assembly.plan(generator)
    for optimisation in plan.optimisations.values():
        monkeypatch.setattr(optimisation.finite, "guard", lambda optimizer: None)
    for step in range(2):
        plan.run(Step(step, 10), iter(lambda: batch(generator.image_shape, 8), None))
    generator.eval()
    sampler = assembly.sampler()
    conditional = isinstance(generator, ClassConditional) and generator.classes
    labels = torch.zeros(4, dtype=torch.int64, device=META) if conditional else None
    keys = Keys(torch.arange(4, device=META), 0)
    with torch.no_grad():
        fitted = {name: value.to(META) for name, value in sampler.placeholder(generator).items()}
        images = sampler(generator, keys, labels, fitted).images
    assert images.device == META
    assert images.shape == (4, *generator.image_shape)
