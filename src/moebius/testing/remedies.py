"""The contract of remedies: a model and rows → a changed copy, or why there is none; needs the extra `lab`."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch

from moebius.combine.log_mixture import LogMixture
from moebius.experts.linear import Linear as LinearExpert
from moebius.gates.linear import Linear as LinearGate
from moebius.layers.mixture import Mixture
from moebius.tasks.classification import Classification
from moebius.testing._contract import require, require_equal
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_remedy(remedy: Callable[..., Any], **arguments: Any) -> None:
    """Hold a remedy to the contract of the room `remedies`: every function of `CHECKS`.

    Arguments:
        remedy: the function, decorated by `remedy`.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that it breaks.

    Example:
        >>> from moebius.lab.remedies import average
        >>> check_remedy(average)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("remedies", remedy, arguments))


def leaves_the_model_as_it_is(subject: Subject) -> None:
    """It gives a `Treatment` or an `Obstacle`, and the model that it was given has its values."""
    # By name: the library does not import the lab.
    parts = importlib.import_module("moebius.lab.remedies._case")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        experts = [LinearExpert(3, 2) for _ in range(2)]
        model = Mixture(LinearGate(3, 2), experts, combine=LogMixture()).eval()
        x = torch.randn(120, 3)
    before = copy.deepcopy(model.state_dict())
    rows = parts.Split(x, (x[:, 0] > 0).long(), torch.zeros(120, dtype=torch.long))
    task = Classification().for_model(model)
    outcome = subject.component(parts.Case(parts.ModelCall(model), task, "gate", rows), **subject.arguments)
    rule = f"gives a {type(outcome).__name__}"
    require(isinstance(outcome, parts.Treatment | parts.Obstacle), rule, "a Treatment, or an Obstacle with its reason")
    for name, value in model.state_dict().items():
        require_equal(value, before[name], f"changes {name} of the model", "case.copy()")


CHECKS = (leaves_the_model_as_it_is,)
