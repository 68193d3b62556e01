"""Steps leave their figures on the device: nothing of an epoch is read before its end."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from moebius.lab.training import step_clock
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop

CONV = {"experts": {"kind": "conv", "count": 3, "filters": [4, 4], "hidden": [8]}, "combine": {"kind": "weighted_sum"}}
TOP_1 = {**CONV, "router": {"kind": "top_k", "k": 1}}
TOP_2 = {
    "experts": {"kind": "linear", "count": 3},
    "router": {"kind": "top_k", "k": 2, "bias_rate": 0.01, "experts": 3},
    "combine": {"kind": "weighted_sum"},
}
GATE_LOSS = {"losses": [{"kind": "batch_entropy", "weight": 0.1}], "clip_norm": 1.0}


class Reads(TorchDispatchMode):
    """Counts operations whose results depend on numbers of a tensor: on a GPU each waits for all steps before it."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple) else []
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if by_mask or name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2"):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts what copies a tensor's numbers to Python, or Python's to a tensor; torch dispatches no operation there."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        from_tensor = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu)
        if func in (*from_tensor, torch.tensor, torch.as_tensor):
            self.names[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("model", "training", "runs", "of_step"),
    [
        ({}, {}, 1, {}),
        ({}, {}, 3, {}),  # a cohort
        ({}, GATE_LOSS, 1, {}),
        ({}, GATE_LOSS, 2, {}),
        ({}, {"l2": {"weight": 1e-4}, "accumulate": 2}, 1, {}),
        (TOP_2, {}, 1, {}),
        # Experts that are called one by one get as many rows as the routing says: that is read, and nothing else.
        (TOP_1, {}, 1, {"tolist": 1}),
    ],
    ids=["mixture", "cohort", "losses", "losses of a cohort", "l2", "top-2", "top-1"],
)
def test_an_epoch_is_read_once(model, training, runs, of_step, small_data, settings, build, tmp_path, monkeypatch):
    monkeypatch.setattr(step_clock, "EVENT_SECONDS", 1e9)
    data = small_data(train_rows=200)
    settings = settings(checkpoint_seconds=1e9, batch_size=20, **training)
    members = [Member(build(data, **model), settings, seed, tmp_path / str(seed)) for seed in range(runs)]
    loop = Loop(members, data, tmp_path / "checkpoint.safetensors")
    loop.train_epoch()  # its first step is read before the update, and saved
    for record in loop.records:
        record.progress = replace(record.progress, batch=0, epoch=1)
    with Copies() as copies, Reads() as reads:
        loop.train_epoch()
    assert not reads.names
    steps = Counter({name: number * loop.steps_per_epoch for name, number in of_step.items()})
    # All terms of the epoch, and all scores.
    assert copies.names == steps + Counter({"tolist": 2})


def test_what_counts_as_a_read():
    with Copies() as copies, Reads() as reads:
        x = torch.tensor([1.0, torch.nan])
        assert x.isnan().any()
        x[x > 0].sum().item()
        x.tolist()
    assert reads.names == {"_local_scalar_dense": 2, "index": 1}
    assert copies.names == {"tensor": 1, "tolist": 1}
