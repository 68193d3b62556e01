"""How large the tiles of each kernel are: fixed where there is little to do, else measured once for each shape."""

from functools import cache
from typing import Any

import torch
import triton
from triton import knobs

from moebius.execution._triton import gradients, products

INTERPRETED = knobs.runtime.interpret
# What is the default today, said out loud: Triton warns that it will change.
COMPILING = {} if INTERPRETED else {"enable_fp_fusion": True}

# Columns and depth of a tile, warps, pipeline stages. The gated product holds two tiles of sums; the backward one
# reads h beside its own.
_WIDE = ((256, 64, 8, 3), (256, 64, 8, 4), (128, 64, 8, 3), (128, 64, 4, 4), (128, 32, 4, 4), (64, 64, 4, 4))
_NARROW = ((128, 64, 8, 3), (128, 64, 8, 4), (128, 32, 8, 4), (64, 64, 4, 3), (64, 64, 4, 4), (64, 32, 4, 4))
_CHOICES = {
    "up": _WIDE,
    "gated up": _NARROW,
    "down": _WIDE,
    "down_backward": ((256, 64, 8, 3), *_NARROW),
    "outer_product": _WIDE,
}
_SHAPE = {"up": ("D", "H"), "down": ("N", "K", "TRANSPOSED"), "down_backward": ("D", "H"), "outer_product": ("M", "N")}
# Rows of tiles that run together.
_TILES = 8
# Multiply-adds of one product from which on measuring pays.
_MUCH = 2**32


def launcher(name: str, gated: bool, dtype: torch.dtype, work: int) -> tuple[Any, dict[str, int]]:
    """The kernel `name` for products of so many multiply-adds, and the arguments that it takes beside its own."""
    kernel, own = _evened(name), name == "outer_product"
    if INTERPRETED:
        return kernel, {"BLOCK_N": 16, "BLOCK_K": 16, "TILES": 2, **({"BLOCK_M": 16} if own else {})}
    if dtype != torch.float32 and work >= _MUCH:
        return _measured(name, gated), {"TILES": _TILES, **COMPILING, **({"BLOCK_M": 128} if own else {})}
    # Products of float32 run outside the matrix units, and need the registers.
    depth, stages = (32, 2) if dtype == torch.float32 else (64, 3)
    sizes = {"BLOCK_N": 64, "BLOCK_K": depth, "TILES": _TILES, "num_warps": 4, "num_stages": stages}
    return kernel, {**sizes, **COMPILING, **({"BLOCK_M": 64} if own else {})}


@cache
def _measured(name: str, gated: bool) -> Any:
    """The kernel with the fastest of its tile sizes; kept on disk, so that the next process takes the same."""
    choices = _CHOICES["gated up" if gated and name == "up" else name]
    configs = [
        triton.Config({"BLOCK_N": columns, "BLOCK_K": depth}, num_warps=warps, num_stages=stages)
        for columns, depth, warps, stages in choices
    ]
    return triton.autotune(configs, key=[*_SHAPE[name], "BLOCK_M"], cache_results=True)(_evened(name))


@cache
def _evened(name: str) -> Any:
    """The kernel, told whether columns and depth fill its tiles."""
    if name == "outer_product":
        return gradients.outer_product
    kernel = gradients.down_backward if name == "down_backward" else getattr(products, name)
    columns, depth = ("N", "K") if name == "down" else ("H", "D")
    rules = {
        "EVEN_N": lambda given: given[columns] % given["BLOCK_N"] == 0,
        "EVEN_K": lambda given: given[depth] % given["BLOCK_K"] == 0,
    }
    return triton.heuristics(rules)(kernel)
