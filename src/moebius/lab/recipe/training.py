"""What only a recipe knows of a `training`: the optimizer that changes are laid over, and the variant's router."""

import inspect
from collections.abc import Mapping
from typing import Any

from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.checks.problems import Problem, inner_mapping
from moebius.lab.training.optimizer_choice import OptimizerChoice


def check_annealing(schedules: Mapping[str, Any], router: Mapping[str, Any]) -> list[Problem]:
    """The problems of `training.router`: every name in it is a keyword of the variant's router, or of one inside it.

    Arguments:
        schedules: the value of `training.router`; the paths of problems begin with "router".
        router: the variant's router.
    """
    names: list[str] = []
    while router.get("kind") in kinds("routers"):
        names += [name for name in inspect.signature(find("routers", router["kind"])).parameters if name != "router"]
        router = inner_mapping(router, "router")
    rule = "the variant's router has no such number"
    fix = "router: {kind: soft, temperature: 1.0}"
    return [
        Problem(("router", name), rule, value, did_you_mean(name, names) if names else fix)
        for name, value in schedules.items()
        if name not in names
    ]


def with_optimizer(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training with the default kind of its optimizer filled in: a variant with another kind then replaces it."""
    optimizer = training.get("optimizer", {})
    if isinstance(optimizer, str):
        optimizer = {"kind": optimizer}
    elif isinstance(optimizer, Mapping):
        optimizer = {"kind": OptimizerChoice().kind, **optimizer}
    return {**training, "optimizer": optimizer}
