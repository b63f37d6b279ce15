"""Whole trajectories of a sampler recorded once and replayed as a CUDA graph: Python runs for two chunks.

A sampler's steps are the same for every chunk of images: what differs is the images' numbers, from which all
noise comes, and their classes. So one graph of all steps, networks and updates, reading numbers and classes
from fixed places, draws any chunk of that size.

What a sampler brings from the host (coefficients, times) cannot be brought by a graph: it would read memory
that has long been used for something else. The first chunk is a rehearsal: it is drawn as it comes, and
whatever is brought to the device is kept there beside its value. While the second is recorded, what is
brought is a copy of the tensor kept of that value, made on the device.

Samplers whose steps depend on the images, such as RK45, wait for the device and cannot be recorded. A graph
holds all kernels of all evaluations, so it is meant for small networks and tens of steps; no GPU has timed it
yet.
"""

from __future__ import annotations

from abc import abstractmethod
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
Kept = dict[Hashable, Tensor]
"""Tensors of the device by the value of what they were brought from."""


class Trajectories:
    """Recorded trajectories of one model, sampler and evaluation seed at a time.

    recorder: makes one, for every such seed anew, so that memory goes back in between; say: is told in one
    line where recording is not possible; from then on chunks are drawn as they come. So are chunks whose
    numbers lie where the recorder does not take them.
    """

    def __init__(self, recorder: Callable[[], Recorder], say: Callable[[str], None] = print) -> None:
        self._make, self._say = recorder, say
        self._possible = True
        self._start(None, ())

    def _start(self, seed: int | None, whose: tuple[object, ...]) -> None:
        self._seed, self._whose = seed, whose
        self._rehearsals: dict[Hashable, tuple[Kept, Tensor]] = {}
        self._recordings: dict[Hashable, Recording] = {}
        self._recorder = self._make()

    def draw(
        self, walk: Walk, seed: int, whose: tuple[object, ...], index: Tensor, labels: Tensor | None
    ) -> Samples:
        """`walk(index, labels)`; seed, whose: what else it depends on, objects compared by identity."""
        if not self._possible or not self._recorder.takes(index):
            return walk(index, labels)
        if seed != self._seed or [*map(id, whose)] != [*map(id, self._whose)]:
            self._start(seed, whose)
        kind = (len(index), labels is None)
        if kind not in self._rehearsals:
            with Rehearsal() as rehearsal:
                samples = walk(index, labels)
            self._rehearsals[kind] = (rehearsal.kept, samples.nfe)
            return samples
        kept, nfe = self._rehearsals[kind]
        if kind not in self._recordings:
            if len(self._recordings) >= MOST:
                return walk(index, labels)

            def images(index: Tensor, labels: Tensor | None) -> Tensor:
                with HandingOut(kept):
                    return walk(index, labels).images

            try:
                self._recordings[kind] = Recording(images, self._recorder, (index, labels), {})
            except RuntimeError as error:
                self._possible = False
                plain = f"sampler.graphs={TRAJECTORY}: not recorded, steps are taken as they come"
                self._say(f"{plain} ({told(error)})")
                return walk(index, labels)
        return Samples(self._recordings[kind]((index, labels), {}), nfe.clone())


class _Bringing(TorchDispatchMode):
    """Within, sees to what is copied from the host to a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            device = kwargs.get("device")
            if device is not None and torch.device(device).type != "cpu":
                value = args[0].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                kind = (args[0].dtype, args[0].shape, device, kwargs.get("dtype"))
                return self.brought((value, *kind), lambda: func(*args, **kwargs))
        with self:  # in inference mode `to` comes whole
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts

    @abstractmethod
    def brought(self, value: Hashable, bring: Callable[[], Tensor]) -> Tensor:
        """The tensor on the device; bring: copies it there."""


class Rehearsal(_Bringing):
    """Keeps what is brought."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Kept = {}

    def brought(self, value: Hashable, bring: Callable[[], Tensor]) -> Tensor:
        found = bring()
        if value not in self.kept:
            self.kept[value] = found.clone()  # whoever brought it may write to it
        return found


class HandingOut(_Bringing):
    """Brings nothing: copies what was kept. RuntimeError for what was not."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept

    def brought(self, value: Hashable, bring: Callable[[], Tensor]) -> Tensor:
        if value not in self.kept:
            raise RuntimeError("the sampler brings other things from the host than in its first chunk")
        return self.kept[value].clone()
