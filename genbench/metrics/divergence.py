"""f-divergences between two sets of samples, estimated from below by a critic.

    D_f(P||Q) >= E_P[T(x)] - E_Q[f*(T(x))]    for any T; equality at T* = f'(p/q)

T is fitted on one half of the samples and the bound is evaluated on the other (kexue.fm 6016; Nguyen,
Wainwright and Jordan 2010), which knows nothing of the fit. For a fixed T the value is therefore a lower
bound in expectation; on the samples T was fitted to it would be too high. It remains a noisy bound: where
P and Q are close, the noise of the evaluation half can make it negative. Where f* grows exponentially (KL,
Pearson, Jeffreys) its variance grows like e^KL: n samples show no KL much above log n, and for sets further
apart than that the estimate says little more than that they are.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genbench.divergences.critics import ImageCritic, Limit, Standardise, VectorCritic
from genbench.divergences.divergence import Divergence
from genbench.divergences.heads import Activation, Head, LogRatio
from genbench.errors import UserError
from genbench.metrics.measure import Figure, OfSets, Samples
from genbench.metrics.reference import Real
from genbench.ops.quantize import dequantize

MakeCritic = Callable[[tuple[int, ...]], nn.Module]
"""A critic for samples of a shape: [B, *shape] in, [B] out."""

_CHECKS = 20
"""How often during a fit the validation part is looked at."""

_SMALLEST = 20
"""Fewer samples than this leave fewer than two of each kind to choose a critic by."""


@dataclass(frozen=True)
class Estimate:
    """A divergence in nats and how far it can be trusted.

    value: the mean of `splits`. splits: the bound on every held-out half, two for each random split. std:
    their population deviation. A random half differs from the whole set about as much as the whole from the
    truth (a delete-half jackknife), so `std` estimates the standard error of `value`, the variation of the
    fits included. It knows nothing of how far the bound lies below the divergence.
    """

    value: float
    std: float
    splits: tuple[float, ...]


class VariationalEstimator:
    """Estimates D_f(P||Q) from samples of P and of Q.

    Each of `splits` random splits halves both sets, and each half serves once for fitting and once for
    evaluation: no sample is left unused, and `Estimate.std` needs both. A fifth of the fitting half
    validates: the critic kept is the best of the checks on it, or the constant T = f'(1) if that is no worse,
    whose bound is f(1). The evaluation half has no part in the choice. Outputs are limited to where T and f*
    are no larger than there are samples to check them by (see `_limits`): still one fixed T, hence a bound.

    divergence, head: what is bounded and how the critic's output is read; by default `LogRatio` where
    f'' > 0, else `Activation`. critic: makes the network for a sample shape; by default `VectorCritic`, or
    `ImageCritic` for three axes. steps, batch_size, lr: Adam's, the rate falling to zero along a cosine.
    Raises UserError for settings that cannot be.
    """

    def __init__(
        self,
        divergence: Divergence,
        head: Head | None = None,
        critic: MakeCritic | None = None,
        steps: int = 1000,
        batch_size: int = 256,
        lr: float = 1e-3,
        splits: int = 4,
        seed: int = 0,
    ) -> None:
        for name, number in {"steps": steps, "batch_size": batch_size, "lr": lr, "splits": splits}.items():
            if not number > 0:
                raise UserError(f"found {name}={number}; type a {name} above zero")
        self.divergence = divergence
        self.head = _head_for(divergence) if head is None else head
        self.head.check(divergence)
        self.critic = critic
        self.steps, self.batch_size, self.lr, self.splits, self.seed = steps, batch_size, lr, splits, seed

    def __call__(self, p: Tensor, q: Tensor) -> Estimate:
        """The estimate from p [N, ...] of P and q [M, ...] of Q, independent draws of one sample shape.

        Floating, or images uint8 [N, C, H, W]. Works on the device of p. Depends on the samples, their order
        and the seed; torch's global generators are left as they were. Raises ValueError where the shapes
        differ, a set has fewer than 20 samples, or one is not finite.
        """
        p = _floating(p)
        q = _floating(q).to(p.device)
        if p.shape[1:] != q.shape[1:]:
            raise ValueError(
                f"samples of shapes {tuple(p.shape[1:])} and {tuple(q.shape[1:])} do not compare"
            )
        if min(len(p), len(q)) < _SMALLEST:
            raise ValueError(f"expected at least {_SMALLEST} samples of each, found {len(p)} and {len(q)}")
        generator = torch.Generator().manual_seed(self.seed)
        values = []
        cards = [p.device] if p.device.type == "cuda" else []
        # Evaluations run under no_grad or inference_mode; a critic must learn all the same.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(cards):
            for _ in range(self.splits):
                order_p = torch.randperm(len(p), generator=generator).to(p.device)
                order_q = torch.randperm(len(q), generator=generator).to(p.device)
                halves = list(zip(p[order_p].chunk(2), q[order_q].chunk(2)))
                for fitted, held_out in (halves, halves[::-1]):
                    _seed(int(torch.randint(2**62, (), generator=generator)), p.device)
                    critic = self._fit(*fitted)
                    values.append(self._constant if critic is None else self._bound(critic, *held_out))
        found = torch.tensor(values, dtype=torch.float64)
        return Estimate(float(found.mean()), float(found.std(correction=0)), tuple(values))

    def _fit(self, p: Tensor, q: Tensor) -> nn.Module | None:
        """The critic that does best on a fifth of (p, q), fitted to the rest; None for the constant one."""
        shape = tuple(p.shape[1:])
        make = self.critic or (ImageCritic if len(shape) == 3 else VectorCritic)
        cut_p, cut_q = len(p) // 5, len(q) // 5
        limit = Limit(*self._limits(cut_p, cut_q))
        critic = nn.Sequential(Standardise(torch.cat([p, q])), make(shape), limit).to(p.device)
        optimizer = torch.optim.Adam(critic.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        best, kept = self._constant, None
        every = max(1, self.steps // _CHECKS)
        for step in range(1, self.steps + 1):
            loss = -self._objective(critic, self._draw(p[cut_p:]), self._draw(q[cut_q:]))
            if not bool(loss.isfinite()):
                break  # every later weight would be NaN; the best before stands
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % every == 0 or step == self.steps:
                bound = self._bound(critic, p[:cut_p], q[:cut_q])
                if bound > best:
                    best, kept = bound, copy.deepcopy(critic)
        return kept

    def _objective(self, critic: nn.Module, p: Tensor, q: Tensor) -> Tensor:
        output = critic(torch.cat([p, q]))
        if output.shape != (len(p) + len(q),):
            raise UserError(
                f"the critic gave an output of shape {tuple(output.shape)} for {len(p) + len(q)} samples; "
                "expected one number a sample, shape [B]"
            )
        on_p, on_q = output.split([len(p), len(q)])
        return (
            self.head.terms(self.divergence, on_p)[0].mean()
            - self.head.terms(self.divergence, on_q)[1].mean()
        )

    def _limits(self, n_p: int, n_q: int) -> tuple[float, float]:
        """The interval of the critic's outputs at which T >= -n_p and f*(T) <= n_q.

        Where T or f* is exponential in the output, one sample further out than all others can outweigh them:
        one of P with a huge T would have a critic chosen that the first such sample of Q refutes. Within
        these limits none of n_p and n_q samples can lower their bound by more than one.
        """

        def inside(v: float) -> bool:
            t, conjugate = self.head.terms(self.divergence, torch.tensor(v, dtype=torch.float64))
            return bool((t >= -n_p) & (conjugate <= n_q))

        ends = []
        for sign in (-1.0, 1.0):
            good, bad = 0.0, sign
            while math.isfinite(bad) and inside(bad):
                good, bad = bad, 2 * bad
            while math.isfinite(bad) and abs(bad - good) > 1e-6 * abs(bad):
                middle = (good + bad) / 2
                good, bad = (middle, bad) if inside(middle) else (good, middle)
            ends.append(good if math.isfinite(bad) else bad)
        return ends[0], ends[1]

    def _bound(self, critic: nn.Module, p: Tensor, q: Tensor) -> float:
        """E_P[T] - E_Q[f*(T)] over all of (p, q), the terms in float64."""
        value, _ = self.head.terms(self.divergence, self._outputs(critic, p))
        _, conjugate = self.head.terms(self.divergence, self._outputs(critic, q))
        return float(value.mean() - conjugate.mean())

    @torch.no_grad()
    def _outputs(self, critic: nn.Module, x: Tensor) -> Tensor:
        """The critic's outputs on all of x in evaluation mode, float64 [n]."""
        critic.eval()
        outputs = torch.cat([critic(part) for part in x.split(4 * self.batch_size)])
        critic.train()
        return outputs.double()

    @property
    def _constant(self) -> float:
        """The bound of T = f'(1), exact: f'(1) - (f'(1) - f(1))."""
        return float(self.divergence.f(torch.ones((), dtype=torch.float64)))

    def _draw(self, x: Tensor) -> Tensor:
        return x[torch.randint(len(x), (self.batch_size,)).to(x.device)]


