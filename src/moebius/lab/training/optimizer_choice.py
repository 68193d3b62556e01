"""The optimizer of a training: by name, by class or function, or an object."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, WithJsonSchema, model_validator

from moebius.kit.registry import did_you_mean
from moebius.lab.checks.components import check_keywords
from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import Keywords, place_of
from moebius.lab.checks.wording import raise_problems, validate_beside
from moebius.lab.training.described import Rate

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
# What a user may write for an optimizer.
OptimizerLike = str | Mapping[str, Any] | Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer


class OptimizerChoice(Keywords):
    """An optimizer of torch, with the keywords of its class.

    In Python the kind may also be a class, or a function of parameter groups that returns an optimizer; or an optimizer
    over the model's parameters, which keeps its groups. The kind alone stands for the mapping.

    Arguments:
        kind: name of the optimizer.
        lr: learning rate, at least 0.

    Example:
        >>> OptimizerChoice.model_validate("sgd").lr(0.0)
        0.001
        >>> OptimizerChoice.model_validate(torch.optim.RMSprop).lr is None  # the class has its own
        True
    """

    kind: Annotated[str | Callable[..., Any] | torch.optim.Optimizer, WithJsonSchema({"type": "string"})] = "adam"
    lr: Annotated[Rate | None, place_of("rate")] = Field(default=1e-3, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: Callable[[Any], "OptimizerChoice"]) -> "OptimizerChoice":
        if isinstance(value, OptimizerChoice):
            return value
        if isinstance(value, str | torch.optim.Optimizer) or callable(value):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            raise_problems([Problem((), "needs a mapping with a kind", value, "such as {kind: adam, lr: 1e-3}")])
        kind = value.get("kind", "adam")
        if callable(kind) or isinstance(kind, torch.optim.Optimizer):
            return handler({"lr": None, **value})
        problems = _check_keywords(kind, {name: item for name, item in value.items() if name not in ("kind", "lr")})
        if "lr" in value and value["lr"] is None:
            problems.append(Problem(("lr",), "needs a number or a schedule", None, "lr: 1e-3"))
        return validate_beside(problems, cls, handler, value)


def _check_keywords(kind: Any, keywords: Mapping[str, Any]) -> list[Problem]:
    """The problems of an optimizer by name."""
    if str(kind) not in OPTIMIZERS:
        return [Problem(("kind",), "no such kind", kind, did_you_mean(str(kind), OPTIMIZERS))]
    problems = check_keywords(OPTIMIZERS[kind], keywords, (), ("params", "lr"), besides=("lr",), called=kind)
    if not problems:
        try:
            # Training takes the fused kernels, too.
            OPTIMIZERS[kind]([torch.zeros(1)], **{**keywords, "fused": True})
        except (ValueError, TypeError, RuntimeError) as error:
            problems.append(Problem((), f"torch refuses it ({error})", {"kind": kind, **keywords}))
    return problems
