"""One of two processes, of which the second is killed in the third epoch: `lost_process.py RANK FOLDER`."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

import moebius as mb
from moebius.kit.errors import LostProcessError


def train(folder, is_killed=False):
    """The metrics of each epoch; the killed process ends at a moment when the others wait for it."""

    def rate(epoch):
        if is_killed and epoch > 2.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.02

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 5, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    moe = mb.Mixture(nn.Linear(5, 4), [nn.Linear(5, 2) for _ in range(4)], mb.routers.TopK(2)).double()
    losses = [(mb.losses.switch_balance, 0.05)]
    data = (x, (x[:, 0] > 0).long())
    return mb.fit(moe, data, epochs=5, batch_size=16, lr=rate, losses=losses, folder=folder).metrics


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", (folder / "meeting").as_uri(), rank=rank, world_size=2)
    try:
        train(folder / "run", is_killed=rank == 1)
    except LostProcessError as error:
        sys.exit(str(error))
