"""The update of `combine` compiled by torch for a CPU: one pass over memory, noise included.

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
    """Within, updates of tensors on a CPU are compiled."""
    global _wanted
    before, _wanted = _wanted, True
    try:
        yield
    finally:
        _wanted = before


def takes(tensor: Tensor) -> bool:
    """Is an update of this tensor to be compiled now?"""
    return _wanted and tensor.device.type == "cpu"


def fused(update: Update, noise: Tensor | None = None, counter: Counter | None = None) -> Tensor:
    """`update` and its noise, in the dtype of its first tensor."""
    from genbench.ops.combine import expand

    inner = update.inner
    like = update.tensors[0] if update.tensors else inner.tensors[0]  # type: ignore[union-attr]
    number = lambda value: None if value is None else expand(value, like)
    kind = (len(update.tensors), 0 if inner is None else len(inner.tensors), noise is None)
    out, inside = _compiled(kind)(
        update.tensors,
        [expand(weight, like) for weight in update.weights],
        () if inner is None else inner.tensors,
        [] if inner is None else [expand(weight, like) for weight in inner.coefficients],
        None if inner is None else number(inner.bound),
        expand(update.share, like),
        number(noise),
        None if counter is None else counter.index,
        # As tensors, or each step would be compiled anew.
        None if counter is None else torch.tensor([counter.seed, counter.step]),
        None if counter is None else counter.stream,
    )
    if inner is not None and update.keep is inner:
        inner.found(inside)
    return out


@cache
def _compiled(kind: tuple[int, int, bool]) -> Callable[..., Any]:
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
    deviation: Tensor | None,
    index: Tensor | None,
    clock: Tensor | None,
    stream: int | None,
) -> tuple[Tensor, Tensor | None]:
    terms = [tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]
    inner = None
    if inside:
        inner = _sum([tensor * weight for tensor, weight in zip(inside, inner_weights, strict=True)])
        if bound is not None:
            inner = inner.clamp(-bound, bound)
        terms.append(inner * share)
    out = _sum(terms)
    if index is not None and clock is not None and stream is not None and deviation is not None:
        seed: Any = clock[0]
        step: Any = clock[1]
        noise = Keys(index, seed).normal(out.shape[1:], step, Stream(stream))
        out = out + noise.to(out.dtype) * deviation
    return out, inner


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term.to(total.dtype)
    return total
