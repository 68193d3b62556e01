"""Feed-forward experts on a GPU, with gather and scatter inside the products; Triton is imported at first use."""

from moebius.execution._triton.ffn import fused_ffn, obstacle

__all__ = ["fused_ffn", "obstacle"]
