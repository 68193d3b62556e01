"""Checks the components inside a recipe's `training`: optimizer, schedules, gate losses."""

from collections.abc import Mapping
from typing import Any

import torch

from moebius.recipe.components import check_amount, check_component, check_keywords
from moebius.recipe.problems import Path, Problem, mapping
from moebius.registry import did_you_mean
from moebius.training.optimizer import OPTIMIZERS


def check_training(training: Mapping[str, Any], path: Path) -> list[Problem]:
    """What is wrong with the components inside a `training` mapping; the schema checks the rest."""
    problems = []
    optimizer = with_optimizer(training)["optimizer"]
    if isinstance(optimizer, Mapping):
        problems += _check_optimizer(optimizer, (*path, "optimizer"))
    for group in ("gate", "experts"):
        rate = mapping(training, group).get("lr")
        problems += [] if rate is None else check_amount(rate, (*path, group, "lr"), least=0)
    if all(mapping(training, group).get("freeze") is True for group in ("gate", "experts")):
        problems.append(Problem((*path, "gate", "freeze"), "leaves nothing to train, the experts are frozen too", True))
    losses = training.get("losses")
    for place, loss in enumerate(losses if isinstance(losses, list) else ()):
        if isinstance(loss, Mapping):
            where = (*path, "losses", place)
            problems += check_component("losses", loss, where, besides=("weight",)) if "kind" in loss else []
            problems += check_amount(loss["weight"], (*where, "weight")) if "weight" in loss else []
    return problems


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
