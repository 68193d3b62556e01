"""Checks the plain values of a recipe's file: they become the parts of a `Recipe`, or a list of all problems."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.merge import comes_from_base, merge, shared_model
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.checks.components import check_component
from moebius.lab.checks.problems import Path, Problem, inner_mapping, unique_problems
from moebius.lab.checks.wording import validate
from moebius.lab.data.tables.table import TableSource
from moebius.lab.model.resolve import list_stage_names
from moebius.lab.recipe.cross_fit import check_cross_fit, check_rows, with_folds
from moebius.lab.recipe.data_scale import (
    check_table_scale,
    check_unit_gates,
    check_variant_scale,
    list_gate_kinds,
)
from moebius.lab.recipe.execution import check_execution
from moebius.lab.recipe.loss_needs import check_loss_needs
from moebius.lab.recipe.model import check_model, dry_build, with_defaults
from moebius.lab.recipe.schema import RESERVED, Point, RecipeFile, Stage, Variant
from moebius.lab.recipe.schema.file import LARGEST_SIZE
from moebius.lab.recipe.stages import check_stages, stage_specs, unused_stages
from moebius.lab.recipe.sweep.expand import expand_sweep
from moebius.lab.recipe.task import check_task, count_outputs
from moebius.lab.recipe.training import check_annealing, with_optimizer
from moebius.lab.training.settings import Settings
from moebius.tasks._task import Task
from moebius.tasks.tokens import Tokens


def check_recipe(
    raw: Mapping[str, Any], build: bool = True, proposals: Sequence[Point] = ()
) -> tuple[RecipeFile | None, tuple[Variant, ...], tuple[Stage, ...], list[Problem]]:
    """Check a whole recipe; the checks go on after a problem.

    Arguments:
        raw: plain values, with preset and overrides applied.
        build: whether to build every variant on the meta device, where the constructors check values.
        proposals: the points of a sweep by optuna so far.

    Returns:
        The validated file, the variants, the stages, and the problems. The first three are complete only where there
        are no problems.
    """
    file, problems = validate(RecipeFile, dict(raw))
    problems += _check_sets(inner_mapping(raw, "data"))
    training = inner_mapping(raw, "training")
    task, task_problems = check_task(raw)
    problems += task_problems
    facts = guess_facts(inner_mapping(raw, "data"), task) if build else None
    stages, wrong_stages, stage_problems = check_stages(raw, facts)
    problems += stage_problems
    variants = []
    for name, changes in inner_mapping(raw, "variants").items():
        if isinstance(changes, Mapping):
            shared = (inner_mapping(raw, "model"), training, inner_mapping(raw, "data"))
            variant, variant_problems = _check_variant(name, *shared, changes, facts, stages, wrong_stages)
            problems += variant_problems
            variants += [variant] if variant else []
    problems += _check_names(raw)
    if not problems:
        for name in unused_stages(stages, [variant.model for variant in variants]):
            problems.append(Problem(("stages", name), "no variant uses it", name, "take it out"))
        specs = {} if facts is None else stage_specs(stages, facts)
        problems += check_cross_fit(stages, variants, facts, specs)
        stages = stages if problems else with_folds(stages, variants)
    if file is not None and file.sweep is not None and not problems:

        def check_complete(name: str, values: Mapping[str, Any]) -> tuple[Variant | None, list[Problem]]:
            return _check_variant(name, {}, {}, inner_mapping(raw, "data"), values, facts, stages, wrong_stages)

        variants, sweep_problems = expand_sweep(raw, file.sweep, variants, check_complete, proposals)
        problems += sweep_problems
    problems += _check_watching(inner_mapping(raw, "data"), stages, variants)
    fixed = "and the data are a table" if has_table(inner_mapping(raw, "data")) else None
    fixed = "and not the classes of their pixels" if isinstance(task, Tokens) else fixed
    if fixed is not None and any(part.training.augment for part in (*stages, *variants)):
        augment = training.get("augment") or "in a variant or a stage"
        problems.append(Problem(("training", "augment"), f"changes images, {fixed}", augment, "augment: []"))
    return file, tuple(variants), tuple(stages), unique_problems(problems)


def guess_facts(data: Mapping[str, Any], task: Task | None = None) -> dict[str, Any]:
    """The facts of the data that models are built with; ten classes are assumed for each set, as no data are read.

    Of a table eight columns of numbers and two of three categories each are assumed.

    Example:
        >>> guess_facts({"sets": [{"kind": "digits"}], "size": 8})
        {'features': 64, 'channels': 1, 'size': 8, 'classes': 10, 'domains': 1}
    """
    sets, size, classes = data.get("sets"), data.get("size", 32), data.get("classes")
    domains: int | None = len(sets) if isinstance(sets, list) and sets else 1
    count = len(classes) if isinstance(classes, list) and classes else 10 * domains
    if has_table(data) and not check_component("data.sources", data["sets"][0], (), construct=True):
        domains = _make_source(data["sets"][0]).domain_count
    outputs = count if task is None else count_outputs(task, data, count)
    shared = {"classes": outputs, "domains": domains}
    if isinstance(outputs, dict):
        shared = {"classes": sum(outputs.values()), "domains": domains, "outputs": outputs}
    if has_table(data):
        return {"features": 10, "cardinalities": [4, 4], **shared}
    if isinstance(task, Tokens):
        shared = {**shared, "positions": [size, size], "class_axis": 1 if task.channels == "first" else -1}
    size = size if isinstance(size, int) and 0 < size <= LARGEST_SIZE else 32
    channels = 3 if data.get("color") == "rgb" else 1
    return {"features": channels * size**2, "channels": channels, "size": size, **shared}


def _make_source(spec: Mapping[str, Any]) -> Any:
    return find("data.sources", spec["kind"])(**{name: value for name, value in spec.items() if name != "kind"})


def has_table(data: Mapping[str, Any]) -> bool:
    """Whether one of the sets of a recipe's `data` is a table.

    Example:
        >>> has_table({"sets": [{"kind": "sklearn", "name": "iris"}]}), has_table({"sets": [{"kind": "digits"}]})
        (True, False)
    """
    sets = data.get("sets")
    named = [source.get("kind") for source in sets if isinstance(source, Mapping)] if isinstance(sets, list) else []
    components = [find("data.sources", kind) for kind in named if kind in kinds("data.sources")]
    return any(isinstance(component, type) and issubclass(component, TableSource) for component in components)


def _check_variant(
    name: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    data: Mapping[str, Any],
    changes: Mapping[str, Any],
    facts: dict[str, Any] | None,
    stages: Sequence[Stage],
    wrong_stages: Sequence[str],
) -> tuple[Variant | None, list[Problem]]:
    model_changes = {key: value for key, value in changes.items() if key not in ("data", "training", "rows")}
    model = shared_model(model, model_changes)
    spec = with_defaults(merge(model, model_changes))
    names = list(dict.fromkeys([*(stage.name for stage in stages), *wrong_stages]))
    model_problems = check_model(spec, (), names)
    wrong_keys = {str(problem.path[0]) for problem in model_problems}
    used_stages = list_stage_names([value for key, value in spec.items() if key not in wrong_keys])
    # A problem of a stage is reported once, at the stage.
    if facts is not None and not set(used_stages) & set(wrong_stages):
        specs = stage_specs(stages, facts)
        model_problems += dry_build(spec, facts, wrong_keys, specs)
        if not model_problems:
            changes_of_training = changes.get("training") or {}
            precision = inner_mapping({"": changes_of_training}, "").get("precision", training.get("precision", "auto"))
            model_problems += check_execution(spec, facts, precision, specs)
    problems = [_place_problem(problem, name, "model", model, model_changes) for problem in model_problems]

    scale, scale_problems = check_variant_scale(name, changes, data, list(used_stages))
    if not scale_problems:
        place = ("variants", name, "data", "scale") if "data" in changes else ("data", "scale")
        scale_problems = check_unit_gates(list_gate_kinds(spec), scale, place)
    if not scale_problems and has_table(data) and "data" in changes:
        scale_problems = check_table_scale({"scale": scale}, ("variants", name, "data"))
    problems += scale_problems

    rows = changes.get("rows", "train")
    problems += check_rows(rows, ("variants", name))
    training_changes = changes.get("training") or {}
    if not isinstance(training_changes, Mapping):
        place = ("variants", name, "training")
        return None, [*problems, Problem(place, "needs a mapping of keys to values", training_changes)]
    base = with_optimizer(training)
    merged = merge(base, dict(training_changes))
    settings, training_problems = validate(Settings, merged)
    training_problems += check_annealing(inner_mapping(merged, "router"), inner_mapping(spec, "router"))
    training_problems += check_loss_needs(merged.get("losses"), spec)
    placed = (base, dict(training_changes))
    problems += [_place_problem(problem, name, "training", *placed) for problem in training_problems]
    return (Variant(name, spec, settings, scale, rows=rows) if settings is not None else None), problems


def _place_problem(problem: Problem, variant: str, part: str, base: dict[str, Any], changes: dict[str, Any]) -> Problem:
    """The problem at the key that its author wrote: in the variant, or in what all variants share.

    Arguments:
        problem: with a path inside the merged values.
        variant: name of the variant.
        part: "model" or "training".
        base: what all variants share.
        changes: what the variant lays over it.
    """
    if comes_from_base(base, changes, problem.path):
        return problem.at((part, *problem.path))
    return problem.at(("variants", variant, *(("training",) if part == "training" else ()), *problem.path))


def _check_sets(data: Mapping[str, Any]) -> list[Problem]:
    sets = data.get("sets")
    problems = []
    for place, source in enumerate(sets if isinstance(sets, list) else ()):
        if isinstance(source, Mapping):
            problems += check_component("data.sources", source, ("data", "sets", place), construct=True)
    if has_table(data):
        problems += check_table_scale(data)
        if isinstance(sets, list) and len(sets) > 1:
            problems.append(Problem(("data", "sets"), "needs a single set where it is a table", sets))
    train_rows, held_out_rows = data.get("train_rows"), data.get("validation_rows")
    if isinstance(train_rows, int) and isinstance(held_out_rows, int) and held_out_rows >= train_rows:
        rule = f"needs fewer rows than train_rows ({train_rows}), of which they are held out"
        problems.append(Problem(("data", "validation_rows"), rule, held_out_rows))
    return problems


def _check_watching(data: Mapping[str, Any], stages: Sequence[Stage], variants: Sequence[Variant]) -> list[Problem]:
    """Problems of `watch` in a training without held-out rows."""
    if data.get("validation_rows") or data.get("validation") is not None:
        return []
    moved: list[Path] = [("variants", variant.name, "rows") for variant in variants if variant.rows == "held_out"]
    moved += [("stages", stage.name, "rows") for stage in stages if stage.rows["trained"] == "held_out"]
    if moved:
        rule, fix = "needs rows that are held out", "data: {validation_rows: 5000}"
        return [Problem(path, rule, "held_out", fix) for path in moved]
    if not any(part.training.watch is not None for part in (*stages, *variants)):
        return []
    rule = "must hold rows out, for training.watch decides by them"
    return [Problem(("data", "validation_rows"), rule, data.get("validation_rows", 0), "validation_rows: 5000")]


def _check_names(raw: Mapping[str, Any]) -> list[Problem]:
    """Problems of names: variants need a folder each, and the report may name only variants that exist."""
    variants = inner_mapping(raw, "variants")
    problems = []
    lower_names: dict[str, str] = {}
    for name in variants:
        if name.lower() in RESERVED:
            problems.append(Problem(("variants", name), "is the name of a folder that every study has", name))
        elif name.lower() in lower_names:
            rule = f"differs from {lower_names[name.lower()]} in case alone, and some disks keep one folder for both"
            problems.append(Problem(("variants", name), rule, name))
        lower_names[name.lower()] = name
    report = inner_mapping(raw, "report")
    curves = report.get("curves")
    lists: list[tuple[Path, Any]] = [
        (("report", "curves", place, "variants"), inner_mapping({"": figure}, "").get("variants"))
        for place, figure in enumerate(curves if isinstance(curves, list) else ())
    ]
    lists += [
        (("report", "expert_count", key), inner_mapping(report, "expert_count").get(key))
        for key in ("variants", "marks")
    ]
    references: list[tuple[Path, Any]] = [
        ((*path, place), name)
        for path, names in lists
        for place, name in enumerate(names if isinstance(names, list) else ())
    ]
    references.append((("baseline",), raw.get("baseline")))
    references += [(("report", "one_expert", end), name) for end, name in inner_mapping(report, "one_expert").items()]
    published = inner_mapping(inner_mapping(raw, "published"), "variants")
    references += [(("published", "variants", name), name) for name in published]
    return problems + [
        Problem(path, "no such variant", name, did_you_mean(name, variants))
        for path, name in references
        if isinstance(name, str) and name not in variants
    ]
