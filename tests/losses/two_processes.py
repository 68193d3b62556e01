"""One of two processes that train together: `python two_processes.py RANK FOLDER`; see test_processes.py."""

import runpy
import sys
from datetime import timedelta
from inspect import signature
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from moebius.kit.registry import find, kinds

ROUTINGS = runpy.run_path(str(Path(__file__).with_name("routings.py")))
ROWS = 7
# Numbers of rows of the first process: one leaves the second fewer, one leaves it none.
SPLITS = (5, 7)


def results(rows=slice(None)):
    """Value and gradients (gate, experts) of each loss of these rows; gradients are the mean over processes."""
    return {kind: _result(kind, rows) for kind in kinds("losses")}


def _result(kind, rows):
    torch.manual_seed(0)
    x = torch.randn(ROWS, 3, dtype=torch.float64)[rows]
    gate, experts = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    scores, expert_losses = gate(x), experts(x).square()
    routing = ROUTINGS["complete_routing"](kind, scores, expert_losses)
    options = {"temperature": 0.5, "balanced": 3} if "balanced" in signature(find("losses", kind)).parameters else {}
    loss = ROUTINGS["call_loss"](kind, routing, expert_losses, **options)
    loss.backward()
    weights = (gate.weight, experts.weight)
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    if dist.is_initialized():
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    return [loss.detach(), *gradients]


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    rendezvous = (folder / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    parts = [slice(0, first) if rank == 0 else slice(first, ROWS) for first in SPLITS]
    torch.save([results(part) for part in parts], folder / f"{rank}.pt")
    dist.destroy_process_group()
