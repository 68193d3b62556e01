"""The JSON Schema of a recipe's file, by which editors complete and check keys.

It knows structure: keys, kinds, keywords, types and ranges of the schema's own keys. What only constructors know, and
which variants or stages a name may mean, `check_recipe` alone checks.
"""

from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from moebius.experts.adapter import Adapter
from moebius.kit.registry import find, kinds, summary
from moebius.lab.checks.keywords import read_keywords
from moebius.lab.checks.strict import PLACE
from moebius.lab.data.held_out_rows import TrainedRows
from moebius.lab.recipe import schema
from moebius.lab.recipe.kind_schemas import (
    Schema,
    change_schema,
    keyword_schema,
    named_schema,
    reference_to,
    room_schema,
)
from moebius.lab.recipe.layer_keys import LAYER_KEYS, LayerKey
from moebius.lab.recipe.model import ADAPTING
from moebius.lab.training.gate_losses import GateLoss
from moebius.lab.training.optimizer_choice import OPTIMIZERS, OptimizerChoice
from moebius.lab.training.settings import Settings
from moebius.networks import STARTS

# Definitions that have another for a change: what a variant, a stage or pretraining lays over.
CHANGEABLE = (
    "amount",
    "rate",
    "rate-or-null",
    "schedule",
    "optimizer",
    "gate",
    "router",
    "combine",
    "expert",
    "experts",
)
NULL: Schema = {"type": "null"}


def recipe_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a recipe's file, with all kinds that this process knows.

    Example:
        >>> recipe_schema()["$defs"]["schedule"]["oneOf"][0]["required"]
        ['kind', 'value']
    """
    file, definitions = _model_schemas()
    definitions |= _kind_definitions()
    definitions |= _mixture_definitions()
    for name in ("amount", "rate", "rate-or-null", "optimizer", "gate", "router", "combine", "schedule"):
        definitions[f"{name}-change"] = _change(definitions[name])
    definitions["expert-change"] = change_schema(definitions["expert"], _changed)
    # The kind alone stands for the mapping.
    definitions["loss"]["oneOf"].append({"enum": list(kinds("losses"))})
    for name in ("optimizer", "optimizer-change"):
        definitions[name]["oneOf"].append({"enum": list(OPTIMIZERS)})
    _add_training_change(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of moebius",
        **file,
        "$defs": dict(sorted(definitions.items())),
    }


def _model_schemas() -> tuple[Schema, dict[str, Schema]]:
    """The schema of the file, and those of the mappings inside by the names of their models."""
    roots = (schema.RecipeFile, schema.StageFile, schema.DataChange, schema.RangeSpec)
    _, generated = models_json_schema([(model, "validation") for model in roots])
    definitions = {name: _filled(value) for name, value in generated["$defs"].items()}
    # Kinds take their places.
    for model in (GateLoss, OptimizerChoice):
        del definitions[model.__name__]
    return definitions.pop("RecipeFile"), definitions


def _filled(value: Any) -> Any:
    """A copy in which references take the marked places, without titles, which repeat names."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {
        key: {name: _filled(item) for name, item in inner.items()} if key == "properties" else _filled(inner)
        for key, inner in value.items()
        if key not in (PLACE, "title")
    }
    if PLACE in value:
        copy |= reference_to(value[PLACE])
    if "patternProperties" in copy:
        copy["additionalProperties"] = False
    return copy


def _kind_definitions() -> dict[str, Schema]:
    optimizers = [
        named_schema(
            kind,
            f"torch.optim.{optimizer.__name__}",
            {
                **{word.name: keyword_schema(word, "") for word in read_keywords(optimizer, ("params",))},
                "lr": {**reference_to("rate"), "default": 1e-3},
            },
        )
        for kind, optimizer in OPTIMIZERS.items()
    ]
    default = OptimizerChoice().kind
    optimizers = [{**option, "required": []} if option["title"] == default else option for option in optimizers]
    amount = {"anyOf": [{"type": "number"}, reference_to("schedule")]}
    rate = {"anyOf": [{"type": "number", "minimum": 0}, reference_to("schedule")]}
    places = [key for key in schema.RecipeFile.model_fields if key != "presets"]
    return {
        "amount": {"description": "A number, or a schedule of it over the epochs.", **amount},
        "rate": {"description": "A number of at least 0, or a schedule of it over the epochs.", **rate},
        "rate-or-null": {"anyOf": [*rate["anyOf"], NULL]},
        "schedule": room_schema("schedules"),
        "source": room_schema("data.sources"),
        "augmentation": room_schema("data.augmentation"),
        # The kind alone stands for the mapping.
        "task": {"oneOf": [*room_schema("tasks")["oneOf"], {"enum": list(kinds("tasks"))}]},
        "loss": room_schema("losses", {"weight": {**reference_to("amount"), "default": 1.0}}),
        "router": room_schema("routers"),
        "combine": room_schema("combine"),
        "optimizer": {"oneOf": optimizers},
        "execution": {"enum": list(kinds("execution"))},
        "swept-values": {"anyOf": [{"type": "array", "minItems": 1}, reference_to("RangeSpec")]},
        "preset": {
            "description": "Dotted keys, such as training.epochs or data.sets[0].name, and their values.",
            "type": "object",
            "propertyNames": {"pattern": rf"^({'|'.join(places)})([.\[]|$)"},
        },
    }


