"""Steps of samplers alone: the network's answers are there already, and only the arithmetic is timed.

Ours are the samplers of a run, walking their grid with a model whose network is `Canned`: from the network's
output, through guidance, x0 and clipping, to the next x, noise and bookkeeping included. Beside them the same
arithmetic in plain PyTorch, eager and compiled, and by diffusers' schedulers.

An ideal step reads its inputs and writes its results once: PERFORMANCE's count of T, one state tensor in
float32 (x_t and the output in, x_s out: 3 T; under guidance two outputs: 4 T; the 2M step reads and writes an
x0 too: 5 T; Heun's two evaluations: 7 T). Its bytes over the copy bandwidth are what a time is a fraction of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Corruption
from genbench.corruptions.continuous import EDM
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance
from genbench.corruptions.schedules import Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import Epsilon, Parameterisation, Score
from genbench.ops.compiled import compiling
from genbench.ops.random import Ambient, Keys, Randomness
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Grid, Rho, Uniform
from genbench.samplers.iterative import Iterative, Path
from genbench.samplers.multistep import DPMSolverPP2M
from genbench.samplers.ode import Heun
from genbench.samplers.restore import Restore
from genbench.speed import plain, schedulers
from genbench.speed.bench import Bench
from genbench.speed.canned import Canned
from genbench.speed.counting import counted
from genbench.speed.turns import Contestant, Row, compare

IMAGE_SHAPE = (3, 32, 32)
LANGEVIN_STEP = 1e-4

Walk = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A sampler, the same in plain PyTorch, and diffusers' scheduler for it where it has one.

    ideal: T a step; sampler: of a number of steps; noisy: whether steps draw noise; guided: whether a step
    asks with a label and without; outputs: how often a step asks.
    """

    name: str
    ideal: int
    sampler: Callable[[int], Iterative]
    plain: plain.PlainStep
    scheduler: schedulers.Scheduler | None = None
    corruption: Gaussian = Gaussian(Linear())  # noqa: RUF009 - immutable
    parameterisation: Parameterisation = Epsilon()  # noqa: RUF009 - immutable
    grid: Grid = Uniform()  # noqa: RUF009 - immutable
    noisy: bool = False
    guided: bool = False
    outputs: int = 1

    def times(self, steps: int) -> Tensor:
        """`steps` + 1 times: those of a grid of one step more, without the step to the data, which is
        another one in most samplers. `steps` + 1 divides the thousand times of Ho's schedule, or diffusers'
        grid would be another.
        """
        return self.grid(steps + 1, self.corruption)[:-1]


def _on_one_level(steps: int) -> AnnealedLangevin:
    return AnnealedLangevin(1, Uniform(), repeats=steps, step_size=LANGEVIN_STEP, denoise=False)


class _OneLevel(Grid):
    """Langevin steps all happen at one time; those visited are counted, not used."""

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        return torch.full((steps + 1,), 0.5, dtype=torch.float64)


def cases() -> list[Case]:
    """The samplers that are timed."""
    ddpm = lambda steps: Restore(steps, Uniform(), LargeVariance())
    return [
        Case("DDPM", 3, ddpm, plain.ddpm(), schedulers.DDPM, noisy=True),
        Case(
            "DDIM, eta 0",
            3,
            lambda steps: Restore(steps, Uniform(), Eta(0.0), clip=False),
            plain.ddim(0.0),
            schedulers.DDIM,
        ),
        Case(
            "DDIM, eta 1",
            3,
            lambda steps: Restore(steps, Uniform(), Eta(1.0), clip=False),
            plain.ddim(1.0),
            schedulers.NOISY_DDIM,
            noisy=True,
        ),
        Case(
            "DPM-Solver++(2M)",
            5,
            lambda steps: DPMSolverPP2M(steps, Uniform()),
            plain.dpmpp_2m(),
            schedulers.DPMPP_2M,
        ),
        Case(
            "Heun, two evaluations",
            7,
            lambda steps: Heun(steps, Rho()),
            plain.heun(),
            schedulers.HEUN,
            corruption=Gaussian(EDM()),
            grid=Rho(80.0, 0.002),
            outputs=2,
        ),
        Case(
            "Langevin",
            3,
            _on_one_level,
            plain.langevin(LANGEVIN_STEP),
            corruption=Gaussian(EDM(1.0)),
            parameterisation=Score(),
            grid=_OneLevel(),
            noisy=True,
        ),
        Case(
            "guided DDPM",
            4,
            lambda steps: Restore(steps, Uniform(), LargeVariance(), guidance=schedulers.WEIGHT - 1),
            plain.guided_ddpm(schedulers.WEIGHT),
            schedulers.GUIDED_DDPM,
            noisy=True,
            guided=True,
            outputs=2,
        ),
    ]


