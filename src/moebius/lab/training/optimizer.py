"""One optimizer for gate and experts, with a learning rate, a freeze and a start of their own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of a model as `gate` (gates and routers of all its mixtures) and `experts` (everything else).

    Those of frozen adapters belong to neither: nothing ever trains them.
    """
    frozen = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Adapter) and module.frozen
        for parameter in module.parameters()
    }
    steering = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Mixture)
        for parameter in [*module.gate.parameters(), *module.router.parameters()]
    }
    everything = [parameter for parameter in model.parameters() if id(parameter) not in frozen]
    return {
        "gate": [parameter for parameter in everything if id(parameter) in steering],
        "experts": [parameter for parameter in everything if id(parameter) not in steering],
    }


def build_optimizer(
    model: nn.Module, settings: Settings, instead: Mapping[nn.Parameter, nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """The optimizer, one parameter group for each part that the model has.

    torch's fused kernels are used: one call updates all parameters.

    Arguments:
        model: what is trained.
        settings: how.
        instead: parameter of the model → what is updated in its place (`StackedModel.leaves`).

    Raises:
        ArgumentError: an unknown optimizer, one of its keywords with a wrong name or value, or nothing to train.
    """
    if settings.optimizer not in OPTIMIZERS:
        fix = did_you_mean(settings.optimizer, OPTIMIZERS)
        raise ArgumentError("optimizer.kind", "no optimizer has this name", settings.optimizer, fix)
    groups: list[dict[str, Any]] = []
    for name, parameters in parts(model).items():
        schedule = getattr(settings, name).lr or settings.lr
        if instead is not None:
            parameters = [instead[parameter] for parameter in parameters]
        if parameters:
            groups.append({"params": parameters, "lr": schedule(0.0), "name": name})
    if all(getattr(settings, group["name"]).freeze for group in groups):
        names = [group["name"] for group in groups]
        raise ArgumentError("training", "leaves nothing to train: all parts that have parameters are frozen", names)
    try:
        return OPTIMIZERS[settings.optimizer](groups, **{"fused": True, **settings.optimizer_options})
    except (TypeError, ValueError, RuntimeError) as error:
        options = {"kind": settings.optimizer, **settings.optimizer_options}
        raise ArgumentError("optimizer", f"torch refuses it ({error})", options) from None


def prepare_epoch(
    optimizer: torch.optim.Optimizer, settings: Settings, epoch: float, scale: float = 1.0, least: float | int = 0.0
) -> None:
    """Set learning rates for a moment of training, and let only the parts train whose time has come.

    Arguments:
        optimizer: from `build_optimizer`.
        settings: how to train.
        epoch: the moment; 1.5 in the middle of the second epoch.
        scale: what plateaus have made of the rates.
        least: no rate falls below this by the scale.
    """
    for group in optimizer.param_groups:
        part = getattr(settings, group["name"])
        rate = (part.lr or settings.lr)(epoch)
        group["lr"] = max(rate * scale, min(rate, least))
        trains = part.trains(epoch)
        for parameter in group["params"]:
            if parameter.requires_grad != trains:
                parameter.requires_grad_(trains)
                parameter.grad = None


def set_modes(model: nn.Module, settings: Settings, epoch: float | int) -> None:
    """Training mode, but evaluation mode for gates or experts that are not updated now.

    Batch normalisation would follow the rows and dropout would blur what nobody learns from.
    """
    model.train()
    mixtures = [module for module in model.modules() if isinstance(module, Mixture)]
    if not settings.gate.trains(epoch):
        for mixture in mixtures:
            mixture.gate.eval()
    if not settings.experts.trains(epoch):
        for mixture in mixtures:
            # The experts one by one, or the stack of them.
            pool = [mixture.experts] if isinstance(mixture.experts, Stack) else mixture.experts
            for expert in pool:
                _rest(expert)


def _rest(module: nn.Module) -> None:
    """Evaluation mode for a module and what is in it, but not for mixtures inside: their gates may be training."""
    if isinstance(module, Mixture):
        return
    if not any(isinstance(part, Mixture) for part in module.modules()):
        module.eval()
        return
    module.training = False
    for child in module.children():
        _rest(child)