def _mixture_definitions() -> dict[str, Schema]:
    count = {"type": "integer", "minimum": 1, "default": 1, "description": "Number of such experts."}
    single = {"const": 1, "default": 1, "description": "A stage is one network."}
    adapting = [word for word in read_keywords(Adapter) if word.name in ADAPTING]
    text = "The network of a stage, with its trained weights."
    stage = {
        "stage": {"type": "string", "description": "Name of the stage."},
        "part": {"type": "string", "description": "Path of a module inside what the stage trains; the whole of it."},
        **{word.name: keyword_schema(word, "experts") for word in adapting},
    }
    stage["frozen"] = {**stage["frozen"], "default": True}
    parts = {
        "gate": reference_to("gate"),
        "router": {**reference_to("router"), "default": {"kind": "soft"}},
        "experts": reference_to("experts"),
        "combine": {**reference_to("combine"), "default": {"kind": "weighted_sum"}},
        "execution": {**reference_to("execution"), "default": "auto"},
    }
    starts = {"enum": list(STARTS), "description": "The start of all networks inside that name none."}
    parts["init"] = starts
    layers = {"layers": {**_list_of("layer"), "description": "In place of all others: parts one after another."}}
    model = {"type": "object", "properties": {**parts, **layers}, "additionalProperties": False}
    nested = named_schema("mixture", "A mixture as an expert.", {**parts, "count": count}, ["gate", "experts"])
    gates = [*room_schema("gates")["oneOf"], named_schema("stage", text, stage, ["stage"])]
    experts = room_schema("experts", {"count": count})["oneOf"]
    changes = {name: _changed(part) for name, part in parts.items()}
    variant = {
        **changes,
        **layers,
        "data": reference_to(schema.DataChange.__name__),
        "training": reference_to("Settings-change"),
        "rows": {
            "enum": list(get_args(TrainedRows)),
            "default": "train",
            "description": "The rows that it is trained on: train, or the held-out ones, but for a fifth (held_out).",
        },
    }
    return {
        "gate": {"oneOf": gates},
        "expert": {"oneOf": [*experts, nested, named_schema("stage", text, {**stage, "count": single}, ["stage"])]},
        "experts": {"anyOf": [reference_to("expert"), _list_of("expert")]},
        "layer": {
            "oneOf": [
                *room_schema("layers")["oneOf"],
                *(_expert_layer(kind) for kind in LAYER_KEYS if kind != "ple"),
                named_schema("ple", summary(find("layers", "ple")), {"levels": _levels()}, ["levels"]),
                *room_schema("experts")["oneOf"],
                named_schema("mixture", "A mixture as a part.", parts, ["gate", "experts"]),
                named_schema("stage", text, stage, ["stage"]),
            ]
        },
        "experts-change": {"anyOf": [reference_to("expert-change"), _list_of("expert")]},
        "network-change": reference_to("expert-change"),
        "model": {**model, "description": "What the variants share of their models."},
        "mixture-or-null": {
            "anyOf": [{**model, "required": ["gate", "experts"]}, {**model, "required": ["layers"]}, NULL]
        },
        "variant": {
            "description": "What one model of the comparison changes.",
            "type": ["object", "null"],
            "properties": variant,
            "additionalProperties": False,
        },
    }


def _expert_layer(kind: str) -> Schema:
    """A layer whose parts a recipe names."""
    keys = LAYER_KEYS[kind]
    properties = {key.name: {**_layer_value(key), "description": key.text} for key in keys}
    return named_schema(kind, summary(find("layers", kind)), properties, [key.name for key in keys if key.example])


def _layer_value(key: LayerKey) -> Schema:
    if key.form == "axis":
        return {"enum": [1, -1]}
    # A network for a tower has no count, which the checks say; the definition is that of an expert.
    value = reference_to({"network": "expert"}.get(key.form, key.form))
    if not key.by_name:
        return value
    not_an_entry = {"properties": {"kind": {"not": {"type": "string"}}}, "minProperties": 1}
    by_name = {"type": "object", "additionalProperties": value, **not_an_entry}
    return {"anyOf": [value, by_name, *([] if key.example else [NULL])]}


def _levels() -> Schema:
    level = {**_expert_layer("cgc"), "title": "a level"}
    return {"type": "array", "minItems": 1, "items": {**level, "required": [*level["required"]][1:]}}


def _list_of(definition: str) -> Schema:
    return {"type": "array", "items": reference_to(definition), "minItems": 1}


def _change(definition: Schema) -> Schema:
    """The definition of a change of what a definition describes."""
    if "oneOf" in definition:
        return change_schema(definition, _changed)
    return {"anyOf": [_changed(option) for option in definition["anyOf"]]}


def _changed(value: Schema) -> Schema:
    """The schema of a change of a value: a reference to a definition that can change becomes one to its change."""
    name = value.get("$ref", "").removeprefix("#/$defs/")
    if name in CHANGEABLE:
        return {**value, **reference_to(f"{name}-change")}
    return {**value, "anyOf": [_changed(option) for option in value["anyOf"]]} if "anyOf" in value else value


def _add_training_change(definitions: dict[str, Schema]) -> None:
    """Add the change of `training`, and those of the mappings in it: no key is required, lists are replaced whole."""

    def loosen(value: Schema) -> Schema:
        name = value.get("$ref", "").removeprefix("#/$defs/")
        if "properties" in definitions.get(name, ()):
            add(name)
            return {**value, **reference_to(f"{name}-change")}
        value = _changed(value)
        if "anyOf" in value:
            return {**value, "anyOf": [loosen(option) for option in value["anyOf"]]}
        inner = value.get("additionalProperties")
        return {**value, "additionalProperties": loosen(inner)} if isinstance(inner, dict) else value

    def add(name: str) -> None:
        definition = {key: value for key, value in definitions[name].items() if key != "required"}
        properties = {key: loosen(value) for key, value in definition["properties"].items()}
        definitions[f"{name}-change"] = {**definition, "properties": properties}

    add(Settings.__name__)
