"""The error for a loss that is NaN or infinite: it names the terms, and the experts or gates that they come from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.routing import Routing
from moebius.core.stack import Stack
from moebius.execution.loop import Loop
from moebius.experts.adapter import Adapter
from moebius.kit.errors import DivergedError, TrainingError
from moebius.lab.data.batches import Batch
from moebius.lab.training.call_model import call_model
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture, executed_by
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture
from moebius.storage.tensors import tensor_holders


def nonfinite_error(
    model: nn.Module, batch: Batch, terms: Mapping[str, Tensor], epoch: int, step: int
) -> DivergedError:
    """The error that names the step, the terms that are not finite and the experts or gates that they come from."""
    bad = [name for name, value in terms.items() if not torch.isfinite(value)] or ["total"]
    sources = _find_bad_parameters(model) or _find_bad_outputs(model, batch)
    where = f"; not finite: {', '.join(sources)}" if sources else f"; {_describe_layers(model, batch)}"
    fix = "training.optimizer.lr=1e-4 or training.clip_norm=1.0"
    if not sources and _excludes_classes(model):
        where = "; a row is of a class that none of the experts which run for it knows, so that its probability is 0"
        fix = "fill: -10 where those experts are named, or one that knows all classes beside them"
    return DivergedError(f"epoch {epoch}, step {step}: {' and '.join(bad)} is not a finite number{where}", fix)


def batch_errors(
    models: Sequence[nn.Module],
    batch: Batch,
    terms: Sequence[Mapping[str, Tensor]],
    runs: Iterable[int],
    epoch: int,
    step: int,
) -> dict[int, TrainingError]:
    """The errors of those of some runs whose terms are not all finite.

    Arguments:
        models: of all runs.
        batch: with the rows of all runs in turn.
        terms: of each run; the total is "loss".
        runs: numbers of the runs to look at.
        epoch, step: the moment for the messages, from 1.
    """
    errors: dict[int, TrainingError] = {}
    for run in runs:
        if not torch.stack([value.detach() for value in terms[run].values()]).isfinite().all():
            parts = {name: term for name, term in terms[run].items() if name != "loss"}
            errors[run] = nonfinite_error(models[run], batch.of_run(run, len(models)), parts, epoch, step)
    return errors


def _excludes_classes(model: nn.Module) -> bool:
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    return any(adapter.classes is not None and adapter.fill in (None, -torch.inf) for adapter in adapters)


def _find_bad_parameters(model: nn.Module) -> list[str]:
    bad = [
        name
        for name, (tensor, expert) in tensor_holders(model).items()
        if isinstance(tensor, nn.Parameter) and not (tensor if expert is None else tensor[expert]).isfinite().all()
    ]
    return [f"parameter {name}" for name in bad[:4]]


def _find_bad_outputs(model: nn.Module, batch: Batch) -> list[str]:
    """Experts and gates whose output is not finite on this batch: runs the model once more with hooks."""
    modules_by_label: dict[str, Iterable[nn.Module]] = {}
    stacks: list[tuple[nn.Module, str, Stack]] = []
    for path, layer in list(model.named_modules()):
        prefix = f"{path}." if path else ""
        if isinstance(layer, MultiGateMixture | CGC):
            modules_by_label |= {f"gate {prefix}gates.{name}": [gate] for name, gate in layer.gates.items()}
            modules_by_label |= {
                f"tower {prefix}towers.{task}": [tower] for task, tower in (layer.towers or {}).items()
            }
        elif isinstance(layer, Mixture | PositionMixture):
            modules_by_label[f"gate {prefix}gate"] = [layer.gate]
        for pool, holder, name in _pools(layer):
            experts = getattr(holder, name)
            if isinstance(experts, Stack):
                # The experts of a stack share their hooks.
                stacks.append((holder, name, experts))
                experts = nn.ModuleList(experts.unstacked())
                setattr(holder, name, experts)
            modules_by_label[f"expert {prefix}{pool}."] = experts
    bad: dict[str, None] = {}
    hooks = []
    for label, modules in modules_by_label.items():
        for number, module in enumerate(modules):
            name = f"output of {label}{number if label.endswith('.') else ''}"

            def check(module, inputs, output, name=name):
                scores = output[0] if isinstance(output, tuple) else output  # a gate with `gives_aux` gives a pair
                # A designed gate gives −inf on purpose.
                if torch.isnan(scores).any() or (scores == torch.inf).any():
                    bad[name] = None

            hooks.append(module.register_forward_hook(check))
    try:
        # A product of equal experts does not call them one by one.
        with torch.no_grad(), executed_by(model, Loop()):
            call_model(model, batch.x, batch.domains)
    finally:
        for holder, name, stack in stacks:
            setattr(holder, name, stack)
        for hook in hooks:
            hook.remove()
    return list(bad)


def _describe_layers(model: nn.Module, batch: Batch) -> str:
    """The first module whose output is not finite, where neither expert nor gate is to blame; else the largest output.

    It runs the model once more with hooks.
    """
    bad: list[str] = []
    largest = (0.0, "the model")
    hooks = []
    for path, module in model.named_modules():

        def check(module, inputs, output, path=path):
            nonlocal largest
            name = f"{path or 'the model'} ({type(module).__name__})"
            for tensor in _output_tensors(output):
                # A designed gate gives −inf on purpose.
                if torch.isnan(tensor).any() or (tensor == torch.inf).any():
                    bad.append(name)
                elif tensor.numel():
                    largest = max(largest, (float(tensor.nan_to_num(neginf=0.0).abs().max()), name))

        hooks.append(module.register_forward_hook(check))
    try:
        with torch.no_grad():
            call_model(model, batch.x, batch.domains)
    finally:
        for hook in hooks:
            hook.remove()
    if bad:
        return f"not finite: output of {bad[0]}"
    value, name = largest
    return f"all outputs are finite, and the largest is {value:.3g}, of {name}"


def _output_tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors that a module has returned."""
    if isinstance(output, Routing):
        output = output.weights
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return [tensor for each in output for tensor in _output_tensors(each)]
    return [output] if isinstance(output, Tensor) and output.is_floating_point() else []


def _pools(layer: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """The pools of a layer's experts: path inside the layer, and the module and its attribute that hold each."""
    if isinstance(layer, CGC):
        return [*((f"experts.{task}", layer.experts, task) for task in layer.tasks), ("shared", layer, "shared")]
    return [("experts", layer, "experts")] if isinstance(layer, Mixture | MultiGateMixture | PositionMixture) else []
