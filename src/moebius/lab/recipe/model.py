"""Checks the model part of a recipe: first names and types, then a dry build on the meta device."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from moebius.core.row_context import takes_context
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean, kinds
from moebius.lab.model.build import StageNetworks, build_mixture
from moebius.lab.recipe.components import check_component, check_keywords, suggest_kind
from moebius.lab.recipe.problems import ABSENT, Path, Problem, from_argument_error

DEFAULTS = {"router": {"kind": "soft"}, "combine": {"kind": "weighted_sum"}, "execution": "auto"}
# What takes the place of a part that is wrong, so that the others can be built.
STAND_INS = {**DEFAULTS, "gate": {"kind": "uniform"}, "experts": {"kind": "linear"}}
KEYS = ("gate", "router", "experts", "combine", "execution")
# What a recipe may say of a stage's network where it uses it; what classes it knows, the stage says.
ADAPTING = ("size", "channels", "fill", "activation", "frozen")
AN_EXAMPLE = "stages: {NAME: {network: {kind: vgg}}}"


def check_model(spec: Mapping[str, Any], path: Path = (), stages: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the names and types of a mixture's spec.

    Arguments:
        spec: of the mixture.
        path: where it stands; problems' paths begin with it.
        stages: names of those that its parts may be of.
    """
    problems = []
    for key in spec:
        if key not in KEYS:
            problems.append(Problem((*path, key), "no such key", spec[key], did_you_mean(key, KEYS)))
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
    execution = spec.get("execution", "auto")
    if execution not in kinds("execution"):
        fix = suggest_kind("execution", execution)
        problems.append(Problem((*path, "execution"), "no such execution", execution, fix))
    return problems


def dry_build(
    spec: Mapping[str, Any],
    facts: Mapping[str, int],
    wrong: Collection[str] = (),
    stages: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Problem]:
    """What the components' constructors find wrong with a spec.

    Builds on the meta device, where tensors have shapes but no memory, and asks the gate for the scores of one image.
    A part that is wrong is replaced by one that is right and the rest built again, so that each part has its say.

    Arguments:
        spec: a mixture's spec.
        facts: of the data.
        wrong: the keys whose names or types are known to be wrong.
        stages: specs of those that its parts may be of.
    """
    spec = {key: STAND_INS[key] if key in wrong else spec[key] for key in KEYS if key in spec or key in wrong}
    problems: list[Problem] = []
    while found := _build(spec, facts, stages or {}):
        problems += found
        key = str(found[0].path[0])
        if spec.get(key) == STAND_INS.get(key):
            break
        spec[key] = STAND_INS[key]
    return problems


def _build(spec: Mapping[str, Any], facts: Mapping[str, int], stages: Mapping[str, Any]) -> list[Problem]:
    place: Path = ()
    try:
        with torch.device("meta"), torch.no_grad():
            mixture = build_mixture(spec, facts, StageNetworks(stages))
            place = ("gate",)
            inner = _adapted(mixture.gate)
            if inner is not None and (getattr(inner, "gives_aux", False) or takes_context(type(inner))):
                rule = "takes or gives more than rows and scores, which does not come through a stage"
                return [Problem(place, rule, spec["gate"])]
            if takes_context(type(mixture.gate)):
                # It reads values, and the meta device has none.
                return []
            scores = mixture.gate(torch.zeros(1, facts["channels"], facts["size"], facts["size"]))
            if getattr(mixture.gate, "gives_aux", False):
                scores, _ = scores
    except ArgumentError as error:
        return [from_argument_error(error, place)]
    except RuntimeError as error:
        if not place:
            raise
        shape = (facts["channels"], facts["size"], facts["size"])
        return [Problem(place, f"does not take images of shape {shape} ({error})", spec["gate"])]
    if spec["experts"] is STAND_INS["experts"]:
        return []
    experts = len(mixture.experts)
    wanted = mixture.router.gate_outputs(experts)
    if scores.shape[-1] != wanted:
        rule = f"gives {scores.shape[-1]} scores where the mixture has experts: {experts}"
        if wanted != experts:
            rule = f"gives {scores.shape[-1]} scores a row where {spec['router']['kind']} needs {wanted}"
        return [Problem(("gate",), rule, spec["gate"], "leave `experts` out of the gate, it is filled in")]
    return []


def _adapted(gate: torch.nn.Module) -> torch.nn.Module | None:
    return gate.network if isinstance(gate, Adapter) else None


def check_experts(value: Any, path: Path, stages: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the names and types of one spec of experts, or of a list of them."""
    if isinstance(value, list):
        if not value:
            return [Problem(path, "needs at least one expert", value)]
        return [problem for place, one in enumerate(value) for problem in _check_expert(one, (*path, place), stages)]
    return _check_expert(value, path, stages)


def _is_stage(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("kind") == "stage"


def _check_stage(value: Mapping[str, Any], path: Path, stages: Collection[str]) -> list[Problem]:
    known = (*ADAPTING, "stage", "part")
    keywords = {name: given for name, given in value.items() if name in ADAPTING}
    problems = [
        Problem((*path, name), "stage has no such keyword", given, did_you_mean(name, known))
        for name, given in value.items()
        if name not in ("kind", *known)
    ]
    problems += check_keywords(Adapter, keywords, path, excluded=("network",), called="stage")
    name = value.get("stage")
    if name is None:
        fix = f"one of {', '.join(stages)}" if stages else AN_EXAMPLE
        return [*problems, Problem((*path, "stage"), "is missing", ABSENT, fix)]
    if name not in stages:
        fix = did_you_mean(str(name), stages) if stages else AN_EXAMPLE
        problems.append(Problem((*path, "stage"), "no such stage, or none above this one", name, fix))
    return problems


def _check_expert(value: Any, path: Path, stages: Collection[str]) -> list[Problem]:
    problems = []
    count = value.get("count", 1) if isinstance(value, Mapping) else 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        problems.append(Problem((*path, "count"), "needs a whole number of at least 1", count))
    if isinstance(value, Mapping) and value.get("kind") == "mixture":
        inner = {key: given for key, given in value.items() if key not in ("kind", "count")}
        return problems + check_model(inner, path, stages)
    if _is_stage(value):
        given = {key: one for key, one in value.items() if key != "count"}
        return problems + _check_stage(given, path, stages)
    return problems + check_component("experts", value, path, besides=("count",))


def _missing(path: Path, key: str, example: str) -> Problem:
    return Problem((*path, key), "is missing", ABSENT, f"such as {key}: {example}")
