"""One of several processes that train together: `python several_processes.py COUNT RANK FOLDER`; for test_processes."""

import sys
import traceback
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

import moebius as mb
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.loop import Loop
from moebius.lab.training.settings import Settings
from moebius.tasks import Classification

FEATURES, CLASSES, ROWS = 5, 3, 41
GATE_LOSSES = [(mb.losses.batch_entropy, 0.1), (mb.losses.switch_balance, 0.1)]
SOFT_LOSSES = [(mb.losses.batch_entropy, 0.1), (mb.losses.importance, 0.1)]
# The last batch has one row: most processes have none.
# Epochs, of six steps each.
LONG = 2
SHORT = {"batch_size": 8, "lr": 0.05}


def rows(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    return x.to(dtype), (x @ torch.randn(FEATURES, CLASSES, generator=generator, dtype=torch.float64)).argmax(1)


def linear():
    return nn.Linear(FEATURES, CLASSES)


def mixture(experts, router=None, outputs=None, **options):
    gate = nn.Linear(FEATURES, len(experts) if outputs is None else outputs)
    return mb.Mixture(gate, experts, router, **options)


def unlike():
    wide = nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, CLASSES))
    return mixture([linear(), wide, mb.experts.MLP(FEATURES, CLASSES, hidden=[4])], mb.routers.TopK(2))


def tree(router):
    return mixture([mixture([linear(), linear()]) for _ in range(3)], router)


def lists(router=None):
    return mixture([linear() for _ in range(4)], router)


# Name → what makes a model, and how it is trained.
CASES = {
    "list": (lists, {"losses": SOFT_LOSSES}),
    "top-2": (partial(lists, mb.routers.TopK(2)), {"losses": GATE_LOSSES}),
    "stack": (lambda: mixture(mb.Stack([linear() for _ in range(4)]), mb.routers.TopK(1)), {"losses": GATE_LOSSES}),
    "tree": (partial(tree, None), {"losses": SOFT_LOSSES}),
    "sparse tree": (partial(tree, mb.routers.TopK(1)), {"losses": SOFT_LOSSES}),
    "unlike": (unlike, {"losses": GATE_LOSSES, "optimizer": "adamw"}),
    "heads": (lambda: mixture([linear() for _ in range(3)], mb.routers.Heads(mb.routers.Soft(), 2), 6), {}),
    "inside": (lambda: nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), lists(mb.routers.TopK(1))), {}),
    "bias": (partial(lists, mb.routers.TopK(1, experts=4, bias_rate=0.01)), {}),
    "no gate": (partial(lists, mb.routers.Argmax()), {"optimizer": "adamw"}),
    "best expert": (partial(lists, mb.routers.Argmax()), {"losses": [(mb.losses.best_expert, 1.0)]}),
    "accumulated": (partial(lists, mb.routers.TopK(2)), {"accumulate": 3, "losses": GATE_LOSSES}),
    "clipped": (lists, {"clip_norm": 0.05}),
    "penalised": (lists, {"l2": {"weight": 1e-2}}),
    "late gate": (lists, {"gate": {"start_epoch": 2}}),
    "annealed": (lists, {"router": {"temperature": {"kind": "linear", "start": 2.0, "end": 1.0, "epochs": 5}}}),
}


def fitted(name, dtype, folder=None, **changes):
    """What a case leaves: weights, the metrics of each epoch, and the losses of all rows."""
    build, training = CASES[name]
    torch.manual_seed(dist.get_rank() if dist.is_initialized() else 0)  # only the first process's weights count
    model = build().to(dtype)
    data = rows(dtype)
    outcome = mb.fit(model, data, validation=0, test=data, folder=folder, **{**SHORT, **training, **changes})
    metrics = [{**entry["train"], **entry["test"]} for entry in outcome.metrics]
    return model.state_dict(), metrics, outcome.train.losses, outcome.test.gates


def cohort(dtype, epochs):
    """The weights of three runs that train together."""
    data = build_dataset(lists().to(dtype), Classification(), rows(dtype), 0, 0, rows(dtype), None, None, "unit")
    losses = ([], SOFT_LOSSES, [(mb.losses.importance, 0.5)])
    common = {"epochs": epochs, "batch_size": 8 if epochs > 1 else ROWS, "optimizer": {"kind": "sgd", "lr": 0.05}}
    settings = [Settings.model_validate({**common, "precision": "fp32", "losses": each}) for each in losses]
    folder = FOLDER / f"cohort-{dtype}-{epochs}-{dist.get_rank() if dist.is_initialized() else 'alone'}"
    members = [Member(lambda: lists().to(dtype), each, seed, folder / str(seed)) for seed, each in enumerate(settings)]
    outcomes = Loop(members, data, folder / "state" / "checkpoint.safetensors").train()
    return [(trained.model.state_dict(), trained.metrics, trained.train.losses) for _, trained in outcomes]


def first_step(name):
    """The weights after one step of plain gradient descent: the gradients."""
    plain = {"optimizer": "sgd", "lr": 1.0, "epochs": 1, "batch_size": ROWS, "gate": {}, "accumulate": 1}
    return fitted(name, torch.float64, **plain)


def long_run(name):
    return fitted(name, torch.float32, epochs=LONG)


def results():
    """Each result by its name."""
    yield from ((f"first {name}", partial(first_step, name)) for name in CASES)
    yield from ((f"long {name}", partial(long_run, name)) for name in CASES)
    yield "first cohort", partial(cohort, torch.float64, 1)
    yield "long cohort", partial(cohort, torch.float32, LONG)


if __name__ == "__main__":
    count, rank, FOLDER = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    if count > 1:
        meeting = (FOLDER / f"meeting-{count}").as_uri()
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=60))
    kept = {}
    for name, compute in results():
        try:
            kept[name] = compute()
        except Exception:
            # The others wait for what this process does not do.
            sys.exit(f"{name}: {traceback.format_exc()}")
    torch.save(kept, FOLDER / f"{count}-{rank}.pt")
    if count > 1:
        dist.destroy_process_group()
