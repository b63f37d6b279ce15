"""The one update every linear sampler step is: a weighted sum of tensors, plus scaled noise.

    out   = sum_i k_i y_i + c inner + n z,     z ~ N(0, I) from (key, step, stream)
    inner = sum_i a_i y_i,                     kept in [-bound, bound] where there is a bound

The inner sum is an estimate of x0 read off a network's output; conversion from eps or v and guidance are both
linear. It stays a `Combination` until its values are asked for, so that a whole step, clipping and noise
included, is one kernel on a GPU (`genbench.ops.kernels.combine`). Elsewhere it is a few passes of torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.ops import compiled
from genbench.ops.random import Counter, Randomness, Stream

ONE = torch.ones((), dtype=torch.float64)
FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernel takes. It computes in float32; float64 is left to torch."""


class Combination:
    """sum_i coefficient_i tensor_i, kept in [-bound, bound]: its values are worked out once, when needed.

    coefficients: as `combine` takes them; tensors: [B, ...], not to be written to while this is in use;
    bound: float64 of shape [] or [B], or None.
    """

    def __init__(
        self, coefficients: Sequence[Tensor], tensors: Sequence[Tensor], bound: Tensor | None = None
    ) -> None:
        self.coefficients, self.tensors, self.bound = tuple(coefficients), tuple(tensors), bound
        self.known = False
        """Are the values worked out? They are then all that this holds."""

    def tensor(self) -> Tensor:
        """The values, [B, ...] in the dtype of the first tensor; the same tensor at every call."""
        if not self.known:
            alone = Update((ONE,), (self,))
            self.found(_fused(alone) if _fusable(alone) else _bounded(self))
        return self.tensors[0]

    def found(self, values: Tensor) -> None:
        """`values` are what this was to be worked out to: `combine` may come across them."""
        self.coefficients, self.tensors, self.bound, self.known = (ONE,), (values,), None, True


Term = Tensor | Combination


def tensor(term: Term) -> Tensor:
    """The values of a term."""
    return term.tensor() if isinstance(term, Combination) else term


def linear(coefficients: Sequence[Tensor], terms: Sequence[Term]) -> Combination:
    """sum_i coefficient_i term_i, not worked out: a Combination of the tensors that the terms are made of."""
    update = Update(coefficients, terms)
    if update.inner is not None:
        update.add(update.share, update.inner.tensor())
    return Combination(update.weights, update.tensors)


def clamped(term: Term, bound: Tensor) -> Combination:
    """`term` kept in [-bound, bound]; bound: float64 of shape [] or [B]."""
    if isinstance(term, Combination) and not term.known and term.bound is None:
        return Combination(term.coefficients, term.tensors, bound)
    return Combination((ONE,), (tensor(term),), bound)


class Update:
    """Terms taken apart: distinct `tensors` with their `weights`, and at most one inner sum with its `share`.

    An inner sum is a Combination that has a bound, or whose values are to be kept, and has none yet.
    """

    def __init__(
        self, coefficients: Sequence[Tensor], terms: Sequence[Term], keep: Term | None = None
    ) -> None:
        self.weights: list[Tensor] = []
        self.tensors: list[Tensor] = []
        self.inner: Combination | None = None
        self.share = ONE
        self.keep = keep
        for coefficient, term in zip(coefficients, terms, strict=True):
            if isinstance(term, Tensor) or term.known:
                self.add(coefficient, tensor(term))
            elif term.bound is None and term is not keep:
                for inside, each in zip(term.coefficients, term.tensors, strict=True):
                    self.add(coefficient * inside, each)
            elif self.inner is None:
                self.inner, self.share = term, coefficient
            else:
                self.add(coefficient, term.tensor())

    def add(self, weight: Tensor, tensor: Tensor) -> None:
        """One more term; a tensor that is there already only weighs more."""
        for place, known in enumerate(self.tensors):
            if known is tensor:
                self.weights[place] = self.weights[place] + weight
                return
        self.weights.append(weight)
        self.tensors.append(tensor)


