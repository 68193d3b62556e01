"""Attentive gating: the gate attends to what the experts make of the row."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.arguments import positive
from moebius.combine.weighted_sum import WeightedSum
from moebius.errors import ArgumentError
from moebius.frame import Frame, current, entered
from moebius.keys import row_keys
from moebius.mixture import asked
from moebius.recording import note, outputs_wanted
from moebius.routers.soft import Soft
from moebius.routing import Router, Routing


class AttentiveMixture(nn.Module):
    """A mixture whose gate scores an expert by what the expert makes of the row, as attention does.

    score_e = (W_q g(x)) · (W_k h_e(x)) / √d;  y = combine(router(scores), head_e(h_e(x)))

    An expert is a body, x → features, and a head, features → output. The gate's state is the query and the bodies'
    features are the keys, so every body and every head runs on every row: a router that chooses decides what is
    combined and saves no computation.

    Arguments:
        gate: any module x → state (…, G); its batch axes are the rows, as in `Mixture`.
        bodies: E modules, x → features (T, F).
        heads: E modules, features (T, F) → outputs of equal shapes.
        gate_features: G.
        expert_features: F.
        dim: d, of queries and keys.
        router: scores (T, E) → Routing; every expert for every row unless given.
        combine: (outputs, routing) → y; the weighted sum unless given.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: no bodies, not one head for each; a size below 1; a router that wants more than one score per
            expert; a gate or bodies that give another width or other rows than they should.

    Example:
        >>> bodies = [nn.Sequential(nn.Linear(4, 6), nn.ReLU()) for _ in range(3)]
        >>> heads = [nn.Linear(6, 2) for _ in range(3)]
        >>> moe = AttentiveMixture(nn.Linear(4, 5), bodies, heads, gate_features=5, expert_features=6, dim=8)
        >>> moe(torch.zeros(7, 4)).shape
        torch.Size([7, 2])

    Reference: Krishnamurthy, Watkins, Gärtner 2023, Improving Expert Specialization in Mixture of Experts, attentive
    gating. Routers and combines other than softmax and sum are ours.
    """

    def __init__(
        self,
        gate: nn.Module,
        bodies: Iterable[nn.Module],
        heads: Iterable[nn.Module],
        gate_features: int,
        expert_features: int,
        dim: int = 32,
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
    ):
        super().__init__()
        self.gate, self.bodies, self.heads = gate, nn.ModuleList(bodies), nn.ModuleList(heads)
        experts = len(self.bodies)
        if not experts:
            raise ArgumentError("bodies", "needs at least one expert", list(self.bodies))
        if len(self.heads) != experts:
            raise ArgumentError("heads", f"needs one head for each of {experts} bodies", len(self.heads))
        self.gate_features = positive("gate_features", gate_features)
        self.expert_features, self.dim = positive("expert_features", expert_features), positive("dim", dim)
        self.query = nn.Linear(gate_features, dim, bias=False)
        self.key = nn.Linear(expert_features, dim, bias=False)
        self.router = Soft() if router is None else router
        if self.router.gate_outputs(experts) != experts:
            rule = "needs a router that takes one score per expert: attention gives no more"
            raise ArgumentError("router", rule, type(self.router).__name__)
        self.combine = WeightedSum() if combine is None else combine

    def forward(self, x: Float[Tensor, "..."], context: Mapping[str, Tensor] | None = None) -> Tensor:
        """Run the mixture.

        Arguments:
            x: rows.
            context: side information for gates that want it, first axis that of x; also `with mb.context(…)`.
        """
        frame = current() if context is None else current().given(context)
        state, aux = asked(self.gate, x, frame)
        batch = state.shape[:-1]
        if not batch or batch != x.shape[: len(batch)] or state.shape[-1] != self.query.in_features:
            rule = f"must give {self.query.in_features} features for each row of an input of shape {tuple(x.shape)}"
            raise ArgumentError("gate", rule, tuple(state.shape))
        if len(batch) > 1:
            frame = frame.repeated(prod(batch[1:]))
            state, x = state.flatten(0, -2), x.flatten(0, len(batch) - 1)
            aux = {name: value.flatten(0, len(batch) - 1) for name, value in aux.items()}
        with entered(frame):
            features_TEF = torch.stack([body(x) for body in self.bodies], 1)
            routing = self._routed(state, features_TEF, x, frame)
            routing = replace(routing, aux={**aux, **routing.aux})
            pairs = zip(self.heads, features_TEF.unbind(1), strict=True)
            outputs = torch.stack([head(features) for head, features in pairs], 1)
            if outputs_wanted(self):
                routing = replace(routing, outputs=outputs)
            note(self, routing)
            y = self.combine(outputs if routing.selection is None else routing.selection.of(outputs), routing)
        return y if len(batch) == 1 else y.unflatten(0, batch)

    def _routed(self, state: Tensor, features_TEF: Tensor, x: Tensor, frame: Frame) -> Routing:
        if features_TEF.shape != (len(state), len(self.bodies), self.key.in_features):
            rule = f"must give {self.key.in_features} features for each of {len(state)} rows"
            raise ArgumentError("bodies", rule, (len(features_TEF), *features_TEF.shape[2:]))
        query_Td, key_TEd = self.query(state), self.key(features_TEF)
        scores = torch.einsum("td,ted->te", query_Td, key_TEd) / self.query.out_features**0.5
        routing = self.router(scores, row_keys(x, frame)) if self.router.needs_keys else self.router(scores)
        return routing if frame.rows is None else routing.at(frame.rows)
