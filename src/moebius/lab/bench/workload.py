"""The shapes of a measurement, and the work that they mean."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.layers.sparse_ffn import SparseFFN
from moebius.networks.feed_forward import FEED_FORWARD, GATED

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Workload:
    """A sparse feed-forward layer and the number of its rows.

    Arguments:
        dim, hidden, experts, k, activation, bias: arguments of `mb.layers.SparseFFN`.
        rows: T, number of rows in a call of the layer.
        dtype: format of parameters and rows, fp32 or bf16.
        device: cpu or cuda.

    Raises:
        ArgumentError: a size below 1, `k` above the number of experts, an unknown name, or cuda without a GPU.

    Example:
        >>> workload = Workload(dim=4, hidden=8, experts=3, k=2, rows=5)
        >>> workload.active_multiply_adds, workload.expert_parameters
        (640, 76)
    """

    dim: int = 512
    hidden: int = 2048
    experts: int = 8
    k: int = 2
    rows: int = 4096
    activation: str = "gelu"
    bias: bool = True
    dtype: str = "fp32"
    device: str = "cpu"

    def __post_init__(self):
        for name in ("dim", "hidden", "experts", "k", "rows"):
            positive_integer(name, getattr(self, name))
        if self.k > self.experts:
            rule = f"a row cannot go through more than the {self.experts} experts"
            raise ArgumentError("k", rule, self.k, f"--k {self.experts}")
        if self.activation not in FEED_FORWARD:
            rule = f"needs one of {', '.join(FEED_FORWARD)}"
            raise ArgumentError("activation", rule, self.activation, "--activation gelu")
        if self.dtype not in DTYPES:
            raise ArgumentError("dtype", f"needs one of {', '.join(DTYPES)}", self.dtype, "--dtype fp32")
        if self.device not in ("cpu", "cuda"):
            raise ArgumentError("device", "needs cpu or cuda", self.device, "--device cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ArgumentError("device", "this PyTorch sees no GPU", self.device, "--device cpu")

    @property
    def _expert_weights(self) -> int:
        """Number of weights of one expert without its biases: two matrices, three with a gated activation."""
        return (3 if self.activation in GATED else 2) * self.dim * self.hidden

    @property
    def expert_parameters(self) -> int:
        """Number of parameters of one expert."""
        inner = (2 if self.activation in GATED else 1) * self.hidden
        return self._expert_weights + (inner + self.dim if self.bias else 0)

    @property
    def expert_bytes(self) -> int:
        """Bytes of the parameters of one expert."""
        return self.expert_parameters * DTYPES[self.dtype].itemsize

    @property
    def active_multiply_adds(self) -> int:
        """Multiply-adds of a forward in which each row goes through its k experts; a backward has twice as many."""
        return self.rows * self.k * self._expert_weights

    @property
    def total_multiply_adds(self) -> int:
        """Multiply-adds of a forward in which each row goes through all experts.

        A dense layer with as many parameters has the same number.
        """
        return self.rows * self.experts * self._expert_weights

    @property
    def assignments(self) -> int:
        """T·k, number of pairs of a row and an expert that it goes through."""
        return self.rows * self.k

    def make_layer(self, execution: str = "auto") -> SparseFFN:
        """The layer, with random parameters."""
        layer = SparseFFN(self.dim, self.hidden, self.experts, self.k, self.activation, self.bias, execution=execution)
        return layer.to(self.device, DTYPES[self.dtype])

    def draw_rows(self, count: int) -> Tensor:
        """(count, dim), standard normal numbers."""
        return torch.randn(count, self.dim, device=self.device).to(DTYPES[self.dtype])

    def __str__(self) -> str:
        biases = "with" if self.bias else "without"
        return (
            f"rows {self.rows:,}, dim {self.dim:,}, hidden {self.hidden:,}, experts {self.experts:,}, k {self.k}, "
            f"{self.activation} {biases} biases, {self.dtype}, {self.device}"
        )
