"""Checks the stages of a recipe: networks that are trained before the variants that use them."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.merge import comes_from_base, merge
from moebius.lab.checks.problems import ABSENT, Path, Problem, inner_mapping
from moebius.lab.checks.wording import validate
from moebius.lab.data.select_rows import OWN_AND_OTHER
from moebius.lab.model.resolve import list_stage_names
from moebius.lab.recipe.execution import check_execution
from moebius.lab.recipe.loss_needs import check_loss_needs
from moebius.lab.recipe.model import check_experts, check_model, dry_build, with_defaults
from moebius.lab.recipe.schema import Stage, StageFile
from moebius.lab.recipe.training import with_optimizer
from moebius.lab.training.settings import Settings


def check_stages(
    raw: Mapping[str, Any], facts: Mapping[str, Any] | None
) -> tuple[list[Stage], list[str], list[Problem]]:
    """Check the stages of a recipe.

    Arguments:
        raw: plain values of the recipe.
        facts: features, channels, size, classes and domains of the data; None not to build what the stages train.

    Returns:
        The stages; the names of those that cannot be built, because of a problem of their own or of a stage that they
        use; and all problems.
    """
    stages: list[Stage] = []
    wrong_names: list[str] = []
    problems: list[Problem] = []
    for name, value in inner_mapping(raw, "stages").items():
        if not isinstance(value, Mapping):
            problems.append(Problem(("stages", name), "needs a mapping of keys to values", value))
            wrong_names.append(name)
            continue
        stage, stage_problems = _check_stage(name, value, raw, stages, wrong_names, facts)
        problems += stage_problems
        if stage_problems or stage is None or set(list_stage_names(stage.model)) & set(wrong_names):
            wrong_names.append(name)
        stages += [stage] if stage else []
    return stages, wrong_names, problems


def stage_specs(stages: Sequence[Stage], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The specs that `StageNetworks` takes, made without the data: the first classes stand for those that are named."""
    specs = {}
    for stage in stages:
        positions = None if stage.rows["classes"] is None else list(range(len(stage.rows["classes"])))
        has_others = stage.rows["outputs"] == OWN_AND_OTHER
        specs[stage.name] = {
            "model": stage.model,
            "part": stage.part,
            "facts": stage_facts(stage.rows, facts),
            "classes": positions,
            "others": has_others,
            "labels": positions if has_others else None,
        }
    return specs


