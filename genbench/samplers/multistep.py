"""Fast solvers of the probability-flow ODE in half the log-SNR, lambda = log(alpha / sigma).

Between times t (noisier) and s, with h = lambda_s - lambda_t, the ODE has the exact solutions

    x_s = (alpha_s / alpha_t) x_t - sigma_s integral of e^(lambda_s - l) eps_hat(l) dl      over the step
    x_s = (sigma_s / sigma_t) x_t + alpha_s integral of e^(l - lambda_s) x0_hat(l) dl

of which only the integral has to be approximated (Lu et al. 2022a, b; Zhao et al. 2023). A step to sigma = 0
has h = infinity; there every solver takes its first-order step, which ends at x0_hat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.ops.combine import Combination, Term, combine, tensor
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip
from genbench.samplers.iterative import GaussianIterative, Path


class DPMSolver2(GaussianIterative):
    """DPM-Solver-2 (Lu et al. 2022a, algorithm 1): the noise at the step's middle in lambda.

    n steps cost 2 n evaluations, or 2 n - 1 where the last one goes to sigma = 0.
    """

    def check(self, model: Any) -> None:
        super().check(model)
        start = self.grid(self.steps, model.corruption)[0]
        if not float(model.corruption.alpha(start)) > 0:
            raise UserError(
                "DPM-Solver-2 needs a little of the data at its first time, and this corruption leaves none. "
                "Type grid.start=0.999."
            )

    def estimates(self) -> int:
        return 2 * self.steps

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        schedule = path.corruption.schedule
        for t, s in pairwise(times):
            x0 = path.estimate(x, t).estimate
            if float(path.corruption.sigma(s)) == 0:
                x = combine(_first_order(t, s, path.corruption), (x, x0))
                continue
            middle = schedule.time_at((schedule.half_log_snr(t) + schedule.half_log_snr(s)) / 2)
            between = combine(_first_order(t, middle, path.corruption), (x, x0))
            x0 = path.estimate(between, middle).estimate
            scale = path.corruption.alpha(s) / path.corruption.alpha(t)
            # sigma_s (e^h - 1), in a form that is exact for small steps too.
            gain = scale * path.corruption.sigma(t) - path.corruption.sigma(s)
            # eps_hat = (between - alpha x0_hat) / sigma at the middle
            share = gain / path.corruption.sigma(middle)
            weights = (scale, -share, share * path.corruption.alpha(middle))
            x = combine(weights, (x, between, x0))
        return x


class DPMSolverPP2M(GaussianIterative):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): the line through this estimate and the last one."""

    def estimates(self) -> int:
        return self.steps

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        corruption = path.corruption
        previous: Tensor | None = None
        h_previous = 0.0
        for t, s in pairwise(times):
            h = _stretch(t, s, corruption)
            if h == 0:  # a repeated time
                continue
            x0 = path.estimate(x, t).estimate
            kept, share = _first_order(t, s, corruption)
            if previous is None or math.isinf(h):
                x = combine((kept, share), (x, x0), keep=x0)
            else:
                slope = h / (2 * h_previous)  # 0 after an infinite step
                weights = (kept, share * (1 + slope), -share * slope)
                x = combine(weights, (x, x0, previous), keep=x0)
            previous, h_previous = tensor(x0), h
        return x


