"""Sampling end to end: from noise to 8-bit images, with one network's weights for everybody.

Ours is `harness.sampling.Source`, as a run draws its samples. Beside it stand a loop in plain PyTorch around
our network, and diffusers' DDIMPipeline around its own, which is given our weights and computes the same
function. All walk DDIM (eta 0) along the same times. Ours with a network that answers at once is what of the
time is the sampler's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta
from genbench.corruptions.schedules import Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import Epsilon
from genbench.harness.graphs import CudaGraphs
from genbench.harness.inference import Inference
from genbench.harness.sampling import Source
from genbench.harness.trajectories import TRAJECTORY, Trajectories
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore
from genbench.speed import plain
from genbench.speed.bench import Bench
from genbench.speed.canned import Canned
from genbench.speed.counting import counted
from genbench.speed.memory import peak
from genbench.speed.networks import Diffusers, randomised, small_unet
from genbench.speed.precision import FLOAT32, PRECISIONS, Precision
from genbench.speed.schedulers import DDIM, TIMES
from genbench.speed.turns import Contestant, Fact, Row, compare

CORRUPTION = Gaussian(Linear(TIMES))


def rows(settings: Mapping[str, Any], bench: Bench) -> Iterator[Row]:
    """Every batch size in every precision, then ours alone at more batch sizes and sides.

    settings: steps, a divisor of 1000; batch_sizes; growth: {batch_sizes, sides, batch_size at these}.
    """
    if TIMES % settings["steps"]:
        raise UserError(f"speed.sampling.steps={settings['steps']}: type a divisor of {TIMES}.")
    network = randomised(small_unet()).to(bench.device)
    for precision in PRECISIONS:
        for batch in settings["batch_sizes"]:
            yield from _compared(network, batch, precision, settings["steps"], bench)
    growth = settings["growth"]
    for batch in growth["batch_sizes"]:
        yield from _alone(network, batch, 32, settings["steps"], bench)
    for side in growth["sides"]:
        larger = randomised(small_unet(side)).to(bench.device)
        yield from _alone(larger, growth["batch_size"], side, settings["steps"], bench)


def source(
    network: nn.Module,
    side: int,
    batch: int,
    steps: int,
    device: torch.device,
    inference: Inference | None = None,
) -> Source:
    """Our sampling of a network of noise, as a run does it where `inference` is the run's."""
    model = Denoising(network, CORRUPTION, Regression(Epsilon()), (3, side, side))
    sampler = Restore(steps, Uniform(), Eta(0.0), clip=False)
    return Source(model, sampler, {}, batch, device, inference=inference or Inference())


def usual(device: torch.device, precision: Precision) -> Inference:
    """How a run evaluates networks on a device unless told otherwise."""
    return Inference(device, precision.autocast, recorder=CudaGraphs() if device.type == "cuda" else None)


def plain_loop(network: nn.Module, x: Tensor, steps: int) -> Tensor:
    """The same in plain PyTorch from noise x [B, C, H, W]: uint8 images."""
    times = Uniform()(steps, CORRUPTION)
    levels = list(zip(CORRUPTION.alpha(times).tolist(), CORRUPTION.sigma(times).tolist(), strict=True))
    step = plain.ddim(0.0)
    for k, index in enumerate((times[:-1] * TIMES).round().long() - 1):
        eps = network(x, index.to(x.device).expand(len(x)))
        x, _ = step.update(x, x, [eps], *step.coefficients(levels, k))
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pipeline(diffusers: ModuleType, network: nn.Module) -> Any:
    """diffusers' pipeline around its network."""
    made = diffusers.DDIMPipeline(network, getattr(diffusers, DDIM.name)(**DDIM.settings))
    made.set_progress_bar_config(disable=True)
    return made


