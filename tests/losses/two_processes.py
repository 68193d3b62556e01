"""One of two processes that train together: `python two_processes.py RANK FOLDER`; see test_processes.py."""

import inspect
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

ROWS = 7
# How many rows the first process has: unlike many, and none left for the second.
SPLITS = (5, 7)


def results(rows=slice(None)):
    """Value and gradients (gate, experts) of each loss of these rows; gradients are the mean over processes."""
    found = {}
    for kind in kinds("losses"):
        names = inspect.signature(find("losses", kind)).parameters
        options = {"temperature": 0.5, "balanced": 3} if "balanced" in names else {}
        found[kind] = _result(kind, rows, options, "expert_losses" in names)
    return found


def _result(kind, rows, options, compares):
    torch.manual_seed(0)
    x = torch.randn(ROWS, 3, dtype=torch.float64)[rows]
    gate, experts = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    scores, expert_losses = gate(x), experts(x).square()
    routing = Soft(normalisation="relu" if kind == "l1" else "softmax")(scores)
    aux = {"load": scores.sigmoid(), "open": scores.sigmoid(), "selectors": scores.softmax(-1).unsqueeze(1)}
    aux |= {"reconstruction": scores.square().sum(1), "kl": scores.exp().sum(1)}
    routing = replace(routing, aux=aux, outputs=torch.stack([expert_losses, -expert_losses], -1))
    loss = find("losses", kind)(*((routing, expert_losses) if compares else (routing,)), **options)
    loss.backward()
    gradients = [torch.zeros_like(part) if part.grad is None else part.grad for part in (gate.weight, experts.weight)]
    if dist.is_initialized():
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    return [loss.detach(), *gradients]


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    parts = [slice(0, first) if rank == 0 else slice(first, ROWS) for first in SPLITS]
    torch.save([results(part) for part in parts], folder / f"{rank}.pt")
    dist.destroy_process_group()
