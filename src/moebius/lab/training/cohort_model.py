"""The equal mixtures of a cohort as one mixture: the rows of all runs in turn, and stacked parameters."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.module_views import named_tensors
from moebius.core.recording import Log, Recorder, is_recording_outputs, record_routing
from moebius.core.routing import Routing, flatten_distinct
from moebius.core.row_context import RowContext, current_context, row_context
from moebius.execution._row_major import row_major
from moebius.execution._vmapped import vmapped_outputs
from moebius.layers.mixture import Mixture


class CohortModel:
    """S mixtures of one description, run as one on S·T rows: the first T are those of mixture 0, and so on.

    One mixture is vmapped over the parameters and the rows of all. So its gate and router see the rows of one run, and
    equal experts are computed at once, as they are in a mixture alone. Under vmap no shape may depend on values, and
    every expert sees every row. All outputs go to the combine, with the rows of all runs.

    Arguments:
        models: the mixtures. Their parameters become views of the stacked ones: an update of these updates the
            mixtures.

    Attributes:
        model: the mixture that stands for all; its parts are those of the first one. Routings that are recorded of it
            are of the rows of all runs.
        leaves: parameter of the first mixture → the stacked one, (S, …).

    Reference: ours; torch.func's model ensembling.
    """

    def __init__(self, models: Sequence[Mixture]):
        self.models = tuple(models)
        self.leaves: dict[nn.Parameter, nn.Parameter] = {}
        self._tensors: dict[str, Tensor] = {}
        for named in zip(*map(named_tensors, self.models), strict=True):
            name, _, table, *_ = named[0]
            tensors = [tensor for *_, tensor in named]
            stacked = self._stack(tensors) if table == "_parameters" else torch.stack(tensors)
            self._tensors[f"mixture.{name}"] = stacked
        self._linears = [module for module in self.models[0].modules() if type(module) is nn.Linear]
        self._uncombined = _Uncombined(self.models[0])
        self.model = copy.copy(self.models[0])
        vars(self.model)["forward"] = self._forward

    def _stack(self, parameters: Sequence[Any]) -> nn.Parameter:
        first = parameters[0]
        if first not in self.leaves:
            stacked = torch.stack([parameter.detach() for parameter in parameters])
            leaf = self.leaves[first] = nn.Parameter(stacked, first.requires_grad)
            for parameter, view in zip(parameters, leaf.data, strict=True):
                parameter.data = view
        return self.leaves[first]

    def run_log(self, log: Log, run: int) -> Log:
        """The part of a log of `model` that is about the rows of one run."""
        return {path: [cast(_JointRouting, routing).of_run(run) for routing in calls] for path, calls in log.items()}

    def _forward(self, x: Float[Tensor, "..."], context: Mapping[str, Tensor] | None = None) -> Tensor:
        uncombined, runs = self._uncombined, len(self.models)
        values = {**current_context().local_values(), **(context or {})}
        by_run = [value.unflatten(0, (runs, len(value) // runs)) for value in (x, *values.values())]
        uncombined.records_outputs, uncombined.names = is_recording_outputs(self.model), tuple(values)
        with row_major(self._linears):
            tensors = vmapped_outputs(uncombined, self._tensors, *by_run, shared=False)
        rebuild = vars(uncombined).pop("rebuild")
        outputs, log = rebuild(tensor.flatten(0, 1) if tensor.ndim > 1 else tensor for tensor in tensors)
        joint: Any = None
        for path, calls in log.items():
            for call, routing in enumerate(calls):

                def of_run(run: int, path: str = path, call: int = call) -> Routing:
                    return rebuild(tensor[run] for tensor in tensors)[1][path][call]

                # Without a selection: weights are 0 where an expert was not selected.
                joint = _JointRouting(**{**vars(routing), "selection": None}, of_run=of_run)
                record_routing(self.model.get_submodule(path), joint)
        # The last routing is that of the outermost mixture.
        return self.model.combine(outputs if joint.outputs is None else joint.outputs, joint)


class _Uncombined(nn.Module):
    """A mixture without its combine.

    Its outputs are those of every expert for every row, and the tensors of all routings, each once; `rebuild` makes the
    outputs and the log of them. It is called under vmap, outside of which its tensors do not exist.
    """

    rebuild: Callable[[Iterable[Tensor]], tuple[Tensor, Log]]
    names: tuple[str, ...]  # of the values of the rows' context

    def __init__(self, mixture: Mixture):
        super().__init__()
        self.mixture, self.records_outputs = copy.copy(mixture), False
        self.mixture.combine = _no_combine
        self.recorder = Recorder(self.mixture)

    def forward(self, x: Float[Tensor, "T ..."], *values: Tensor) -> list[Tensor]:
        context = RowContext(dict(zip(self.names, values, strict=True)))
        with self.recorder.recording(self.records_outputs, alone=True) as log, row_context(context):
            outputs = self.mixture(x)
        tensors, vars(self)["rebuild"] = flatten_distinct((outputs, log))
        return tensors


def _no_combine(values: Tensor, routing: Routing) -> Tensor:
    return values


@dataclass(frozen=True, repr=False)
class _JointRouting(Routing):
    """The routing of the rows of all runs.

    Arguments:
        of_run: the routing of one run's rows, for its number.
    """

    of_run: Callable[[int], Routing] = field(kw_only=True)
