"""The matrix products, with gather before them and activation, router weight and scatter after them.

Places and slots are those of `TileOrder`: positions of assignments in the order by expert and in the order by row. A
tile is a block of places of one expert. Offsets into whole tensors have 64 bits, offsets inside one expert's matrix 32.
`no_type_check` is there because type checkers that wrap functions would hide the source from Triton.
"""

from typing import no_type_check

import triton
import triton.language as tl
from triton import knobs

# Triton's interpreter multiplies the bits of bfloat16 numbers as integers: there they are converted to float32.
WIDENING = tl.constexpr(knobs.runtime.interpret)


@triton.jit
@no_type_check
def tile_of(program, tiles_down, tiles_across, TILES: tl.constexpr):
    """Row and column of a program's tile: a few rows of tiles run at once, over all columns, to stay in the cache."""
    group = TILES * tiles_across
    first = program // group * TILES
    height = tl.minimum(tiles_down - first, TILES)
    return first + program % group % height, program % group // height


@triton.jit
@no_type_check
def bell(z):
    """Φ(z), and z times the density, of the standard normal distribution."""
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)), z * 0.3989422804014327 * tl.exp(-0.5 * z * z)


@triton.jit
@no_type_check
def activated(z, up, ACTIVATION: tl.constexpr):
    """The activation of the hidden layer: act(z), times `up` for gated activations."""
    if ACTIVATION == "relu2":
        positive = tl.maximum(z, 0.0)
        value = positive * positive
    elif ACTIVATION == "swiglu":
        value = z * tl.sigmoid(z) * up
    else:
        below, _ = bell(z)
        value = z * below
        if ACTIVATION == "geglu":
            value *= up
    return value


@triton.jit
@no_type_check
def product(left, right, total):
    """`total` + left · right, summed in float32."""
    if WIDENING:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
@no_type_check
def multiplied(
    left_M, right, column_N, N, K,
    TRANSPOSED: tl.constexpr, EVEN_N: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The product of rows of K numbers at `left_M` with the matrix at `right`: (N, K), or (K, N) where TRANSPOSED."""
    k = tl.arange(0, BLOCK_K)
    lefts = left_M[:, None] + k[None, :]
    if TRANSPOSED:
        rights, step = right + k[:, None] * N + column_N[None, :], BLOCK_K * N
    else:
        # Results of columns outside the matrix are not stored; their loads only need a valid address.
        inside_N = column_N if EVEN_N else tl.where(column_N < N, column_N, 0)
        rights, step = right + inside_N[None, :] * K + k[:, None], BLOCK_K
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, K, BLOCK_K):
        left = tl.load(lefts) if EVEN_K else tl.load(lefts, mask=(first + k < K)[None, :], other=0.0)
        if EVEN_K and (EVEN_N or not TRANSPOSED):
            right_tile = tl.load(rights)
        elif TRANSPOSED:
            right_tile = tl.load(rights, mask=(first + k < K)[:, None] & (column_N < N)[None, :], other=0.0)
        else:
            right_tile = tl.load(rights, mask=(first + k < K)[:, None], other=0.0)
        total = product(left, right_tile, total)
        lefts += BLOCK_K
        rights += step
    return total


@triton.jit
@no_type_check
def up(
    x, inner, bias, h, a, row_P, tile_N, tiles, D, H,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr, KEEP: tl.constexpr,
    EVEN_N: tl.constexpr, EVEN_K: tl.constexpr, TILES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Store h = W_1 x + b_1 and a = act(h) in the order of places."""
    tile, across = tile_of(tl.program_id(0), tiles, tl.cdiv(H, BLOCK_N), TILES)
    start, stop = tl.load(tile_N + 3 * tile), tl.load(tile_N + 3 * tile + 1)
    if start >= stop:
        return
    expert = tl.load(tile_N + 3 * tile + 2).to(tl.int64)
    place_M = start + tl.arange(0, BLOCK_M)
    valid_M = place_M < stop
    left_M = x + tl.load(row_P + place_M, mask=valid_M, other=0).to(tl.int64) * D
    column_N = across * BLOCK_N + tl.arange(0, BLOCK_N)
    width = 2 * H if GATED else H
    matrix = inner + expert * width * D
    if GATED:
        # Both halves in one pass, so that rows are read only once.
        k = tl.arange(0, BLOCK_K)
        inside_N = column_N if EVEN_N else tl.where(column_N < H, column_N, 0)
        lefts, rights = left_M[:, None] + k[None, :], matrix + inside_N[None, :] * D + k[:, None]
        half = H * D
        z = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        up_half = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, D, BLOCK_K):
            if EVEN_K:
                left, gate_tile, up_tile = tl.load(lefts), tl.load(rights), tl.load(rights + half)
            else:
                inside_K = first + k < D
                left = tl.load(lefts, mask=inside_K[None, :], other=0.0)
                gate_tile = tl.load(rights, mask=inside_K[:, None], other=0.0)
                up_tile = tl.load(rights + half, mask=inside_K[:, None], other=0.0)
            z = product(left, gate_tile, z)
            up_half = product(left, up_tile, up_half)
            lefts += BLOCK_K
            rights += BLOCK_K
    else:
        transposed: tl.constexpr = tl.constexpr(False)
        z = multiplied(left_M, matrix, column_N, H, D, transposed, EVEN_N, EVEN_K, BLOCK_M, BLOCK_N, BLOCK_K)
        up_half = z
    if BIAS:
        biases = bias + expert * width + column_N
        z += tl.load(biases, mask=column_N < H, other=0.0).to(tl.float32)[None, :]
        if GATED:
            up_half += tl.load(biases + H, mask=column_N < H, other=0.0).to(tl.float32)[None, :]
    stored = valid_M[:, None] & (column_N < H)[None, :]
    # The backward reads h as it is stored, so the activation uses the stored value too.
    z_stored, up_stored = z.to(h.dtype.element_ty), up_half.to(h.dtype.element_ty)
    place_M = place_M.to(tl.int64)
    if KEEP:
        hs = h + place_M[:, None] * width + column_N[None, :]
        tl.store(hs, z_stored, mask=stored)
        if GATED:
            tl.store(hs + H, up_stored, mask=stored)
    value = activated(z_stored.to(tl.float32), up_stored.to(tl.float32), ACTIVATION)
    tl.store(a + place_M[:, None] * H + column_N[None, :], value.to(a.dtype.element_ty), mask=stored)


