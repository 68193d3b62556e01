"""From a part of a recipe's `layers` to the Spec of a layer with gates, experts and towers in it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.layers.cgc import SHARED
from moebius.storage.spec import NAMED, join_path

if TYPE_CHECKING:
    from moebius.lab.model.resolve import Resolver

ROOM = "layers"


def resolve_expert_layer(
    resolver: "Resolver", part: Mapping[str, Any], facts: Mapping[str, Any], place: str, path: str
) -> dict[str, Any]:
    """The Spec of a part of `layers` whose kind is in `EXPERT_LAYERS`.

    One entry under `gates`, `towers`, `router` or a CGC's `experts` stands for each task; a mapping has one by name.
    Towers get `features` of the experts and `classes` of their task. Experts get `classes` where they give the outputs.

    Arguments:
        resolver: of the model.
        part: as in a recipe.
        facts: what the part gets. Where it is the last one, with `classes`, and with `outputs` (task → number of
            outputs) for data with several tasks.
        place, path: where the part is in the Spec, and in the model part.

    Raises:
        ArgumentError: the part gives an output for each task, and the data have one, or it is not the last part; names
            that are not the data's; a value that is missing or refused.
    """
    layer = _Layer(resolver, part, facts, place, path)
    resolver.origins[place] = path
    return {"kind": part["kind"], "room": ROOM, **EXPERT_LAYERS[part["kind"]](layer)}


def is_by_name(value: Any) -> bool:
    """Whether a value of a recipe is a mapping from names to entries, and no entry itself; a task may be called kind.

    Example:
        >>> is_by_name({"price": {"kind": "linear"}}), is_by_name({"kind": "linear"})
        (True, False)
    """
    return isinstance(value, Mapping) and not isinstance(value.get("kind", {}), str)


@dataclass(frozen=True)
class _Layer:
    """A layer that is resolved; arguments as for `resolve_expert_layer`."""

    resolver: "Resolver"
    part: Mapping[str, Any]
    facts: Mapping[str, Any]
    place: str
    path: str

    def at(self, name: str) -> tuple[str, str]:
        """Place and path of a part inside."""
        return join_path(self.place, name), join_path(self.path, name)

    def tasks(self) -> dict[str, int]:
        """Task → number of outputs."""
        if "outputs" not in self.facts and "classes" in self.facts:
            rule = "gives an output for each of several tasks, and the data have one"
            raise ArgumentError(join_path(self.place, "kind"), rule, self.part["kind"], "kind: mixture")
        if "outputs" not in self.facts:
            rule = "gives an output for each task, and only the last part can"
            fix = "what follows as `towers`, a network for each task"
            raise ArgumentError(join_path(self.place, "kind"), rule, self.part["kind"], fix)
        return dict(self.facts["outputs"])

    def entries(self, key: str, names: Iterable[str]) -> dict[str, tuple[Any, str, str]]:
        """Name → its entry under a key, with place and path."""
        value, names = self.part[key], list(names)
        place, path = self.at(key)
        if not is_by_name(value):
            self.resolver.origins.setdefault(place, path)
            return {name: (value, join_path(place, name), path) for name in names}
        self.resolver.origins[place] = path
        for name in value:
            if name not in names:
                self.resolver.origins[join_path(place, name)] = join_path(path, name)
                raise ArgumentError(join_path(place, name), "no such task", name, did_you_mean(str(name), names))
        missing = [name for name in names if name not in value]
        if missing:
            rule = f"needs an entry for each of {', '.join(names)}"
            raise ArgumentError(place, rule, list(value), f"{missing[0]}: {{kind: …}}")
        return {name: (value[name], join_path(place, name), join_path(path, name)) for name in names}

    def gates(self, counts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """The gates and the routers by name; `counts` has the number of experts of each gate."""
        routers, gates = {}, {}
        part = {"router": {"kind": "soft"}, **self.part}
        for name, (entry, *where) in replace(self, part=part).entries("router", counts).items():
            routers[name] = self.router(entry, counts[name], *where)
        for name, (entry, *where) in self.entries("gates", counts).items():
            gates[name] = self.gate(entry, routers[name][1].gate_outputs(counts[name]), *where)
        return {"gates": {NAMED: gates}, "router": {NAMED: {name: spec for name, (spec, _) in routers.items()}}}

    def gate(self, entry: Mapping[str, Any], width: int, place: str, path: str) -> dict[str, Any]:
        if entry["kind"] == "stage":
            return self.resolver.adapter(entry, self.facts, place, path, ROOM)
        return self.resolver.component("gates", entry, {**self.facts, "experts": width}, place, path, ROOM)

    def router(self, entry: Mapping[str, Any], count: int, place: str, path: str) -> tuple[dict[str, Any], Any]:
        """Spec and router."""
        return self.resolver.router(entry, {**self.facts, "experts": count}, place, path, ROOM)

    def experts(self, value: Any, classes: int | None, place: str, path: str) -> tuple[Any, int]:
        """Experts, as a list or a stack, and their number; `classes` is None where other parts give the outputs."""
        self.resolver.origins.setdefault(place, path)
        experts = self.resolver.experts(value, self.expert_facts(classes), place, path, ROOM)
        return self.resolver.pool(experts, place), len(experts)

    def expert_facts(self, classes: int | None) -> dict[str, Any]:
        inner = {name: value for name, value in self.facts.items() if name not in ("classes", "outputs", "positions")}
        return inner if classes is None else {**inner, "classes": classes}

    def expert_classes(self, tasks: Mapping[str, int]) -> int | None:
        """The outputs of experts that no tower follows; None where towers do.

        Raises:
            ArgumentError: there are no towers, and the tasks have different numbers of outputs.
        """
        if self.part.get("towers") is not None:
            return None
        if len(set(tasks.values())) > 1:
            rule = f"is missing, and the tasks have different numbers of outputs, {tasks}"
            raise ArgumentError(join_path(self.place, "towers"), rule, None, "towers: {kind: linear}")
        return next(iter(tasks.values()))

    def towers(self, tasks: Mapping[str, int], experts: Any, path: str) -> dict[str, Any]:
        """The tower of each task, on the outputs of these experts."""
        if self.part.get("towers") is None:
            return {"towers": None}
        features = self.features_after(experts, path)
        towers = {}
        for task, (entry, place, inner) in self.entries("towers", tasks).items():
            towers[task] = self.resolver.network(entry, {**features, "classes": tasks[task]}, place, inner, ROOM)
        return {"towers": {NAMED: towers}}

    def features_after(self, experts: Any, path: str) -> dict[str, Any]:
        """The facts of what the experts of an entry give."""
        place, _ = self.at("experts")
        facts = self.expert_facts(None)
        kept = {name: facts[name] for name in ("domains", "init") if name in facts}
        return {**kept, **self.resolver.expert_output_facts(experts, facts, place, path)}

    def combine(self) -> dict[str, Any]:
        combine = self.part.get("combine", {"kind": "weighted_sum"})
        return self.resolver.component("combine", combine, self.facts, *self.at("combine"), ROOM)

    def rest(self) -> dict[str, Any]:
        return {"combine": self.combine(), "execution": self.part.get("execution", "auto")}


def _in_order(names: Iterable[str], *parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a layer in the order of its constructor's arguments: the order in which they are made."""
    merged = {name: value for part in parts for name, value in part.items()}
    return {name: merged[name] for name in names}


