"""Calls to time: of layers, of dense layers in chunks of rows, and of memory transfers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from moebius.lab.bench.timing import durations, time_in_turn

# Numbers of rows for which a dense layer is tried: on a CPU chunks whose hidden layer stays in the cache are faster, on
# a GPU larger ones.
CHUNKS = (512, 1024, 2048)


def run_in_chunks(network: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """The network's outputs for all rows, computed for at most `chunk` rows at a time.

    Example:
        >>> run_in_chunks(nn.Linear(4, 3), torch.zeros(10, 4), 4).shape
        torch.Size([10, 3])
    """
    return network(x) if chunk >= len(x) else torch.cat([network(rows) for rows in x.split(chunk)])


def forward_call(network: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """A function that runs the network on `x` without gradients."""

    @torch.no_grad()
    def call() -> None:
        network(x)

    return call


def step_call(network: nn.Module, x: Tensor, chunk: int | None = None) -> Callable[[], None]:
    """A function that runs the network forward on `x`, and backward to all parameters and to `x`.

    Every call sets the gradients to None first.

    Arguments:
        network: the layer.
        x: its inputs.
        chunk: largest number of rows at a time; None = all.
    """
    x = x.detach().requires_grad_()
    upstream = torch.randn_like(x)

    def call() -> None:
        network.zero_grad(set_to_none=True)
        x.grad = None
        y = network(x) if chunk is None else run_in_chunks(network, x, chunk)
        y.backward(upstream)

    return call


def find_best_chunk(
    make_call: Callable[[int], Callable[[], None]],
    rows: int,
    wait: Callable[[], None] | None = None,
    rounds: int = 2,
) -> int:
    """The number of rows at a time with which a call is fastest.

    Arguments:
        make_call: makes the call for a number of rows at a time.
        rows: number of all rows, which is tried too.
        wait, rounds: as in `time_in_turn`.
    """
    sizes = [chunk for chunk in CHUNKS if chunk < rows] + [rows]
    times = durations(time_in_turn({str(size): make_call(size) for size in sizes}, rounds, wait))
    return min(sizes, key=lambda size: min(times[str(size)]))


def memory_transfers(size: int, device: str) -> dict[str, tuple[Callable[[], object], int]]:
    """Calls that write to memory or copy in it, with the number of bytes that each transfers.

    `write` fills a tensor of about `size` bytes; `copy` reads such a tensor and writes another.

    Arguments:
        size: bytes of a tensor.
        device: where the tensors are.
    """
    count = max(size // 4, 1)
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    return {"write": (lambda: target.fill_(1.0), 4 * count), "copy": (lambda: target.copy_(source), 8 * count)}
