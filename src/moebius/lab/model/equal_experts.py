"""Whether the experts of a recipe become one stack."""

from collections.abc import Sequence

import torch
from torch import nn

from moebius.core.stack import unstackable_reason
from moebius.execution._pool import Pool
from moebius.kit.registry import kinds
from moebius.storage.spec import Spec, build


def are_equal_and_dense(experts: Sequence[Spec]) -> bool:
    """Whether several experts are equal and made of dense layers, of which a product for all exists.

    Example:
        >>> are_equal_and_dense([{"kind": "linear", "features": 4, "classes": 3}] * 2)
        True
    """
    first = experts[0]
    if len(experts) == 1 or first.get("kind") not in kinds("experts") or first["kind"] == "adapter":
        return False
    if any(expert != first for expert in experts):
        return False
    try:
        with torch.random.fork_rng(devices=()), torch.device("meta"):
            pair: list[nn.Module] = [build(first) for _ in range(2)]
        return Pool(pair).product_obstacle is None and unstackable_reason(pair) is None
    except Exception:  # a component can raise anything; the model's build then says what and where
        return False
