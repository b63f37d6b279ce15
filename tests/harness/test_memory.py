"""Out of memory: who is told what to type, and who is not."""

from __future__ import annotations

import types

import pytest
import torch

from genbench import cli
from genbench.errors import UserError
from genbench.harness.memory import advice

CONFIG = {
    "trainer": {"accumulate": 2, "batch_size": 128, "precision": "fp32"},
    "sampler": {"batch_size": 500},
    "metrics": {"batch_size": 3},
}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore about it."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_settings_that_need_less_are_named_with_their_values(error):
    said = advice(error, CONFIG)
    assert said is not None
    for typed in ("trainer.accumulate=4", "sampler.batch_size=125", "metrics.batch_size=1"):
        assert typed in said
    assert "More about it" not in said


def test_other_errors_are_left_alone():
    assert advice(RuntimeError("shapes do not match"), CONFIG) is None


def test_a_task_that_runs_out_of_memory_ends_with_the_advice():
    def run(config, typed):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(UserError, match=r"trainer\.accumulate=4"):
        cli.carry_out(types.SimpleNamespace(run=run), CONFIG, cli.Typed([], [], None))

    def broken(config, typed):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        cli.carry_out(types.SimpleNamespace(run=broken), CONFIG, cli.Typed([], [], None))
