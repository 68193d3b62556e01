"""The mixture of probabilities, in log space."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.routing import Routing


class LogMixture:
    """log Σ_e w_e · softmax(y_e): a mixture of the experts' distributions, from their logits.

    Everything happens in log space, logsumexp_e(log w_e + log_softmax(y_e)), in float32 at least: nothing is clamped
    and no log 0 is taken, so a row whose target all experts call impossible still has a finite loss and a gradient.

    Arguments of the call:
        values: the experts' logits, (T, E, C) without a selection, else (A, C).
        routing: the weights; rows that sum to 1 give a distribution.

    Returns: log-probabilities (T, C), for `F.nll_loss`; −inf for a row that no expert kept.

    Example:
        >>> from moebius.routers import Soft
        >>> routing = Soft()(torch.zeros(1, 2))
        >>> LogMixture()(torch.tensor([[[0.0, 0.0], [0.0, -torch.inf]]]), routing).exp()
        tensor([[0.7500, 0.2500]])

    Reference: Jordan, Jacobs 1994, Hierarchical Mixtures of Experts and the EM Algorithm, equation 5; study 1.
    """

    gives_log_probabilities = True

    def __call__(self, values: Float[Tensor, "... C"], routing: Routing) -> Float[Tensor, "T C"]:
        """Merge the outputs."""
        log_probs = (values.float() if values.itemsize < 4 else values).log_softmax(-1)
        selection = routing.selection
        if selection is None:
            return torch.logsumexp(routing.log_weights.unsqueeze(-1) + log_probs, 1)
        kept, row_A = selection.kept_A.nonzero().squeeze(1), selection.row_A
        row_A = row_A[kept]
        joint = selection.weight_A[kept].to(log_probs.dtype).log().unsqueeze(-1) + log_probs[kept]
        if len(row_A) == len(routing.weights) and routing.weights.count_nonzero(-1).eq(1).all():
            return torch.empty_like(joint).index_copy(0, row_A, joint)
        index = row_A.unsqueeze(-1).expand_as(joint)
        highest = joint.new_full((len(routing.weights), joint.shape[-1]), -torch.inf)
        highest = highest.scatter_reduce(0, index, joint.detach(), "amax")
        shift = torch.where(highest.isfinite(), highest, 0)
        total = torch.zeros_like(shift).index_add(0, row_A, (joint - shift[row_A]).exp())
        return total.log() + shift
