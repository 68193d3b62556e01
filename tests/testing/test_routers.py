"""Each check of routers finds the router that breaks it."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.routing import Router, Routing, Selection
from moebius.testing import check_router
from moebius.testing.routers import CHECKS

COUNT = itertools.count(1)
Soft, TopK = mb.routers.Soft, mb.routers.TopK


class NoRouter(nn.Module):
    pass


class Half(Soft):
    """Weights in half precision under autocast, and everywhere else."""

    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, weights=routing.weights.bfloat16(), probs=routing.probs.bfloat16())


class HalfUnderAutocast(Soft):
    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, weights=routing.weights.bfloat16()) if torch.is_autocast_enabled("cpu") else routing


class Doubled(Soft):
    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, weights=2 * routing.weights, log_weights=routing.log_weights + torch.tensor(2.0).log())


class WrongLogarithm(Soft):
    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, log_weights=routing.log_weights + 1)


class One(TopK):
    """Declares one expert for each row, and takes two."""

    def __init__(self):
        super().__init__(2)

    def max_active(self, experts):
        return 1

    def forward(self, scores):
        return TopK(2)(scores)


class Unselected(TopK):
    def __init__(self):
        super().__init__(2)

    def forward(self, scores):
        return replace(super().forward(scores), selection=None)


class Twice(TopK):
    """Two assignments of half the weight for each pair."""

    def __init__(self):
        super().__init__(1)

    def forward(self, scores):
        routing = super().forward(scores)
        s = routing.selection
        halves = [torch.cat([part, part]) for part in (s.row_A, s.expert_A, s.weight_A / 2, s.kept_A)]
        return Routing.from_selection(routing.scores, routing.probs, Selection(*halves), routing.aux)


class OtherHeads(Soft):
    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, head_weights=routing.weights.flip(-1)[:, None, :, None])


class Together(Soft):
    def forward(self, scores):
        return super().forward(scores + scores.mean(0))


class ByPlace(Soft):
    rows_independent = False

    def forward(self, scores):
        return super().forward(scores * torch.arange(1, len(scores) + 1).unsqueeze(1).to(scores))


class FirstIsFavoured(Soft):
    def forward(self, scores):
        return super().forward(scores + torch.tensor([1.0] + [0.0] * (scores.shape[1] - 1)).to(scores))


class Noisy(Soft):
    def forward(self, scores):
        return super().forward(scores + torch.rand_like(scores))


class Moves(Soft):
    """A bias that moves in each forward, where `rate` is not 0."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, scores):
        self.bias = self.bias + self.rate
        return super().forward(scores * (1 + self.bias))


class Detached(Soft):
    def forward(self, scores):
        return super().forward(scores.detach())


class AlwaysRenormalised(TopK):
    """The softmax over the chosen scores alone: for a single one the constant 1."""

    def __init__(self, k: int):
        super().__init__(k)

    def forward(self, scores):
        if self.k > 1:
            return super().forward(scores)
        routing = super().forward(scores)
        selection = routing.selection
        ones = replace(selection, weight_A=selection.weight_A.unsqueeze(1).softmax(1).squeeze(1))
        return Routing.from_selection(routing.scores, routing.probs, ones, routing.aux)


class WithoutProbs(Soft):
    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, probs=routing.probs.detach())


class WrongGradient(Soft):
    def forward(self, scores):
        return super().forward(2 * scores - scores.detach())


class Clamped(Soft):
    def forward(self, scores):
        return super().forward(scores.clamp(min=-1))


class NoRouting(Soft):
    def forward(self, scores):
        return super().forward(scores).weights


class AtMostTwo(TopK):
    def __init__(self, k: int):
        super().__init__(min(k, 2))


class Drops(TopK):
    def __init__(self):
        super().__init__(2)

    def forward(self, scores):
        routing = super().forward(scores)
        kept = torch.arange(len(routing.selection.kept_A)) % 2 == 0
        selection = replace(routing.selection, kept_A=kept)
        return Routing.from_selection(routing.scores, routing.probs, selection, {})


class KeptButWrong(TopK):
    """Weights that are not those of the selection: what runs and what is written differ."""

    def __init__(self):
        super().__init__(1)

    def forward(self, scores):
        routing = super().forward(scores)
        selection = replace(routing.selection, weight_A=routing.selection.weight_A * 2)
        return replace(routing, selection=selection)


class Drifts(Soft):
    """Each forward has another temperature, that of a copy too."""

    def forward(self, scores):
        return super().forward(scores / next(COUNT))


