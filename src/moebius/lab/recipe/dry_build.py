"""Builds the model part of a recipe on the meta device, where constructors check values and shapes are found."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from moebius.core.row_context import takes_context
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.checks.problems import Path, Problem, from_argument_error
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.resolve import Resolver
from moebius.lab.model.shapes import output_shape, row_shape
from moebius.layers.mixture import Mixture

DEFAULTS = {"router": {"kind": "soft"}, "combine": {"kind": "weighted_sum"}, "execution": "auto"}
# A part with problems is replaced by one of these, so that the other parts can be built.
STAND_INS = {**DEFAULTS, "gate": {"kind": "uniform"}, "experts": {"kind": "linear"}, "init": "torch"}
TOO_LARGE = "has a tensor with more elements than torch can count"
KEYS = ("gate", "router", "experts", "combine", "execution", "init")


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
        if not part_problems[0].path:
            return problems
        key = str(part_problems[0].path[0])
        if spec.get(key) == STAND_INS.get(key):
            break
        spec[key] = STAND_INS[key]
    if not problems and not wrong and {"outputs", "positions"} & facts.keys():
        problems += _check_outputs(spec, facts, stages or {})
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
            if getattr(mixture.gate, "by_position", False):
                rule = "scores each position, and a mixture weighs whole rows"
                fix = "layers: [{kind: position_mixture, gate: …, experts: …}]"
                return [Problem(place, rule, spec["gate"], fix)]
            scores = mixture.gate(torch.zeros(1, *row_shape(facts)))
            if getattr(mixture.gate, "gives_aux", False):
                scores, _ = scores
    except ArgumentError as error:
        return [from_argument_error(error, place)]
    except (RuntimeError, TypeError) as error:
        if _is_overflow(error):
            return [Problem((), TOO_LARGE)]
        if not place or isinstance(error, TypeError):
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


def _check_outputs(spec: Mapping[str, Any], facts: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Problem]:
    """The problem of a mixture whose output is not what data with several tasks, or classes of positions, need."""
    resolver = Resolver(stages, None)
    try:
        rule = _output_rule(output_shape(resolver.model(spec, facts), facts, "experts"), facts)
    except ArgumentError as error:
        return [from_argument_error(resolver.at_origin(error))]
    fix = "layers: [{kind: multi_gate_mixture, gates: …, experts: …, towers: …}]"
    if "outputs" not in facts:
        fix = "layers: [{kind: position_mixture, gate: {kind: unet}, experts: {kind: unet, count: 2}}]"
    return [] if rule is None else [Problem(("experts",), rule, spec["experts"], fix)]


def _build_layers(spec: Mapping[str, Any], facts: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Problem]:
    """The first problem of parts that cannot be built, or do not fit each other or the data."""
    resolver, last = Resolver(stages, None), len(spec["layers"]) - 1
    try:
        resolved = resolver.model(spec, facts)
        shape = output_shape(resolved, facts, str(last) if last else "")
    except ArgumentError as error:
        return [from_argument_error(resolver.at_origin(error))]
    except (RuntimeError, TypeError) as error:
        if not _is_overflow(error):
            raise
        return [Problem(("layers",), TOO_LARGE)]
    rule = _output_rule(shape, facts)
    fix = "{kind: linear} after it"
    if "outputs" in facts:
        fix = "{kind: multi_gate_mixture, gates: …, experts: …, towers: {kind: linear}}"
    elif "positions" in facts:
        fix = "{kind: position_mixture, gate: {kind: unet}, experts: {kind: unet, count: 2}}"
    return [] if rule is None else [Problem(("layers", last), rule, spec["layers"][-1], fix)]


def _is_overflow(error: Exception) -> bool:
    """Whether a tensor has more elements than torch counts."""
    text = str(error).lower()
    return "overflow" in text or "numel" in text


def _output_rule(shape: torch.Size | Mapping[str, torch.Size], facts: Mapping[str, Any]) -> str | None:
    """The rule that the shape of a model's output for one row breaks, by the data; None for none."""
    classes, noun = facts.get("classes"), "an image" if "size" in facts else "a row"
    outputs = (
        {name: tuple(each[1:]) for name, each in shape.items()} if isinstance(shape, Mapping) else tuple(shape[1:])
    )
    if "outputs" in facts:
        if outputs == {task: (count,) for task, count in facts["outputs"].items()}:
            return None
        tasks = ", ".join(f"{task} with {count}" for task, count in facts["outputs"].items())
        return f"gives {outputs} for {noun} where the data have the tasks {tasks}"
    if "positions" in facts:
        positions = tuple(facts["positions"])
        axes = {1: (classes, *positions), -1: (*positions, classes)}
        axis = facts.get("class_axis")
        if outputs in ([*axes.values()] if axis is None else [axes[axis]]):
            return None
        if axis is not None and outputs == axes[-axis]:
            return f"has its classes on another axis than the task says: {outputs}"
        return f"gives {outputs} for {noun} where the data have {classes} classes at each of {positions} positions"
    return None if outputs == (classes,) else f"gives {outputs} for {noun} where the data have {classes} classes"
