"""Group normalisation as the networks use it: followed by SiLU, told a scale and shift, or by itself."""

from __future__ import annotations

from torch import Tensor, nn

from genbench.ops.group_norm_silu import group_norm_silu

NORM_EPSILON = 1e-6
"""Added to the variance in group normalisation: the reference code's value, not PyTorch's 1e-5."""


class GroupNorm(nn.GroupNorm):
    """PyTorch's layer, with what follows it in one step; [B, channels, H, W] to the same shape.

    forward(x, scale, shift) is silu(norm(x) (1 + scale) + shift), scale and shift [B, channels]; without them
    silu(norm(x)); and without silu where `activate` is false. Parameters are those of PyTorch's layer.
    """

    def __init__(self, groups: int, channels: int, activate: bool) -> None:
        super().__init__(groups, channels, eps=NORM_EPSILON)
        self.activate = activate

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return group_norm_silu(
            x, self.num_groups, self.weight, self.bias, self.eps, scale, shift, self.activate
        )


def group_norm(channels: int, groups: int, *, activate: bool) -> GroupNorm:
    """Group normalisation with the most groups that are no more than `groups` and divide `channels`."""
    divisor = next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)
    return GroupNorm(divisor, channels, activate)
