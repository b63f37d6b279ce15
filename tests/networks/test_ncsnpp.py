"""DDPM++ and NCSN++ against their sizes, a plain rewriting of their formulas, and their own promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.embedding import Fourier, Positional
from genbench.networks.fir import Down
from genbench.networks.ncsnpp import NCSNpp, ResamplingBlock

BINOMIAL = (1, 3, 3, 1)


def shaken(network: NCSNpp) -> NCSNpp:
    """`network` with noise on all parameters, so that what starts at zero takes part."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def fresh(**changes: object) -> NCSNpp:
    settings: dict[str, object] = {
        "image_shape": (2, 8, 8),
        "channels": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (4,),
        "dropout": 0.0,
        "groups": 4,
    }
    torch.manual_seed(0)
    return NCSNpp(**{**settings, **changes})


def small(**changes: object) -> NCSNpp:
    return shaken(fresh(**changes))


def inputs(network: NCSNpp, batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(batch, *network.image_shape), torch.linspace(-2, 2, batch)


# --------------------------------------------------------------------- the network, written out plainly


def enlarged(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    kernel = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    for axis in (2, 3):
        zeros = torch.zeros_like(x)
        x = torch.stack((x, zeros), dim=axis + 1).flatten(axis, axis + 1)
        x = 2 * along(x, kernel, axis, before=len(taps) // 2, after=len(taps) // 2 - 1)
    return x


def reduced(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    kernel = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    pad = len(taps) // 2 - 1
    return along(along(x, kernel, 2, pad, pad)[:, :, ::2], kernel, 3, pad, pad)[:, :, :, ::2]


def along(x: Tensor, kernel: Tensor, axis: int, before: int, after: int) -> Tensor:
    """`x` padded by zeros and filtered along `axis`."""
    padded = F.pad(x, (before, after, 0, 0) if axis == 3 else (0, 0, before, after))
    return (padded.unfold(axis, len(kernel), 1) * kernel).sum(dim=-1)


def activated(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    normal = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, eps=1e-6)
    return normal * torch.sigmoid(normal)


def plain_block(block: ResamplingBlock, x: Tensor, told: Tensor, r: float, move: object = None) -> Tensor:
    h = activated(block.norm_in, x)
    if callable(move):
        h, x = move(h), move(x)
    h = F.conv2d(h, block.conv_in.weight, block.conv_in.bias, padding=1) + told[:, :, None, None]
    h = F.conv2d(activated(block.norm_out, h), block.conv_out.weight, block.conv_out.bias, padding=1)
    if isinstance(block.shortcut, nn.Conv2d):
        x = F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    h = r * (x + h)
    if block.attention is None:
        return h
    layer, (batch, channels, height, width) = block.attention, h.shape
    norm = layer.norm
    tokens = F.group_norm(h, norm.num_groups, norm.weight, norm.bias, eps=1e-6).flatten(2).mT
    tied = layer.query_key_value
    query, key, value = (
        tokens @ weight.T + bias for weight, bias in zip(tied.weight.chunk(3), tied.bias.chunk(3))
    )
    attended = (query @ key.mT / math.sqrt(channels)).softmax(dim=2) @ value
    projected = attended @ layer.out.weight.T + layer.out.bias
    return r * (h + projected.mT.reshape(batch, channels, height, width))


def plain(
    network: NCSNpp, x: Tensor, embedded: Tensor, taps: tuple[int, ...], r: float, label: Tensor | float = 0.0
) -> Tensor:
    first, _, second = network.time
    told = second(F.silu(first(embedded))) + label
    told = list(network.condition(F.silu(told)).split(network.condition_widths, dim=1))
    half, twice = (lambda h: reduced(h, taps)), (lambda h: enlarged(h, taps))
    h, image = network.stem(x), x
    skips = [h]
    for level in network.down:
        for block in level.blocks:
            h = plain_block(block, h, told.pop(0), r)
            skips.append(h)
        if level.shrink is not None:
            h = plain_block(level.shrink, h, told.pop(0), r, half)
            if level.image is not None:
                kernel = torch.tensor(taps, dtype=x.dtype) / sum(taps)
                wide = len(taps) // 2
                filtered = along(along(image, kernel, 2, wide, wide), kernel, 3, wide, wide)
                conv = level.image.conv
                h = image = r * (h + F.conv2d(filtered, conv.weight, conv.bias, stride=2))
            skips.append(h)
    for block in network.middle:
        h = plain_block(block, h, told.pop(0), r)
    for level in network.up:
        for block in level.blocks:
            h = plain_block(block, torch.cat((h, skips.pop()), 1), told.pop(0), r)
        if level.enlarge is not None:
            h = plain_block(level.enlarge, h, told.pop(0), r, twice)
    assert not skips
    assert not told
    return F.conv2d(activated(network.norm, h), network.out.weight, network.out.bias, padding=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"taps": BINOMIAL, "progressive_input": True, "multipliers": (1, 2, 2)},
        {"skip_rescale": False, "progressive_input": True, "attention": (8, 4), "out_channels": 4},
        {"blocks": 2, "classes": 5, "augment_features": 9, "attention": ()},
    ],
)
def test_it_computes_what_its_formulas_say(changes: dict[str, object]) -> None:
    embedding = Fourier(6, scale=1.0) if "taps" in changes else Positional(8)
    network = small(embedding=embedding, **changes).double()
    # The kernels are float32 numbers; small integers over powers of two are exact in it.
    x, _ = inputs(network)
    x, time = x.double(), torch.tensor([0.0, 1.0, -0.5])
    embedded, label, kinds, augment = embedding(time).double(), 0.0, None, None
    if network.classes:
        kinds, augment = torch.tensor([0, 4, 2]), torch.randn(3, 9, dtype=torch.float64)
        embedded = embedded + augment @ network.augment.weight.T
        label = network.label.weight[kinds]
    r = 1.0 if "skip_rescale" in changes else math.sqrt(0.5)
    expected = plain(network, x, embedded, changes.get("taps", (1, 1)), r, label)
    embedding.register_forward_hook(lambda _, args, out: out.double())
    torch.testing.assert_close(network(x, time, kinds, augment), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("taps", [(1, 1), BINOMIAL])
def test_precision_and_memory_order_change_only_the_rounding(taps: tuple[int, ...]) -> None:
    network = small(taps=taps, progressive_input=True)
    x, time = inputs(network)
    exact = network(x, time)
    assert torch.equal(exact, network(x.to(memory_format=torch.channels_last), time))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x, time)
    assert rounded.dtype == torch.float32
    assert rounded.is_contiguous()
    assert (rounded - exact).std() < 3e-2 * exact.std()


# ------------------------------------------------------------------------------------ sizes and beginning


def convolution(channels: int, out_channels: int, size: int = 3) -> int:
    return channels * out_channels * size**2 + out_channels


def linear(features: int, out_features: int) -> int:
    return convolution(features, out_features, 1)


def block(channels: int, out_channels: int, told: int, shortcut: bool = False) -> int:
    norms = 2 * channels + 2 * out_channels
    convolutions = convolution(channels, out_channels) + convolution(out_channels, out_channels)
    shortcut = shortcut or channels != out_channels
    return norms + convolutions + linear(told, out_channels) + shortcut * linear(channels, out_channels)


def attention(channels: int) -> int:
    return 2 * channels + linear(channels, 3 * channels) + linear(channels, channels)


def listed(
    multipliers: tuple[int, ...], blocks: int, embedded: int = 128, augment: int = 0, pyramid: bool = False
) -> int:
    """Parameters of the network for 3x32x32 images with 128 channels and attention at 16, layer by layer."""
    told, widths = 512, [128 * multiplier for multiplier in multipliers]
    total = augment * embedded + linear(embedded, told) + linear(told, told) + convolution(3, 128)
    current, image, skips = 128, 3, [128]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            total += block(current, width, told) + (32 >> level == 16) * attention(width)
            current = width
            skips.append(width)
        if level < len(widths) - 1:
            total += block(width, width, told, shortcut=True) + pyramid * convolution(image, width)
            image = width
            skips.append(width)
    total += 2 * block(current, current, told) + attention(current)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            total += block(current + skips.pop(), width, told)
            current = width
        total += (32 >> level == 16) * attention(width) + (level > 0) * block(width, width, told, True)
    return total + 2 * current + convolution(current, 3)


@pytest.mark.parametrize(
    ("settings", "layers", "size"),
    [
        ({}, {"multipliers": (1, 2, 2, 2), "blocks": 4}, 61_804_419),
        ({"blocks": 8}, {"multipliers": (1, 2, 2, 2), "blocks": 8}, 106_632_579),
        (
            {"taps": BINOMIAL, "progressive_input": True},
            {"multipliers": (1, 2, 2, 2), "blocks": 4, "embedded": 256, "pyramid": True},
            62_758_787,
        ),
        (
            {"multipliers": (2, 2, 2), "augment_features": 9},
            {"multipliers": (2, 2, 2), "blocks": 4, "augment": 9},
            55_733_891,
        ),
    ],
)
def test_the_published_networks_have_their_layers(
    settings: dict[str, object], layers: dict[str, object], size: int
) -> None:
    """DDPM++, its deep version, NCSN++, and EDM's DDPM++."""
    with torch.device("meta"):
        embedding = Fourier(256) if "taps" in settings else None
        network = NCSNpp((3, 32, 32), embedding=embedding, **settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == listed(**layers) == size


@pytest.mark.parametrize(
    ("name", "size"), [("ddpmpp", 61_804_419), ("ncsnpp", 62_758_787), ("unet_improved", 52_542_979)]
)
def test_the_configured_networks_are_the_published_ones(
    compose: Callable[..., dict[str, Any]], name: str, size: int
) -> None:
    with torch.device("meta"):
        network = instantiate(compose("model=ddpm", "dataset=cifar10", f"network={name}")["model"]["network"])
    assert sum(parameter.numel() for parameter in network.parameters()) == size


@pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_the_configured_networks_fit_small_images(
    compose: Callable[..., dict[str, Any]], name: str, dataset: str
) -> None:
    settings = compose("model=ddpm", f"dataset={dataset}", f"network={name}", "conditional=true")
    with torch.device("meta"):
        network = instantiate(settings["model"]["network"])
        x, time, labels = torch.empty(2, *network.image_shape), torch.empty(2), torch.tensor([0, 9])
        assert network(x, time, labels).shape == x.shape


def test_it_starts_at_zero_whatever_it_is_told() -> None:
    network = fresh(classes=3, augment_features=9, progressive_input=True)
    x, time = inputs(network)
    out = network(x, time, torch.tensor([0, 1, -1]), torch.randn(3, 9))
    assert torch.count_nonzero(out) == 0


def test_a_block_starts_as_its_shortcut_rescaled() -> None:
    network = fresh(attention=(8, 4), progressive_input=True)
    blocks = [module for module in network.modules() if isinstance(module, ResamplingBlock)]
    for each in blocks:
        x = torch.randn(2, each.conv_in.in_channels, 8, 8)
        scale = 0.5 if each.attention is not None else math.sqrt(0.5)
        expected = scale * each.shortcut(each.resample(x))
        out = each(x, torch.randn(2, each.condition_width))
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rescale", [math.sqrt(0.5), 1.0])
def test_rescaling_keeps_the_variance_of_a_sum_and_nothing_else_does(rescale: float) -> None:
    """With branches of variance b each block maps v to r^2 (v + b): b is kept by r^2 = 1/2, not by r = 1.

    E silu(z)^2 = .3557 for standard normal z; dividing the branch's last layer by its root makes b one, but
    for the zeros at the border of 16x16 images, which leave b = (46 / 48)^2 = .918.
    """
    torch.manual_seed(0)
    z, depth = torch.randn(4, 32, 16, 16), 16
    for _ in range(depth):
        each = ResamplingBlock(32, 32, dropout=0.0, groups=8, heads=1, attend=False, rescale=rescale)
        nn.init.normal_(each.conv_out.weight, std=math.sqrt(1 / (9 * 32 * 0.3557)))
        z = each(z, torch.zeros(4, 32)).detach()
    variance = float(z.var())
    if rescale == 1.0:
        assert variance > 10
    else:
        assert 0.8 < variance < 1.05


def test_every_parameter_is_used() -> None:
    network = small(classes=3, augment_features=9, progressive_input=True, embedding=Fourier(8))
    x, time = inputs(network)
    network(x, time, torch.tensor([0, 1, -1]), torch.randn(3, 9)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_no_parameter_is_left_out_of_a_step_without_augmentation() -> None:
    network = small(augment_features=9)
    network(*inputs(network)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# -------------------------------------------------------------------------------------- what it is told


def test_labels_and_augmentation_reach_the_output() -> None:
    network = small(classes=4, augment_features=9)
    x, time = inputs(network)
    without = network(x, time)
    assert torch.equal(without, network(x, time, torch.full((3,), -1), torch.zeros(3, 9)))
    mixed = network(x, time, torch.tensor([-1, 0, 3]))
    torch.testing.assert_close(mixed[0], without[0])
    assert not torch.allclose(mixed[1], without[1], atol=1e-3)
    for feature in range(9):
        moved = torch.zeros(3, 9)
        moved[1:, feature] = 1.0
        told = network(x, time, augment=moved)
        torch.testing.assert_close(told[0], without[0])
        assert not torch.allclose(told[1], without[1], atol=1e-3)


def test_what_it_has_no_place_for_is_refused() -> None:
    network = small()
    x, time = inputs(network)
    with pytest.raises(UserError, match=r"network\.classes"):
        network(x, time, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"network\.augment_features=9"):
        network(x, time, augment=torch.zeros(3, 9))
    with pytest.raises(UserError, match=r"\[16\].*\[8, 4\]"):
        fresh(attention=(16,))


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = small(taps=BINOMIAL, progressive_input=True).eval()
    x, time = inputs(network, batch=4)
    together = network(x, time)
    for i in range(4):
        alone = network(x[i : i + 1], time[i : i + 1])[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------- sizes and devices


@pytest.mark.parametrize(
    ("size", "attend"), [((8, 8), 4), ((28, 28), 16), ((32, 32), 16), ((7, 7), 4), ((12, 18), 8)]
)
def test_images_of_all_sizes_come_out_as_they_went_in(size: tuple[int, int], attend: int) -> None:
    multipliers = (1, 1, 1, 1) if max(size) > 8 else (1, 1, 1)
    network = fresh(
        image_shape=(1, *size),
        channels=4,
        multipliers=multipliers,
        attention=(attend,),
        taps=BINOMIAL,
        progressive_input=True,
        out_channels=2,
    )
    x, time = inputs(network, batch=2)
    assert network(x, time).shape == (2, 2, *size)


def test_padding_is_zeros_around_the_image_and_is_cropped() -> None:
    network = small(image_shape=(2, 6, 7), multipliers=(1, 2, 2), attention=(), progressive_input=True)
    x, time = inputs(network)
    padded = F.pad(x, (0, 1, 1, 1))
    expected = plain(network, padded, network.embedding(time), (1, 1), math.sqrt(0.5))[:, :, 1:7, :7]
    torch.testing.assert_close(network(x, time), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_channels_last_in_float32_only(channels: int) -> None:
    network = small(image_shape=(channels, 8, 8), taps=BINOMIAL, progressive_input=True)
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, ResamplingBlock):
            module.register_forward_hook(
                lambda _, args, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    x, time = inputs(network)
    network(x, time)
    assert all(seen)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        network(x, time)
    assert not any(seen)


def test_groups_have_four_channels_at_least() -> None:
    network = fresh(channels=8, groups=32)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_channels // norm.num_groups for norm in norms} == {4}
    with torch.device("meta"):
        reference = NCSNpp((3, 32, 32))
    norms = [module for module in reference.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}


def test_it_runs_where_there_is_no_cpu() -> None:
    network = small(classes=3, augment_features=9, dropout=0.1, taps=BINOMIAL, progressive_input=True)
    network = network.to("meta")
    x, time = torch.empty(2, 2, 8, 8, device="meta"), torch.empty(2, device="meta")
    assert network(x, time, torch.zeros(2, dtype=torch.int64, device="meta")).shape == (2, 2, 8, 8)


def test_the_filter_is_no_part_of_the_stored_weights() -> None:
    assert not [name for name in fresh(taps=BINOMIAL).state_dict() if "kernel" in name]
    assert list(Down(BINOMIAL).parameters()) == []
