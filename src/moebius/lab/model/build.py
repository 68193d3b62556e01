"""From the model part of a recipe to a `Mixture`: names of kinds become components, facts of the data fill the rest."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import did_you_mean, find
from moebius.layers.mixture import Mixture

# Constructor parameters that a recipe may leave out: they follow from the data and the number of experts.
FACTS = ("features", "channels", "size", "classes", "experts", "domains")


@dataclass
class StageNetworks:
    """Networks that are trained before the mixture that uses them: `{kind: stage, stage: NAME}` in a spec.

    One object serves one mixture: a stage that is named twice with the same options is one module in it.

    Arguments:
        specs: stage → `model` (spec of the mixture it trains), `part` (path of what is handed on), `facts` of its
            data, `classes` (positions among all classes that it knows, or None), and `labels` (positions among all
            classes of those that it counts itself, where it does not count all).
        fill: puts a stage's trained weights into its mixture; None where they are not wanted, or come later.
        labels: of the stage whose mixture this serves; None where labels count all classes.
    """

    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fill: Callable[[str, Mixture], None] | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    networks: dict[tuple[str, str | None], nn.Module] = field(default_factory=dict)
    sources: dict[nn.Module, str] = field(default_factory=dict)
    labels: Sequence[int] | None = None

    def adapter(self, spec: Mapping[str, Any], facts: Mapping[str, int]) -> Adapter:
        """The part that a spec of kind `stage` names: frozen unless it says otherwise.

        Raises:
            UnknownKindError: no such stage.
            ArgumentError: no such part in it, or it knows classes that the mixture has no output for.
        """
        options = {name: value for name, value in spec.items() if name != "kind"}
        key = json.dumps([options, facts["classes"]], sort_keys=True)
        if key not in self.adapters:
            name, part = options.pop("stage"), options.pop("part", None)
            network = self._network(name, part)
            classes = self._classes(name) if part is None else None
            given = {"frozen": True, **options}
            total = facts["classes"] if classes else None
            self.adapters[key] = Adapter(network, classes=classes, total=total, **given)
            self.sources[self.adapters[key]] = name
        return self.adapters[key]

    def _network(self, name: str, part: str | None) -> nn.Module:
        key = (name, part)
        if key in self.networks:
            return self.networks[key]
        if name not in self.specs:
            raise UnknownKindError(f"no stage is called {name!r}", did_you_mean(name, self.specs))
        spec = self.specs[name]
        inner = StageNetworks(self.specs, self.fill, labels=spec.get("labels"))
        mixture = build_mixture(spec["model"], spec["facts"], inner)
        if self.fill is not None:
            self.fill(name, mixture)
        try:
            self.networks[key] = mixture.get_submodule(spec["part"] if part is None else part)
        except AttributeError:
            fix = "gate, experts.0 … as in model.safetensors"
            raise ArgumentError("part", f"stage {name} has no part of this name", part, fix) from None
        return self.networks[key]

    def _classes(self, name: str) -> list[int] | None:
        """The classes that a stage knows, as positions among the outputs of the mixture that uses it."""
        classes = self.specs[name]["classes"]
        if classes is None or self.labels is None:
            return classes
        if not set(classes) <= set(self.labels):
            rule = "knows classes that the stage which uses it has no output for"
            raise ArgumentError("stage", rule, name, "outputs: all")
        return [list(self.labels).index(label) for label in classes]


def build_mixture(spec: Mapping[str, Any], facts: Mapping[str, int], stages: StageNetworks | None = None) -> Mixture:
    """Build the mixture that `spec` names for data with these facts.

    Arguments:
        spec: `gate`, `experts`, and optionally `router`, `combine`, `execution`, as in a recipe's `model`; an expert of
            kind `mixture` is such a mapping itself.
        facts: features, channels, size (pixels), classes and domains of the data.
        stages: the networks that parts of kind `stage` stand for.

    Raises:
        ArgumentError: a component refuses a value; `argument` is its path inside `spec`.
        UnknownKindError: a kind that no room has.

    Example:
        >>> import torch
        >>> facts = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
        >>> moe = build_mixture({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, facts)
        >>> moe(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 20])
    """
    stages = StageNetworks() if stages is None else stages
    experts = [
        expert for place, one in _experts(spec["experts"]) for expert in _build_experts(place, one, facts, stages)
    ]
    if not experts:
        raise ArgumentError("experts", "needs at least one expert", [], "experts: {kind: linear, count: 2}")
    router = _component("routers", "router", spec.get("router", {"kind": "soft"}), {**facts, "experts": len(experts)})
    if spec["gate"]["kind"] == "stage":
        with _inside("gate"):
            gate: nn.Module = stages.adapter(spec["gate"], facts)
    else:
        gate = _component("gates", "gate", spec["gate"], {**facts, "experts": router.gate_outputs(len(experts))})
    combine = _component("combine", "combine", spec.get("combine", {"kind": "weighted_sum"}), facts)
    return Mixture(gate, experts, router, combine, spec.get("execution", "auto"))


def _experts(spec: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(spec, Mapping):
        return [("experts", spec)]
    return [(f"experts.{number}", one) for number, one in enumerate(spec)]


def stage_names(spec: Any) -> list[str]:
    """Names of the stages that a spec has parts of, in order, each once."""
    if isinstance(spec, Mapping):
        own = [spec["stage"]] if spec.get("kind") == "stage" and "stage" in spec else []
        return list(dict.fromkeys([*own, *(name for value in spec.values() for name in stage_names(value))]))
    if isinstance(spec, list | tuple):
        return list(dict.fromkeys(name for value in spec for name in stage_names(value)))
    return []


def _build_experts(
    place: str, spec: Mapping[str, Any], facts: Mapping[str, int], stages: StageNetworks
) -> list[nn.Module]:
    spec = dict(spec)
    count = positive_integer(f"{place}.count", spec.pop("count", 1))
    if spec["kind"] == "mixture":
        spec.pop("kind")
        with _inside(place):
            return [build_mixture(spec, facts, stages) for _ in range(count)]
    if spec["kind"] == "stage":
        if count > 1:
            raise ArgumentError(
                f"{place}.count", "a stage is one network, and there is no use for it twice", count, "a stage each"
            )
        with _inside(place):
            return [stages.adapter(spec, facts)]
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
