"""Trains in this process or in several, some of which are killed: `lost_process.py DROPOUT KILLED FOLDER…`.

DROPOUT is a probability, KILLED the numbers of processes that are killed in the third epoch, such as 0,1; a name that
is no number kills none. Each folder is trained in turn; the first process writes the weights beside it.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import LostProcessError

RANK = os.environ.get("RANK", "0")


def train(folder, dropout, killed=()):
    """The outcome; a killed process ends at a moment when the others wait for it."""

    def rate(epoch):
        if RANK in killed and epoch > 2.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.02

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 5, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Dropout(dropout), nn.Linear(5, 2)) for _ in range(4)]
    moe = mb.Mixture(nn.Linear(5, 4), experts, mb.routers.TopK(2, experts=4, bias_rate=0.01)).double()
    losses = [(mb.losses.switch_balance, 0.05)]
    data = (x, (x[:, 0] > 0).long())
    options = {"epochs": 5, "batch_size": 16, "lr": rate, "losses": losses, "checkpoint_seconds": 1e-6}
    outcome = mb.fit(moe, data, folder=folder, **options)
    if RANK == "0":
        torch.save((moe.state_dict(), outcome.metrics), folder.with_suffix(".pt"))
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        for folder in sys.argv[3:]:
            train(Path(folder), float(sys.argv[1]), sys.argv[2].split(","))
    except LostProcessError as error:
        sys.exit(str(error))
