"""Checks the components in a recipe's `training`: optimizer, schedules, augmentation, gate losses."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.recipe.components import check_amount, check_component, check_keywords
from moebius.lab.recipe.problems import Path, Problem, inner_mapping
from moebius.lab.recipe.schema import OptimizerSpec
from moebius.lab.training.optimizer import OPTIMIZERS

DEFAULT = OptimizerSpec()


def check_training(training: Mapping[str, Any], path: Path) -> list[Problem]:
    """The problems of the components in a `training` mapping; the schema checks the other keys."""
    problems = []
    optimizer = with_optimizer(training)["optimizer"]
    if isinstance(optimizer, Mapping):
        problems += _check_optimizer(optimizer, (*path, "optimizer"))
    for group in ("gate", "experts"):
        rate = inner_mapping(training, group).get("lr")
        problems += [] if rate is None else check_amount(rate, (*path, group, "lr"), least=0)
    augment = training.get("augment")
    for place, augmentation in enumerate(augment if isinstance(augment, list) else ()):
        problems += check_component("data.augmentation", augmentation, (*path, "augment", place), construct=True)
    if training.get("views") is not None and not augment:
        rule, fix = "is a number of augmented copies, and nothing augments", "augment: [{kind: flip}]"
        problems.append(Problem((*path, "views"), rule, training["views"], fix))
    if all(inner_mapping(training, group).get("freeze") is True for group in ("gate", "experts")):
        problems.append(Problem((*path, "gate", "freeze"), "leaves nothing to train, the experts are frozen too", True))
    if "cross_entropy" in training:
        problems += check_amount(training["cross_entropy"], (*path, "cross_entropy"), least=0)
    for name, value in inner_mapping(training, "router").items():
        problems += check_amount(value, (*path, "router", name))
    losses = training.get("losses")
    for place, loss in enumerate(losses if isinstance(losses, list) else ()):
        if isinstance(loss, Mapping):
            problems += _check_loss(loss, (*path, "losses", place))
    return problems


def _check_loss(loss: Mapping[str, Any], path: Path) -> list[Problem]:
    problems = check_amount(loss["weight"], (*path, "weight")) if "weight" in loss else []
    if "kind" not in loss:
        return problems
    scheduled = {name: value for name, value in loss.items() if isinstance(value, Mapping) and name != "weight"}
    for name, value in scheduled.items():
        problems += check_component("schedules", value, (*path, name), construct=True)
    # A keyword that follows a schedule takes numbers: zero stands for them.
    constant = {name: 0.0 if name in scheduled else value for name, value in loss.items()}
    return problems + check_component("losses", constant, path, besides=("weight",))


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


def _check_optimizer(optimizer: Mapping[str, Any], path: Path) -> list[Problem]:
    kind, rate = optimizer.get("kind", DEFAULT.kind), optimizer.get("lr", DEFAULT.lr)
    problems = check_amount(rate, (*path, "lr"), least=0)
    if str(kind) not in OPTIMIZERS:
        return [*problems, Problem((*path, "kind"), "no such kind", kind, did_you_mean(str(kind), OPTIMIZERS))]
    keywords = {key: value for key, value in optimizer.items() if key not in ("kind", "lr")}
    keyword_problems = check_keywords(
        OPTIMIZERS[kind], keywords, path, excluded=("params",), besides=("lr",), called=kind
    )
    if not keyword_problems:
        try:
            # Training takes the fused kernels, too.
            OPTIMIZERS[kind]([torch.zeros(1)], **{**keywords, "fused": True})
        except (ValueError, TypeError, RuntimeError) as error:
            keyword_problems.append(Problem(path, f"torch refuses it ({error})", dict(optimizer)))
    return problems + keyword_problems


def with_optimizer(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training with the default kind of its optimizer filled in: a variant with another kind then replaces it."""
    optimizer = training.get("optimizer", {})
    return {
        **training,
        "optimizer": {"kind": DEFAULT.kind, **optimizer} if isinstance(optimizer, Mapping) else optimizer,
    }
