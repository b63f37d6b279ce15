"""What the machine can do at best: move bytes, and multiply matrices. All else is a fraction of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.speed.precision import PRECISIONS
from genbench.speed.turns import Clock, Contestant, Row, compare


@dataclass(frozen=True)
class Ceilings:
    """copy: bytes read and written a second, by a copy too large for any cache; product: FLOP a second of a
    large matrix product, by precision ("fp32" as torch is set up to multiply it).
    """

    copy: float
    product: Mapping[str, float]

    def best(self, other: Ceilings) -> Ceilings:
        """The higher of two: what a machine can do shows when nobody else uses it."""
        products = {name: max(rate, other.product[name]) for name, rate in self.product.items()}
        return Ceilings(max(self.copy, other.copy), products)


def measure(settings: Mapping[str, Any], clock: Clock, part: str = "ceilings") -> tuple[Ceilings, list[Row]]:
    """Both ceilings, medians, and the rows they are read from.

    settings: copy_bytes, how large the copied tensor is; product, the side of the multiplied matrices.
    """
    source = torch.ones(settings["copy_bytes"] // 4, device=clock.device)
    target = torch.empty_like(source)
    moved = 2.0 * source.nbytes
    copying = Contestant("torch.Tensor.copy_", lambda: target.copy_(source), facts={"bytes": moved})
    (copied,) = compare(part, f"copy of {source.nbytes / 2**20:.0f} MiB", "copy", [copying], clock)

    side = settings["product"]
    flops = 2.0 * side**3
    products = []
    for precision in PRECISIONS:
        a, b = torch.randn(2, side, side, device=clock.device).to(precision.autocast or torch.float32)
        out = torch.empty_like(a)
        products.append(
            Contestant(
                f"torch.mm, {precision.name}",
                lambda a=a, b=b, out=out: _multiply(a, b, out),  # type: ignore[misc]
                facts={"flops": flops, "precision": precision.name},
            )
        )
    rows = compare(part, f"product of matrices [{side}, {side}]", "product", products, clock)
    # Neither precision is a rival of the other.
    rows = [Row(r.part, r.what, r.name, r.unit, r.seconds, None, r.facts) for r in rows]
    rates = {str(row.facts["precision"]): flops / row.seconds["median"] for row in rows}
    return Ceilings(moved / copied.seconds["median"], rates), [copied, *rows]


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    torch.mm(a, b, out=out)
