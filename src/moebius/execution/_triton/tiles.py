"""Tile sizes of each kernel: fixed for small products, measured once for each shape for large ones."""

from functools import cache
from typing import Any

import torch
import triton
from triton import knobs

from moebius.execution._triton import gradients, products

INTERPRETED = knobs.runtime.interpret
# The current default, given explicitly: Triton warns that it will change.
COMPILING = {} if INTERPRETED else {"enable_fp_fusion": True}

# Columns and depth of a tile, warps, pipeline stages. The gated product holds two tiles of sums, and the backward
# product also reads h: both need narrow tiles.
_WIDE = ((256, 64, 8, 3), (256, 64, 8, 4), (128, 64, 8, 3), (128, 64, 4, 4), (128, 32, 4, 4), (64, 64, 4, 4))
_NARROW = ((128, 64, 8, 3), (128, 64, 8, 4), (128, 32, 8, 4), (64, 64, 4, 3), (64, 64, 4, 4), (64, 32, 4, 4))
_CANDIDATES = {
    "up": _WIDE,
    "gated up": _NARROW,
    "down": _WIDE,
    "down_backward": ((256, 64, 8, 3), *_NARROW),
    "outer_product": _WIDE,
}
_SHAPE = {"up": ("D", "H"), "down": ("N", "K", "TRANSPOSED"), "down_backward": ("D", "H"), "outer_product": ("M", "N")}
# Rows of tiles that run at the same time.
_TILES = 8
# Multiply-adds of a product from which measuring pays off.
_LARGE = 2**32


def launcher(name: str, gated: bool, dtype: torch.dtype, work: int) -> tuple[Any, dict[str, int]]:
    """The kernel `name` for a product of `work` multiply-adds, and the tile sizes and options to launch it with."""
    kernel, has_block_m = _with_heuristics(name), name == "outer_product"
    if INTERPRETED:
        return kernel, {"BLOCK_N": 16, "BLOCK_K": 16, "TILES": 2, **({"BLOCK_M": 16} if has_block_m else {})}
    if dtype != torch.float32 and work >= _LARGE:
        return _autotuned(name, gated), {"TILES": _TILES, **COMPILING, **({"BLOCK_M": 128} if has_block_m else {})}
    # float32 products do not run on the matrix units, and need more registers.
    depth, stages = (32, 2) if dtype == torch.float32 else (64, 3)
    sizes = {"BLOCK_N": 64, "BLOCK_K": depth, "TILES": _TILES, "num_warps": 4, "num_stages": stages}
    return kernel, {**sizes, **COMPILING, **({"BLOCK_M": 64} if has_block_m else {})}


@cache
def _autotuned(name: str, gated: bool) -> Any:
    """The kernel, which measures its candidate tile sizes; the fastest is stored on disk for later processes."""
    candidates = _CANDIDATES["gated up" if gated and name == "up" else name]
    configs = [
        triton.Config({"BLOCK_N": columns, "BLOCK_K": depth}, num_warps=warps, num_stages=stages)
        for columns, depth, warps, stages in candidates
    ]
    return triton.autotune(configs, key=[*_SHAPE[name], "BLOCK_M"], cache_results=True)(_with_heuristics(name))


@cache
def _with_heuristics(name: str) -> Any:
    """The kernel, which receives as constants whether columns and depth fill its tiles."""
    if name == "outer_product":
        return gradients.outer_product
    kernel = gradients.down_backward if name == "down_backward" else getattr(products, name)
    columns, depth = ("N", "K") if name == "down" else ("H", "D")
    rules = {
        "EVEN_N": lambda arguments: arguments[columns] % arguments["BLOCK_N"] == 0,
        "EVEN_K": lambda arguments: arguments[depth] % arguments["BLOCK_K"] == 0,
    }
    return triton.heuristics(rules)(kernel)
