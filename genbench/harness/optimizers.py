"""Two optimisers PyTorch lacks, AdaFactor and AdaX, and the learning-rate schedules of the recipes.

Both optimisers divide by a running mean of squared gradients, v_t = b_t v_{t-1} + (1 - b_t) g^2, whose memory
grows with time instead of standing still as Adam's. Adam corrects the bias of a start at zero; that is the
same as using b_t = b (1 - b^(t-1)) / (1 - b^t), which is 0 at t = 1 and tends to b. Theirs tend to 1:

    AdaFactor   b_t = 1 - t^-0.8                                (Shazeer & Stern 2018, arXiv 1804.04235)
    AdaX        b_t = 1 - beta2 / ((1 + beta2)^t - 1)           (Li et al. 2020, arXiv 2004.09740)

A schedule is a function from a step (counted from 0) to a factor in [0, 1] of the learning rate.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from genbench.contracts import UserError


def adafactor_memory(step: int) -> float:
    """b_t = 1 - t^-0.8 at t = `step`, counted from 1; 0 at the first step."""
    return 1.0 - step**-0.8


def adax_forgetting(step: int, beta2: float) -> float:
    """1 - b_t = beta2 / ((1 + beta2)^t - 1) at t = `step`, counted from 1; 1 at the first step.

    Written with (1 + beta2)^-t, which goes to 0 where the power itself would overflow.
    """
    exponent = -step * math.log1p(beta2)
    return beta2 * math.exp(exponent) / -math.expm1(exponent)


class AdaFactor(Optimizer):
    """AdaFactor: squared gradients of a matrix are remembered by their row and column sums alone.

        r_i = sum_j v_ij,  c_j = sum_i v_ij,  v_ij ~ r_i c_j / sum_j c_j       (r, c: running means as above)
        u = g / sqrt(v);   theta <- theta - lr max(floor, RMS(theta)) u / max(1, RMS(u) / clip)

    The product r c / sum c is the rank-one matrix of least I-divergence from v: exact where v has rank one,
    and with v's row and column sums always. Tensors of more than two dimensions (convolutions) are matrices
    of their first dimension by all others; vectors and scalars keep v itself. There is no momentum, so it
    wants large batches. The learning rate is relative to a parameter's size: 1e-3 is usual.

    lr: relative step; clip: bound on the root mean square of u; floor: the least size a parameter is taken
    to have; epsilon: added to squared gradients. (Shazeer & Stern 2018, algorithms 4 and 5.)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        clip: float = 1.0,
        floor: float = 1e-3,
        epsilon: float = 1e-30,
    ) -> None:
        _check_positive(lr=lr, clip=clip, floor=floor, epsilon=epsilon)
        super().__init__(params, {"lr": lr, "clip": clip, "floor": floor, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; returns the closure's loss, if any."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        count = _advance(state)
        forgetting = 1.0 - adafactor_memory(count)
        squared = gradient.square().add_(group["epsilon"])
        if parameter.ndim < 2:
            mean = _running_mean(state, "squared", squared, forgetting)
            update = gradient * mean.rsqrt()
        else:
            matrix = squared.flatten(1)
            rows = _running_mean(state, "rows", matrix.sum(1), forgetting)
            columns = _running_mean(state, "columns", matrix.sum(0), forgetting)
            # Roots before the product: r_i c_j may be as small as epsilon^2, less than float32 can hold.
            scale = rows.rsqrt()[:, None] * (columns / columns.sum()).rsqrt()
            update = gradient * scale.view_as(gradient)
        size = _root_mean_square(parameter).clamp_(min=group["floor"])
        clipping = (_root_mean_square(update) / group["clip"]).clamp_(min=1.0)
        parameter.sub_(update.mul_(group["lr"] * size / clipping))


class AdaX(Optimizer):
    """AdaX: Adam whose memory of squared gradients is exponentially long.

        m <- beta1 m + (1 - beta1) g                       (no correction of bias: the first step is short)
        v <- (1 + beta2) v + beta2 g^2,  v_hat = v / ((1 + beta2)^t - 1)
        theta <- theta - lr m / sqrt(v_hat + epsilon)

    v grows without bound and leaves float32 near t = 890,000 for beta2 = 1e-4. The state therefore holds
    v_hat, the running mean with b_t = 1 - beta2 / ((1 + beta2)^t - 1). (Li et al. 2020, algorithm 2.)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 1e-4),
        epsilon: float = 1e-12,
    ) -> None:
        _check_positive(lr=lr, beta2=betas[1], epsilon=epsilon)
        if not 0 <= betas[0] < 1:
            raise UserError(f"AdaX needs betas[0] in [0, 1), found {betas[0]}")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; returns the closure's loss, if any."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
                state["squared"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momentum = [state["momentum"] for state in states]
        squared = [state["squared"] for state in states]
        forgetting = [adax_forgetting(_advance(state), beta2) for state in states]
        torch._foreach_lerp_(momentum, gradients, 1.0 - beta1)
        torch._foreach_lerp_(squared, torch._foreach_mul(gradients, gradients), forgetting)
        denominator = torch._foreach_add(squared, group["epsilon"])
        torch._foreach_sqrt_(denominator)
        torch._foreach_addcdiv_(parameters, momentum, denominator, value=-group["lr"])


def _advance(state: dict[str, Any]) -> int:
    """Counts one more step of a parameter, from 1; kept as a tensor, so that a state is tensors only."""
    step: Tensor = state.setdefault("step", torch.zeros(()))
    step += 1
    return int(step)


def _running_mean(state: dict[str, Any], name: str, value: Tensor, forgetting: float) -> Tensor:
    """state[name] moved towards `value` by the fraction `forgetting`; set to it at first."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    mean: Tensor = state[name].lerp_(value, forgetting)
    return mean


def _root_mean_square(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor) / math.sqrt(tensor.numel())


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"the optimiser needs {name} > 0, found {value}")


# -------------------------------------------------------------------------------------------- schedules


@dataclass(frozen=True)
class Schedule(ABC):
    """A factor of the learning rate for every step; step 0 is the first.

    warmup: steps over which the factor rises linearly, (step + 1) / warmup of what it would be; 0 for none.
    `depends_on_total` says whether the factor at a step depends on how long training is to be: where it does,
    a finished run cannot be prolonged without changing what it was.
    """

    depends_on_total: ClassVar[bool]
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise UserError(f"a warm-up takes a number of steps >= 0, found {self.warmup}")

    def __call__(self, step: int) -> float:
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return ramp * self.decay(step)

    @abstractmethod
    def decay(self, step: int) -> float:
        """The factor apart from the warm-up, in [0, 1]."""


@dataclass(frozen=True)
class Constant(Schedule):
    """1 at every step."""

    depends_on_total: ClassVar[bool] = False

    def decay(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """From 1 at step 0 to 0 at step `total`, in a straight line."""

    depends_on_total: ClassVar[bool] = True
    total: int

    def decay(self, step: int) -> float:
        return 1.0 - min(1.0, step / self.total)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """From 1 at step 0 to `final` at step `total`, along half a cosine (Loshchilov & Hutter 2017)."""

    depends_on_total: ClassVar[bool] = True
    total: int
    final: float = 0.0

    def decay(self, step: int) -> float:
        progress = min(1.0, step / self.total)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