def expand(value: Tensor | float, like: Tensor) -> Tensor:
    """`value` of shape [] or [B] as a tensor of `like`'s dtype and device that broadcasts over [B, ...]."""
    # A GPU is not waited for: what it is given of the host's is put aside before the call returns.
    value = torch.as_tensor(value).to(like.dtype).to(like.device, non_blocking=like.is_cuda)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


def combine(
    coefficients: Sequence[Tensor],
    terms: Sequence[Term],
    noise_coefficient: Tensor | None = None,
    randomness: Randomness | None = None,
    step: int = 0,
    stream: Stream = Stream.STEP,
    keep: Term | None = None,
) -> Tensor:
    """The update above, in the dtype of the first tensor.

    coefficients: float64, shape [] or [B], one for each term [B, ...], or of more dimensions that broadcast
    over them; noise_coefficient likewise. No noise is drawn where the noise coefficient is a scalar zero.
    keep: the one among the terms whose values will be wanted as well; working them out on the way costs no
    second pass. Raises ValueError for a noise coefficient without randomness.
    """
    update = Update(coefficients, terms, keep)
    if noise_coefficient is None or _is(noise_coefficient, 0):
        return _sum(update)
    if randomness is None:
        raise ValueError("combine: a noise coefficient was given without randomness to draw from")
    if _fusable(update, noise_coefficient):
        counter = randomness.counter(step, stream)
        if counter is not None:
            return _fused(update, noise_coefficient, counter)
    out = _sum(update)
    noise = randomness.normal(out.shape[1:], step, stream).to(out.dtype)
    return out.addcmul_(noise, expand(noise_coefficient, out))


def _sum(update: Update) -> Tensor:
    """The update without noise, a tensor of its own."""
    if _fusable(update):
        return _fused(update)
    if update.inner is not None:
        update.add(update.share, update.inner.tensor())
    return _weighted(update.weights, update.tensors)


def _bounded(combination: Combination) -> Tensor:
    out = _weighted(combination.coefficients, combination.tensors)
    if combination.bound is None:
        return out
    if combination.bound.ndim == 0:
        return out.clamp_(-float(combination.bound), float(combination.bound))
    bound = expand(combination.bound, out)
    return out.clamp_(-bound, bound)


def _weighted(weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """sum_i weight_i tensor_i, added in this order in the dtype of the first tensor."""
    (weight, *weights), (first, *tensors) = weights, tensors
    # A weight of one is no pass over memory of its own.
    out = first if tensors and _is(weight, 1) else first * expand(weight, first)
    for place, (each, by) in enumerate(zip(tensors, weights, strict=True)):
        add = Tensor.addcmul if place == 0 and out is first else Tensor.addcmul_
        out = add(out, each.to(out.dtype), expand(by, out))
    return out


def _is(value: Tensor, number: float) -> bool:
    """Is `value` this number, as far as can be told without waiting for a GPU?"""
    return value.ndim == 0 and value.device.type == "cpu" and float(value) == number


def _fusable(update: Update, noise: Tensor | None = None) -> bool:
    """Is there a kernel for this update? Not with gradients, nor with coefficients for every pixel.

    On a CPU only for noise, compiled: a sum of a few tensors takes less time than calling compiled code.
    """
    inner = update.inner
    tensors = [*update.tensors, *(inner.tensors if inner else ())]
    if not all(_has_kernel(each) or (noise is not None and compiled.takes(each)) for each in tensors):
        return False
    coefficients = [
        *update.weights,
        *(() if noise is None else (noise,)),
        *((*inner.coefficients, update.share) if inner else ()),
    ]
    differentiated = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    return all(each.ndim <= 1 for each in coefficients) and not differentiated


def _has_kernel(tensor: Tensor) -> bool:
    return tensor.is_cuda and tensor.dtype in FUSED


def _fused(update: Update, noise: Tensor | None = None, counter: Counter | None = None) -> Tensor:
    tensors = update.tensors or update.inner.tensors  # type: ignore[union-attr]
    if noise is not None and counter is not None and compiled.takes(tensors[0]):
        return compiled.fused(update, noise, counter)
    from genbench.ops.kernels.combine import fused

    return fused(update, noise, counter)
