"""The combine that mixes the probabilities of labels, in log space."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.combine._log_space import log, log_sum_exp
from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing


class LabelMixture:
    """log (p / (1 − p)),  p_l = Σ_e w_e σ(y_el): a mixture of the probabilities of each label, from logits to logits.

    It is for tasks in which a row has any number of labels, where `LogMixture` is for one class. It is computed in log
    space, logsumexp_e(log w_e + log σ(y_e)) − logsumexp_e(log w_e + log σ(−y_e)), in float32 at least. Weights that do
    not sum to 1 are scaled to, and with weights per class each label has its own.

    Arguments of the call:
        values: the experts' logits, (T, E, L) without a selection, else (A, L).
        routing: the weights.

    Returns: logits (T, L), for `F.binary_cross_entropy_with_logits`; 0 for a row without experts.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> routing = Soft()(torch.zeros(1, 2))
        >>> LabelMixture()(torch.tensor([[[0.0, 0.0], [0.0, torch.inf]]]), routing).sigmoid()
        tensor([[0.5000, 0.7500]])

    Reference: ours; Jordan, Jacobs 1994, Hierarchical Mixtures of Experts and the EM Algorithm, equation 5, for each
    label.
    """

    gives_log_probabilities = False

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T ..."]:
        """Merge the outputs of each row's experts."""
        values = at_least_float32(values)
        selection, heads = routing.selection, routing.head_weights
        log_weights = routing.log_weights.unsqueeze(-1) if heads is None else log(heads.sum(1))
        if selection is not None:
            kept = selection.kept_A.view(-1, *[1] * (values.ndim - 1))
            place_A = selection.row_A * routing.experts + selection.expert_A
            flat = values.new_zeros(routing.weights.numel(), *values.shape[1:])
            values = flat.index_add(0, place_A, values.where(kept, 0)).unflatten(0, routing.weights.shape)
        log_weights = log_weights.to(values.dtype)
        yes, no = (log_sum_exp(log_weights + F.logsigmoid(sign * values)) for sign in (1, -1))
        return (yes - no).nan_to_num(nan=0.0)
