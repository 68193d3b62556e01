"""Checks the components inside a recipe's `training`: optimizer, schedules, gate losses."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from moebius.core.loss_needs import loss_needs
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.recipe.components import check_amount, check_component, check_keywords
from moebius.lab.recipe.problems import Path, Problem, mapping
from moebius.lab.training.optimizer import OPTIMIZERS


def check_training(training: Mapping[str, Any], path: Path) -> list[Problem]:
    """What is wrong with the components inside a `training` mapping; the schema checks the rest."""
    problems = []
    optimizer = with_optimizer(training)["optimizer"]
    if isinstance(optimizer, Mapping):
        problems += _check_optimizer(optimizer, (*path, "optimizer"))
    for group in ("gate", "experts"):
        rate = mapping(training, group).get("lr")
        problems += [] if rate is None else check_amount(rate, (*path, group, "lr"), least=0)
    augment = training.get("augment")
    for place, one in enumerate(augment if isinstance(augment, list) else ()):
        problems += check_component("data.augmentation", one, (*path, "augment", place), construct=True)
    if training.get("views") is not None and not augment:
        rule, fix = "is a number of augmented copies, and nothing augments", "augment: [{kind: flip}]"
        problems.append(Problem((*path, "views"), rule, training["views"], fix))
    if all(mapping(training, group).get("freeze") is True for group in ("gate", "experts")):
        problems.append(Problem((*path, "gate", "freeze"), "leaves nothing to train, the experts are frozen too", True))
    if "cross_entropy" in training:
        problems += check_amount(training["cross_entropy"], (*path, "cross_entropy"), least=0)
    for name, value in mapping(training, "router").items():
        problems += check_amount(value, (*path, "router", name))
    losses = training.get("losses")
    for place, loss in enumerate(losses if isinstance(losses, list) else ()):
        if isinstance(loss, Mapping):
            where = (*path, "losses", place)
            problems += _check_loss(loss, where)
    return problems


def _check_loss(loss: Mapping[str, Any], path: Path) -> list[Problem]:
    problems = check_amount(loss["weight"], (*path, "weight")) if "weight" in loss else []
    if "kind" not in loss:
        return problems
    # An option that follows a schedule is checked as its first value would be.
    changing = {name: value for name, value in loss.items() if isinstance(value, Mapping) and name != "weight"}
    for name, value in changing.items():
        problems += check_component("schedules", value, (*path, name), construct=True)
    settled = {name: 0.0 if name in changing else value for name, value in loss.items()}
    return problems + check_component("losses", settled, path, besides=("weight",), first=1 + _compares(loss["kind"]))


def _compares(kind: Any) -> int:
    """Whether a loss has a second parameter that is not the recipe's: the experts' own losses."""
    return int(kind in kinds("losses") and loss_needs(find("losses", kind)).expert_losses)


def check_annealing(schedules: Mapping[str, Any], router: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the numbers of a variant's router that `training.router` changes; paths begin there."""
    known: list[str] = []
    while router.get("kind") in kinds("routers"):
        known += [name for name in inspect.signature(find("routers", router["kind"])).parameters if name != "router"]
        router = mapping(router, "router")
    rule = "the variant's router has no such number"
    fix = "router: {kind: soft, temperature: 1.0}"
    return [
        Problem(("router", name), rule, value, did_you_mean(name, known) if known else fix)
        for name, value in schedules.items()
        if name not in known
    ]


def _check_optimizer(optimizer: Mapping[str, Any], path: Path) -> list[Problem]:
    kind, rate = optimizer.get("kind", "adam"), optimizer.get("lr", 1e-3)
    problems = check_amount(rate, (*path, "lr"), least=0)
    if str(kind) not in OPTIMIZERS:
        return [*problems, Problem((*path, "kind"), "no such kind", kind, did_you_mean(str(kind), OPTIMIZERS))]
    keywords = {key: value for key, value in optimizer.items() if key not in ("kind", "lr")}
    found = check_keywords(OPTIMIZERS[kind], keywords, path, first=1, besides=("lr",), called=kind)
    if not found:
        try:
            # As training makes it: every optimizer here has fused kernels.
            OPTIMIZERS[kind]([torch.zeros(1)], **{**keywords, "fused": True})
        except (ValueError, TypeError, RuntimeError) as error:
            found.append(Problem(path, f"torch refuses it ({error})", dict(optimizer)))
    return problems + found


def with_optimizer(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training with the optimizer's default kind written out, so that a variant's other kind replaces it."""
    optimizer = training.get("optimizer", {})
    return {**training, "optimizer": {"kind": "adam", **optimizer} if isinstance(optimizer, Mapping) else optimizer}
