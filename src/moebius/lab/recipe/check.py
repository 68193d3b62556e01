"""From the plain values of a recipe's file to a `Recipe`, or to everything that is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from moebius.kit.registry import did_you_mean
from moebius.lab.model.build import stage_names
from moebius.lab.recipe.components import check_component
from moebius.lab.recipe.loss_needs import check_loss_needs
from moebius.lab.recipe.merge import comes_from_base, merge
from moebius.lab.recipe.model import DEFAULTS, KEYS, check_model, dry_build
from moebius.lab.recipe.problems import Path, Problem, mapping, unique_problems
from moebius.lab.recipe.schema import RESERVED, RecipeFile, Stage, TrainingSpec, Variant
from moebius.lab.recipe.stages import check_stages, stage_specs, unused_stages
from moebius.lab.recipe.training import check_annealing, check_training, with_optimizer
from moebius.lab.recipe.wording import problems_of


def check_recipe(
    raw: Mapping[str, Any], build: bool = True
) -> tuple[RecipeFile | None, tuple[Variant, ...], tuple[Stage, ...], list[Problem]]:
    """Check everything there is to check; nothing stops at the first problem.

    Arguments:
        raw: plain values, preset and overrides applied.
        build: also build every variant on the meta device, where the constructors check values.

    Returns:
        The file's values, its variants and its stages, of use when the list of problems is empty.
    """
    file, problems = _validated(RecipeFile, raw, ())
    problems += _check_sets(mapping(raw, "data"))
    training = mapping(raw, "training")
    problems += check_training(training, ("training",))
    facts = guess_facts(mapping(raw, "data")) if build else None
    stages, wrong, found = check_stages(raw, facts)
    problems += found
    variants = []
    for name, over in mapping(raw, "variants").items():
        if isinstance(over, Mapping):
            variant, found = _check_variant(name, mapping(raw, "model"), training, over, facts, stages, wrong)
            problems += found
            variants += [variant] if variant else []
    problems += _check_names(raw)
    if not problems:
        for name in unused_stages(stages, [variant.model for variant in variants]):
            problems.append(Problem(("stages", name), "no variant uses it", name, "take it out"))
    problems += _check_watching(mapping(raw, "data"), stages, variants)
    return file, tuple(variants), tuple(stages), unique_problems(problems)


def guess_facts(data: Mapping[str, Any]) -> dict[str, int]:
    """What the model will be told of the data, without reading them: ten classes are assumed for each set.

    Example:
        >>> guess_facts({"sets": [{"kind": "digits"}], "size": 8})
        {'features': 64, 'channels': 1, 'size': 8, 'classes': 10, 'domains': 1}
    """
    sets, size, classes = data.get("sets"), data.get("size", 32), data.get("classes")
    domains = len(sets) if isinstance(sets, list) and sets else 1
    size = size if isinstance(size, int) and size > 0 else 32
    channels = 3 if data.get("color") == "rgb" else 1
    count = len(classes) if isinstance(classes, list) and classes else 10 * domains
    return {"features": channels * size**2, "channels": channels, "size": size, "classes": count, "domains": domains}


def _check_variant(
    name: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    over: Mapping[str, Any],
    facts: dict[str, int] | None,
    stages: Sequence[Stage],
    wrong_stages: Sequence[str],
) -> tuple[Variant | None, list[Problem]]:
    own = {key: value for key, value in over.items() if key != "training"}
    spec = {**dict.fromkeys(KEYS), **DEFAULTS, **merge(dict(model), own)}
    spec = {key: value for key, value in spec.items() if key in model or key in own or key in DEFAULTS}
    names = list(dict.fromkeys([*(stage.name for stage in stages), *wrong_stages]))
    found = check_model(spec, (), names)
    wrong = {str(problem.path[0]) for problem in found}
    used = stage_names([value for key, value in spec.items() if key not in wrong])
    # What is wrong with a stage is said once, of the stage.
    if facts is not None and not set(used) & set(wrong_stages):
        found += dry_build(spec, facts, wrong, stage_specs(stages, facts))
    problems = [_placed(problem, name, "model", dict(model), own) for problem in found]

    changes = over.get("training") or {}
    if not isinstance(changes, Mapping):
        return None, [*problems, Problem(("variants", name, "training"), "needs a mapping of keys to values", changes)]
    base = with_optimizer(training)
    merged = merge(base, dict(changes))
    found = check_training(merged, ())
    found += check_annealing(mapping(merged, "router"), mapping(spec, "router"))
    found += check_loss_needs(merged.get("losses"), spec)
    result, more = _validated(TrainingSpec, merged, ())
    problems += [_placed(problem, name, "training", base, dict(changes)) for problem in more + found]
    return (Variant(name, spec, result) if isinstance(result, TrainingSpec) else None), problems


def _placed(problem: Problem, variant: str, part: str, base: dict[str, Any], over: dict[str, Any]) -> Problem:
    """The problem at the key that its author wrote: in the variant, or in what all variants share."""
    if comes_from_base(base, over, problem.path):
        return problem.at((part, *problem.path))
    return problem.at(("variants", variant, *(("training",) if part == "training" else ()), *problem.path))


def _check_sets(data: Mapping[str, Any]) -> list[Problem]:
    sets = data.get("sets")
    problems = []
    for place, source in enumerate(sets if isinstance(sets, list) else ()):
        if isinstance(source, Mapping):
            problems += check_component("data.sources", source, ("data", "sets", place), construct=True)
    train, held_out = data.get("train_rows"), data.get("validation_rows")
    if isinstance(train, int) and isinstance(held_out, int) and held_out >= train:
        rule = f"needs fewer rows than train_rows ({train}), of which they are held out"
        problems.append(Problem(("data", "validation_rows"), rule, held_out))
    return problems


def _check_watching(data: Mapping[str, Any], stages: Sequence[Stage], variants: Sequence[Variant]) -> list[Problem]:
    """What held-out rows are to decide needs some."""
    if data.get("validation_rows"):
        return []
    if not any(part.training.watch is not None for part in (*stages, *variants)):
        return []
    rule = "must hold rows out, for training.watch decides by them"
    return [Problem(("data", "validation_rows"), rule, data.get("validation_rows", 0), "validation_rows: 5000")]


def _check_names(raw: Mapping[str, Any]) -> list[Problem]:
    """Variants can be folders beside each other, and what the report names exists."""
    variants = mapping(raw, "variants")
    problems = []
    folded: dict[str, str] = {}
    for name in variants:
        if name.lower() in RESERVED:
            problems.append(Problem(("variants", name), "is the name of a folder that every study has", name))
        elif name.lower() in folded:
            rule = f"differs from {folded[name.lower()]} in case alone, and some disks keep one folder for both"
            problems.append(Problem(("variants", name), rule, name))
        folded[name.lower()] = name
    report = mapping(raw, "report")
    curves = report.get("curves")
    lists: list[tuple[Path, Any]] = [
        (("report", "curves", place, "variants"), mapping({"": figure}, "").get("variants"))
        for place, figure in enumerate(curves if isinstance(curves, list) else ())
    ]
    lists += [(("report", "sweep", key), mapping(report, "sweep").get(key)) for key in ("variants", "marks")]
    named: list[tuple[Path, Any]] = [
        ((*path, place), name)
        for path, names in lists
        for place, name in enumerate(names if isinstance(names, list) else ())
    ]
    named += [(("report", "one_expert", end), name) for end, name in mapping(report, "one_expert").items()]
    return problems + [
        Problem(path, "no such variant", name, did_you_mean(name, variants))
        for path, name in named
        if isinstance(name, str) and name not in variants
    ]


def _validated(model: type[BaseModel], value: Mapping[str, Any], path: Path) -> tuple[Any, list[Problem]]:
    try:
        return model.model_validate(dict(value)), []
    except ValidationError as error:
        return None, problems_of(error, model, path)
