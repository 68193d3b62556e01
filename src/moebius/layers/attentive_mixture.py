"""Attentive gating: the gate attends to the experts' features of a row."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.gate_call import score_rows
from moebius.core.recording import is_recording_outputs, record_routing
from moebius.core.routing import Router
from moebius.core.row_context import row_context
from moebius.execution._running import check_shapes, checked_output, with_gate_gradients
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers.soft import Soft


class AttentiveMixture(nn.Module):
    """A mixture whose gate scores an expert by the expert's features of the row, as attention does.

    score_e = (W_q g(x)) · (W_k h_e(x)) / √d;  y = combine(router(scores), head_e(h_e(x)))

    An expert consists of a body, x → features, and a head, features → output. The gate's state makes the query and the
    bodies' features make the keys, so every body and every head runs on every row: a router that selects experts
    determines which outputs are combined, and saves no computation.

    Arguments:
        gate: any module x → state (…, G); its batch axes are the rows, as in `Mixture`.
        bodies: E modules, x → features (T, F).
        heads: E modules, features (T, F) → outputs of equal shapes.
        gate_features: G, width of the gate's state.
        expert_features: F, width of the bodies' features.
        dim: d, width of queries and keys.
        router: scores (T, E) → Routing; by default `Soft`, every expert for every row.
        combine: (outputs, routing) → y; by default the weighted sum.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: there are no bodies, or not one head for each; a size is below 1; the router needs more than one
            score per expert; the gate or a body returns another width or other rows.

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
            bodies_fix = f"bodies=[nn.Linear(features, {expert_features})], and one head for each"
            raise ArgumentError("bodies", "needs at least one expert", [], bodies_fix)
        if len(self.heads) != experts:
            heads_fix = f"heads=[nn.Linear({expert_features}, outputs) for _ in range({experts})]"
            raise ArgumentError("heads", f"needs one head for each of {experts} bodies", len(self.heads), heads_fix)
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
            raise ArgumentError("router", rule, type(self.router).__name__, "router=mb.routers.TopK(2)")
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
            context: side information for gates and experts whose forward takes a context: tensors with x's first axis;
                also `with mb.context(…)`.
            mask: True for real rows, with the batch axes; also `with mb.context(mask=…)`. The outputs of padding are 0.
        """
        width = self.query.in_features
        rule = f"must give {width} features for each row of an input of shape {tuple(x.shape)}"
        rows = score_rows(self.gate, x, context, mask, width, rule, f"gate=nn.Linear(features, {width})")
        with row_context(rows.context):
            features = [checked_output(number, body, rows.x, "bodies") for number, body in enumerate(self.bodies)]
            features_TEF = torch.stack(check_shapes(features, range(len(features)), "bodies"), 1)
            routing = rows.route(self.router, self._attention_scores(rows.scores, features_TEF))
            pairs = enumerate(zip(self.heads, features_TEF.unbind(1), strict=True))
            outputs = [checked_output(number, head, features_TF, "heads") for number, (head, features_TF) in pairs]
            all_outputs = torch.stack(check_shapes(outputs, range(len(outputs)), "heads"), 1)
            if is_recording_outputs(self):
                routing = replace(routing, outputs=all_outputs)
            record_routing(self, routing)
            selection = routing.selection
            y = self.combine(all_outputs if selection is None else selection.select_outputs(all_outputs), routing)
        y = with_gate_gradients(y, self.router, [self.gate, self.query, self.key], self.training)
        return rows.restore_batch(y)

    def _attention_scores(self, state: Tensor, features_TEF: Tensor) -> Tensor:
        """The scores (T, E): query · key / √d for each row and expert."""
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
