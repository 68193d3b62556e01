"""Attentive gating: the gate attends to what the experts make of the row."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.gate_call import score_rows
from moebius.core.recording import outputs_wanted, record_routing
from moebius.core.routing import Router
from moebius.core.row_context import row_context
from moebius.execution._running import check_shapes, checked_output, with_gate_gradients
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers.soft import Soft


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
        self.gate_features = positive_integer("gate_features", gate_features)
        self.expert_features, self.dim = (
            positive_integer("expert_features", expert_features),
            positive_integer("dim", dim),
        )
        self.query = nn.Linear(gate_features, dim, bias=False)
        self.key = nn.Linear(expert_features, dim, bias=False)
        self.router = Soft() if router is None else router
        if self.router.gate_outputs(experts) != experts:
            rule = "needs a router that takes one score per expert: attention gives no more"
            raise ArgumentError("router", rule, type(self.router).__name__)
        self.combine = WeightedSum() if combine is None else combine

    def forward(
        self,
        x: Float[Tensor, "..."],
        context: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run the mixture.

        Arguments:
            x: rows.
            context: side information for gates and experts that want it, first axis that of x; also
                `with mb.context(…)`.
            mask: which rows are real, with the batch axes; also `with mb.context(mask=…)`. The outputs of the others
                are 0.
        """
        wanted = self.query.in_features
        rule = f"must give {wanted} features for each row of an input of shape {tuple(x.shape)}"
        rows = score_rows(self.gate, x, context, mask, wanted, rule, f"a gate whose last layer has {wanted} outputs")
        with row_context(rows.frame):
            bodies = [checked_output(number, body, rows.x, "bodies") for number, body in enumerate(self.bodies)]
            features_TEF = torch.stack(check_shapes(bodies, range(len(bodies)), "bodies"), 1)
            routing = rows.routed(self.router, self._scores(rows.said, features_TEF))
            pairs = zip(self.heads, features_TEF.unbind(1), strict=True)
            heads = [checked_output(number, head, features, "heads") for number, (head, features) in enumerate(pairs)]
            outputs = torch.stack(check_shapes(heads, range(len(heads)), "heads"), 1)
            if outputs_wanted(self):
                routing = replace(routing, outputs=outputs)
            record_routing(self, routing)
            y = self.combine(outputs if routing.selection is None else routing.selection.of(outputs), routing)
        y = with_gate_gradients(y, self.router, [self.gate, self.query, self.key], self.training)
        return rows.put_back(y)

    def _scores(self, state: Tensor, features_TEF: Tensor) -> Tensor:
        if features_TEF.shape != (len(state), len(self.bodies), self.key.in_features):
            rule = f"must give {self.key.in_features} features for each of {len(state)} rows"
            fix = f"expert_features={features_TEF.shape[-1]}"
            raise ArgumentError("bodies", rule, (len(features_TEF), *features_TEF.shape[2:]), fix)
        query_Td, key_TEd = self.query(state), self.key(features_TEF)
        return torch.einsum("td,ted->te", query_Td, key_TEd) / self.query.out_features**0.5

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        width, hidden = facts["features"], 6
        return {
            "gate": nn.Linear(width, 4),
            "bodies": [nn.Linear(width, hidden) for _ in range(facts["experts"])],
            "heads": [nn.Linear(hidden, facts["classes"]) for _ in range(facts["experts"])],
            "gate_features": 4,
            "expert_features": hidden,
        }
