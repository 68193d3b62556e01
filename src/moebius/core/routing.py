"""`Routing`: the frozen object that a router returns and everything after it reads.

Axis letters, here and as suffixes of local names everywhere:
T rows (images or tokens) · D features · E experts · K experts selected per row · A assignments · C classes ·
H gate heads · G numbers that the gate returns for each row (E, unless the router needs more)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from moebius.core.safe_log import safe_log
from moebius.kit.html import html_table


@dataclass(frozen=True)
class Selection:
    """Which expert runs on which row: one assignment per entry.

    The length A does not depend on the data, so that shapes stay fixed: T·K for routers that select K experts for each
    row, E·capacity for routers whose experts select rows, T·E where the number of experts of a row varies. Assignments
    that are not kept do not run.

    Arguments:
        row_A: the row of each assignment.
        expert_A: its expert.
        weight_A: the factor of the expert's output.
        kept_A: False for assignments that were dropped for lack of capacity, or are not needed.
    """

    row_A: Int[Tensor, " A"]
    expert_A: Int[Tensor, " A"]
    weight_A: Float[Tensor, " A"]
    kept_A: Bool[Tensor, " A"]

    def __repr__(self) -> str:
        return f"Selection(assignments={len(self.row_A)})"

    def select_outputs(self, outputs: Float[Tensor, "T E ..."]) -> Float[Tensor, "A ..."]:
        """Select each assignment's output from those of every expert for every row; 0 where it was not kept."""
        selected = outputs[self.row_A, self.expert_A]
        return torch.where(self.kept_A.view(-1, *[1] * (selected.ndim - 1)), selected, 0)


@dataclass(frozen=True)
class Routing:
    """A gate's scores for T rows and E experts, and the weights that a router made of them.

    Losses and diagnostics read `probs` and `weights` only, so they need no branch for the kind of gate or router.

    Arguments:
        scores: the gate's scores, before any normalisation.
        probs: the gate's distribution over the experts (or activations, for gates without one), which losses
            regularise.
        weights: the factors of the experts' outputs; exactly 0 where an expert was not selected.
        log_weights: log(weights), −inf where an expert was not selected, so that mixtures of probabilities never take
            the logarithm of 0.
        selection: the assignments; None when every expert runs on every row.
        rows: number of each row in the outermost batch, for nested mixtures; None for the outermost mixture itself.
        head_weights: the weights (T, H, E, C) of several gate heads (H) or of weights per class (C); None when
            H = C = 1. `weights` is then their sum over heads and mean over classes, and a selection contains each pair
            of row and expert at most once.
        outputs: every expert's output for every row, where `record(…, outputs=True)` asks for it.
        aux: values that losses need and only the router or the gate can give: load estimates, L0 logits, drops …
        distribution: whether the rows of `probs` are distributions over the experts; false for relu and elu gates.
        straight_through: whether gradients reach weights that are exactly 0, so that every expert has to run.
    """

    scores: Float[Tensor, "T E"]
    probs: Float[Tensor, "T E"]
    weights: Float[Tensor, "T E"]
    log_weights: Float[Tensor, "T E"]
    selection: Selection | None = None
    rows: Int[Tensor, " T"] | None = None
    head_weights: Float[Tensor, "T H E C"] | None = None
    outputs: Float[Tensor, "T E ..."] | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    distribution: bool = True
    straight_through: bool = False

    def __repr__(self) -> str:
        details = [f"rows={self.weights.shape[0]}", f"experts={self.experts}"]
        if self.selection is not None:
            details.append(f"assignments={len(self.selection.row_A)}")
        if self.head_weights is not None:
            details.append(f"head_weights={tuple(self.head_weights.shape)}")
        if self.outputs is not None:
            details.append(f"outputs={tuple(self.outputs.shape)}")
        if self.aux:
            details.append(f"aux={sorted(self.aux)}")
        return f"Routing({', '.join(details)})"

    def _repr_html_(self) -> str:
        weights = self.weights.detach().float()
        shares, means = (weights != 0).float().mean(0).tolist(), weights.mean(0).tolist()
        rows = [(expert, f"{shares[expert]:.3f}", f"{means[expert]:.3f}") for expert in range(self.experts)]
        title = f"Routing of {len(weights)} rows"
        return html_table(title, ["expert", "share of rows that it runs on", "mean weight"], rows)

    @property
    def experts(self) -> int:
        """E, the number of experts."""
        return self.weights.shape[-1]

    def with_rows(self, rows: Int[Tensor, " T"]) -> "Routing":
        """The same routing with the numbers of its rows in the outermost batch."""
        return replace(self, rows=rows)

    @classmethod
    def from_selection(
        cls,
        scores: Float[Tensor, "T E"],
        probs: Float[Tensor, "T E"],
        selection: Selection,
        aux: Mapping[str, Tensor] | None = None,
        distribution: bool = True,
    ) -> "Routing":
        """The routing whose weights are those of the kept assignments, and exactly 0 elsewhere.

        The weights of several kept assignments of one row to one expert add up.

        Arguments:
            scores, probs, aux, distribution: fields of the routing.
            selection: the assignments.

        Example:
            >>> scores = torch.tensor([[2.0, 1.0]])
            >>> selection = Selection(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25]), torch.tensor([True]))
            >>> Routing.from_selection(scores, scores.softmax(-1), selection).weights
            tensor([[0.0000, 0.2500]])
        """
        weight_A = torch.where(selection.kept_A, selection.weight_A, 0)
        index_A = selection.row_A * scores.shape[1] + selection.expert_A
        weights = torch.zeros_like(probs).flatten().index_add(0, index_A, weight_A.to(probs.dtype)).view_as(probs)
        return cls(scores, probs, weights, safe_log(weights), selection, aux=aux or {}, distribution=distribution)