class UniPC(GaussianIterative):
    """UniPC in data prediction (Zhao et al. 2023): a predictor of order p and a corrector of order p + 1.

    The corrector uses the estimate the next step needs anyway, so n steps cost n evaluations. order: p, 1 to
    3; corrector: False leaves UniP; bh: the function B(h) of the paper, "h" or "expm1" (its B1 and B2). Steps
    start with order 1 and rise as estimates gather.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        clip: Clip = False,
        guidance: float = 0.0,
        order: int = 3,
        corrector: bool = True,
        bh: str = "expm1",
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        if order not in (1, 2, 3) or bh not in ("h", "expm1"):
            raise UserError(f"sampler.order={order} and sampler.bh={bh}: expected 1, 2 or 3, and h or expm1.")
        self.order, self.corrector, self.bh = order, corrector, bh

    def estimates(self) -> int:
        return self.steps

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        corruption = path.corruption
        times = torch.cat((times[:1], times[1:][times.diff() != 0]))  # a repeated time is no step
        lambdas = [float(value) for value in corruption.schedule.half_log_snr(times)]
        known = [path.estimate(x, times[0]).estimate]
        for step, (t, s) in enumerate(pairwise(times)):
            base, start = _first_order(t, s, corruption), x
            h = lambdas[step + 1] - lambdas[step]
            # An infinite step, from pure noise or to the data, has no higher terms and is in nobody's past.
            past = [lam for lam in lambdas[: step + 1] if math.isfinite(lam)]
            order = min(self.order, len(past)) if math.isfinite(h) else 1
            ratios = [(past[-1 - m] - past[-1]) / h for m in range(1, order)]
            x = self._step(start, base, known[::-1][:order], ratios, h, s, corruption)
            if step + 2 == len(times):  # no evaluation follows that a corrector could use
                break
            known.append(path.estimate(x, s).estimate)
            if self.corrector and math.isfinite(h):
                others = [*known[::-1][1 : order + 1], known[-1]]
                x = self._step(start, base, others, [*ratios, 1.0], h, s, corruption)
        return x

    def _step(
        self,
        x: Tensor,
        base: tuple[Tensor, Tensor],
        estimates: Sequence[Term],
        ratios: Sequence[float],
        h: float,
        s: Tensor,
        corruption: Any,
    ) -> Tensor:
        """The first-order step plus what differences of estimates say of the integral's higher terms.

        base: the first-order step's coefficients of x and of the first of `estimates`, the one at its start;
        the others are ahead of or behind it by `ratios` of h.
        """
        kept, share = base
        coefficients: list[Tensor] = []
        if ratios:
            b = math.expm1(-h) if self.bh == "expm1" else -h
            alpha = corruption.alpha(s)
            weights = _weights(ratios, h, b)
            coefficients = [-alpha * b * by / ratio for by, ratio in zip(weights, ratios, strict=True)]
        newest = next((each for each in estimates if isinstance(each, Combination) and not each.known), None)
        return combine((kept, share - sum(coefficients), *coefficients), (x, *estimates), keep=newest)


def _weights(ratios: Sequence[float], h: float, b: float) -> list[float]:
    """The solution of the order conditions sum_m a_m r_m^(k-1) = k! phi_(k+1)(-h) / B, k = 1 ... q.

    phi_1(z) = (e^z - 1) / z and phi_(k+1)(z) = (phi_k(z) - 1 / k!) / z, here times z. One difference alone
    has the weight 1/2 whatever h (the paper's degenerate case), which is of the same order.
    """
    if len(ratios) == 1:
        return [0.5]
    targets = [math.factorial(k) * _phi(k + 1, -h) * -h / b for k in range(1, len(ratios) + 1)]
    rows = torch.tensor([[ratio ** (k - 1) for ratio in ratios] for k in range(1, len(ratios) + 1)])
    return torch.linalg.solve(rows.double(), torch.tensor(targets, dtype=torch.float64)).tolist()


def _phi(k: int, z: float) -> float:
    """phi_k(z) = sum_j z^j / (j + k)!, by its series near 0, where the recursion loses its digits."""
    if abs(z) < 1:
        return math.fsum(z**j / math.factorial(j + k) for j in range(25))
    value = math.expm1(z) / z
    for order in range(1, k):
        value = (value - 1 / math.factorial(order)) / z
    return value


def _first_order(t: Tensor, s: Tensor, corruption: Any) -> tuple[Tensor, Tensor]:
    """Coefficients of x and x0_hat in the step with a constant estimate, which is DDIM's."""
    kept = corruption.sigma(s) / corruption.sigma(t)
    return kept, corruption.alpha(s) - kept * corruption.alpha(t)


def _stretch(t: Tensor, s: Tensor, corruption: Any) -> float:
    """h = lambda_s - lambda_t; infinite for a step from pure noise or to the data itself."""
    there, here = (each.alpha.log() - each.sigma.log() for each in map(corruption.level, (s, t)))
    return float(there - here)
