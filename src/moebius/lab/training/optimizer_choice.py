"""The optimizer of a training: by name, by class or function, or an object."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field

from moebius.kit.registry import did_you_mean
from moebius.lab.checks.components import check_keywords
from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import Keywords, place_of
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

    kind: Annotated[Any, place_of("kind")] = "adam"
    lr: Annotated[Rate | None, place_of("rate")] = Field(default=1e-3, validate_default=True)

    @classmethod
    def to_mapping(cls, value: Any) -> Any:
        """The kind alone in a mapping; an optimizer that is not named has rates of its own."""
        mapping = super().to_mapping(value)
        is_object = isinstance(mapping, Mapping) and _is_object(mapping.get("kind"))
        return {"lr": None, **mapping} if is_object else mapping

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Problems of the kind and of the keywords of its class."""
        kind = values.get("kind", "adam")
        if _is_object(kind):
            return []
        if str(kind) not in OPTIMIZERS:
            return [Problem(("kind",), "no such kind", kind, did_you_mean(str(kind), OPTIMIZERS))]
        keywords = {name: item for name, item in values.items() if name not in ("kind", "lr")}
        problems = check_keywords(OPTIMIZERS[kind], keywords, (), ("params", "lr"), besides=("lr",), called=kind)
        if "lr" in values and values["lr"] is None:
            problems.append(Problem(("lr",), "needs a number or a schedule", None, "lr: 1e-3"))
        # A kind alone is fine: torch's compiler, which the first optimizer of a process loads, takes seconds.
        if keywords and not problems:
            try:
                # Training takes the fused kernels, too.
                OPTIMIZERS[kind]([torch.zeros(1)], **{**keywords, "fused": True})
            except (ValueError, TypeError, RuntimeError) as error:
                problems.append(Problem((), f"torch refuses it ({error})", {"kind": kind, **keywords}))
        return problems

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            is_object = name == "kind" and _is_object(value)
            yield name, getattr(value, "__name__", type(value).__name__) if is_object else value


def _is_object(kind: Any) -> bool:
    return callable(kind) or isinstance(kind, torch.optim.Optimizer)
