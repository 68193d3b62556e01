"""A few training steps, of one process or of two that share the rows: `python checkpointed_processes.py RANK FOLDER`.

See test_activation_checkpointing.py.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import moebius as mb

STEPS, TOKENS, DIM, EXPERTS = 4, 256, 8, 8
MODES = {"none": None, "replayed": False, "reentrant": True}


class Checkpointed(nn.Module):
    """A block whose activations are not kept; `reentrant` None keeps them."""

    def __init__(self, block, reentrant):
        super().__init__()
        self.block, self.reentrant = block, reentrant

    def forward(self, x):
        return self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)


def results(rank=0, processes=1):
    """For each mode of checkpointing: bias, rows that were recorded, and parameters after some steps."""
    return {name: _trained(mode, rank, processes) for name, mode in MODES.items()}


def _trained(reentrant, rank, processes):
    torch.manual_seed(0)
    router = mb.routers.TopK(2, "sigmoid", bias_rate=0.001, experts=EXPERTS)
    layer = mb.layers.SparseFFN(DIM, DIM, EXPERTS, router=router)
    block = nn.Sequential(nn.Linear(DIM, DIM), layer).double()
    model = Checkpointed(block, reentrant)
    run = DistributedDataParallel(model) if processes > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    biases, recorded = [], 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        # Two micro-batches: a forward of data-parallel training must leave the counts of the one before.
        for batch in torch.randn(2, TOKENS, DIM, dtype=torch.float64):
            x = batch.chunk(processes)[rank].requires_grad_()
            with mb.record(model) as log:
                run(x).square().mean().backward()
            recorded += sum(len(routing.weights) for calls in log.values() for routing in calls)
        optimizer.step()
        mb.step_routers(run)
        biases.append(router.bias.clone())
    return {"biases": biases, "recorded": recorded, "parameters": [one.detach() for one in model.parameters()]}


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.save(results(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()
