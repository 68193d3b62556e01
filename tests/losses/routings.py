"""Routings that every loss accepts, for the tests that walk all losses."""

import inspect
from dataclasses import replace

import torch

from moebius.core.loss_needs import loss_needs
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.routers.soft import Soft


def complete_routing(kind, scores, expert_losses):
    """The routing of free scores with all that the loss needs; each value is a smooth function of the scores.

    Arguments:
        kind: of the loss; one that refuses distributions gets the activations of a relu gate.
        scores: (T, E).
        expert_losses: (T, E), from which the outputs of the experts follow.
    """
    aux = {name: scores.sigmoid() for name in loss_needs(find("losses", kind)).aux}
    # Values that are not one number for each row and expert.
    shaped = {"selectors": scores.softmax(-1).unsqueeze(1)}
    shaped |= {"reconstruction": scores.square().sum(-1), "kl": scores.square().mean(-1)}
    aux |= {name: shaped[name] for name in aux.keys() & shaped.keys()}
    more = {"aux": aux, "outputs": torch.stack([expert_losses, -expert_losses], -1)}
    routing = replace(Soft()(scores), **more)
    try:
        call_loss(kind, routing, expert_losses)
    except ArgumentError as error:
        if error.argument == "routing.distribution":
            return replace(Soft(normalisation="relu")(scores), **more)
        raise
    return routing


def call_loss(kind, routing, expert_losses, **options):
    """The loss of the routing, with the options that it takes, and with the experts' losses where it needs them."""
    loss = find("losses", kind)
    options = {name: value for name, value in options.items() if name in inspect.signature(loss).parameters}
    more = {"expert_losses": expert_losses} if loss_needs(loss).expert_losses else {}
    return loss(routing, **more, **options)
