"""The contract of routers: gradients of weights and probabilities."""

import torch
from torch import Tensor

from moebius.testing._contract import require, require_true_gradients
from moebius.testing._router_scores import EXPERTS, make_scores
from moebius.testing._subject import Subject


def trains_the_gate_where_it_declares_so(subject: Subject) -> None:
    """With `trains_gate` the weights have a finite gradient for the scores that is not 0; without they have none."""
    router = subject.make()
    scores = make_scores(router, 20).requires_grad_()
    weights = router(scores).weights
    if not router.trains_gate:
        rule = "declares trains_gate = False and its weights have a gradient"
        require(not weights.requires_grad, rule, "trains_gate = True")
        return
    fix = "trains_gate = False"
    require(weights.requires_grad, "declares trains_gate and its weights have no gradient", fix)
    gradient = _gradient((weights * torch.arange(EXPERTS)).sum(), scores)
    require(gradient.isfinite().all(), "passes gradients to the scores that are not finite")
    require(gradient.abs().sum() > 0, "declares trains_gate and its weights have gradients of 0", fix)


def trains_the_gate_by_a_single_expert(subject: Subject) -> None:
    """With k = 1 the weights still have a gradient, for routers with an argument `k` that train the gate."""
    if subject.takes("k") and (router := subject.make(k=1)).trains_gate:
        scores = make_scores(router, 20).requires_grad_()
        gradient = _gradient((router(scores).weights * torch.arange(EXPERTS)).sum(), scores)
        rule = "passes no gradient to the scores where k is 1"
        require((gradient.abs().sum(-1) > 1e-6).any(), rule, "for k = 1 the probability of the full softmax")


def passes_gradients_of_gate_losses(subject: Subject) -> None:
    """A loss of `probs` reaches the scores, also where the weights have no gradient."""
    router = subject.make()
    scores = make_scores(router, 20).requires_grad_()
    probs = router(scores).probs
    require(probs.requires_grad, "gives probs without a gradient")
    require(_gradient(probs.square().sum(), scores).abs().sum() > 0, "gives probs with gradients of 0")


def has_the_gradients_of_finite_differences(subject: Subject) -> None:
    """Gradients of `probs`, and of `weights` where they train the gate, are those of finite differences, in eval."""
    router = subject.make().eval()
    scores = make_scores(router, 5, dtype=torch.float64)
    scores[:, 0] = scores[:, 0].abs() + 0.1  # the router relu defines another gradient where no score is positive
    scores.requires_grad_()
    for name in ("probs", "weights") if router.trains_gate else ("probs",):

        def values(scores: Tensor, name: str = name) -> Tensor:
            return getattr(router(scores), name)

        require_true_gradients(values, scores, f"gives {name} with other gradients than finite differences")


def never_chooses_a_score_of_minus_infinity(subject: Subject) -> None:
    """An expert with a score of −inf has a probability and a weight of 0; gradients stay finite.

    It holds for interchangeable routers that take one score for each expert.
    """
    router = subject.make().eval()
    if router.gate_outputs(EXPERTS) == EXPERTS and router.interchangeable:
        scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]]).requires_grad_()
        routing = router(scores)
        for name in ("probs", "weights"):
            values = getattr(routing, name)[0, [0, 2, 3]].tolist()
            require(values == [0, 0, 0], f"gives experts with scores of −inf the {name} {values}")
        gradient = _gradient(routing.probs.square().sum(), scores)
        require(gradient.isfinite().all(), "has gradients that are not finite where a score is −inf")


def _gradient(total: Tensor, scores: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(total, scores, allow_unused=True)
    return torch.zeros_like(scores) if gradient is None else gradient


GRADIENT_CHECKS = (
    trains_the_gate_where_it_declares_so,
    trains_the_gate_by_a_single_expert,
    passes_gradients_of_gate_losses,
    has_the_gradients_of_finite_differences,
    never_chooses_a_score_of_minus_infinity,
)
