"""Layers as in torchtitan, which is not installed here: the same parts, outputs and order of calls."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb

DIM, HIDDEN, EXPERTS, K = 8, 12, 4, 2
X = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(4))


class Router(nn.Module):
    """`TokenChoiceTopKRouter`: rows → weights (T, K), experts (T, K), rows of each expert (E,)."""

    def __init__(self, score_func: str, route_norm: bool, route_scale: float):
        super().__init__()
        self.gate, self.num_experts, self.top_k = nn.Linear(DIM, EXPERTS, bias=False), EXPERTS, K
        self.score_func, self.route_norm, self.route_scale = score_func, route_norm, route_scale

    def forward(self, x, expert_bias=None):
        scores = self.gate(x)
        scores = torch.sigmoid(scores.float()) if self.score_func == "sigmoid" else F.softmax(scores.float(), dim=1)
        choice = scores if expert_bias is None else scores + expert_bias
        indices = torch.topk(choice, k=self.top_k, dim=1).indices
        weights = scores.gather(dim=1, index=indices)
        if self.route_norm:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        counts = torch.histc(indices.view(-1).float(), bins=self.num_experts, min=0, max=self.num_experts)
        return weights * self.route_scale, indices, counts


class GroupedExperts(nn.Module):
    """Rows sorted by expert, and how many each has → their outputs."""

    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(EXPERTS, HIDDEN, DIM))
        self.w2 = nn.Parameter(torch.randn(EXPERTS, DIM, HIDDEN))
        self.w3 = nn.Parameter(torch.randn(EXPERTS, HIDDEN, DIM))

    def forward(self, x, num_tokens_per_expert):
        pieces = torch.split(x, num_tokens_per_expert.long().tolist())
        return torch.cat([self.expert(number, piece) for number, piece in enumerate(pieces)])

    def expert(self, number, x):
        hidden = F.silu(x @ self.w1[number].T) * (x @ self.w3[number].T)
        return hidden @ self.w2[number].T


class MoE(nn.Module):
    """Scores the inputs or the outputs of the experts, and adds a shared expert."""

    def __init__(self, score_func="sigmoid", route_norm=True, route_scale=1.5, score_before_experts=False):
        super().__init__()
        self.router, self.experts = Router(score_func, route_norm, route_scale), GroupedExperts()
        self.shared_experts = nn.Linear(DIM, DIM)
        self.score_before_experts = score_before_experts
        self.register_buffer("expert_bias", torch.linspace(-0.3, 0.3, EXPERTS))

    def forward(self, x):
        rows = x.view(-1, DIM)
        weights, indices, counts = self.router(rows, self.expert_bias)
        order = torch.argsort(indices.view(-1), stable=True)
        sorted_weights, sorted_rows = weights.view(-1)[order].unsqueeze(-1), order // K
        routed = rows[sorted_rows]
        if self.score_before_experts:
            out = self.experts(routed * sorted_weights, counts)
        else:
            out = self.experts(routed, counts) * sorted_weights
        return (self.shared_experts(rows).index_add(0, sorted_rows, out)).view_as(x)


@pytest.mark.parametrize("score_func", ["sigmoid", "softmax"])
@pytest.mark.parametrize("before", [False, True])
def test_a_readable_loop_gives_the_output(score_func, before):
    torch.manual_seed(0)
    layer = MoE(score_func, score_func == "sigmoid", score_before_experts=before)
    with mb.watch(layer, outputs=not before) as log:
        y = layer(X)
    assert torch.equal(y, layer(X))
    (routing,) = log[""]
    rows = X.view(-1, DIM)
    assert torch.equal(routing.scores, layer.router.gate(rows))
    assert routing.distribution == (score_func == "softmax")
    torch.testing.assert_close(routing.probs, getattr(torch, score_func)(routing.scores, *[-1] * routing.distribution))
    for number, row in enumerate(rows):
        total = layer.shared_experts(row)
        for expert, weight in enumerate(routing.weights[number]):
            if before:
                total = total + layer.experts.expert(expert, weight * row)
            else:
                total = total + weight * layer.experts.expert(expert, row)
                alone = layer.experts.expert(expert, row)
                torch.testing.assert_close(routing.outputs[number, expert], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(total, y.view(-1, DIM)[number], rtol=1e-4, atol=1e-4)


def test_gradients_are_equal_to_the_bit():
    layer = MoE()
    plain = torch.autograd.grad(layer(X).square().sum(), list(layer.parameters()))
    with mb.watch(layer, outputs=True):
        watched = torch.autograd.grad(layer(X).square().sum(), list(layer.parameters()))
    assert all(map(torch.equal, plain, watched))


def test_outputs_are_refused_where_weights_multiply_inputs():
    with (
        pytest.raises(mb.MoebiusError, match="does not multiply outputs"),
        mb.watch(MoE(score_before_experts=True), outputs=True),
    ):
        pass


def test_the_form_of_2026_whose_experts_take_weights_and_indices():
    """There the router returns a mask, and the experts dispatch by themselves."""

    class RoutedExperts(GroupedExperts):
        def forward(self, x_TD, topk_scores_TK, topk_expert_ids_TK, num_local_tokens_per_expert_E):
            outputs = torch.stack([self.expert(number, x_TD) for number in range(EXPERTS)], 1)
            chosen = outputs.gather(1, topk_expert_ids_TK.unsqueeze(-1).expand(-1, -1, DIM))
            return (chosen * topk_scores_TK.unsqueeze(-1)).sum(1)

    class Sigmoid(nn.Module):
        def forward(self, x):
            return x.sigmoid()

    layer = MoE()
    layer.router.score_func, layer.routed_experts = Sigmoid(), RoutedExperts()
    del layer.experts, layer.score_before_experts
    with mb.watch(layer) as log:
        weights, indices, counts = layer.router(X.view(-1, DIM), layer.expert_bias)
        layer.routed_experts(X.view(-1, DIM), weights, indices, counts)
    (routing,) = log[""]
    assert not routing.distribution
    assert torch.equal(routing.weights.gather(1, indices), weights)
    with pytest.raises(mb.MoebiusError, match="not known for this layer of torchtitan"), mb.watch(layer, outputs=True):
        pass
