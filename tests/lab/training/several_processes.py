"""Trains the cases of test_processes.py in this process, or in all that torchrun starts: `several_processes.py FOLDER`.

The cases' names follow the folder. Each process writes what came of each case.
"""

import os
import sys
import traceback
from functools import partial
from pathlib import Path

import torch
from torch import nn

import moebius as mb
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.loop import Loop
from moebius.lab.training.process_group import launched_group
from moebius.lab.training.settings import Settings
from moebius.tasks import Classification

FEATURES, CLASSES, ROWS = 5, 3, 41
COUNT, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
GATE_LOSSES = [(mb.losses.batch_entropy, 0.1), (mb.losses.switch_balance, 0.1)]
SOFT_LOSSES = [(mb.losses.batch_entropy, 0.1), (mb.losses.importance, 0.1)]
# Six steps an epoch, 54 in all. The last batch has one row: all processes but one have none.
EPOCHS, BATCH = 9, 8
# One step of plain gradient descent, with all rows, is as long as the gradient.
ONE_STEP = {"optimizer": "sgd", "lr": 1.0, "epochs": 1, "batch_size": ROWS, "gate": {}, "accumulate": 1}


def rows(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    return x.to(dtype), (x @ torch.randn(FEATURES, CLASSES, generator=generator, dtype=torch.float64)).argmax(1)


def linear():
    return nn.Linear(FEATURES, CLASSES)


def mixture(experts, router=None, outputs=None, **options):
    gate = nn.Linear(FEATURES, len(experts) if outputs is None else outputs)
    return mb.Mixture(gate, experts, router, **options)


def unlike():
    """The last expert never gets a row."""
    wide = nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, CLASSES))
    model = mixture([linear(), wide, mb.experts.MLP(FEATURES, CLASSES, hidden=[4]), linear()], mb.routers.TopK(2))
    with torch.no_grad():
        model.gate.bias[3] = -1e3
    return model


def tree(router):
    return mixture([mixture([linear(), linear()]) for _ in range(3)], router)


def lists(router=None):
    return mixture([linear() for _ in range(4)], router)


# Name → what makes a model, and how it is trained.
CASES = {
    "top-2": (partial(lists, mb.routers.TopK(2, experts=4, bias_rate=0.01)), {"losses": GATE_LOSSES}),
    "unlike": (unlike, {"losses": GATE_LOSSES, "optimizer": "adamw"}),
    "sparse tree": (partial(tree, mb.routers.TopK(1)), {"losses": SOFT_LOSSES}),
    "accumulated": (partial(lists, mb.routers.TopK(2)), {"accumulate": 3, "losses": GATE_LOSSES, "clip_norm": 0.05}),
    "list": (lists, {"losses": SOFT_LOSSES}),
    "stack": (lambda: mixture(mb.Stack([linear() for _ in range(4)]), mb.routers.TopK(1)), {"losses": GATE_LOSSES}),
    "tree": (partial(tree, None), {"losses": SOFT_LOSSES}),
    "heads": (lambda: mixture([linear() for _ in range(3)], mb.routers.Heads(mb.routers.Soft(), 2), 6), {}),
    "inside": (lambda: nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), lists(mb.routers.TopK(1))), {}),
    "bias": (partial(lists, mb.routers.TopK(1, experts=4, bias_rate=0.01)), {}),
    "no gate": (partial(lists, mb.routers.Argmax()), {"optimizer": "adamw"}),
    "best expert": (partial(lists, mb.routers.Argmax()), {"losses": [(mb.losses.best_expert, 1.0)]}),
    "clipped": (lists, {"clip_norm": 0.05}),
    "penalised": (lists, {"l2": {"weight": 1e-2}}),
    "late gate": (lists, {"gate": {"start_epoch": 2}}),
    "annealed": (lists, {"router": {"temperature": {"kind": "linear", "start": 2.0, "end": 1.0, "epochs": 5}}}),
}


def fitted(name, dtype, folder=None, **changes):
    """What a case leaves: weights, the model's outputs, the metrics of each epoch, losses and gates of all rows."""
    build, training = CASES[name]
    torch.manual_seed(RANK)  # only the first process's weights count
    model = build().to(dtype)
    data = rows(dtype)
    settings = {"batch_size": BATCH, "lr": 0.05, **training, **changes}
    outcome = mb.fit(model, data, validation=0, test=data, folder=folder, **settings)
    with torch.no_grad():
        outputs = model(data[0])
    metrics = [{**entry["train"], **entry["test"]} for entry in outcome.metrics]
    return {
        "weights": model.state_dict(),
        "outputs": outputs,
        "metrics": metrics,
        "losses": outcome.train.losses,
        "gates": outcome.test.gates,
    }


def cohort(folder, dtype, epochs):
    """What three runs leave that train together."""
    data = build_dataset(lists().to(dtype), Classification(), rows(dtype), 0, 0, rows(dtype), None, None, "unit")
    losses = ([], SOFT_LOSSES, [(mb.losses.importance, 0.5)])
    common = {"epochs": epochs, "batch_size": BATCH if epochs > 1 else ROWS, "optimizer": {"kind": "sgd", "lr": 0.05}}
    settings = [Settings.model_validate({**common, "precision": "fp32", "losses": each}) for each in losses]
    folder = folder / f"cohort-{dtype}-{epochs}-{COUNT}-{RANK}"
    members = [Member(lambda: lists().to(dtype), each, seed, folder / str(seed)) for seed, each in enumerate(settings)]
    with launched_group("cpu"):
        loop = Loop(members, data, folder / "state" / "checkpoint.safetensors")
        assert loop.processes.count == COUNT
        return [(trained.model.state_dict(), trained.metrics, trained.train.losses) for _, trained in loop.train()]


def results(names, folder):
    """Each result by its name."""
    for name in names:
        if name == "cohort":
            yield "one step: cohort", cohort(folder, torch.float64, 1)
            yield "to the end: cohort", cohort(folder, torch.float32, EPOCHS)
        else:
            yield f"one step: {name}", fitted(name, torch.float64, **ONE_STEP)
            yield f"to the end: {name}", fitted(name, torch.float32, epochs=EPOCHS)


if __name__ == "__main__":
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    try:
        torch.save(dict(results(names, folder)), folder / f"{COUNT}-{RANK}.pt")
    except Exception:
        sys.exit(traceback.format_exc())  # the others wait for what this process does not do
