"""`Routing`: the one frozen object between a router and everything after it.

Axis letters, here and as suffixes of local names everywhere:
T rows (images or tokens) · D features · E experts · K chosen per row · A assignments · C classes · H gate heads ·
G numbers that the gate gives per row (E, unless the router wants more)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Selection:
    """Which expert sees which row: one assignment per entry.

    The length A does not depend on the data (T·K for routers that choose K experts per row, E·capacity for routers
    whose experts choose rows, T·E where the count varies), so that shapes stay fixed; what is not kept is not run.

    Arguments:
        row_A: the row of each assignment.
        expert_A: its expert.
        weight_A: what the mixture multiplies with.
        kept_A: False for assignments that were dropped (no capacity) or not needed.
    """

    row_A: Int[Tensor, " A"]
    expert_A: Int[Tensor, " A"]
    weight_A: Float[Tensor, " A"]
    kept_A: Bool[Tensor, " A"]

    def select_outputs(self, outputs: Float[Tensor, "T E ..."]) -> Float[Tensor, "A ..."]:
        """What the assignments get of every expert's outputs; zero where they were not kept."""
        values = outputs[self.row_A, self.expert_A]
        return torch.where(self.kept_A.view(-1, *[1] * (values.ndim - 1)), values, 0)


@dataclass(frozen=True)
class Routing:
    """What the gate said and what the router made of it, for T rows and E experts.

    Losses and diagnostics read `probs` and `weights` only, so they need no branch for the kind of gate or router.

    Arguments:
        scores: what the gate said of each expert, before any normalisation.
        probs: the gate's distribution (or activation, for gates that are no distribution): what losses regularise.
        weights: what the mixture multiplies with; exactly 0 where an expert was not chosen.
        log_weights: the same in log space, −inf where not chosen, so that mixtures of probabilities never take log 0.
        selection: None when every expert sees every row, else the assignments.
        rows: index of each row in the outermost batch, for nested mixtures; None for the outermost itself.
        head_weights: the full weights (T, H, E, C) of several gate heads (H) or of weights per class (C); None when
            H = C = 1. `weights` is then their view: summed over heads, averaged over classes; and a selection holds
            each pair of row and expert at most once.
        outputs: what every expert says of every row, where `record(…, outputs=True)` asks for it.
        aux: what a loss needs and only the router knows: load estimates, L0 logits, drops …
        distribution: whether the rows of `probs` are distributions over the experts: not so for relu or elu gates.
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

    @property
    def experts(self) -> int:
        """E."""
        return self.weights.shape[-1]

    def with_rows(self, rows: Int[Tensor, " T"]) -> "Routing":
        """The same routing, with the place of its rows in the outermost batch."""
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
        """The routing whose weights are those of the kept assignments and exactly 0 elsewhere.

        Several kept assignments of one row to one expert add up.

        Example:
            >>> scores = torch.tensor([[2.0, 1.0]])
            >>> chosen = Selection(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25]), torch.tensor([True]))
            >>> Routing.from_selection(scores, scores.softmax(-1), chosen).weights
            tensor([[0.0000, 0.2500]])
        """
        weight_A = torch.where(selection.kept_A, selection.weight_A, 0)
        place_A = selection.row_A * scores.shape[1] + selection.expert_A
        weights = torch.zeros_like(probs).flatten().index_add(0, place_A, weight_A.to(probs.dtype)).view_as(probs)
        # log of the zeros would give NaN gradients: take it only where a weight is positive.
        chosen = weights > 0
        log_weights = torch.where(chosen, torch.where(chosen, weights, 1).log(), -torch.inf)
        return cls(scores, probs, weights, log_weights, selection, aux=aux or {}, distribution=distribution)


class Router(nn.Module):
    """The contract of routers: `forward(scores (T, E)) → Routing`, and what can be relied on.

    A subclass declares these attributes (an instance may set its own, where they follow from its arguments); the
    conformance tests hold it to them.

    Attributes:
        rows_sum_to: what a row's weights sum to, or None when that varies.
        rows_independent: whether a row's routing is the same whatever rows stand beside it.
        trains_gate: whether gradients of the output reach the scores.
        interchangeable: whether experts that swap their scores swap their weights, and nothing else happens.
        needs_keys: whether `forward` takes a second argument, a whole number for each row that names it (hash).
        aux_names: the keys of `Routing.aux` that `forward` gives in training mode: what losses that need them rely on.
    """

    rows_sum_to: float | None = 1.0
    rows_independent: bool = True
    trains_gate: bool = True
    interchangeable: bool = True
    needs_keys: bool = False
    aux_names: tuple[str, ...] = ()

    def gate_outputs(self, experts: int) -> int:
        """How many numbers the gate has to give per row, for so many experts: G, which is E unless a router says more.

        A router that wants more (several heads, the scale of a noise) takes them from the gate's last layer.
        """
        return experts

    def max_active(self, experts: int) -> int:
        """The most experts that one row can have, of so many."""
        return experts

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route T rows by what the gate said of them.

        A forward may count what it sees, and moves no state that routes: activation checkpointing repeats it.
        """
        raise TypeError(f"{type(self).__name__} is a router without a forward")

    def step(self) -> None:
        """Move what training moves besides parameters, by what forwards counted since the last step; here nothing."""


def step_routers(model: nn.Module) -> None:
    """Let every router in `model` take its step: the one line that a training loop has after `optimizer.step()`.

    A router with a balance bias (`TopK(bias_rate=…)`) moves it here, once for all rows that the optimizer's step saw:
    several micro-batches, the rows of all processes. `mb.fit` and recipes do this by themselves. In a distributed
    training every process has to call it.

    Where another tool owns the loop, or leaves out steps (to accumulate gradients, to scale losses), the optimizer
    calls it: `optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))`.

    Arguments:
        model: a mixture, or any module that holds some.

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


_Context = tuple[type, tuple[str, ...], tuple[tuple[str, bool], ...]]


def _flatten(part: Selection | Routing) -> tuple[list[Any], _Context]:
    """The tensors that are there: pytrees take None for a leaf, and a function of tensors would trip over it."""
    there = {one.name: value for one in fields(part) if (value := getattr(part, one.name)) is not None}
    flags = {name: value for name, value in there.items() if isinstance(value, bool)}
    names = tuple(name for name in there if name not in flags)
    return [there[name] for name in names], (type(part), names, tuple(flags.items()))


def _unflatten(values: Iterable[Any], context: _Context) -> Any:
    part, names, flags = context
    return part(**dict(zip(names, values, strict=True)), **dict(flags))


for _part in (Selection, Routing):
    pytree.register_pytree_node(_part, _flatten, _unflatten)
