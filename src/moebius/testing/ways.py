"""The contract of ways: trained networks and rows → one model of them, or why there is none; needs the extra `lab`."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from moebius.experts.adapter import Adapter
from moebius.testing._contract import require, require_equal, require_shape
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_ROWS, _FEATURES, _CLASSES = 90, 3, 2


def check_way(way: Callable[..., Any], **arguments: Any) -> None:
    """Hold a way to the contract of the room `ways`: every function of `CHECKS`.

    Arguments:
        way: the function, decorated by `way`.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that it breaks.

    Example:
        >>> from moebius.lab.ways import uniform
        >>> check_way(uniform)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("ways", way, arguments))


def declares_whether_it_is_a_control(subject: Subject) -> None:
    """The decorator `way` has said whether it is a model that mixtures have to beat."""
    # By name: the library does not import the lab.
    kind = importlib.import_module("moebius.lab.ways._way").Way
    declared = getattr(subject.component, "way", None)
    require(isinstance(declared, kind), f"declares way = {declared!r}", "@way() above the function")


def makes_a_model_and_leaves_the_networks_as_they_are(subject: Subject) -> None:
    """It gives a `Composed` in eval with an output for each row, or an `Obstacle`; the networks keep their values."""
    parts = importlib.import_module("moebius.lab.ways._way")
    pool = _pool()
    before = [copy.deepcopy(expert.state_dict()) for expert in pool.experts]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        outcome = subject.component(pool, **subject.arguments)
    rule = f"gives a {type(outcome).__name__}"
    require(isinstance(outcome, parts.Composed | parts.Obstacle), rule, "a Composed, or an Obstacle with its reason")
    for expert, values in zip(pool.experts, before, strict=True):
        for name, value in expert.state_dict().items():
            require_equal(value, values[name], f"changes {name} of a network", "pool.mixture(gate)")
    if isinstance(outcome, parts.Obstacle):
        require(bool(outcome.reason), "gives an Obstacle without a reason", 'Obstacle("it needs two networks")')
        return
    require(bool(outcome.text), "gives a model without a text", 'Composed(model, "the mean of all networks")')
    require(not outcome.model.training, "gives a model that is in training mode", "model.eval()")
    with torch.no_grad():
        require_shape(outcome.model(pool.rows.images), (_ROWS, _CLASSES), "an output")


def _pool() -> Any:
    """Three linear networks of two classes, each blind to a feature, and rows."""
    parts = importlib.import_module("moebius.lab.ways._pool")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _FEATURES, generator=generator)
    experts = []
    for number in range(3):
        with torch.random.fork_rng(devices=()):
            network = nn.Linear(_FEATURES, _CLASSES)
        with torch.no_grad():
            network.weight.copy_(torch.tensor([[-1.0], [1.0]]) * (torch.arange(_FEATURES) != number))
            network.bias.zero_()
        experts.append(Adapter(network, frozen=True))
    outputs = torch.stack([expert(x) for expert in experts], 1)
    task = importlib.import_module("moebius.tasks.classification").Classification()
    split = parts.Split(x, (x.sum(1) > 0).long(), torch.zeros(_ROWS, dtype=torch.long))
    return parts.Pool(("a", "b", "c"), tuple(experts), task, split, outputs, torch.ones(3, _CLASSES, dtype=torch.bool))


CHECKS = (declares_whether_it_is_a_control, makes_a_model_and_leaves_the_networks_as_they_are)
