"""Draws from categorical laws: exact frequencies, no category of probability zero, no sight of the batch."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import pytest
import torch
from ahead import Variant, compiled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genbench.ops.categorical import categorical, categorical_of_logits
from genbench.ops.kernels import categorical as kernels
from genbench.ops.random import Keys

ENDS = [2.0**-25, 2.0**-24, 0.5, 1 - 2.0**-24]
"""The least and the greatest uniforms of `Ambient` and `Keys`, and one between."""


@pytest.mark.parametrize("scale", [1.0, 1 / 7, 3e-30])
def test_evenly_spaced_uniforms_give_exact_frequencies(scale):
    """1,000 midpoints fall into categories of 0, 200, 500, 0 and 300 thousandths that many times each."""
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    weights = scale * torch.tensor([0.0, 2.0, 5.0, 0.0, 3.0])
    drawn = categorical(weights.expand(1000, 5), uniform)
    assert drawn.bincount(minlength=5).tolist() == [0, 200, 500, 0, 300]


@given(
    weights=st.lists(st.integers(0, 2**20), min_size=1, max_size=12).filter(any),
    word=st.integers(1, 2**24 - 1),
)
def test_the_category_is_where_the_uniform_falls(weights, word):
    """The first whose running sum is above u times the whole, in fractions; multiples of 2^-24 are exact."""
    reached = Fraction(word, 2**24) * sum(weights)
    expected = next(i for i, end in enumerate(accumulate(weights)) if end > reached)
    drawn = categorical(torch.tensor(weights).float(), torch.tensor(word * 2.0**-24))
    assert drawn.item() == expected


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(2.0**-149, 2.0**100, width=32)), min_size=1).filter(
        any
    ),
    uniform=st.sampled_from(ENDS),
)
def test_what_has_no_probability_is_never_drawn(weights, uniform):
    """At the ends of the uniforms too, and for sums of any size, whose running sums are rounded."""
    drawn = categorical(torch.tensor(weights), torch.tensor(uniform))
    assert weights[drawn.item()] > 0


@pytest.mark.parametrize("uniform", ENDS)
@pytest.mark.parametrize(("weights", "only"), [([0.0, 1.0], 1), ([1.0, 0.0], 0), ([0.0, 0.0, 1.0, 0.0], 2)])
@pytest.mark.parametrize("scale", [1.0, 1e30, 2.0**-149, 5e-324])
def test_what_is_certain_is_always_drawn(scale, weights, only, uniform):
    """Where the sum itself is the smallest number there is, its products with uniforms round to its ends."""
    dtype = torch.float64 if scale < 2.0**-149 else torch.float32
    law = torch.tensor(weights, dtype=dtype) * scale
    assert categorical(law, torch.tensor(uniform)).item() == only


def test_the_last_of_many_equal_ones_is_reached_and_not_passed():
    """Of 256 equal shares, whose sums are rounded, the least uniform falls into the first."""
    law = torch.full((2, 256), 0.1)
    drawn = categorical(law, torch.tensor([2.0**-24, 1 - 2.0**-24]))
    assert drawn.tolist() == [0, 255]


def test_small_shares_add_up_beside_a_large_one():
    """1 and 200 times 2^-25, which float32 would lose; 1 - 2^-23 of all is 1 and just below 196 * 2^-25."""
    law = torch.tensor([1.0] + 200 * [2.0**-25])
    assert categorical(law, torch.tensor(1 - 2.0**-23)).item() == 196


def test_frequencies_of_keyed_draws():
    """40,000 draws, every frequency within five standard errors."""
    law = torch.tensor([0.05, 0.0, 0.6, 0.35])
    uniform = Keys(torch.arange(10_000), 0).uniform((4,))
    drawn = categorical(law.expand(10_000, 4, 4), uniform)
    assert drawn.dtype == torch.int64
    for level, share in enumerate(law.tolist()):
        found = float((drawn == level).double().mean())
        assert abs(found - share) <= 5 * (share * (1 - share) / drawn.numel()) ** 0.5


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_draws_do_not_depend_on_their_batch(batch):
    torch.manual_seed(0)
    law, uniform = torch.rand(64, 3, 5, 17) ** 4, torch.rand(64, 3, 5)
    pieces = zip(law.split(batch), uniform.split(batch), strict=True)
    apart = torch.cat([categorical(p, u) for p, u in pieces])
    assert torch.equal(categorical(law, uniform), apart)


def test_decided_rows_are_not_looked_at():
    torch.manual_seed(0)
    law, uniform = torch.rand(4, 3, 5, 6), torch.rand(4, 3, 5)
    decided = torch.rand(4, 3, 5) < 0.5
    expected = categorical(law, uniform).masked_fill(decided, 0)
    assert torch.equal(
        categorical(law.masked_fill(decided[..., None], torch.nan), uniform, decided), expected
    )
    assert torch.equal(categorical(law, uniform, torch.zeros_like(decided)), categorical(law, uniform))
    assert categorical(law, uniform, torch.ones_like(decided)).sum() == 0


def test_logits_are_divided_by_the_temperature():
    """Of odds 4 to 1: 16 to 1 at temperature 1/2, 2 to 1 at temperature 2."""
    logits = torch.tensor([4.0, 1.0]).log().expand(1700, 2)
    uniform = (torch.arange(1700, dtype=torch.float64) + 0.5) / 1700
    for temperature, odds in ((1.0, 4), (0.5, 16), (2.0, 2)):
        first = int((categorical_of_logits(logits, uniform, temperature) == 0).sum())
        assert abs(first - 1700 * odds / (odds + 1)) <= 1


# ------------------------------------------------------------------------------------------- the kernel

LAWS = [(7,), (50, 3), (4, 3, 5, 5, 257), (2, 3, 4, 4, 256), (1, 33, 1), (6, 1024), (3, 2, 2500)]
"""Whole blocks of categories and parts of them, up to ten blocks; one category; single rows."""


def drawn(law: Tensor, uniform: Tensor, logits: bool, decided: Tensor | None = None) -> Tensor:
    return kernels.draw(law, uniform, decided, logits, 1.0)


def across(law: Tensor) -> Tensor:
    """The same law with its categories as a network's channels are: apart in memory."""
    if law.ndim < 3:
        return law
    return law.movedim(-1, 1).contiguous().movedim(1, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", LAWS)
def test_the_kernel_draws_the_category_in_whose_middle_the_uniform_is(shape, dtype):
    """Away from their ends, by a twentieth of a thousandth of the whole or more, categories are exact."""
    torch.manual_seed(0)
    weights = torch.randint(0, 4, shape).to(dtype)
    weights[..., 0] += 1  # else all may be zero
    goal = torch.rand(shape).masked_fill(weights == 0, -1).argmax(dim=-1)
    ends = weights.double().cumsum(dim=-1)
    share = weights.double().gather(-1, goal[..., None])
    uniform = ((ends.gather(-1, goal[..., None]) - share / 2) / ends[..., -1:])[..., 0].float()
    assert torch.equal(categorical(weights, uniform), goal)
    # Logarithms of 1 to 4 in bfloat16 are off by a hundredth; double the dtype's own law decides.
    logits = weights.float().log()
    for law in (weights, across(weights)):
        assert torch.equal(drawn(law, uniform, logits=False), goal)
    for law in (logits, across(logits)):
        assert torch.equal(drawn(law, uniform, logits=True), goal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_kernel_draws_as_the_reference_does(dtype):
    """4,000 draws of 256 levels: 99.9 % equal, the rest where the uniform is at the end of a category."""
    torch.manual_seed(1)
    logits = (4 * torch.randn(2000, 2, 256)).to(dtype)
    uniform = torch.rand(2000, 2)
    weights = logits.float().exp().to(torch.float32 if dtype == torch.float16 else dtype)
    pairs = [
        (drawn(logits, uniform, logits=True), categorical_of_logits(logits.float(), uniform)),
        (drawn(weights, uniform, logits=False), categorical(weights, uniform)),
    ]
    for found, expected in pairs:
        assert found.dtype == torch.int64
        assert (found == expected).double().mean() >= 0.999


def test_the_kernel_takes_the_temperature():
    torch.manual_seed(2)
    logits, uniform = torch.randn(500, 16), torch.rand(500)
    found = kernels.draw(logits, uniform, None, True, 1 / 0.3)
    assert (found == categorical_of_logits(logits, uniform, 0.3)).double().mean() >= 0.995


@pytest.mark.parametrize("categories", [5, 300, 2500])
@pytest.mark.parametrize("logits", [False, True])
def test_the_kernel_never_draws_what_has_no_probability(categories, logits):
    """At the ends of the uniforms, rounded to float32's 0 and 1 too, and for weights of all sizes."""
    torch.manual_seed(3)
    weights = torch.rand(64, categories).pow(20).masked_fill(torch.rand(64, categories) < 0.7, 0)
    weights[:, 3] += 1e-30
    law = weights.log() if logits else weights
    for end in (0.0, *ENDS, 1 - 1e-12):
        found = drawn(law, torch.full((64,), end, dtype=torch.float64), logits)
        assert (weights.gather(1, found[:, None]) > 0).all()


def test_the_kernel_passes_over_what_has_no_probability_where_sums_are_rounded_differently():
    """Uniforms at the end of 256 weights that fill a block: sums of blocks are not the last running sums."""
    torch.manual_seed(6)
    weights = torch.zeros(40, 1200)
    weights[:, :256], weights[:, 1100:] = torch.rand(40, 256), torch.rand(40, 100)
    end = weights[:, :256].double().sum(dim=1) / weights.double().sum(dim=1)
    for ulps in range(-3, 4):
        found = drawn(weights, (end + ulps * 2.0**-24).float(), logits=False)
        assert (weights.gather(1, found[:, None]) > 0).all()


def test_the_kernel_rescales_sums_when_the_maximum_rises():
    """Logits that grow by 8 from the first of ten blocks to the last: what came before counts for less."""
    torch.manual_seed(7)
    logits = torch.linspace(-4, 4, 2500) + torch.rand(300, 2500)
    uniform = torch.rand(300)
    found = drawn(logits, uniform, logits=True)
    assert (found == categorical_of_logits(logits, uniform)).double().mean() >= 0.99


def test_the_kernel_draws_what_is_certain_however_large_logits_are():
    logits = torch.full((4, 2000), -torch.inf)
    goal = torch.tensor([0, 3, 1024, 1999])
    for size in (-1e30, -50.0, 0.0, 1e30):
        law = logits.scatter(1, goal[:, None], size)
        assert torch.equal(drawn(law, torch.full((4,), 0.5), logits=True), goal)


@pytest.mark.parametrize("shape", [(40, 7), (2, 3, 4, 4, 256), (2, 40, 1500)])
def test_the_kernel_skips_decided_rows(shape):
    torch.manual_seed(4)
    law, uniform = torch.rand(shape), torch.rand(shape[:-1])
    decided = torch.rand(shape[:-1]) < 0.5
    decided[-1] = True  # and whole programs of them
    expected = drawn(law, uniform, logits=False).masked_fill(decided, 0)
    hidden = law.masked_fill(decided[..., None], torch.nan)
    for laid in (hidden, across(hidden)):
        assert torch.equal(drawn(laid, uniform, False, decided), expected)


def test_the_kernel_reads_one_law_for_all_rows_and_none_for_none():
    law = torch.tensor([1.0, 2.0, 1.0]).expand(2, 4, 5, 3)
    uniform = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).expand(2, 4, 5)
    assert torch.equal(drawn(law, uniform, False), torch.tensor([0, 1, 1, 1, 2]).expand(2, 4, 5))
    assert drawn(torch.ones(0, 3), torch.ones(0), False).shape == (0,)


def test_the_compiled_kernel_reads_16_bytes_at_a_time():
    """Of 256 levels and of blocks of them, in both orders. Budget: 93 instructions for 4 bytes read."""
    variants = []
    for apart in ("category_stride", "row_stride"):
        for logits in (False, True):
            for whole in (True, False):
                strides = ["image_stride", apart]
                sizes = ["rows", "categories", *strides]
                signature = {"law": "*fp32", "uniform": "*fp32", "decided": "*u8", "out": "*i64"}
                signature |= dict.fromkeys(sizes, "i32") | {"inverse_temperature": "fp32"}
                constants = {"row_stride": 1, "category_stride": 1, "ROWS": 32 if whole else 16}
                constants |= {"BLOCK": 256, "WHOLE": whole, "LOGITS": logits, "SKIPPING": True}
                constants |= {"ACROSS": apart == "category_stride"}
                del constants[apart]
                aligned = ["law", "uniform", "decided", "out", *sizes]
                name = "genbench.ops.kernels.categorical:categorical_kernel"
                variants.append(Variant(name, signature, constants, aligned, warps=8))
    for variant, made in zip(variants, compiled(*variants), strict=True):
        elements = variant.constants["ROWS"]  # a thread: 256 threads, 256 categories
        passes = 1 if variant.constants["WHOLE"] else 2
        assert made.stack == 0
        assert made.loads.count(16) == passes * elements // 4
        assert made.instructions <= 93 * elements * passes


@pytest.mark.gpu
def test_on_a_gpu_draws_are_those_of_the_reference():
    torch.manual_seed(5)
    for shape in LAWS:
        law, uniform = torch.randn(shape), torch.rand(shape[:-1])
        decided = torch.rand(shape[:-1]) < 0.3
        for laid in (law, across(law)):
            found = categorical_of_logits(laid.cuda(), uniform.cuda(), 0.7, decided.cuda()).cpu()
            expected = categorical_of_logits(laid, uniform, 0.7, decided)
            assert (found == expected).double().mean() >= 0.999
