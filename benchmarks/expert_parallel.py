"""What `expert_parallel` costs with one process: `python benchmarks/expert_parallel.py`.

Prints the median time of a training step of a SparseFFN layer, plain and distributed over a mesh of one process, in
turns, and the median of the ratios of neighbours with their quartiles. With one process the model is left as it is; the
gradients are reduced and clipped.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moebius as mb

STEPS = 200


def step(layer, optimizer, x, is_distributed):
    begin = time.perf_counter()
    optimizer.zero_grad()
    layer(x).square().mean().backward()
    if is_distributed:
        mb.distributed.reduce_gradients(layer)
    clip = mb.distributed.clip_grad_norm_ if is_distributed else torch.nn.utils.clip_grad_norm_
    clip(layer.parameters(), 1.0)
    optimizer.step()
    return time.perf_counter() - begin


def main():
    meeting = Path(tempfile.mkdtemp()) / "meeting"
    dist.init_process_group("gloo", meeting.as_uri(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    layers = [mb.layers.SparseFFN(256, 512, experts=16, k=2) for _ in range(2)]
    mb.distributed.expert_parallel(layers[1], mesh)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=1e-3) for layer in layers]
    x, times = torch.randn(1024, 256), ([], [])
    for _ in range(STEPS):
        for which in range(2):
            times[which].append(step(layers[which], optimizers[which], x, bool(which)))
    kept = [values[STEPS // 4 :] for values in times]
    plain, distributed = map(statistics.median, kept)
    low, ratio, high = statistics.quantiles([after / before for before, after in zip(*kept, strict=True)], n=4)
    print(
        f"plain {plain * 1e3:.2f} ms, one process {distributed * 1e3:.2f} ms, "
        f"ratio {ratio:.3f}, quartiles {low:.3f} and {high:.3f}"
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
