"""An update of `combine` with noise, compiled by torch for a CPU: one pass over memory.

A step comes out the same to rounding, some five times sooner where noise is most of it. The first of a kind
costs seconds and needs a C++ compiler; nothing is compiled unless `compiling` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genbench.ops.random import Counter, Keys, Stream

if TYPE_CHECKING:
    from genbench.ops.combine import Update

_wanted = False


@contextmanager
def compiling() -> Iterator[None]:
    """Within, updates with noise of tensors on a CPU are compiled."""
    global _wanted
    before, _wanted = _wanted, True
    try:
        yield
    finally:
        _wanted = before


def takes(tensor: Tensor) -> bool:
    """Is an update with noise of this tensor to be compiled now?"""
    return _wanted and tensor.device.type == "cpu"


def fused(update: Update, noise: Tensor, counter: Counter) -> Tensor:
    """`update` and its noise, in the dtype of its first tensor."""
    from genbench.ops.combine import expand

    inner = update.inner
    like = update.tensors[0] if update.tensors else inner.tensors[0]  # type: ignore[union-attr]
    kind = (len(update.tensors), 0 if inner is None else len(inner.tensors))
    out, inside = _compiled(kind)(
        update.tensors,
        [expand(weight, like) for weight in update.weights],
        () if inner is None else inner.tensors,
        [] if inner is None else [expand(weight, like) for weight in inner.coefficients],
        None if inner is None or inner.bound is None else expand(inner.bound, like),
        expand(update.share, like),
        expand(noise, like),
        counter.index,
        torch.tensor([counter.seed, counter.step]),  # as numbers, each step would be compiled anew
        counter.stream,
    )
    if inner is not None and update.keep is inner:
        inner.found(inside)
    return out


@cache
def _compiled(kind: tuple[int, int]) -> Callable[..., Any]:
    """`_step` compiled for updates of one kind, with code of its own: torch gives up on code that has been
    compiled in eight ways.
    """
    code = _step.__code__.replace(co_name=f"step_{'_'.join(map(str, kind))}")
    return torch.compile(FunctionType(code, globals()))


def _step(
    tensors: Sequence[Tensor],
    weights: Sequence[Tensor],
    inside: Sequence[Tensor],
    inner_weights: Sequence[Tensor],
    bound: Tensor | None,
    share: Tensor,
    deviation: Tensor,
    index: Tensor,
    clock: Tensor,
    stream: int,
) -> tuple[Tensor, Tensor | None]:
    terms = [tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]
    inner = None
    if inside:
        inner = _sum([tensor * weight for tensor, weight in zip(inside, inner_weights, strict=True)])
        if bound is not None:
            inner = inner.clamp(-bound, bound)
        terms.append(inner * share)
    out = _sum(terms)
    seed: Any
    step: Any
    seed, step = clock.unbind()
    noise = Keys(index, seed).normal(out.shape[1:], step, Stream(stream))
    return out + noise.to(out.dtype) * deviation, inner


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term.to(total.dtype)
    return total
