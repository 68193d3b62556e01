"""The stages of a study, and a hash of all that each depends on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.data.select_rows import OWN_AND_OTHER, class_positions, select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.resolve import list_stage_names
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.recipe.schema import Recipe
from moebius.lab.study.run_spec import DEFAULT_TASK

# Increase it when training the same stage gives another result.
VERSION = 1
# Settings that change no result.
UNSETTLED = {"checkpoint_seconds", "remember"}


def plan_stages(
    recipe: Recipe, data: Dataset, plugins: Sequence[Plugin] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The description of each stage, as for `moebius.lab.model.build.StageNetworks`, and a hash of what determines it.

    The hash covers the data, their selected rows, the network, the training, the plugins and the hashes of the stages
    that it uses: a finished stage is kept as long as none of these changes, however the models that use it change.

    Raises:
        ArgumentError: a stage names classes or sets that the data do not have.
    """
    specs: dict[str, dict[str, Any]] = {}
    hashes: dict[str, str] = {}
    for stage in recipe.stages:
        try:
            rows = select_rows(data, **stage.rows)
        except ArgumentError as error:
            raise error.inside(f"stages.{stage.name}") from None
        classes = class_positions(stage.rows["classes"], data.classes)
        counts_own = stage.rows["outputs"] in ("own", OWN_AND_OTHER)
        labels = [] if stage.rows["groups"] is not None else classes if counts_own else None
        specs[stage.name] = {
            "model": stage.model,
            "part": stage.part,
            "facts": rows.facts,
            "classes": classes,
            "labels": labels,
            "others": stage.rows["outputs"] == OWN_AND_OTHER,
        }
        training = stage.training.model_dump(mode="json", exclude=UNSETTLED)
        used_hashes = {name: hashes[name] for name in list_stage_names(stage.model)}
        parts = [VERSION, rows.fingerprint, stage.name, dict(stage.model), training, used_hashes]
        # What is as it always was adds nothing: a stage from before there was a choice keeps its hash.
        parts += [] if recipe.task == DEFAULT_TASK else [recipe.task]
        parts += [] if recipe.data.scale == "unit" else [{"scale": recipe.data.scale}]
        parts += [] if recipe.data.split == "fixed" else [{"split": recipe.data.split}]
        hashes[stage.name] = digest([*parts, *sorted(plugin.digest for plugin in plugins)])
    return specs, hashes


def list_all_stage_names(model: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the stages that a model uses, directly or through other stages, in the order of `specs`."""
    used, waiting = set(), list(list_stage_names(model))
    while waiting:
        name = waiting.pop()
        used.add(name)
        waiting += [inner for inner in list_stage_names(specs[name]["model"]) if inner not in used]
    return [name for name in specs if name in used]


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that differ where the values do."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
