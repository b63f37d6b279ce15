"""Steps that are timed against each other compute the same thing; so do draws and blurs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor

from genbench.corruptions.bases import Cosines
from genbench.ops.random import Ambient, Keys
from genbench.speed import operations, plain, schedulers, steps
from genbench.speed.bench import Bench
from genbench.speed.steps import Case, cases
from genbench.speed.turns import Clock

CPU = torch.device("cpu")
BATCH, STEPS = 2, 4

by_name = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)


def start_of(case: Case) -> tuple[Tensor, plain.Answers]:
    """x at the first time with an image behind it, and what a network that nearly knows its noise says.

    It says another thing in every other step: from a constant noise any multistep method is exact.
    """
    torch.manual_seed(0)
    (alpha, sigma), *_ = steps.levels_of(case, STEPS)
    noise = torch.randn(BATCH, 3, 32, 32)
    x = alpha * (2 * torch.rand(noise.shape) - 1) + sigma * noise
    said = [noise + 0.05 * torch.randn(noise.shape) for _ in range(2 * case.outputs)]
    return x, [said[: case.outputs], said[case.outputs :]]


def ours(case: Case, x: Tensor, answers: plain.Answers) -> Tensor:
    torch.manual_seed(1)
    return steps.ours(case, STEPS, answers, Ambient(BATCH, CPU))(x.clone())


def assert_equal(found: Tensor, expected: Tensor, x: Tensor) -> None:
    """To 1e-5 of the largest number on the way: float32 has seven digits, and steps lose some."""
    assert float((found - expected).abs().max()) <= 1e-5 * float(x.abs().max().clamp(min=1))
    assert not torch.allclose(found, x, atol=1e-3), "a step must change something"


@by_name
def test_ours_is_the_plain_step(case):
    x, answers = start_of(case)
    torch.manual_seed(1)
    expected = case.plain.walk(x, steps.levels_of(case, STEPS), answers)
    assert_equal(ours(case, x, answers), expected, x)


@by_name
def test_ours_is_diffusers_step(case):
    diffusers = tiny.alone("diffusers")
    if case.scheduler is None:
        pytest.skip(f"diffusers has no step of {case.name}")
    x, answers = start_of(case)
    theirs = schedulers.Walking(
        diffusers, case.scheduler, case.times(STEPS), steps.levels_of(case, STEPS), answers, CPU
    )
    for _ in range(2):  # what a scheduler remembers of one walk must not reach the next
        theirs.prepare()
        found = ours(case, x, answers)
        torch.manual_seed(1)
        assert_equal(found, theirs(x), x)


@by_name
def test_noise_is_drawn_where_a_case_says_so(case):
    x, answers = start_of(case)
    drawn = [
        steps.ours(case, STEPS, answers, Keys(torch.arange(BATCH), seed))(x.clone()) for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) is not case.noisy


def test_every_case_has_a_row_for_ours_and_for_plain_pytorch(monkeypatch):
    monkeypatch.setattr(Bench, "peer", lambda self, name: self.leave_out(f"{name} is not at hand"))
    place = tiny.bench()
    rows = list(steps.rows({"steps": STEPS, "batch_sizes": [BATCH]}, place))
    names = {
        case.name: [row.name for row in rows if row.what.startswith(f"{case.name} (")] for case in cases()
    }
    for case in cases():
        assert names[case.name][0] == "genbench"
        assert names[case.name][-1] == "plain PyTorch"
        assert ("genbench, noise by torch.randn" in names[case.name]) is case.noisy
    assert place.left_out == ["diffusers is not at hand", "diffusers has no step of Langevin"]
    # PERFORMANCE: an ideal DDPM step moves three tensors, 2M five.
    tensor = 4 * BATCH * 3 * 32 * 32
    assert {row.facts["bytes"] / tensor for row in rows if row.what.startswith("DDPM")} == {3}
    assert {row.facts["bytes"] / tensor for row in rows if row.what.startswith("DPM-Solver")} == {5}


def test_a_walk_starts_afresh_every_turn(monkeypatch):
    seen: list[Tensor] = []

    class Looking(Clock):
        def turns(self, contestants):
            for each in contestants[-1:] * 2:
                each.prepare()
                seen.append(each.work().clone())
            return super().turns(contestants)

    monkeypatch.setattr(Bench, "peer", lambda self, name: None)
    overwriting = plain.PlainStep(lambda levels, k: (), lambda x, kept, outputs: (x.add_(1), kept))
    case = replace(cases()[0], plain=overwriting)
    steps._compared(case, BATCH, STEPS, Bench(Looking(CPU, rounds=2, warmup=0), compile=False))
    assert torch.equal(*seen)


def test_blur_by_fourier_transforms_is_blur_by_matrices():
    basis = Cosines()
    for height, width in ((8, 8), (7, 10), (1, 5)):
        images = torch.randn(2, 3, height, width, dtype=torch.float64)
        gains = torch.rand(height, width, dtype=torch.float64)
        expected = basis.inverse(basis.forward(images) * gains)
        torch.testing.assert_close(plain.blur_by_fft(images, gains), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("draw", [plain.gumbel_argmax, plain.multinomial])
def test_the_usual_draws_have_the_law_of_the_logits(draw):
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0], [3.0, 0.0, 0.0, 0.0]])
    counts = torch.nn.functional.one_hot(draw(logits.expand(20_000, 2, 4)), 4).double().mean(0)
    # Five deviations of a share of 20,000: sqrt(.25 / 20,000) = .0035.
    assert float((counts - logits.softmax(-1)).abs().max()) < 0.018


def test_operations_have_their_rows():
    rows = list(operations.rows({"levels": 4, "draws": [1], "blurs": [2]}, tiny.bench()))
    assert [row.name for row in rows if row.ratio is None] == ["genbench", "genbench"]
    assert [row.facts["bytes"] for row in rows] == 3 * [4 * 3 * 1024 * 4] + 2 * [4 * 4 * 2 * 3 * 1024]
