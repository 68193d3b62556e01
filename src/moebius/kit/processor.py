"""What this machine's processor can multiply fast."""

import functools

import torch


@functools.cache
def multiplies_in_tiles() -> bool:
    """Whether the processor has a matrix unit for bf16, Intel's AMX, and torch uses it.

    Example:
        >>> isinstance(multiplies_in_tiles(), bool)
        True
    """
    return hasattr(torch.cpu, "_is_amx_tile_supported") and bool(torch.cpu._is_amx_tile_supported())


@functools.cache
def instruction_set() -> str:
    """The processor's instruction set as far as it matters for matrix products, the fastest part last.

    Example:
        >>> instruction_set().split(",")[0] != ""
        True
    """
    names = [torch.backends.cpu.get_cpu_capability()]
    tests = (("_is_avx512_bf16_supported", "AVX512-BF16"), ("_is_amx_tile_supported", "AMX"))
    names += [name for test, name in tests if hasattr(torch.cpu, test) and getattr(torch.cpu, test)()]
    return ", ".join(names)
