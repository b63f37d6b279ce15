"""The fused update in Triton's interpreter against the sum written out, and what it becomes on a GPU."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from ahead import Variant, compiled
from torch import Tensor

from genbench.ops.combine import ONE, Combination, Update
from genbench.ops.kernels import normals as device
from genbench.ops.kernels.combine import MOST, fused, launch, normal, rows
from genbench.ops.random import Keys, Stream, philox

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NUMBER = lambda value: torch.tensor(value, dtype=torch.float64)


def normals_of(keys: Keys, size: int, step: int = 3, stream: Stream = Stream.STEP) -> tuple[Tensor, Tensor]:
    """The reference's normals, float64, and what those of a kernel may be off.

    Of the radius r = sqrt(-2 ln u), float32's u and log make 2^-24 / r and 2^-23 r: most where u is nearly 1.
    The angle is off by 2^-24 pi and its sine and cosine by 2^-24, all times r; twice the sum is allowed. A
    GPU's own instructions have 2^-22 in place of the first 2^-24 and 2^-20 for sine and cosine.
    """
    exact = Keys(keys.index.cpu(), keys.seed)  # a GPU's normals are a kernel's themselves
    whole = exact.normal((size + size % 2,), step, stream).double().to(DEVICE)
    radius = whole.unflatten(1, (-1, 2)).norm(dim=2).repeat_interleave(2, dim=1)
    centre, outside = (2.0**-22, 2.0**-19) if DEVICE.type == "cuda" else (2.0**-24, 7 * 2.0**-24)
    return whole[:, :size], (2 * (centre / radius + outside * radius))[:, :size]


def near(found: Tensor, expected: Tensor, size: Tensor | float = 0.0, noise: Tensor | float = 0.0) -> bool:
    """Is this float32's rounding of sums of `size`, that of storing them, and what `noise` may be off?

    The interpreter cuts bfloat16 off, by up to a whole last place.
    """
    place = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}[found.dtype]
    allowed = 8 * 2.0**-24 * size + 1.01 * place * expected.abs() + noise
    return bool(((found.double() - expected).abs() <= allowed).all())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [1, 3, 64, 193, 3072])
@pytest.mark.parametrize(
    ("dtypes", "inner", "bound", "noise", "per_image"),
    [
        ("32", None, None, False, False),
        ("32 16", None, None, True, True),
        ("32 b16", "all", 0.7, True, False),
        ("b16 32 b16", "last", "per image", True, True),
        ("16 32 32 b16", "all", None, False, False),
    ],
)
def test_the_kernel_is_the_sum_written_out(size, batch, dtypes, inner, bound, noise, per_image):
    torch.manual_seed(size + batch)
    kinds = {"32": torch.float32, "16": torch.float16, "b16": torch.bfloat16}
    tensors = [torch.randn(batch, size, device=DEVICE).to(kinds[kind]) for kind in dtypes.split()]
    draw = lambda: torch.randn((batch,) if per_image else (), dtype=torch.float64)
    wide = lambda value: value.to(DEVICE).reshape(-1, 1)
    weights, terms = [draw() for _ in tensors], list(tensors)
    total = sum(wide(by) * y.double() for by, y in zip(weights, tensors, strict=True))
    within = sum(wide(by).abs() * y.double().abs() for by, y in zip(weights, tensors, strict=True))
    estimate = None
    if inner:
        bound = torch.rand(batch, dtype=torch.float64) if bound == "per image" else bound and NUMBER(bound)
        parts = tensors if inner == "all" else tensors[-1:]
        inside, share = [draw() for _ in parts], draw()
        value = sum(wide(by) * y.double() for by, y in zip(inside, parts, strict=True))
        size_inside = sum(wide(by).abs() * y.double().abs() for by, y in zip(inside, parts, strict=True))
        value = value if bound is None else value.clamp(-wide(bound), wide(bound))
        total, within = total + wide(share) * value, within + wide(share).abs() * size_inside
        estimate = Combination(inside, parts, bound)
        weights, terms = [*weights, share], [*terms, estimate]
    keys, scale = Keys(torch.arange(batch, device=DEVICE) + 2**32 - 2, 11), draw().abs()
    error = 0.0
    if noise:
        z, inexact = normals_of(keys, size)
        total, error = total + wide(scale) * z, wide(scale) * inexact
    out = fused(
        Update(weights, terms, estimate),
        scale if noise else None,
        keys.counter(3, Stream.STEP) if noise else None,
    )
    assert out.dtype == tensors[0].dtype
    assert near(out, total, within, error)
    if estimate is not None:
        assert estimate.known
        assert near(estimate.tensor(), value, size_inside)


@triton.jit
def words_kernel(out, given, COUNT: tl.constexpr):
    """Philox of COUNT columns of `given`, uint32 in int64 [6, COUNT]: counters and keys."""
    lane = tl.arange(0, COUNT)
    c0, c1 = tl.load(given + lane).to(tl.uint32), tl.load(given + COUNT + lane).to(tl.uint32)
    c2, c3 = tl.load(given + 2 * COUNT + lane).to(tl.uint32), tl.load(given + 3 * COUNT + lane).to(tl.uint32)
    k0, k1 = tl.load(given + 4 * COUNT + lane).to(tl.uint32), tl.load(given + 5 * COUNT + lane).to(tl.uint32)
    w0, w1, w2, w3 = device.philox(c0, c1, c2, c3, k0, k1)
    tl.store(out + lane, w0.to(tl.int64))
    tl.store(out + COUNT + lane, w1.to(tl.int64))
    tl.store(out + 2 * COUNT + lane, w2.to(tl.int64))
    tl.store(out + 3 * COUNT + lane, w3.to(tl.int64))


def test_words_are_philox_bit_for_bit():
    """4,096 counters and keys; a carry or a sign that is lost shows in one of a few."""
    torch.manual_seed(0)
    given = torch.randint(0, 2**32, (6, 4096), device=DEVICE)
    given[:, 0], given[:, 1] = 0, 2**32 - 1
    found = torch.empty(4, 4096, dtype=torch.int64, device=DEVICE)
    words_kernel[(1,)](found, given, COUNT=4096)
    assert torch.equal(found, torch.stack(philox(list(given[:4]), list(given[4:]))))


def drawn(keys: Keys, size: int, step: int = 3, stream: Stream = Stream.STEP) -> Tensor:
    return normal(keys.counter(step, stream), (size,))


def test_normals_are_those_of_the_key_and_counter():
    index = torch.arange(2, device=DEVICE)
    for seed, step, stream in ((3, 0, Stream.STEP), (3, 5, Stream.STEP), (4, 5, Stream.CORRECTOR)):
        for keys in (Keys(index, seed), Keys(index + 7, seed)):
            expected, inexact = normals_of(keys, 501, step, stream)
            assert near(drawn(keys, 501, step, stream), expected, noise=inexact)


def test_normals_do_not_depend_on_batch_or_block():
    """Bit for bit: images on their own, and the beginning of a longer image, which other blocks draw."""
    index = torch.arange(5, device=DEVICE) * 1000
    whole = drawn(Keys(index, 1), 3072)
    apart = torch.cat([drawn(Keys(piece, 1), 3072) for piece in index.split(2)])
    assert torch.equal(whole, apart)
    for size in (3, 64, 193, 1030):
        assert torch.equal(drawn(Keys(index, 1), size), whole[:, :size])


def test_normals_have_the_moments_of_a_normal():
    """60,000 draws: each moment, and the correlation of neighbours, within five of its standard errors."""
    x = drawn(Keys(torch.arange(3, device=DEVICE), 5), 20_000).double()
    n = x.numel()
    for power, (expected, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs(x.pow(power).mean() - expected) < 5 * (variance / n) ** 0.5
    for apart in (1, 2, 3, 4):
        assert abs((x[:, :-apart] * x[:, apart:]).mean()) < 5 / n**0.5


def test_a_step_may_be_written_over_its_first_tensor():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 9, device=DEVICE), torch.randn(2, 3, 8, 9, device=DEVICE)
    expected = 0.5 * x + 2 * y
    table = rows((NUMBER(0.5), NUMBER(2.0)))[None].to(DEVICE)
    clock = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    launch(x, None, [x.flatten(1), y.flatten(1)], table, clock, None, False, False)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


def test_a_launch_replayed_reads_its_step_seed_and_coefficients_anew():
    """What a CUDA graph does: the same arguments, other numbers behind them."""
    x, out = torch.ones(2, 40, device=DEVICE), torch.empty(2, 40, device=DEVICE)
    table = torch.stack([rows((NUMBER(k),), NUMBER(n)) for k, n in ((1.0, 0.0), (2.0, 0.5))]).to(DEVICE)
    clock = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    index = torch.arange(2, device=DEVICE)
    replay = lambda: launch(out, None, [x], table, clock, index, False, False)
    replay()
    assert torch.equal(out, x)
    clock.copy_(torch.tensor([1, 9, 4, int(Stream.CORRECTOR)]))
    replay()
    z, inexact = normals_of(Keys(index, 9), 40, 4, Stream.CORRECTOR)
    assert near(out, 2 + z / 2, 2.0, inexact)
    index.add_(5)
    replay()
    z, inexact = normals_of(Keys(index, 9), 40, 4, Stream.CORRECTOR)
    assert near(out, 2 + z / 2, 2.0, inexact)


def test_images_may_lie_apart():
    """Half of a network's channels, as a learned variance leaves them, and one image for all."""
    torch.manual_seed(1)
    output, one = torch.randn(3, 4, 5, 5, device=DEVICE), torch.randn(1, 2, 5, 5, device=DEVICE)
    half = output[:, :2]
    found = fused(Update([NUMBER(2.0), ONE], [half, one.expand(3, 2, 5, 5)]))
    torch.testing.assert_close(found, 2 * half + one, rtol=0, atol=1e-6)


