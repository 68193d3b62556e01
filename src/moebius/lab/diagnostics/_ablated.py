"""The mixture without one of its experts."""

import torch
from jaxtyping import Float
from torch import Tensor


def outputs_without_each(
    weights: Float[Tensor, "T E"], probs: Float[Tensor, "T E"], outputs: Float[Tensor, "T E ..."]
) -> Float[Tensor, "T E ..."]:
    """The weighted sum of the outputs without expert e, for each e, its weights shared out among the others.

    y_{−e} = Σ_{j≠e} w_j f_j · Σ_j w_j / Σ_{j≠e} w_j;  where e alone ran, the next of the gate's experts takes the row

    The losses of these outputs are the `ablated_losses` of `RoutedRows`.

    Arguments:
        weights: factors of the outputs.
        probs: the gate's distribution, which names the next expert.
        outputs: each expert's output.

    Example:
        >>> weights, outputs = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 3.0]])
        >>> outputs_without_each(weights, weights, outputs)
        tensor([[3., 1.]])
    """
    experts, ones = weights.shape[1], [1] * (outputs.ndim - 2)
    parts = weights.view(*weights.shape, *ones) * outputs
    total_T1 = weights.sum(1, keepdim=True)
    rest_TE = total_T1 - weights
    used_TE = weights != 0
    alone_TE = used_TE & (used_TE.sum(1, keepdim=True) == 1)
    scale_TE = torch.where(rest_TE == 0, 1, total_T1 / torch.where(rest_TE == 0, 1, rest_TE))
    mixed = (parts.sum(1, keepdim=True) - parts) * scale_TE.view(*scale_TE.shape, *ones)
    best = probs.topk(min(2, experts), 1).indices
    next_TE = torch.where(best[:, :1] == torch.arange(experts), best[:, -1:], best[:, :1])
    taken = outputs[torch.arange(len(weights)).unsqueeze(1), next_TE] * total_T1.view(-1, 1, *ones)
    return torch.where(alone_TE.view(*alone_TE.shape, *ones), taken, mixed)
