"""Which stages a study has, and what each depends on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.data.select_rows import known_classes, select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import stage_names
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.recipe.schema import Recipe

# Raise it when the same stage would come out otherwise.
VERSION = 1
# Settings that change no result.
UNSETTLED = {"checkpoint_seconds", "remember"}


def plan_stages(
    recipe: Recipe, data: Dataset, plugins: Sequence[Plugin] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What `moebius.lab.model.build.Stages` is given for each stage, and a hash of all that its weights depend on.

    The hash names the data, the rows of them, the network, the training, the plugins and the hashes of the stages that
    it uses: a finished stage is kept as long as none of these changes, whatever becomes of the models that use it.

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
        classes = known_classes(stage.rows["classes"], data.classes)
        counted = [] if stage.rows["groups"] is not None else classes if stage.rows["outputs"] == "own" else None
        specs[stage.name] = {
            "model": stage.model,
            "part": stage.part,
            "facts": rows.facts,
            "classes": classes,
            "labels": counted,
        }
        training = stage.training.model_dump(mode="json", exclude=UNSETTLED)
        used = {name: hashes[name] for name in stage_names(stage.model)}
        described = [VERSION, rows.fingerprint, stage.name, dict(stage.model), training, used]
        # Without plugins nothing is added: stages from before there were any keep their hash.
        hashes[stage.name] = digest([*described, *sorted(plugin.digest for plugin in plugins)])
    return specs, hashes


def all_stage_names(model: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the stages that a model uses, directly or through other stages, in the order of `specs`."""
    wanted, waiting = set(), list(stage_names(model))
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += [inner for inner in stage_names(specs[name]["model"]) if inner not in wanted]
    return [name for name in specs if name in wanted]


def digest(value: Any) -> str:
    """Sixteen figures that differ where the values do."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
