"""From the model part of a recipe to the Spec of a model: facts of the data, counts, stages and defaults."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.model.equal_experts import are_equal_and_dense
from moebius.lab.model.expert_counts import expert_counts
from moebius.lab.model.expert_layers import EXPERT_LAYERS, ROOM, resolve_expert_layer
from moebius.lab.model.shapes import output_facts
from moebius.lab.model.stage_adapter import adapter_arguments
from moebius.storage.spec import PARTS, Spec, build, join_path, plain_value

# Parameters of constructors that a recipe may leave out: their values follow from the data, and `experts` from the
# mixture. This holds for the components of every room, from inside of the package or outside.
FACTS = ("features", "cardinalities", "channels", "size", "classes", "experts", "domains", "expert_classes")
# The rooms of networks, whose parameter `init` the model may set for all.
NETWORKS = ("gates", "experts", "layers")


def resolve(
    part: Mapping[str, Any],
    facts: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]] | None = None,
    labels: Sequence[int] | None = None,
) -> Spec:
    """The Spec of the model that a recipe's model part describes, for data with these facts.

    A component gets the facts that are parameters of its constructor and that the recipe leaves out, and the values of
    its defaults. `experts` is the number of experts of the mixture; for gates it is the number of scores that the
    router takes. Equal experts of dense layers become a stack: sparse executions need it, and steps are faster. A part
    of `layers` gets as `features` the number of outputs of the part before it; a kind of room `layers` gets it as its
    width `dim`, too. A single part of `layers` is the model itself.

    Arguments:
        part: `gate`, `experts`, and optionally `router`, `combine`, `execution`, as in a recipe; or `layers`, a list.
            `init` is the start of all networks inside that name none and take one.
        facts: `features`, `classes` and `domains` of the data; of images `channels` and `size` (pixels); of a table
            `cardinalities`; of several tasks `outputs` (task → number of outputs).
        stages: for each stage, by name: `model` (the model part that it trains), `part` (path of the network that it
            hands on), `facts` (of its data), `classes` (positions of the classes that the network has outputs for,
            among all classes; None = all), `others` (whether it has one more for all other classes; absent = no), and
            `labels` (positions, among all classes, of those that its labels count; None or absent = all).
        labels: the `labels` of the stage that the model is trained for; None = labels count all classes.

    Raises:
        ArgumentError: a value that is missing or refused; `argument` is its place in the Spec.
        UnknownKindError: no room has a kind of this name, or no stage is called so.

    Example:
        >>> facts = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
        >>> spec = resolve({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, facts)
        >>> spec["gate"]
        {'kind': 'linear', 'features': 64, 'experts': 2, 'bias': True, 'init': 'torch'}
    """
    return Resolver(stages or {}, labels).model(part, facts)


def list_stage_names(part: Any) -> list[str]:
    """Names of the stages in a recipe's model part, in order and without repetition."""
    if isinstance(part, Mapping):
        names = [part["stage"]] if part.get("kind") == "stage" and "stage" in part else []
        return list(dict.fromkeys([*names, *(name for value in part.values() for name in list_stage_names(value))]))
    if isinstance(part, list | tuple):
        return list(dict.fromkeys(name for value in part for name in list_stage_names(value)))
    return []


def layer_room(kind: Any) -> str:
    """The room of a part of `layers`: experts for an ordinary network."""
    return "layers" if kind in kinds("layers") and kind not in kinds("experts") else "experts"


class Resolver:
    """Resolves one model part.

    Arguments:
        stages, labels: as for `resolve`.

    Attributes:
        origins: place in the Spec → path in the model part.
        expert_classes: place in the Spec of an adapter → its network's classes; None for all.
    """

    def __init__(self, stages: Mapping[str, Mapping[str, Any]], labels: Sequence[int] | None):
        self.stages, self.labels = stages, labels
        self.origins: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.expert_classes: dict[str, list[int] | None] = {}

    def model(self, part: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        """The Spec of the whole model."""
        if "layers" in part:
            return self._layers(part["layers"], _with_init(part, facts))
        return self._mixture(part, facts, "", "")

    def path_of(self, place: str) -> tuple[str, str]:
        """The path in the model part of the innermost part at a place of the Spec, and the rest of the place."""
        rest: list[str] = []
        while place and place not in self.origins:
            place, _, last = place.rpartition(".")
            rest.insert(0, last)
        return self.origins.get(place, ""), ".".join(rest)

    def at_origin(self, error: ArgumentError) -> ArgumentError:
        """The error with a path in the model part in place of one in the Spec."""
        path, rest = self.path_of(error.argument)
        return ArgumentError(f"{path}.{rest}".strip("."), error.rule, error.value, error.fix)

    def _layers(self, entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
        if len(entries) == 1:
            return self.network(entries[0], facts, "", "layers.0")
        parts: list[dict[str, Any]] = []
        goals = {name: facts[name] for name in ("classes", "outputs", "positions") if name in facts}
        inner_facts = {name: value for name, value in facts.items() if name not in goals}
        for number, entry in enumerate(entries):
            if number:
                whole = {"kind": "sequential", "parts": list(parts)}
                kept = {name: facts[name] for name in ("domains", "init") if name in facts}
                inner_facts = {**kept, **output_facts(whole, facts, str(number - 1))}
            own_facts = {**inner_facts, **(goals if number == len(entries) - 1 else {})}
            parts.append(self.network(entry, own_facts, str(number), f"layers.{number}"))
        return {"kind": "sequential", "parts": parts}

    def _mixture(self, part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str) -> dict[str, Any]:
        self.origins[place], facts = path, _with_init(part, facts)
        places = {name: (join_path(place, name), join_path(path, name)) for name in PARTS}
        experts = self.experts(part["experts"], facts, *places["experts"])
        count = len(experts)
        classes = [self.expert_classes.get(join_path(places["experts"][0], str(number))) for number in range(count)]
        facts = {**facts, "experts": count, "expert_classes": classes}
        router_spec, router = self.router(part.get("router", {"kind": "soft"}), facts, *places["router"])
        if part["gate"]["kind"] == "stage":
            gate = self.adapter(part["gate"], facts, *places["gate"], "gates")
        else:
            gate_facts = {**facts, "experts": router.gate_outputs(count)}
            gate = self.component("gates", part["gate"], gate_facts, *places["gate"])
        combine = self.component("combine", part.get("combine", {"kind": "weighted_sum"}), facts, *places["combine"])
        return {
            "kind": "mixture",
            "experts": self.pool(experts, places["experts"][0]),
            "router": router_spec,
            "gate": gate,
            "combine": combine,
            "execution": part.get("execution", "auto"),
        }

    def router(
        self, part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str, around: str = ""
    ) -> tuple[dict[str, Any], Any]:
        """The Spec of a router, and the router, which says how many numbers it takes."""
        spec = self.component("routers", part, facts, place, path, around)
        try:
            with torch.random.fork_rng(devices=()):
                return spec, build(spec, "routers")
        except ArgumentError as error:
            raise error.inside(place) from None

    def pool(self, experts: list[dict[str, Any]], place: str) -> Any:
        """The experts as a stack where they are equal and dense, else as the list."""
        if not are_equal_and_dense(experts):
            return experts
        self.origins[join_path(place, "expert")] = self.origins[join_path(place, "0")]
        return {"kind": "stack", "count": len(experts), "expert": experts[0]}

    def expert_output_facts(self, part: Any, facts: Mapping[str, Any], place: str, path: str) -> dict[str, int]:
        """The facts of what the experts of an entry, or of a list of entries, give for a row of the data."""
        first = Resolver(self.stages, self.labels).experts(part, facts, "", path)[0]
        return output_facts(first, facts, place)

    def experts(
        self,
        part: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        facts: Mapping[str, Any],
        place: str,
        path: str,
        around: str = "experts",
    ) -> list[dict[str, Any]]:
        """The experts of one entry, or of a list of entries, each with its `count`."""
        entries = {path: part} if isinstance(part, Mapping) else {f"{path}.{n}": entry for n, entry in enumerate(part)}
        for entry_path in entries:  # errors name entries; then each expert has its entry
            self.origins.setdefault(entry_path, entry_path)
        counts = expert_counts(entries)
        if not counts:
            raise ArgumentError(path, "needs at least one expert", [], "experts: {kind: linear, count: 2}")
        facts = {**facts, "experts": sum(counts.values())}
        experts: list[dict[str, Any]] = []
        for entry_path, entry in entries.items():
            if entry["kind"] == "stage" and counts[entry_path] > 1:
                rule = "must be 1, because a stage trains one network"
                raise ArgumentError(f"{entry_path}.count", rule, counts[entry_path], "count: 1")
            inner = {name: value for name, value in entry.items() if name != "count"}
            for _ in range(counts[entry_path]):
                experts.append(self.network(inner, facts, join_path(place, str(len(experts))), entry_path, around))
        return experts

    def network(
        self, part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str, around: str = "experts"
    ) -> dict[str, Any]:
        """An expert, a tower, or a part of `layers`."""
        if part["kind"] == "mixture":
            return self._mixture(part, facts, place, path)
        if part["kind"] == "stage":
            return self.adapter(part, facts, place, path, around)
        room = layer_room(part["kind"])
        if room == ROOM and part["kind"] in EXPERT_LAYERS:
            return resolve_expert_layer(self, part, facts, place, path)
        return self.component(room, part, facts, place, path, around)

    def adapter(
        self, part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str, around: str
    ) -> dict[str, Any]:
        """The adapter around a stage's network, frozen by default; the same one where its options are the same."""
        self.origins[place] = self.origins[join_path(place, "network")] = path
        options = {name: value for name, value in part.items() if name not in ("kind", "stage", "part")}
        name, inner = part["stage"], part.get("part")
        if name not in self.stages:
            raise UnknownKindError(f"no stage is called {name!r}", did_you_mean(name, self.stages))
        stage = self.stages[name]
        classes = self._stage_classes(name, stage["classes"], path) if inner is None else None
        arguments = {**adapter_arguments(stage, classes, inner is None, facts, self.labels), **options}
        inner = stage["part"] if inner is None else inner
        use, source = json.dumps([name, inner, arguments], sort_keys=True), f"{name}/{inner}"
        self.expert_classes[place] = arguments["classes"]
        if use in self.places:
            return {"same_as": self.places[use]}
        self.places[use] = place
        if source in self.places:
            network: dict[str, Any] = {"same_as": self.places[source]}
        else:
            self.places[source] = join_path(place, "network")
            of = resolve(stage["model"], stage["facts"], self.stages, stage.get("labels"))
            network = {"kind": "part", "stage": name, "part": inner, "of": of}
        return self.component("experts", {"kind": "adapter", "network": network, **arguments}, {}, place, path, around)

    def _stage_classes(self, name: str, classes: Sequence[int] | None, path: str) -> list[int] | None:
        """Positions of the classes of a stage's network among the outputs of the model; None = all, in order."""
        if classes is None or self.labels is None:
            return None if classes is None else list(classes)
        if not set(classes) <= set(self.labels):
            rule = "has outputs for classes that the stage which uses it has no outputs for"
            raise ArgumentError(join_path(path, "stage"), rule, name, "outputs: all")
        return [list(self.labels).index(label) for label in classes]

    def component(
        self, room: str, part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str, around: str = ""
    ) -> dict[str, Any]:
        """The component that a part names.

        Arguments:
            room: of the component.
            part: kind and keywords.
            facts: for keywords that are left out.
            place, path: where it is in the Spec, and in the model part.
            around: room of what is around it; its own unless given.
        """
        self.origins[place] = path
        parameters = inspect.signature(find(room, part["kind"])).parameters
        values = {name: value for name, value in part.items() if name != "kind"}
        for name, parameter in parameters.items():
            is_required = parameter.default is parameter.empty
            # The width of a layer is that of its rows; other components have parameters of this name, too.
            fact = "features" if name == "dim" and room == "layers" and is_required else name
            if name in values or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if fact in facts and (fact in FACTS or (fact == "init" and room in NETWORKS)):
                # Before a table is read nobody knows its domains: the gate that needs one expert each gets that.
                values[name] = facts["experts"] if fact == "domains" and facts[fact] is None else facts[fact]
            elif fact in FACTS and is_required:
                rule = "is missing, and does not follow from the data here"
                raise ArgumentError(join_path(place, name), rule, None, f"{name}: 64")
            elif not is_required and _is_plain(parameter.default):
                values[name] = parameter.default
        order = [*(name for name in parameters if name in values), *(name for name in values if name not in parameters)]
        inner = {name: self._value(name, values[name], room, facts, place, path) for name in order}
        return {"kind": part["kind"], **({"room": room} if room != (around or room) else {}), **inner}

    def _value(self, name: str, value: Any, room: str, facts: Mapping[str, Any], place: str, path: str) -> Any:
        """The value of a keyword; a part where it names a kind, such as a router around another one."""
        place, path = join_path(place, name), join_path(path, name)
        if isinstance(value, Mapping) and value.get("kind") == "stage":
            return self.adapter(value, facts, place, path, room)
        if isinstance(value, Mapping) and "kind" in value and value["kind"] != "part":
            return self.component(PARTS.get(name, "experts"), value, facts, place, path, room)
        return plain_value(value)


def _with_init(part: Mapping[str, Any], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**facts, "init": part["init"]} if "init" in part else facts


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