@triton.jit
@no_type_check
def down(
    left, right, bias, weight_P, out, slot_P, tile_N, tiles, N, K,
    TRANSPOSED: tl.constexpr, BIAS: tl.constexpr, WEIGHTED: tl.constexpr,
    EVEN_N: tl.constexpr, EVEN_K: tl.constexpr, TILES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Store weight (W l + b) for the row l of each place at the assignment's slot; with Wᵀ where TRANSPOSED."""
    tile, across = tile_of(tl.program_id(0), tiles, tl.cdiv(N, BLOCK_N), TILES)
    start, stop = tl.load(tile_N + 3 * tile), tl.load(tile_N + 3 * tile + 1)
    if start >= stop:
        return
    expert = tl.load(tile_N + 3 * tile + 2).to(tl.int64)
    place_M = start + tl.arange(0, BLOCK_M)
    valid_M = place_M < stop
    left_M = left + tl.where(valid_M, place_M, start).to(tl.int64) * K
    column_N = across * BLOCK_N + tl.arange(0, BLOCK_N)
    matrix = right + expert * N * K
    value = multiplied(left_M, matrix, column_N, N, K, TRANSPOSED, EVEN_N, EVEN_K, BLOCK_M, BLOCK_N, BLOCK_K)
    if BIAS:
        value += tl.load(bias + expert * N + column_N, mask=column_N < N, other=0.0).to(tl.float32)[None, :]
    if WEIGHTED:
        value *= tl.load(weight_P + place_M, mask=valid_M, other=0.0)[:, None]
    slot_M = tl.load(slot_P + place_M, mask=valid_M, other=0).to(tl.int64)
    outs = out + slot_M[:, None] * N + column_N[None, :]
    tl.store(outs, value.to(out.dtype.element_ty), mask=valid_M[:, None] & (column_N < N)[None, :])


@triton.jit
@no_type_check
def row_sum(values, out, slot_T, N, BLOCK_N: tl.constexpr):
    """Store the sum over a row's slots; 0 for a row without slots."""
    row, column_N = tl.program_id(0), tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for slot in range(tl.load(slot_T + row).to(tl.int64), tl.load(slot_T + row + 1).to(tl.int64)):
        total += tl.load(values + slot * N + column_N, mask=column_N < N, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * N + column_N, total.to(out.dtype.element_ty), mask=column_N < N)
