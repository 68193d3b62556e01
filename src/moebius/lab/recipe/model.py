"""Checks names and types in the model part of a recipe; the dry build then checks values."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from moebius.experts.adapter import Adapter
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.checks.components import check_component, check_keywords, suggest_kind
from moebius.lab.checks.problems import ABSENT, Path, Problem
from moebius.lab.model.expert_layers import is_by_name
from moebius.lab.model.resolve import layer_room
from moebius.lab.recipe.dry_build import DEFAULTS as DEFAULTS
from moebius.lab.recipe.dry_build import KEYS
from moebius.lab.recipe.dry_build import dry_build as dry_build
from moebius.lab.recipe.kind_schemas import writable_kinds
from moebius.lab.recipe.layer_keys import LAYER_KEYS, LayerKey
from moebius.networks import STARTS

# Keywords of the adapter around a stage's network that a recipe may set; the stage itself sets its classes.
ADAPTING = ("size", "channels", "fill", "activation", "frozen")
STAGE_EXAMPLE = "stages: {NAME: {network: {kind: vgg}}}"


def with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A model part with the parts of a mixture that it leaves out, in the order of `KEYS`; layers as they are."""
    if "layers" in spec:
        return dict(spec)
    filled = {**DEFAULTS, **spec}
    return {key: filled[key] for key in (*KEYS, *spec) if key in filled}


def check_model(spec: Mapping[str, Any], path: Path = (), stages: Collection[str] = ()) -> list[Problem]:
    """The problems of names and types in a model part.

    Arguments:
        spec: the gate, router, experts, combine and execution of the mixture, or layers.
        path: of the part; the paths of problems begin with it.
        stages: names of the stages that the part may use.
    """
    if "layers" in spec:
        return [*_check_layers(spec, path, stages), *_check_init(spec, path)]
    problems = _check_init(spec, path)
    for key in spec:
        if key not in KEYS:
            problems.append(Problem((*path, key), "no such key", spec[key], did_you_mean(key, (*KEYS, "layers"))))
    for key, room in (("gate", "gates"), ("router", "routers"), ("combine", "combine")):
        if key == "gate" and _is_stage(spec.get(key)):
            problems += _check_stage(spec[key], (*path, key), stages)
        elif key in spec:
            problems += check_component(room, spec[key], (*path, key))
            kind = spec[key].get("kind") if isinstance(spec[key], Mapping) else None
            if kind in kinds(room) and getattr(find(room, kind), "keeps_rows", False):
                rule = "keeps rows whose experts' outputs are known, which a recipe does not give it"
                problems.append(Problem((*path, key, "kind"), rule, kind, "mb.compose(models, data)"))
            network = spec[key].get("network") if isinstance(spec[key], Mapping) else None
            if isinstance(network, Mapping) and network.get("kind") == "stage":
                problems += _check_stage(network, (*path, key, "network"), stages)
        elif key == "gate":
            problems.append(_missing(path, "gate", "{kind: linear}"))
    problems += check_experts(spec["experts"], (*path, "experts"), stages) if "experts" in spec else []
    if "experts" not in spec:
        problems.append(_missing(path, "experts", "{kind: linear, count: 2}"))
    return [*problems, *_check_execution_kind(spec, path)]


def _check_init(spec: Mapping[str, Any], path: Path) -> list[Problem]:
    if "init" not in spec or spec["init"] in STARTS:
        return []
    rule = f"needs one of {', '.join(STARTS)}"
    return [Problem((*path, "init"), rule, spec["init"], did_you_mean(str(spec["init"]), STARTS))]


def _check_execution_kind(spec: Mapping[str, Any], path: Path) -> list[Problem]:
    execution = spec.get("execution", "auto")
    if execution in kinds("execution"):
        return []
    return [Problem((*path, "execution"), "no such execution", execution, suggest_kind("execution", execution))]


def _check_layers(spec: Mapping[str, Any], path: Path, stages: Collection[str]) -> list[Problem]:
    rule, layers = "cannot stand beside layers", spec["layers"]
    fix = "layers: [{kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 2}}]"
    problems = [Problem((*path, key), rule, value, fix) for key, value in spec.items() if key not in ("layers", "init")]
    path = (*path, "layers")
    if not isinstance(layers, list) or not layers:
        return [*problems, Problem(path, "needs a list of parts", layers, fix)]
    for place, part in enumerate(layers):
        problems += _check_layer(part, (*path, place), stages)
    kinds_of_parts = [part.get("kind") for part in layers if isinstance(part, Mapping)]
    if not problems and not any(kind == "mixture" or layer_room(kind) == "layers" for kind in kinds_of_parts):
        fix = "such as {kind: sparse_ffn, hidden: 128, experts: 8, k: 2}"
        problems.append(Problem(path, "needs at least one part that is a mixture", layers, fix))
    return problems