def _multi_gate_mixture(layer: _Layer) -> dict[str, Any]:
    tasks = layer.tasks()
    where = layer.at("experts")
    experts, count = layer.experts(layer.part["experts"], layer.expert_classes(tasks), *where)
    parts = layer.gates(dict.fromkeys(tasks, count))
    towers = layer.towers(tasks, layer.part["experts"], where[1])
    names = ("gates", "experts", "towers", "router", "combine", "execution")
    return _in_order(names, {"experts": experts}, parts, towers, layer.rest())


def _cgc(layer: _Layer, tasks: Mapping[str, int] | None = None, is_last: bool = True) -> dict[str, Any]:
    """The parts of a CGC; one before the last of a PLE has a gate called "shared", and no towers."""
    tasks = layer.tasks() if tasks is None else tasks
    classes = layer.expert_classes(tasks) if is_last else None
    task_experts = {
        task: layer.experts(entry[0], classes, *entry[1:]) for task, entry in layer.entries("experts", tasks).items()
    }
    shared, shared_count = [], 0
    if layer.part.get("shared"):
        shared, shared_count = layer.experts(layer.part["shared"], classes, *layer.at("shared"))
    counts = {task: count + shared_count for task, (_, count) in task_experts.items()}
    if not is_last:
        counts[SHARED] = sum(count for _, count in task_experts.values()) + shared_count
    experts = {"experts": {NAMED: {task: spec for task, (spec, _) in task_experts.items()}}, "shared": shared}
    towers = layer.towers(tasks, *_any_experts(layer, tasks)) if is_last else {"towers": None}
    names = ("gates", "experts", "shared", "towers", "router", "combine", "execution")
    return _in_order(names, experts, layer.gates(counts), towers, layer.rest())