def _contestants(
    network: nn.Module, batch: int, precision: Precision, steps: int, bench: Bench
) -> Iterator[Contestant]:
    device = bench.device
    index = torch.arange(batch, device=device)
    drawing = source(network, 32, batch, steps, device, usual(device, precision))
    answer = torch.randn(batch, 3, 32, 32, device=device)
    idle = source(Canned([answer]), 32, batch, steps, device)
    yield Contestant("genbench", lambda: drawing.draw_images(index, 0), batch)
    if device.type == "cuda":
        ordered = source(network, 32, batch, steps, device, Inference(device, precision.autocast))
        without = "genbench, sampler.graphs=false"
        yield Contestant(without, lambda: ordered.draw_images(index, 0), batch)
        recorded = Trajectories(CudaGraphs, bench.left_out.append)
        inference = Inference(device, precision.autocast, trajectories=recorded)
        whole = source(network, 32, batch, steps, device, inference)
        said = len(bench.left_out)
        for _ in range(2):  # a rehearsal and a recording
            whole.draw_images(index, 0)
        if len(bench.left_out) == said:
            name = f"genbench, sampler.graphs={TRAJECTORY}"
            yield Contestant(name, lambda: whole.draw_images(index, 0), batch)
    share = "genbench, its network answering at once: the sampler's share"
    yield Contestant(share, lambda: idle.draw_images(index, 0), batch)

    @torch.no_grad()
    def loop() -> Tensor:
        return plain_loop(network, torch.randn(batch, 3, 32, 32, device=device), steps)

    yield Contestant("plain PyTorch, our network", loop, batch)
    if bench.compile:
        inference = usual(device, precision)
        inference.compile = True
        compiled = source(network, 32, batch, steps, device, inference)
        yield Contestant("genbench, network compiled", lambda: compiled.draw_images(index, 0), batch)
    if (diffusers := bench.peer("diffusers")) is None:
        return
    theirs = Diffusers(diffusers).take(network).eval().to(device)  # type: ignore[arg-type]
    drawn = pipeline(diffusers, theirs.network)
    yield Contestant(
        "diffusers' DDIMPipeline",
        lambda: _pipe(drawn, batch, steps),
        batch,
        facts={"precision": precision.name},
    )
    if bench.compile:
        quick = pipeline(diffusers, torch.compile(theirs.network))  # type: ignore[arg-type]
        yield Contestant("diffusers' DDIMPipeline, compiled", lambda: _pipe(quick, batch, steps), batch)


def _pipe(drawn: Any, batch: int, steps: int) -> object:
    return drawn(batch_size=batch, num_inference_steps=steps, output_type="np")


def _compared(network: nn.Module, batch: int, precision: Precision, steps: int, bench: Bench) -> list[Row]:
    facts = _work(network, 32, steps, bench.device) | {"precision": precision.name}
    with precision.context(bench.device):
        contestants = []
        for each in _contestants(network, batch, precision, steps, bench):
            each.work()  # once off the clock, so that memory is not that of compiling or of caches
            held = peak(each.work, bench.device)
            own: dict[str, Fact] = {} if "share" in each.name else dict(facts)
            own |= {} if held is None else {"peak_bytes": held}
            contestants.append(Contestant(each.name, each.work, each.count, facts=own))
        what = f"DDIM, {steps} steps, batch {batch}, {precision.name}"
        return compare("sampling", what, "image", contestants, bench.clock)


def _alone(network: nn.Module, batch: int, side: int, steps: int, bench: Bench) -> list[Row]:
    index = torch.arange(batch, device=bench.device)
    drawing = source(network, side, batch, steps, bench.device, usual(bench.device, FLOAT32))
    work = lambda: drawing.draw_images(index, 0)
    work()
    facts: dict[str, Fact] = {**_work(network, side, steps, bench.device), "precision": "fp32"}
    if (held := peak(work, bench.device)) is not None:
        facts["peak_bytes"] = held
    contestant = Contestant("genbench", work, batch, facts=facts)
    return compare("growth", f"{batch} images of {side}x{side}", "image", [contestant], bench.clock)


def _work(network: nn.Module, side: int, steps: int, device: torch.device) -> dict[str, Fact]:
    """Arithmetic of an image's evaluations, and what eager PyTorch moves for it."""
    x, time = torch.zeros(1, 3, side, side, device=device), torch.zeros(1, device=device)
    one = counted(lambda: network(x, time))
    return {"flops": steps * one["flops"], "traffic": steps * one["bytes"]}
