"""What training minimises: the cross-entropy of the mixture plus weighted gate losses."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moebius.core.recording import Log
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.lab.training.settings import GateLoss
from moebius.schedules import Schedule

# How a loss says that it compares experts: by a parameter of this name.
EXPERT_LOSSES = "expert_losses"


class Objective:
    """total = c(epoch) · cross-entropy + Σ_k weight_k(epoch) · loss_k, loss_k summed over the mixtures of the model.

    A loss with a parameter `expert_losses` is given each expert's own cross-entropy on each row, (T, E); then all
    experts run on all rows, whatever the router chooses.

    Arguments:
        gives_log_probabilities: whether the model's output are log-probabilities (`LogMixture`) or logits.
        losses: the gate losses; one whose weight is 0 at an epoch is still reported, without a gradient.
        cross_entropy: c, the weight of the output's own loss: 0 where the experts are trained one by one.

    Reference: ours; studies 1, 2 and 5.
    """

    def __init__(
        self,
        gives_log_probabilities: bool,
        losses: Sequence[GateLoss] = (),
        cross_entropy: Schedule = lambda epoch: 1.0,
    ):
        self.gives_log_probabilities = gives_log_probabilities
        self.losses = tuple(losses)
        self.cross_entropy_weight = cross_entropy
        self.comparing = {loss.name for loss in losses if compares_experts(loss.function)}

    @property
    def needs_outputs(self) -> bool:
        """Whether the routings have to hold the outputs of all experts."""
        return bool(self.comparing)

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
            log: the routings of the model's mixtures, from `record` (with `outputs=True` where `needs_outputs`).
            epoch: for the weights' schedules; 0 at the start, 1.5 in the middle of the second epoch.
        """
        return self.total(self.cross_entropy(output, labels), labels, log, epoch)

    def total(
        self, value: Float[Tensor, ""], labels: Int[Tensor, " T"], log: Log, epoch: float
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The same from the mean cross-entropy of the output, `value`."""
        terms = {"cross_entropy": value.detach()}
        weight = self.cross_entropy_weight(epoch)
        # Not 0 · value: an output that the objective does not ask for may be infinite.
        total = weight * value if weight else value.new_zeros(())
        routings = [routing for calls in log.values() for routing in calls]
        known = {id(one): expert_losses(one, labels) for one in routings} if self.needs_outputs else {}
        for loss in self.losses:
            given = [{EXPERT_LOSSES: known[id(one)]} if loss.name in self.comparing else {} for one in routings]
            function = loss.at(epoch)
            values = [function(one, **more) for one, more in zip(routings, given, strict=True)]
            value = torch.stack(values).sum() if values else total.new_zeros(())
            weight = loss.weight(epoch)
            if weight:
                total = total + weight * value
            terms[loss.name] = value.detach()
        return total, terms


def compares_experts(loss: Callable[..., Any]) -> bool:
    """Whether a loss wants to know how well each expert does on each row."""
    return EXPERT_LOSSES in inspect.signature(loss).parameters


def expert_losses(routing: Routing, labels: Int[Tensor, " N"]) -> Float[Tensor, "T E"]:
    """Each expert's own cross-entropy on each row, in float32 at least.

    Arguments:
        routing: with the outputs (T, E, C) of all experts.
        labels: of the outermost batch.

    Raises:
        ArgumentError: the routing holds no outputs, or outputs that are no logits.
    """
    outputs = routing.outputs
    if outputs is None:
        rule = "a loss that compares experts needs the outputs of all of them"
        raise ArgumentError("losses", rule, None, "with mb.record(model, outputs=True) as log: …")
    if outputs.ndim != 3:
        rule = "a loss that compares experts needs logits of shape (rows, experts, classes)"
        raise ArgumentError("losses", rule, tuple(outputs.shape))
    labels = labels if routing.rows is None else labels[routing.rows]
    outputs = outputs.float() if outputs.itemsize < 4 else outputs
    return F.cross_entropy(outputs.transpose(1, 2), labels.unsqueeze(1).expand(outputs.shape[:2]), reduction="none")