def _any_experts(layer: _Layer, tasks: Mapping[str, int]) -> tuple[Any, str]:
    """An entry of experts of a CGC, and its path: all of them give rows of one shape."""
    if layer.part.get("shared"):
        return layer.part["shared"], layer.at("shared")[1]
    entry, _, path = next(iter(layer.entries("experts", tasks).values()))
    return entry, path


def _ple(layer: _Layer) -> dict[str, Any]:
    tasks, levels = layer.tasks(), []
    place, path = layer.at("levels")
    facts = dict(layer.facts)
    for number, part in enumerate(layer.part["levels"]):
        is_last = number == len(layer.part["levels"]) - 1
        level = _Layer(layer.resolver, part, facts, join_path(place, str(number)), f"{path}.{number}")
        layer.resolver.origins[level.place] = level.path
        if not is_last and part.get("towers") is not None:
            rule = "must be left out before the last level, whose towers give the outputs"
            raise ArgumentError(join_path(level.place, "towers"), rule, part["towers"], "towers: null")
        levels.append({"kind": "cgc", **_cgc(level, tasks, is_last)})
        if not is_last:
            facts = level.features_after(*_any_experts(level, tasks))
    return {"levels": levels}


def _position_mixture(layer: _Layer) -> dict[str, Any]:
    experts, count = layer.experts(layer.part["experts"], layer.facts.get("classes"), *layer.at("experts"))
    spec, router = layer.router(layer.part.get("router", {"kind": "soft"}), count, *layer.at("router"))
    gate = layer.gate(layer.part["gate"], router.gate_outputs(count), *layer.at("gate"))
    # Images have their channels before the positions, sequences behind them.
    axis = {"channel_axis": layer.part.get("channel_axis", 1 if "size" in layer.facts else -1)}
    names = ("gate", "experts", "router", "combine", "channel_axis", "execution")
    return _in_order(names, {"gate": gate, "experts": experts, "router": spec}, axis, layer.rest())


def _attentive_mixture(layer: _Layer) -> dict[str, Any]:
    part, (place, path) = layer.part, layer.at("bodies")
    layer.resolver.origins.setdefault(place, path)
    bodies = layer.resolver.experts(part["bodies"], layer.expert_facts(None), place, path, ROOM)
    features = layer.features_after(part["bodies"], path)
    head_place, head_path = layer.at("heads")
    facts = {**features, **{name: layer.facts[name] for name in ("classes",) if name in layer.facts}}
    heads = [
        layer.resolver.network(part["heads"], facts, join_path(head_place, str(number)), head_path, ROOM)
        for number in range(len(bodies))
    ]
    router, _ = layer.router(part.get("router", {"kind": "soft"}), len(bodies), *layer.at("router"))
    width = positive_integer(join_path(layer.place, "gate_features"), part.get("gate_features", 16))
    sizes = {
        "gate_features": width,
        "expert_features": part.get("expert_features", features["features"]),
        "dim": part.get("dim", 32),
    }
    parts = {"gate": layer.gate(part["gate"], width, *layer.at("gate")), "bodies": bodies, "heads": heads}
    names = ("gate", "bodies", "heads", "gate_features", "expert_features", "dim", "router", "combine")
    return _in_order(names, parts, sizes, {"router": router, "combine": layer.combine()})


# The layers whose parts a recipe names, with what makes their Specs.
EXPERT_LAYERS: Mapping[str, Callable[[_Layer], dict[str, Any]]] = {
    "multi_gate_mixture": _multi_gate_mixture,
    "cgc": _cgc,
    "ple": _ple,
    "position_mixture": _position_mixture,
    "attentive_mixture": _attentive_mixture,
}
