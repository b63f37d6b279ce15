"""Arithmetic that does not depend on what the surroundings allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Full float32 convolutions and products: no autocast and no TF32, whatever training has switched on.

    TF32 keeps 10 bits of each factor and is the default of cuDNN's convolutions; with it a distance would
    depend on the card it was computed on.
    """
    backends: Any = torch.backends
    settings = [backends.cudnn.conv, backends.cuda.matmul]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before):
            setting.fp32_precision = precision
