"""Kernels of the backward pass: derivatives of the activation, gradients of the experts and of the router weights.

No two programs write to the same element, so that repeated calls give the same sums.
"""

from typing import no_type_check

import triton
import triton.language as tl

from moebius.execution._triton.products import bell, multiplied, product, tile_of


@triton.jit
@no_type_check
def slope(z, ACTIVATION: tl.constexpr):
    """The activation of z, without the other factor of gated activations, and its derivative."""
    if ACTIVATION == "relu2":
        positive = tl.maximum(z, 0.0)
        value, derivative = positive * positive, 2.0 * positive
    elif ACTIVATION == "swiglu":
        share = tl.sigmoid(z)
        value, derivative = z * share, share * (1.0 + z * (1.0 - share))
    else:
        below, dense = bell(z)
        value, derivative = z * below, below + dense
    return value, derivative


@triton.jit
@no_type_check
def through_activation(
    value, column_N, h, weight_P, dh, weighted, start, stop, H,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Store the gradient of h and weight · a, given `value`, the gradient of a before its weight; return ⟨value, a⟩."""
    place_M = start + tl.arange(0, BLOCK_M)
    valid_M = place_M < stop
    weight_M = tl.load(weight_P + place_M, mask=valid_M, other=0.0)[:, None]
    stored = valid_M[:, None] & (column_N < H)[None, :]
    place_M = place_M.to(tl.int64)
    width = 2 * H if GATED else H
    offsets = place_M[:, None] * width + column_N[None, :]
    a, derivative = slope(tl.load(h + offsets, mask=stored, other=0.0).to(tl.float32), ACTIVATION)
    if GATED:
        up = tl.load(h + offsets + H, mask=stored, other=0.0).to(tl.float32)
        tl.store(dh + offsets + H, (weight_M * value * a).to(dh.dtype.element_ty), mask=stored)
        a *= up
        derivative *= up
    tl.store(dh + offsets, (weight_M * value * derivative).to(dh.dtype.element_ty), mask=stored)
    places = weighted + place_M[:, None] * H + column_N[None, :]
    tl.store(places, (weight_M * a).to(weighted.dtype.element_ty), mask=stored)
    return tl.sum(tl.where(stored, value * a, 0.0), 1)


@triton.jit
@no_type_check
def down_backward(
    dy, outer, h, weight_P, dh, weighted, part_A, row_P, order_P, tile_N, tiles, parts, D, H,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, PART: tl.constexpr,
    EVEN_N: tl.constexpr, EVEN_K: tl.constexpr, TILES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """With b = W_2ᵀ dy, store the gradient of h, weight · b · act'(h); weight · a; and ⟨b, a⟩ of these columns.

    ⟨b, a⟩ has an entry for every PART columns, so that the shape of `part_A` does not depend on the tile sizes.
    """
    tile, across = tile_of(tl.program_id(0), tiles, tl.cdiv(H, BLOCK_N), TILES)
    start, stop = tl.load(tile_N + 3 * tile), tl.load(tile_N + 3 * tile + 1)
    if start >= stop:
        return
    expert = tl.load(tile_N + 3 * tile + 2).to(tl.int64)
    place_M = start + tl.arange(0, BLOCK_M)
    valid_M = place_M < stop
    left_M = dy + tl.load(row_P + place_M, mask=valid_M, other=0).to(tl.int64) * D
    column_N = across * BLOCK_N + tl.arange(0, BLOCK_N)
    matrix = outer + expert * H * D
    transposed: tl.constexpr = tl.constexpr(True)
    value = multiplied(left_M, matrix, column_N, H, D, transposed, EVEN_N, EVEN_K, BLOCK_M, BLOCK_N, BLOCK_K)
    order_M = tl.load(order_P + place_M, mask=valid_M, other=0).to(tl.int64)
    # One half after the other: both at once do not fit in the registers.
    left_half, right_half = tl.split(tl.permute(tl.reshape(value, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
    half_N = across * BLOCK_N + tl.arange(0, BLOCK_N // 2)
    arguments = (h, weight_P, dh, weighted, start, stop, H)
    dot_M = through_activation(left_half, half_N, *arguments, ACTIVATION, GATED, BLOCK_M)
    dot_M += through_activation(right_half, half_N + BLOCK_N // 2, *arguments, ACTIVATION, GATED, BLOCK_M)
    first: tl.constexpr = BLOCK_N // PART
    part = across * first + tl.arange(0, first)
    dots = tl.where(part[None, :] == across * first, tl.expand_dims(dot_M, 1), 0.0)
    written = valid_M[:, None] & (part < tl.cdiv(H, PART))[None, :]
    tl.store(part_A + order_M[:, None] * parts + part[None, :], dots, mask=written)


@triton.jit
@no_type_check
def outer_product(
    left, right, out, row_P, place_E, M, N,
    GATHER_LEFT: tl.constexpr, TILES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Store Σ l rᵀ over an expert's places; one of l and r is indexed by place, the other by row."""
    down_tiles, across_tiles = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    expert = tl.program_id(0) // (down_tiles * across_tiles)
    tile, across = tile_of(tl.program_id(0) % (down_tiles * across_tiles), down_tiles, across_tiles, TILES)
    start, stop = tl.load(place_E + expert), tl.load(place_E + expert + 1)
    i, j, k = tile * BLOCK_M + tl.arange(0, BLOCK_M), across * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # Row numbers are read one step ahead: if the loads of rows waited for them, fewer could run at the same time.
    row_K = tl.load(row_P + start + k, mask=start + k < stop, other=0)
    for first in range(start, stop, BLOCK_K):
        place_K = first + k
        valid_K = place_K < stop
        row_next_K = tl.load(row_P + place_K + BLOCK_K, mask=place_K + BLOCK_K < stop, other=0)
        if GATHER_LEFT:
            lefts, rights = left + row_K.to(tl.int64)[:, None] * M, right + place_K.to(tl.int64)[:, None] * N
        else:
            lefts, rights = left + place_K.to(tl.int64)[:, None] * M, right + row_K.to(tl.int64)[:, None] * N
        left_tile = tl.load(lefts + i[None, :], mask=valid_K[:, None] & (i < M)[None, :], other=0.0)
        right_tile = tl.load(rights + j[None, :], mask=valid_K[:, None] & (j < N)[None, :], other=0.0)
        total = product(tl.trans(left_tile), right_tile, total)
        row_K = row_next_K
    outs = out + expert.to(tl.int64) * M * N + i.to(tl.int64)[:, None] * N + j[None, :]
    tl.store(outs, total.to(out.dtype.element_ty), mask=(i < M)[:, None] & (j < N)[None, :])


@triton.jit
@no_type_check
def expert_sum(
    values, weight_P, out, row_P, place_E, N,
    WEIGHTED_ROWS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Store Σ of the values at an expert's places, or of the weighted values at their rows; 0 without places."""
    expert, column_N = tl.program_id(0), tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    stop = tl.load(place_E + expert + 1)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(tl.load(place_E + expert), stop, BLOCK_M):
        place_M = first + tl.arange(0, BLOCK_M)
        valid_M = place_M < stop
        index_M = tl.load(row_P + place_M, mask=valid_M, other=0) if WEIGHTED_ROWS else place_M
        addresses = values + index_M.to(tl.int64)[:, None] * N + column_N[None, :]
        value = tl.load(addresses, mask=valid_M[:, None] & (column_N < N)[None, :], other=0.0).to(tl.float32)
        if WEIGHTED_ROWS:
            value *= tl.load(weight_P + place_M, mask=valid_M, other=0.0)[:, None]
        total += tl.sum(value, 0)
    tl.store(out + expert.to(tl.int64) * N + column_N, total.to(out.dtype.element_ty), mask=column_N < N)


@triton.jit
@no_type_check
def bias_part(dy, bias, part_A, row_P, order_P, tile_N, parts, D, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store ⟨dy, b_2⟩ of each assignment as the last part of its router weight's gradient."""
    tile = tl.program_id(0)
    start, stop = tl.load(tile_N + 3 * tile), tl.load(tile_N + 3 * tile + 1)
    if start >= stop:
        return
    expert = tl.load(tile_N + 3 * tile + 2).to(tl.int64)
    place_M = start + tl.arange(0, BLOCK_M)
    valid_M = place_M < stop
    row_M = tl.load(row_P + place_M, mask=valid_M, other=0).to(tl.int64)
    order_M = tl.load(order_P + place_M, mask=valid_M, other=0).to(tl.int64)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for first in range(0, D, BLOCK_N):
        column_N = first + tl.arange(0, BLOCK_N)
        biases = tl.load(bias + expert * D + column_N, mask=column_N < D, other=0.0).to(tl.float32)
        addresses = dy + row_M[:, None] * D + column_N[None, :]
        value = tl.load(addresses, mask=valid_M[:, None] & (column_N < D)[None, :], other=0.0).to(tl.float32)
        total += tl.sum(value * biases[None, :], 1)
    tl.store(part_A + order_M * parts + parts - 1, total, mask=valid_M)
