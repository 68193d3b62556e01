"""Random feed-forward experts and rows, which the parts of `gpu.py` run, and their errors beside a plain loop."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from moebius.core.routing import Selection
from moebius.execution._triton import fused_ffn
from moebius.networks.feed_forward import GATED, feed_forward_activation


@dataclass(frozen=True)
class Shape:
    """Rows, width, hidden width, experts, and experts per row."""

    rows: int
    features: int
    hidden: int
    experts: int
    k: int

    def __str__(self) -> str:
        return f"T={self.rows} d={self.features} h={self.hidden} E={self.experts} k={self.k}"


LARGE = (
    Shape(32768, 2048, 1024, 64, 8),
    Shape(32768, 2048, 1024, 128, 8),
    Shape(32768, 4096, 1024, 64, 8),
    Shape(32768, 4096, 1024, 128, 8),
    Shape(8192, 4096, 14336, 8, 2),
)
TINY = (Shape(40, 24, 20, 3, 2), Shape(12, 33, 16, 5, 1))
NAMES = ("x", "inner", "outer", "weights")


class Problem:
    """Random rows and experts, and a random routing: k different experts for each row, with unequal loads."""

    def __init__(self, shape: Shape, activation: str, device: str, dtype: torch.dtype):
        torch.manual_seed(0)
        self.shape, self.activation = shape, activation
        self.matrices = 2 if activation in GATED else 1

        def normal(*sizes: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(sizes, device=device)).to(dtype).requires_grad_()

        width = self.matrices * shape.hidden
        self.x = normal(shape.rows, shape.features)
        self.inner = normal(shape.experts, width, shape.features, scale=shape.features**-0.5)
        self.outer = normal(shape.experts, shape.features, shape.hidden, scale=shape.hidden**-0.5)
        self.upstream = normal(shape.rows, shape.features).detach()
        scores = torch.randn(shape.rows, shape.experts, device=device) + 0.3 * torch.randn(shape.experts, device=device)
        top, self.expert_TK = scores.softmax(-1).topk(shape.k)
        self.weight_A = top.flatten().requires_grad_()

    @property
    def selection(self) -> Selection:
        row_A = torch.arange(self.shape.rows, device=self.x.device).repeat_interleave(self.shape.k)
        return Selection(row_A, self.expert_TK.flatten(), self.weight_A, torch.ones_like(row_A, dtype=torch.bool))

    @property
    def leaves(self) -> list[Tensor]:
        return [self.x, self.inner, self.outer, self.weight_A]

    @property
    def forward_tflop(self) -> float:
        """TFLOP of a forward; a backward has twice as many."""
        shape = self.shape
        return 2e-12 * shape.rows * shape.k * shape.features * shape.hidden * (self.matrices + 1)


def run_fused(problem: Problem) -> Tensor:
    """The outputs by the library's fused execution."""
    experts = (problem.inner, None, problem.outer, None)
    return fused_ffn(problem.x, *experts, problem.activation, problem.selection)


def run_grouped(problem: Problem) -> Tensor:
    """The outputs by grouped products of torch alone."""
    selection = problem.selection
    expert_A, order_A = selection.expert_A.sort(stable=True)
    ends = torch.searchsorted(expert_A, torch.arange(1, problem.shape.experts + 1, device=expert_A.device)).int()
    row_A = selection.row_A[order_A]
    hidden = F.grouped_mm(problem.x[row_A], problem.inner.transpose(1, 2), offs=ends)
    value = F.grouped_mm(feed_forward_activation(problem.activation, hidden), problem.outer.transpose(1, 2), offs=ends)
    value = value * selection.weight_A[order_A, None].to(value.dtype)
    return torch.zeros_like(problem.x).index_add(0, row_A, value)


def relative_errors(problem: Problem) -> dict[str, float]:
    """The relative errors of outputs and gradients, compared with a loop in float32."""
    selection = problem.selection
    y = run_fused(problem)
    tensors = [y.detach(), *torch.autograd.grad(y, problem.leaves, problem.upstream)]
    x, inner, outer, weight_A = leaves = [leaf.detach().float().requires_grad_() for leaf in problem.leaves]
    y_loop = torch.zeros_like(x)
    for expert, (first, second) in enumerate(zip(inner.unbind(), outer.unbind(), strict=True)):
        position_A = torch.nonzero(selection.expert_A == expert).flatten()
        row_A = selection.row_A[position_A]
        value = feed_forward_activation(problem.activation, x[row_A] @ first.T) @ second.T
        y_loop = y_loop.index_add(0, row_A, weight_A[position_A, None] * value)
    expected = [y_loop.detach(), *torch.autograd.grad(y_loop, leaves, problem.upstream.float())]
    return {
        name: float((tensor.float() - reference).norm() / reference.norm())
        for name, tensor, reference in zip(("y", *NAMES), tensors, expected, strict=True)
    }
