"""Calls of mb.fit in two processes, which differ or stand beside others: `calls_in_two.py FOLDER`.

Each process writes what came of each call.
"""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import moebius as mb

RANK = int(os.environ["RANK"])
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 4, generator=GENERATOR, dtype=torch.float64)
Y = (X[:, 0] > 0).long()


def mixture(*layers, router=None):
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Linear(4, 2), *layers) for _ in range(2)]
    return mb.Mixture(nn.Linear(4, 2), experts, router).double()


def fitted(model=None, data=(X, Y), **options):
    """The loss of each epoch."""
    settings = {"epochs": 2, "batch_size": 10, "optimizer": {"kind": "sgd", "lr": 0.1}, "validation": 0, **options}
    outcome = mb.fit(mixture() if model is None else model, data, **settings)
    return [entry["train"]["loss"] for entry in outcome.metrics]


def different(first, second):
    return (first, second)[RANK]


def callbacks():
    """How often each process's callbacks are called, and what training they do inside."""
    heard = []

    def hear(moment):
        heard.append(fitted(epochs=1))  # a training of the first process alone
        return moment.epoch == 2

    losses = fitted(epochs=5, on_epoch=hear)
    return len(heard), losses


def broken_callback():
    def end(moment):
        raise ValueError("no more")

    return fitted(on_epoch=end)


@contextmanager
def group_of(name):
    """A process group that is not mb.fit's."""
    place = Path(sys.argv[1]).absolute() / name
    dist.init_process_group("gloo", place.as_uri(), rank=RANK, world_size=2)
    try:
        yield
    finally:
        dist.destroy_process_group()


@group_of("sharded")
def fully_sharded():
    return fitted(fully_shard(mixture(), mesh=init_device_mesh("cpu", (2,))))


@group_of("beside")
def beside_a_group():
    """A group of the user is used, and left as it is."""
    return fitted(), dist.is_initialized()


def after():
    """No group is left, and a second call begins another one."""
    return [fitted(), dist.is_initialized(), fitted(), dist.is_initialized()]


def alone():
    """Of rows that differ; a call inside of a callback is alone, too."""
    rows = different(slice(0, 20), slice(20, 40))
    inside = []
    losses = fitted(data=(X[rows], Y[rows]), processes="alone", on_epoch=lambda moment: inside.append(fitted()))
    return losses, inside


@group_of("own")
def own_loop():
    """How many rows the mixtures inside of experts get in a step that is not mb.fit's; no row reaches the second."""
    torch.manual_seed(0)
    moe = mb.Mixture(nn.Linear(4, 2), [mixture(), mixture()], mb.routers.TopK(1)).double()
    with torch.no_grad():
        moe.gate.bias[1] = -1e3
    rows = []
    for expert in moe.experts:
        expert.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    moe(X).sum().backward()
    return rows


CALLS = {
    "first": fitted,
    "rows": lambda: fitted(data=(X + RANK, Y)),
    "fewer rows": lambda: fitted(data=(X[RANK:], Y[RANK:])),
    "labels": lambda: fitted(data=(X, different(Y, 1 - Y))),
    "batch_size": lambda: fitted(batch_size=different(10, 20)),
    "optimizer": lambda: fitted(optimizer={"kind": "sgd", "lr": different(0.1, 0.2)}),
    "losses": lambda: fitted(losses=[(mb.losses.importance, different(0.1, 0.2))]),
    "seed": lambda: fitted(seed=RANK),
    "model": lambda: fitted(mixture(nn.Dropout(different(0.1, 0.2)))),
    "frozen": lambda: fitted(trains=different("both", "gate")),
    "callbacks": lambda: fitted(on_epoch=different([], print)),
    "small batch": lambda: fitted(batch_size=1),
    "batch norm": lambda: fitted(mixture(nn.BatchNorm1d(2))),
    "synchronised": lambda: fitted(nn.SyncBatchNorm.convert_sync_batchnorm(mixture(nn.BatchNorm1d(2)))),
    "fully sharded": fully_sharded,
    "called": callbacks,
    "broken callback": broken_callback,
    "beside a group": beside_a_group,
    "alone": alone,
    "own loop": own_loop,
    "after": after,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {}
    for name, call in CALLS.items():
        try:
            results[name] = call()
        except Exception as error:
            results[name] = [type(error).__name__, *str(error).splitlines()]
        (Path(sys.argv[1]) / f"{RANK}.json").write_text(json.dumps(results))
