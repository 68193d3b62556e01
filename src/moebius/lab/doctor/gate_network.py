"""The gate's own architecture as a model of the task: what a mixture has to beat to be worth its experts."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from moebius.gates.uniform import Uniform
from moebius.lab.data.split import Dataset, Split
from moebius.lab.illnesses._examination import Examination, Outcome
from moebius.lab.remedies._gate_network import gate_network
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import evaluate
from moebius.lab.training.fit import fit
from moebius.layers.mixture import Mixture
from moebius.tasks._task import Task

# Rows that it is trained on at most, and the share of them that decides when it has learned enough.
MOST_ROWS = 20_000
HELD_OUT = 0.1
EPOCHS = 40


def with_gate_network(
    gate: Examination, call: ModelCall, task: Task, train: Split, rows: Split, seed: int = 0
) -> Examination:
    """The examination with the outcome of the gate's network, trained anew on the task without any experts.

    Its last linear layer gets the number of the model's outputs. It is trained by Adam with a rate of .003, which
    halves where the loss on held-out rows does not fall, until that has not fallen for 6 epochs, and keeps the best.

    Arguments:
        gate: of a mixture that is the whole model; any other comes back as it is, and so does one whose gate has no
            linear layer at its end.
        call: the model.
        task: what is learned, for this model.
        train: rows that are not examined.
        rows: that are examined.
        seed: of everything random.
    """
    model = call.model
    if not isinstance(model, Mixture) or not gate.outermost or len(gate.rows) != len(rows):
        return gate
    (first,) = evaluate(call, task, rows.take(slice(0, 1)))
    if len(first.shape) != 1 or not isinstance(rows.images, Tensor):
        return gate
    network = gate_network(model.gate, first.shape[0], seed)
    if network is None:
        return gate
    alone = Mixture(Uniform(1), [network])
    device = rows.device
    order = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(train))[:MOST_ROWS]).to(train.device)
    count = max(round(HELD_OUT * len(order)), 1)
    held_out, fitted = (train.take(part).to(device) for part in (order[:count], order[count:]))
    fit(
        alone,
        Dataset(fitted, held_out, held_out, (), ("rows",), "rows that are not examined"),
        "experts",
        task=task,
        seed=seed,
        device="cuda" if device.type == "cuda" else "cpu",
        progress=False,
        epochs=EPOCHS,
        lr=0.003,
        precision=call.precision,
        watch={"measure": "loss", "patience": 6, "plateau": {"patience": 2}},
    )
    (evaluation,) = evaluate(replace(call, model=alone), task.for_model(alone), rows)
    return replace(gate, network=Outcome(evaluation.losses, evaluation.scores))
