"""What training minimises: the cross-entropy of the mixture plus weighted gate losses."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moebius.recording import Log
from moebius.training.settings import GateLoss


class Objective:
    """total = cross-entropy + Σ_k weight_k(epoch) · loss_k, where loss_k is summed over the mixtures of the model.

    Arguments:
        gives_log_probabilities: whether the model's output are log-probabilities (`LogMixture`) or logits.
        losses: the gate losses; one whose weight is 0 at an epoch is still reported, without a gradient.

    Reference: ours; studies 1 and 2.
    """

    def __init__(self, gives_log_probabilities: bool, losses: Sequence[GateLoss] = ()):
        self.gives_log_probabilities = gives_log_probabilities
        self.losses = tuple(losses)

    def cross_entropy(
        self, output: Float[Tensor, "T C"], labels: Int[Tensor, " T"], reduction: str = "mean"
    ) -> Float[Tensor, "..."]:
        """Mean (or per-row) cross-entropy of the output, in float32 at least."""
        output = output.float() if output.itemsize < 4 else output
        loss = F.nll_loss if self.gives_log_probabilities else F.cross_entropy
        return loss(output, labels, reduction=reduction)

    def __call__(
        self, output: Float[Tensor, "T C"], labels: Int[Tensor, " T"], log: Log, epoch: float
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The total and the named, unweighted terms.

        Arguments:
            output: of the model.
            labels: the right classes.
            log: the routings of the model's mixtures, from `record`.
            epoch: for the weights' schedules; 0 at the start, 1.5 in the middle of the second epoch.
        """
        total = self.cross_entropy(output, labels)
        terms = {"cross_entropy": total.detach()}
        for loss in self.losses:
            values = [loss.function(routing) for calls in log.values() for routing in calls if len(routing.probs)]
            value = torch.stack(values).sum() if values else total.new_zeros(())
            weight = loss.weight(epoch)
            if weight:
                total = total + weight * value
            terms[loss.name] = value.detach()
        return total, terms
