"""What training minimises: the cross-entropy of the mixture plus weighted gate losses."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moebius.core.loss_needs import loss_needs
from moebius.core.recording import Log
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.lab.training.gate_losses import GateLoss
from moebius.schedules import Schedule


class Objective:
    """total = c(epoch) · cross-entropy + Σ_k weight_k(epoch) · loss_k, loss_k summed over the mixtures of the model.

    A loss that needs `expert_losses` (see `mb.needs`) receives each expert's own cross-entropy on each row, (T, E);
    then all experts run on all rows, whatever the router chooses.

    Arguments:
        gives_log_probabilities: whether the model's outputs are log-probabilities (`LogMixture`) or logits.
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
        self.comparing = {loss.name for loss in losses if loss_needs(loss.function).expert_losses}

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

        Raises:
            ArgumentError: a loss returns something else than one number, or compares experts that classify nothing.
        """
        return self.total(self.cross_entropy(output, labels), labels, log, epoch, output.shape[-1])

    def total(
        self,
        cross_entropy: Float[Tensor, ""],
        labels: Int[Tensor, " T"],
        log: Log,
        epoch: float,
        classes: int | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The same from the mean cross-entropy of the output; `classes` as in `expert_losses`."""
        terms = {"cross_entropy": cross_entropy.detach()}
        weight = self.cross_entropy_weight(epoch)
        # Not 0 · cross_entropy: an output that the objective does not use may be infinite.
        total = weight * cross_entropy if weight else cross_entropy.new_zeros(())
        routings = [routing for calls in log.values() for routing in calls]
        comparisons = [
            {"expert_losses": expert_losses(routing, labels, classes)} if self.needs_outputs else {}
            for routing in routings
        ]
        for loss in self.losses:
            function, compares = loss.at(epoch), loss.name in self.comparing
            values = [
                _check_scalar(loss.name, function(routing, **(comparison if compares else {})))
                for routing, comparison in zip(routings, comparisons, strict=True)
            ]
            value = torch.stack(values).sum() if values else total.new_zeros(())
            weight = loss.weight(epoch)
            if weight:
                total = total + weight * value
            terms[loss.name] = value.detach()
        return total, terms


def _check_scalar(name: str, value: object) -> Tensor:
    """`value` if it is a tensor of shape ()."""
    if isinstance(value, Tensor) and value.shape == ():
        return value
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise ArgumentError(f"losses.{name}", "must return one number, a tensor of shape ()", shape, "return values.mean()")


def expert_losses(routing: Routing, labels: Int[Tensor, " N"], classes: int | None = None) -> Float[Tensor, "T E"]:
    """Each expert's own cross-entropy on each row, in float32 at least.

    Arguments:
        routing: with the outputs (T, E, C) of all experts.
        labels: of the outermost batch.
        classes: C, which the outputs must have; None for any.

    Raises:
        ArgumentError: the routing holds no outputs, outputs that are no logits of the classes, or not one row a label.
    """
    outputs = routing.outputs
    if outputs is None:
        rule = "a loss that compares experts needs the outputs of all of them"
        raise ArgumentError("losses", rule, None, "with mb.record(model, outputs=True) as log: …")
    labels = labels if routing.rows is None else labels[routing.rows]
    if outputs.ndim != 3 or len(outputs) != len(labels) or classes not in (None, outputs.shape[-1]):
        rule = "a loss that compares experts needs logits of shape (rows, experts, classes)"
        fix = "a loss without expert_losses, such as mb.losses.batch_entropy, or experts that classify each row"
        raise ArgumentError("losses", rule, tuple(outputs.shape), fix)
    outputs = outputs.float() if outputs.itemsize < 4 else outputs
    return F.cross_entropy(outputs.transpose(1, 2), labels.unsqueeze(1).expand(outputs.shape[:2]), reduction="none")
