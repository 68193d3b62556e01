"""Feed-forward experts on a GPU, gathering and scattering inside the matrix products. Triton loads at first use."""

from moebius.execution._triton.ffn import fused_ffn, obstacle

__all__ = ["fused_ffn", "obstacle"]