def _check_layer(part: Any, path: Path, stages: Collection[str]) -> list[Problem]:
    kind, layer_kinds = part.get("kind") if isinstance(part, Mapping) else None, writable_kinds("layers")
    kind = kind if kind is None or isinstance(kind, str) else str(kind)
    if kind is None or kind in ("mixture", "stage") or kind in kinds("experts"):
        problems = [] if kind is None or "count" not in part else [_no_count(part, path)]
        return problems + _check_expert(part, path, stages)
    if kind in LAYER_KEYS:
        return _check_expert_layer(part, path, stages)
    if kind not in layer_kinds:
        fix = did_you_mean(str(kind), (*kinds("experts"), *layer_kinds, *LAYER_KEYS, "mixture", "stage"))
        return [Problem((*path, "kind"), "no such kind", kind, fix)]
    # What is before the layer gives its width.
    width = {"dim": 1} if "dim" in inspect.signature(find("layers", kind)).parameters else {}
    problems = check_component("layers", {**width, **part}, path)
    return [*problems, *(_check_execution_kind(part, path) if "execution" in part else ())]


def _check_expert_layer(part: Mapping[str, Any], path: Path, stages: Collection[str]) -> list[Problem]:
    """The problems of a layer whose parts the recipe names."""
    kind, keys = part.get("kind", "cgc"), {key.name: key for key in LAYER_KEYS[part.get("kind", "cgc")]}
    problems = [
        Problem((*path, name), f"{kind} has no such keyword", value, did_you_mean(name, keys))
        for name, value in part.items()
        if name not in keys and name != "kind"
    ]
    for name, key in keys.items():
        value, place = part.get(name), (*path, name)
        if value is None and (key.example is None or name not in part):
            problems += [] if key.example is None else [_missing(path, name, key.example)]
        elif key.by_name and is_by_name(value) and value:
            problems += [problem for task in value for problem in _check_form(key, value[task], (*place, task), stages)]
        else:
            problems += _check_form(key, value, place, stages)
    return problems


def _check_form(key: LayerKey, value: Any, path: Path, stages: Collection[str]) -> list[Problem]:
    """The problems of one value under a layer's key."""
    if key.form == "experts":
        return check_experts(value, path, stages)
    if key.form == "network":
        count = [_no_count(value, path)] if isinstance(value, Mapping) and "count" in value else []
        return [*count, *_check_expert(value, path, stages)]
    if key.form == "gate" and _is_stage(value):
        return _check_stage(value, path, stages)
    if key.form in ("gate", "router", "combine"):
        room = {"gate": "gates", "router": "routers"}.get(key.form, key.form)
        return check_component(room, value, path)
    if key.form == "execution":
        return _check_execution_kind({"execution": value}, path[:-1])
    if key.form == "axis":
        is_axis = value in (1, -1) and not isinstance(value, bool)
        return [] if is_axis else [Problem(path, "needs 1 or -1", value, "channel_axis: 1")]
    if key.form == "number":
        is_number = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return [] if is_number else [Problem(path, "needs a whole number, at least 1", value, f"{path[-1]}: 16")]
    if not isinstance(value, list) or not value:
        return [Problem(path, "needs a list of levels", value, f"such as levels: {key.example}")]
    problems = []
    for number, level in enumerate(value):
        if not isinstance(level, Mapping) or level.get("kind", "cgc") != "cgc":
            problems.append(Problem((*path, number), "needs a mapping with the keys of a cgc", level))
        else:
            problems += _check_expert_layer(level, (*path, number), stages)
    return problems


def _no_count(part: Mapping[str, Any], path: Path) -> Problem:
    return Problem((*path, "count"), "is for experts, and this is one part", part["count"], "the part once more")


def check_experts(value: Any, path: Path, stages: Collection[str] = ()) -> list[Problem]:
    """The problems of names and types in a spec of experts, or in a list of such specs."""
    if isinstance(value, list):
        if not value:
            return [Problem(path, "needs at least one expert", value)]
        return [
            problem for place, expert in enumerate(value) for problem in _check_expert(expert, (*path, place), stages)
        ]
    return _check_expert(value, path, stages)


def _is_stage(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("kind") == "stage"


def _check_stage(value: Mapping[str, Any], path: Path, stages: Collection[str]) -> list[Problem]:
    names = (*ADAPTING, "stage", "part")
    keywords = {name: item for name, item in value.items() if name in ADAPTING}
    problems = [
        Problem((*path, name), "stage has no such keyword", item, did_you_mean(name, names))
        for name, item in value.items()
        if name not in ("kind", *names)
    ]
    problems += check_keywords(Adapter, keywords, path, excluded=("network",), called="stage")
    name = value.get("stage")
    if name is None:
        fix = f"one of {', '.join(stages)}" if stages else STAGE_EXAMPLE
        return [*problems, Problem((*path, "stage"), "is missing", ABSENT, fix)]
    if name not in stages:
        fix = did_you_mean(str(name), stages) if stages else STAGE_EXAMPLE
        problems.append(Problem((*path, "stage"), "no such stage, or none above this one", name, fix))
    return problems


def _check_expert(value: Any, path: Path, stages: Collection[str]) -> list[Problem]:
    problems = []
    count = value.get("count", 1) if isinstance(value, Mapping) else 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        problems.append(Problem((*path, "count"), "needs a whole number of at least 1", count))
    if isinstance(value, Mapping) and value.get("kind") == "mixture":
        mixture = {key: item for key, item in value.items() if key not in ("kind", "count")}
        return problems + check_model(mixture, path, stages)
    if _is_stage(value):
        stage = {key: item for key, item in value.items() if key != "count"}
        return problems + _check_stage(stage, path, stages)
    return problems + check_component("experts", value, path, besides=("count",))


def _missing(path: Path, key: str, example: str) -> Problem:
    return Problem((*path, key), "is missing", ABSENT, f"such as {key}: {example}")
