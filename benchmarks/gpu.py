"""The fused execution on a GPU, in bf16: its errors, its speed, and its memory.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --interpret      # the first part alone, at tiny shapes, on a CPU

First it compares the outputs and all gradients with those of a plain loop in float32. Then it measures the TFLOP/s,
forward and backward, of swiglu experts without biases (of others with `--activation`), and compares them with
- dense: only the matrix products of one dense layer with as many rows as there are assignments, an upper bound;
- grouped: sort, copy the rows, `torch.nn.functional.grouped_mm`, weighted scatter back;
- ScatterMoE and SonicMoE where they are installed (SonicMoE with its router, because it cannot run without it).
The candidates run in turn in one process, timed by CUDA events. Figures are medians over rounds, ratios are taken
within rounds and shown with their smallest and largest value. The peak of the memory excludes rows and weights.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

if "--interpret" in sys.argv:
    # Triton reads this variable once, when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from _compare import Measurement, comparison_rows, make_parser, print_rows, write_rows
from torch import Tensor
from torch.nn import functional as F

from moebius.core.routing import Selection
from moebius.execution._triton import fused_ffn, obstacle
from moebius.networks.feed_forward import FEED_FORWARD, GATED, feed_forward_activation


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


def measure_error(problem: Problem) -> float:
    """The largest relative error of outputs and gradients, compared with a loop in float32."""
    selection, shape = problem.selection, problem.shape
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
    errors = [
        float((tensor.float() - reference).norm() / reference.norm())
        for tensor, reference in zip(tensors, expected, strict=True)
    ]
    text = ", ".join(f"{name} {error:.1e}" for name, error in zip(("y", *NAMES), errors, strict=True))
    print(f"{shape}, {problem.activation}, {problem.x.dtype}: relative errors {text}")
    # NaN counts as an infinite error.
    return max(error if error == error else float("inf") for error in errors)


# A function that runs the forward and returns a function that runs the backward.
Step = Callable[[], Callable[[], Any]]


def make_step(problem: Problem, execution: Callable[[Problem], Tensor]) -> Step:
    """The step of an execution of the problem."""

    def forward() -> Callable[[], Any]:
        y = execution(problem)
        return lambda: torch.autograd.grad(y, problem.leaves, problem.upstream)

    return forward


def make_dense_step(problem: Problem) -> Step:
    """Two matrix products forward and four backward, and nothing else."""
    shape, dtype, device = problem.shape, problem.x.dtype, problem.x.device
    rows = shape.rows * shape.k
    x = torch.randn(rows, shape.features, device=device).to(dtype)
    a = torch.randn(rows, shape.hidden, device=device).to(dtype)
    inner, outer = problem.inner[0].detach(), problem.outer[0].detach()

    def forward() -> Callable[[], Any]:
        h, y = x @ inner.T, a @ outer.T
        return lambda: (y @ outer, y.T @ a, h @ inner, h.T @ x)

    return forward


def make_scattermoe_step(problem: Problem) -> Step:
    from scattermoe.mlp import GLUMLP, MLP

    shape = problem.shape
    functions = {"swiglu": F.silu, "geglu": F.gelu, "gelu": F.gelu, "relu2": lambda h: F.relu(h).square()}
    sizes = (shape.features, shape.hidden, shape.experts, shape.k)
    layer = (GLUMLP if problem.activation in GATED else MLP)(*sizes, activation=functions[problem.activation])
    layer = layer.to(problem.x.device, problem.x.dtype)
    weight_TK = problem.weight_A.detach().view(shape.rows, shape.k).to(problem.x.dtype).requires_grad_()
    leaves = [problem.x, *layer.parameters(), weight_TK]

    def forward() -> Callable[[], Any]:
        y = layer(problem.x, weight_TK, problem.expert_TK)
        return lambda: torch.autograd.grad(y, leaves, problem.upstream)

    return forward


def make_sonicmoe_step(problem: Problem) -> Step:
    from sonicmoe import MoE
    from sonicmoe.enums import ActivationType

    shape = problem.shape
    activation = {"swiglu": "SWIGLU", "geglu": "GEGLU", "gelu": "GELU", "relu2": "RELU_SQ"}[problem.activation]
    sizes = (shape.experts, shape.k, shape.features, shape.hidden)
    layer = MoE(*sizes, getattr(ActivationType, activation), False, 0.02).to(problem.x.device, problem.x.dtype)
    leaves = [problem.x, *layer.parameters()]

    def forward() -> Callable[[], Any]:
        y = layer(problem.x)[0]
        return lambda: torch.autograd.grad(y, leaves, problem.upstream)

    return forward


def make_steps(problem: Problem) -> dict[str, Step]:
    """The steps of the candidates that run on this machine, after one call of each."""
    makers: dict[str, Callable[[], Step]] = {
        "fused": lambda: make_step(problem, run_fused),
        "dense": lambda: make_dense_step(problem),
        "grouped": lambda: make_step(problem, run_grouped),
        "ScatterMoE": lambda: make_scattermoe_step(problem),
        "SonicMoE": lambda: make_sonicmoe_step(problem),
    }
    steps = {}
    for name, make in makers.items():
        try:
            step = make()
            step()()
        except ImportError:
            print(f"{name} is not installed")
        except Exception as error:
            if name == "fused":
                raise
            print(f"{name} does not run on this machine: {type(error).__name__}: {str(error).splitlines()[:1]}")
        else:
            steps[name] = step
    return steps


def time_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """The value of a call, and its seconds on the GPU."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    value = call()
    end.record()
    end.synchronize()
    return value, begin.elapsed_time(end) / 1e3


