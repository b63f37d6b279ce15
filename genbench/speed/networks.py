"""Networks of one size: ours, and other suites'. A network takes (x [B, 3, 32, 32], time int64 [B])."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.normalisation import NORM_EPSILON
from genbench.networks.unet import UNet

IMAGE_SHAPE = (3, 32, 32)
MULTIPLIERS = (1, 2, 2)
ATTENTION = 16


@dataclass(frozen=True)
class Peer:
    """A network to time: `build()` gives a module of (x, time) -> x's shape."""

    name: str
    build: Callable[[], nn.Module]


def small_unet(side: int = 32, channels: int = 64) -> UNet:
    """The network of `network=unet_small`: 64 channels, multipliers 1-2-2, two blocks, attention at half the
    side, 6.5 M parameters. It starts as zero, as all ours do; see `randomised`.
    """
    shape = (IMAGE_SHAPE[0], side, side)
    return UNet(shape, channels=channels, multipliers=MULTIPLIERS, attention=(side // 2,))


def ours() -> Peer:
    """The small U-Net as a contestant."""
    return Peer("genbench", small_unet)


def randomised(network: nn.Module) -> nn.Module:
    """`network` with small random numbers in every parameter that starts at zero, in evaluation mode.

    A network that says nothing would leave a comparison of two nothing to disagree about.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


class Diffusers(nn.Module):
    """diffusers' UNet2DModel with the layers of `small_unet`; it answers with a tensor, not an object."""

    def __init__(self, diffusers: ModuleType, channels: int = 64) -> None:
        super().__init__()
        plain, attending = "{}Block2D", "Attn{}Block2D"
        widths = tuple(channels * each for each in MULTIPLIERS)
        self.network = diffusers.UNet2DModel(
            sample_size=32,
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=tuple(kind.format("Down") for kind in (plain, attending, plain)),
            up_block_types=tuple(kind.format("Up") for kind in (plain, attending, plain)),
            attention_head_dim=widths[-1],
            dropout=0.1,
            norm_eps=NORM_EPSILON,
            freq_shift=1,
            flip_sin_to_cos=False,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.network(x, time, return_dict=False)[0]
        return out

    def take(self, network: UNet) -> Diffusers:
        """Itself with the weights of our network, so that both are the same function."""
        with torch.no_grad():
            for theirs, weights in _pairs(self.network, network):
                for mine, tensor in zip(theirs.parameters(), weights, strict=True):
                    mine.copy_(tensor.reshape(mine.shape))
        return self


def _pairs(theirs: Any, ours: Any) -> Iterator[tuple[nn.Module, list[Tensor]]]:
    """Their layers, each with our tensors for it."""

    def own(module: nn.Module) -> list[Tensor]:
        return list(module.parameters(recurse=False))

    first, _, second = ours.time
    yield theirs.time_embedding.linear_1, own(first)
    yield theirs.time_embedding.linear_2, own(second)
    yield theirs.conv_in, own(ours.stem)
    yield theirs.conv_norm_out, own(ours.norm)
    yield theirs.conv_out, own(ours.out)
    told = iter(
        zip(
            ours.condition.weight.split(ours.condition_widths),
            ours.condition.bias.split(ours.condition_widths),
            strict=True,
        )
    )

    def block(resnet: Any, attention: Any | None, mine: Any) -> Iterator[Any]:
        yield resnet.norm1, own(mine.norm_in)
        yield resnet.conv1, own(mine.conv_in)
        yield resnet.time_emb_proj, list(next(told))
        yield resnet.norm2, own(mine.norm_out)
        yield resnet.conv2, own(mine.conv_out)
        if resnet.conv_shortcut is not None:
            yield resnet.conv_shortcut, own(mine.shortcut)
        if attention is not None:
            inner = mine.attention
            yield attention.group_norm, own(inner.norm)
            weights, biases = inner.query_key_value.weight.chunk(3), inner.query_key_value.bias.chunk(3)
            parts = (attention.to_q, attention.to_k, attention.to_v)
            yield from zip(parts, map(list, zip(weights, biases, strict=True)), strict=True)
            yield attention.to_out[0], own(inner.out)

    def blocks(level: Any, mine: Any) -> Iterator[Any]:
        attentions = getattr(level, "attentions", [None] * len(mine))
        for resnet, attention, each in zip(level.resnets, attentions, mine, strict=True):
            yield from block(resnet, attention, each)

    # In the order in which our blocks are called, since `told` is.
    for level, down in zip(theirs.down_blocks, ours.down, strict=True):
        yield from blocks(level, down.blocks)
        if level.downsamplers is not None:
            yield level.downsamplers[0].conv, own(down.downsample)
    middle = theirs.mid_block
    yield from block(middle.resnets[0], middle.attentions[0], ours.middle[0])
    yield from block(middle.resnets[1], None, ours.middle[1])
    for level, up in zip(theirs.up_blocks, ours.up, strict=True):
        yield from blocks(level, up.blocks)
        if level.upsamplers is not None:
            yield level.upsamplers[0].conv, own(up.upsample)


def lucidrains(package: ModuleType) -> nn.Module:
    """denoising_diffusion_pytorch's U-Net of about that size."""
    network: nn.Module = package.Unet(
        dim=64, dim_mults=MULTIPLIERS, dropout=0.1, flash_attn=True, full_attn=(False, True, False)
    )
    return network


KNOWN: dict[str, Callable[[ModuleType], nn.Module]] = {
    "diffusers": Diffusers,
    "denoising_diffusion_pytorch": lucidrains,
}
"""How each package of the `peers` extra builds its network."""


def imported_peer(path: str) -> Peer:
    """A peer by its import path, `package.module:builder`; it is called after its package.

    UserError where there is no such thing.
    """
    module, _, builder = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), builder)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no peer at {path!r} ({error}): expected package.module:function, where function() builds a "
            f"network of (x, time), and the package on PYTHONPATH"
        ) from error
    return Peer(module.partition(".")[0], build)
