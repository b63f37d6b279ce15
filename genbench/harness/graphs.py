"""A network's kernels recorded once and replayed as a CUDA graph: one order of the CPU's instead of hundreds.

Small networks and small batches keep a GPU busy for less time than it takes to tell it what to do. A graph
reads its inputs from fixed places and leaves its output in one, so a call is

    places <- inputs,    replay,    output <- a copy of its place

and the copies, of tensors the size of an image, are all that it costs beside the network itself. Without the
last one the next call would overwrite an output that is in use still: under guidance a sampler evaluates
twice before it takes its step, and multistep solvers remember estimates.

Calls are of one kind where all shapes, strides and types agree. A kind is recorded once it has come a few
times: by then kernels are compiled and algorithms chosen, which cannot be recorded, and batches that shrink
from call to call, as those of adaptive solvers do, pass by without leaving a graph for each size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

PATIENCE = 8
"""Calls of a kind before it is recorded: a round of Dormand and Prince's method takes six, of one size."""
MOST = 4
"""Graphs kept of a network: each holds the memory of its activations' peak, which they share."""


class Recorder(Protocol):
    """What can repeat work on a device without Python."""

    def takes(self, tensor: Tensor) -> bool:
        """Is this tensor where work can be recorded?"""

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """(what repeats `work`, where its result will be); nothing is computed yet.

        work: reads tensors whose values may be others each time. Raises RuntimeError where it cannot be
        recorded, for instance because it waits for the device.
        """


class CudaGraphs:
    """Records as CUDA graphs, which share one pool of memory.

    Sharing is safe as long as each output is copied before another graph is replayed, all on one stream.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def takes(self, tensor: Tensor) -> bool:
        return tensor.is_cuda

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                place = work()
        finally:
            # Where recording fails, torch leaves the stream current that it recorded on.
            torch.cuda.set_stream(stream)
        self._pool = graph.pool()
        return graph.replay, place


class Replayed:
    """`evaluate`, a function of tensors and constants that returns a tensor, recorded where it pays.

    say: is told in one line where recording is not possible; from then on calls are made as they come. So
    are calls with tensors that the recorder does not take. Not for where gradients are wanted.
    """

    def __init__(
        self, evaluate: Callable[..., Tensor], recorder: Recorder, say: Callable[[str], None] = print
    ) -> None:
        self._evaluate, self._recorder, self._say = evaluate, recorder, say
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording] = {}
        self._possible = True

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        kind = self._kind(inputs, named) if self._possible else None
        if kind is not None:
            recording = self._recordings.get(kind) or self._recorded(kind, inputs, named)
            if recording is not None:
                return recording(inputs, named)
        return self._evaluate(*inputs, **named)

    def _kind(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Hashable | None:
        """What must agree for a recording to serve; None for calls that cannot be recorded."""
        given = [*inputs, *named.values()]
        if not all(self._recorder.takes(each) for each in given if isinstance(each, Tensor)):
            return None
        kind = (len(inputs), *named, *map(_form, given))
        try:
            hash(kind)
        except TypeError:
            return None
        return kind

    def _recorded(self, kind: Hashable, inputs: Sequence[Any], named: Mapping[str, Any]) -> Recording | None:
        """A new recording, or None where it is too early or there is no room for one."""
        self._seen[kind] += 1
        if self._seen[kind] <= PATIENCE or len(self._recordings) >= MOST:
            return None
        try:
            recording = Recording(self._evaluate, self._recorder, inputs, named)
        except RuntimeError as error:
            self._possible = False
            self._say(f"sampler.graphs: not recorded, networks are evaluated as they come ({told(error)})")
            return None
        self._recordings[kind] = recording
        return recording


class Recording:
    """One kind of call: where its inputs go, what repeats it, where its output is.

    Made from a call's inputs, of which values may differ later. RuntimeError where it cannot be recorded.
    """

    def __init__(
        self,
        evaluate: Callable[..., Tensor],
        recorder: Recorder,
        inputs: Sequence[Any],
        named: Mapping[str, Any],
    ) -> None:
        # Made in inference mode, they could not be written to outside it.
        with torch.inference_mode(False):
            self._inputs = [_place(each) for each in inputs]
            self._named = {name: _place(each) for name, each in named.items()}
        self._repeat, self._output = recorder.record(lambda: evaluate(*self._inputs, **self._named))
        if not isinstance(self._output, Tensor):
            raise RuntimeError(f"a network returned a {type(self._output).__name__}, not one tensor")

    def __call__(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
        places = [*self._inputs, *self._named.values()]
        for place, given in zip(places, [*inputs, *named.values()], strict=True):
            if isinstance(place, Tensor):
                place.copy_(given)
        self._repeat()
        return self._output.clone()


def told(error: RuntimeError) -> str:
    """The first line of what is wrong."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _form(given: Any) -> Hashable:
    """What of an argument is fixed in a recording: of a tensor all but its values, else all of it."""
    if isinstance(given, Tensor):
        return given.shape, given.stride(), given.dtype, given.device
    return type(given), given


def _place(given: Any) -> Any:
    return torch.empty_like(given) if isinstance(given, Tensor) else given
