"""The candidates of `gpu.py`: forward and backward of the same experts by the library and by others."""

from collections.abc import Callable
from typing import Any

import torch
from _gpu_problem import Problem, run_fused, run_grouped
from torch import Tensor
from torch.nn import functional as F

from moebius.networks.feed_forward import GATED

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
    """SonicMoE's kernels for a routing from outside, from the hub or from the package."""
    activation = {"swiglu": "SWIGLU", "geglu": "GEGLU", "gelu": "GELU", "relu2": "RELU_SQ"}[problem.activation]
    selection, shape = problem.selection, problem.shape
    run, types = load_sonicmoe()
    inner, outer = problem.inner.permute(1, 2, 0), problem.outer.permute(1, 2, 0)
    row_A, expert_A = selection.row_A.int(), selection.expert_A.int()

    def forward() -> Callable[[], Any]:
        weight_A = problem.weight_A.to(problem.x.dtype)
        options = {"E": shape.experts, "activation_type": getattr(types, activation), "concat_layout": True}
        options |= {"is_inference_mode_enabled": False, "stream_id": None}
        y, _ = run(problem.x, weight_A, row_A, expert_A, inner, None, outer, None, **options)
        return lambda: torch.autograd.grad(y, problem.leaves, problem.upstream)

    return forward


def load_sonicmoe() -> tuple[Callable[..., Any], Any]:
    """SonicMoE's function and its activations, from `kernels-community/sonic-moe` or else from the package sonicmoe.

    Raises:
        ImportError: neither is there.
    """
    try:
        import kernels
    except ImportError:
        import sonicmoe
        from sonicmoe.enums import ActivationType

        return sonicmoe.moe_general_routing_inputs, ActivationType
    kernel = kernels.get_kernel("kernels-community/sonic-moe")
    return kernel.moe_general_routing_inputs, kernel.enums.ActivationType


def make_steps(problem: Problem) -> tuple[dict[str, Step], dict[str, str]]:
    """The steps of the candidates that run on this machine, after one call of each, and why the others do not."""
    makers: dict[str, Callable[[], Step]] = {
        "fused": lambda: make_step(problem, run_fused),
        "dense": lambda: make_dense_step(problem),
        "grouped": lambda: make_step(problem, run_grouped),
        "ScatterMoE": lambda: make_scattermoe_step(problem),
        "SonicMoE": lambda: make_sonicmoe_step(problem),
    }
    steps, reasons = {}, {}
    for name, make in makers.items():
        try:
            step = make()
            step()()
        except ImportError as error:
            reasons[name] = f"is not installed: {error}"
        except Exception as error:
            if name == "fused":
                raise
            reasons[name] = f"does not run here: {type(error).__name__}: {str(error)[:200]}"
        else:
            steps[name] = step
    return steps, reasons
