"""The outcome of a model that is finished already, however it was trained."""

from typing import Any

from torch import nn

from moebius.lab.data.split import Dataset
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import evaluate
from moebius.lab.training.expert_alone import experts_alone, oracle, position_oracle
from moebius.lab.training.mixture_parts import chooses_experts
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.lab.training.outcome import Trained
from moebius.layers.position_mixture import PositionMixture
from moebius.tasks._task import Task
from moebius.tasks.tokens import Tokens


def evaluate_finished(model: nn.Module, task: Task, data: Dataset, has_train: bool) -> Trained:
    """Evaluate a model as it is, with its experts by themselves; it is left as it was.

    Arguments:
        model: with mixtures inside.
        task: what it has learned, as its outputs are to be read.
        data: the rows, on the model's device.
        has_train: whether the training rows are evaluated, too.
    """
    call, splits = ModelCall(model), {"test": data.test}
    if has_train:
        splits = {"train": data.train, **splits}
    evaluations = {name: evaluate(call, task, split)[0] for name, split in splits.items()}
    test, one_expert, alone, best = evaluations["test"], None, (), None
    if chooses_experts(model):
        with cut_to_one_expert(model):
            (one_expert,) = evaluate(call, task, data.test)
        alone = experts_alone(call, task, data.test, test.shape)
        is_by_position = isinstance(model, PositionMixture) and isinstance(task, Tokens)
        best = position_oracle(alone, task, data.test.labels) if is_by_position else oracle(alone)  # type: ignore[arg-type]
    entry: dict[str, Any] = {"epoch": 0, "gates": {gate: test.gate_summary(gate) for gate in test.gates}}
    for name, rows in evaluations.items():
        by_domain = {f"{task.score_name}_by_domain": rows.score_by_domain(data.groups)}
        entry[name] = {task.score_name: rows.score, "loss": rows.loss, **by_domain}
    return Trained(model, 0, [entry], evaluations, one_expert, alone, (), best)
