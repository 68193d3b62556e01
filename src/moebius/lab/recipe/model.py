"""Checks the model part of a recipe: first names and types, then a dry build on the meta device."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch

from moebius.core.row_context import takes_context
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.checks.components import check_component, check_keywords, suggest_kind
from moebius.lab.checks.problems import ABSENT, Path, Problem, from_argument_error
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.resolve import Resolver, layer_room
from moebius.lab.model.shapes import output_shape, row_shape
from moebius.lab.recipe.kind_schemas import writable_kinds
from moebius.layers.mixture import Mixture

DEFAULTS = {"router": {"kind": "soft"}, "combine": {"kind": "weighted_sum"}, "execution": "auto"}
# A part with problems is replaced by one of these, so that the other parts can be built.
STAND_INS = {**DEFAULTS, "gate": {"kind": "uniform"}, "experts": {"kind": "linear"}}
KEYS = ("gate", "router", "experts", "combine", "execution")
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
        return _check_layers(spec, path, stages)
    problems = []
    for key in spec:
        if key not in KEYS:
            problems.append(Problem((*path, key), "no such key", spec[key], did_you_mean(key, (*KEYS, "layers"))))
    for key, room in (("gate", "gates"), ("router", "routers"), ("combine", "combine")):
        if key == "gate" and _is_stage(spec.get(key)):
            problems += _check_stage(spec[key], (*path, key), stages)
        elif key in spec:
            problems += check_component(room, spec[key], (*path, key))
        elif key == "gate":
            problems.append(_missing(path, "gate", "{kind: linear}"))
    problems += check_experts(spec["experts"], (*path, "experts"), stages) if "experts" in spec else []
    if "experts" not in spec:
        problems.append(_missing(path, "experts", "{kind: linear, count: 2}"))
    return [*problems, *_check_execution_kind(spec, path)]


def _check_execution_kind(spec: Mapping[str, Any], path: Path) -> list[Problem]:
    execution = spec.get("execution", "auto")
    if execution in kinds("execution"):
        return []
    return [Problem((*path, "execution"), "no such execution", execution, suggest_kind("execution", execution))]


def _check_layers(spec: Mapping[str, Any], path: Path, stages: Collection[str]) -> list[Problem]:
    rule, layers = "cannot stand beside layers", spec["layers"]
    fix = "layers: [{kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 2}}]"
    problems = [Problem((*path, key), rule, value, fix) for key, value in spec.items() if key != "layers"]
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
    if kind is None or kind in ("mixture", "stage") or kind in kinds("experts"):
        problems = [] if kind is None or "count" not in part else [_no_count(part, path)]
        return problems + _check_expert(part, path, stages)
    if kind not in layer_kinds:
        fix = did_you_mean(str(kind), (*kinds("experts"), *layer_kinds, "mixture", "stage"))
        return [Problem((*path, "kind"), "no such kind", kind, fix)]
    # What is before the layer gives its width.
    width = {"dim": 1} if "dim" in inspect.signature(find("layers", kind)).parameters else {}
    problems = check_component("layers", {**width, **part}, path)
    return [*problems, *(_check_execution_kind(part, path) if "execution" in part else ())]


def _no_count(part: Mapping[str, Any], path: Path) -> Problem:
    return Problem((*path, "count"), "is for experts, and this is one part", part["count"], "the part once more")


def dry_build(
    spec: Mapping[str, Any],
    facts: Mapping[str, Any],
    wrong: Collection[str] = (),
    stages: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Problem]:
    """The problems that the components' constructors report for a mixture's spec.

    The mixture is built on the meta device, where tensors have shapes but no memory, and the gate scores one image. A
    part with a problem is replaced by a valid part, and the mixture is built again: so every part is checked.

    Arguments:
        spec: the spec of a mixture.
        facts: of the data, as for `build_model`.
        wrong: keys of the spec with problems in names or types.
        stages: specs of the stages that the spec may use.
    """
    if "layers" in spec:
        return [] if wrong else _build_layers(spec, facts, stages or {})
    spec = {key: STAND_INS[key] if key in wrong else spec[key] for key in KEYS if key in spec or key in wrong}
    problems: list[Problem] = []
    while part_problems := _build_once(spec, facts, stages or {}):
        problems += part_problems
        key = str(part_problems[0].path[0])
        if spec.get(key) == STAND_INS.get(key):
            break
        spec[key] = STAND_INS[key]
    return problems


def _build_once(spec: Mapping[str, Any], facts: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Problem]:
    """The problems of the first part that cannot be built."""
    place: Path = ()
    try:
        with torch.device("meta"), torch.no_grad():
            mixture = build_model(spec, facts, StageNetworks(stages))
            assert isinstance(mixture, Mixture)
            place = ("gate",)
            network = mixture.gate.network if isinstance(mixture.gate, Adapter) else None
            if network is not None and (getattr(network, "gives_aux", False) or takes_context(type(network))):
                rule = "takes or gives more than rows and scores, which does not come through a stage"
                return [Problem(place, rule, spec["gate"])]
            if takes_context(type(mixture.gate)):
                # Such a gate reads values, and tensors on the meta device have none.
                return []
            scores = mixture.gate(torch.zeros(1, *row_shape(facts)))
            if getattr(mixture.gate, "gives_aux", False):
                scores, _ = scores
    except ArgumentError as error:
        return [from_argument_error(error, place)]
    except RuntimeError as error:
        if not place:
            raise
        noun = "images" if "size" in facts else "rows"
        return [Problem(place, f"does not take {noun} of shape {row_shape(facts)} ({error})", spec["gate"])]
    if spec["experts"] is STAND_INS["experts"]:
        return []
    experts = len(mixture.experts)
    needed_scores = mixture.router.gate_outputs(experts)
    if scores.shape[-1] != needed_scores:
        rule = f"gives {scores.shape[-1]} scores where the mixture has experts: {experts}"
        if needed_scores != experts:
            rule = f"gives {scores.shape[-1]} scores a row where {spec['router']['kind']} needs {needed_scores}"
        return [Problem(("gate",), rule, spec["gate"], "leave `experts` out of the gate, it is filled in")]
    return []


def _build_layers(spec: Mapping[str, Any], facts: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Problem]:
    """The first problem of parts that cannot be built, or do not fit each other or the data."""
    resolver = Resolver(stages, None)
    try:
        resolved = resolver.model(spec, facts)
        shape = output_shape(resolved, facts, str(len(spec["layers"]) - 1))
    except ArgumentError as error:
        return [from_argument_error(resolver.at_origin(error))]
    if tuple(shape) == (1, facts["classes"]):
        return []
    noun = "an image" if "size" in facts else "a row"
    rule = f"gives {tuple(shape[1:])} for {noun} where the data have {facts['classes']} classes"
    return [Problem(("layers", len(spec["layers"]) - 1), rule, spec["layers"][-1], "{kind: linear} after it")]


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