def measure(problem: Problem, rounds: int) -> list[Measurement]:
    """TFLOP/s of forward and backward with their ratios, and peaks of memory."""
    steps = make_steps(problem)
    prefix, rows = f"{problem.shape} {problem.activation}, ", []
    speeds: dict[str, dict[str, list[float]]] = {
        direction: {name: [] for name in steps} for direction in ("forward", "backward")
    }
    for number in range(rounds + 2):
        for name, step in steps.items():
            backward, forward_seconds = time_call(step)
            backward_seconds = time_call(backward)[1]
            del backward
            if number > 1:
                speeds["forward"][name].append(problem.forward_tflop / forward_seconds)
                speeds["backward"][name].append(2 * problem.forward_tflop / backward_seconds)
    pairs = [("fused", name) for name in steps if name != "fused"]
    for direction, values in speeds.items():
        rows += comparison_rows(values, pairs, "TFLOP/s", f"{prefix}{direction}, ")
    for name, step in steps.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        rows.append(Measurement(f"{prefix}peak memory, {name}", peak, "GiB", None, None, (peak, peak)))
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--interpret", action="store_true", help="check tiny shapes in Triton's interpreter")
    parser.add_argument("--rounds", type=int, default=20, help="counted rounds")
    parser.add_argument("--activation", choices=FEED_FORWARD, action="append", help="default: swiglu")
    parser.add_argument("--shape", type=int, choices=range(len(LARGE)), action="append", help="only this one")
    options = parser.parse_args()
    device, dtype = ("cpu", torch.float32) if options.interpret else ("cuda", torch.bfloat16)
    no_gpu = device == "cuda" and not torch.cuda.is_available()
    reason = "needs a GPU" if no_gpu else obstacle(torch.zeros(1, device=device))
    if reason is not None:
        print(f"benchmarks/gpu.py {reason}; --interpret checks tiny shapes without one")
        sys.exit(2)
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    shapes = TINY if options.interpret else [LARGE[number] for number in options.shape or range(len(LARGE))]
    rows, limit = [], 1e-5 if options.interpret else 2e-2
    for shape in shapes:
        for activation in options.activation or (FEED_FORWARD if options.interpret else ("swiglu",)):
            problem = Problem(shape, activation, device, dtype)
            if measure_error(problem) > limit:
                sys.exit(f"outputs or gradients are off by more than {limit}")
            if not options.interpret:
                torch.cuda.empty_cache()
                problem_rows = measure(problem, options.rounds)
                print_rows(problem_rows)
                rows += problem_rows
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