def ours(case: Case, steps: int, answers: plain.Answers, randomness: Randomness) -> Walk:
    """Our sampler's walk along the case's times, its network giving `answers`."""
    outputs = [output for answer in answers for output in answer]
    model = Denoising(
        Canned(outputs),
        case.corruption,
        Regression(case.parameterisation),
        IMAGE_SHAPE,
        classes=int(case.guided),
    )
    sampler = case.sampler(steps)
    times = case.times(steps)
    visited = times[: sampler.steps + 1]
    batch = len(outputs[0])
    labels = torch.zeros(batch, dtype=torch.int64, device=outputs[0].device) if case.guided else None

    def walk(x: Tensor) -> Tensor:
        path = Path(Counted(model, batch), case.corruption, sampler.take, randomness, labels, {})
        return sampler.walk(x, visited, path)

    return walk


def levels_of(case: Case, steps: int) -> plain.Levels:
    """(alpha, sigma) at the case's times."""
    times = case.times(steps)
    alphas, sigmas = case.corruption.alpha(times), case.corruption.sigma(times)
    return list(zip(alphas.tolist(), sigmas.tolist(), strict=True))


def rows(settings: Mapping[str, Any], bench: Bench) -> Iterator[Row]:
    """Times every case at every batch size.

    settings: batch_sizes; steps, how many a walk has.
    """
    with torch.inference_mode():
        for batch in settings["batch_sizes"]:
            for case in cases():
                yield from _compared(case, batch, settings["steps"], bench)


def _compiled(walk: Walk, x: Tensor) -> Tensor:
    with compiling():
        return walk(x)


def _compared(case: Case, batch: int, steps: int, bench: Bench) -> list[Row]:
    device = bench.device
    shape = (batch, *IMAGE_SHAPE)
    answers = [[torch.randn(shape, device=device) for _ in range(case.outputs)]]
    start = torch.randn(shape, device=device)
    state = torch.empty_like(start)
    levels = levels_of(case, steps)
    keys = Keys(torch.arange(batch, device=device), seed=0)
    first = plain.PlainStep(case.plain.coefficients, case.plain.update)
    facts = {
        "bytes": float(case.ideal * start.nbytes),
        "flops": counted(lambda: first.walk(start, levels, answers))["flops"] / steps,
    }

    def contestant(name: str, walk: Walk, prepare: Callable[[], object] = lambda: None) -> Contestant:
        def afresh() -> None:
            state.copy_(start)  # a walk may overwrite what it starts from
            prepare()

        return Contestant(name, lambda: walk(state), steps, afresh, facts)

    walk = ours(case, steps, answers, keys)
    contestants = [contestant("genbench", walk)]
    if bench.compile and device.type == "cpu":
        contestants.append(contestant("genbench, compiled", lambda x: _compiled(walk, x)))
    if case.noisy:
        drawn = ours(case, steps, answers, Ambient(batch, device))
        contestants.append(contestant("genbench, noise by torch.randn", drawn))
    contestants.append(contestant("plain PyTorch", lambda x: case.plain.walk(x, levels, answers)))
    if bench.compile:
        compiled = case.plain.compiled(levels, device)
        contestants.append(contestant("plain PyTorch, compiled", lambda x: compiled(x, answers)))
    if case.scheduler is None:
        bench.leave_out(f"diffusers has no step of {case.name}")
    elif (diffusers := bench.peer("diffusers")) is not None:
        theirs = schedulers.Walking(diffusers, case.scheduler, case.times(steps), levels, answers, device)
        contestants.append(contestant("diffusers", theirs, theirs.prepare))
    return compare("steps", f"{case.name} ({batch}, 3, 32, 32)", "step", contestants, bench.clock)
