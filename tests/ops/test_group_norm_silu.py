"""Group normalisation, scale and shift, and SiLU: the kernels against the formula, values and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from ahead import Variant, compiled
from torch import Tensor

from genbench.ops.group_norm_silu import group_norm_silu, reference
from genbench.ops.kernels import group_norm_silu as kernels
from genbench.ops.kernels.group_norm_silu import LARGEST, backward, forward, plan

EPSILON = 1e-6
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7}
"""Of the largest value: sums in another order, and one unit in the last place (the interpreter truncates)."""


def plainly(x: Tensor, groups: int, told: dict[str, Tensor | None], activate: bool = True) -> Tensor:
    """The formula, in float64."""
    batch, channels = x.shape[:2]
    rows = x.double().reshape(batch, groups, -1)
    normal = (rows - rows.mean(dim=2, keepdim=True)) / (
        rows.var(dim=2, correction=0, keepdim=True) + EPSILON
    ).sqrt()
    factor = 1 if told["scale"] is None else 1 + told["scale"].double()[..., None]
    y = (
        normal.reshape(batch, channels, -1) * told["weight"].double()[:, None]
        + told["bias"].double()[:, None]
    )
    y = y * factor + (0 if told["shift"] is None else told["shift"].double()[..., None])
    return (y * torch.sigmoid(y) if activate else y).reshape(x.shape)


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, scaled: bool = True, last: bool = False
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """x, not centred, and all that it is told; scale and shift lie inside a wider matrix, as networks' do."""
    torch.manual_seed(0)
    batch, channels = shape[:2]
    x = (2 * torch.randn(shape) + 3).to(dtype)
    told = torch.randn(batch, 2 * channels + 3).chunk(2, dim=1)
    return x.to(memory_format=torch.channels_last) if last else x, {
        "weight": 1 + 0.5 * torch.randn(channels),
        "bias": torch.randn(channels),
        "scale": told[0][:, :channels].to(dtype) if scaled else None,
        "shift": told[1][:, :channels].to(dtype) if scaled else None,
    }


def fused(x: Tensor, groups: int, told: dict[str, Tensor | None], activate: bool = True) -> Tensor:
    return forward(x, told["weight"], told["bias"], told["scale"], told["shift"], groups, EPSILON, activate)[
        0
    ]


def assert_near(found: Tensor, expected: Tensor, bound: float) -> None:
    assert (found.double() - expected).abs().max() <= bound * expected.abs().max()


CASES = [
    ((2, 12, 5, 7), 4, False),  # three channels a group, padded to four; 35 positions, to 64
    ((2, 12, 5, 7), 4, True),
    ((3, 32, 8, 8), 8, True),  # several groups a program
    ((1, 6, 1, 3), 2, True),
    ((2, 6, 1, 1), 2, False),
    ((2, 3, 11), 1, False),
    ((1, 2, 130, 131), 1, False),  # too large to be kept: read in blocks
    ((1, 8, 95, 97), 2, True),
]


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize(("shape", "groups", "last"), CASES)
def test_kernels_compute_the_formula_and_its_gradients(shape, groups, last, dtype):
    """Gradients to five times the rounding: they are sums of rounded products of rounded values."""
    x, told = inputs(shape, dtype, last=last)
    leaves = [x, *told.values()]
    for leaf in leaves:
        leaf.requires_grad_(True)
    y = fused(x, groups, told)
    assert y.dtype == dtype
    assert y.stride() == x.stride()
    expected = plainly(x, groups, told)
    assert_near(y, expected, ROUNDING[dtype])

    dy = torch.randn(shape).to(dtype)
    found = torch.autograd.grad(y, leaves, dy)
    for mine, wanted in zip(found, torch.autograd.grad(expected, leaves, dy.double()), strict=True):
        assert_near(mine, wanted.double(), 5 * ROUNDING[mine.dtype])


def test_blocks_are_needed_where_the_cases_say_so():
    whole = [plan(s[1], g, s[2:].numel(), last, 4)["WHOLE"] for s, g, last in map(sized, CASES)]
    assert whole == [True] * 6 + [False] * 2


def sized(case: tuple) -> tuple:
    return torch.Size(case[0]), case[1], case[2]