class Router(nn.Module):
    """The contract of routers: `forward(scores (T, E)) → Routing`, and properties of the routing.

    A subclass declares these attributes; an instance may set its own, where they depend on its arguments. The
    conformance tests check them.

    Attributes:
        rows_sum_to: the sum of a row's weights; None where it varies.
        rows_independent: whether a row's routing does not depend on the other rows of the batch.
        trains_gate: whether gradients of the output reach the scores.
        interchangeable: whether exchanging the scores of two experts exchanges their weights and changes nothing else.
        needs_keys: whether `forward` takes a second argument, a whole number for each row (see `row_keys`).
        aux_names: the keys of `Routing.aux` that `forward` gives in training mode, for losses that need them.
    """

    rows_sum_to: float | None = 1.0
    rows_independent: bool = True
    trains_gate: bool = True
    interchangeable: bool = True
    needs_keys: bool = False
    aux_names: tuple[str, ...] = ()

    def gate_outputs(self, experts: int) -> int:
        """G, how many numbers the gate must return for each row: E, unless the router needs more.

        A router that needs more (for several heads, or the scale of a noise) takes them from the gate's last layer.

        Arguments:
            experts: E, the number of experts.
        """
        return experts

    def max_active(self, experts: int) -> int:
        """The most of E `experts` that a router can select for one row."""
        return experts

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route T rows by the gate's scores.

        A forward may count rows, but must not change state that routing depends on: activation checkpointing repeats
        it.

        Raises:
            TypeError: the subclass has no forward.
        """
        raise TypeError(f"{type(self).__name__} is a router without a forward")

    def step(self) -> None:
        """Update routing state other than parameters by the counts since the last step; by default there is none."""


def step_routers(model: nn.Module) -> None:
    """Call `step` of every router in `model`: the line that a training loop adds after `optimizer.step()`.

    A router with a balance bias (`TopK(bias_rate=…)`) updates it here, once for all rows of the optimizer's step: those
    of several micro-batches and of all processes. `mb.fit` and recipes call this themselves. In distributed training
    every process has to call it.

    Where another tool runs the loop, or skips steps (to accumulate gradients, to scale losses), let the optimizer call
    it: `optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))`.

    Arguments:
        model: a mixture, or any module that contains some.

    Example:
        >>> import moebius as mb
        >>> router = mb.routers.TopK(1, bias_rate=0.5, experts=2)
        >>> model = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], router)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model(torch.ones(6, 4)).sum().backward()
        >>> optimizer.step()
        >>> mb.step_routers(model)
        >>> sorted(router.bias.tolist())
        [-0.5, 0.5]
    """
    for part in model.modules():
        if isinstance(part, Router):
            part.step()


# The class, the names of the fields that are tensors or mappings, and the flags with their names.
_TreeContext = tuple[type, tuple[str, ...], tuple[tuple[str, bool], ...]]


def _flatten(node: Selection | Routing) -> tuple[list[Any], _TreeContext]:
    """The fields that are set, as children: a pytree takes None for a leaf, and functions of tensors fail on it."""
    values = {item.name: value for item in fields(node) if (value := getattr(node, item.name)) is not None}
    flags = {name: value for name, value in values.items() if isinstance(value, bool)}
    names = tuple(name for name in values if name not in flags)
    return [values[name] for name in names], (type(node), names, tuple(flags.items()))


def _unflatten(children: Iterable[Any], tree_context: _TreeContext) -> Any:
    node_class, names, flags = tree_context
    return node_class(**dict(zip(names, children, strict=True)), **dict(flags))


for _node_class in (Selection, Routing):
    pytree.register_pytree_node(_node_class, _flatten, _unflatten)


def flatten_distinct(tree: Any) -> tuple[list[Tensor], Callable[[Iterable[Any]], Any]]:
    """The tensors of a tree of routings, each once, and a function that makes such a tree of other tensors.

    So fields that are one tensor stay one tensor: losses test whether the weights are the gate's own distribution.

    Example:
        >>> import moebius as mb
        >>> leaves, rebuild = flatten_distinct(mb.routers.Soft()(torch.zeros(3, 2)))
        >>> routing = rebuild(map(torch.clone, leaves))
        >>> routing.probs is routing.weights
        True
    """
    distinct: dict[int, Tensor] = {}
    _map_tensors(tree, lambda tensor: distinct.setdefault(id(tensor), tensor))

    def rebuild(values: Iterable[Any]) -> Any:
        by_number = dict(zip(distinct, values, strict=True))
        return _map_tensors(tree, lambda tensor: by_number[id(tensor)])

    return list(distinct.values()), rebuild


def _map_tensors(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """The tree with `function(tensor)` for each of its tensors: `pytree.tree_map` in a fifth of its time."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Selection | Routing):
        return type(tree)(**{name: _map_tensors(value, function) for name, value in vars(tree).items()})
    if isinstance(tree, Mapping):
        return {name: _map_tensors(value, function) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map_tensors(value, function) for value in tree]
    return tree
