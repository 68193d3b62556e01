"""The bare products of a sparse layer: the time that is left if nothing but products takes any."""

from collections.abc import Callable

import torch

from moebius.lab.bench.workload import DTYPES, Workload
from moebius.networks.feed_forward import GATED


def segment_rows(workload: Workload) -> int:
    """The number of rows of each expert where all have the same, at least 1.

    Example:
        >>> segment_rows(Workload(experts=64, k=2, rows=4096))
        128
    """
    return max(1, workload.assignments // workload.experts)


def bare_products(workload: Workload, mode: str) -> Callable[[], None]:
    """A function that multiplies each expert's rows with its weights, and writes over the results of the call before.

    A forward has two products an expert, a backward four more: two with the weights and two for their gradients. There
    are no gate, no activations, no biases, no sums and no allocations, and every expert has the same number of rows.

    Arguments:
        workload: the shapes.
        mode: "forward" or "forward+backward".

    Example:
        >>> bare_products(Workload(dim=4, hidden=8, experts=2, k=1, rows=6), "forward+backward")()
    """
    rows, width = segment_rows(workload), workload.hidden
    inner_width = 2 * width if workload.activation in GATED else width

    def stack(*shape: int) -> torch.Tensor:
        dtype = DTYPES[workload.dtype]
        return torch.full((workload.experts, *shape), 0.01, dtype=dtype, device=workload.device)

    x, y, dx = (stack(rows, workload.dim) for _ in range(3))
    hidden, dhidden = stack(rows, inner_width), stack(rows, inner_width)
    inner, outer = stack(inner_width, workload.dim), stack(workload.dim, width)
    backward = mode == "forward+backward"
    dinner, douter = (torch.empty_like(inner), torch.empty_like(outer)) if backward else (inner, outer)

    @torch.no_grad()
    def call() -> None:
        for expert in range(workload.experts):
            torch.mm(x[expert], inner[expert].t(), out=hidden[expert])
            torch.mm(hidden[expert, :, :width], outer[expert].t(), out=y[expert])
        for expert in range(workload.experts if backward else 0):
            torch.mm(y[expert], outer[expert], out=dhidden[expert, :, :width])
            torch.mm(y[expert].t(), hidden[expert, :, :width], out=douter[expert])
            torch.mm(dhidden[expert], inner[expert], out=dx[expert])
            torch.mm(dhidden[expert].t(), x[expert], out=dinner[expert])

    return call
