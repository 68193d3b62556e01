"""From the `model` part of a recipe to a `Mixture`: find the components' kinds, and fill in the facts of the data."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import did_you_mean, find
from moebius.layers.mixture import Mixture

# Parameters of constructors that a recipe may leave out: their values follow from the data, and `experts` from the
# mixture. This holds for the components of every room, from inside of the package or outside.
FACTS = ("features", "channels", "size", "classes", "experts", "domains")


@dataclass
class StageNetworks:
    """The networks that earlier stages train, and that `{kind: stage, stage: NAME}` puts into a mixture.

    One object serves one mixture: where its spec names a stage twice with the same options, both places hold the same
    module.

    Arguments:
        specs: for each stage: `model` (spec of the mixture that it trains), `part` (path of the network that it hands
            on), `facts` (of its data), `classes` (positions of the classes that the network has outputs for, among all
            classes; None = all), and `labels` (positions, among all classes, of the classes that its labels count; None
            or absent = all).
        fill: loads the trained weights of a stage, named by the first argument, into its mixture; None = leave the
            weights as they are initialised.
        labels: the `labels` of the stage whose mixture this object serves; None = labels count all classes.
    """

    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fill: Callable[[str, Mixture], None] | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    networks: dict[tuple[str, str | None], nn.Module] = field(default_factory=dict)
    sources: dict[nn.Module, str] = field(default_factory=dict)
    labels: Sequence[int] | None = None

    def adapter(self, spec: Mapping[str, Any], facts: Mapping[str, int]) -> Adapter:
        """The adapter around the network that a spec of kind `stage` names; frozen by default.

        Arguments:
            spec: `stage`, optionally `part`, and options of `Adapter`.
            facts: of the mixture's data; `classes` is the number of its outputs.

        Raises:
            UnknownKindError: there is no such stage.
            ArgumentError: the stage's mixture has no such part, or the network has outputs for classes that the mixture
                has none for.
        """
        options = {name: value for name, value in spec.items() if name != "kind"}
        key = json.dumps([options, facts["classes"]], sort_keys=True)
        if key not in self.adapters:
            name, part = options.pop("stage"), options.pop("part", None)
            network = self._build_network(name, part)
            classes = self._find_classes(name) if part is None else None
            total = facts["classes"] if classes else None
            self.adapters[key] = Adapter(network, classes=classes, total=total, **{"frozen": True, **options})
            self.sources[self.adapters[key]] = name
        return self.adapters[key]

    def _build_network(self, name: str, part: str | None) -> nn.Module:
        """The part of a stage's mixture at the path `part`; None = the part that the stage hands on."""
        key = (name, part)
        if key in self.networks:
            return self.networks[key]
        if name not in self.specs:
            raise UnknownKindError(f"no stage is called {name!r}", did_you_mean(name, self.specs))
        spec = self.specs[name]
        earlier_stages = StageNetworks(self.specs, self.fill, labels=spec.get("labels"))
        mixture = build_mixture(spec["model"], spec["facts"], earlier_stages)
        if self.fill is not None:
            self.fill(name, mixture)
        try:
            self.networks[key] = mixture.get_submodule(spec["part"] if part is None else part)
        except AttributeError:
            fix = "part: experts.0, or another module that keys of model.safetensors begin with"
            raise ArgumentError("part", f"stage {name} has no part of this name", part, fix) from None
        return self.networks[key]

    def _find_classes(self, name: str) -> list[int] | None:
        """Positions of the classes of a stage's network among the outputs of the mixture; None = all, in order."""
        classes = self.specs[name]["classes"]
        if classes is None or self.labels is None:
            return classes
        if not set(classes) <= set(self.labels):
            rule = "has outputs for classes that the stage which uses it has no outputs for"
            raise ArgumentError("stage", rule, name, "outputs: all")
        return [list(self.labels).index(label) for label in classes]