class VariationalDivergence(OfSets):
    """D_f(real || generated) between an extractor's features.

    P is the reference's images and Q the samples, as in an f-GAN: the row `kl` is KL(real || generated). The
    critic is fitted on the CPU. Raises UserError for a divergence whose name cannot stand in a metric's.
    """

    def __init__(self, estimator: VariationalEstimator) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", estimator.divergence.name):
            raise UserError(
                f"the divergence's name {estimator.divergence.name!r} stands in a metric's name: expected "
                "lower case letters, digits and underscores"
            )
        self.estimator = estimator

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        if n < _SMALLEST:
            raise UserError(f"metrics.n_samples={n}: a divergence needs at least {_SMALLEST} samples.")

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        """The bound and its deviation over held-out halves."""
        estimate = self.estimator(real().features(), samples.layers["features"].cpu())
        kind = f"divergence_{self.estimator.divergence.name}"
        return [Figure(kind, estimate.value, "lower", split_std=estimate.std)]


def donsker_varadhan(t_p: Tensor, t_q: Tensor) -> Tensor:
    """E_P[T] - log E_Q[e^T], a scalar in float64, from a critic's values on samples of P [N] and of Q [M].

    Donsker and Varadhan's (1983) lower bound of KL. For the same T it is at least the row KL's
    E_P[T] - E_Q[e^(T-1)], because log x <= x / e. The logarithm of a mean over samples is biased, however:
    unlike that row it is a bound only as M grows.
    """
    return t_p.double().mean() - (t_q.double().logsumexp(dim=0) - math.log(len(t_q)))


def _floating(x: Tensor) -> Tensor:
    x = torch.as_tensor(x)
    """Samples as floating-point numbers; uint8 images become [-1, 1]."""
    x = dequantize(x) if x.dtype == torch.uint8 else x
    if not x.is_floating_point():
        raise ValueError(f"expected floating samples or uint8 images, found {x.dtype}")
    if not bool(x.isfinite().all()):
        raise ValueError("samples contain NaN or infinity")
    return x.float()


def _head_for(divergence: Divergence) -> Head:
    """LogRatio where it serves the divergence, else Activation."""
    try:
        LogRatio().check(divergence)
    except UserError:
        return Activation()
    return LogRatio()


def _seed(seed: int, device: torch.device) -> None:
    """Seeds the CPU's generator and that of `device`. (torch.manual_seed would seed every card there is.)"""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
