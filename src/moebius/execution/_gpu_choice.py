"""Whether feed-forward experts on a GPU run by kernels of the library's own or by torch's grouped product."""

import torch

# `benchmarks/gpu.py` on one H200 (compute capability 9.0), torch 2.11.0, 2026-11-27: swiglu experts without biases in
# bf16, 32,768 rows, D = 2,048, hidden 1,024, E = 64, k = 8, so 4,096 rows an expert. `fused` had 1.53 times the speed
# of `grouped` forward, 1.21 times backward, and .65 of its peak of memory. Nothing else has been measured.
_MEASURED = {"rows an expert": 4096, "features": 2048, "hidden": 1024}
_MEASURED_CAPABILITY = (9, 0)
# The measurement is taken to hold up to this factor from each of these sizes.
_FACTOR = 2
# The major compute capabilities for which torch has a kernel; elsewhere it reads the counts and loops over the experts.
_GROUPED_KERNELS = (9, 10)


def reason_for_fused(
    rows_per_expert: float | int,
    features: int,
    hidden: int,
    capability: tuple[int, int] | None,
    grouped_obstacle: str | None,
) -> str | None:
    """Why `fused` runs these experts rather than `grouped`, a sentence; None where `grouped` does.

    Arguments:
        rows_per_expert: on average.
        features, hidden: widths of the experts.
        capability: compute capability of the GPU; None for one that has none, as under ROCm.
        grouped_obstacle: why `grouped` cannot run them, as the end of a sentence; None where it can.

    Example:
        >>> reason_for_fused(4096, 512, 2048, (9, 0), None) is None
        True
        >>> reason_for_fused(4096, 512, 2048, (8, 0), None)
        'kernels of the library: torch has none for grouped products on compute capability 8.0'
    """
    if grouped_obstacle is not None:
        return f"kernels of the library: grouped {grouped_obstacle}"
    if capability is not None and capability[0] not in _GROUPED_KERNELS:
        return f"kernels of the library: torch has none for grouped products on compute capability {_text(capability)}"
    sizes = (rows_per_expert, features, hidden)
    near = all(size <= _FACTOR * at <= _FACTOR**2 * size for size, at in zip(sizes, _MEASURED.values(), strict=True))
    if near and capability == _MEASURED_CAPABILITY:
        measured = ", ".join(f"{size:,} {name}" for name, size in _MEASURED.items())
        return f"kernels of the library: measured ahead of grouped at {measured}, and these sizes are near"
    return None


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """That of a GPU, such as (9, 0) of an H100; None under ROCm."""
    if torch.version.hip is not None:
        return None
    properties = torch.cuda.get_device_properties(device)
    return properties.major, properties.minor


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
