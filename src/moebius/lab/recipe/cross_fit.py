"""`rows: {cross_fit: K}`: what learns on stages learns from their outputs for rows that they were not trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from moebius.lab.checks.problems import Path, Problem
from moebius.lab.data.folds import fold_count, fold_names
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.resolve import list_stage_names
from moebius.lab.recipe.schema import Stage, Variant
from moebius.lab.training.cross_fit import uncached_stages

FIX = "rows: held_out, or {cross_fit: 5}"


def check_rows(rows: Any, place: Path) -> list[Problem]:
    """The problem of a value of the key `rows`, at its place."""
    if rows in ("train", "held_out"):
        return []
    if not isinstance(rows, Mapping) or set(rows) != {"cross_fit"}:
        return [Problem((*place, "rows"), "needs train, held_out, or cross_fit with a number of folds", rows, FIX)]
    folds = rows["cross_fit"]
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        rule = "needs a whole number of folds, at least 2"
        return [Problem((*place, "rows", "cross_fit"), rule, folds, "cross_fit: 5")]
    return []


def check_cross_fit(
    stages: Sequence[Stage],
    variants: Sequence[Variant],
    facts: Mapping[str, Any] | None,
    specs: Mapping[str, Mapping[str, Any]],
) -> list[Problem]:
    """Problems of cross-fitting: rows whose outputs cannot be those of networks that were trained without them.

    Arguments:
        stages, variants: valid by themselves.
        facts: of the data; None not to build anything.
        specs: of the stages.
    """
    problems = []
    crossed = {stage.name for stage in stages if fold_count(stage.rows["trained"])}
    for part, place in _parts(stages, variants):
        folds = fold_count(part.rows if isinstance(part, Variant) else part.rows["trained"])
        if folds is None:
            continue
        place, value = (*place, "rows"), {"cross_fit": folds}
        names = list_stage_names(part.model)
        inner = [name for name in _all_stage_names(names, stages) if name in crossed]
        rule, fix = None, FIX
        if not names:
            rule, fix = "is for models that use stages", "rows: train"
        elif inner:
            rule = f"cannot use stage {inner[0]}, which is cross-fitted itself"
        elif part.training.augment and part.training.views is None:
            rule, fix = "needs rows whose outputs are computed once, and training.augment draws them anew", "views: 4"
        elif not part.training.remember:
            rule, fix = "needs outputs that are computed once for each row", "training: {remember: true}"
        elif facts is not None:
            left = _left_out(part, facts if isinstance(part, Variant) else specs[part.name]["facts"], specs)
            if left:
                rule = f"needs frozen stages that get the data's rows, and {left[0]} is none here"
                fix = "take out frozen: false, or rows: held_out"
        if rule is not None:
            problems.append(Problem(place, rule, value, fix))
    return problems


def _left_out(part: Stage | Variant, facts: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    networks = StageNetworks(specs)
    with torch.device("meta"), torch.no_grad():
        model = build_model(part.model, facts, networks)
    return uncached_stages(model, networks.sources)


def with_folds(stages: Sequence[Stage], variants: Sequence[Variant]) -> list[Stage]:
    """The stages, and after each that is used by something cross-fitted its copies without a fold, which use copies."""
    counts: dict[str, set[int]] = {stage.name: set() for stage in stages}
    for part, _ in _parts(stages, variants):
        folds = fold_count(part.rows if isinstance(part, Variant) else part.rows["trained"])
        if folds is not None:
            for name in _all_stage_names(list_stage_names(part.model), stages):
                counts[name].add(folds)
    return [
        each
        for stage in stages
        for each in (stage, *(copy for folds in sorted(counts[stage.name]) for copy in _copies(stage, folds)))
    ]


def _copies(stage: Stage, folds: int) -> Iterator[Stage]:
    for number, name in enumerate(fold_names(stage.name, folds)):
        model = _rename(stage.model, number, folds)
        yield replace(stage, name=name, model=model, rows={**stage.rows, "fold": [number, folds]})


def _rename(part: Any, fold: int, folds: int) -> Any:
    """A model part that uses the copies of its stages."""
    if isinstance(part, Mapping):
        renamed = {key: _rename(value, fold, folds) for key, value in part.items()}
        if part.get("kind") == "stage":
            renamed["stage"] = fold_names(part["stage"], folds)[fold]
        return renamed
    return [_rename(each, fold, folds) for each in part] if isinstance(part, list | tuple) else part


def _parts(stages: Sequence[Stage], variants: Sequence[Variant]) -> Iterator[tuple[Stage | Variant, Path]]:
    yield from ((stage, ("stages", stage.name)) for stage in stages)
    yield from ((variant, ("variants", variant.name)) for variant in variants)


def _all_stage_names(names: Sequence[str], stages: Sequence[Stage]) -> list[str]:
    """These stages and those that they use."""
    by_name = {stage.name: stage for stage in stages}
    inner = [each for name in names for each in _all_stage_names(list_stage_names(by_name[name].model), stages)]
    return list(dict.fromkeys([*names, *inner]))
