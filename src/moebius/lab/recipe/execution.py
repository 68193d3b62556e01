"""Checks that the executions which a model part names run what they get in the training."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.checks.problems import Problem, parse_path
from moebius.lab.model.resolve import Resolver
from moebius.lab.model.shapes import row_shape
from moebius.lab.training.call_model import call_model
from moebius.lab.training.mixture_parts import MixtureLayer
from moebius.lab.training.precision import autocast
from moebius.storage.spec import build

# Rows of the trial.
ROWS = 16


def check_execution(
    spec: Mapping[str, Any], facts: Mapping[str, Any], precision: Any, stages: Mapping[str, Any]
) -> list[Problem]:
    """The problem of an execution that would refuse what it gets in the run.

    The model is built and run on a few rows, on the device that a study here takes and in the number format of the
    training.

    Arguments:
        spec: a model part without problems.
        facts: of the data.
        precision: of the training; `auto` may be decided otherwise on another machine, and counts as fp32.
        stages: specs of the stages that the part may use.
    """
    if set(_executions(spec)) <= {"auto"}:
        return []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    resolver = Resolver(stages, None)
    with torch.random.fork_rng(devices=()), torch.no_grad(), autocast(str(precision), device):
        model = build(resolver.model(spec, facts)).to(device)
        x = torch.rand(ROWS, *row_shape(facts), device=device)
        domains = torch.arange(ROWS, device=device) % (facts["domains"] or 1)
        places = _enter_mixtures(model)
        try:
            call_model(model, x, domains)
        except ArgumentError as error:
            if error.argument == "execution":
                path, _ = resolver.path_of(places[-1])
                is_bf16_missing = "needs bf16" in error.rule and precision != "bf16"
                fix = "training: {precision: bf16}" if is_bf16_missing else "execution: auto"
                return [Problem((*(parse_path(path) if path else ()), "execution"), error.rule, error.value, fix)]
        except (ValueError, RuntimeError):
            pass  # not about the execution: these rows may be too few for a batch normalisation
    return []


def _executions(spec: Any) -> Iterator[str]:
    """The executions that a model part names."""
    if isinstance(spec, Mapping | list):
        for key, value in spec.items() if isinstance(spec, Mapping) else enumerate(spec):
            yield from [value] if key == "execution" else _executions(value)


def _enter_mixtures(model: nn.Module) -> list[str]:
    """The places of the mixtures whose forward is under way, the innermost last; filled while the model runs."""
    places: list[str] = []

    def leave(*_: Any) -> None:
        places.pop()

    for place, module in model.named_modules():
        if isinstance(module, MixtureLayer):
            module.register_forward_pre_hook(lambda *_, place=place: places.append(place))
            module.register_forward_hook(leave)
    return places
