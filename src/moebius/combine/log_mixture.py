"""The combine that mixes probabilities, in log space."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._log_space import log, log_sum_exp
from moebius.core.routing import Routing


class LogMixture:
    """log Σ_e w_e · softmax(y_e): a mixture of the experts' distributions, from their logits.

    It is computed in log space as logsumexp_e(log w_e + log_softmax(y_e)), in float32 at least, without clamping and
    without log 0: a row for whose target all experts give a probability that underflows still has a finite loss and a
    gradient. With several gate heads w_e is their sum; with weights per class each class c has its w_ec.

    The weights of a straight-through router are 0 for all but one expert, and weights of 0 have a gradient too, p_e /
    Σ_j w_j p_j. For them the sum is computed in linear space, relative to the chosen expert, with ratios limited to
    e³⁰.

    Arguments:
        renormalise: whether the classes' probabilities are scaled to sum to 1, log (y_c / Σ_c y_c), for weights that do
            not sum to 1 (relu gates, weights per class).

    Arguments of the call:
        values: the experts' logits, (T, E, C) without a selection, else (A, C).
        routing: the weights; rows that sum to 1 give a distribution.

    Returns: log-probabilities (T, C), for `F.nll_loss`; −inf, with gradients of zero, where no expert gives a positive
        probability: for a row without experts, and for a class with a logit of −inf in all experts.

    Example:
        >>> from moebius.routers import Soft
        >>> routing = Soft()(torch.zeros(1, 2))
        >>> LogMixture()(torch.tensor([[[0.0, 0.0], [0.0, -torch.inf]]]), routing).exp()
        tensor([[0.7500, 0.2500]])

    Reference: Jordan, Jacobs 1994, Hierarchical Mixtures of Experts and the EM Algorithm, equation 5; study 1.
    """

    gives_log_probabilities = True

    def __init__(self, renormalise: bool = False):
        self.renormalise = renormalise

    def __call__(self, values: Float[Tensor, "... C"], routing: Routing) -> Float[Tensor, "T C"]:
        """Merge the outputs of each row's experts."""
        log_probs = (values.float() if values.itemsize < 4 else values).log_softmax(-1)
        is_linear = routing.straight_through and routing.selection is None
        joint = _mix_linear(log_probs, routing) if is_linear else self._mix(log_probs, routing)
        return _normalise(joint) if self.renormalise else joint

    @staticmethod
    def _mix(log_probs: Float[Tensor, "... C"], routing: Routing) -> Float[Tensor, "T C"]:
        selection, heads = routing.selection, routing.head_weights
        if selection is None:
            log_weights = routing.log_weights.unsqueeze(-1) if heads is None else log(heads.sum(1))
            return log_sum_exp(log_weights.to(log_probs.dtype) + log_probs)
        kept = selection.kept_A.nonzero().squeeze(1)
        row_A, expert_A = selection.row_A[kept], selection.expert_A[kept]
        weight_A = selection.weight_A[kept].unsqueeze(-1) if heads is None else heads.sum(1)[row_A, expert_A]
        joint = log(weight_A).to(log_probs.dtype) + log_probs[kept]
        if len(row_A) == len(routing.weights) and routing.weights.count_nonzero(-1).eq(1).all():
            return torch.empty_like(joint).index_copy(0, row_A, joint)
        index = row_A.unsqueeze(-1).expand_as(joint)
        highest = joint.new_full((len(routing.weights), joint.shape[-1]), -torch.inf)
        highest = highest.scatter_reduce(0, index, joint.detach(), "amax")
        is_possible = highest > -torch.inf
        shift = torch.where(is_possible, highest, 0)
        total = torch.zeros_like(shift).index_add(0, row_A, (joint - shift[row_A]).exp())
        return torch.where(is_possible, torch.where(is_possible, total, 1).log() + shift, -torch.inf)


def _mix_linear(log_probs: Float[Tensor, "T E C"], routing: Routing) -> Float[Tensor, "T C"]:
    """The mixture for straight-through weights, whose sum is computed in linear space."""
    weights = routing.weights.unsqueeze(-1) if routing.head_weights is None else routing.head_weights.sum(1)
    weights = weights.to(log_probs.dtype)
    chosen = weights.detach() > 0
    shift = torch.where(chosen, log_probs.detach(), -torch.inf).amax(1, keepdim=True)
    shift = torch.where(shift > -torch.inf, shift, 0)
    ratios = (log_probs - shift).clamp(max=30).exp()
    total = (weights * ratios).sum(1)
    is_possible = total > 0
    logarithm = torch.where(is_possible, torch.where(is_possible, total, 1).log(), -torch.inf)
    return logarithm + shift.squeeze(1)


def _normalise(joint: Float[Tensor, "T C"]) -> Float[Tensor, "T C"]:
    """Log-probabilities scaled to sum to 1 over the classes; a row of −inf for all classes does not change."""
    total = log_sum_exp(joint)
    return joint - torch.where(total > -torch.inf, total, 0).unsqueeze(1)
