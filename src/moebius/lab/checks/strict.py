"""What the mappings of a recipe have in common: no unknown keys, no conversions, marked places for kinds."""

import copy
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

from moebius.kit.registry import summary
from moebius.lab.checks.keywords import parse_arguments

# The key by which `json_schema` finds the places that a definition of its own fills, such as `{kind: …}` of a room.
PLACE = "x-moebius"
AtLeastOne = Annotated[int, Field(ge=1)]


class _Name(str):
    """The name of a function, a class or an object's class, without quotes in a representation."""

    @classmethod
    def of(cls, value: Any) -> "_Name":
        return cls(getattr(value, "__name__", type(value).__name__))

    def __repr__(self) -> str:
        return str(self)


class Strict(BaseModel):
    """A mapping with known keys and no conversions: 2 is a number, "2" is text."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        resolved["description"] = summary(cls)
        texts = parse_arguments(cls.__doc__)
        for name, value in resolved["properties"].items():
            value["description"] = texts[name]
        return schema

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # What differs from the defaults.
        fields = type(self).model_fields
        for name, value in self:
            if name not in fields or getattr(value, "plain", value) != fields[name].default:
                is_plain = value is None or isinstance(value, Strict | bool | int | float | str | list | tuple | dict)
                yield name, value if is_plain or hasattr(value, "plain") else _Name.of(value)


class Keywords(Strict):
    """A mapping that also takes keywords of the component that its `kind` names."""

    model_config = ConfigDict(extra="allow")

    @property
    def keywords(self) -> dict[str, Any]:
        """The keys that the schema does not know: keywords of the class or function that `kind` names."""
        return copy.deepcopy(self.model_extra or {})


def place_of(definition: str) -> WithJsonSchema:
    """Mark a type: in the JSON Schema, the definition of this name takes its place."""
    return WithJsonSchema({PLACE: definition})
