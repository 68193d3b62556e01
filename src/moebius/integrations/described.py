"""A block of one's own, described: which part scores, and what becomes of the scores."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Router, Routing
from moebius.integrations._experts import all_outputs, refuse_outputs
from moebius.integrations._family import Family, Record
from moebius.integrations._routing import route_choice
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import normalisation_named

_VALUES = ("scores", "weights", "indices")


class Described(Family):
    """A block that no family recognises, in the words of its author.

    The part `gate` returns either scores alone, from which the block computes weights in its own forward; then
    `router` says how, as a router of ours. Or it returns what the block multiplies with:

    - `returns=("scores", "weights", "indices")`, in any order: logits (T, E), weights (T, K), chosen experts (T, K).
      A name that begins with an underscore skips an output. Leading axes are rows (tokens) in all three.
    - without "indices" the weights are (T, E), 0 where an expert is not chosen;
    - without "scores" `probs` are the weights, which are no distribution; scores are their logarithms, −∞ where an
      expert was not chosen.

    Arguments:
        gate: path of that part, from the block.
        router: how the block makes weights of scores: `mb.routers.TopK(2)`, `mb.routers.Soft()`, …; None where the
            gate returns weights.
        returns: names of the gate's outputs, in order.
        experts: path of the experts, from the block: a list or a mapping of modules, or a module that takes rows,
            indices and weights. Needed for `mb.watch(model, outputs=True)`, and for weights (T, K) without scores.
        normalisation: of scores that the gate returns with weights: softmax, sigmoid, relu, elu, none.

    Raises:
        ArgumentError: `returns` names neither scores nor weights, scores have no router, or weights have one.

    Example:
        >>> import moebius as mb
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scorer, self.networks = nn.Linear(4, 3), nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        ...     def forward(self, x):
        ...         weight, expert = self.scorer(x).softmax(-1).max(-1)
        ...         y = torch.stack([self.networks[number](row) for number, row in zip(expert, x)])
        ...         return weight.unsqueeze(-1) * y
        >>> description = mb.integrations.Described("scorer", mb.routers.TopK(1), experts="networks")
        >>> model = nn.Sequential(Block())
        >>> with mb.watch(model, describe={"0": description}) as log:
        ...     y = model(torch.randn(5, 4))
        >>> log["0"][0].weights.shape
        torch.Size([5, 3])

    Reference: ours.
    """

    example: ClassVar = {"gate": "gate", "returns": ("scores", "weights", "indices")}

    def __init__(
        self,
        gate: str,
        router: Router | None = None,
        returns: Sequence[str] = ("scores",),
        experts: str | None = None,
        normalisation: str = "softmax",
    ):
        # In eval: the router of a description draws no noise, and counts nothing.
        self.router = None if router is None else copy.deepcopy(router).eval()
        self.gate, self.experts, self.normalisation = gate, experts, normalisation_named(normalisation)
        self.returns = tuple(returns)
        unknown = [name for name in self.returns if name not in _VALUES and not name.startswith("_")]
        if unknown or len(set(self.returns)) != len(self.returns) or not {"scores", "weights"} & set(self.returns):
            rule = "needs names of the gate's outputs, scores or weights among them"
            fix = 'returns=("scores", "weights", "indices"), with "_" for an output to skip'
            raise ArgumentError("returns", rule, returns, fix)
        if router is None and "weights" not in self.returns:
            fix = "router=mb.routers.TopK(2), or returns=(…) with the gate's weights and indices"
            raise ArgumentError("router", "scores alone need a router that makes weights of them", router, fix)
        if router is not None and "weights" in self.returns:
            raise ArgumentError("router", "is not used where the gate returns weights", router, "router=None")

    def recognises(self, block: nn.Module) -> bool:
        """False: a description is for the blocks that it is given for."""
        return False

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the gate."""
        gate = self._part(block, "gate", self.gate)
        experts = None if self.experts is None else self._part(block, "experts", self.experts)
        count = _count(experts)
        if outputs and experts is None:
            reason = 'its description names no experts: Described(…, experts="experts")'
            raise refuse_outputs(type(block).__name__, reason)

        def read_gate(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            def make() -> Routing:
                routing = self._routing(self._values(output), count)
                if not outputs or experts is None:
                    return routing
                return replace(routing, outputs=all_outputs(experts, inputs[0], routing.experts))

            record(make)

        return [gate.register_forward_hook(read_gate)]

    def _part(self, block: nn.Module, argument: str, path: str) -> nn.Module:
        try:
            return block.get_submodule(path)
        except AttributeError:
            names = ", ".join(name for name, _ in block.named_children()) or "no parts"
            rule = f"needs the path of a part of {type(block).__name__}, which has {names}"
            raise ArgumentError(argument, rule, path, f'Described({argument}="…")') from None

    def _values(self, output: Any) -> dict[str, Tensor]:
        """Name → output of the gate, rows first."""
        outputs = output if isinstance(output, tuple | list) else (output,)
        if len(outputs) < len(self.returns):
            rule = f"names {len(self.returns)} outputs, and the gate {self.gate!r} returned {len(outputs)}"
            raise ArgumentError("returns", rule, self.returns, f"returns=(…), {len(outputs)} names")
        named = zip(self.returns, outputs, strict=False)
        return {name: value.flatten(0, -2) for name, value in named if name in _VALUES}

    def _routing(self, values: dict[str, Tensor], count: int | None) -> Routing:
        scores, weights, indices = (values.get(name) for name in _VALUES)
        if weights is None:
            assert self.router is not None
            assert scores is not None
            return self.router(scores)
        if indices is None:
            expert_TK = torch.arange(weights.shape[1], device=weights.device).expand_as(weights)
        else:
            expert_TK = indices
        if scores is not None:
            return route_choice(scores, expert_TK, weights, self.normalisation)
        experts = weights.shape[1] if indices is None else count
        if experts is None:
            rule = "indices without scores need the experts, whose number is not known otherwise"
            raise ArgumentError("experts", rule, self.experts, 'Described(…, experts="experts")')
        dense = weights.new_zeros(len(weights), experts).scatter_add(1, expert_TK.long(), weights)
        routing = route_choice(dense.detach(), expert_TK, weights, "none")
        return replace(routing, scores=routing.log_weights)


def _count(experts: nn.Module | None) -> int | None:
    """E: the length of a list, or an attribute `num_experts`; None where neither is there."""
    if isinstance(experts, nn.ModuleList | nn.ModuleDict):
        return len(experts)
    return getattr(experts, "num_experts", None)