def test_what_is_not_finite_stays_so():
    """A bound must not turn a diverged image into a grey one."""
    x = torch.tensor([[float("nan"), 5.0, -5.0, 0.5]], device=DEVICE)
    found = fused(Update([ONE], [Combination([ONE], [x], NUMBER(1.0))]))
    assert torch.equal(found.isnan(), x.isnan())
    assert found[0, 1:].tolist() == [1.0, -1.0, 0.5]


@pytest.mark.parametrize("count", [MOST, MOST + 1, 2 * MOST + 1])
@pytest.mark.parametrize("bound", [None, 0.5])
def test_more_tensors_than_a_kernel_takes_are_added_in_parts(count, bound):
    torch.manual_seed(2)
    tensors = [torch.randn(2, 33, device=DEVICE) for _ in range(count)]
    weights = torch.randn(count, dtype=torch.float64).unbind()
    total = sum(by.item() * y for by, y in zip(weights, tensors, strict=True))
    found = fused(Update(weights, tensors))
    torch.testing.assert_close(found, total, rtol=0, atol=1e-5)
    keys = Keys(torch.arange(2, device=DEVICE), 1)
    noisy = fused(Update(weights, tensors), NUMBER(0.5), keys.counter(3, Stream.STEP))
    torch.testing.assert_close(noisy, total + 0.5 * normals_of(keys, 33)[0].float(), rtol=0, atol=1e-5)
    inner = Combination(weights, tensors, None if bound is None else NUMBER(bound))
    found = fused(Update((NUMBER(2.0), ONE), (inner, tensors[0]), inner))
    value = total if bound is None else total.clamp(-bound, bound)
    torch.testing.assert_close(found, 2 * value + tensors[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(inner.tensor(), value, rtol=0, atol=1e-5)


def variant(
    count: int, *, size: int = 16, half: bool = False, even: bool = True, warps: int = 2, **flags: bool
) -> Variant:
    """A step on large images: x is float32, the network's outputs are bfloat16 where `half`."""
    named = {f"y{i}": "*bf16" if half and i else "*fp32" for i in range(MOST)}
    pointers = {"out": "*fp32", "inner": "*fp32", **named}
    tables = {"table": "*fp32", "clock": "*i64", "index": "*i64"}
    sizes = {"size": "i32", "images": "i32", **{f"stride{i}": "i32" for i in range(MOST)}}
    switches = ("PER_IMAGE", "INNER", "BOUNDED", "NOISE", "KEEP")
    constants = {name: flags.pop(name.lower(), False) for name in switches}
    assert not flags
    return Variant(
        "genbench.ops.kernels.combine:step_kernel",
        {**pointers, **tables, **sizes},
        {"COUNT": count, **constants, "BLOCK": 128 * warps, "TURNS": size // 4, "EVEN": even, "FAST": True},
        [*pointers, *tables, *(name for name in sizes if name != "images")] if even else [],
        warps,
    )


CEILINGS = {
    "ddim": (variant(2), 8),
    "ddpm, not clipped": (variant(2, noise=True), 30),
    "ddpm": (variant(2, inner=True, bounded=True, noise=True), 36),
    "ddpm, each image its own": (variant(2, inner=True, bounded=True, noise=True, per_image=True), 39),
    "ddpm, bfloat16": (variant(2, half=True, inner=True, bounded=True, noise=True), 38),
    "guided ddpm": (variant(3, inner=True, bounded=True, noise=True), 39),
    "2m": (variant(3, inner=True, keep=True), 16),
    "ddpm, any size": (variant(2, inner=True, bounded=True, noise=True, even=False), 93),
}
"""Instructions an element: 39 is what a noisy step may have; where it has fewer, as many and a few more."""


def test_on_a_gpu_a_step_is_few_instructions_and_wide_accesses():
    """No stack; float32 by 16 bytes, and bfloat16, four elements a thread like the float32 beside it, by 8.
    Accesses of 4 and 8 bytes are coefficients, the clock and the key, of which a thread reads each once."""
    found = compiled(*(made for made, _ in CEILINGS.values()))
    for (name, (made, ceiling)), kernel in zip(CEILINGS.items(), found, strict=True):
        elements = 4 * made.constants["TURNS"]
        assert kernel.stack == 0, name
        assert kernel.registers <= 64, name
        # Of which the interpreter knows nothing: there every minimum of NaN is NaN.
        bounds = sum(many for name, many in kernel.mnemonics.items() if name.startswith("FMNMX"))
        assert kernel.mnemonics.get("FMNMX.NAN", 0) == bounds
        assert bounds == 2 * elements * made.constants["BOUNDED"], name
        assert kernel.instructions <= ceiling * elements, (name, kernel.instructions / elements)
        if "any size" in name:
            continue
        turns, count = made.constants["TURNS"], made.constants["COUNT"]
        half = "bfloat16" in name
        assert kernel.loads.count(16) == turns * (1 if half else count), name
        assert kernel.loads.count(8) - (turns if half else 0) <= 2, name
        assert kernel.stores == [16] * turns * (1 + made.constants["KEEP"]), name
