"""Normals inside a kernel: Philox4x32-10 and a float32 Box-Muller, four numbers from a counter block.

The integers are those of `genbench.ops.random.philox` bit for bit. FAST takes the GPU's own approximations,
2^-21 or better of the angle's sine and cosine and 2^-22 of the logarithm; the interpreter has none of them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four words, uint32; the counter's and the key's are uint32 too."""
    for _ in tl.static_range(10):
        # One multiplication gives both halves.
        first = c0.to(tl.uint64) * 0xD2511F53
        second = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (second >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (first >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = second.to(tl.uint32)
        c3 = first.to(tl.uint32)
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


UNIT = tl.constexpr(1.1774100225154747)
"""sqrt(2 ln 2): with log2 in place of ln, it is left to be multiplied with the noise's own coefficient."""


@triton.jit
def approximately(instruction: tl.constexpr, x):
    """One instruction of PTX on float32."""
    return tl.inline_asm_elementwise(instruction, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def box_muller(first, second, FAST: tl.constexpr):
    """Two normals of two words, divided by UNIT: sqrt(-log2 u) (cos 2 pi v, sin 2 pi v).

    u and v are (word + 1/2) / 2^32, computed in float32.
    """
    u = tl.fma(first.to(tl.float32), 2.3283064365386963e-10, 1.1641532182693481e-10)
    # Read as a signed number the word gives the same angle within [-pi, pi), where approximations are good.
    turned = second.to(tl.int32, bitcast=True).to(tl.float32)
    angle = tl.fma(turned, 1.4629180792671596e-09, 7.314590396335798e-10)
    if FAST:
        radius = approximately("sqrt.approx.ftz.f32 $0, $1;", -approximately("lg2.approx.ftz.f32 $0, $1;", u))
        cosine = approximately("cos.approx.ftz.f32 $0, $1;", angle)
        sine = approximately("sin.approx.ftz.f32 $0, $1;", angle)
    else:
        radius = tl.sqrt(-tl.log2(u))
        cosine = tl.cos(angle)
        sine = tl.sin(angle)
    return radius * cosine, radius * sine


@triton.jit
def normals(first_block, step, stream, index, seed, BLOCK: tl.constexpr, FAST: tl.constexpr):
    """BLOCK normals of an image, float32, divided by UNIT, from counter block `first_block` on.

    All numbers that are given are uint32; index and seed are the key.
    """
    c0 = first_block + tl.arange(0, BLOCK // 4).to(tl.uint32)
    zero = tl.zeros((BLOCK // 4,), tl.uint32)
    w0, w1, w2, w3 = philox(c0, zero + step, zero + stream, zero, index, seed)
    z0, z1 = box_muller(w0, w1, FAST)
    z2, z3 = box_muller(w2, w3, FAST)
    # [BLOCK / 4, 2, 2]: a thread's four words stay its own, and are stored with one instruction.
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), (BLOCK,))
