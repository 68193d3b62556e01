"""The dense layers that a sparse one is measured against, and the limit of the memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from moebius.lab.bench.timing import in_turn, seconds

# A dense layer is tried with its rows in pieces of these sizes: pieces whose hidden layer stays in the cache are
# faster on a CPU, larger ones on a GPU.
CHUNKS = (512, 1024, 2048)


def chunked(network: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """The network on all rows, at most `chunk` at a time.

    Example:
        >>> chunked(nn.Linear(4, 3), torch.zeros(10, 4), 4).shape
        torch.Size([10, 3])
    """
    return network(x) if chunk >= len(x) else torch.cat([network(piece) for piece in x.split(chunk)])


def forward(network: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """A candidate: the network without gradients."""

    @torch.no_grad()
    def call() -> None:
        network(x)

    return call


def step(network: nn.Module, x: Tensor, chunk: int | None = None) -> Callable[[], None]:
    """A candidate: forward, and backward to all parameters and the rows; gradients are None before."""
    x = x.detach().requires_grad_()
    upstream = torch.randn_like(x)

    def call() -> None:
        network.zero_grad(set_to_none=True)
        x.grad = None
        y = network(x) if chunk is None else chunked(network, x, chunk)
        y.backward(upstream)

    return call


def best_chunk(
    make: Callable[[int], Callable[[], None]], rows: int, wait: Callable[[], None] | None = None, rounds: int = 2
) -> int:
    """The number of rows at a time with which a candidate is fastest; `rows` for all at once."""
    sizes = [chunk for chunk in CHUNKS if chunk < rows] + [rows]
    times = seconds(in_turn({str(size): make(size) for size in sizes}, rounds, wait))
    return min(sizes, key=lambda size: min(times[str(size)]))


def moved(size: int, device: str) -> dict[str, tuple[Callable[[], object], int]]:
    """What measures the memory: a name, what to call, and how many bytes that moves.

    `write` fills a tensor of about `size` bytes, `copy` reads one and writes another.
    """
    count = max(size // 4, 1)
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    return {"write": (lambda: target.fill_(1.0), 4 * count), "copy": (lambda: target.copy_(source), 8 * count)}
