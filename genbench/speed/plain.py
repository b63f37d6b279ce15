"""The usual forms, in plain PyTorch: what a script would write, for ours to be compared with.

A step goes from (alpha, sigma) = (a, s) to the less noisy (b, r), given what the network said. Coefficients
are worked out beforehand, as numbers: a script's best case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Levels = Sequence[tuple[float, float]]
"""(alpha, sigma) at each time of a walk, the noisiest first."""

Answers = Sequence[Sequence[Tensor]]
"""What the network says in each step of a walk, a tensor an evaluation; from the start again at its end."""

Number = Any
"""A coefficient: a float, or a tensor of no dimensions where the step is compiled."""

State = tuple[Tensor, Tensor]
"""x, and the estimate of x0 that multistep solvers keep (others hand it on)."""


@dataclass(frozen=True)
class PlainStep:
    """coefficients(levels, k): the numbers of step k; update(x, kept, outputs, *numbers): the step.

    outputs: the step's of `Answers`.
    """

    coefficients: Callable[[Levels, int], Sequence[float]]
    update: Callable[..., State]

    def walk(self, x: Tensor, levels: Levels, answers: Answers) -> Tensor:
        """All steps between the levels."""
        return self._walk(x, [self.coefficients(levels, k) for k in range(len(levels) - 1)], answers)

    def compiled(self, levels: Levels, device: torch.device) -> Callable[[Tensor, Answers], Tensor]:
        """The same walk with its step compiled once; numbers are tensors, or each would be a new program."""
        step = PlainStep(self.coefficients, torch.compile(self.update, dynamic=False))
        numbers = [
            [torch.tensor(each, device=device) for each in self.coefficients(levels, k)]
            for k in range(len(levels) - 1)
        ]
        return lambda x, answers: step._walk(x, numbers, answers)

    def _walk(self, x: Tensor, numbers: Sequence[Sequence[Number]], answers: Answers) -> Tensor:
        kept = x
        for k, each in enumerate(numbers):
            x, kept = self.update(x, kept, answers[k % len(answers)], *each)
        return x


def _posterior(levels: Levels, k: int) -> tuple[float, float, float, float]:
    """Of x0 and x_t in the mean of q(x_s | x_t, x0), its variance, and beta (Ho et al. 2020, eq. 7)."""
    (a, s), (b, r) = levels[k], levels[k + 1]
    kept = (a / b) ** 2
    beta = 1 - kept
    return b * beta / s**2, kept**0.5 * r**2 / s**2, beta * r**2 / s**2, beta


def _ddpm_numbers(levels: Levels, k: int) -> Sequence[float]:
    of_x0, of_x, _, beta = _posterior(levels, k)
    return *levels[k], of_x0, of_x, beta**0.5


def _ddpm(
    x: Tensor,
    kept: Tensor,
    outputs: Sequence[Tensor],
    a: Number,
    s: Number,
    of_x0: Number,
    of_x: Number,
    std: Number,
) -> State:
    x0 = ((x - s * outputs[0]) / a).clamp(-1, 1)
    return of_x0 * x0 + of_x * x + std * torch.randn_like(x), kept


def _guided_ddpm(
    x: Tensor, kept: Tensor, outputs: Sequence[Tensor], weight: Number, *numbers: Number
) -> State:
    given, unconditional = outputs
    return _ddpm(x, kept, [unconditional + weight * (given - unconditional)], *numbers)


def _ddim(
    x: Tensor, kept: Tensor, outputs: Sequence[Tensor], a: Number, s: Number, b: Number, direction: Number
) -> State:
    x0 = (x - s * outputs[0]) / a
    return b * x0 + direction * outputs[0], kept


def _noisy_ddim(
    x: Tensor,
    kept: Tensor,
    outputs: Sequence[Tensor],
    a: Number,
    s: Number,
    b: Number,
    direction: Number,
    std: Number,
) -> State:
    x, kept = _ddim(x, kept, outputs, a, s, b, direction)
    return x + std * torch.randn_like(x), kept


def _dpmpp_2m_numbers(levels: Levels, k: int) -> Sequence[float]:
    (a, s), (b, r) = levels[k], levels[k + 1]
    lambdas = [math.log(alpha / sigma) for alpha, sigma in levels]
    h = lambdas[k + 1] - lambdas[k]
    slope = h / (2 * (lambdas[k] - lambdas[k - 1])) if k else 0.0
    return a, s, r / s, -b * math.expm1(-h), slope


def _dpmpp_2m(
    x: Tensor,
    kept: Tensor,
    outputs: Sequence[Tensor],
    a: Number,
    s: Number,
    of_x: Number,
    of_x0: Number,
    slope: Number,
) -> State:
    x0 = (x - s * outputs[0]) / a
    return of_x * x + of_x0 * ((1 + slope) * x0 - slope * kept), x0


def _heun(x: Tensor, kept: Tensor, outputs: Sequence[Tensor], s: Number, r: Number) -> State:
    """As k-diffusion and EDM's code write it: derivatives from denoised images (here x - sigma eps)."""
    first = (x - (x - s * outputs[0])) / s
    euler = x + (r - s) * first
    second = (euler - (euler - r * outputs[1])) / r
    return x + (r - s) * (first + second) / 2, kept


