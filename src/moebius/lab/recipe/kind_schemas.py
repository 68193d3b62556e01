"""JSON Schemas of `{kind: …, keyword: value}`, from the signatures of the components that the registry finds.

A *complete* schema requires the kind and the keywords that have no default. A *change* is laid over another mapping, as
a variant's `gate` over the model's: its kind may be left out, and so may every keyword.
"""

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from torch import nn

from moebius.core.routing import Router
from moebius.kit.registry import find, kinds, summary
from moebius.lab.checks.keywords import REQUIRED, Keyword, list_keywords
from moebius.tasks._task import Task

Schema = dict[str, Any]


def reference_to(definition: str) -> Schema:
    """A reference to a definition of the recipe's schema."""
    return {"$ref": f"#/$defs/{definition}"}


def room_schema(room: str, besides: Mapping[str, Schema] | None = None) -> Schema:
    """One of the kinds of a room, complete.

    Arguments:
        room: a room of the registry.
        besides: keys that are not the component's, such as an expert's `count`.
    """
    return {"oneOf": [kind_schema(room, kind, besides) for kind in writable_kinds(room)]}


def kind_schema(room: str, kind: str, besides: Mapping[str, Schema] | None = None) -> Schema:
    """One kind of a room, complete; arguments as for `room_schema`."""
    keywords = list_keywords(room, kind)
    required = [word.name for word in keywords if word.default is REQUIRED and not word.from_data]
    properties = {word.name: keyword_schema(word, room) for word in keywords}
    return named_schema(kind, summary(find(room, kind)), {**properties, **(besides or {})}, required)


def named_schema(kind: str, description: str, properties: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """A mapping of this kind with these keywords."""
    return {
        "title": kind,
        "description": description,
        "type": "object",
        "properties": {"kind": {"const": kind}, **properties},
        "required": ["kind", *required],
        "additionalProperties": False,
    }


def change_schema(complete: Schema, changed: Callable[[Schema], Schema] = lambda schema: schema) -> Schema:
    """A change of what `complete` describes: a kind with some of its keywords, or keywords of any kind alone.

    Arguments:
        complete: a schema with `oneOf`, a mapping for each kind.
        changed: from the schema of a keyword to that of its change.
    """
    options, union = [], {}
    for option in complete["oneOf"]:
        properties = {name: changed(schema) for name, schema in option["properties"].items()}
        options.append({**option, "properties": properties, "required": ["kind"]})
        for name, schema in properties.items():
            if name != "kind":
                union.setdefault(name, []).append(schema)
    without_kind = {
        "title": "a change of the same kind",
        "type": "object",
        "properties": {name: any_of(schemas) for name, schemas in union.items()},
        "additionalProperties": False,
    }
    return {"oneOf": [*options, without_kind]}


def any_of(schemas: Iterable[Schema]) -> Schema:
    """Any of these schemas, each once; texts and defaults do not tell two apart."""
    texts = ("description", "default")
    bare = [{key: value for key, value in schema.items() if key not in texts} for schema in schemas]
    distinct = [schema for place, schema in enumerate(bare) if schema not in bare[:place]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def keyword_schema(keyword: Keyword, room: str) -> Schema:
    """The values that a keyword of a component takes."""
    schema = reference_to("gate") if room == "gates" and keyword.takes_gate else value_schema(keyword.annotation)
    if room == "losses" and _takes_numbers(schema):
        schema = {"anyOf": [schema, reference_to("schedule")]}
    described = {**schema, "description": keyword.text} if keyword.text else schema
    if keyword.default is REQUIRED or not _is_plain(keyword.default):
        return described
    return {**described, "default": keyword.default}


def value_schema(annotation: Any) -> Schema:
    """The values of a type; {}, which takes everything, for a type that YAML cannot write."""
    if annotation is Router:
        return reference_to("router")
    if annotation == Mapping[str, Task]:
        return {"type": "object", "additionalProperties": reference_to("task")}
    if annotation in (Any, typing.Callable):
        return {}
    try:
        schema = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        return {}
    return {key: value for key, value in schema.items() if key != "title"}


def writable_kinds(room: str) -> list[str]:
    """The kinds of a room that YAML can write: no required keyword is a module or another object, none keeps rows."""
    return [
        kind
        for kind in kinds(room)
        if all(_is_writable(keyword, room) for keyword in list_keywords(room, kind))
        and not getattr(find(room, kind), "keeps_rows", False)
    ]


def _is_writable(keyword: Keyword, room: str) -> bool:
    if keyword.default is not REQUIRED or keyword.annotation is Any or (room == "gates" and keyword.takes_gate):
        return True
    return not _holds_modules(keyword.annotation) and bool(value_schema(keyword.annotation))


def _holds_modules(annotation: Any) -> bool:
    """Whether a type is that of modules, or of a mapping or a list of them; routers can be written."""
    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return not issubclass(annotation, Router)
    return any(map(_holds_modules, typing.get_args(annotation)))


def _takes_numbers(schema: Schema) -> bool:
    return "number" in [option.get("type") for option in (schema, *schema.get("anyOf", ()))]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
