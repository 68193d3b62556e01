"""Where a loss that is no number came from."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from moebius.core.stack import Stack
from moebius.execution.loop import Loop
from moebius.experts.adapter import Adapter
from moebius.kit.errors import TrainingError
from moebius.lab.data.batches import Batch
from moebius.layers.mixture import Mixture


def nonfinite_error(
    model: nn.Module, batch: Batch, terms: Mapping[str, Tensor], epoch: int, step: int
) -> TrainingError:
    """The error that names the step, the terms that are not finite and the experts or gates that they came from."""
    bad = [name for name, value in terms.items() if not torch.isfinite(value)] or ["total"]
    sources = _bad_parameters(model) or _bad_outputs(model, batch)
    where = f"; not finite: {', '.join(sources)}" if sources else ""
    fix = "training.optimizer.lr=1e-4 or training.clip_norm=1.0"
    if not sources and _rules_classes_out(model):
        where = "; a row is of a class that none of the experts which run for it knows, so that its probability is 0"
        fix = "fill: -10 where those experts are named, or one that knows all classes beside them"
    return TrainingError(f"epoch {epoch}, step {step}: {' and '.join(bad)} is not a finite number{where}", fix)


def _rules_classes_out(model: nn.Module) -> bool:
    adapters = [part for part in model.modules() if isinstance(part, Adapter)]
    return any(part.classes is not None and part.fill in (None, -torch.inf) for part in adapters)


def _bad_parameters(model: nn.Module) -> list[str]:
    bad = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    return [f"parameter {name}" for name in bad[:4]]


def _bad_outputs(model: nn.Module, batch: Batch) -> list[str]:
    """Experts and gates whose output is not finite on this batch, by running the model once more and watching."""
    watched = {}
    stacks: dict[Mixture, Stack] = {}
    for path, mixture in list(model.named_modules()):
        if isinstance(mixture, Mixture):
            prefix = f"{path}." if path else ""
            if isinstance(mixture.experts, Stack):
                # A stack's experts have their hooks in common.
                stacks[mixture] = mixture.experts
                mixture.experts = nn.ModuleList(mixture.experts.unstacked())
            watched[f"expert {prefix}experts."] = mixture.experts
            watched[f"gate {prefix}gate"] = [mixture.gate]
    bad: dict[str, None] = {}
    hooks = []
    for prefix, modules in watched.items():
        for number, module in enumerate(modules):
            name = f"output of {prefix}{number if prefix.endswith('.') else ''}"

            def look(module, inputs, output, name=name):
                # A designed gate says −inf on purpose.
                if torch.isnan(output).any() or (output == torch.inf).any():
                    bad[name] = None

            hooks.append(module.register_forward_hook(look))
    executions = {mixture: mixture.execution for mixture in model.modules() if isinstance(mixture, Mixture)}
    try:
        for mixture in executions:
            mixture.execution = Loop()  # a stacked product does not call the experts one by one
        with torch.no_grad():
            model(batch.x, {"domain": batch.domains})
    finally:
        for mixture, execution in executions.items():
            mixture.execution = execution
        for mixture, stack in stacks.items():
            mixture.experts = stack
        for hook in hooks:
            hook.remove()
    return list(bad)
