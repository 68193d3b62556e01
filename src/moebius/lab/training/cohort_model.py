"""Several equal mixtures as one: the rows of all of them, one run's after another's, and stacked parameters."""

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
from moebius.execution._layers import outputs_of_all
from moebius.execution._pool import Pool
from moebius.execution._vmapped import vmapped_outputs
from moebius.execution.loop import all_outputs as one_by_one
from moebius.layers.mixture import Mixture


class CohortModel:
    """S mixtures of one description, run as one on S·T rows: the first T are those of mixture 0, and so on.

    Gates and experts run once for all mixtures, on parameters that lie one on another, (S, …). The router, and the way
    to combine, take the rows of all mixtures as so many rows of one, which is the same where rows do not depend on each
    other. All experts see every row; of what they say, those outputs go on that the router chose.

    Arguments:
        models: the mixtures. Their parameters become views of the stacked ones: what an optimizer does to these, the
            mixtures have done.

    Attributes:
        model: the mixture that stands for all.
        leaves: parameter of the first mixture → the stacked one, (S, …).

    Reference: ours; torch.func's model ensembling.
    """

    def __init__(self, models: Sequence[Mixture]):
        self.models = tuple(models)
        self.leaves: dict[nn.Parameter, nn.Parameter] = {}
        named = [dict(model.named_parameters()) for model in models]
        for name, first in named[0].items():
            every = [parameters[name] for parameters in named]
            leaf = nn.Parameter(torch.stack([one.detach() for one in every]), first.requires_grad)
            for one, own in zip(every, leaf.data, strict=True):
                one.data = own
            self.leaves[first] = leaf
        self.model = self._mixture(self.models)

    def log_of(self, log: Log, run: int) -> Log:
        """What a recorder of `model` has seen of one run."""
        return {path: [_rows_of(routing, run, len(self.models)) for routing in calls] for path, calls in log.items()}

    def _mixture(self, models: Sequence[Mixture]) -> Mixture:
        first = models[0]
        gate = self._part([model.gate for model in models])
        experts = [self._part(list(every)) for every in zip(*(model.experts for model in models), strict=True)]
        return Mixture(gate, experts, first.router, first.combine, self._execution(models))

    def _part(self, modules: Sequence[nn.Module]) -> nn.Module:
        mixtures = [module for module in modules if isinstance(module, Mixture)]
        return self._mixture(mixtures) if mixtures else _Part(modules, self.leaves)

    def _execution(self, models: Sequence[Mixture]) -> Execution:
        experts = list(models[0].experts)
        if (
            len(experts) > 1
            and all("rowwise" in vars(type(expert)) for expert in experts)
            and describe_difference(experts) is None
        ):
            return _Runs(_Part([_Pooled(list(model.experts)) for model in models], self.leaves))
        return _Runs(None)


class _Runs(Execution):
    """All experts of all runs, each on the rows of its run.

    Arguments:
        together: computes those of a run at once; None to run them one after another.
    """

    def __init__(self, together: nn.Module | None):
        self.together = together

    def run(self, pool: Pool, routing: Routing, x: Tensor) -> Tensor:
        values = one_by_one(pool, x) if self.together is None else self.together(x)
        return values if routing.selection is None else routing.selection.select_outputs(values)


class _Part(nn.Module):
    """The same gate or expert of S mixtures, on the rows of all of them.

    Arguments:
        modules: of each mixture.
        leaves: parameter of the first → stacked.
    """

    def __init__(self, modules: Sequence[nn.Module], leaves: Mapping[nn.Parameter, nn.Parameter]):
        super().__init__()
        first = modules[0]
        self.module, self.runs = first, len(modules)
        self.gives_aux = getattr(first, "gives_aux", False)
        named = first.named_parameters(remove_duplicate=False)
        self.tensors: dict[str, Tensor] = {name: leaves[parameter] for name, parameter in named}
        for name, _ in first.named_buffers(remove_duplicate=False):
            self.tensors[name] = torch.stack([module.get_buffer(name) for module in modules])

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Tensor] | None = None) -> Any:
        inputs = (x, context) if takes_context(type(self.module)) else (x,)
        if not self.tensors:
            return self.module(*inputs)
        by_run = pytree.tree_map(lambda rows: rows.unflatten(0, (self.runs, len(rows) // self.runs)), inputs)
        said = vmapped_outputs(self.module, self.tensors, *by_run, shared=False, around=_with_products)
        return pytree.tree_map(lambda rows: rows.flatten(0, 1), said)


class _Pooled(nn.Module):
    """Equal experts as one module: x (T, …) → (T, E, …)."""

    def __init__(self, experts: Sequence[nn.Module]):
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E ..."]:
        return outputs_of_all(Pool(self.experts), x)


def _with_products(call: Callable[..., Any]) -> Callable[..., Any]:
    def one(*inputs: Any) -> Any:
        with _Products():
            return call(*inputs)

    return one


class _Products(TorchFunctionMode):
    """Inside, a linear layer is (W xᵀ)ᵀ and not x Wᵀ.

    Batched over runs the gradient of W is then a product of row-major matrices. The other way round its result is
    (D, C), and MKL takes 30 times as long for C = 2 and D = 1,024.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    said = weight @ input.flatten(0, -2).transpose(0, 1)
    said = said if bias is None else said + bias.unsqueeze(1)
    return said.transpose(0, 1).unflatten(0, input.shape[:-1])


def _rows_of(routing: Routing, run: int, runs: int) -> Routing:
    """The rows of one run. What is one tensor under two names stays so: losses look."""
    known: dict[int, Tensor] = {}

    def part(value: Tensor) -> Tensor:
        count = len(value) // runs
        return known.setdefault(id(value), value[run * count : (run + 1) * count])

    selection = routing.selection
    if selection is not None:
        first = run * (len(routing.weights) // runs)
        own = {name: part(getattr(selection, name)) for name in ("expert_A", "weight_A", "kept_A")}
        selection = Selection(row_A=part(selection.row_A) - first, **own)
    tensors = {
        name: part(value)
        for name in ("scores", "probs", "weights", "log_weights", "head_weights", "outputs")
        if (value := getattr(routing, name)) is not None
    }
    aux = {name: part(value) for name, value in routing.aux.items()}
    return Routing(
        **tensors,
        selection=selection,
        aux=aux,
        distribution=routing.distribution,
        straight_through=routing.straight_through,
    )
