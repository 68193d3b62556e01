"""Checks the scale of pixels: that of the data, and those of variants that have another."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.registry import find, kinds
from moebius.lab.checks.problems import Path, Problem
from moebius.lab.checks.wording import validate
from moebius.lab.recipe.schema import DataChange, DataSpec

KEYS = tuple(DataChange.model_fields)


def check_table_scale(data: Mapping[str, Any], path: Path = ("data",)) -> list[Problem]:
    """The problem of a scale of pixels where the data are a table.

    Arguments:
        data: a mapping with `scale`, in a recipe whose data are a table.
        path: of it.
    """
    scale = data.get("scale", "unit")
    if scale == "unit":
        return []
    rule = "is of the pixels of images, and the data are a table, whose numbers are standardised anyway"
    return [Problem((*path, "scale"), rule, scale, "scale: unit")]


def check_unit_gates(gates: Sequence[str], scale: str, path: Path) -> list[Problem]:
    """The problem of a scale that a gate of a model cannot have, because it needs pixels from 0 to 1.

    Arguments:
        gates: kinds of the model's gates.
        scale: of the pixels that the model gets.
        path: of the scale in the recipe.

    Example:
        >>> [problem.fix for problem in check_unit_gates(["linear", "vae"], "raw", ("data", "scale"))]
        ['scale: unit']
    """
    needing = [kind for kind in gates if kind in kinds("gates") and getattr(find("gates", kind), "unit_images", False)]
    if scale == "unit" or not needing:
        return []
    return [Problem(path, f"must be unit, for the gate {needing[0]} needs pixels from 0 to 1", scale, "scale: unit")]


def list_gate_kinds(spec: Any) -> list[str]:
    """The kinds of all gates in a model part.

    Example:
        >>> list_gate_kinds({"gate": {"kind": "linear"}, "experts": [{"kind": "mixture", "gate": {"kind": "vae"}}]})
        ['linear', 'vae']
    """
    if isinstance(spec, list):
        return [kind for part in spec for kind in list_gate_kinds(part)]
    if not isinstance(spec, Mapping):
        return []
    gate = spec.get("gate")
    outer = [str(gate["kind"])] if isinstance(gate, Mapping) and "kind" in gate else []
    return [*outer, *(kind for part in spec.values() for kind in list_gate_kinds(part))]


def check_variant_scale(
    variant: str, changes: Mapping[str, Any], data: Mapping[str, Any], stages: Sequence[str]
) -> tuple[Any, list[Problem]]:
    """The scale of a variant's pixels, and the problems of what it changes of the data.

    Arguments:
        variant: its name.
        changes: what it changes; `data` is looked at.
        data: of the recipe.
        stages: names of the stages that its model uses.

    Example:
        >>> check_variant_scale("raw", {"data": {"scale": "raw"}}, {"size": 8}, [])
        ('raw', [])
    """
    shared, place = data.get("scale", "unit"), ("variants", variant, "data")
    if "data" not in changes:
        return shared, []
    change = changes["data"]
    if not isinstance(change, Mapping):
        return shared, [Problem(place, "needs a mapping of keys to values", change, "data: {scale: raw}")]
    problems = []
    for key, value in change.items():
        if key in DataSpec.model_fields and key not in KEYS:
            rule = "is the same for all variants, which are compared on the same rows"
            problems.append(Problem((*place, key), rule, value, f"data.{key} of the recipe; here {{scale: raw}} alone"))
    keys = {key: value for key, value in change.items() if key in KEYS or key not in DataSpec.model_fields}
    checked, more = validate(DataChange, keys, place) if keys or not problems else (None, [])
    scale = shared if checked is None else checked.scale
    if checked is not None and scale != shared and stages:
        rule = f"must be that of the data, {shared}, on which its stages were trained: {', '.join(stages)}"
        problems.append(Problem((*place, "scale"), rule, scale, f"scale: {shared}"))
    return scale, [*problems, *more]
