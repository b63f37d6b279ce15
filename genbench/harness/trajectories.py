"""Whole trajectories of a sampler recorded once and replayed as a CUDA graph: Python runs for two chunks.

A sampler's steps are the same for every chunk of images: what differs is the images' numbers, from which all
noise comes, and their classes. So one graph of all steps, networks and updates, reading numbers and classes
from fixed places, draws any chunk of that size.

What a sampler brings from the host (coefficients, times) would be read again by a replayed copy, from memory
that has long been used for something else. The first chunk is a rehearsal: it is drawn as it comes, and
whatever is brought to the device is kept there. While the second is recorded, the same things are handed out
in the same order, and nothing is copied.

Samplers whose steps depend on the images, such as RK45, wait for the device and cannot be recorded. A graph
holds some hundred kernels an evaluation: it pays for small networks and tens of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.contracts import Samples
from genbench.harness.graphs import MOST, Recorder, Recording, told

TRAJECTORY = "trajectory"
"""The value of sampler.graphs that asks for this."""
Walk = Callable[[Tensor, Tensor | None], Samples]
"""From images' numbers, int64 [B], and classes, int64 [B] or None, to the images."""


class Trajectories:
    """Recorded trajectories of one model, sampler and evaluation seed at a time.

    say: is told in one line where recording is not possible; from then on chunks are drawn as they come. So
    are chunks whose numbers lie where the recorder does not take them.
    """

    def __init__(self, recorder: Recorder, say: Callable[[str], None] = print) -> None:
        self._recorder, self._say = recorder, say
        self._seed: int | None = None
        self._whose: tuple[object, ...] = ()
        self._rehearsals: dict[Hashable, tuple[Brought, Tensor]] = {}
        self._recordings: dict[Hashable, Recording] = {}
        self._possible = True

    def draw(
        self, walk: Walk, seed: int, whose: tuple[object, ...], index: Tensor, labels: Tensor | None
    ) -> Samples:
        """`walk(index, labels)`; seed, whose: what else it depends on, objects compared by identity."""
        if not self._possible or not self._recorder.takes(index):
            return walk(index, labels)
        if seed != self._seed or [*map(id, whose)] != [*map(id, self._whose)]:
            self._seed, self._whose = seed, whose
            self._rehearsals.clear()
            self._recordings.clear()
        kind = (len(index), labels is None)
        if kind not in self._rehearsals:
            with Brought() as brought:
                samples = walk(index, labels)
            self._rehearsals[kind] = (brought, samples.nfe)
            return samples
        brought, nfe = self._rehearsals[kind]
        if kind not in self._recordings:
            if len(self._recordings) >= MOST:
                return walk(index, labels)

            def images(index: Tensor, labels: Tensor | None) -> Tensor:
                with brought.again():
                    return walk(index, labels).images

            try:
                self._recordings[kind] = Recording(images, self._recorder, (index, labels), {})
            except RuntimeError as error:
                self._possible = False
                self._say(
                    f"sampler.graphs=trajectory: not recorded, steps are taken as they come ({told(error)})"
                )
                return walk(index, labels)
        return Samples(self._recordings[kind]((index, labels), {}), nfe.clone())


class Brought(TorchDispatchMode):
    """Within, copies from the host to a device are kept; within `again()` they are handed out in that order.

    `again` raises RuntimeError where something else is asked for than in the rehearsal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self._next: int | None = None

    def again(self) -> Brought:
        """Itself, to be entered for handing out what was kept, from the first on."""
        self._next = 0
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _brings(func, args, kwargs):
            return func(*args, **kwargs)
        if self._next is None:
            self.kept.append(func(*args, **kwargs))
            return self.kept[-1]
        if self._next == len(self.kept) or self.kept[self._next].shape != args[0].shape:
            raise RuntimeError("the sampler brings other things from the host than in its first chunk")
        self._next += 1
        return self.kept[self._next - 1]


def _brings(func: Any, args: Any, kwargs: Any) -> bool:
    """Is this a copy of a tensor of the host's to a device?"""
    if func is not torch.ops.aten._to_copy.default or args[0].device.type != "cpu":
        return False
    device = kwargs.get("device")
    return device is not None and torch.device(device).type != "cpu"
