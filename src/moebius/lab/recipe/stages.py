"""The stages of a recipe: what is trained before the variants that use it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from moebius.lab.model.build import stage_names
from moebius.lab.recipe.loss_needs import check_loss_needs
from moebius.lab.recipe.merge import comes_from_base, merge
from moebius.lab.recipe.model import DEFAULTS, check_experts, check_model, dry_build
from moebius.lab.recipe.problems import ABSENT, Path, Problem, mapping
from moebius.lab.recipe.schema import Stage, StageFile, TrainingSpec
from moebius.lab.recipe.training import check_training, with_optimizer
from moebius.lab.recipe.wording import problems_of


def check_stages(
    raw: Mapping[str, Any], facts: Mapping[str, int] | None
) -> tuple[list[Stage], list[str], list[Problem]]:
    """The stages of a recipe's plain values, and everything that is wrong with them.

    Arguments:
        raw: plain values of the recipe.
        facts: of the data; None not to build what the stages train.

    Returns:
        The stages, the names of those that cannot be built for what is wrong with them or with one that they use, and
        the problems.
    """
    stages: list[Stage] = []
    wrong: list[str] = []
    problems: list[Problem] = []
    for name, given in mapping(raw, "stages").items():
        if not isinstance(given, Mapping):
            problems.append(Problem(("stages", name), "needs a mapping of keys to values", given))
            wrong.append(name)
            continue
        stage, found = _check_stage(name, given, raw, stages, wrong, facts)
        problems += found
        if found or stage is None or set(stage_names(stage.model)) & set(wrong):
            wrong.append(name)
        stages += [stage] if stage else []
    return stages, wrong, problems


def stage_specs(stages: Sequence[Stage], facts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The specs of `Stages`, without a look at the data: classes named are taken for the first ones."""
    return {
        stage.name: {
            "model": stage.model,
            "part": stage.part,
            "facts": stage_facts(stage.rows, facts),
            "classes": None if stage.rows["classes"] is None else list(range(len(stage.rows["classes"]))),
        }
        for stage in stages
    }


def stage_facts(rows: Mapping[str, Any], facts: Mapping[str, int]) -> dict[str, int]:
    """Facts of the rows of a stage: its classes are groups, or its own, or all."""
    if rows["groups"] is not None:
        return {**facts, "classes": len(rows["groups"])}
    if rows["classes"] is not None and rows["outputs"] == "own":
        return {**facts, "classes": len(rows["classes"])}
    return dict(facts)


def _check_stage(
    name: str,
    given: Mapping[str, Any],
    raw: Mapping[str, Any],
    above: Sequence[Stage],
    wrong_above: Sequence[str],
    facts: Mapping[str, int] | None,
) -> tuple[Stage | None, list[Problem]]:
    place: Path = ("stages", name)
    shared = mapping(raw, "pretraining")
    given = dict(given)
    own_network, own_training = given.get("network", {}), given.get("training", {})
    wrong = [key for key in ("network", "training") if not isinstance(given.get(key, {}), Mapping)]
    if wrong:
        return None, [Problem((*place, key), "needs a mapping of keys to values", given[key]) for key in wrong]
    base = merge(with_optimizer(mapping(raw, "training")), dict(mapping(shared, "training")))
    training = merge(base, dict(own_training))
    network_base = dict(mapping(shared, "network"))
    network = merge(network_base, dict(own_network))
    try:
        file: StageFile | None = StageFile.model_validate(given)
        problems = []
    except ValidationError as error:
        file, problems = None, problems_of(error, StageFile, place)
    names = list(dict.fromkeys([*(stage.name for stage in above), *wrong_above]))

    found = check_training(training, ())
    try:
        settled: TrainingSpec | None = TrainingSpec.model_validate(training)
    except ValidationError as error:
        settled, found = None, found + problems_of(error, TrainingSpec, ())
    placed = [_placed_training(problem, place, base, dict(own_training), raw) for problem in found]
    # What is wrong with the training that variants share is reported of the variants.
    problems += [problem for problem in placed if problem.path[0] != "training"]

    if file is None:
        return None, problems
    if file.model is not None:
        spec, part, where = {**DEFAULTS, **file.model}, "", (*place, "model")
        found = check_model(spec, (), names)
    elif network:
        spec, part, where = {**DEFAULTS, "gate": {"kind": "uniform"}, "experts": network}, "experts.0", place
        found = check_experts(network, ("experts",), names)
        if "count" in network:
            found.append(Problem(("experts", "count"), "a stage trains one network", network["count"], "a stage each"))
    else:
        fix = "such as network: {kind: vgg}"
        return None, [*problems, Problem((*place, "network"), "is missing, and so is model", ABSENT, fix)]
    if file.classes is not None and file.groups is not None:
        problems.append(Problem((*place, "groups"), "cannot stand beside classes", file.groups, "one of the two"))
    rows = {key: getattr(file, key) for key in ("classes", "groups", "domains", "train_rows", "outputs")}
    if facts is not None and not found and not set(stage_names(spec)) & set(wrong_above):
        found = dry_build(spec, stage_facts(rows, facts), stages=stage_specs(above, facts))
    for problem in check_loss_needs(training.get("losses"), spec):
        problems.append(_placed_training(problem, place, base, dict(own_training), raw))
    for problem in found:
        if file.model is not None:
            problems.append(problem.at((*where, *problem.path)))
        else:
            key = problem.path[1:]
            base_wrote = comes_from_base(network_base, dict(own_network), key)
            problems.append(problem.at((*(("pretraining",) if base_wrote else place), "network", *key)))
    return (Stage(name, spec, part, rows, settled) if settled is not None else None), problems


def _placed_training(
    problem: Problem, place: Path, base: Mapping[str, Any], own: Mapping[str, Any], raw: Mapping[str, Any]
) -> Problem:
    """The problem at the key that its author wrote: the stage's training, pretraining's or the recipe's."""
    if not comes_from_base(base, own, problem.path):
        return problem.at((*place, "training", *problem.path))
    shared = mapping(mapping(raw, "pretraining"), "training")
    if not comes_from_base(mapping(raw, "training"), shared, problem.path):
        return problem.at(("pretraining", "training", *problem.path))
    return problem.at(("training", *problem.path))


def unused_stages(stages: Sequence[Stage], models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the stages that no model has a part of, directly or through another stage."""
    wanted = {name for model in models for name in stage_names(model)}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(stage_names(stage.model))
    return [stage.name for stage in stages if stage.name not in wanted]