def stage_facts(rows: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a stage's rows: it counts its groups, its own classes or all classes."""
    if rows["groups"] is not None:
        return {**facts, "classes": len(rows["groups"])}
    if rows["classes"] is not None and rows["outputs"] == "own":
        return {**facts, "classes": len(rows["classes"])}
    if rows["classes"] is not None and rows["outputs"] == OWN_AND_OTHER:
        return {**facts, "classes": len(rows["classes"]) + 1}
    return dict(facts)


def _check_stage(
    name: str,
    value: Mapping[str, Any],
    raw: Mapping[str, Any],
    above: Sequence[Stage],
    wrong_above: Sequence[str],
    facts: Mapping[str, Any] | None,
) -> tuple[Stage | None, list[Problem]]:
    """One stage and its problems.

    Arguments:
        name: of the stage.
        value: its plain values.
        raw: plain values of the recipe.
        above: the stages before it, which it may use.
        wrong_above: names of those that cannot be built.
        facts: of the data; None not to build anything.
    """
    place: Path = ("stages", name)
    wrong_keys = [key for key in ("network", "training") if not isinstance(value.get(key, {}), Mapping)]
    if wrong_keys:
        return None, [Problem((*place, key), "needs a mapping of keys to values", value[key]) for key in wrong_keys]
    file, problems = validate(StageFile, dict(value), place)
    merged, training, training_problems = _check_stage_training(value, raw, place)
    problems += training_problems
    if file is None:
        return None, problems

    network_base = dict(inner_mapping(inner_mapping(raw, "pretraining"), "network"))
    network_changes = dict(value.get("network", {}))
    network = merge(network_base, network_changes)
    names = list(dict.fromkeys([*(stage.name for stage in above), *wrong_above]))
    if file.model is not None:
        spec, part = with_defaults(file.model), ""
        spec_problems = check_model(spec, (), names)
    elif network:
        spec, part = with_defaults({"gate": {"kind": "uniform"}, "experts": network}), "experts.0"
        spec_problems = check_experts(network, ("experts",), names)
        if "count" in network:
            rule = "a stage trains one network"
            spec_problems.append(Problem(("experts", "count"), rule, network["count"], "a stage each"))
    else:
        fix = "such as network: {kind: vgg}"
        return None, [*problems, Problem((*place, "network"), "is missing, and so is model", ABSENT, fix)]
    if file.classes is not None and file.groups is not None:
        problems.append(Problem((*place, "groups"), "cannot stand beside classes", file.groups, "one of the two"))
    if file.outputs == OWN_AND_OTHER and file.classes is None:
        rule, fix = "needs classes: a stage of all classes has no other ones", "classes: [0, 8], or outputs: all"
        problems.append(Problem((*place, "outputs"), rule, file.outputs, fix))
    if "others" in value and file.outputs != OWN_AND_OTHER:
        rule, fix = "counts rows of other classes, which this stage has no output for", "outputs: own+other"
        problems.append(Problem((*place, "others"), rule, file.others, fix))
    rows = {key: getattr(file, key) for key in ("classes", "groups", "domains", "train_rows", "outputs", "others")}
    rows["trained"] = file.rows
    if facts is not None and not spec_problems and not set(list_stage_names(spec)) & set(wrong_above):
        own_facts, specs = stage_facts(rows, facts), stage_specs(above, facts)
        spec_problems = dry_build(spec, own_facts, stages=specs)
        if not spec_problems:
            spec_problems = check_execution(spec, own_facts, merged.get("precision"), specs)
    problems += [
        _place_training_problem(problem, value, raw, place) for problem in check_loss_needs(merged.get("losses"), spec)
    ]
    for problem in spec_problems:
        if file.model is not None:
            problems.append(problem.at((*place, "model", *problem.path)))
        else:
            key = problem.path[1:]
            is_shared = comes_from_base(network_base, network_changes, key)
            problems.append(problem.at((*(("pretraining",) if is_shared else place), "network", *key)))
    return (Stage(name, spec, part, rows, training) if training is not None else None), problems


def _check_stage_training(
    value: Mapping[str, Any], raw: Mapping[str, Any], place: Path
) -> tuple[dict[str, Any], Settings | None, list[Problem]]:
    """The training of a stage as plain values and validated, and its problems.

    The problems of the training that variants share are reported at the variants.
    """
    merged = merge(_shared_training(raw), dict(value.get("training", {})))
    training, problems = validate(Settings, merged)
    placed = [_place_training_problem(problem, value, raw, place) for problem in problems]
    return merged, training, [problem for problem in placed if problem.path[0] != "training"]


def _shared_training(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The training that all stages share: the recipe's, with that of pretraining laid over it."""
    return merge(
        with_optimizer(inner_mapping(raw, "training")),
        dict(inner_mapping(inner_mapping(raw, "pretraining"), "training")),
    )


def _place_training_problem(problem: Problem, value: Mapping[str, Any], raw: Mapping[str, Any], place: Path) -> Problem:
    """The problem at the key that its author wrote: the stage's training, pretraining's or the recipe's."""
    if not comes_from_base(_shared_training(raw), dict(value.get("training", {})), problem.path):
        return problem.at((*place, "training", *problem.path))
    shared = inner_mapping(inner_mapping(raw, "pretraining"), "training")
    if not comes_from_base(inner_mapping(raw, "training"), shared, problem.path):
        return problem.at(("pretraining", "training", *problem.path))
    return problem.at(("training", *problem.path))


def unused_stages(stages: Sequence[Stage], models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the stages that no model uses, directly or through another stage."""
    used = {name for model in models for name in list_stage_names(model)}
    for stage in reversed(stages):
        if stage.name in used:
            used |= set(list_stage_names(stage.model))
    return [stage.name for stage in stages if stage.name not in used]
