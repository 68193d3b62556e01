"""One optimizer for gate and experts; each part has a learning rate, a freeze and a start of its own."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.training.mixture_parts import (
    MixtureLayer,
    expert_modules,
    gate_modules,
    mixture_layers,
    trainable_parts,
)
from moebius.lab.training.optimizer_choice import OPTIMIZERS, OptimizerChoice
from moebius.lab.training.settings import Plateau, Settings
from moebius.schedules import Schedule

Parts = Mapping[str, Sequence[nn.Parameter]]


def build_optimizer(model: nn.Module, settings: Settings, trained: Parts | None = None) -> torch.optim.Optimizer:
    """The optimizer of the settings, made of one parameter group for each part that the model has.

    An optimizer that is chosen by its name gets one group for all parts where their settings are the same: one call
    then updates all parameters. torch's fused kernels are used, where the class is one of `OPTIMIZERS` and the choice
    does not say otherwise. An optimizer object is returned as it is.

    Arguments:
        model: what is trained.
        settings: how it is trained.
        trained: part → the parameters that are updated; those of the model that require a gradient unless given.

    Raises:
        ArgumentError: options that the optimizer refuses, nothing to train, an optimizer that lacks
            parameters that are to be trained, or one whose `step` needs a closure.
    """
    trained = trainable_parts(model) if trained is None else trained
    part_settings = {name: getattr(settings, name) for name in trained}
    if all(part_settings[name].freeze for name, parameters in trained.items() if parameters):
        names = [name for name, parameters in trained.items() if parameters]
        rule = "leaves nothing to train: all parts that have parameters are frozen"
        raise ArgumentError("training", rule, names, "training: {gate: {freeze: false}}")
    if isinstance(settings.optimizer.kind, torch.optim.Optimizer):
        optimizer = settings.optimizer.kind
    else:
        groups = _parameter_groups(settings, trained)
        optimizer = _call_factory(settings.optimizer, groups)
    required = [
        parameter for name, parameters in trained.items() if not part_settings[name].freeze for parameter in parameters
    ]
    _check_optimizer(optimizer, model, required, instead=[value for values in trained.values() for value in values])
    return optimizer


def _parameter_groups(settings: Settings, trained: Parts) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for name, parameters in trained.items():
        schedule = getattr(settings, name).lr or settings.lr
        rate = {} if schedule is None else {"lr": schedule(0.0)}
        if parameters:
            groups.append({"params": parameters, **rate, "name": name})
    # Parts that start together: torch's fused SGD refuses a group of which some parameters have no momentum yet.
    is_uniform = settings.gate == settings.experts and settings.gate.lr is None
    if len(groups) > 1 and is_uniform and isinstance(settings.optimizer.kind, str):
        parameters = [parameter for group in groups for parameter in group["params"]]
        return [{**groups[0], "params": parameters, "name": "all"}]
    return groups


def _call_factory(choice: OptimizerChoice, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    factory: Any = OPTIMIZERS[choice.kind] if isinstance(choice.kind, str) else choice.kind
    fused = {"fused": True} if _takes_fused(factory) else {}
    try:
        optimizer = factory(groups, **{**fused, **choice.keywords})
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "optimizer=functools.partial(torch.optim.AdamW, weight_decay=0.1), lr=1e-3"
        raise ArgumentError("optimizer", f"torch refuses it ({error})", choice, fix) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        rule = "must return a torch.optim.Optimizer when it is called with parameter groups"
        raise ArgumentError("optimizer", rule, type(optimizer).__name__, "optimizer=torch.optim.AdamW")
    return optimizer


def _takes_fused(factory: Callable[..., Any]) -> bool:
    """Whether a class of `OPTIMIZERS`, perhaps with bound keywords, leaves the choice of kernels open."""
    bound: dict[str, Any] = {}
    while isinstance(factory, functools.partial):
        bound, factory = {**factory.keywords, **bound}, factory.func
    return factory in OPTIMIZERS.values() and not {"fused", "foreach", "differentiable"} & set(bound)


def _check_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    required: Iterable[nn.Parameter],
    instead: Iterable[nn.Parameter],
) -> None:
    covered = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missing = [names.get(id(parameter), "") for parameter in required if id(parameter) not in covered]
    if missing:
        rule = f"must hold all parameters that are to be trained, and lacks {len(missing)}"
        raise ArgumentError("optimizer", rule, missing[:4], "optimizer=torch.optim.AdamW(model.parameters())")
    foreign = covered - names.keys() - {id(parameter) for parameter in instead}
    if foreign:
        rule = "must hold parameters of the model alone, and holds others"
        raise ArgumentError("optimizer", rule, len(foreign), "optimizer=torch.optim.AdamW(model.parameters())")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        rule = "must take steps without a closure"
        raise ArgumentError("optimizer", rule, type(optimizer).__name__, "optimizer=torch.optim.AdamW")


class PartSchedule:
    """Sets the learning rates and the parameters that train, for a moment of training.

    A group whose parameters are all of one part has the part's rate, or the common one. Where neither is given, its
    rate is the one that it has when this object is made.

    Arguments:
        optimizer: from `build_optimizer`.
        trained: part → the parameters that are updated.
        settings: how they are trained.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, trained: Parts, settings: Settings):
        part_of = {id(parameter): name for name, parameters in trained.items() for parameter in parameters}
        self.trained = [(getattr(settings, name), tuple(parameters)) for name, parameters in trained.items()]
        self.groups: list[tuple[dict[str, Any], Schedule | None, Any]] = []
        for group in optimizer.param_groups:
            names = {part_of.get(id(parameter)) for parameter in group["params"]}
            part = getattr(settings, name) if len(names) == 1 and (name := names.pop()) else None
            schedule = settings.lr if part is None else part.lr or settings.lr
            self.groups.append((group, schedule, group.get("lr")))

    def apply(self, epoch: float, plateau: Plateau | None = None, falls: int = 0) -> None:
        """Set the rates, and let the parameters of a part require gradients exactly while the part trains.

        Arguments:
            epoch: the moment; 1.5 in the middle of the second epoch.
            plateau: how rates fall.
            falls: how often they have fallen.
        """
        for group, schedule, initial_rate in self.groups:
            if schedule is None and not falls:
                continue  # whoever gave the optimizer may change its rates while it trains
            rate = initial_rate if schedule is None else schedule(epoch)
            group["lr"] = rate if plateau is None else plateau.fallen(rate, falls)
        for part, parameters in self.trained:
            trains = part.trains(epoch)
            for parameter in parameters:
                if parameter.requires_grad != trains:
                    parameter.requires_grad_(trains)
                    parameter.grad = None


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate that each parameter group has now, by the group's name, or its number where it has none.

    Example:
        >>> learning_rates(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5))
        {'0': 0.5}
    """
    groups = enumerate(optimizer.param_groups)
    return {str(group.get("name", number)): float(group["lr"]) for number, group in groups if "lr" in group}


def set_modes(model: nn.Module, settings: Settings, epoch: float | int) -> None:
    """Training mode, but evaluation mode for the parts that are not updated at `epoch`.

    Otherwise their batch normalisation would follow the rows, and their dropout would add noise from which no
    parameter learns. The experts' part is also what surrounds the mixtures.
    """
    model.train()
    layers = mixture_layers(model)
    if not settings.gate.trains(epoch):
        for layer in layers:
            for module in gate_modules(layer):
                module.eval()
    if not settings.experts.trains(epoch):
        _set_evaluation(model)
        for layer in layers:
            for expert in expert_modules(layer):
                _set_evaluation(expert)


def _set_evaluation(module: nn.Module) -> None:
    """Evaluation mode for a module and its parts, but not for mixtures inside: their gates may be training."""
    if isinstance(module, MixtureLayer):
        return
    if not mixture_layers(module):
        module.eval()
        return
    module.training = False
    for child in module.children():
        _set_evaluation(child)
