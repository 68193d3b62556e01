"""The equal mixtures of a cohort as one mixture: the rows of all runs in turn, and stacked parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from moebius.core.equality import describe_difference
from moebius.core.recording import Log
from moebius.core.routing import Routing, Selection
from moebius.core.row_context import takes_context
from moebius.execution._contract import Execution
from moebius.execution._layers import expert_outputs
from moebius.execution._pool import Pool
from moebius.execution._vmapped import vmapped_outputs
from moebius.execution.loop import all_outputs as loop_outputs
from moebius.layers.mixture import Mixture


class CohortModel:
    """S mixtures of one description, run as one on S·T rows: the first T are those of mixture 0, and so on.

    Gates and experts run once for all mixtures, on stacked parameters, (S, …). The router and the combine treat the
    rows of all mixtures as rows of one mixture, which is the same where rows do not depend on each other. All experts
    see every row; the outputs that the router chose go on.

    Arguments:
        models: the mixtures. Their parameters become views of the stacked ones: an update of these updates the
            mixtures.

    Attributes:
        model: the mixture that stands for all.
        leaves: parameter of the first mixture → the stacked one, (S, …).

    Reference: ours; torch.func's model ensembling.
    """

    def __init__(self, models: Sequence[Mixture]):
        self.models = tuple(models)
        self.leaves: dict[nn.Parameter, nn.Parameter] = {}
        parameters_by_name = [dict(model.named_parameters()) for model in models]
        for name, first in parameters_by_name[0].items():
            parameters = [by_name[name] for by_name in parameters_by_name]
            leaf = nn.Parameter(torch.stack([parameter.detach() for parameter in parameters]), first.requires_grad)
            for parameter, view in zip(parameters, leaf.data, strict=True):
                parameter.data = view
            self.leaves[first] = leaf
        self.model = self._join_mixtures(self.models)

    def run_log(self, log: Log, run: int) -> Log:
        """The part of a log of `model` that is about the rows of one run."""
        runs = len(self.models)
        return {path: [_run_routing(routing, run, runs) for routing in calls] for path, calls in log.items()}

    def _join_mixtures(self, models: Sequence[Mixture]) -> Mixture:
        first = models[0]
        gate = self._join([model.gate for model in models])
        experts = [self._join(list(copies)) for copies in zip(*(model.experts for model in models), strict=True)]
        return Mixture(gate, experts, first.router, first.combine, self._execution(models))

    def _join(self, modules: Sequence[nn.Module]) -> nn.Module:
        mixtures = [module for module in modules if isinstance(module, Mixture)]
        return self._join_mixtures(mixtures) if mixtures else _CohortPart(modules, self.leaves)

    def _execution(self, models: Sequence[Mixture]) -> Execution:
        experts = list(models[0].experts)
        if (
            len(experts) > 1
            and all("rowwise" in vars(type(expert)) for expert in experts)
            and describe_difference(experts) is None
        ):
            return _CohortExecution(_CohortPart([_EqualExperts(list(model.experts)) for model in models], self.leaves))
        return _CohortExecution(None)


class _CohortExecution(Execution):
    """All experts of all runs, each on the rows of its run.

    Arguments:
        joint: computes the experts of a run at once; None to run them one after another.
    """

    def __init__(self, joint: nn.Module | None):
        self.joint = joint

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        outputs = loop_outputs(pool, x) if self.joint is None else self.joint(x)
        return outputs if routing.selection is None else routing.selection.select_outputs(outputs)


class _CohortPart(nn.Module):
    """The same gate or expert of S mixtures, on the rows of all of them.

    Arguments:
        modules: one of each mixture.
        leaves: parameter of the first → stacked.
    """

    def __init__(self, modules: Sequence[nn.Module], leaves: Mapping[nn.Parameter, nn.Parameter]):
        super().__init__()
        first = modules[0]
        self.module, self.runs = first, len(modules)
        self.gives_aux = getattr(first, "gives_aux", False)
        parameters = first.named_parameters(remove_duplicate=False)
        self.tensors: dict[str, Tensor] = {name: leaves[parameter] for name, parameter in parameters}
        for name, _ in first.named_buffers(remove_duplicate=False):
            self.tensors[name] = torch.stack([module.get_buffer(name) for module in modules])

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Tensor] | None = None) -> Any:
        inputs = (x, context) if takes_context(type(self.module)) else (x,)
        if not self.tensors:
            return self.module(*inputs)
        by_run = pytree.tree_map(lambda rows: rows.unflatten(0, (self.runs, len(rows) // self.runs)), inputs)
        outputs = vmapped_outputs(self.module, self.tensors, *by_run, shared=False, around=_with_fast_linear)
        return pytree.tree_map(lambda rows: rows.flatten(0, 1), outputs)


class _EqualExperts(nn.Module):
    """Equal experts as one module: x (T, …) → (T, E, …)."""

    def __init__(self, experts: Sequence[nn.Module]):
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
        return expert_outputs(Pool(self.experts), x)


def _with_fast_linear(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_in_mode(*inputs: Any) -> Any:
        with _FastLinear():
            return call(*inputs)

    return call_in_mode


class _FastLinear(TorchFunctionMode):
    """Inside, a linear layer computes (W xᵀ)ᵀ and not x Wᵀ.

    Batched over runs the gradient of W is then a product of row-major matrices. The other way round its result is
    (D, C), and MKL takes 30 times as long for C = 2 and D = 1,024.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = weight @ input.flatten(0, -2).transpose(0, 1)
    product = product if bias is None else product + bias.unsqueeze(1)
    return product.transpose(0, 1).unflatten(0, input.shape[:-1])


def _run_routing(routing: Routing, run: int, runs: int) -> Routing:
    """The rows of one run. One tensor under two names stays one tensor, which losses test for."""
    slices: dict[int, Tensor] = {}

    def slice_run(value: Tensor) -> Tensor:
        count = len(value) // runs
        return slices.setdefault(id(value), value[run * count : (run + 1) * count])

    selection = routing.selection
    if selection is not None:
        first_row = run * (len(routing.weights) // runs)
        columns = {name: slice_run(getattr(selection, name)) for name in ("expert_A", "weight_A", "kept_A")}
        selection = Selection(row_A=slice_run(selection.row_A) - first_row, **columns)
    tensors = {
        name: slice_run(value)
        for name in ("scores", "probs", "weights", "log_weights", "head_weights", "outputs")
        if (value := getattr(routing, name)) is not None
    }
    aux = {name: slice_run(value) for name, value in routing.aux.items()}
    return Routing(
        **tensors,
        selection=selection,
        aux=aux,
        distribution=routing.distribution,
        straight_through=routing.straight_through,
    )
