"""When batched products of padded rows are faster than one expert after another."""

import torch

# In float32, up to this number of rows an expert and from this number of experts on. Measured on an Intel Xeon with
# AMX, see docs/execution.md.
_FEW_ROWS, _MANY_EXPERTS = 32, 32
# Below this number of rows an expert many experts have none, and their weights would be read in vain.
_LEAST_ROWS = 4


def padding_reason(dtype: torch.dtype, assignments: int, experts: int) -> str | None:
    """Why padding pays for so many assignments and experts, whose products are in this format; None where it does not.

    The answer is a rule and never a measurement: it is the same in a resumed run.

    Example:
        >>> padding_reason(torch.float32, 8192, 8), padding_reason(torch.float32, 8192, 1024)
        (None, 'many experts have few rows each: one batched product for several')
    """
    if assignments < _LEAST_ROWS * experts:
        return None
    if dtype == torch.bfloat16:
        return "products in bf16 have a kernel for every number of rows: one batched product for several experts"
    if experts >= _MANY_EXPERTS and assignments <= _FEW_ROWS * experts:
        return "many experts have few rows each: one batched product for several"
    return None
