"""What keeps a model from learning before its first step: saturated gates, and units that are 0 for every row."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from moebius.core.recording import record
from moebius.core.routing import Routing
from moebius.lab.illnesses._intervals import percent
from moebius.lab.illnesses.saturated_gate import MARGIN
from moebius.lab.training.engine import Engine
from moebius.lab.training.gate_places import find_gates

# The share of rows, or of units, from which on there is a warning.
SATURATED = 0.5
DEAD = 0.75
_RELUS = (torch.relu, torch.relu_, F.relu, F.relu_, Tensor.relu, Tensor.relu_)


@contextmanager
def start_check(engine: Engine, warn: Callable[[int, str], None]) -> Iterator[None]:
    """Looks at the first step of a training, which is inside of this context; nothing is computed for it again.

    A gate is saturated where the largest weight of half of the rows is 1 to within 1e-5: the gradient of its softmax,
    p(1 − p), is then next to nothing, and so is that of every loss on its weights. A module has dead units where three
    quarters of its relu units are 0 for all rows and all positions: no gradient reaches what is below them. Units are
    looked at where a run trains alone and is not compiled.

    Arguments:
        engine: with the models of the runs.
        warn: receives the number of a run and a warning about its model.

    Reference: ours; study 2's gates on raw pixels begin saturated. Glorot, Bengio 2010, Understanding the difficulty of
    training deep feedforward neural networks, for looking at activations before training.
    """
    model, units = engine.call.model, _ReluUnits()
    is_plain = engine.runs == 1 and not any(hasattr(module, "_orig_mod") for module in model.modules())
    with record(model) as log, ExitStack() as stack:
        if is_plain:
            stack.enter_context(_named_calls(model, units.path))
            stack.enter_context(units)
        yield
    places = [place for place in find_gates(engine.models[0]) if place.count > 1 and _learns(place.gate)]
    for run, of_run in enumerate(engine.run_logs(log)):
        for place in places:
            share = _certain_share(of_run.get(place.path, ()))
            if share >= SATURATED:
                warn(run, _saturated(place.name, share))
    for path, count in units.counts.items():
        if units.dead[path] >= DEAD * count:
            warn(0, _dead(path or "the model", units.dead[path], count))


def _certain_share(routings: Sequence[Routing]) -> float:
    certain = [routing.probs.amax(1) > 1 - MARGIN for routing in routings if routing.distribution]
    return float(torch.cat(certain).float().mean()) if certain else 0.0


def _saturated(gate: str, share: float) -> str:
    return (
        f"saturated gate ({gate}) before the first step: the largest weight of {percent(share)} of the rows is 1 to "
        "within 1e-5, so that neither the gate nor an expert without weight gets a gradient. Try: standardise the "
        "data, data.scale: standardised; where they have to stay as they are, put the gate into "
        "mb.gates.Standardised, in a recipe gate: {kind: standardised, gate: …}"
    )


def _dead(path: str, dead: int, count: int) -> str:
    return (
        f"dead units ({path}) before the first step: {dead} of {count} relu units are 0 for every row, so that no "
        "gradient reaches what is below them. Try: another start (init: keras), smaller inputs, or activation: elu"
    )


def _learns(gate: Any) -> bool:
    return isinstance(gate, nn.Module) and any(parameter.requires_grad for parameter in gate.parameters())


class _ReluUnits(TorchFunctionMode):
    """Counts relu units, and those that are 0 for all rows, by the module in whose forward they are."""

    def __init__(self):
        super().__init__()
        self.path: list[str] = []
        self.counts: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _RELUS and isinstance(output, Tensor) and output.ndim > 1:
            unit = 1 if output.ndim == 4 else output.ndim - 1  # channels of a map, or features
            largest = output.detach().transpose(unit, -1).flatten(0, -2).amax(0)
            place = self.path[-1] if self.path else ""
            self.counts[place] += len(largest)
            self.dead[place] += int((largest <= 0).sum())
        return output


@contextmanager
def _named_calls(model: nn.Module, path: list[str]) -> Iterator[None]:
    """Keeps the name of the module whose forward runs at the end of `path`."""

    def leave(*of_module: Any) -> None:
        path.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *of_module, name=name: path.append(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