@pytest.mark.parametrize(("scaled", "shifted", "activate"), list(itertools.product([False, True], repeat=3)))
def test_every_part_can_be_left_out(scaled, shifted, activate):
    x, told = inputs((2, 8, 3, 5))
    told = told | {"scale": told["scale"] if scaled else None, "shift": told["shift"] if shifted else None}
    leaves = [each.requires_grad_(True) for each in (x, *told.values()) if each is not None]
    expected = plainly(x, 2, told, activate)
    gradients = torch.autograd.grad(expected.sin().sum(), leaves)
    plain = reference(x, 2, epsilon=EPSILON, activate=activate, **told)
    for y in (fused(x, 2, told, activate), plain):
        assert_near(y, expected, ROUNDING[torch.float32])
        for mine, wanted in zip(torch.autograd.grad(y.sin().sum(), leaves), gradients, strict=True):
            assert_near(mine, wanted, 5 * ROUNDING[torch.float32])


def test_only_what_is_asked_for_has_a_gradient():
    x, told = inputs((2, 8, 3, 5))
    told["scale"].requires_grad_(True)
    fused(x, 2, told).sum().backward()
    assert told["scale"].grad is not None
    assert x.grad is told["weight"].grad is told["shift"].grad is None


def test_the_reference_has_the_gradients_of_its_values():
    torch.manual_seed(0)
    leaves = [torch.randn(s, dtype=torch.float64) for s in ((2, 6, 2, 3), 6, 6, (2, 6), (2, 6))]
    leaves = [leaf.requires_grad_(True) for leaf in leaves]
    run = lambda x, w, v, scale, shift: group_norm_silu(x, 3, w, v, EPSILON, scale, shift)
    assert torch.autograd.gradcheck(run, leaves)


def test_on_a_cpu_it_is_pytorchs_layers_bit_for_bit():
    """So that networks compute there what they always have; also in the order networks did it."""
    for dtype in ROUNDING:
        x, told = inputs((3, 8, 4, 4), dtype)
        normal = F.group_norm(x, 2, told["weight"].to(dtype), told["bias"].to(dtype), EPSILON)
        same = told | {"weight": told["weight"].to(dtype), "bias": told["bias"].to(dtype)}
        scale, shift = (told[name][:, :, None, None] for name in ("scale", "shift"))
        expected = F.silu(torch.addcmul(shift, normal, 1 + scale))
        assert torch.equal(group_norm_silu(x, 2, epsilon=EPSILON, **same), expected)
        same |= {"scale": None, "shift": None}
        assert torch.equal(group_norm_silu(x, 2, epsilon=EPSILON, **same), F.silu(normal))


def test_a_large_mean_does_not_drown_the_variance():
    """Mean 1000, deviation 1: sums of squares would keep three digits of the variance, this keeps x's."""
    x, told = inputs((2, 4, 16, 16), scaled=False)
    x = x + 1000
    assert_near(fused(x, 2, told), plainly(x, 2, told), 1e-4)


def test_gradients_can_be_differentiated_again():
    """Energies and gradient penalties train on gradients."""
    x, told = inputs((2, 4, 3, 3))
    leaves = [each.requires_grad_(True) for each in (x, *told.values())]

    def twice(y: Tensor) -> tuple[Tensor, ...]:
        slope = torch.autograd.grad(y.sin().sum(), x, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), leaves)

    for mine, wanted in zip(twice(fused(x, 2, told)), twice(plainly(x, 2, told)), strict=True):
        assert_near(mine, wanted.double(), 2e-5)


def test_the_way_back_keeps_the_input_and_two_numbers_a_group():
    x, told = inputs((2, 8, 16, 16))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused(x.requires_grad_(True), 4, told)
    sizes = sorted(each.numel() for each in kept)
    assert sizes == sorted([x.numel(), 2 * 4, 2 * 4, 8, 8, 2 * 8, 2 * 8])


def test_gradients_are_the_same_bits_whatever_the_batch(monkeypatch):
    """An image's own gradients do not see the others, and sums over images are repeatable."""
    monkeypatch.setattr(kernels, "ROWS", 4)  # so that images are summed in more than one step
    x, told = inputs((6, 4, 2, 2))
    dy = torch.randn(x.shape)
    layer = (told["weight"], told["bias"])
    mean, rstd = forward(x, *layer, told["scale"], told["shift"], 1, EPSILON, True)[1:]

    def gradients(part: slice) -> tuple[Tensor, ...]:
        scale, shift = told["scale"][part], told["shift"][part]
        return backward(dy[part], x[part], *layer, scale, shift, mean[part], rstd[part], True)

    whole, some = gradients(slice(None)), gradients(slice(2, 5))
    for own in (0, 3, 4):
        assert torch.equal(whole[own][2:5], some[own])
    assert all(torch.equal(a, b) for a, b in zip(whole, gradients(slice(None)), strict=True))
    told["weight"].requires_grad_(True)
    expected = torch.autograd.grad(plainly(x, 1, told), told["weight"], dy.double())[0]
    assert_near(whole[1], expected.double(), 5 * ROUNDING[torch.float32])


