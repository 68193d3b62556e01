"""What is asked: a run's folder, a fitted model, or any model with mixtures inside; and the rows it is asked about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from moebius.core.row_context import RowContext, current_context
from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.nested import map_nested, tensors_of
from moebius.lab.data.scale import UNIT, PixelScale
from moebius.lab.data.subset import find_position
from moebius.lab.data.tables.columns import TableColumns, TargetColumn
from moebius.lab.documents import RunEntry, read_document
from moebius.lab.predict.forward import computable, context_of_domain
from moebius.lab.predict.images import load_run, read_pictures
from moebius.lab.predict.rows import encode_rows
from moebius.lab.training.outcome import Trained
from moebius.tasks._choice import TaskLike, as_task
from moebius.tasks._task import ABSENT, Task
from moebius.tasks.classification import Classification
from moebius.tasks.multi_label import MultiLabel
from moebius.tasks.multi_task import MultiTask
from moebius.tasks.tokens import Tokens


@dataclass(frozen=True)
class Subject:
    """A model, and what is known about it.

    Arguments:
        model: in evaluation mode.
        task: what it has learned.
        targets: what its outputs are of; None where nothing tells.
        precision: that it computes in.
        expert_names: module path of an expert → its name.
        domains: names of the domains.
        header: `load_run`'s description of a run; empty for other models.
        run: the run's folder.
        scale: of uint8 pixels.
    """

    model: nn.Module
    task: Task
    targets: tuple[TargetColumn, ...] | None = None
    precision: str = "fp32"
    expert_names: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    header: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None
    scale: PixelScale = UNIT

    @classmethod
    def of(cls, asked: Any, task: TaskLike | None = None, classes: Sequence[str] | None = None) -> "Subject":
        """The subject that is meant by a run's folder, the result of `mb.fit`, or a model.

        Arguments:
            asked: one of these.
            task: of a model; classification unless given. A run and a fitted model know theirs.
            classes: names of the classes, or of the quantities or labels.

        Raises:
            StudyError: the folder holds no finished run.
            ArgumentError: it is none of these.
        """
        if isinstance(asked, str | Path):
            return cls._of_run(Path(asked))
        if isinstance(asked, Trained) and asked.origin is not None:
            data, fitted_task = asked.origin.data, asked.origin.task
            names = classes or data.classes
            targets = (TargetColumn("class", tuple(map(str, names))),) if names else None
            learned = as_task(task) if task is not None else fitted_task
            subject = cls(asked.model.eval(), learned.for_model(asked.model), targets, asked.origin.precision)
            return replace(subject, scale=data.scale)
        if not isinstance(asked, nn.Module):
            rule = "needs a run's folder, the result of mb.fit, or a model"
            raise ArgumentError("model", rule, type(asked).__name__, "explain(model, x)")
        learned = as_task("classification" if task is None else task).for_model(asked)
        is_class = isinstance(learned, Classification | Tokens)
        targets = (TargetColumn("class", tuple(map(str, classes))),) if classes is not None and is_class else None
        if classes is not None and not is_class:
            pair = ("no", "yes") if isinstance(learned, MultiLabel) else ()
            targets = tuple(TargetColumn(str(name), pair) for name in classes)
        return cls(asked, learned, targets)

    @classmethod
    def _of_run(cls, run: Path) -> "Subject":
        model, data = load_run(run)
        with computable(run):
            task = as_task(data["task"]).for_model(model)
            scale = PixelScale.from_values(data.get("scale"))
            columns = TableColumns.from_values(data["columns"]) if data.get("columns") is not None else None
        if columns is not None:
            targets = columns.targets
            if isinstance(task, MultiTask):
                by_name = {target.name: target for target in targets}
                targets = tuple(by_name[name] for name in task.tasks)
        else:
            targets = (TargetColumn("class", tuple(data["classes"])),) if data["classes"] else None
        alone = read_document(run / "result.json", RunEntry).get("experts_alone") or ()
        names = {path: expert["name"] for expert in alone if expert.get("name") for path in expert["paths"]}
        return cls(model, task, targets, data["precision"], names, tuple(data["domains"]), data, run, scale)

    def read(self, x: Any, domain: str | Tensor | None = None) -> tuple[Any, RowContext, list[str]]:
        """Rows as the model takes them, their context, and a name for each.

        Arguments:
            x: paths of pictures, a DataFrame, or tensors, of which uint8 pixels are scaled.
            domain: of all rows, or for each its number.

        Raises:
            StudyError: pictures for a run of a table, or rows of a table for a run of images.
            DataError: a picture or a column is missing or broken.
            ArgumentError: a domain is missing or unknown, or there are no rows.
        """
        text = domain if isinstance(domain, str) else None
        if isinstance(x, pd.DataFrame):
            if self.run is None:
                rule = "needs tensors: only a run's folder tells how a table becomes numbers"
                raise ArgumentError("x", rule, "a DataFrame", "explain(run_folder, frame)")
            _, rows, context = encode_rows(self.run, self.model, dict(self.header), x, text)
            names = [str(index) for index in x.index]
        elif self.run is not None and isinstance(x, list | tuple) and all(isinstance(each, str | Path) for each in x):
            if "size" not in self.header["facts"]:
                rule = f"{self.run}: was trained on a table, and not on images"
                raise StudyError(rule, command("moebius", "predict", self.run, "ROWS.csv"))
            names = [str(path) for path in x]
            rows = read_pictures([Path(path) for path in x], self.header) if names else torch.zeros(0)
            context = context_of_domain(self.model, text, self.domains, len(names))
        else:
            tensors = torch.as_tensor(x) if isinstance(x, np.ndarray) else x
            rows = map_nested(tensors, lambda pixels: scale_pixels(pixels, scale=self.scale))
            names = [str(row) for row in range(len(next(tensors_of(rows))))]
            context = current_context()
            if not isinstance(domain, Tensor) and self.domains:
                context = context_of_domain(self.model, text, self.domains, len(names))
        if not names:
            raise ArgumentError("x", "needs at least one row", 0, "explain(model, x[:1])")
        if isinstance(domain, Tensor):
            context = context.with_values({"domain": domain})
        return rows, context, names

    def encode_label(self, label: Any, targets: Sequence[TargetColumn], rows: int) -> Any:
        """Labels in the form of the task: names of classes become positions, numbers of a table are standardised.

        Arguments:
            label: a name or a sequence of them, a DataFrame with columns of the targets' names, or the task's own form.
            targets: of the model.
            rows: T; a single label is that of all.

        Raises:
            ArgumentError: a class is unknown, or there are not as many labels as rows.
        """
        if isinstance(label, pd.DataFrame):
            columns: Any = label  # pyright takes a column for one of several types
            encoded = {target.name: target.encode(columns[target.name], "label") for target in targets}
            return _task_form(self.task, encoded)
        if isinstance(label, Tensor | Mapping):
            return _checked(label, rows)
        values = [label] * rows if isinstance(label, str | int | float) else list(label)
        if len(targets) == 1 and targets[0].classes:
            names = targets[0].classes
            positions = [find_position(value, names, "label") if isinstance(value, str) else value for value in values]
            return _checked(torch.tensor([int(position) for position in positions]), rows)
        numbers = torch.tensor(np.asarray(values, dtype=np.float64))
        means, scales = (torch.tensor([getattr(target, name) for target in targets]) for name in ("mean", "scale"))
        numbers = numbers if len(targets) > 1 else numbers.view(len(numbers), 1)
        scaled = ((numbers - means) / scales).float()
        return _checked(scaled.squeeze(1) if len(targets) == 1 else scaled, rows)


def _task_form(task: Task, encoded: Mapping[str, Tensor]) -> Any:
    """Targets by name in the form that the task takes them."""
    if isinstance(task, MultiTask):
        return dict(encoded)
    columns = list(encoded.values())
    if isinstance(task, MultiLabel):
        return torch.stack([torch.where(column == ABSENT, torch.nan, column.float()) for column in columns], 1)
    return columns[0] if len(columns) == 1 else torch.stack(columns, 1)


def _checked(label: Any, rows: int) -> Any:
    for tensor in tensors_of(label):
        if len(tensor) != rows:
            raise ArgumentError("label", f"needs one for each of {rows} rows", len(tensor), "label=labels[:len(x)]")
    return label
