"""What a Triton kernel becomes on a GPU of compute capability 9.0, found without one.

Tests of kernels run in Triton's interpreter, chosen once for a process by TRITON_INTERPRET, and what the
interpreter runs cannot be compiled; so compiling has a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WIDTH = re.compile(r"\b(LDG|STG)\.E(?:\.[A-Z]+)*?(?:\.(64|128|U8|S8|U16|S16))?\b")


@dataclass(frozen=True)
class Compiled:
    """Of one kernel: registers a thread, bytes of stack, instructions, bytes of each global load and store.

    Instructions count every line of the program once, loops included, without the padding after its end.
    """

    registers: int
    stack: int
    instructions: int
    loads: list[int]
    stores: list[int]
    mnemonics: dict[str, int]
    """How often each instruction stands there, by its name with what qualifies it ("FMNMX.NAN")."""


@dataclass(frozen=True)
class Variant:
    """A kernel `module:name` with the types of its arguments ("*fp32", "i32", …), constants and warps.

    aligned: names of the pointers and sizes known to be multiples of 16.
    """

    kernel: str
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: Sequence[str]
    warps: int = 4


def compiled(*variants: Variant) -> list[Compiled]:
    """Each variant compiled for sm_90, in one other process; RuntimeError with Triton's words."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    asked = json.dumps([asdict(variant) for variant in variants])
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=asked, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return [Compiled(**each) for each in json.loads(done.stdout)]


def _compiled(variant: Variant) -> Compiled:
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = variant.kernel.partition(":")
    kernel = getattr(importlib.import_module(module), name)
    source = ASTSource(
        fn=kernel,
        signature={**variant.signature, **dict.fromkeys(variant.constants, "constexpr")},
        constexprs=dict(variant.constants),
        attrs={
            (kernel.arg_names.index(argument),): [["tt.divisibility", 16]] for argument in variant.aligned
        },
    )
    options = {"num_warps": variant.warps, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tools = Path(sys.modules["triton"].__file__ or "").parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()

        def tool(*arguments: str) -> str:
            command = [str(tools / "cuobjdump"), *arguments, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, listing = tool("--dump-resource-usage"), tool("-sass")
    lines = [line for line in listing.splitlines() if re.match(r"\s+/\*[0-9a-f]{4,5}\*/", line)]
    # What follows the program's end fills the last line of the cache.
    lines = [line for line in lines if not re.search(r"\bNOP\b", line)]
    names = [re.search(r"\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line) for line in lines]
    bytes_of = {"64": 8, "128": 16, "U8": 1, "S8": 1, "U16": 2, "S16": 2, None: 4}
    accesses = [found.groups() for line in lines if (found := WIDTH.search(line))]
    return Compiled(
        registers=int(re.search(r"REG:(\d+)", usage).group(1)),  # type: ignore[union-attr]
        stack=int(re.search(r"STACK:(\d+)", usage).group(1)),  # type: ignore[union-attr]
        instructions=len(lines),
        loads=[bytes_of[width] for kind, width in accesses if kind == "LDG"],
        stores=[bytes_of[width] for kind, width in accesses if kind == "STG"],
        mnemonics=dict(Counter(name.group(1) for name in names if name)),
    )


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps([asdict(_compiled(Variant(**each))) for each in json.loads(sys.stdin.read())])
    )