# ------------------------------------------------------------------------------------------- as compiled

KERNELS = "genbench.ops.kernels.group_norm_silu"
TENSORS = {
    "forward": ("x", "out"),
    "backward": ("dy", "x", "dx"),
}
PARTS = {"forward": ("mean", "rstd"), "backward": ("mean", "rstd", "sums", "products")}


def variant(which: str, kind: str, channels: int, positions: int, last: bool, scaled: bool) -> Variant:
    constants = plan(channels, 32, positions, last, {"fp32": 4, "bf16": 2}[kind])
    warps = constants.pop("num_warps")
    told = ("scale", "shift")
    full = [*TENSORS[which], *(told if scaled else ())]
    sums = ["weight", "bias", *PARTS[which]]
    sizes = ["channels", "positions", "scale_stride", "shift_stride"]
    signature = dict.fromkeys(full, f"*{kind}") | dict.fromkeys(sums, "*fp32")
    signature |= dict.fromkeys(sizes, "i32") | ({"epsilon": "fp32"} if which == "forward" else {})
    constants |= {"SCALED": scaled, "SHIFTED": scaled, "ACTIVATE": True}
    constants |= {} if scaled else dict.fromkeys(told)
    return Variant(f"{KERNELS}:{which}_kernel", signature, constants, [*full, *sums, *sizes], warps)


LIMITS = {"forward": 40, "backward": 50}
"""Instructions an element that is kept; what a way back computes is about twice the way forth."""


def test_compiled_kernels_are_wide_and_spill_nothing():
    """Layers of the CIFAR-10 networks, and one that is read in blocks (whose loops are counted once)."""
    cases = [
        (which, kind, channels, positions, last, scaled)
        for which, kind in itertools.product(TENSORS, ("fp32", "bf16"))
        for channels, positions, last, scaled in [
            (128, 1024, False, True),
            (256, 256, True, False),
            (128, 16_384, True, True),
        ]
    ]
    for case, made in zip(cases, compiled(*[variant(*case) for case in cases]), strict=True):
        which, kind, channels, positions, last, _ = case
        constants = plan(channels, 32, positions, last, {"fp32": 4, "bf16": 2}[kind])
        tile = constants["GROUPS"] * constants["PADDED"] * constants["BLOCK"]
        assert tile <= LARGEST
        assert made.stack == 0, case
        # Every thread writes its share of the image, and reads it of each tensor, 16 bytes at a time;
        # what is narrower are a group's few numbers.
        share = tile // (32 * constants["num_warps"]) * {"fp32": 4, "bf16": 2}[kind] // 16
        assert made.stores.count(16) == share, case
        tensors = len(TENSORS[which]) - 1
        assert made.loads.count(16) >= share * tensors, case
        assert set(made.stores) <= {16, 4}
        if constants["WHOLE"]:
            elements = tile / (32 * constants["num_warps"])
            assert made.instructions <= LIMITS[which] * elements, (case, made.instructions / elements)


@pytest.mark.gpu
@pytest.mark.parametrize("compile_", [False, True])
def test_on_a_gpu_the_kernels_compute_the_formula(compile_):
    run = torch.compile(group_norm_silu, fullgraph=True) if compile_ else group_norm_silu
    for shape, groups, last in CASES:
        x, told = inputs(shape, last=last)
        x, told = x.cuda(), {name: each.cuda() for name, each in told.items()}
        leaves = [each.requires_grad_(True) for each in (x, *told.values())]
        expected = plainly(x, groups, told)
        y = run(x, groups, epsilon=EPSILON, **told)
        assert_near(y, expected, 5e-6)  # exp and division are the GPU's fast ones
        dy = torch.randn_like(x)
        gradients = torch.autograd.grad(expected, leaves, dy.double())
        for mine, wanted in zip(torch.autograd.grad(y, leaves, dy), gradients, strict=True):
            assert_near(mine, wanted.double(), 2e-5)
