"""The U-Net against the published size, a plain rewriting of its formulas, and its own promises."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.attention import Attention
from genbench.networks.unet import ResidualBlock, UNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shaken(network: UNet) -> UNet:
    """`network` with noise on all parameters, so that what starts at zero takes part."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def small(**changes: object) -> UNet:
    settings: dict[str, object] = {
        "image_shape": (2, 8, 8),
        "channels": 12,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (4,),
        "dropout": 0.0,
        "groups": 4,
    }
    return shaken(UNet(**{**settings, **changes}))


def inputs(network: UNet, batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(batch, *network.image_shape), torch.linspace(0, 999, batch)


# --------------------------------------------------------------------- the network, written out plainly


def plain_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    grouped = x.reshape(x.shape[0], norm.num_groups, -1)
    variance = grouped.var(dim=2, correction=0, keepdim=True)
    normal = ((grouped - grouped.mean(dim=2, keepdim=True)) / (variance + 1e-6).sqrt()).view_as(x)
    return normal * norm.weight[:, None, None] + norm.bias[:, None, None]


def swish(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def plain_attention(layer: Attention, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    tokens = plain_norm(layer.norm, x).reshape(batch, channels, -1)
    weights, biases = layer.query_key_value.weight.chunk(3), layer.query_key_value.bias.chunk(3)
    query, key, value = (
        torch.einsum("oc,bcn->bon", weight, tokens) + bias[:, None] for weight, bias in zip(weights, biases)
    )
    out, size = [], channels // layer.heads
    for head in range(layer.heads):
        q, k, v = (each[:, head * size : (head + 1) * size] for each in (query, key, value))
        attention = (torch.einsum("bcn,bcm->bnm", q, k) / math.sqrt(size)).softmax(dim=2)
        out.append(torch.einsum("bnm,bcm->bcn", attention, v))
    projected = torch.einsum("oc,bcn->bon", layer.out.weight, torch.cat(out, 1)) + layer.out.bias[:, None]
    return x + projected.view(batch, channels, height, width)


def plain_block(block: ResidualBlock, x: Tensor, told: Tensor) -> Tensor:
    told = told[:, :, None, None]
    h = F.conv2d(swish(plain_norm(block.norm_in, x)), block.conv_in.weight, block.conv_in.bias, padding=1)
    if block.scale_shift:
        channels = h.shape[1]
        h = plain_norm(block.norm_out, h) * (1 + told[:, :channels]) + told[:, channels:]
    else:
        h = plain_norm(block.norm_out, h + told)
    h = F.conv2d(swish(h), block.conv_out.weight, block.conv_out.bias, padding=1)
    h = h + (x if isinstance(block.shortcut, nn.Identity) else block.shortcut(x))
    return plain_attention(block.attention, h) if isinstance(block.attention, Attention) else h


def plain(network: UNet, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
    half = network.channels // 2
    frequencies = torch.tensor([10_000 ** (-k / (half - 1)) for k in range(half)], dtype=x.dtype)
    angles = time[:, None] * frequencies
    first, _, second = network.time
    embedded = second(swish(first(torch.cat((angles.sin(), angles.cos()), 1))))
    if network.label is not None:
        row = network.label.weight[-1] if labels is None else network.label.weight[labels]
        embedded = embedded + row
    told = list(network.condition(swish(embedded)).split(network.condition_widths, dim=1))

    h = network.stem(x)
    skips = [h]
    for level in network.down:
        for block in level.blocks:
            h = plain_block(block, h, told.pop(0))
            skips.append(h)
        if level.downsample is not None:
            h = F.conv2d(h, level.downsample.weight, level.downsample.bias, stride=2, padding=1)
            skips.append(h)
    for block in network.middle:
        h = plain_block(block, h, told.pop(0))
    for level in network.up:
        for block in level.blocks:
            h = plain_block(block, torch.cat((h, skips.pop()), 1), told.pop(0))
        if level.upsample is not None:
            h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            h = F.conv2d(h, level.upsample.weight, level.upsample.bias, padding=1)
    assert not skips
    assert not told
    return network.out(swish(plain_norm(network.norm, h)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale_shift": True, "heads": 3, "attention": (8, 4)},
        {"multipliers": (1, 2, 3), "blocks": 2, "attention": ()},
        {"classes": 5, "out_channels": 4},
    ],
)
def test_it_computes_what_its_formulas_say(changes: dict[str, object]) -> None:
    network = small(**changes).double()
    # The sinusoids are float32 by design; small times keep their rounding out of the comparison.
    x, time = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.tensor([0.0, 1.0, 3.0])
    labels = torch.tensor([0, 4, 2]) if network.classes else None
    expected = plain(network, x, time.double(), labels)
    network.time.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    torch.testing.assert_close(network(x, time, labels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_precision_and_memory_order_change_only_the_rounding(autocast: bool) -> None:
    network = small(attention=(8, 4))
    x, time = inputs(network)
    expected = plain(network, x, time)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = network(x, time)
        again = network(x.to(memory_format=torch.channels_last), time)
    assert out.dtype == torch.float32
    scale, error = expected.detach().std(), (out - expected).detach().std()
    assert error < (2e-2 if autocast else 1e-5) * scale
    assert torch.equal(out, again)
    assert out.is_contiguous()


# ------------------------------------------------------------------------------------- size and beginning


def test_the_published_network_has_its_published_size() -> None:
    assert count(UNet((3, 32, 32))) == 35_746_307


def test_improved_ddpm_has_its_layers() -> None:
    """Nichol & Dhariwal (2021) for 3x32x32 images: conf/network/unet_improved.yaml, layer by layer."""
    layer = lambda inputs, outputs, size=3: inputs * outputs * size**2 + outputs
    attention = lambda c: 2 * c + layer(c, 3 * c, 1) + layer(c, c, 1)
    block = lambda c, d: (
        2 * c + layer(c, d) + layer(512, 2 * d, 1) + 2 * d + layer(d, d) + (c != d) * layer(c, d, 1)
    )
    down = 3 * block(128, 128) + layer(128, 128)
    down += block(128, 256) + 2 * block(256, 256) + 3 * attention(256) + layer(256, 256)
    down += 3 * (block(256, 256) + attention(256)) + layer(256, 256) + 3 * block(256, 256)
    middle = 2 * block(256, 256) + attention(256)
    up = 4 * block(512, 256) + layer(256, 256)
    up += 4 * (block(512, 256) + attention(256)) + layer(256, 256)
    up += 3 * block(512, 256) + block(384, 256) + 4 * attention(256) + layer(256, 256)
    up += block(384, 128) + 3 * block(256, 128)
    ends = layer(128, 512, 1) + layer(512, 512, 1) + layer(3, 128) + 2 * 128 + layer(128, 6)
    with torch.device("meta"):
        network = UNet(
            (3, 32, 32), blocks=3, attention=(16, 8), heads=4, scale_shift=True, dropout=0.3, out_channels=6
        )
    assert count(network) == down + middle + up + ends == 52_546_438


def test_it_starts_at_zero_so_that_the_loss_starts_at_one() -> None:
    network = UNet((3, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(4,))
    assert torch.count_nonzero(network(*inputs(network))) == 0


def test_residual_branches_start_as_nothing() -> None:
    network = UNet((3, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(8, 4))
    for block in (module for module in network.modules() if isinstance(module, ResidualBlock)):
        x = torch.randn(2, block.conv_in.in_channels, 8, 8)
        assert torch.equal(block(x, torch.randn(2, block.condition_width)), block.shortcut(x))


def test_layers_side_by_side_are_drawn_as_if_apart() -> None:
    torch.manual_seed(0)
    network = UNet((3, 16, 16), channels=64, multipliers=(1, 2), blocks=1, attention=(8,))
    for weight in network.condition.weight.split(network.condition_widths):
        bound = math.sqrt(6 / (256 + weight.shape[0]))
        assert 0.99 * bound < float(weight.detach().abs().max()) <= bound
    query, key, value = network.down[1].blocks[0].attention.query_key_value.weight.detach().chunk(3)
    for weight in (query, key, value):
        assert 0.99 * math.sqrt(6 / 256) < float(weight.abs().max()) <= math.sqrt(6 / 256)
    stem = network.stem.weight.detach()
    assert float(stem.std()) == pytest.approx(math.sqrt(2 / (27 + 9 * 64)), rel=0.05)


def test_every_parameter_is_used() -> None:
    network = small(classes=3)
    x, time = inputs(network)
    network(x, time, torch.tensor([0, 1, -1])).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_scale_and_shift_start_as_plain_normalisation_and_learn_at_once() -> None:
    network = UNet(
        (1, 4, 4),
        channels=8,
        multipliers=(1,),
        blocks=1,
        attention=(),
        dropout=0.0,
        scale_shift=True,
        classes=3,
    )
    block = network.down[0].blocks[0]
    nn.init.normal_(block.conv_out.weight)
    nn.init.normal_(network.out.weight)
    x = torch.randn(2, 1, 4, 4)
    outs = [network(x, torch.full((2,), t), torch.full((2,), c)) for t in (0.0, 900.0) for c in (-1, 0, 2)]
    assert all(torch.equal(outs[0], out) for out in outs)
    sum(out.square().sum() for out in outs).backward()
    assert network.condition.weight.grad[: block.condition_width].abs().max() > 0


# ---------------------------------------------------------------------------------- time, labels, images


def test_time_is_scaled_before_it_is_embedded() -> None:
    network, scaled = small(), small(time_scale=250.0)
    scaled.load_state_dict(network.state_dict())
    x, time = inputs(network)
    assert torch.equal(scaled(x, time / 1000), network(x, 250 * (time / 1000)))
    assert not torch.allclose(scaled(x, time / 1000), network(x, time / 1000), atol=1e-3)


def test_time_may_be_of_any_dtype() -> None:
    network = small()
    x, _ = inputs(network)
    outs = [
        network(x, torch.tensor([0, 10, 999], dtype=d)) for d in (torch.int64, torch.float32, torch.float64)
    ]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_minus_one_is_no_label_and_labels_matter() -> None:
    network = small(classes=4)
    x, time = inputs(network)
    without = network(x, time)
    assert torch.equal(without, network(x, time, torch.full((3,), -1)))
    mixed = network(x, time, torch.tensor([-1, 0, 3]))
    torch.testing.assert_close(mixed[0], without[0])
    assert not torch.allclose(mixed[1], without[1], atol=1e-3)
    assert not torch.allclose(network(x, time, torch.tensor([-1, 3, 0]))[1:], mixed[1:], atol=1e-3)


def test_labels_for_a_network_without_classes_are_refused() -> None:
    network = small()
    x, time = inputs(network)
    with pytest.raises(UserError, match=r"network\.classes"):
        network(x, time, torch.zeros(3, dtype=torch.int64))


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = small(attention=(8, 4)).eval()
    x, time = inputs(network, batch=5)
    together = network(x, time)
    for i in range(5):
        torch.testing.assert_close(
            network(x[i : i + 1], time[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("size", "padded_size", "top"), [((7, 7), (8, 8), 0), ((6, 8), (8, 8), 1), ((5, 11), (8, 12), 1)]
)
def test_padding_is_zeros_around_the_image_and_is_cropped(
    size: tuple[int, int], padded_size: tuple[int, int], top: int
) -> None:
    network = small(image_shape=(2, *size), multipliers=(1, 2, 2), attention=())
    x, time = inputs(network)
    padded = torch.zeros(3, 2, *padded_size)
    rows, columns = slice(top, top + size[0]), slice(0, size[1])
    padded[:, :, rows, columns] = x
    expected = plain(network, padded, time)[:, :, rows, columns]
    torch.testing.assert_close(network(x, time), expected, rtol=1e-4, atol=1e-4)


def test_28_pixels_become_32_only_where_halving_demands_it() -> None:
    assert UNet((1, 28, 28), 8, (1, 1, 1, 1), 1, attention=(16,)).padding == (2, 2, 2, 2)
    assert UNet((1, 28, 28), 8, (1, 1, 1), 1, attention=(14,)).padding == (0, 0, 0, 0)


# ------------------------------------------------------------------------------------ settings and mistakes


@pytest.mark.parametrize(("channels", "groups"), [(1, 32), (6, 4), (20, 32), (7, 3)])
def test_any_number_of_channels_finds_groups(channels: int, groups: int) -> None:
    network = UNet((1, 4, 4), channels=channels, multipliers=(1, 3), blocks=1, attention=(), groups=groups)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        divisors = [d for d in range(1, groups + 1) if norm.num_channels % d == 0]
        assert norm.num_groups == max(divisors)
    assert network(torch.randn(2, 1, 4, 4), torch.zeros(2)).shape == (2, 1, 4, 4)


def test_attention_where_there_is_no_such_level_is_refused() -> None:
    with pytest.raises(UserError, match=r"\[16\].*\[8, 4\]"):
        UNet((1, 8, 8), channels=8, multipliers=(1, 2))
    with pytest.raises(UserError, match=r"heads"):
        UNet((1, 8, 8), channels=8, multipliers=(1, 2), attention=(4,), heads=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_channels_last_in_float32_only(channels: int) -> None:
    network = small(image_shape=(channels, 8, 8), attention=(8, 4))
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, ResidualBlock):
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


def test_it_runs_where_there_is_no_cpu() -> None:
    network = small(classes=3, dropout=0.1).to("meta")
    x, time = torch.empty(2, 2, 8, 8, device="meta"), torch.empty(2, device="meta")
    assert network(x, time, torch.zeros(2, dtype=torch.int64, device="meta")).shape == (2, 2, 8, 8)