def _langevin(x: Tensor, kept: Tensor, outputs: Sequence[Tensor], size: Number, std: Number) -> State:
    return x + size * outputs[0] + std * torch.randn_like(x), kept


def ddpm() -> PlainStep:
    """Ancestral sampling with variance beta, x0 clipped to [-1, 1]."""
    return PlainStep(_ddpm_numbers, _ddpm)


def guided_ddpm(weight: float) -> PlainStep:
    """The same from two noises, without and with a label, mixed as u + weight (c - u)."""
    return PlainStep(lambda levels, k: (weight, *_ddpm_numbers(levels, k)), _guided_ddpm)


def ddim(eta: float) -> PlainStep:
    """DDIM (Song, Meng & Ermon 2020, eq. 12), x0 not clipped."""

    def numbers(levels: Levels, k: int) -> Sequence[float]:
        variance = eta**2 * _posterior(levels, k)[2]
        b, r = levels[k + 1]
        return *levels[k], b, (r**2 - variance) ** 0.5, *([variance**0.5] if eta else [])

    return PlainStep(numbers, _noisy_ddim if eta else _ddim)


def dpmpp_2m() -> PlainStep:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2)."""
    return PlainStep(_dpmpp_2m_numbers, _dpmpp_2m)


def heun() -> PlainStep:
    """Heun's method in sigma (Karras et al. 2022, algorithm 1), alpha being 1."""
    return PlainStep(lambda levels, k: (levels[k][1], levels[k + 1][1]), _heun)


def langevin(step: float) -> PlainStep:
    """x + e score + sqrt(2 e) z, the network giving the score; levels do not matter."""
    return PlainStep(lambda levels, k: (step, (2 * step) ** 0.5), _langevin)


# ----------------------------------------------------------------------------------- beside the steps


def gumbel_argmax(logits: Tensor) -> Tensor:
    """A draw from each row of logits [..., V], int64 [...], by Gumbel noise on every one of them."""
    uniform = torch.rand_like(logits).clamp_(min=1e-20)
    return (logits - (-uniform.log()).log()).argmax(dim=-1)


def multinomial(logits: Tensor) -> Tensor:
    """The same by torch.multinomial."""
    rows = logits.softmax(dim=-1).flatten(0, -2)
    return rows.multinomial(1).reshape(logits.shape[:-1])


def blur_by_fft(images: Tensor, gains: Tensor) -> Tensor:
    """Images [..., H, W] with their cosine coefficients multiplied by gains [H, W], by fast transforms."""
    coefficients = _dct(_dct(images).mT).mT
    return _inverse_dct(_inverse_dct(coefficients * gains).mT).mT


def _turns(side: int, like: Tensor) -> Tensor:
    """e^(-i pi k / 2n), k = 0 ... n - 1."""
    k = torch.arange(side, dtype=like.dtype, device=like.device)
    return torch.polar(torch.ones_like(k), -math.pi / (2 * side) * k)


def _scales(side: int, like: Tensor) -> Tensor:
    scales = torch.full((side,), (2 / side) ** 0.5, dtype=like.dtype, device=like.device)
    scales[0] = (1 / side) ** 0.5
    return scales


def _dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last axis by one FFT of its length (Makhoul 1980)."""
    side = x.shape[-1]
    folded = torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), dim=-1)
    return (torch.fft.fft(folded) * _turns(side, x)).real * _scales(side, x)


def _inverse_dct(c: Tensor) -> Tensor:
    side = c.shape[-1]
    real = c / _scales(side, c)
    reversed_ = torch.cat((torch.zeros_like(real[..., :1]), real[..., 1:].flip(-1)), dim=-1)
    folded = torch.fft.ifft(torch.complex(real, -reversed_) * _turns(side, c).conj()).real
    x = torch.empty_like(c)
    half = (side + 1) // 2
    x[..., ::2], x[..., 1::2] = folded[..., :half], folded[..., half:].flip(-1)
    return x
