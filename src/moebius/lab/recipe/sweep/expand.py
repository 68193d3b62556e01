"""A sweep becomes variants: each point is its variant with the swept values laid over it last."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moebius.kit.merge import merge, merge_model
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import Path, Problem, inner_mapping, parse_path, path_text
from moebius.lab.recipe.overrides import assign_value
from moebius.lab.recipe.schema.resolved import Point, Variant
from moebius.lab.recipe.schema.sweep import SweepSpec
from moebius.lab.recipe.sweep.names import point_name, value_text
from moebius.lab.recipe.sweep.values import combine_values, spread_values
from moebius.lab.recipe.training import with_optimizer

Check = Callable[[str, Mapping[str, Any]], tuple[Variant | None, list[Problem]]]


def expand_sweep(
    raw: Mapping[str, Any],
    sweep: SweepSpec,
    variants: Sequence[Variant],
    check_variant: Check,
    proposals: Sequence[Point] = (),
) -> tuple[tuple[Variant, ...], list[Problem]]:
    """The variants with the points of a sweep in place of those that are swept, and the problems of the sweep.

    Arguments:
        raw: the plain values of the recipe.
        sweep: its sweep.
        variants: its variants, which have no problems by themselves.
        check_variant: gives the variant of a name and its complete values, and their problems.
        proposals: the points of a sweep by optuna so far; points of its kinds of values are checked beside them.
    """
    names = [variant.name for variant in variants]
    problems = [*_check_names(sweep, names), *_check_held_out(raw)]
    keys = swept_keys(sweep, names)
    problems += [problem for key in sweep.keys for problem in _check_key(key, sweep.keys[key], names)]
    if problems:
        return tuple(variants), problems
    for name in sweep.variants or ():
        if name not in keys:
            rule = "no swept key applies to it"
            problems.append(Problem(("sweep", "variants", sweep.variants.index(name)), rule, name))  # type: ignore[union-attr]
    tried = {name: combine_values(sweep, {key: sweep.keys[key] for key in paths}) for name, paths in keys.items()}
    count = sum(map(len, tried.values())) if sweep.method != "optuna" else sweep.trials * len(tried)
    if count > sweep.most:
        rule = f"make {count:,} points, and sweep.most allows {sweep.most:,}"
        problems.append(Problem(("sweep", "keys"), rule, list(sweep.keys), f"fewer values, or sweep.most={count}"))
    expanded: list[Variant] = []
    wrong: list[tuple[str, Problem]] = []
    for variant in variants if not problems else ():
        if variant.name not in tried:
            expanded.append(variant)
            continue
        points = [Point(variant.name, values) for values in tried[variant.name]]
        chosen = points if sweep.method != "optuna" else [point for point in proposals if point.variant == variant.name]
        for point in [*chosen, *(points if sweep.method == "optuna" else ())]:
            result, point_problems = _check_point(raw, point, keys[variant.name], check_variant)
            placed = (_place_problem(problem, point, keys[variant.name], sweep) for problem in point_problems)
            wrong += [(variant.name, problem) for problem in placed]
            if result is not None and any(point is each for each in chosen):
                expanded.append(result)
    return tuple(expanded), [*problems, *_gather(wrong, sweep)]


def swept_keys(sweep: SweepSpec, variants: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Swept variant → the keys that apply to it → their paths in its complete values."""
    names = [name for name in variants if sweep.variants is None or name in sweep.variants]
    return {name: paths for name in names if (paths := _keys_of(sweep, name))}