BROKEN = {
    "is_a_router": (NoRouter, "is no moebius.Router"),
    "gives_a_whole_routing_in_float32_at_least": (Half, "gives probs in torch.bfloat16, needs torch.float32"),
    "has_weights_that_sum_to_what_it_declares": (Doubled, r"(?s)rows_sum_to = 1.0 and gives others.*fix: rows_sum_to"),
    "gives_the_logarithm_of_its_weights": (WrongLogarithm, "log_weights that are not the log of weights"),
    "weighs_only_experts_that_it_chose": (One, "declares max_active of 1 and gives a row 2 experts"),
    "selects_where_a_row_may_have_fewer_than_all_experts": (Unselected, "and gives no selection"),
    "selects_a_pair_once_at_most": (Twice, "selects a pair of row and expert more than once"),
    "has_weights_that_are_the_view_of_heads_and_classes": (OtherHeads, "not the view of its head_weights"),
    "routes_rows_by_themselves_where_it_declares_so": (Together, r"(?s)declares rows_independent.*= False"),
    "permuting_rows_permutes_weights": (ByPlace, "routes rows by their place"),
    "permuting_experts_permutes_weights_where_it_declares_so": (
        FirstIsFavoured,
        r"(?s)interchangeable and weighs.*= F",
    ),
    "routes_the_same_twice_in_eval": (Noisy, "other weights for the same scores in eval"),
    "moves_nothing_that_routes_in_a_forward": (Moves, r"moves in a forward what routes"),
    "gives_a_routing_that_is_a_pytree": (NoRouting, "gives a Tensor, needs a moebius.Routing"),
    "takes_a_k_of_all_experts_and_more": (AtMostTwo, "has max_active of 2 for k = 4"),
    "counts_what_it_drops": (Drops, r'drops assignments and gives no aux\["dropped"\]'),
    "trains_the_gate_where_it_declares_so": (Detached, "declares trains_gate and its weights have no gradient"),
    "trains_the_gate_by_a_single_expert": (AlwaysRenormalised, "passes no gradient to the scores where k is 1"),
    "passes_gradients_of_gate_losses": (WithoutProbs, "gives probs without a gradient"),
    "has_the_gradients_of_finite_differences": (WrongGradient, "gives probs with other gradients than finite"),
    "never_chooses_a_score_of_minus_infinity": (Clamped, "gives experts with scores of −inf the probs"),
    "gives_the_same_by_every_expert_and_by_the_chosen": (Drifts, "gives another output or gradient where all"),
    "decides_in_float32_where_a_mixture_computes_in_bfloat16": (HalfUnderAutocast, "gives weights under autocast in"),
    "permuting_rows_permutes_outputs": (ByPlace, "routes rows of a mixture by their place"),
    "leaves_padding_out": (Drifts, "with a mask gives other"),
    "leaves_padding_out_in_a_stack": (Drifts, "with a mask gives other"),
    "leaves_out_no_row_all_rows_and_whole_sequences": (Drifts, "with a mask gives other"),
    "gives_the_same_with_a_mask_that_leaves_nothing_out": (Drifts, "another output with a mask that leaves"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_router_is_named(breaks, name):
    breaks(CHECKS, name, "routers", *BROKEN[name])


class Untrained(Soft):
    trains_gate = False


class NegativeWeights(Soft):
    rows_sum_to = None

    def forward(self, scores):
        routing = super().forward(scores)
        return replace(routing, weights=-routing.weights)


class Selfish(Soft):
    def forward(self, scores):
        return replace(super().forward(scores), probs=scores.sigmoid())


@pytest.mark.parametrize(
    ("name", "component", "match"),
    [
        ("trains_the_gate_where_it_declares_so", Untrained, "trains_gate = False and its weights have a gradient"),
        ("has_weights_that_sum_to_what_it_declares", NegativeWeights, "gives weights below 0"),
        ("gives_a_whole_routing_in_float32_at_least", Selfish, "gives probs that are no distribution"),
        ("weighs_only_experts_that_it_chose", KeptButWrong, "weights that are not those of the kept assignments"),
    ],
)
def test_the_other_half_of_a_rule(breaks, name, component, match):
    breaks(CHECKS, name, "routers", component, match)


class Second(Router):
    """The expert with the second largest score, for a gate that is told so."""

    trains_gate = False
    rows_sum_to = 1.0

    def max_active(self, experts):
        return 1

    def forward(self, scores):
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        expert_T = wide.topk(min(2, wide.shape[1]), -1).indices[:, -1]
        rows = torch.arange(len(wide))
        kept = torch.ones(len(wide), dtype=torch.bool)
        selection = Selection(rows, expert_T, torch.ones(len(wide), dtype=wide.dtype), kept)
        return Routing.from_selection(scores, wide.softmax(-1), selection)


def test_a_router_of_ones_own():
    with pytest.raises(mb.MoebiusError, match=r"^routers Second: gives experts with scores of −inf the weights"):
        check_router(Second)
    Second.exempt = {"never_chooses_a_score_of_minus_infinity": "the second largest score may be −inf"}
    check_router(Second)
