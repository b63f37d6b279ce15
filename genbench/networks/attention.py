"""Self-attention between the positions of a feature map.

attended = softmax(Q K^T / sqrt(d)) V,      Q, K, V = linear maps of the normalised features, d per head
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.initialisation import drawn_in_parts, zeroed
from genbench.networks.normalisation import group_norm


class Attention(nn.Module):
    """Attention over all positions, added to its input; [B, C, H, W] to the same shape.

    One head in Ho et al. (2020), several in Nichol & Dhariwal (2021); `heads` must divide `channels`
    (UserError otherwise). Query, key and value come from one matrix product.
    """

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        if channels % heads:
            raise UserError(
                f"attention over {channels} channels cannot be divided into {heads} heads: "
                f"set network.heads to a divisor of {channels}"
            )
        self.heads = heads
        self.norm = group_norm(channels, groups, activate=False)
        self.query_key_value = drawn_in_parts(nn.Linear(channels, 3 * channels), [channels] * 3)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B, HW, C]; a view where x is channels_last
        parts = self.query_key_value(tokens).unflatten(2, (3, self.heads, channels // self.heads))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, HW, C / heads]
        attended = self.out(attend(query, key, value).transpose(1, 2).flatten(2))
        return x + attended.transpose(1, 2).unflatten(2, (height, width))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V for [..., N, d] each.

    PyTorch's fused attention, except in bfloat16 on a CPU: there it takes two to four times as long as the
    three operations it replaces (measured with torch 2.15 on AVX512 with bf16), and they are written out.
    """
    if query.dtype == torch.bfloat16 and query.device.type == "cpu":
        return (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value)
