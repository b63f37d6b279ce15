"""A state in one safetensors file: its tensors by name, and the skeleton that holds them together.

A state is any nesting of dicts, lists and tuples over tensors, numbers, strings, bools and None: what
`state_dict` gives. `flatten` takes it apart and `unflatten` is its exact inverse, so that

    read(path) = state, bit for bit, after the bytes of serialise(state) were written to path

and nothing is ever unpickled. The skeleton rides in the file's metadata; any safetensors reader opens the
rest.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

State = Any
"""A nesting of dict, list and tuple over Tensor, bool, int, float, str and None. The keys of a dict are
any of the scalars (an optimizer's are ints)."""

_SKELETON = "genbench.skeleton"

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def flatten(state: State) -> tuple[dict[str, Tensor], Any]:
    """A state as named tensors and a skeleton of plain JSON; `unflatten` is its exact inverse.

    Names are the path to the tensor ("model/net.weight"). Tensors are detached, not copied; one that occurs
    twice (tied weights) gets one name, and is one tensor again afterwards. In the skeleton every JSON object
    has one entry that says what it is: {"tensor": name}, {"dict": ...}, {"items": [[key, value], ...]} for
    dicts with keys other than strings, {"tuple": [...]}, {"float": "nan"} for what JSON cannot write.

    Raises TypeError, naming the path, for anything else (an object would need unpickling).
    """
    tensors: dict[str, Tensor] = {}
    known: dict[tuple, str] = {}

    def name_of(tensor: Tensor, path: tuple[str, ...]) -> str:
        identity = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        if tensor.numel() and identity in known:
            return known[identity]
        name = base = "/".join(path) or "state"
        suffix = 1
        while name in tensors or name == "__metadata__":
            suffix += 1
            name = f"{base}#{suffix}"
        tensors[name] = tensor.detach()
        known[identity] = name
        return name

    def encode(value: Any, path: tuple[str, ...]) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, Tensor) and value.layout is torch.strided and value.dtype in _DTYPES:
            return {"tensor": name_of(value, path)}
        if isinstance(value, tuple):
            return {"tuple": [encode(item, (*path, str(i))) for i, item in enumerate(value)]}
        if isinstance(value, Mapping):
            items = [(key, encode(item, (*path, str(key)))) for key, item in value.items()]
            if all(isinstance(key, str) for key, _ in items):
                return {"dict": dict(items)}
            return {"items": [[encode(key, (*path, "key")), item] for key, item in items]}
        if isinstance(value, list):
            return [encode(item, (*path, str(i))) for i, item in enumerate(value)]
        kind = (
            f"tensor of {value.dtype}, {value.layout}" if isinstance(value, Tensor) else type(value).__name__
        )
        raise TypeError(
            f"a checkpoint cannot hold a {kind} (at {'/'.join(path) or 'the top'}); "
            "it holds dicts, lists, tuples, dense tensors, numbers, strings, bools and None"
        )

    skeleton = encode(state, ())
    return tensors, skeleton


def unflatten(tensors: Mapping[str, Tensor], skeleton: Any) -> State:
    """The state that `flatten` took apart. Raises KeyError where a tensor is missing."""
    if isinstance(skeleton, list):
        return [unflatten(tensors, item) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, value),) = skeleton.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(unflatten(tensors, item) for item in value)
    if kind == "dict":
        return {key: unflatten(tensors, item) for key, item in value.items()}
    if kind == "items":
        return {unflatten(tensors, key): unflatten(tensors, item) for key, item in value}
    raise ValueError(f"unknown kind of node {kind!r} in a checkpoint's skeleton")


def serialise(state: State) -> Iterator[bytes | memoryview]:
    """The bytes of the safetensors file, piece by piece. Raises TypeError as `flatten` does, at once.

    The library's own writers would hold the whole state in memory again (up to three times), or write through
    a temporary of their own choosing; here one tensor at a time passes through the host.
    """
    return _pieces(*flatten(state))


def _pieces(tensors: Mapping[str, Tensor], skeleton: Any) -> Iterator[bytes | memoryview]:
    """The header, then every tensor; widest elements first, so that each is aligned in the file."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    header: dict[str, Any] = {"__metadata__": {_SKELETON: json.dumps(skeleton)}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in ordered:
        values = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        # not reshape: it keeps the odd strides that tensors of at most one element may have
        yield values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy().data


def read(path: Path, device: str | torch.device = "cpu") -> State:
    """The state whose bytes are at `path`, every tensor on `device`.

    Raises OSError, safetensors.SafetensorError, ValueError, KeyError or TypeError where the file is not
    of this kind.
    """
    with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
        skeleton = json.loads(file.metadata()[_SKELETON])
        # clone: what the library hands out on a CPU is a view of the mapped file, aligned to 8 bytes only
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return unflatten(tensors, skeleton)