def build_mixture(spec: Mapping[str, Any], facts: Mapping[str, int], stages: StageNetworks | None = None) -> Mixture:
    """Build the mixture of a spec, for data with these facts.

    A component gets the facts that are parameters of its constructor and that its spec leaves out. `experts` is the
    number of experts of the mixture; for gates it is the number of scores that the router takes.

    Arguments:
        spec: `gate`, `experts`, and optionally `router`, `combine`, `execution`, as in a recipe's `model`. The spec of
            an expert of kind `mixture` has these keys too.
        facts: `features`, `channels`, `size` (pixels), `classes` and `domains` of the data.
        stages: the networks for parts of kind `stage`.

    Raises:
        ArgumentError: a component refuses a value; `argument` is the value's path inside `spec`.
        UnknownKindError: no room has a kind of this name.

    Example:
        >>> import torch
        >>> facts = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
        >>> moe = build_mixture({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, facts)
        >>> moe(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 20])
    """
    stages = StageNetworks() if stages is None else stages
    experts = _build_experts(spec["experts"], facts, stages)
    facts = {**facts, "experts": len(experts)}
    router = _build_component("routers", "router", spec.get("router", {"kind": "soft"}), facts)
    if spec["gate"]["kind"] == "stage":
        with _errors_inside("gate"):
            gate: nn.Module = stages.adapter(spec["gate"], facts)
    else:
        gate_facts = {**facts, "experts": router.gate_outputs(len(experts))}
        gate = _build_component("gates", "gate", spec["gate"], gate_facts)
    combine = _build_component("combine", "combine", spec.get("combine", {"kind": "weighted_sum"}), facts)
    return Mixture(gate, experts, router, combine, spec.get("execution", "auto"))


def list_stage_names(spec: Any) -> list[str]:
    """Names of the stages in the parts of a spec, in order and without repetition."""
    if isinstance(spec, Mapping):
        names = [spec["stage"]] if spec.get("kind") == "stage" and "stage" in spec else []
        return list(dict.fromkeys([*names, *(name for value in spec.values() for name in list_stage_names(value))]))
    if isinstance(spec, list | tuple):
        return list(dict.fromkeys(name for value in spec for name in list_stage_names(value)))
    return []


def _build_experts(
    spec: Mapping[str, Any] | Sequence[Mapping[str, Any]], facts: Mapping[str, int], stages: StageNetworks
) -> list[nn.Module]:
    """The experts of one spec, or of a list of specs, each with its `count`."""
    specs = {"experts": spec} if isinstance(spec, Mapping) else {f"experts.{n}": entry for n, entry in enumerate(spec)}
    counts = {path: positive_integer(f"{path}.count", entry.get("count", 1)) for path, entry in specs.items()}
    if not counts:
        raise ArgumentError("experts", "needs at least one expert", [], "experts: {kind: linear, count: 2}")
    facts = {**facts, "experts": sum(counts.values())}
    return [
        expert
        for path, entry in specs.items()
        for expert in _build_equal_experts(path, entry, counts[path], facts, stages)
    ]


def _build_equal_experts(
    path: str, spec: Mapping[str, Any], count: int, facts: Mapping[str, int], stages: StageNetworks
) -> list[nn.Module]:
    """`count` experts of the spec at `path`."""
    spec = {name: value for name, value in spec.items() if name != "count"}
    if spec["kind"] == "mixture":
        with _errors_inside(path):
            return [build_mixture(spec, facts, stages) for _ in range(count)]
    if spec["kind"] == "stage":
        if count > 1:
            rule = "must be 1, because a stage trains one network"
            raise ArgumentError(f"{path}.count", rule, count, "count: 1")
        with _errors_inside(path):
            return [stages.adapter(spec, facts)]
    return [_build_component("experts", path, spec, facts) for _ in range(count)]


def _build_component(room: str, path: str, spec: Mapping[str, Any], facts: Mapping[str, int]) -> Any:
    """The component that the spec at `path` names, with the facts that the spec leaves out."""
    component = find(room, spec["kind"])
    arguments = {name: value for name, value in spec.items() if name != "kind"}
    for name in inspect.signature(component).parameters:
        if name in FACTS and name not in arguments and name in facts:
            arguments[name] = facts[name]
    with _errors_inside(path):
        if isinstance(arguments.get("router"), Mapping):  # a router around another one, as `heads` and `cut` are
            arguments["router"] = _build_component("routers", "router", arguments["router"], facts)
        return component(**arguments)


@contextmanager
def _errors_inside(path: str) -> Iterator[None]:
    """Put `path` before the argument's name of every ArgumentError that the block raises."""
    try:
        yield
    except ArgumentError as error:
        raise error.inside(path) from None
