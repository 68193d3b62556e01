"""The number format that a run computes in."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from moebius.lab.model.cost import multiply_adds

# Below this, casting costs more than the faster products bring: study 1's mixtures have 43 thousand, study 2's
# 95 million.
WORTH_CASTING = 1_000_000


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """The context in which a model of this precision, "fp32" or "bf16", computes as in its training."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


def choose_precision(
    precision: Literal["auto", "fp32", "bf16"],
    build: Callable[[], nn.Module],
    facts: Mapping[str, Any],
    device: torch.device,
) -> tuple[Literal["fp32", "bf16"], str]:
    """The precision and the reason for it; `auto` decides by a rule and never by timing.

    bf16 where the device multiplies in it natively and an image costs a million multiply-adds or more, else fp32.
    Parameters, optimizer state and losses stay float32 either way.

    Arguments:
        precision: as the recipe has it.
        build: gives the model; it is called where the precision depends on the model.
        facts: of the data, as for `build_model`.
        device: where it will train.
    """
    if precision != "auto":
        return precision, "as the recipe says"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if not native:
        return "fp32", "this device has no bf16 products"
    work = multiply_adds(build(), facts)
    if work < WORTH_CASTING:
        return "fp32", f"{work:,} multiply-adds per image: casting would cost more than it brings"
    return "bf16", f"{work:,} multiply-adds per image, bf16 products on this device"
