"""Checks the `task` of a recipe, and whether its other keys fit what is learned."""

from collections.abc import Mapping
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.checks.components import check_component
from moebius.lab.checks.problems import Path, Problem, from_argument_error, inner_mapping
from moebius.tasks import Classification
from moebius.tasks._choice import as_task
from moebius.tasks._task import Task
from moebius.tasks.multi_task import MultiTask

# How many classes a target is taken to have before data are read.
CLASSES = 10


def check_task(raw: Mapping[str, Any]) -> tuple[Task, list[Problem]]:
    """The task of a recipe, classification where it is wrong, and the problems of its spec and of keys for classes.

    Arguments:
        raw: plain values of the recipe.
    """
    spec = raw.get("task", "classification")
    problems = _check_spec(spec, ("task",))
    if problems:
        return Classification(), problems
    try:
        task = as_task(spec)
    except ArgumentError as error:
        return Classification(), [from_argument_error(error, ("task",))]
    return task, [] if task.target_type == "classes" else _check_classes(raw)


def count_outputs(task: Task, data: Mapping[str, Any], classes: int) -> int | dict[str, int]:
    """The number of outputs that models need, before data are read; by name for several tasks.

    Arguments:
        task: what is learned.
        data: the `data` part of a recipe.
        classes: the number of classes of the images.

    Example:
        >>> from moebius.tasks import Regression
        >>> count_outputs(Regression(), {"sets": [{"kind": "csv", "target": ["height", "weight"]}]}, 10)
        2
    """
    if isinstance(task, MultiTask):
        return {
            name: each.count_outputs(["class"] * (classes if each.target_type == "classes" else 1))
            for name, each in task.tasks.items()
        }
    sets = data.get("sets")
    source = sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], Mapping) else {}
    targets = source.get("target", "target")
    columns = len(targets) if isinstance(targets, list) else 1
    return task.count_outputs(["name"] * (columns if task.target_type in ("numbers", "labels") else classes))


def _check_spec(spec: Any, path: Path) -> list[Problem]:
    if isinstance(spec, str):
        spec = {"kind": spec}
    if not isinstance(spec, Mapping) or spec.get("kind") != "multi_task" or not isinstance(spec.get("tasks"), Mapping):
        return check_component("tasks", spec, path)
    problems = [
        problem for name, each in spec["tasks"].items() for problem in _check_spec(each, (*path, "tasks", name))
    ]
    rest = {key: value for key, value in spec.items() if key != "tasks"}
    return problems + [each for each in check_component("tasks", rest, path) if each.path != (*path, "tasks")]


def _check_classes(raw: Mapping[str, Any]) -> list[Problem]:
    """The problems of keys that choose rows by their class, where rows have none."""
    rule = "chooses rows by their class, and rows of this task have none"
    problems = []
    if inner_mapping(raw, "data").get("classes") is not None:
        problems.append(Problem(("data", "classes"), rule, raw["data"]["classes"], "classes: null"))
    for name, stage in inner_mapping(raw, "stages").items():
        for key in ("classes", "groups"):
            if isinstance(stage, Mapping) and stage.get(key) is not None:
                problems.append(Problem(("stages", name, key), rule, stage[key], "domains: [0]"))
    return problems