def _keys_of(sweep: SweepSpec, variant: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for key in sweep.keys:
        head, *rest = parse_path(key)
        if head == "variants" and rest and str(rest[0]) == variant:
            paths[key] = tuple(rest[1:])
        elif head == "model":
            paths[key] = tuple(rest)
        elif head in ("data", "training"):
            paths[key] = (head, *rest)
    return paths


def _check_key(key: str, tried: Any, variants: Sequence[str]) -> Iterator[Problem]:
    place = ("sweep", "keys", key)
    head, *rest = parse_path(key)
    if head == "variants" and rest and str(rest[0]) not in variants:
        yield Problem(place, "no such variant", rest[0], did_you_mean(str(rest[0]), variants))
    elif key != "data.scale" and (
        head not in ("model", "training", "variants") or len(rest) < (2 if head == "variants" else 1)
    ):
        rule = (
            "needs a key of the models or of their training, or data.scale, because the points of a sweep share "
            "everything else"
        )
        yield Problem(place, rule, key, "such as training.gate.lr, model.experts.count or variants.NAME.gate.hidden")
    texts = [value_text(value).lower() for value in spread_values(tried)]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            yield Problem((*place, index), "occurs twice", spread_values(tried)[index])


def _check_names(sweep: SweepSpec, names: Sequence[str]) -> Iterator[Problem]:
    for index, name in enumerate(sweep.variants or ()):
        if name not in names:
            yield Problem(("sweep", "variants", index), "no such variant", name, did_you_mean(name, names))


def _check_held_out(raw: Mapping[str, Any]) -> Iterator[Problem]:
    data = inner_mapping(raw, "data")
    if not data.get("validation_rows") and data.get("validation") is None:
        rule = "must hold rows out, for a sweep is decided by them and never by the test rows"
        yield Problem(("data", "validation"), rule, data.get("validation"), "data.validation=0.1")


def _check_point(
    raw: Mapping[str, Any], point: Point, paths: Mapping[str, Path], check_variant: Check
) -> tuple[Variant | None, list[Problem]]:
    values = _complete_values(raw, point.variant)
    for key, path in paths.items():
        problem = assign_value(values, path, point.values[key])
        if isinstance(problem, Problem):
            return None, [problem]
    name = point_name(point.variant, point.values)
    variant, problems = check_variant(name, values)
    if variant is None or problems:
        # The paths of problems begin where the values of the variant begin.
        lead = {("variants", name): 2, ("model",): 1}
        return None, [
            problem.at(problem.path[next((n for start, n in lead.items() if problem.path[: len(start)] == start), 0) :])
            for problem in problems
        ]
    return replace(variant, point=point), []


def _complete_values(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All that a variant says, with what variants share filled in: its values need nothing below them."""
    changes = inner_mapping(inner_mapping(raw, "variants"), name)
    model, training = inner_mapping(raw, "model"), with_optimizer(inner_mapping(raw, "training"))
    model_changes = {key: value for key, value in changes.items() if key not in ("data", "training", "rows")}
    merged = merge_model(model, model_changes)
    shared = {"scale": inner_mapping(raw, "data").get("scale", "unit")}
    of_data = {"data": merge(shared, inner_mapping(changes, "data"))}
    of_data |= {"rows": changes["rows"]} if "rows" in changes else {}
    return copy.deepcopy({**merged, **of_data, "training": merge(training, dict(changes.get("training") or {}))})


def _place_problem(problem: Problem, point: Point, paths: Mapping[str, Path], sweep: SweepSpec) -> Problem:
    """The problem at the swept key that makes it."""
    for key, path in paths.items():
        if problem.path[: len(path)] == path or path[: len(problem.path)] == problem.path:
            place: Path = ("sweep", "keys", key)
            rest = problem.path[len(path) :]
            tried = sweep.keys[key]
            if isinstance(tried, list) and point.values[key] in tried:
                place = (*place, tried.index(point.values[key]), *rest)
            return problem.at(place)
    rule = f"make {point_name(point.variant, point.values)}, whose {path_text(problem.path)} {problem.rule}"
    return Problem(("sweep", "keys"), rule, problem.value, problem.fix)


def _gather(problems: Sequence[tuple[str, Problem]], sweep: SweepSpec) -> Iterator[Problem]:
    """Each problem once, with the variants that have it; at the key where all of its values have it."""
    variants: dict[tuple[Path, str], list[str]] = {}
    firsts: dict[tuple[Path, str], Problem] = {}
    for name, problem in problems:
        names = variants.setdefault((problem.path, problem.rule), [])
        names += [name] if name not in names else []
        firsts.setdefault((problem.path, problem.rule), problem)
    for (path, rule), problem in firsts.items():
        tried = sweep.keys.get(str(path[2])) if len(path) > 3 else None
        if isinstance(tried, list) and len(tried) > 1:
            shared = [(*path[:3], index, *path[4:]) for index in range(len(tried))]
            if all((each, rule) in firsts for each in shared):
                if path != shared[0]:
                    continue
                path = path[:3]
        names = variants[problem.path, rule]
        yield Problem(path, f"{rule} (in {', '.join(names)})", problem.value, problem.fix)
