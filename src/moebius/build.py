"""From the model part of a recipe to a `Mixture`: names of kinds become components, facts of the data fill the rest."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.arguments import positive
from moebius.errors import ArgumentError
from moebius.mixture import Mixture
from moebius.registry import find

# Constructor parameters that a recipe may leave out: they follow from the data and the number of experts.
FACTS = ("features", "channels", "size", "classes", "experts", "domains")


def build_mixture(spec: Mapping[str, Any], facts: Mapping[str, int]) -> Mixture:
    """Build the mixture that `spec` names for data with these facts.

    Arguments:
        spec: `gate`, `experts`, and optionally `router`, `combine`, `execution`, as in a recipe's `model`; an expert of
            kind `mixture` is such a mapping itself.
        facts: features, channels, size (pixels), classes and domains of the data.

    Raises:
        ArgumentError: a component refuses a value; `argument` is its path inside `spec`.
        UnknownKindError: a kind that no room has.

    Example:
        >>> facts = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
        >>> moe = build_mixture({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, facts)
        >>> moe(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 20])
    """
    experts = [expert for place, one in _experts(spec["experts"]) for expert in _build_experts(place, one, facts)]
    if not experts:
        raise ArgumentError("experts", "needs at least one expert", [], "experts: {kind: linear, count: 2}")
    router = _component("routers", "router", spec.get("router", {"kind": "soft"}), {**facts, "experts": len(experts)})
    gate = _component("gates", "gate", spec["gate"], {**facts, "experts": router.gate_outputs(len(experts))})
    combine = _component("combine", "combine", spec.get("combine", {"kind": "weighted_sum"}), facts)
    return Mixture(gate, experts, router, combine, spec.get("execution", "auto"))


def multiply_adds(model: nn.Module, facts: Mapping[str, int]) -> int:
    """Multiply-adds of products and convolutions for one image, the mean over one of each domain.

    Experts that the router does not choose cost nothing.

    Arguments:
        model: what to count, with real parameters (routing needs values); it is not changed.
        facts: channels, size and domains of the data.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    domains = facts["domains"]
    images = torch.zeros(domains, facts["channels"], facts["size"], facts["size"], device=device)
    modes = [(module, module.training) for module in model.modules()]
    try:
        return int(counted(model.eval(), images, {"domain": torch.arange(domains, device=device)}))
    finally:
        for module, training in modes:
            module.training = training


def counted(model: nn.Module, images: Tensor, context: Mapping[str, Tensor]) -> float:
    """Multiply-adds of products and convolutions per image of a batch, in the mode that the model is in."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images, context)
    return counter.get_total_flops() / 2 / len(images)


def _experts(spec: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(spec, Mapping):
        return [("experts", spec)]
    return [(f"experts.{number}", one) for number, one in enumerate(spec)]


def _build_experts(place: str, spec: Mapping[str, Any], facts: Mapping[str, int]) -> list[nn.Module]:
    spec = dict(spec)
    count = positive(f"{place}.count", spec.pop("count", 1))
    if spec["kind"] == "mixture":
        spec.pop("kind")
        with _inside(place):
            return [build_mixture(spec, facts) for _ in range(count)]
    return [_component("experts", place, spec, facts) for _ in range(count)]


def _component(room: str, place: str, spec: Mapping[str, Any], facts: Mapping[str, int]) -> Any:
    component = find(room, spec["kind"])
    keywords = {name: value for name, value in spec.items() if name != "kind"}
    for name in inspect.signature(component).parameters:
        if name in FACTS and name not in keywords and name in facts:
            keywords[name] = facts[name]
    with _inside(place):
        if isinstance(keywords.get("router"), Mapping):  # a router around another: heads, cut
            keywords["router"] = _component("routers", "router", keywords["router"], facts)
        return component(**keywords)


@contextmanager
def _inside(place: str):
    try:
        yield
    except ArgumentError as error:
        raise error.inside(place) from None
