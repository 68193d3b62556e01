"""One optimizer for gate and experts, with a learning rate, a freeze and a start of their own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from moebius.errors import ArgumentError
from moebius.mixture import Mixture
from moebius.registry import did_you_mean
from moebius.training.settings import Settings

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of a model as `gate` (gates and routers of all its mixtures) and `experts` (everything else)."""
    steering = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Mixture)
        for parameter in [*module.gate.parameters(), *module.router.parameters()]
    }
    everything = list(model.parameters())
    return {
        "gate": [parameter for parameter in everything if id(parameter) in steering],
        "experts": [parameter for parameter in everything if id(parameter) not in steering],
    }


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer, one parameter group for each part that the model has.

    torch's fused kernels are used: one call updates all parameters.

    Raises:
        ArgumentError: an unknown optimizer, one of its keywords with a wrong name or value, or nothing to train.
    """
    if settings.optimizer not in OPTIMIZERS:
        fix = did_you_mean(settings.optimizer, OPTIMIZERS)
        raise ArgumentError("optimizer.kind", "no optimizer has this name", settings.optimizer, fix)
    groups: list[dict[str, Any]] = []
    for name, parameters in parts(model).items():
        schedule = getattr(settings, name).lr or settings.lr
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


def prepare_epoch(optimizer: torch.optim.Optimizer, settings: Settings, epoch: float) -> None:
    """Set learning rates for a moment of training, and let only the parts train whose time has come."""
    for group in optimizer.param_groups:
        part = getattr(settings, group["name"])
        group["lr"] = (part.lr or settings.lr)(epoch)
        trains = not part.freeze and epoch >= part.start_epoch
        for parameter in group["params"]:
            if parameter.requires_grad != trains:
                parameter.requires_grad_(trains)
                parameter.grad = None
