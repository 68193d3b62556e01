"""`explain`: why a model said what it said of each row."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.predict.explanation import Explanation
from moebius.lab.predict.subject import Subject
from moebius.tasks._choice import TaskLike


def explain(
    asked: Any,
    x: Any,
    label: Any = None,
    *,
    task: TaskLike | None = None,
    classes: Sequence[str] | None = None,
    domain: str | Tensor | None = None,
    names: Sequence[str] | None = None,
    top: int = 3,
    alternatives: bool | None = None,
) -> list[Explanation]:
    """Why a model says what it says of each row: the route, runners-up, what every expert would say, regret.

    The model runs once on all rows, as `predict` runs it. Then it runs once for every expert of every gate, with that
    gate sending all rows to it with weight 1 (and the gates around it sending them there): that is what an expert says,
    whether it was asked or not, also for experts that give features and no answer.

    Arguments:
        asked: a run's folder, the result of `mb.fit`, or any model with mixtures inside.
        x: rows as the model takes them; for a run also paths of pictures, or a DataFrame.
        label: a class by name or number, numbers in the units of the table, or the task's own form, for each row; a
            single one for all. Of a DataFrame the columns of the targets' names, where it has them.
        task: of a model, classification unless given; a run and a fitted model know theirs.
        classes: names of the classes, or of quantities or labels.
        domain: of the rows, for gates that route by it.
        names: of the rows.
        top: number of most probable classes.
        alternatives: False to leave out what experts would say; True for models with more than 128 experts in
            all.

    Raises:
        StudyError: the folder holds no finished run.
        DataError: a picture or a column is missing or broken.
        ArgumentError: a label does not fit the model, or a domain is missing or unknown.

    Example:
        >>> import torch, moebius as mb
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> moe = mb.Mixture(mb.gates.Linear(4, 3), [nn.Linear(4, 2) for _ in range(3)], mb.routers.TopK(1))
        >>> (why,) = explain(moe, torch.ones(1, 4), label=[1])
        >>> [expert.expert for expert in why.route], why.gates[0].runners_up[0].expert, round(why.regret, 3)
        ([1], 2, 0.157)

    Reference: ours.
    """
    subject = Subject.of(asked, task, classes)
    rows, context, row_names = subject.read(x, domain)
    if label is None and hasattr(x, "columns") and subject.targets:
        present = all(target.name in x for target in subject.targets)
        label = x if present else None
    return [*ExplainedRows(subject, rows, context, names or row_names, label, top, alternatives)]
